use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Stream, iperf3, ping};
use trestle_tests::{Result, scenarios};

pub const SUITE: Suite = Suite {
    name: "pings",
    modes: Mode::TRESTLE,
    site: |mode| Site::open(Layout::default(), Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![; stock: pings_cross, frames_cross, tcp_crosses],
};

fn pings_cross(site: &mut Site) -> Result<()> {
    for (from, to) in [(site.agent(0), site.address(1)), (site.agent(0), LAN_HOST), (site.agent(1), GATEWAY)]
    {
        let echoes = ping(from, to, 10, 56)?;
        assert!(echoes.complete(), "{to}: {echoes:?}");
    }
    Ok(())
}

fn frames_cross(site: &mut Site) -> Result<()> {
    let one = RawPort::open(site.agent(0), "tap0")?;
    let two = RawPort::open(site.agent(1), "tap0")?;
    let tally = Volley::new(site.mac(1)?, site.mac(0)?).fly(&one, &two)?;
    assert!(tally.complete(), "{tally:?}");
    let tally = Volley::new(site.mac(1)?, site.mac(0)?).in_vlan(5).of_length(1514).fly(&one, &two)?;
    assert!(tally.complete(), "{tally:?}");
    Ok(())
}

fn tcp_crosses(site: &mut Site) -> Result<()> {
    let through = iperf3(site.agent(0), &site.network.lan, LAN_HOST, Stream::Tcp, Extent::Megabytes(4))?;
    println!("{through:?}");
    let through = iperf3(site.agent(0), &site.network.lan, LAN_HOST, Stream::Udp(20), Extent::Megabytes(1))?;
    println!("{through:?}");
    Ok(())
}
