//! tinc 1.0 in switch mode.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trestle_tests::netns::Namespace;
use trestle_tests::network::GATEWAY;
use trestle_tests::process::{Process, run};
use trestle_tests::{Fault, Result};

use super::daemon::Daemon;
use super::{CLIENT_PORT, SERVER_PORT, TAP, bridge};
use crate::rig::system::{Client, Clients, Place, System};

/// Its name in reports.
pub const NAME: &str = "tinc";
/// Its one program.
pub const PROGRAM: &str = "/usr/sbin/tincd";
/// How long a client may take to connect.
const CONNECT: Duration = Duration::from_secs(20);

/// Both ends are made here: each needs the other's key.
pub fn start(place: &Place<'_>) -> Result<Box<dyn System>> {
    let (server, client) = (home(place, "gateway"), home(place, "client"));
    make_home(&server, "gateway", &format!("Address = {GATEWAY}\nPort = {SERVER_PORT}\n"), "")?;
    make_home(&client, "client", &format!("Port = {CLIENT_PORT}\n"), "ConnectTo = gateway\n")?;
    exchange(&server, &client, "gateway")?;
    exchange(&client, &server, "client")?;
    bridge::make(place.gateway)?;
    bridge::make_tap(place.gateway, TAP)?;
    bridge::join(place.gateway, TAP)?;
    let process = spawn(place.gateway, &server, NAME)?;
    Ok(Box::new(Daemon {
        name: NAME,
        clients: Clients::Own(connect),
        processes: vec![process],
        ready: "Ready",
    }))
}

fn connect(place: &Place<'_>, _number: u32) -> Result<Client> {
    bridge::make_tap(place.world, TAP)?;
    let client = home(place, "client");
    let mut process = spawn(place.world, &client, "tinc's client")?;
    process.wait_for("activated", CONNECT)?;
    Ok(Client { process, device: TAP.to_owned(), log: client.join("log") })
}

fn home(place: &Place<'_>, name: &str) -> PathBuf {
    place.folder.join(format!("tinc-{name}"))
}

/// A folder with configuration and keys.
///
/// Without PMTU discovery tinc sends every frame in UDP at once, cut by IP where it must be; with it, it sends by TCP
/// for the first ten seconds, and cuts inner packets, which changes what the segment carries.
fn make_home(home: &Path, name: &str, host: &str, further: &str) -> Result<()> {
    let hosts = home.join("hosts");
    std::fs::create_dir_all(&hosts).map_err(Fault::io(format!("creating {}", hosts.display())))?;
    let main = format!(
        "Name = {name}\nAddressFamily = ipv4\nMode = switch\nDeviceType = tap\nInterface = {TAP}\n{further}"
    );
    write(&home.join("tinc.conf"), &main)?;
    write(&hosts.join(name), &format!("{host}Cipher = aes-256-cbc\nDigest = sha256\nPMTUDiscovery = no\n"))?;
    run(Command::new(PROGRAM).arg("-c").arg(home).args(["-K", "2048"]), 60).map(drop)
}

/// Copies what `from` publishes about itself to `to`.
fn exchange(from: &Path, to: &Path, name: &str) -> Result<()> {
    let [from, to] = [from, to].map(|home| home.join("hosts").join(name));
    std::fs::copy(&from, to).map(drop).map_err(Fault::io(format!("copying {}", from.display())))
}

fn spawn(namespace: &Namespace, home: &Path, name: &str) -> Result<Process> {
    let mut command = namespace.command(PROGRAM);
    command.arg("-c").arg(home).args(["-D", "-d2"]).arg(format!("--pidfile={}", home.join("pid").display()));
    Process::spawn(name, &mut command, &home.join("log"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Fault::io(format!("writing {}", path.display())))
}
