//! The documents against the code: what operators look up by name must stand there, and links must lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory;
use trestle::{cli::Cli, drops::Drop};

const TABLE: &str = include_str!("../src/config/table.rs");
const CLIENT_TABLE: &str = include_str!("../src/config/client/table.rs");
const COMMON: &str = include_str!("../../common/src/lib.rs");
const PACKAGES: &str = include_str!("../../xtask/packages/build.txt");

/// Top of the source tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands below the heading that begins with `heading`, up to the next one of its level or above.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let body = &text[start + heading.len() + 2..];
    let level = heading.chars().take_while(|&sign| sign == '#').count();
    let ends = (1..=level).filter_map(|level| body.find(&format!("\n{} ", "#".repeat(level))));
    &body[..ends.min().unwrap_or(body.len())]
}

/// The words in backticks in the first column of a section's tables.
fn first_column(section: &str) -> BTreeSet<&str> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    cells.flat_map(|(cell, _)| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_drop_reason_has_its_row_and_no_row_is_left_over() {
    let text = read("docs/OPERATING.md");
    let reasons: BTreeSet<&str> = Drop::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(first_column(section(&text, "## Drop reasons")), reasons);
}

/// Directives of one class in a table's source: those written with its word, and those written with a constant of that
/// class.
fn directives(table: &'static str, class: &str) -> BTreeSet<&'static str> {
    let constants: Vec<&str> = table
        .split("\nconst ")
        .skip(1)
        .filter_map(|item| item.split_once(": Class ="))
        .filter(|(_, value)| value.trim_start().starts_with(class))
        .map(|(name, _)| name)
        .collect();
    let written = if class == "Done" { "Does" } else { class };
    let is_of_class = |value: &str| {
        let word = value.split(|sign: char| !sign.is_alphanumeric() && sign != '_').next().unwrap_or(value);
        word == written || constants.contains(&word)
    };
    let rows = table.lines().filter_map(|line| line.strip_prefix("    (\"")?.split_once("\", "));
    rows.filter(|(_, value)| is_of_class(value)).map(|(name, _)| name).collect()
}

#[test]
fn every_directive_stands_under_its_class() {
    let servers = ["### Done", "### Accepted", "### Not yet", "### Refused"];
    every_row_stands_under_its_class(TABLE, servers);
}

#[test]
fn every_directive_of_a_client_stands_under_its_class() {
    let clients = [
        "### Done for a client",
        "### Accepted for a client",
        "### Not yet for a client",
        "### Refused to a client",
    ];
    every_row_stands_under_its_class(CLIENT_TABLE, clients);
}

/// `headings` are those of the classes done, accepted, not yet and refused.
fn every_row_stands_under_its_class(table: &'static str, headings: [&str; 4]) {
    let text = read("docs/PROTOCOL.md");
    let mut count = 0;
    for (class, heading) in ["Done", "Accepted", "NotYet", "Refused"].into_iter().zip(headings) {
        let directives = directives(table, class);
        assert_eq!(first_column(section(&text, heading)), directives, "{heading}");
        count += directives.len();
    }
    let all = table.lines().filter(|line| line.starts_with("    (\"")).count();
    assert_eq!(count, all, "the table has rows that this test cannot read");
}

#[test]
fn every_verdict_of_xdp_is_explained() {
    let start = COMMON.find("pub enum Verdict {").unwrap();
    let body = COMMON[start..].split('}').next().unwrap();
    let verdicts = body.lines().filter_map(|line| line.trim().split_once(" = ")).map(|(name, _)| name);
    let text = read("docs/DATAPATH.md");
    let text =
        [section(&text, "## XDP on the NIC"), section(&text, "## XDP on the ports of a kernel bridge")]
            .concat();
    let missing: Vec<&str> = verdicts.filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty() && body.contains("Tunnel = 0"), "{missing:?}");
}

#[test]
fn every_subcommand_and_every_option_of_run_is_explained() {
    let text = read("docs/OPERATING.md");
    let mut command = Cli::command();
    command.build();
    for subcommand in command.get_subcommands().filter(|found| found.get_name() != "help") {
        let name = subcommand.get_name();
        assert!(text.contains(&format!("`{name}`")) || text.contains(&format!("`trestle {name}`")), "{name}");
    }
    let run = command.find_subcommand("run").unwrap();
    let shown = run.get_arguments().filter(|argument| !argument.is_hide_set());
    for long in shown.filter_map(|argument| argument.get_long()).filter(|long| *long != "help") {
        let rows = section(&text, "## Install");
        let row = [" ", "`"].iter().any(|end| rows.contains(&format!("| `--{long}{end}")));
        assert!(row, "--{long}");
    }
}

#[test]
fn the_packages_that_building_needs_are_named() {
    let text = read("README.md");
    for package in PACKAGES.lines() {
        assert!(section(&text, "## Building").contains(package), "{package}");
    }
}

/// Every document that is kept.
fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/decisions"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let mut found: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

/// What stands in the brackets of a document's links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

/// A heading as the fragment of a link, as GitHub makes it.
fn fragment(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
    kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let there = target.exists()
                && (heading.is_empty()
                    || fs::read_to_string(&target).is_ok_and(|text| {
                        text.lines().any(|line| line.starts_with('#') && fragment(line) == heading)
                    }));
            if !there {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_decision_is_listed() {
    let index = read("docs/decisions/README.md");
    for document in
        documents().iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with("decisions")))
    {
        let name = document.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "{name}");
    }
}
