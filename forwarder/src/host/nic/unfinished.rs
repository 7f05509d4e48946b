//! Whether the far end of a veth leaves checksums and VLAN tags to whoever sends its frames on.

use super::super::links::Link;
use super::super::netlink::Requests;
use super::super::{Error, Result};
use super::far_end::FarEnd;

/// What the far end of a veth leaves undone. It may be told otherwise any time, and nobody is told of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Nothing: it stands for a wire.
    Nothing,
    /// VLAN tags, which XDP does not see: `ethtool -K FAR txvlan off tx-vlan-stag-hw-insert off` is the cure, and
    /// [`Preparation`](super::Preparation) applies it.
    Tags,
    /// Checksums, and so segments too: an ordinary container.
    Checksums,
    /// It was not to be found out: why, a part of a sentence.
    Unknown(String),
}

/// Asks the far end of `veth`. Some ten microseconds where it is in this namespace; elsewhere its namespace is looked for
/// among all processes, entered for a moment (by the calling thread alone), and not held: a container can end.
///
/// # Errors
/// There was no way back from the other namespace: the process must not go on.
pub fn unfinished(veth: &Link) -> Result<Unfinished> {
    let asked = Requests::routing()
        .map_err(Error::os("open a routing netlink socket"))
        .and_then(|mut requests| Ok((FarEnd::of(veth, &mut requests)?, requests)));
    let (far, mut requests) = match asked {
        Ok(found) => found,
        Err(why) => return Ok(Unfinished::Unknown(why.to_string())),
    };
    let features =
        far.ethtool(&mut requests)?.and_then(|(mut ethtool, _)| ethtool.active_features(far.index));
    Ok(match features {
        Ok(features) => left_by(|part| features.iter().any(|name| name.starts_with(part))),
        Err(why) => Unfinished::Unknown(why.to_string()),
    })
}

fn left_by(any: impl Fn(&str) -> bool) -> Unfinished {
    if any("tx-checksum-ip") {
        Unfinished::Checksums
    } else if any("tx-vlan-hw-insert") || any("tx-vlan-stag-hw-insert") {
        Unfinished::Tags
    } else {
        Unfinished::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links::by_name;
    use crate::host::testing::Namespace;

    fn ask(host: &Namespace) -> Unfinished {
        host.run(|| unfinished(&by_name(&mut Requests::routing().unwrap(), "port").unwrap()).unwrap())
    }

    #[test]
    fn a_far_end_is_a_wire_once_it_finishes_checksums_and_tags() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add port type veth peer name far");
        assert_eq!(ask(&host), Unfinished::Checksums);
        host.command("ethtool", "-K far tx off");
        assert_eq!(ask(&host), Unfinished::Tags);
        host.command("ethtool", "-K far txvlan off tx-vlan-stag-hw-insert off");
        assert_eq!(ask(&host), Unfinished::Nothing);
    }

    #[test]
    fn a_far_end_out_of_sight_is_unknown_and_one_behind_a_process_is_asked() {
        let (Some(host), Some(container)) = (Namespace::new(), Namespace::new()) else { return };
        host.join("port", &container, "far");
        assert!(matches!(ask(&host), Unfinished::Unknown(why) if why.contains("namespace")));
        let mut process = container.run(|| std::process::Command::new("sleep").arg("30").spawn().unwrap());
        let asked = ask(&host);
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(asked, Unfinished::Checksums);
    }
}
