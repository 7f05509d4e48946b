//! TCP between the gateway's own host and a stock OpenVPN client, in the proving ground's reference network.

use std::path::Path;

use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{GATEWAY, Layout};
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Stream, iperf3};
use trestle_tests::{Fault, Result};

use crate::results::{Direction, Sample};
use crate::rig::cpu::{GATEWAY_CORE, on_core};
use crate::rig::systems::{OPENVPN, TRESTLE_AF_XDP, TRESTLE_SOCKET};

/// How long each stream is.
const SECONDS: u32 = 2;

/// The ways that are measured.
pub const WAYS: [Direction; 2] = [Direction::HostToPeer, Direction::PeerToHost];

/// Whether streams can be sent through the system.
pub fn is_possible(system: &str) -> bool {
    mode(system).is_some()
}

/// One stream each of [`WAYS`], one after the other. Both ends of iperf3 and the client share the load's processor.
pub fn measure(system: &str, binaries: &Path) -> Result<Vec<(Direction, Sample)>> {
    let mode = mode(system).ok_or_else(|| Fault::other(format!("no streams are sent through {system}")))?;
    let binary = mode.is_trestle().then(|| binaries.join("trestle"));
    // The reference deployment's addresses: its host is to reach the client.
    let config = SERVER_CONF.lines().filter(|line| !line.contains("compress"));
    let config = config.flat_map(|line| [line, "\n"]).collect();
    let start = Start { config, binary, ..Start::reference(mode) };
    let mut site = Site::prepare(Layout { agents: 1, ..Layout::default() }, start)?;
    on_core(GATEWAY_CORE, || site.start_gateway())?;
    site.connect_agents(&[])?;
    let (agent, address, host) = (site.agent(0), site.address(0), &site.network.gateway);
    let stream = |from, to, address| -> Result<Sample> {
        let got = iperf3(from, to, address, Stream::Tcp, Extent::Seconds(SECONDS))?;
        Ok(Sample {
            seconds: SECONDS.into(),
            bits_per_second: Some(got.bits_per_second),
            ..Sample::default()
        })
    };
    let [out, back] = WAYS;
    Ok(vec![(out, stream(host, agent, address)?), (back, stream(agent, host, GATEWAY)?)])
}

fn mode(system: &str) -> Option<Mode> {
    match system {
        TRESTLE_AF_XDP => Some(Mode::Native),
        TRESTLE_SOCKET => Some(Mode::Socket),
        OPENVPN => Some(Mode::Stock),
        _ => None,
    }
}
