//! One directive's words, read as what they should be, with errors that say where and how.

use std::{net::Ipv4Addr, ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    error::{Error, Place},
    lexer::Line,
    server::{Draft, Source},
};

/// A directive being applied to a draft.
pub(super) struct Directive<'a> {
    pub(super) draft: &'a mut Draft,
    pub(super) line: &'a Line,
}

impl Directive<'_> {
    /// An error at this line.
    pub(super) fn error(&self, sentence: impl Into<String>, cure: impl Into<String>) -> Error {
        Error::at(Place::line(&self.draft.server.file, self.line.number), sentence, cure)
    }

    /// The word at `index`, if it is there.
    pub(super) fn optional(&self, index: usize) -> Option<&str> {
        self.line.words.get(index).map(String::as_str)
    }

    /// The word at `index`; the table has checked that it is there.
    pub(super) fn word(&self, index: usize) -> Result<&str, Error> {
        self.optional(index)
            .filter(|word| !word.is_empty())
            .ok_or_else(|| self.error(format!("`{}` lacks a word", self.line.name), "see openvpn(8)"))
    }

    /// A number within `range`.
    pub(super) fn number<T>(&self, index: usize, range: RangeInclusive<T>) -> Result<T, Error>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let word = self.word(index)?;
        word.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            self.error(
                format!("`{}` of `{}` is not a number it can have", shown(word), self.line.name),
                format!("write one from {} to {}", range.start(), range.end()),
            )
        })
    }

    /// A number within `range`, or `default` where the word is absent.
    pub(super) fn number_or<T>(&self, index: usize, range: RangeInclusive<T>, default: T) -> Result<T, Error>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        if self.optional(index).is_some() { self.number(index, range) } else { Ok(default) }
    }

    /// A time in seconds, at least `least`.
    pub(super) fn seconds(&self, index: usize, least: u32) -> Result<Duration, Error> {
        Ok(Duration::from_secs(self.number(index, least..=MAX_SECONDS)?.into()))
    }

    /// An IPv4 address.
    pub(super) fn address(&self, index: usize) -> Result<Ipv4Addr, Error> {
        let word = self.word(index)?;
        word.parse().map_err(|_| {
            self.error(
                format!("`{}` is not an IPv4 address", shown(word)),
                "write one as 10.10.21.5: names and IPv6 come later",
            )
        })
    }

    /// A subnet's mask.
    pub(super) fn netmask(&self, index: usize) -> Result<Ipv4Addr, Error> {
        let mask = self.address(index)?;
        let bits = mask.to_bits();
        if bits.leading_ones() + bits.trailing_zeros() == 32 && bits.leading_ones() > 0 {
            return Ok(mask);
        }
        Err(self.error(format!("{mask} is not a subnet's mask"), "write one as 255.255.255.0"))
    }

    /// A path to write to or read from.
    pub(super) fn path(&self) -> Result<PathBuf, Error> {
        Ok(PathBuf::from(self.word(0)?))
    }

    /// A file, or the block in its place.
    pub(super) fn source(&self) -> Result<Source, Error> {
        let line = self.line.number;
        if let Some(text) = &self.line.block {
            return Ok(Source::Inline { text: text.clone(), line });
        }
        if self.optional(0) == Some("[inline]") {
            return Err(self.error(
                "`[inline]` needs nothing beside the block itself",
                format!("take the line out and keep the block <{}>", self.line.name),
            ));
        }
        Ok(Source::File { path: self.path()?, line })
    }

    /// The error for a word that is none of `known`.
    pub(super) fn not_among(&self, index: usize, known: &str) -> Error {
        let word = shown(self.optional(index).unwrap_or_default());
        self.error(format!("`{}` does not take `{word}`", self.line.name), format!("write {known}"))
    }
}

/// Longest time a directive may give: a bit more than 68 years, so that sums of times never overflow.
const MAX_SECONDS: u32 = i32::MAX as u32;

/// A word as it may stand in an error: bounded, without control characters.
pub(super) fn shown(word: &str) -> String {
    let mut shown: String = word.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if word.chars().nth(60).is_some() {
        shown.push_str("...");
    }
    shown
}
