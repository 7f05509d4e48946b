use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{self, FULL_SIZE};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::site::{Site, is_root};
use trestle_tests::traffic::{Extent, Stream, iperf3};
use trestle_tests::{Fault, interrupt, netns};

use crate::{setup, test};

/// How to show it.
#[derive(Args, Debug)]
pub struct Options {
    /// End after everything has crossed, with exit code 0 if it did.
    #[arg(long)]
    once: bool,
    /// Show this gateway instead of building one.
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
}

/// Installs what is missing, builds, and shows the gateway at work in the reference network.
pub fn run(options: &Options) -> Result<(), String> {
    if !is_root() {
        return Err(
            "the demo makes network namespaces, which needs root: `sudo -E cargo xtask demo`".to_owned()
        );
    }
    setup::packages()?;
    let binary = match &options.gateway {
        Some(binary) => binary.clone(),
        None => test::build(true)?,
    };
    show(&binary, options.once)
}

/// Shows `binary` at work; with `once` it ends by itself, else with Ctrl-C.
fn show(binary: &Path, once: bool) -> Result<(), String> {
    let interrupted = interrupt::watch()?;
    netns::sweep();
    println!(
        "\nlaying out the reference network: gateway, LAN host, router with address translation, two agents"
    );
    let outcome = steps(binary, once, &interrupted);
    let left = netns::own();
    if interrupted.load(Ordering::Relaxed) && once {
        return Err("interrupted before everything had crossed".to_owned());
    }
    outcome?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("network namespaces are left behind: {}", left.join(", ")))
    }
}

fn steps(binary: &Path, once: bool, interrupted: &AtomicBool) -> Result<(), Fault> {
    let mut site = open(binary)?;
    for step in [pings, frames, streams, ways] {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        step(&mut site)?;
    }
    if once { Ok(()) } else { live_status(&mut site, interrupted) }
}

fn open(binary: &Path) -> Result<Site, Fault> {
    let start = Start { binary: Some(binary.to_owned()), ..Start::reference(Mode::Best) };
    let mut site = Site::prepare(Layout::default(), start)?;
    println!("starting: trestle run server.conf --uplink ens5");
    site.start_gateway()?;
    println!("connecting two stock OpenVPN clients");
    site.connect_agents(&[])?;
    for (number, agent) in site.agents.iter().enumerate() {
        println!("  {} is {} on the LAN", agent.name(), site.address(number));
    }
    Ok(site)
}

fn pings(site: &mut Site) -> Result<(), Fault> {
    println!("\npings:");
    let network = &site.network;
    let (agent1, agent2, lan) = (&network.agents[0], &network.agents[1], &network.lan);
    let ways: [(&str, &Namespace, _); 4] = [
        ("agent1 to agent2", agent1, site.address(1)),
        ("agent1 to the LAN host", agent1, LAN_HOST),
        ("LAN host to agent2", lan, site.address(1)),
        ("agent2 to the gateway host", agent2, GATEWAY),
    ];
    for (words, from, to) in ways {
        reachable(from, to, Duration::from_secs(5));
        let echoes = ping(from, to, 10, 56)?;
        println!("  {words} ({to}): {} of {} answered", echoes.received, echoes.sent);
        crossed(echoes.complete(), words)?;
    }
    Ok(())
}

fn frames(site: &mut Site) -> Result<(), Fault> {
    println!("\nframes that are not IP (EtherType {:#06x}):", frame::ETHERTYPE_EXPERIMENT);
    let one = (RawPort::open(site.agent(0), "tap0")?, site.mac(0)?);
    let two = (RawPort::open(site.agent(1), "tap0")?, site.mac(1)?);
    let lan = (RawPort::open(&site.network.lan, "eth0")?, site.network.lan.mac("eth0")?);
    let ways = [
        ("agent1 to agent2", &one, &two),
        ("agent2 to the LAN host", &two, &lan),
        ("LAN host to agent1", &lan, &one),
    ];
    for (words, from, to) in ways {
        for length in [60, FULL_SIZE] {
            let tally = Volley::new(to.1, from.1).of_length(length).of_count(100).fly(&from.0, &to.0)?;
            println!("  {words}, {length} bytes: {} of {} arrived", tally.received, tally.sent);
            crossed(tally.complete(), words)?;
        }
    }
    Ok(())
}

fn streams(site: &mut Site) -> Result<(), Fault> {
    println!("\niperf3, TCP:");
    let network = &site.network;
    let (agent1, agent2, lan) = (&network.agents[0], &network.agents[1], &network.lan);
    let ways = [
        ("agent1 to the LAN host", agent1, lan, LAN_HOST),
        ("LAN host to agent1", lan, agent1, site.address(0)),
        ("agent1 to agent2", agent1, agent2, site.address(1)),
    ];
    for (words, from, to, address) in ways {
        let got = iperf3(from, to, address, Stream::Tcp, Extent::Seconds(2))?;
        println!("  {words}: {:.0} Mbit/s", got.bits_per_second / 1e6);
        crossed(got.bits_per_second > 0.0, words)?;
    }
    Ok(())
}

fn ways(site: &mut Site) -> Result<(), Fault> {
    let gateway = site.gateway()?;
    println!("\nthe way the agents' data packets took:");
    let (by_xdp, by_socket) =
        (gateway.sum_of_peers("rx_frames_xdp")?, gateway.sum_of_peers("rx_frames_socket")?);
    println!(
        "  {by_xdp} by XDP and AF_XDP, {by_socket} by the kernel's socket (fragments of full-size packets)"
    );
    crossed(by_xdp + by_socket > 0, "the count of data packets")?;
    println!("\n{}", gateway.table("status")?);
    Ok(())
}

fn live_status(site: &mut Site, interrupted: &AtomicBool) -> Result<(), Fault> {
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let gateway = site.gateway()?;
    while !interrupted.load(Ordering::Relaxed) {
        println!("{clear}{}\nCtrl-C ends the demo; everything is removed.", gateway.table("status")?);
        for _ in 0..10 {
            if !interrupted.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    Ok(())
}

fn crossed(all: bool, what: &str) -> Result<(), Fault> {
    if all { Ok(()) } else { Err(Fault::other(format!("{what}: not everything crossed"))) }
}
