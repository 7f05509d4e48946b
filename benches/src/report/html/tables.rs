use super::escape::escape;
use super::or_unknown;
use crate::report::grid::{Grid, NULL, OPENVPN, Row};
use crate::report::marks::Judgement;
use crate::report::show;
use crate::results::{Cell, Report, Sample};

/// Which marks are reached.
pub fn marks(all: &[Judgement]) -> String {
    let row = |judgement: &Judgement| {
        let (class, verdict) = match judgement.reached {
            Some(true) => ("reached", "reached"),
            Some(false) => ("missed", "not reached"),
            None => ("none", "not measured"),
        };
        let found = judgement.found.map_or_else(|| show::MISSING.to_owned(), show::times);
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{found}</td><td class=\"{class}\">{verdict}</td></tr>\n",
            escape(&judgement.subject),
            escape(&judgement.wanted)
        )
    };
    let rows: String = all.iter().map(row).collect();
    section(
        "Marks",
        "What Trestle by AF_XDP is to reach: ratios to openvpn in this run where nothing else is named.",
        &table(&["mark", "wanted", "found", ""], &rows),
    )
}

/// Every row of the grid: medians, ranges, ratios.
pub fn figures(grid: &Grid<'_>) -> String {
    let heads: Vec<&str> = ["work and figure"].into_iter().chain(grid.systems.iter().copied()).collect();
    let rows: String = grid.rows.iter().map(|row| figure_row(grid, row)).collect();
    section(
        "All figures",
        "Median of the rounds, least and greatest below it, then its ratio to openvpn (o) and to the null forwarder (n). \
         Behind a star are remarks: they stand below, with the repetitions.",
        &table(&heads, &rows),
    )
}

fn figure_row(grid: &Grid<'_>, row: &Row<'_>) -> String {
    let cells: String = grid
        .systems
        .iter()
        .enumerate()
        .map(|(column, system)| figure_cell(grid, row, column, system))
        .collect();
    format!(
        "<tr><th scope=\"row\">{}<br><small>{}: {}, {}</small></th>{cells}</tr>\n",
        escape(&show::work(row.work)),
        show::measure(row.work.measure),
        row.figure.name(),
        row.figure.unit()
    )
}

fn figure_cell(grid: &Grid<'_>, row: &Row<'_>, column: usize, system: &str) -> String {
    let Some(spread) = row.spread(column) else {
        return format!("<td class=\"none\">{}</td>", show::MISSING);
    };
    let [min, median, max] =
        [spread.min, spread.median, spread.max].map(|value| show::number(value, row.figure));
    let to = |base: &str, letter: &str| {
        let ratio = grid.ratio(row, system, base).filter(|_| system != base)?;
        Some(format!(" {}{letter}", show::times(ratio)))
    };
    let ratios: String = [to(OPENVPN, "o"), to(NULL, "n")].into_iter().flatten().collect();
    format!(
        "<td><b>{median}{}</b><br><small>{min}…{max}<br>{}</small></td>",
        row.star(column),
        ratios.trim_start()
    )
}

/// Every sample as it was counted.
pub fn samples(report: &Report) -> String {
    let rows: String = report
        .cells
        .iter()
        .flat_map(|cell| cell.samples.iter().map(|sample| sample_row(cell, sample)))
        .collect();
    let heads = [
        "measure",
        "work",
        "system",
        "round",
        "s",
        "offered",
        "delivered",
        "process ms",
        "gateway core ms",
        "load core ms",
        "p50/p99/p99.9 µs",
        "bit/s",
        "memory",
        "handshakes",
        "remarks",
    ];
    let body = format!("<details><summary>Every repetition</summary>\n{}</details>\n", table(&heads, &rows));
    section("Repetitions", "What was counted in each round; everything above is computed from it.", &body)
}

fn sample_row(cell: &Cell, sample: &Sample) -> String {
    let milliseconds = |ns: u64| unless_zero(ns, |ns| show::digits(ns as f64 / 1e6));
    let round_trip = sample.round_trip.map_or_else(missing, |times| {
        [times.p50_ns, times.p99_ns, times.p999_ns].map(|ns| show::digits(ns as f64 / 1e3)).join(" / ")
    });
    let columns = [
        show::measure(cell.measure).to_owned(),
        show::work(cell),
        cell.system.clone(),
        sample.round.to_string(),
        show::digits(sample.seconds),
        unless_zero(sample.offered_frames, |frames| frames.to_string()),
        sample.delivered_frames.to_string(),
        milliseconds(sample.gateway_cpu_ns),
        milliseconds(sample.gateway_core_ns),
        milliseconds(sample.load_core_ns),
        round_trip,
        sample.bits_per_second.map_or_else(missing, show::digits),
        sample.memory_bytes.map_or_else(missing, |bytes| bytes.to_string()),
        unless_zero(sample.handshakes, |number| number.to_string()),
        sample.notes.join("; "),
    ];
    let cells: String = columns.iter().map(|text| format!("<td>{}</td>", escape(text))).collect();
    format!("<tr>{cells}</tr>\n")
}

fn unless_zero(number: u64, text: impl Fn(u64) -> String) -> String {
    if number == 0 { missing() } else { text(number) }
}

fn missing() -> String {
    show::MISSING.to_owned()
}

/// Machine, versions, command line.
pub fn circumstances(report: &Report) -> String {
    let machine = &report.machine;
    let facts = [
        ("Processor", or_unknown(&machine.cpu).to_owned()),
        ("Processors", machine.cpus.to_string()),
        ("Memory", format!("{} MiB", machine.memory_bytes >> 20)),
        ("Kernel", or_unknown(&machine.kernel).to_owned()),
        ("Arguments", report.arguments.join(" ")),
        ("Schema", report.schema_version.to_string()),
    ];
    let versions = report.versions.iter().map(|(name, version)| (name.as_str(), version.clone()));
    let row = |(name, value): (&str, String)| {
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td></tr>\n",
            escape(name),
            escape(&value)
        )
    };
    let rows: String = facts.into_iter().chain(versions).map(row).collect();
    section("Machine, versions, command line", "", &table(&["", ""], &rows))
}

fn section(title: &str, how: &str, body: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p>{how}</p>\n{body}</section>\n")
}

/// A table that scrolls by itself where it is too wide.
fn table(heads: &[&str], rows: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", escape(head))).collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}
