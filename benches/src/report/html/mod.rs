//! One page: opens from a file, needs nothing from anywhere, is dark where the reader's system is, and narrow where the
//! screen is.
//!
//! Plots are inline SVG whose x coordinates are percentages: they take the width there is, their text keeps its size,
//! and their colours come from the style sheet. That is the whole reason for drawing them here: `plotters`' SVG has a
//! fixed size and fixed colours, `charming` brings a megabyte of script.

mod bars;
mod escape;
mod plots;
mod scale;
mod tables;

use escape::escape;

use crate::report::grid::Grid;
use crate::report::{marks, show};
use crate::results::Report;

const STYLE: &str = include_str!("style.css");

/// `report` as one page.
pub fn page(report: &Report) -> String {
    let grid = Grid::of(report);
    let body = [
        head(report),
        tables::marks(&marks::judge(report, &grid)),
        plots::all(report, &grid),
        tables::figures(&grid),
        tables::samples(report),
        tables::circumstances(report),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Trestle side by side, {date}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        date = escape(&show::moment(report.started_unix_s)),
        body = body.concat(),
    )
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "<h1>Trestle side by side</h1>\n<p>{date}, {length}, on {cpu} ({cpus} processors), Linux {kernel}. All systems \
         took turns in this one run: compare figures of this page with one another, never with those of another run. \
         {MISSING} stands where nothing was measured.</p>\n",
        date = escape(&show::moment(report.started_unix_s)),
        length = escape(&show::length(report.took_s)),
        cpu = escape(or_unknown(&machine.cpu)),
        cpus = machine.cpus,
        kernel = escape(or_unknown(&machine.kernel)),
        MISSING = show::MISSING,
    )
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
