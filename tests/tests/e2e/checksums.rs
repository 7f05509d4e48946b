//! TCP and UDP of ordinary stacks in every direction: where unfinished checksums and large segments show.

use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Stream, iperf3};
use trestle_tests::{Result, scenarios};

use crate::switching::tagged_frames_cross_unchanged;

/// Frames arrive as from a wire.
pub const FINISHED: Suite = Suite {
    name: "checksums_finished",
    modes: Mode::TRESTLE,
    site: |mode| site(mode, false),
    fresh: false,
    scenarios: scenarios![; stock:
        tagged_frames_cross_unchanged,
        tcp_crosses_between_agents,
        tcp_crosses_between_agent_and_lan,
        tcp_crosses_between_agent_and_host,
        udp_crosses_in_every_direction,
    ],
};

/// Frames arrive as the sender's stack left them, as from a container's veth: checksums unfinished, VLAN tags beside
/// the frame; on two queues.
pub const UNFINISHED: Suite = Suite {
    name: "checksums_unfinished",
    modes: Mode::TRESTLE,
    site: |mode| site(mode, true),
    fresh: false,
    scenarios: FINISHED.scenarios,
};

fn site(mode: Mode, unfinished_checksums: bool) -> Result<Site> {
    let queues = if unfinished_checksums { 2 } else { 1 };
    let layout = Layout { unfinished_checksums, queues, ..Layout::default() };
    Site::open(layout, Start::reference(mode))
}

fn tcp_crosses_between_agents(site: &mut Site) -> Result<()> {
    crosses(site, Stream::Tcp, &[(End::Agent1, End::Agent2), (End::Agent2, End::Agent1)])
}

fn tcp_crosses_between_agent_and_lan(site: &mut Site) -> Result<()> {
    crosses(site, Stream::Tcp, &[(End::Agent1, End::Lan), (End::Lan, End::Agent1)])
}

fn tcp_crosses_between_agent_and_host(site: &mut Site) -> Result<()> {
    crosses(site, Stream::Tcp, &[(End::Agent1, End::Host), (End::Host, End::Agent1)])
}

fn udp_crosses_in_every_direction(site: &mut Site) -> Result<()> {
    let ends = [End::Agent1, End::Agent2, End::Lan, End::Host];
    let pairs = ends.iter().flat_map(|&from| ends.iter().map(move |&to| (from, to)));
    let pairs: Vec<_> = pairs.filter(|(from, to)| from != to).collect();
    crosses(site, Stream::Udp(20), &pairs)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Agent1,
    Agent2,
    Lan,
    Host,
}

fn crosses(site: &mut Site, stream: Stream, pairs: &[(End, End)]) -> Result<()> {
    let (one, two) = (site.address(0), site.address(1));
    let network = &site.network;
    let place = |end| match end {
        End::Agent1 => (&network.agents[0], one),
        End::Agent2 => (&network.agents[1], two),
        End::Lan => (&network.lan, LAN_HOST),
        End::Host => (&network.gateway, GATEWAY),
    };
    for &(from, to) in pairs {
        let ((from_here, _), (to_there, address)) = (place(from), place(to));
        let extent = Extent::Megabytes(if stream == Stream::Tcp { 8 } else { 1 });
        let got = iperf3(from_here, to_there, address, stream, extent)?;
        // A busy machine is slow and its sockets overflow; a broken checksum loses all.
        assert!(got.bits_per_second > 1e6 && got.loss < 0.5, "{stream:?} from {from:?} to {to:?}: {got:?}");
    }
    Ok(())
}
