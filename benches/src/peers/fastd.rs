//! fastd, sealed by Salsa20/12 and UMAC: the fastest of its methods that seals.

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
pub const NAME: &str = "fastd";
/// Its one program.
pub const PROGRAM: &str = "/usr/bin/fastd";
/// How long a client may take to connect.
const CONNECT: Duration = Duration::from_secs(20);

struct Keys {
    secret: String,
    public: String,
}

/// Both ends are configured here: each needs the other's key.
pub fn start(place: &Place<'_>) -> Result<Box<dyn System>> {
    let (server, client) = (Keys::generate()?, Keys::generate()?);
    let peer = format!("peer \"client\" {{ key \"{}\"; }}\n", client.public);
    write(&configuration(place, "server"), &config(&server, SERVER_PORT, &peer))?;
    let remote = format!("remote {GATEWAY}:{SERVER_PORT};");
    let peer = format!("peer \"gateway\" {{ key \"{}\"; {remote} }}\n", server.public);
    write(&configuration(place, "client"), &config(&client, CLIENT_PORT, &peer))?;
    bridge::make(place.gateway)?;
    bridge::make_tap(place.gateway, TAP)?;
    bridge::join(place.gateway, TAP)?;
    let process = spawn(place.gateway, place, "server")?;
    Ok(Box::new(Daemon {
        name: NAME,
        clients: Clients::Own(connect),
        processes: vec![process],
        ready: "bound to",
    }))
}

fn connect(place: &Place<'_>, _number: u32) -> Result<Client> {
    bridge::make_tap(place.world, TAP)?;
    let mut process = spawn(place.world, place, "client")?;
    process.wait_for("new session with", CONNECT)?;
    Ok(Client { process, device: TAP.to_owned(), log: log(place, "client") })
}

impl Keys {
    fn generate() -> Result<Self> {
        let text = run(Command::new(PROGRAM).arg("--generate-key"), 20)?;
        let value = |label: &str| {
            text.lines().find_map(|line| line.strip_prefix(label)).map(|key| key.trim().to_owned())
        };
        let keys = value("Secret:").zip(value("Public:"));
        keys.map(|(secret, public)| Self { secret, public })
            .ok_or_else(|| Fault::other(format!("`fastd --generate-key` wrote no keys: {text}")))
    }
}

fn config(keys: &Keys, port: u16, peer: &str) -> String {
    let secret = &keys.secret;
    format!(
        "mode tap;\ninterface \"{TAP}\";\nmtu 1500;\nmethod \"salsa2012+umac\";\nbind 0.0.0.0:{port};\n\
         secret \"{secret}\";\nlog level verbose;\n{peer}"
    )
}

fn configuration(place: &Place<'_>, end: &str) -> PathBuf {
    place.folder.join(format!("fastd-{end}.conf"))
}

fn log(place: &Place<'_>, end: &str) -> PathBuf {
    place.folder.join(format!("fastd-{end}.log"))
}

fn spawn(namespace: &Namespace, place: &Place<'_>, end: &str) -> Result<Process> {
    let mut command = namespace.command(PROGRAM);
    command.arg("--config").arg(configuration(place, end));
    Process::spawn(&format!("fastd's {end}"), &mut command, &log(place, end))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Fault::io(format!("writing {}", path.display())))
}
