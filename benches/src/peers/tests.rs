//! Whether the other systems work as they are configured here. They are not among the packages that testing needs, so
//! these are run by hand: `cargo xtask setup --peers`, then `cargo test -p trestle-bench -- --ignored`, as root.

use std::path::PathBuf;
use std::time::Duration;

use trestle_tests::frame::local_mac;
use trestle_tests::netns::Namespace;
use trestle_tests::network::{GATEWAY, NIC, ROUTER};
use trestle_tests::raw::{RawPort, Volley};

use super::{PEERS, missing};
use crate::rig::system::{Clients, Place, System};

const PATIENCE: Duration = Duration::from_secs(20);

struct Ground {
    gateway: Namespace,
    world: Namespace,
    folder: PathBuf,
}

impl Ground {
    /// A wire between gateway and world, as the rig has it.
    fn lay_out(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("trestle-peers-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (gateway, world) = (Namespace::create("gateway").unwrap(), Namespace::create("world").unwrap());
        for namespace in [&gateway, &world] {
            namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        let far = world.name();
        gateway
            .ip_batch(&format!(
                "link add {NIC} type veth peer name wire netns {far}
                 address add {GATEWAY}/16 dev {NIC}
                 link set {NIC} up
                 route add default via {ROUTER}"
            ))
            .unwrap();
        world.ip_batch(&format!("address add {ROUTER}/16 dev wire\nlink set wire up")).unwrap();
        world.run("ethtool", "-K wire tx off txvlan off").unwrap();
        gateway.run("ethtool", &format!("-K {NIC} gro on")).unwrap();
        Self { gateway, world, folder }
    }

    fn place(&self) -> Place<'_> {
        Place { gateway: &self.gateway, world: &self.world, folder: &self.folder, binaries: &self.folder }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn carries_frames(name: &str) {
    assert_eq!(missing(name), Vec::<&str>::new(), "`cargo xtask setup --peers` installs them");
    let ground = Ground::lay_out(name);
    let (_, starter) = PEERS.iter().find(|(known, _)| *known == name).unwrap();
    let mut system = starter(&ground.place()).unwrap();
    system.wait_ready(PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", system.log_tail()));
    assert_eq!(system.name(), name);
    assert!(!system.pids().is_empty());
    match system.clients() {
        Clients::Own(connect) => {
            let client = connect(&ground.place(), 0).unwrap();
            let tap = RawPort::open(&ground.world, &client.device).unwrap();
            let wire = RawPort::open(&ground.world, "wire").unwrap();
            crosses(&*system, &wire, &tap, 1);
            crosses(&*system, &tap, &wire, 2);
        }
        _ => {
            let wire = RawPort::open(&ground.world, "wire").unwrap();
            crosses(&*system, &wire, &wire, 1);
        }
    }
    system.stop().unwrap();
}

/// Some frames make both stations known, and keys where there are none yet; then every one must arrive.
fn crosses(system: &dyn System, from: &RawPort, to: &RawPort, number: u32) {
    let volley = Volley::new(local_mac(10 + number), local_mac(20 + number));
    let arrived = (0..5).any(|_| volley.fly(from, to).unwrap().received > 0);
    assert!(arrived, "no frame crosses\n{}", system.log_tail());
    for length in [60, 1414, 1514] {
        let tally = volley.of_length(length).fly(from, to).unwrap();
        assert!(tally.complete(), "{length} bytes: {tally:?}\n{}", system.log_tail());
    }
}

#[test]
#[ignore = "needs root and SoftEther"]
fn softether_carries_frames() {
    carries_frames("softether");
}

#[test]
#[ignore = "needs root and tinc"]
fn tinc_carries_frames() {
    carries_frames("tinc");
}

#[test]
#[ignore = "needs root and fastd"]
fn fastd_carries_frames() {
    carries_frames("fastd");
}

#[test]
#[ignore = "needs root and Open vSwitch"]
fn open_vswitch_returns_frames_by_packet_sockets() {
    carries_frames("ovs-af-packet");
}

#[test]
#[ignore = "needs root and Open vSwitch"]
fn open_vswitch_returns_frames_by_af_xdp() {
    carries_frames("ovs-af-xdp");
}
