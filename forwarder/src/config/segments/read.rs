//! Tables of TOML, read as what they should be, with errors that say where and how.

use std::{fmt::Display, num::NonZeroU32, ops::Range, ops::RangeInclusive, path::Path};

use clap::ValueEnum;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::{Error, Place, nearest::nearest, words::shown};

/// The whole file as TOML.
pub(super) fn document<'a>(text: &'a str, file: &Path) -> Result<Spanned<DeTable<'a>>, Error> {
    DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let sentence = format!("this is not TOML: {}", one_line(error.message()));
        Error::at(Place::line(file, line_of(text, at)), sentence, "write `key = value`, and text in quotes")
    })
}

/// The parser's words, which may span lines.
fn one_line(message: &str) -> String {
    let words: String = message.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    words.trim().chars().take(200).collect()
}

/// The line, counted from 1, that the byte at `at` stands in.
fn line_of(text: &str, at: usize) -> u32 {
    let before = text.as_bytes().get(..at.min(text.len())).unwrap_or_default();
    // A text that ends with its line's end has no line behind it.
    let at_end = at >= text.len() && text.ends_with('\n');
    let ends = before.iter().filter(|byte| **byte == b'\n').count() - usize::from(at_end);
    u32::try_from(ends + 1).unwrap_or(u32::MAX)
}

/// A table, where it stands and what it is called.
pub(super) struct Table<'a> {
    table: &'a DeTable<'a>,
    text: &'a str,
    file: &'a Path,
    span: Range<usize>,
    /// With a dot at its end, or empty: goes before a key.
    path: String,
}

impl<'a> Table<'a> {
    /// The file's own.
    pub(super) fn root(root: &'a Spanned<DeTable<'a>>, text: &'a str, file: &'a Path) -> Self {
        Self { table: root.get_ref(), text, file, span: 0..0, path: String::new() }
    }

    /// Its line.
    pub(super) fn line(&self) -> u32 {
        line_of(self.text, self.span.start)
    }

    /// Something wrong with it as a whole.
    pub(super) fn error(&self, sentence: impl Into<String>, cure: impl Into<String>) -> Error {
        Error::at(Place::line(self.file, self.line()), sentence, cure)
    }

    /// Something wrong with what stands under `key`.
    pub(super) fn error_at(&self, key: &str, sentence: impl Into<String>, cure: impl Into<String>) -> Error {
        let at = self.table.get(key).map_or(self.span.start, |value| value.span().start);
        Error::at(Place::line(self.file, line_of(self.text, at)), sentence, cure)
    }

    /// Every key must be one of `known`.
    pub(super) fn refuse_unknown(&self, known: &[&'static str]) -> Result<(), Error> {
        let unknown = self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(first) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let cure = match nearest(first.get_ref(), known.iter().copied()) {
            Some(near) => format!("perhaps `{near}` is meant"),
            None => format!("write one of {}", known.join(", ")),
        };
        let sentence = format!("`{}{}` is unknown", self.path, shown(first.get_ref()));
        let line = line_of(self.text, first.span().start);
        Err(Error::at(Place::line(self.file, line), sentence, cure))
    }

    /// The table under `key`.
    pub(super) fn table(&self, key: &str) -> Result<Option<Table<'a>>, Error> {
        let Some((name, value)) = self.table.get_key_value(key) else { return Ok(None) };
        self.below(key, name.span(), value).map(Some)
    }

    /// The tables in the table under `key`, with their names, in the order of those.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<(&'a str, Table<'a>)>, Error> {
        let Some(above) = self.table(key)? else { return Ok(Vec::new()) };
        let rows = above.table.iter();
        let tables = rows.map(|(name, value)| {
            Ok((name.get_ref().as_ref(), above.below(name.get_ref(), name.span(), value)?))
        });
        tables.collect()
    }

    /// A table has the place of its name: its own span may be that of a later part of it.
    fn below(
        &self,
        key: &str,
        span: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Table<'a>, Error> {
        let path = format!("{}{}.", self.path, shown(key));
        match value.get_ref().as_table() {
            Some(table) => Ok(Table { table, text: self.text, file: self.file, span, path }),
            None => {
                let name = path.trim_end_matches('.');
                let line = line_of(self.text, span.start);
                let sentence = format!("`{name}` is not a table");
                // Of segments there are several: each has a name, which a list (`[[segment]]`) would not give it.
                let header = if name == "segment" { "segment.NAME" } else { name };
                Err(Error::at(
                    Place::line(self.file, line),
                    sentence,
                    format!("write `[{header}]` and its keys below"),
                ))
            }
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| self.wrong(key, "a text in quotes"))
    }

    /// A text, or a list of at most `most`.
    pub(super) fn texts(&self, key: &str, most: usize) -> Result<Vec<String>, Error> {
        let wrong = || self.wrong(key, format!("a text in quotes, or a list of at most {most}"));
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(DeValue::Array(texts)) if texts.len() <= most => {
                let texts = texts.iter().map(|text| text.get_ref().as_str().map(ToOwned::to_owned));
                texts.collect::<Option<_>>().ok_or_else(wrong)
            }
            Some(value) => Ok(vec![value.as_str().ok_or_else(wrong)?.to_owned()]),
        }
    }

    /// A number within `range`.
    pub(super) fn number<T>(&self, key: &str, range: RangeInclusive<T>) -> Result<Option<T>, Error>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = integer(value).and_then(|number| T::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        let range = format!("a number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| self.wrong(key, range))
    }

    /// A limit: a number that is not 0, or `"off"`.
    pub(super) fn limit(&self, key: &str) -> Result<Option<NonZeroU32>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        if value.as_str() == Some("off") {
            return Ok(None);
        }
        let limit = integer(value).and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?));
        limit.map(Some).ok_or_else(|| self.wrong(key, "a number from 1, or \"off\""))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "`true` or `false`"))
    }

    /// One of the words that the command line knows.
    pub(super) fn choice<T: ValueEnum>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let choice = value.as_str().and_then(|word| T::from_str(word, false).ok());
        let words = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let words: Vec<String> = words.map(|word| format!("\"{}\"", word.get_name())).collect();
        choice.map(Some).ok_or_else(|| self.wrong(key, format!("one of {}", words.join(", "))))
    }

    fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.table.get(key).map(Spanned::get_ref)
    }

    fn wrong(&self, key: &str, wanted: impl Display) -> Error {
        self.error_at(key, format!("`{}{key}` is not what it can be", self.path), format!("write {wanted}"))
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
