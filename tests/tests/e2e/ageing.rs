//! A station that is silent is forgotten, one that speaks is not.

use std::thread::sleep;
use std::time::Duration;

use trestle_tests::frame::local_mac;
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::Layout;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

use crate::stations::Station;

const AGEING_SECONDS: u64 = 3;

pub const SUITE: Suite = Suite {
    name: "ageing",
    modes: &[Mode::Native, Mode::Socket],
    site: |mode| {
        let arguments = ["--ageing".to_owned(), AGEING_SECONDS.to_string()].to_vec();
        Site::open(Layout::default(), Start { arguments, ..Start::reference(mode) })
    },
    fresh: false,
    scenarios: scenarios![a_silent_station_is_forgotten_and_a_speaking_one_kept],
};

fn a_silent_station_is_forgotten_and_a_speaking_one_kept(site: &mut Site) -> Result<()> {
    let (one, two, lan) = (Station::agent(site, 0)?, Station::agent(site, 1)?, Station::lan(site)?);
    let (silent_peer, silent_lan, speaking_lan) = (local_mac(31), local_mac(32), local_mac(33));
    one.announce(silent_peer)?;
    lan.announce(silent_lan)?;
    for _ in 0..(AGEING_SECONDS + 2) * 4 {
        lan.announce(speaking_lan)?;
        sleep(Duration::from_millis(150));
    }
    one.send_as(one.mac, speaking_lan, b"to the speaking one")?;
    assert!(lan.hears(b"to the speaking one"));
    assert!(two.hears_nothing_of(b"to the speaking one"), "a station that speaks was forgotten");
    one.send_as(one.mac, silent_lan, b"to the silent one on the wire")?;
    assert!(two.hears(b"to the silent one on the wire"), "a silent station on the wire was not forgotten");
    lan.send_as(lan.mac, silent_peer, b"to the silent one behind agent1")?;
    assert!(
        two.hears(b"to the silent one behind agent1"),
        "a silent station behind a peer was not forgotten"
    );
    Ok(())
}
