use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::fault::write_file;
use crate::frame::Mac;
use crate::netns::Namespace;
use crate::network::PUBLIC;
use crate::pki::{Pki, Purpose};
use crate::process::{Process, wait_until};
use crate::{Fault, Result};

/// The reference deployment's client profile.
pub const CLIENT_CONF: &str = include_str!("../data/client.conf");
/// How long a client may take to connect.
const CONNECT: Duration = Duration::from_secs(30);

/// A stock OpenVPN client that runs.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    name: String,
}

impl Agent {
    /// Starts the client `name` in `namespace` with the reference profile and `arguments` added; waits for nothing.
    /// `--remote` among them replaces the profile's own.
    pub fn launch(
        namespace: &Namespace,
        folder: &Path,
        pki: &Pki,
        name: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let folder = folder.join(name);
        if !folder.exists() {
            std::fs::create_dir_all(&folder).map_err(Fault::io(format!("creating {}", folder.display())))?;
            pki.issue(name, Purpose::Client)?.write(&folder, "client")?;
        }
        let mut profile = profile(pki);
        if arguments.contains(&"--remote") {
            profile = profile.replace(&format!("remote {PUBLIC} 443\n"), "");
        }
        write_file(&folder.join("client.conf"), profile)?;
        let mut command = namespace.command(&program());
        command.args(["--config", "client.conf"]).args(arguments).current_dir(&folder);
        let process = Process::spawn(name, &mut command, &folder.join("client.log"))?;
        Ok(Self { process, name: name.to_owned() })
    }

    /// Waits until it is connected and its tap0 has the address it was given.
    pub fn wait_connected(&mut self, namespace: &Namespace) -> Result<Ipv4Addr> {
        self.process.wait_for("Initialization Sequence Completed", CONNECT)?;
        let evidence = self.process.log_tail();
        wait_until("an address on tap0", CONNECT, || namespace.ipv4("tap0"), || evidence.clone())
    }

    /// The name in its certificate.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// How often its log says `text`.
    pub fn times(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }
}

/// Hardware address of an agent's end of the tunnel.
pub fn tap_mac(namespace: &Namespace) -> Result<Mac> {
    namespace.mac("tap0")
}

/// The client to run: `TRESTLE_OPENVPN`, where another version than the system's is to be tried.
fn program() -> String {
    std::env::var("TRESTLE_OPENVPN").unwrap_or_else(|_| "openvpn".to_owned())
}

/// The reference profile with the gateway's address and the authority's certificate filled in.
pub fn profile(pki: &Pki) -> String {
    let named = CLIENT_CONF.replace("SERVER_ADDRESS", &PUBLIC.to_string());
    named.replace("<ca>\n...\n", &format!("<ca>\n{}", pki.ca()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Keys;

    #[test]
    fn a_profile_differs_from_the_reference_in_address_and_authority_alone() {
        let profile = profile(&Pki::new(Keys::Ecdsa).unwrap());
        assert!(profile.contains("remote 203.0.113.1 443\n"));
        assert!(profile.contains("<ca>\n-----BEGIN CERTIFICATE-----"));
        let kept = |line: &&str| !line.starts_with("remote ") && *line != "...";
        assert!(CLIENT_CONF.lines().filter(kept).all(|line| profile.contains(line)));
    }
}
