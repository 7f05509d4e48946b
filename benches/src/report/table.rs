use std::fmt::Write;

use crate::report::figure::{Better, Figure};
use crate::report::grid::{Grid, NULL, OPENVPN, Row};
use crate::report::marks::{self, Judgement};
use crate::report::show;
use crate::results::Report;

/// Width of the column that names works.
const NAME: usize = 36;
/// Width of a system's column: `1.23 M…4.56 M` and a space.
const COLUMN: usize = 18;

/// `report` for the terminal: a row for each figure of each work, a column for each system.
///
/// Each row has medians, below them least and greatest of the repetitions, below them ratios to openvpn and to the
/// null forwarder.
pub fn table(report: &Report) -> String {
    let grid = Grid::of(report);
    let mut text = heading(&grid);
    for group in grid.groups() {
        if let Some(first) = group.first() {
            let (measure, figure) = (first.work.measure, first.figure);
            text += &format!("\n{}: {} ({})\n", show::measure(measure), figure.name(), unit(figure));
        }
        text.extend(group.iter().map(|row| three_lines(&grid, row)));
    }
    text + &remarks(report) + &judgements(&marks::judge(report, &grid))
}

fn unit(figure: Figure) -> String {
    let better = match figure.better() {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
    };
    format!("{}, {better}", figure.unit())
}

fn heading(grid: &Grid<'_>) -> String {
    line("", grid.systems.iter().map(|system| plain(system)))
        + &line("  (median; least…greatest; ratios)", std::iter::empty())
}

fn three_lines(grid: &Grid<'_>, row: &Row<'_>) -> String {
    let columns = || 0..grid.systems.len();
    let median =
        |column| row.spread(column).map(|spread| show::number(spread.median, row.figure) + row.star(column));
    let range = |column| {
        let many = row.readings.get(column).is_some_and(|all: &Vec<_>| all.len() > 1);
        let spread = row.spread(column).filter(|_| many)?;
        Some(format!("{}…{}", show::number(spread.min, row.figure), show::number(spread.max, row.figure)))
    };
    let missing = |text: Option<String>| text.unwrap_or_else(|| show::MISSING.to_owned());
    line(&format!("  {}", show::work(row.work)), columns().map(|column| missing(median(column))))
        + &unless_empty(columns().map(|column| range(column).unwrap_or_default()).collect())
        + &unless_empty(grid.systems.iter().map(|system| ratios(grid, row, system)).collect())
}

/// `4.06×o 0.35×n`: to openvpn, to the null forwarder.
fn ratios(grid: &Grid<'_>, row: &Row<'_>, system: &str) -> String {
    let to = |base: &str, letter: &str| {
        let ratio = grid.ratio(row, system, base).filter(|_| system != base)?;
        Some(show::times(ratio) + letter)
    };
    [to(OPENVPN, "o"), to(NULL, "n")].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn unless_empty(cells: Vec<String>) -> String {
    if cells.iter().all(String::is_empty) { String::new() } else { line("", cells.into_iter()) }
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = pad_right(name, NAME);
    line.extend(cells.map(|cell| pad_left(&cell, COLUMN)));
    line.truncate(line.trim_end().len());
    line + "\n"
}

/// What a star leads to.
fn remarks(report: &Report) -> String {
    let mut text = String::new();
    for cell in &report.cells {
        let of = format!("{}, {}: {}", plain(&cell.system), show::measure(cell.measure), show::work(cell));
        let mut notes: Vec<String> =
            cell.samples.iter().flat_map(|sample| &sample.notes).map(|note| line_of(note)).collect();
        notes.dedup();
        text.extend(notes.into_iter().map(|note| format!("  * {of}: {note}\n")));
    }
    if text.is_empty() { text } else { format!("\nRemarks\n{text}") }
}

fn line_of(note: &str) -> String {
    note.chars().filter(|sign| !sign.is_control()).collect()
}

fn judgements(all: &[Judgement]) -> String {
    let mut text = "\nMarks (ratios; o: openvpn's is 1, n: the null forwarder's is 1)\n".to_owned();
    for judgement in all {
        let found = judgement.found.map_or_else(|| show::MISSING.to_owned(), show::times);
        let verdict = match judgement.reached {
            Some(true) => "reached",
            Some(false) => "NOT REACHED",
            None => "not measured",
        };
        let Judgement { subject, wanted, .. } = judgement;
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  {} {} {}  {verdict}",
            pad_right(subject, 88),
            pad_left(wanted, 8),
            pad_left(&found, 8)
        );
    }
    text
}

fn pad_right(text: &str, width: usize) -> String {
    text.to_owned() + &room(text, width)
}

fn pad_left(text: &str, width: usize) -> String {
    room(text, width) + text
}

fn room(text: &str, width: usize) -> String {
    " ".repeat(width.saturating_sub(text.chars().count()))
}

/// A name without what would move the terminal's cursor, and not longer than its column.
fn plain(name: &str) -> String {
    line_of(name).chars().take(COLUMN - 1).collect()
}
