//! Open vSwitch with its datapath in user space: one port, every frame goes back to where it came from.
//!
//! That is the null forwarder's work, and comparable with it alone.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use trestle_tests::network::NIC;
use trestle_tests::process::{Process, run, wait_until};
use trestle_tests::{Fault, Result};

use super::daemon::Daemon;
use crate::rig::cpu::GATEWAY_CORE;
use crate::rig::system::{Clients, Place, System};

/// Its name in reports with packet sockets.
pub const AF_PACKET: &str = "ovs-af-packet";
/// Its name in reports with AF_XDP.
pub const AF_XDP: &str = "ovs-af-xdp";
/// What it needs.
pub const PROGRAMS: [&str; 5] = [
    "/usr/bin/ovsdb-tool",
    "/usr/sbin/ovsdb-server",
    "/usr/sbin/ovs-vswitchd",
    "/usr/bin/ovs-vsctl",
    "/usr/bin/ovs-ofctl",
];
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// With packet sockets, in its main thread.
pub fn start_af_packet(place: &Place<'_>) -> Result<Box<dyn System>> {
    start(place, AF_PACKET, "system")
}

/// With AF_XDP, in a polling thread.
pub fn start_af_xdp(place: &Place<'_>) -> Result<Box<dyn System>> {
    start(place, AF_XDP, "afxdp")
}

/// Database, switch, bridge, port, flow, in this order; it forwards when that is done.
fn start(place: &Place<'_>, name: &'static str, port: &str) -> Result<Box<dyn System>> {
    let home = place.folder.join("ovs");
    std::fs::create_dir_all(&home).map_err(Fault::io(format!("creating {}", home.display())))?;
    run(tool(&home, "ovsdb-tool").args(["create", "conf.db", SCHEMA]), 10)?;
    let database = spawn(place, &home, "ovsdb-server", &["conf.db", "--remote=punix:db.sock"])?;
    wait_for_file(&home.join("db.sock"), &database)?;
    // Its polling thread picks processors by itself, unless told.
    let mask = format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << GATEWAY_CORE);
    configure(&home, &["--no-wait", "set", "Open_vSwitch", ".", &mask])?;
    let switch = spawn(place, &home, "ovs-vswitchd", &["unix:db.sock"])?;
    configure(&home, &["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
    let kind = format!("type={port}");
    configure(&home, &["add-port", "br0", NIC, "--", "set", "interface", NIC, &kind])?;
    run(tool(&home, "ovs-ofctl").args(["add-flow", "br0", "actions=IN_PORT"]), 10)?;
    let processes = vec![database, switch];
    Ok(Box::new(Daemon { name, clients: Clients::None, processes, ready: "" }))
}

/// A program that finds its sockets and files in `home`, not in /run and /var.
fn tool(home: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    at_home(&mut command, home);
    command
}

fn at_home(command: &mut Command, home: &Path) {
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, home);
    }
    command.current_dir(home);
}

fn spawn(place: &Place<'_>, home: &Path, program: &str, arguments: &[&str]) -> Result<Process> {
    let mut command = place.gateway.command(program);
    command.args(arguments);
    at_home(&mut command, home);
    Process::spawn(program, &mut command, &home.join(format!("{program}.log")))
}

fn wait_for_file(path: &Path, process: &Process) -> Result<()> {
    let there = || path.exists().then_some(());
    wait_until(&path.display().to_string(), PATIENCE, there, || process.log_tail())
}

/// Changes the database, and waits until the switch has followed where it runs.
fn configure(home: &Path, arguments: &[&str]) -> Result<()> {
    run(tool(home, "ovs-vsctl").args(["--db=unix:db.sock", "--timeout=10"]).args(arguments), 15).map(drop)
}
