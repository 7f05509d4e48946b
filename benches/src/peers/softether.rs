//! SoftEther with its OpenVPN server function, and the stock OpenVPN client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use trestle_tests::netns::Namespace;
use trestle_tests::network::GATEWAY;
use trestle_tests::process::{Process, run, wait_until};
use trestle_tests::{Fault, Result};

use super::daemon::Daemon;
use super::{CLIENT_PORT, SERVER_PORT, TAP, bridge};
use crate::rig::system::{Client, Clients, Place, System};

/// Its name in reports.
pub const NAME: &str = "softether";
/// The server; /usr/bin/vpnserver is a script that starts it.
pub const SERVER: &str = "/usr/libexec/softether/vpnserver/vpnserver";
/// Where the server takes commands, beside serving clients.
const MANAGEMENT: &str = "localhost:5555";
/// The device that the bridge named `vpn` makes.
const SERVER_TAP: &str = "tap_vpn";
/// How long server and client may take for a step.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the server and configures it by its own tool: it serves when that is done.
pub fn start(place: &Place<'_>) -> Result<Box<dyn System>> {
    bridge::make(place.gateway)?;
    let mut process = spawn(place)?;
    wait_until("SoftEther's management port", PATIENCE, || listens(place.gateway), || process.log_tail())?;
    configure(place)?;
    let there = || place.gateway.has_device(SERVER_TAP).then_some(());
    wait_until("SoftEther's TAP device", PATIENCE, there, || process.log_tail())?;
    bridge::join(place.gateway, SERVER_TAP)?;
    if let Some(status) = process.ended() {
        return Err(Fault::other(format!("SoftEther ended early: {status}\n{}", process.log_tail())));
    }
    Ok(Box::new(Daemon { name: NAME, clients: Clients::Own(connect), processes: vec![process], ready: "" }))
}

/// SoftEther negotiates no cipher: it takes the one that the client's options name.
fn connect(place: &Place<'_>, _number: u32) -> Result<Client> {
    let folder = home(place);
    write(&folder.join("user"), "agent@TRESTLE\nagent\n")?;
    let mut command = place.world.command("openvpn");
    command
        .args(["--client", "--dev", TAP, "--proto", "udp", "--lport", &CLIENT_PORT.to_string()])
        .args(["--remote", &GATEWAY.to_string(), &SERVER_PORT.to_string(), "--ca", "server.crt"])
        .args(["--cipher", "AES-256-GCM", "--data-ciphers", "AES-256-GCM"])
        .args(["--data-ciphers-fallback", "AES-256-GCM", "--auth-user-pass", "user"])
        .current_dir(&folder);
    let log = folder.join("client.log");
    let mut process = Process::spawn("SoftEther's client", &mut command, &log)?;
    process.wait_for("Initialization Sequence Completed", PATIENCE)?;
    Ok(Client { process, device: TAP.to_owned(), log })
}

fn home(place: &Place<'_>) -> PathBuf {
    place.folder.join("softether")
}

/// The server in a mount namespace whose /var/lib, /var/log and /run are folders of this run: Debian's build keeps
/// configuration, logs and locks there and takes no other path.
fn spawn(place: &Place<'_>) -> Result<Process> {
    let home = home(place);
    for folder in ["lib", "log", "run"] {
        let path = home.join(folder).join("softether");
        std::fs::create_dir_all(&path).map_err(Fault::io(format!("creating {}", path.display())))?;
    }
    let prepare = format!(
        "mount --bind lib /var/lib && mount --bind log /var/log && mount --bind run /run && exec {SERVER} execsvc"
    );
    let mut command = place.gateway.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &prepare]).current_dir(&home);
    Process::spawn(NAME, &mut command, &home.join("server.log"))
}

fn listens(gateway: &Namespace) -> Option<()> {
    gateway.run("ss", "-Hltn sport = :5555").ok().filter(|listed| !listed.is_empty()).map(drop)
}

/// A hub, its bridge to a TAP device, one user; the server's certificate for the client.
fn configure(place: &Place<'_>) -> Result<()> {
    let home = home(place);
    let script = "DynamicDnsDisable\n\
                  HubCreate TRESTLE /PASSWORD:trestle\n\
                  BridgeCreate TRESTLE /DEVICE:vpn /TAP:yes\n\
                  ServerCertGet server.crt\n\
                  Hub TRESTLE\n\
                  UserCreate agent /GROUP:none /REALNAME:none /NOTE:none\n\
                  UserPasswordSet agent /PASSWORD:agent\n";
    write(&home.join("setup"), script)?;
    let mut command = place.gateway.command("vpncmd");
    command.args(["/SERVER", MANAGEMENT, "/IN:setup"]).current_dir(&home);
    let said = run(&mut command, 30)?;
    let certificate = home.join("server.crt").is_file();
    certificate.then_some(()).ok_or_else(|| Fault::other(format!("vpncmd did not set SoftEther up:\n{said}")))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Fault::io(format!("writing {}", path.display())))
}
