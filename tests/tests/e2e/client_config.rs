//! What single clients are given: their own files, their addresses through restarts, shared certificates, limits, and
//! addresses from the LAN's DHCP.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use trestle_tests::echo::reachable;
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{LAN_HOST, Layout};
use trestle_tests::process::read_lossy;
use trestle_tests::raw::RawPort;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::sessions::{peers, relaunch};
use crate::stations::config_with;

const BRIEFLY: Duration = Duration::from_secs(20);

/// Each scenario has a server of its own.
pub const SUITE: Suite = Suite {
    name: "client_config",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout::default(), Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        addresses_stay_through_a_restart_of_the_gateway,
        a_client_beyond_max_clients_gets_in_when_another_leaves;
        stock:
        a_clients_own_file_gives_it_its_address_and_options,
        a_disabled_client_is_refused_and_no_other,
        with_ccd_exclusive_only_listed_clients_get_in,
        clients_that_share_a_certificate_have_addresses_of_their_own,
        a_client_beyond_the_pool_is_connected_without_an_address,
        dhcp_of_the_lan_reaches_clients,
    ],
};

fn a_clients_own_file_gives_it_its_address_and_options(site: &mut Site) -> Result<()> {
    let ccd = "iroute 10.0.0.0 255.0.0.0\nifconfig-push 10.10.21.77 255.255.255.0\npush \"setenv-safe CELLAR 1\"\n\
               push-remove ping-restart\n";
    serve_with_files(
        site,
        "client-config-dir ccd",
        &[("agent1", ccd), ("DEFAULT", "push \"setenv-safe ALL 1\"\n")],
    )?;
    let mut first = relaunch(site, 0, &[])?;
    let mut second = relaunch(site, 1, &[])?;
    assert_eq!(first.wait_connected(site.agent(0))?.octets(), [10, 10, 21, 77]);
    assert_eq!(second.wait_connected(site.agent(1))?.octets(), [10, 10, 21, 100]);
    let said = [
        first.times("setenv-safe CELLAR 1,"),
        first.times(",ping-restart 120"),
        first.times("setenv-safe ALL"),
    ];
    assert_eq!(said, [1, 0, 0], "{}", first.log());
    assert_eq!(
        (second.times("setenv-safe ALL 1,"), second.times(",ping-restart 120,")),
        (1, 1),
        "{}",
        second.log()
    );
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    let log = site.gateway()?.log();
    assert!(log.contains("iroute") && log.contains("tun-style"), "{log}");
    Ok(())
}

fn a_disabled_client_is_refused_and_no_other(site: &mut Site) -> Result<()> {
    serve_with_files(site, "client-config-dir ccd", &[("agent1", "disable\n")])?;
    let mut first = relaunch(site, 0, &[])?;
    let mut second = relaunch(site, 1, &[])?;
    first.process().wait_for("AUTH_FAILED", BRIEFLY)?;
    second.wait_connected(site.agent(1))?;
    assert!(site.gateway()?.log().contains("disable"), "{}", site.gateway()?.log());
    Ok(())
}

fn with_ccd_exclusive_only_listed_clients_get_in(site: &mut Site) -> Result<()> {
    serve_with_files(site, "client-config-dir ccd\nccd-exclusive", &[("agent1", ""), ("DEFAULT", "")])?;
    let mut first = relaunch(site, 0, &[])?;
    let mut second = relaunch(site, 1, &[])?;
    first.wait_connected(site.agent(0))?;
    second.process().wait_for("AUTH_FAILED", BRIEFLY)?;
    // A change counts from the next login on.
    write(&site.folder().join("ccd/agent2"), "")?;
    let mut second = relaunch(site, 1, &[])?;
    second.wait_connected(site.agent(1)).map(drop)
}

fn addresses_stay_through_a_restart_of_the_gateway(site: &mut Site) -> Result<()> {
    let file = site.folder().join("ipp.txt");
    write(&file, "# made by hand\nagent2,10.10.21.150,\nsomebody,10.10.21.100,\n")?;
    serve(site, config_with("ifconfig-pool-persist ipp.txt"))?;
    site.connect_agents(&[])?;
    let before = [site.address(0), site.address(1)];
    assert_eq!(before.map(|address| address.octets()[3]), [101, 150]);
    site.agents.clear();
    assert!(site.gateway()?.stop()?.success());
    let kept = read_lossy(&file);
    for line in ["agent1,10.10.21.101,", "agent2,10.10.21.150,", "somebody,10.10.21.100,"] {
        assert!(kept.lines().any(|kept| kept == line), "{line}: {kept}");
    }
    site.start_gateway()?;
    // In the other order.
    let mut second = relaunch(site, 1, &[])?;
    assert_eq!(second.wait_connected(site.agent(1))?, before[1]);
    let mut first = relaunch(site, 0, &[])?;
    assert_eq!(first.wait_connected(site.agent(0))?, before[0]);
    Ok(())
}

