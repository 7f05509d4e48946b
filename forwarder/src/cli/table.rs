//! Aligned columns, and numbers as people read them.

use std::fmt::Write as _;

/// Which side of a column is straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under headings, two spaces between columns, no trailing white space.
pub(super) fn aligned(headings: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(at, (heading, _))| {
            rows.iter()
                .filter_map(|row| row.get(at))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
                .max(width(heading))
        })
        .collect();
    let heading: Vec<String> = headings.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for ((cell, &wide), (_, align)) in row.iter().zip(&widths).zip(headings) {
            let room = " ".repeat(wide.saturating_sub(width(cell)));
            let cell = plain(cell);
            // Writing to a string does not fail.
            let _ = match align {
                Align::Left => write!(line, "{cell}{room}  "),
                Align::Right => write!(line, "{room}{cell}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// Without control characters: names come from certificates, and a terminal obeys what it is sent.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// `1 day, 1 hour`, `1 minute, 3 seconds`: the two largest units.
pub(super) fn duration(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, length) in UNITS {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            parts.push(plural(count, name));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 seconds".to_owned() } else { parts.join(", ") }
}

/// `1 peer`, `2 peers`.
pub(super) fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Bytes in IEC units: `1.53 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut shift = 10;
    let mut unit = UNITS[0];
    for (next, name) in (20..).step_by(10).zip(&UNITS[1..]) {
        if bytes >> next == 0 {
            break;
        }
        (shift, unit) = (next, name);
    }
    // Hundredths in integers: exact, and never more than two digits.
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_two_largest_units() {
        assert_eq!(duration(0), "0 seconds");
        assert_eq!(duration(1), "1 second");
        assert_eq!(duration(63), "1 minute, 3 seconds");
        assert_eq!(duration(3600), "1 hour");
        assert_eq!(duration(3605), "1 hour");
        assert_eq!(duration(90_061), "1 day, 1 hour");
        assert_eq!(duration(u64::MAX), "213503982334601 days, 7 hours");
    }

    #[test]
    fn bytes_have_iec_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(1_600_000), "1.52 MiB");
        assert_eq!(bytes(1 << 40), "1.00 TiB");
        assert_eq!(bytes(u64::MAX), "16777215.99 TiB");
    }

    #[test]
    fn columns_are_aligned_and_control_characters_gone() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["b\u{1b}b".into(), "1000".into()]];
        let text = aligned(&[("name", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(text, "name     n\na        1\nb_b   1000\n");
    }
}
