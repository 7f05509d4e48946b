use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::grid::{NULL, OPENVPN, TRESTLE};
use super::{html, json, table};
use crate::results::{Cell, Direction, Machine, Measure, Report, RoundTrip, SCHEMA_VERSION, Sample};

const SCHEMA: &str = include_str!("../../../docs/report.schema.json");

/// Capacity of `system`, LAN to peer, 60 bytes.
pub(super) fn cell(system: &str) -> Cell {
    Cell {
        measure: Measure::Capacity,
        system: system.to_owned(),
        direction: Direction::LanToPeer,
        frame_bytes: 60,
        peers: 1,
        offered_per_second: None,
        load_share: None,
        samples: Vec::new(),
    }
}

/// One second in which `delivered_frames` arrived.
pub(super) fn sample(round: u32, delivered_frames: u64) -> Sample {
    Sample {
        round,
        seconds: 1.0,
        offered_frames: 2 * delivered_frames,
        delivered_frames,
        ..Sample::default()
    }
}

/// A small run: capacity and round trips of three systems in two rounds, openvpn without the second.
pub(super) fn report() -> Report {
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        machine: Machine {
            cpu: "A <fast> one".to_owned(),
            cpus: 2,
            memory_bytes: 1 << 34,
            kernel: "6.18".to_owned(),
        },
        versions: [("openvpn".to_owned(), "2.6.14 & more".to_owned())].into(),
        started_unix_s: 1_700_000_000,
        took_s: 61.0,
        arguments: vec!["--systems".to_owned(), "\"a\"".to_owned()],
        cells: Vec::new(),
    };
    for (system, frames, core_us) in [(TRESTLE, 400_000, 2), (NULL, 800_000, 1), (OPENVPN, 100_000, 10)] {
        for round in 1..=2 {
            let delivered = frames + 2000 * u64::from(round) - 3000;
            report.add(
                cell(system),
                Sample { gateway_core_ns: delivered * core_us * 1000, ..sample(round, delivered) },
            );
        }
    }
    let trip = Cell {
        measure: Measure::RoundTrip,
        direction: Direction::BothWays,
        load_share: Some(0.01),
        ..cell(TRESTLE)
    };
    let round_trip =
        Some(RoundTrip { sent: 100, answered: 100, p50_ns: 60_000, p99_ns: 250_000, p999_ns: 1_200_000 });
    report.add(trip, Sample { round: 1, round_trip, ..Sample::default() });
    report
}

