use crate::report::figure::Figure;
use crate::report::spread::{Spread, ratio};
use crate::results::{Cell, Measure, Report, Sample};

/// Measures in the order they are shown.
pub const MEASURES: [Measure; 11] = [
    Measure::Capacity,
    Measure::LosslessRate,
    Measure::TwiceCapacity,
    Measure::Cpu,
    Measure::RoundTrip,
    Measure::Tcp,
    Measure::Build,
    Measure::Broadcast,
    Measure::Memory,
    Measure::Handshake,
    Measure::PortToPort,
];

/// The gateway this project makes, where it is fastest: what the marks are asked of.
pub const TRESTLE: &str = "trestle-af-xdp";
/// What it is compared with.
pub const OPENVPN: &str = "openvpn";
/// What no gateway can be faster than: receive, copy, transmit.
pub const NULL: &str = "null";
/// No system, but one AEAD operation on one frame: with [`NULL`], the floor of the CPU marks.
pub const AEAD: &str = "aead";
/// Columns that come first, in this order; others follow as they were measured.
const FIRST: [&str; 4] = [TRESTLE, "trestle-socket", OPENVPN, NULL];

/// What was found, as rows and columns.
#[derive(Clone, Debug)]
pub struct Grid<'a> {
    /// The systems, which are the columns.
    pub systems: Vec<&'a str>,
    /// The rows, those of one measure and figure together.
    pub rows: Vec<Row<'a>>,
}

/// One figure of one work, by system.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What is told.
    pub figure: Figure,
    /// A cell that was this work: of any system.
    pub work: &'a Cell,
    /// For each of [`Grid::systems`] what its repetitions said, with the round of each; empty where it was not
    /// measured.
    pub readings: Vec<Vec<(u32, f64)>>,
    /// For each of [`Grid::systems`] whether a sample has remarks, which are to be read with the figure.
    pub remarked: Vec<bool>,
}

impl<'a> Grid<'a> {
    /// Of `report`. Rows of which no system has a reading are left out.
    pub fn of(report: &'a Report) -> Self {
        let systems = systems(report);
        let rows = MEASURES.iter().flat_map(|&measure| rows(report, measure, &systems)).collect();
        Self { systems, rows }
    }

    /// Which column `system` is.
    pub fn column(&self, system: &str) -> Option<usize> {
        self.systems.iter().position(|known| *known == system)
    }

    /// Number of the colour of a column: systems that are in most reports have the same in each.
    pub fn colour(&self, column: usize) -> usize {
        let known = FIRST.iter().position(|first| self.systems.get(column) == Some(first));
        known.unwrap_or(FIRST.len() + column)
    }

    /// Rows in runs of one measure and figure, in order.
    pub fn groups(&self) -> impl Iterator<Item = &[Row<'a>]> {
        let together = |a: &Row<'_>, b: &Row<'_>| a.work.measure == b.work.measure && a.figure == b.figure;
        self.rows.chunk_by(together)
    }

    /// Median of `system` in `row`, in units of that of `base`.
    pub fn ratio(&self, row: &Row<'_>, system: &str, base: &str) -> Option<f64> {
        ratio(self.median(row, system)?, self.median(row, base)?)
    }

    /// Median of `system` in `row`.
    pub fn median(&self, row: &Row<'_>, system: &str) -> Option<f64> {
        row.spread(self.column(system)?).map(|spread| spread.median)
    }
}

impl Row<'_> {
    /// Median and extremes in a column.
    pub fn spread(&self, column: usize) -> Option<Spread> {
        Spread::of(self.readings.get(column)?.iter().map(|&(_, value)| value))
    }

    /// What stands behind a figure that has remarks.
    pub fn star(&self, column: usize) -> &'static str {
        if self.remarked.get(column) == Some(&true) { "*" } else { "" }
    }

    fn is_empty(&self) -> bool {
        self.readings.iter().all(Vec::is_empty)
    }
}

/// Columns in which one of `rows` has a reading.
pub fn columns_of(rows: &[Row<'_>]) -> Vec<usize> {
    let width = rows.iter().map(|row| row.readings.len()).max().unwrap_or(0);
    let read = |column: &usize| rows.iter().any(|row| row.spread(*column).is_some());
    (0..width).filter(read).collect()
}

fn systems(report: &Report) -> Vec<&str> {
    let mut systems: Vec<&str> = Vec::new();
    let measured = || report.cells.iter().map(|cell| cell.system.as_str()).filter(|&system| system != AEAD);
    let first = FIRST.into_iter().filter_map(|first| measured().find(|&system| system == first));
    for system in first.chain(measured()) {
        if !systems.contains(&system) {
            systems.push(system);
        }
    }
    systems
}

/// Rows of one measure: figure by figure, and of each figure work by work.
fn rows<'a>(report: &'a Report, measure: Measure, systems: &[&str]) -> Vec<Row<'a>> {
    let works = works(report, measure);
    let row = |figure: Figure, work: &'a Cell| {
        let readings = systems.iter().map(|system| readings(report, work, system, figure)).collect();
        let remarked = systems.iter().map(|system| remarked(report, work, system)).collect();
        Row { figure, work, readings, remarked }
    };
    let all = Figure::of(measure).iter().flat_map(|&figure| works.iter().map(move |&work| row(figure, work)));
    all.filter(|row| !row.is_empty()).collect()
}

/// One cell for each work, sorted so that like stands by like.
fn works(report: &Report, measure: Measure) -> Vec<&Cell> {
    let mut works: Vec<&Cell> = Vec::new();
    for cell in report.cells.iter().filter(|cell| cell.measure == measure && cell.system != AEAD) {
        if !works.iter().any(|known| is_same_work(known, cell)) {
            works.push(cell);
        }
    }
    works.sort_by(|a, b| {
        let load = |cell: &Cell| cell.load_share.or(cell.offered_per_second).unwrap_or(0.0);
        let key = |cell: &Cell| (cell.direction, cell.frame_bytes, cell.peers);
        key(a).cmp(&key(b)).then(load(a).total_cmp(&load(b)))
    });
    works
}

/// Of works at a given rate, the rate tells them apart where there is no share.
fn is_same_work(a: &Cell, b: &Cell) -> bool {
    let paced = matches!(a.measure, Measure::Cpu | Measure::RoundTrip) && a.load_share.is_none();
    a.is_same_work(b) && (!paced || a.offered_per_second == b.offered_per_second)
}

fn samples<'r>(report: &'r Report, work: &Cell, system: &str) -> impl Iterator<Item = &'r Sample> {
    let cells = report.cells.iter().filter(move |cell| cell.system == system && is_same_work(cell, work));
    cells.flat_map(|cell| &cell.samples)
}

fn readings(report: &Report, work: &Cell, system: &str, figure: Figure) -> Vec<(u32, f64)> {
    samples(report, work, system).filter_map(|sample| Some((sample.round, figure.read(sample)?))).collect()
}

fn remarked(report: &Report, work: &Cell, system: &str) -> bool {
    samples(report, work, system).any(|sample| !sample.notes.is_empty())
}
