//! What this host can do, what is wrong, and how to mend it: `trestle doctor`.
//!
//! ```text
//!   gather, probe ──► facts ──► judge_host, judge_nic, judge_bridge ──► findings ──► mend
//!   (looks, tries)    (data)    (pure)                                  (sentences)  (with --fix)
//! ```

/// What was seen.
pub mod facts;
/// What is said.
pub mod finding;
mod gather;
mod judge_bridge;
mod judge_host;
mod judge_nic;
mod mend;
mod probe;

use finding::{Finding, Level};
use gather::Surroundings;

use crate::{
    host::{self, links::Link},
    xdp::programs::Programs,
};

/// What a finding is about that is about no interface.
pub const HOST: &str = "host";

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// An interface or a bridge; `None`: the whole host.
    pub name: Option<String>,
    /// Also what may take a link down for a moment.
    pub boldly: bool,
}

/// Looks, and says what was found.
///
/// # Errors
/// There is no such interface, or netlink does not answer.
pub fn examine(order: &Order) -> host::Result<Vec<Finding>> {
    let around = Surroundings::read()?;
    let mut findings = judge_host::host(&gather::host());
    let mut programs = Programs::load().map_err(|why| {
        findings.push(
            Finding::new(HOST, "programs", Level::Fault, format!("the programs cannot be loaded: {why}"))
                .cure("sudo trestle doctor"),
        );
    });
    for link in patients(order, &around)? {
        findings.extend(if link.is_bridge() {
            judge_bridge::bridge(&gather::bridge(link, &around))
        } else {
            let findings = judge_nic::nic(&gather::nic(link, &around, programs.as_mut().ok(), order.boldly));
            if around.is_port(link) { findings.into_iter().map(finding::of_port).collect() } else { findings }
        });
    }
    Ok(findings)
}

/// Who is looked at: all that a gateway could use; or one interface; or a bridge with its ports.
fn patients<'a>(order: &Order, around: &'a Surroundings) -> host::Result<Vec<&'a Link>> {
    let Some(name) = &order.name else {
        // The host port of a gateway that runs is none of its uplinks.
        return Ok(around.all().filter(|link| link.kind.as_deref() != Some("tun")).collect());
    };
    let link = around.by_name(name).ok_or_else(|| {
        let there: Vec<_> = around.all().map(|link| link.name.as_str()).collect();
        host::Error::Unfit(format!("there is no interface {name}; this host has {}", there.join(", ")))
    })?;
    let ports = around.ports(link).filter(|port| link.is_bridge() && port.kind.as_deref() != Some("tun"));
    Ok(std::iter::once(link).chain(ports).collect())
}

/// Mends what can be mended without harm; each finding it did something about says so, and is no fault any more. Of
/// interfaces only those that were asked for: one that is not in use may be down on purpose.
pub fn fix(order: &Order, findings: &mut [Finding]) {
    for finding in findings.iter_mut().filter(|finding| order.name.is_some() || finding.about == HOST) {
        let Some(mend) = &finding.mend else { continue };
        match mend::mend(mend) {
            Ok(done) => {
                finding.level = Level::Ok;
                finding.fixed = Some(done);
            }
            Err(why) => finding.fixed = Some(format!("not mended: {why}")),
        }
    }
}

/// How much stands against a start. Where no interface is named, the host's alone: which of the others will be used is
/// not known.
pub fn faults(order: &Order, findings: &[Finding]) -> usize {
    let counted = |finding: &&Finding| order.name.is_some() || finding.about == HOST;
    findings.iter().filter(counted).filter(|finding| finding.level == Level::Fault).count()
}