fn faults(text: &str) -> Vec<String> {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::options().build(&schema).unwrap();
    let document: Value = serde_json::from_str(text).unwrap();
    validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn the_table_of_a_small_report() {
    let table = table::table(&report());
    let (figures, marks) = table.split_once("\nMarks").unwrap();
    golden("table.txt", figures);
    assert!(marks.contains("delivered under overload, LAN → peer 60 B"));
    assert!(marks.contains("4.00×  reached"));
    assert!(marks.contains("not measured"));
}

#[test]
fn the_plots_of_a_small_report() {
    let page = html::page(&report());
    let start = page.find("<h2>Capacity").unwrap();
    let end = page.find("<h2>All figures").unwrap();
    golden("plots.html", &page[start..end]);
}

/// Whether `found` is what is kept under `name`; with TRESTLE_GOLDEN set it is kept from now on.
fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/golden").join(name);
    if std::env::var_os("TRESTLE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert_eq!(found, kept, "{name}: if that is meant, TRESTLE_GOLDEN=1 keeps it");
}

#[test]
fn a_page_needs_nothing_from_outside() {
    let page = html::page(&report());
    for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link", "<img"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
}

#[test]
fn texts_of_a_report_are_no_markup() {
    let mut report = report();
    report.cells[0].system = "</svg><b onload='x'>".to_owned();
    report.cells[0].samples[0].notes = vec!["<i>&".to_owned()];
    let page = html::page(&report);
    assert!(
        page.contains("A &lt;fast&gt; one")
            && page.contains("2.6.14 &amp; more")
            && page.contains("&quot;a&quot;")
    );
    assert!(!page.contains("<b onload") && !page.contains("<i>") && page.contains("&lt;i&gt;&amp;"));
    assert_eq!(unbalanced(&page), None);
}

#[test]
fn every_repetition_is_a_dot_and_a_row() {
    let page = html::page(&report());
    // Two figures of six samples, three percentiles of one, and the share of requests unanswered in the table alone.
    assert_eq!(page.matches("<circle").count(), 2 * 6 + 3);
    let rows = page.split_once("Every repetition").unwrap().1.split_once("</table>").unwrap().0;
    assert_eq!(rows.matches("<tr><td>").count(), 7);
}

#[test]
fn what_was_not_measured_is_never_a_nought() {
    let mut report = report();
    report.cells.retain(|cell| cell.system != OPENVPN || cell.measure != Measure::Capacity);
    let trip = Cell {
        measure: Measure::RoundTrip,
        load_share: Some(0.01),
        direction: Direction::BothWays,
        ..cell(OPENVPN)
    };
    report.add(
        trip,
        Sample {
            round: 1,
            round_trip: Some(RoundTrip { sent: 9, ..RoundTrip::default() }),
            ..Sample::default()
        },
    );
    let page = html::page(&report);
    assert_eq!(page.matches(" Not measured: openvpn.").count(), 1, "no capacity");
    let row = "<span class=\"name\">openvpn</span>";
    let unread = format!("{row}<span class=\"none\">not measured</span>");
    assert_eq!(
        (page.matches(row).count(), page.matches(&unread).count()),
        (3, 3),
        "requests without answers"
    );
    assert!(
        table::table(&report).lines().any(|line| line.contains("LAN → peer · 60 B") && line.contains('–'))
    );
}

#[test]
fn a_system_that_lacks_one_work_keeps_its_row() {
    let mut report = report();
    report.add(Cell { frame_bytes: 1414, ..cell(TRESTLE) }, sample(1, 7));
    let page = html::page(&report);
    let row = "<span class=\"name\">openvpn</span><span class=\"none\">not measured</span>";
    assert_eq!(page.matches(row).count(), 1);
}

#[test]
fn a_remark_is_pointed_at_and_told() {
    let mut report = report();
    report.cells[0].samples[1].notes = vec!["only\u{1b} so much".to_owned()];
    let (table, page) = (table::table(&report), html::page(&report));
    assert!(
        table.contains(" 400 k*")
            && table.contains("* trestle-af-xdp, Capacity under overload: LAN → peer · 60 B: only so much\n")
    );
    assert!(
        page.contains("<span class=\"value\">400 k*</span>")
            && page.contains("<td>only\u{fffd} so much</td>")
    );
    assert!(!table.contains("100 k*"));
}

#[test]
fn an_emitted_report_keeps_to_its_schema() {
    assert_eq!(faults(&json::document(&report()).unwrap()), Vec::<String>::new());
    assert_eq!(faults(&json::document(&Report::default()).unwrap()), Vec::<String>::new());
}

#[test]
fn the_schema_refuses_what_it_does_not_know() {
    let mut document: Value = serde_json::from_str(&json::document(&report()).unwrap()).unwrap();
    document["cells"][0]["direction"] = "sideways".into();
    document["cells"][0]["samples"][0]["unknown"] = 1.into();
    document["machine"].as_object_mut().unwrap().remove("cpu");
    assert_eq!(faults(&document.to_string()).len(), 3);
}

#[test]
fn a_report_can_be_read_back() {
    let text = json::document(&report()).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
}

#[test]
fn both_files_are_written_and_replaced() {
    let folder = std::env::temp_dir().join(format!("trestle-report-{}", std::process::id()));
    for _ in 0..2 {
        super::write(&report(), &folder).unwrap();
    }
    assert!(std::fs::read_to_string(folder.join(super::JSON)).unwrap().contains("\"schema_version\": 1"));
    assert!(std::fs::read_to_string(folder.join(super::PAGE)).unwrap().starts_with("<!DOCTYPE html>"));
    std::fs::remove_dir_all(folder).unwrap();
}

/// The first tag that closes another one than was opened last.
fn unbalanced(page: &str) -> Option<String> {
    const EMPTY: [&str; 5] = ["meta", "br", "rect", "line", "!DOCTYPE"];
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).filter_map(|rest| Some(rest.split_once('>')?.0)) {
        let name = tag.split_whitespace().next().unwrap_or_default().trim_end_matches('/');
        match name.strip_prefix('/') {
            Some(closed) if open.pop() != Some(closed) => return Some(tag.to_owned()),
            Some(_) => {}
            None if EMPTY.contains(&name) => {}
            None => open.push(name),
        }
    }
    open.pop().map(str::to_owned)
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        0.0..1e7,
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::MAX),
        Just(5e-324),
        Just(0.0)
    ]
}

fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..100_000_u64, Just(0), Just(u64::MAX)]
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,8}", Just("<&\"'>\u{0}\u{1b}".to_owned()), any::<String>()]
}

fn any_system() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(TRESTLE.to_owned()),
        Just(OPENVPN.to_owned()),
        Just(NULL.to_owned()),
        Just("aead".to_owned()),
        any_text()
    ]
}

prop_compose! {
    fn any_round_trip()(sent in any_count(), answered in any_count(), p50_ns in any_count(), p99_ns in any_count(),
                        p999_ns in any_count()) -> RoundTrip {
        RoundTrip { sent, answered, p50_ns, p99_ns, p999_ns }
    }
}

prop_compose! {
    fn any_sample()(round in any::<u32>(), seconds in any_number(), counts in prop::array::uniform6(any_count()),
                    round_trip in prop::option::of(any_round_trip()), bits_per_second in prop::option::of(any_number()),
                    memory_bytes in prop::option::of(any_count()), notes in prop::collection::vec(any_text(), 0..3)) -> Sample {
        let [offered_frames, delivered_frames, gateway_cpu_ns, gateway_core_ns, load_core_ns, handshakes] = counts;
        Sample { round, seconds, offered_frames, delivered_frames, gateway_cpu_ns, gateway_core_ns, load_core_ns,
                 round_trip, bits_per_second, memory_bytes, handshakes, notes }
    }
}

fn any_direction() -> impl Strategy<Value = Direction> {
    use Direction::{BothWays, HostToPeer, LanToPeer, PeerToHost, PeerToLan, PeerToPeer};
    prop::sample::select(vec![LanToPeer, PeerToLan, PeerToPeer, HostToPeer, PeerToHost, BothWays])
}

prop_compose! {
    fn any_cell()(measure in prop::sample::select(super::grid::MEASURES.to_vec()), system in any_system(),
                  direction in any_direction(), frame_bytes in prop::sample::select(vec![0, 60, 1414, u32::MAX]),
                  peers in prop::sample::select(vec![0, 1, 2, 1000, u32::MAX]),
                  offered_per_second in prop::option::of(any_number()), load_share in prop::option::of(any_number()),
                  samples in prop::collection::vec(any_sample(), 0..4)) -> Cell {
        Cell { measure, system, direction, frame_bytes, peers, offered_per_second, load_share, samples }
    }
}

prop_compose! {
    fn any_report()(texts in prop::collection::vec(any_text(), 4), cpus in any::<usize>(), memory_bytes in any_count(),
                    started_unix_s in any_count(), took_s in any_number(),
                    cells in prop::collection::vec(any_cell(), 0..12)) -> Report {
        let machine = Machine { cpu: texts[0].clone(), cpus, memory_bytes, kernel: texts[1].clone() };
        let versions = [(texts[2].clone(), texts[3].clone())].into();
        Report { schema_version: SCHEMA_VERSION, machine, versions, started_unix_s, took_s, arguments: texts, cells }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn no_report_makes_it_fail(report in any_report()) {
        let page = html::page(&report);
        prop_assert_eq!(unbalanced(&page), None);
        prop_assert!(!page.contains("NaN") && !page.contains(">inf"));
        prop_assert!(!table::table(&report).chars().any(|sign| sign == 27 as char));
        prop_assert_eq!(faults(&json::document(&report).unwrap()), Vec::<String>::new());
    }
}
