//! `trestle doctor`: what this host can do, what is wrong, and how to mend it.

use std::fmt::Write as _;

use clap::Args;

use super::{Error, ask, table::plain};
use crate::doctor::{
    self, HOST, Order,
    finding::{Finding, Level},
};

/// What `trestle doctor` takes.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// An interface, or a bridge with its ports [default: the whole host]
    #[arg(value_name = "NIC|BRIDGE")]
    name: Option<String>,
    /// Mend what can be mended without harm, and say what was done
    #[arg(long)]
    fix: bool,
    /// Try also what may take the link down for some seconds: native XDP and zero-copy on an interface by which the host
    /// is reached
    #[arg(long = "try")]
    boldly: bool,
    /// Print one JSON object
    #[arg(short, long)]
    json: bool,
}

/// # Errors
/// A gateway would not start; there is no such interface.
pub(super) fn run(args: DoctorArgs) -> Result<(), Error> {
    let order = Order { name: args.name.clone(), boldly: args.boldly };
    let examine = || doctor::examine(&order).map_err(|error| Error::new(error.to_string()));
    let mut findings = examine()?;
    if args.fix {
        doctor::fix(&order, &mut findings);
        // What was mended may have hidden something: an interface that was down had no sockets to try.
        let fixed: Vec<Finding> = findings.into_iter().filter(|finding| finding.fixed.is_some()).collect();
        let again = examine()?.into_iter();
        let done = |found: &Finding| {
            fixed.iter().any(|fixed| fixed.about == found.about && fixed.check == found.check)
        };
        findings = fixed.iter().cloned().chain(again.filter(|found| !done(found))).collect();
    }
    findings.sort_by_key(|finding| finding.about != HOST);
    let faults = doctor::faults(&order, &findings);
    ask::print(&if args.json {
        serde_json::json!({ "fit": faults == 0, "findings": findings }).to_string()
    } else if args.name.is_some() {
        report(&findings)
    } else {
        overview(&findings)
    })?;
    match faults {
        0 => Ok(()),
        1 => Err(Error::new("1 fault stands against a start: see above")),
        more => Err(Error::new(format!("{more} faults stand against a start: see above"))),
    }
}

/// Every finding, under the name of what it is about.
fn report(findings: &[Finding]) -> String {
    let mut text = String::new();
    for about in abouts(findings) {
        let _ = writeln!(text, "{}", plain(about));
        findings.iter().filter(|finding| finding.about == about).for_each(|finding| line(&mut text, finding));
    }
    text
}

/// The host, what is wrong with it, and a line for each interface.
fn overview(findings: &[Finding]) -> String {
    let mut text = String::new();
    for about in abouts(findings) {
        let of: Vec<&Finding> = findings.iter().filter(|finding| finding.about == about).collect();
        if about == HOST {
            text.push_str("host\n");
            of.iter().for_each(|finding| line(&mut text, finding));
            continue;
        }
        let worst = of.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        let words: Vec<&str> = of
            .iter()
            .filter(|finding| {
                finding.level == worst && worst > Level::Note
                    || finding.check == "driver"
                    || finding.check == "ports"
            })
            .map(|finding| finding.sentence.as_str())
            .collect();
        let _ = writeln!(
            text,
            "{}: {}: {}",
            plain(about),
            if worst > Level::Note { worst.name() } else { Level::Ok.name() },
            plain(&words.join("; "))
        );
    }
    text.push_str(
        "\n`trestle doctor NIC` says more of one, `trestle doctor BRIDGE` of a bridge and its ports\n",
    );
    text
}

fn abouts(findings: &[Finding]) -> Vec<&str> {
    let mut abouts: Vec<&str> = Vec::new();
    for finding in findings {
        if !abouts.contains(&finding.about.as_str()) {
            abouts.push(&finding.about);
        }
    }
    abouts
}

fn line(text: &mut String, finding: &Finding) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "  {:<8} {}", finding.level.name(), plain(&finding.sentence));
    if let Some(fixed) = &finding.fixed {
        let _ = writeln!(text, "           fixed: {}", plain(fixed));
    } else if let Some(cure) = &finding.cure {
        let _ = writeln!(text, "           cure: {}", plain(cure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::new("host", "kernel", Level::Ok, "kernel 6.12"),
            Finding::new("ens5", "driver", Level::Ok, "driver ena"),
            Finding::new("ens5", "mtu", Level::Fault, "its MTU is too large")
                .cure("ip link set dev ens5 mtu 1500"),
        ]
    }

    #[test]
    fn a_report_has_every_finding_with_its_cure() {
        assert_eq!(
            report(&findings()),
            "host\n  ok       kernel 6.12\nens5\n  ok       driver ena\n  fault    its MTU is too large\n           \
             cure: ip link set dev ens5 mtu 1500\n"
        );
    }

    #[test]
    fn an_overview_has_a_line_an_interface() {
        let text = overview(&findings());
        assert!(text.contains("\nens5: fault: driver ena; its MTU is too large\n"), "{text}");
    }

    #[test]
    fn json_has_the_keys_that_are_written_down() {
        let json = serde_json::to_value(&findings()[2]).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["about", "check", "cure", "level", "sentence"]);
        assert_eq!(json["level"], "fault");
    }
}
