//! What the gateway says about itself, and that it sleeps when there is nothing to do.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use serde_json::Value;
use trestle_tests::echo::ping;
use trestle_tests::frame::show_mac;
use trestle_tests::gateway::Mode;
use trestle_tests::network::LAN_HOST;
use trestle_tests::raw::Volley;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::{self, Station};

pub const SUITE: Suite = Suite {
    name: "observation",
    modes: Mode::TRESTLE,
    site: stations::reference,
    fresh: false,
    scenarios: scenarios![
        status_keeps_its_contract,
        data_packets_arrive_the_way_the_mode_promises,
        the_mac_table_says_where_stations_are,
        every_question_has_a_table_and_json,
        the_control_socket_is_the_owners_alone,
        an_idle_gateway_sleeps,
    ],
};

fn status_keeps_its_contract(site: &mut Site) -> Result<()> {
    let mode = site.gateway()?.mode();
    let status = site.gateway()?.status()?;
    assert!(status["version"].is_string(), "{status:#}");
    assert!(status["uptime_s"].is_u64(), "{status:#}");
    assert_eq!(status["datapath"], if mode == Mode::Socket { "socket" } else { "af-xdp" });
    let ports = list(&status["ports"]);
    let uplink = ports.iter().find(|port| port["role"] == "uplink").expect("an uplink among the ports");
    assert_eq!(uplink["name"], "ens5");
    assert_eq!(uplink["mode"], "bridge");
    let (xdp, xsk) = match mode {
        Mode::Native => ("native", "copy"),
        Mode::Generic => ("generic", "copy"),
        _ => ("none", "none"),
    };
    assert_eq!((&uplink["xdp"], &uplink["xsk"]), (&Value::from(xdp), &Value::from(xsk)), "{uplink:#}");
    assert!(ports.iter().any(|port| port["role"] == "host"), "{status:#}");
    for port in ports {
        assert!(port["rx_frames"].is_u64() && port["tx_frames"].is_u64(), "{port:#}");
    }
    let mut names: Vec<&str> =
        list(&status["peers"]).iter().filter_map(|peer| peer["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["agent1", "agent2"]);
    for peer in list(&status["peers"]) {
        let counters =
            ["rx_frames", "tx_frames", "rx_frames_xdp", "rx_frames_socket", "rx_bytes", "tx_bytes"];
        assert!(counters.iter().all(|key| peer[*key].is_u64()), "{peer:#}");
        assert!(
            peer["peer_id"].is_u64() && peer["connected_s"].is_u64() && peer["macs"].is_array(),
            "{peer:#}"
        );
        assert!(
            peer["address"].as_str().is_some_and(|address| address.starts_with("198.51.100.")),
            "{peer:#}"
        );
        assert_eq!(peer["cipher"], "AES-256-GCM");
    }
    assert!(status["drops"].is_object(), "{status:#}");
    Ok(())
}

fn data_packets_arrive_the_way_the_mode_promises(site: &mut Site) -> Result<()> {
    let (one, two) = (Station::agent(site, 0)?, Station::agent(site, 1)?);
    let before = ways(site)?;
    let volley = Volley::new(two.mac, one.mac).of_length(1000).of_count(500);
    let tally = volley.fly(&one.port, &two.port)?;
    assert!(tally.complete(), "{tally:?}");
    let after = ways(site)?;
    let (by_xdp, by_socket) = (after.0 - before.0, after.1 - before.1);
    if site.gateway()?.mode().has_xdp() {
        assert!(by_xdp >= 500 && by_socket < 20, "{by_xdp} packets came by XDP, {by_socket} by the socket");
    } else {
        assert!(by_socket >= 500 && by_xdp == 0, "{by_xdp} packets came by XDP, {by_socket} by the socket");
    }
    Ok(())
}

/// Data packets received by XDP and by the socket.
fn ways(site: &mut Site) -> Result<(u64, u64)> {
    let gateway = site.gateway()?;
    Ok((gateway.sum_of_peers("rx_frames_xdp")?, gateway.sum_of_peers("rx_frames_socket")?))
}

fn the_mac_table_says_where_stations_are(site: &mut Site) -> Result<()> {
    assert!(ping(site.agent(0), LAN_HOST, 5, 56)?.complete());
    let table = site.gateway()?.ask("fdb")?.to_string().to_lowercase();
    let stations = [site.mac(0)?, site.network.lan.mac("eth0")?, site.network.gateway.mac("ens5")?];
    for mac in stations {
        assert!(table.contains(&show_mac(mac)), "{} is not in {table}", show_mac(mac));
    }
    let status = site.gateway()?.status()?;
    let one = list(&status["peers"]).iter().find(|peer| peer["name"] == "agent1").expect("agent1");
    let macs = one["macs"].to_string().to_lowercase();
    assert!(macs.contains(&show_mac(site.mac(0)?)), "{one:#}");
    Ok(())
}

fn every_question_has_a_table_and_json(site: &mut Site) -> Result<()> {
    let gateway = site.gateway()?;
    for question in ["status", "peers", "fdb", "ports", "drops"] {
        gateway.ask(question)?;
        let table = gateway.table(question)?;
        assert!(!table.trim().is_empty(), "`trestle {question}` says nothing");
    }
    assert!(gateway.table("peers")?.contains("agent1"));
    assert!(gateway.table("ports")?.contains("ens5"));
    Ok(())
}

fn the_control_socket_is_the_owners_alone(site: &mut Site) -> Result<()> {
    let path = site.gateway()?.control().to_owned();
    let about = std::fs::metadata(&path).map_err(Fault::io("looking at the control socket"))?;
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    Ok(())
}

fn an_idle_gateway_sleeps(site: &mut Site) -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(4);
    std::thread::sleep(Duration::from_secs(1));
    let process = site.gateway()?.process();
    let before = process.cpu_time()?;
    std::thread::sleep(WATCHED);
    let used = process.cpu_time()? - before;
    let share = used.as_secs_f64() / WATCHED.as_secs_f64();
    assert!(share < 0.02, "an idle gateway uses {:.1} % of a core", share * 100.0);
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