fn clients_that_share_a_certificate_have_addresses_of_their_own(site: &mut Site) -> Result<()> {
    serve(site, config_with("duplicate-cn"))?;
    let mut first = relaunch(site, 0, &[])?;
    let certificate = site.folder().join("agent1").display().to_string();
    let (cert, key) = (format!("{certificate}/client.crt"), format!("{certificate}/client.key"));
    let mut second = relaunch(site, 1, &["--cert", &cert, "--key", &key])?;
    let addresses = [first.wait_connected(site.agent(0))?, second.wait_connected(site.agent(1))?];
    assert_ne!(addresses[0], addresses[1]);
    assert!(reachable(site.agent(0), addresses[1], BRIEFLY));
    assert_eq!(first.times("Initialization Sequence Completed"), 1, "{}", first.log());
    Ok(())
}

fn a_client_beyond_the_pool_is_connected_without_an_address(site: &mut Site) -> Result<()> {
    serve(site, SERVER_CONF.replace("10.10.21.100 10.10.21.255", "10.10.21.100 10.10.21.100"))?;
    let mut first = relaunch(site, 0, &[])?;
    first.wait_connected(site.agent(0))?;
    let mut second = relaunch(site, 1, &[])?;
    second.process().wait_for("Initialization Sequence Completed", BRIEFLY)?;
    assert_eq!(second.times(",ifconfig "), 0, "{}", second.log());
    Ok(())
}

fn a_client_beyond_max_clients_gets_in_when_another_leaves(site: &mut Site) -> Result<()> {
    serve(site, config_with("max-clients 1"))?;
    let mut first = relaunch(site, 0, &["--explicit-exit-notify", "1"])?;
    first.wait_connected(site.agent(0))?;
    let mut second = relaunch(site, 1, &["--connect-retry", "1", "1"])?;
    second.process().wait_for("TEMP:server is full", BRIEFLY)?;
    assert!(site.gateway()?.log().contains("max-clients"), "{}", site.gateway()?.log());
    assert!(second.process().ended().is_none(), "{}", second.log());
    first.process().terminate(BRIEFLY)?;
    second.wait_connected(site.agent(1))?;
    assert_eq!(peers(&site.gateway()?.status()?).len(), 1);
    Ok(())
}

/// A request of a client that has no address, and the answer of a server on the LAN, as frames: what crosses is the
/// same whoever speaks. `server-bridge` alone, where clients keep a device without an address.
fn dhcp_of_the_lan_reaches_clients(site: &mut Site) -> Result<()> {
    serve(
        site,
        SERVER_CONF
            .replace("server-bridge 10.10.21.5 255.255.255.0 10.10.21.100 10.10.21.255", "server-bridge"),
    )?;
    let mut agent = relaunch(site, 0, &[])?;
    agent.process().wait_for("Initialization Sequence Completed", BRIEFLY)?;
    assert_eq!((agent.times("route-gateway dhcp"), agent.times(",ifconfig ")), (1, 0), "{}", agent.log());
    site.agent(0).ip("link set tap0 up")?;
    let (client, server) = (RawPort::open(site.agent(0), "tap0")?, RawPort::open(&site.network.lan, "eth0")?);
    let (mac, lan) = (site.mac(0)?, site.network.lan.mac("eth0")?);
    let discover = udp(mac, [0xff; 6], (Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67));
    client.send(&discover)?;
    assert!(
        server.expect(BRIEFLY, |frame| frame == discover).is_some(),
        "the request does not reach the LAN"
    );
    for to in [mac, [0xff; 6]] {
        let offer = udp(lan, to, (LAN_HOST, 67), (Ipv4Addr::BROADCAST, 68));
        server.send(&offer)?;
        assert!(
            client.expect(BRIEFLY, |frame| frame == offer).is_some(),
            "an offer to {to:02x?} does not arrive"
        );
    }
    Ok(())
}

/// An Ethernet frame with 300 bytes of UDP, as long as a DHCP message; the UDP checksum is left out, as IPv4 allows.
fn udp(from: [u8; 6], to: [u8; 6], source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Vec<u8> {
    const PAYLOAD: u16 = 300;
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    header[2..4].copy_from_slice(&(PAYLOAD + 28).to_be_bytes());
    header.extend(source.0.octets().into_iter().chain(destination.0.octets()));
    let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let ports = [source.1, destination.1, PAYLOAD + 8, 0].map(u16::to_be_bytes).concat();
    [&to[..], &from, &[8, 0], &header, &ports, &vec![0x63; PAYLOAD.into()]].concat()
}

/// Starts the gateway anew with `config`, without agents.
fn serve(site: &mut Site, config: String) -> Result<()> {
    site.agents.clear();
    site.start().config = config;
    site.start_gateway()
}

/// The same with `lines` added and `files` in the directory `ccd`.
fn serve_with_files(site: &mut Site, lines: &str, files: &[(&str, &str)]) -> Result<()> {
    let directory = site.folder().join("ccd");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).map_err(Fault::io("making a folder"))?;
    for (name, text) in files {
        write(&directory.join(name), text)?;
    }
    serve(site, config_with(lines))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Fault::io("writing a file"))
}
