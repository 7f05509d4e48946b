//! Trestle, stock OpenVPN with a kernel bridge, and the null forwarder.

use std::path::Path;
use std::time::Duration;

use trestle_tests::gateway::{Gateway, Mode, SERVER_CONF, Start};
use trestle_tests::network::NIC;
use trestle_tests::process::Process;
use trestle_tests::{Fault, Result};

use super::system::{Clients, Place, Starter, System};

/// How long a gateway may take to end.
const END: Duration = Duration::from_secs(5);

/// The systems that need nothing but this tree and OpenVPN, by name.
pub const BUILT_IN: &[(&str, Starter)] = &[
    (TRESTLE_AF_XDP, |place| gateway(place, TRESTLE_AF_XDP, Mode::Native)),
    (TRESTLE_SOCKET, |place| gateway(place, TRESTLE_SOCKET, Mode::Socket)),
    (OPENVPN, |place| gateway(place, OPENVPN, Mode::Stock)),
    (NULL, null),
];

/// Trestle with native XDP and AF_XDP.
pub const TRESTLE_AF_XDP: &str = "trestle-af-xdp";
/// Trestle by the kernel's sockets.
pub const TRESTLE_SOCKET: &str = "trestle-socket";
/// Stock OpenVPN and a kernel bridge.
pub const OPENVPN: &str = "openvpn";
/// AF_XDP receive, copy, transmit, and nothing else: the floor.
pub const NULL: &str = "null";

/// The server's configuration: the reference deployment's without compression, which stock clients refuse, with room for
/// many sessions that share a certificate.
pub fn server_conf() -> String {
    let kept =
        SERVER_CONF.lines().filter(|line| !line.contains("compress") && !line.starts_with("server-bridge"));
    let lines = kept.chain([
        "server-bridge 10.10.21.5 255.255.0.0 10.10.32.0 10.10.47.255",
        "duplicate-cn",
        "max-clients 4000",
        // OpenVPN's own bound, 100 in 10 s, would make a thousand clients wait.
        "connect-freq-initial 2000 1",
    ]);
    lines.flat_map(|line| [line, "\n"]).collect()
}

struct Vpn {
    name: &'static str,
    gateway: Gateway,
}

fn gateway(place: &Place<'_>, name: &'static str, mode: Mode) -> Result<Box<dyn System>> {
    let binary = mode.is_trestle().then(|| place.binaries.join("trestle"));
    if let Some(missing) = binary.as_deref().filter(|binary| !binary.is_file()) {
        return Err(not_built(missing));
    }
    let start = Start { config: server_conf(), binary, ..Start::reference(mode) };
    Ok(Box::new(Vpn { name, gateway: Gateway::launch(place.gateway, place.folder, &start)? }))
}

impl System for Vpn {
    fn name(&self) -> &'static str {
        self.name
    }

    fn clients(&self) -> Clients {
        Clients::OpenVpn
    }

    fn wait_ready(&mut self, _limit: Duration) -> Result<()> {
        self.gateway.wait_ready()
    }

    fn pids(&mut self) -> Vec<u32> {
        vec![self.gateway.process().pid()]
    }

    fn log_tail(&self) -> String {
        self.gateway.log_tail()
    }

    fn stop(&mut self) -> Result<()> {
        self.gateway.stop().map(drop)
    }
}

struct Null(Process);

fn null(place: &Place<'_>) -> Result<Box<dyn System>> {
    let binary = place.binaries.join("null-forwarder");
    if !binary.is_file() {
        return Err(not_built(&binary));
    }
    let mut command = place.gateway.command(&binary.to_string_lossy());
    command.arg(NIC);
    Ok(Box::new(Null(Process::spawn(NULL, &mut command, &place.folder.join("null.log"))?)))
}

impl System for Null {
    fn name(&self) -> &'static str {
        NULL
    }

    fn clients(&self) -> Clients {
        Clients::None
    }

    fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        self.0.wait_for("forwarding", limit)
    }

    fn pids(&mut self) -> Vec<u32> {
        vec![self.0.pid()]
    }

    fn log_tail(&self) -> String {
        self.0.log_tail()
    }

    fn stop(&mut self) -> Result<()> {
        self.0.terminate(END).map(drop)
    }
}

fn not_built(binary: &Path) -> Fault {
    let binary = binary.display();
    Fault::other(format!("{binary} is missing: `cargo build --release -p trestle -p trestle-bench` makes it"))
}
