use serde::Serialize;
use trestle_tests::{Fault, Result};

use crate::report::grid::Grid;
use crate::report::marks::{self, Judgement};
use crate::results::Report;

/// The whole document: the run as it was measured, and which marks it reaches.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    marks: Vec<Judgement>,
}

/// `report` as `docs/report.schema.json` describes it.
///
/// # Errors
/// Never for a value that can be built; the serializer's signature has one.
pub fn document(report: &Report) -> Result<String> {
    let marks = marks::judge(report, &Grid::of(report));
    let text = serde_json::to_string_pretty(&Document { report, marks });
    text.map(|text| text + "\n")
        .map_err(|error| Fault::other(format!("the report cannot be written as JSON: {error}")))
}
