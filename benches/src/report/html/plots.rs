use super::bars::{Bar, axis};
use super::escape::escape;
use super::scale::Scale;
use crate::report::figure::{Better, Figure};
use crate::report::grid::{Grid, NULL, Row, columns_of};
use crate::report::{marks, show};
use crate::results::{Measure, Report};

/// A section for each measure, with a plot for each of its figures.
pub fn all(report: &Report, grid: &Grid<'_>) -> String {
    let measures = grid.rows.chunk_by(|a, b| a.work.measure == b.work.measure);
    measures.map(|rows| section(report, grid, rows)).collect()
}

fn section(report: &Report, grid: &Grid<'_>, rows: &[Row<'_>]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let measure = first.work.measure;
    let part = Part { grid, columns: columns_of(rows) };
    let plots: String = match measure {
        // Percentiles belong side by side, work by work.
        Measure::RoundTrip | Measure::Build => part.times(rows),
        _ => rows.chunk_by(|a, b| a.figure == b.figure).map(|rows| part.plot(report, rows)).collect(),
    };
    format!(
        "<section>\n<h2>{}</h2>\n<p>{}{}</p>\n{plots}</section>\n",
        show::measure(measure),
        show::how(measure),
        part.absent()
    )
}

/// One measure's section: systems that have no part in it are named once, not drawn.
struct Part<'a> {
    grid: &'a Grid<'a>,
    columns: Vec<usize>,
}

impl Part<'_> {
    fn absent(&self) -> String {
        let all = self.grid.systems.iter().enumerate();
        let absent = all.filter(|(column, _)| !self.columns.contains(column)).map(|(_, system)| *system);
        let names: Vec<&str> = absent.collect();
        if names.is_empty() {
            String::new()
        } else {
            format!(" Not measured: {}.", escape(&names.join(", ")))
        }
    }

    /// Rows of one figure on one linear axis.
    fn plot(&self, report: &Report, rows: &[Row<'_>]) -> String {
        let Some(first) = rows.first() else { return String::new() };
        let figure = first.figure;
        let title = format!("<h3>{}</h3>\n{}", caption(figure), explanation(report, self.grid, rows));
        let Some(scale) = Scale::linear(values(rows)) else {
            return title + "<p class=\"none\">Every reading is 0: the table has them.</p>\n";
        };
        let works = rows.iter().map(|row| self.work(row, scale, &show::work(row.work)));
        title + &figure_of(works.collect(), scale, figure)
    }

    /// Percentiles of each work on one logarithmic axis; what is no time is left to the table.
    fn times(&self, rows: &[Row<'_>]) -> String {
        let is_time = |row: &&Row<'_>| matches!(row.figure, Figure::P50 | Figure::P99 | Figure::P999);
        let mut timed: Vec<&Row<'_>> = rows.iter().filter(is_time).collect();
        // Sorting is stable: percentiles of one work come together, in the order they had.
        timed.sort_by_key(|row| rows.iter().position(|first| std::ptr::eq(first.work, row.work)));
        let Some(scale) = Scale::logarithmic(timed.iter().flat_map(|row| values(std::slice::from_ref(row))))
        else {
            return "<p class=\"none\">No time above 0 was measured.</p>\n".to_owned();
        };
        let name = |row: &Row<'_>| format!("{} · {}", show::work(row.work), row.figure.name());
        let works = timed.iter().map(|row| self.work(row, scale, &name(row)));
        let title = "<h3>percentiles, in µs, lower is better</h3>\n<p>Equal factors are equal distances. Each dot is \
                     one round's percentile.</p>\n";
        title.to_owned() + &figure_of(works.collect(), scale, Figure::P50)
    }

    /// One work: its name, and a bar for each system that has part in the measure.
    fn work(&self, row: &Row<'_>, scale: Scale, name: &str) -> String {
        let floor = self.grid.median(row, NULL).filter(|_| has_floor(self.grid, row));
        let bar = |&column: &usize| {
            let system = self.grid.systems.get(column)?;
            let readings = row.readings.get(column)?;
            let colour = self.grid.colour(column);
            Some(
                Bar { system, colour, figure: row.figure, readings, star: row.star(column), floor }
                    .row(scale),
            )
        };
        let bars: String = self.columns.iter().filter_map(bar).collect();
        format!("<div class=\"work\"><h4>{}</h4>\n{bars}</div>\n", escape(name))
    }
}

fn figure_of(works: String, scale: Scale, figure: Figure) -> String {
    format!("<figure>\n{works}{}</figure>\n", axis(scale, figure))
}

fn caption(figure: Figure) -> String {
    let better = match figure.better() {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
    };
    format!("{}, in {}, {better}", figure.name(), figure.unit())
}

/// What the bars of these rows are made of, where they are more than a figure.
fn explanation(report: &Report, grid: &Grid<'_>, rows: &[Row<'_>]) -> String {
    if !rows.iter().any(|row| has_floor(grid, row)) {
        return String::new();
    }
    let mut lengths: Vec<u32> = rows.iter().map(|row| row.work.frame_bytes).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let aead = |length: u32| Some(format!("{length} B {}", show::digits(marks::aead_us(report, length)?)));
    let operations: Vec<String> = lengths.into_iter().filter_map(aead).collect();
    let aead = match operations.is_empty() {
        true => String::new(),
        false => format!(" One AEAD operation takes, in µs: {}.", operations.join(", ")),
    };
    format!("<p>The paler part is what the null forwarder needs for the same frames.{aead}</p>\n")
}

fn has_floor(grid: &Grid<'_>, row: &Row<'_>) -> bool {
    matches!(row.figure, Figure::CoreTime | Figure::ProcessTime) && grid.median(row, NULL).is_some()
}

fn values<'r>(rows: &'r [Row<'_>]) -> impl Iterator<Item = f64> + 'r {
    rows.iter().flat_map(|row| row.readings.iter().flatten().map(|&(_, value)| value))
}
