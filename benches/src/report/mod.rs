//! A run of the ruler for people and programs: a table for the terminal, `report.json`, and one HTML page.
//!
//! ```text
//!   Report ─ grid: rows (one figure of one work) × systems ─┬─ marks: reached or not
//!            figure, spread: what a sample says             ├─ table
//!                                                           ├─ json   report.json
//!                                                           └─ html   report.html
//! ```
//! Everything here is pure but [`write`]. What was not measured is missing, everywhere: it is never a nought.

/// What a sample says: one quantity with its unit.
pub mod figure;
/// Rows and columns: one figure of one work, by system.
pub mod grid;
/// The page.
pub mod html;
/// `report.json`.
pub mod json;
/// The marks: what is to be reached, in one list.
pub mod marks;
/// Numbers and names as people read them.
pub mod show;
/// Median and extremes of repetitions.
pub mod spread;
/// The table for the terminal.
pub mod table;
#[cfg(test)]
mod tests;

use std::path::Path;

use trestle_tests::{Fault, Result};

use crate::results::Report;

/// Name of the file for programs.
pub const JSON: &str = "report.json";
/// Name of the file for browsers.
pub const PAGE: &str = "report.html";

/// Writes [`JSON`] and [`PAGE`] into `folder`, which is made if it is missing; older ones are replaced.
///
/// # Errors
/// When the folder or a file cannot be written.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Fault::io(format!("creating {}", folder.display())))?;
    for (name, text) in [(JSON, json::document(report)?), (PAGE, html::page(report))] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(Fault::io(format!("writing {}", path.display())))?;
    }
    Ok(())
}
