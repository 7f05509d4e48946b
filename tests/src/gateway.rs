use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fault::write_file;
use crate::netns::Namespace;
use crate::network::{GATEWAY, NIC, ROUTER};
use crate::process::{self, Process, output, patient, run, tail};
use crate::{Fault, Result};

/// The reference deployment's `server.conf`, byte for byte.
pub const SERVER_CONF: &str = include_str!("../data/server.conf");
/// How long a gateway may take until it serves.
const START: Duration = Duration::from_secs(20);
/// Where `server.conf` puts log and status file.
const LOG_FOLDER: &str = "/var/log/openvpn";

/// Which gateway, and which way its frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Stock OpenVPN and a kernel bridge: what trestle replaces, and what proves the harness.
    Stock,
    /// Trestle with native XDP.
    Native,
    /// Trestle with generic XDP.
    Generic,
    /// Trestle without AF_XDP.
    Socket,
    /// Trestle as it finds best.
    Best,
}

impl Mode {
    /// Every way trestle can work.
    pub const TRESTLE: &[Self] = &[Self::Native, Self::Generic, Self::Socket];

    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Socket => "socket",
            Self::Best => "best",
        }
    }

    /// Whether it is trestle.
    pub const fn is_trestle(self) -> bool {
        !matches!(self, Self::Stock)
    }

    /// Whether frames go by XDP and AF_XDP.
    pub const fn has_xdp(self) -> bool {
        matches!(self, Self::Native | Self::Generic)
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Stock | Self::Best => &[],
            Self::Native => &["--datapath", "af-xdp", "--xdp", "native"],
            Self::Generic => &["--datapath", "af-xdp", "--xdp", "generic"],
            Self::Socket => &["--datapath", "socket"],
        }
    }
}

/// How to start a gateway.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which gateway, and which way its frames go.
    pub mode: Mode,
    /// What follows `--uplink`.
    pub uplink: String,
    /// What follows `--bridge`, instead.
    pub bridge: Option<String>,
    /// Contents of `server.conf`.
    pub config: String,
    /// Further arguments of `trestle run`.
    pub arguments: Vec<String>,
    /// The binary, if not the one under test.
    pub binary: Option<PathBuf>,
}

impl Start {
    /// The reference deployment in `mode`.
    pub fn reference(mode: Mode) -> Self {
        Self {
            mode,
            uplink: NIC.to_owned(),
            bridge: None,
            config: SERVER_CONF.to_owned(),
            arguments: Vec::new(),
            binary: None,
        }
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    mode: Mode,
    binary: PathBuf,
    control: PathBuf,
    folder: PathBuf,
}

impl Gateway {
    /// Starts a gateway in `namespace` and waits until it serves. `folder` holds what `server.conf` names.
    pub fn start(namespace: &Namespace, folder: &Path, start: &Start) -> Result<Self> {
        let mut gateway = Self::launch(namespace, folder, start)?;
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// Starts a gateway in `namespace` without waiting for anything.
    pub fn launch(namespace: &Namespace, folder: &Path, start: &Start) -> Result<Self> {
        std::fs::create_dir_all(site_log(folder)).map_err(Fault::io("creating a log folder"))?;
        let control = folder.join("control.sock");
        let binary = match (&start.binary, start.mode) {
            (Some(binary), _) => binary.clone(),
            (None, Mode::Stock) => "openvpn".into(),
            (None, _) => binary()?,
        };
        let mut command = match start.mode {
            Mode::Stock => stock(namespace, folder, start, &binary)?,
            _ => trestle(namespace, folder, start, &binary, &control)?,
        };
        command.current_dir(folder);
        let process = Process::spawn("gateway", &mut command, &folder.join("gateway.log"))?;
        Ok(Self { process, mode: start.mode, binary, control, folder: folder.to_owned() })
    }

    /// Starts `trestle run --bridge BRIDGE` in `namespace`, and waits until it answers the operator.
    pub fn accelerate(namespace: &Namespace, folder: &Path, bridge: &str) -> Result<Self> {
        std::fs::create_dir_all(site_log(folder)).map_err(Fault::io("creating a log folder"))?;
        let (binary, control) = (binary()?, folder.join("control.sock"));
        let _ = std::fs::remove_file(&control);
        let mut command = hosted(namespace, folder);
        command.arg(&binary).args(["run", "--bridge", bridge, "--control"]).arg(&control).current_dir(folder);
        let process = Process::spawn("accelerator", &mut command, &folder.join("accelerator.log"))?;
        let mut gateway = Self { process, mode: Mode::Native, binary, control, folder: folder.to_owned() };
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// Starts `trestle join client.ovpn` in `namespace`, with the NIC `uplink`, and waits until it answers the operator.
    pub fn join(namespace: &Namespace, folder: &Path, mode: Mode, uplink: &str) -> Result<Self> {
        let mut gateway = Self::launch_join(namespace, folder, mode, uplink)?;
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// Starts `trestle join client.ovpn` in `namespace` without waiting for anything.
    pub fn launch_join(namespace: &Namespace, folder: &Path, mode: Mode, uplink: &str) -> Result<Self> {
        std::fs::create_dir_all(site_log(folder)).map_err(Fault::io("creating a log folder"))?;
        let (binary, control) = (binary()?, folder.join("control.sock"));
        let _ = std::fs::remove_file(&control);
        let mut command = hosted(namespace, folder);
        command.arg(&binary).args(["join", "client.ovpn", "--uplink", uplink, "--control"]).arg(&control);
        command.args(mode.arguments()).current_dir(folder);
        let process = Process::spawn("join", &mut command, &folder.join("join.log"))?;
        Ok(Self { process, mode, binary, control, folder: folder.to_owned() })
    }

    /// Which gateway it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// Waits until it serves.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + patient(START);
        while Instant::now() < deadline {
            let ended = self.process.ended().is_some();
            if self.serves() {
                return Ok(());
            }
            if ended {
                return Err(Fault::other(format!("the gateway ended at its start\n{}", self.log_tail())));
            }
            sleep(Duration::from_millis(20));
        }
        Err(Fault::Late {
            what: "a gateway that serves".to_owned(),
            waited: START,
            evidence: self.log_tail(),
        })
    }

    fn serves(&self) -> bool {
        match self.mode {
            Mode::Stock => self.log().contains("Initialization Sequence Completed"),
            _ => self.control.exists() && self.status().is_ok(),
        }
    }

    /// All it has logged, wherever `server.conf` and its own taste put it.
    pub fn log(&self) -> String {
        self.process.log() + &process::read_lossy(&site_log(&self.folder).join("openvpn.log"))
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        tail("gateway", &self.log())
    }

    /// What `trestle SUBCOMMAND -j` prints.
    pub fn ask(&self, subcommand: &str) -> Result<Value> {
        let text =
            run(Command::new(&self.binary).args([subcommand, "-j", "--control"]).arg(&self.control), 10)?;
        serde_json::from_str(&text)
            .map_err(|e| Fault::other(format!("`{subcommand} -j` is no JSON: {e}: {text}")))
    }

    /// What `trestle SUBCOMMAND` prints for people.
    pub fn table(&self, subcommand: &str) -> Result<String> {
        run(Command::new(&self.binary).args([subcommand, "--control"]).arg(&self.control), 10)
    }

    /// What `trestle status -j` prints.
    pub fn status(&self) -> Result<Value> {
        self.ask("status")
    }

    /// Frames lost for `reason` since the start.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let status = self.status()?;
        let drops = &status["drops"];
        if !drops.is_object() {
            return Err(Fault::other(format!("`status -j` has no drops: {status}")));
        }
        Ok(drops[reason].as_u64().unwrap_or(0))
    }

    /// Sums `key` over all peers of `status -j`.
    pub fn sum_of_peers(&self, key: &str) -> Result<u64> {
        let status = self.status()?;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        Ok(peers.iter().filter_map(|peer| peer[key].as_u64()).sum())
    }

    /// Stops it as an init system does, and says how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate(Duration::from_secs(15))
    }

    /// Ends it without a chance to tidy up.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }
}

/// Runs `trestle run` where it is expected to refuse, to its end.
pub fn refused(namespace: &Namespace, folder: &Path, arguments: &[&str]) -> Result<process::Output> {
    std::fs::create_dir_all(site_log(folder)).map_err(Fault::io("creating a log folder"))?;
    let mut command = hosted(namespace, folder);
    command.arg(binary()?).arg("run").args(arguments).current_dir(folder);
    output(&mut command, 20)
}

/// Runs `trestle doctor` with `words` to its end, whatever it finds.
pub fn diagnose(namespace: &Namespace, folder: &Path, words: &[&str]) -> Result<process::Output> {
    let mut command = hosted(namespace, folder);
    command.arg(binary()?).arg("doctor").args(words).current_dir(folder);
    output(&mut command, 20)
}

/// The binary under test: `TRESTLE_BIN`, else the one beside this program.
pub fn binary() -> Result<PathBuf> {
    match std::env::var_os("TRESTLE_BIN") {
        Some(named) => Ok(named.into()),
        None => beside("trestle", "cargo build -p trestle"),
    }
}

/// How [`Gateway::launch`] starts trestle.
pub fn command(namespace: &Namespace, folder: &Path, start: &Start) -> Result<Command> {
    trestle(namespace, folder, start, &binary()?, &folder.join("control.sock"))
}

/// The load generator: beside the binary under test, or beside this program.
pub fn load_binary() -> Result<PathBuf> {
    let named =
        std::env::var_os("TRESTLE_BIN").map(|trestle| Path::new(&trestle).with_file_name("trestle-load"));
    match named.filter(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => beside("trestle-load", "cargo build -p trestle-bench"),
    }
}

fn beside(name: &str, cure: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe().map_err(Fault::io("finding this program"))?;
    let mut paths = exe.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        let beside = exe.display();
        Fault::other(format!("there is no `{name}` beside {beside}; run `{cure}` first, or set TRESTLE_BIN"))
    })
}

fn trestle(
    namespace: &Namespace,
    folder: &Path,
    start: &Start,
    binary: &Path,
    control: &Path,
) -> Result<Command> {
    write_file(&folder.join("server.conf"), &start.config)?;
    let _ = std::fs::remove_file(control);
    let mut command = hosted(namespace, folder);
    command.arg(binary).args(["run", "server.conf"]);
    match &start.bridge {
        Some(bridge) => command.args(["--bridge", bridge]),
        None => command.args(["--uplink", &start.uplink]),
    };
    command.arg("--control").arg(control);
    command.args(start.mode.arguments()).args(&start.arguments);
    Ok(command)
}

/// The stock server, on a bridge made as the reference deployment's admin makes it, without the compression that a
/// stock client refuses.
fn stock(namespace: &Namespace, folder: &Path, start: &Start, binary: &Path) -> Result<Command> {
    let lines = start.config.lines().filter(|line| !line.contains("compress"));
    let config: String = lines.flat_map(|line| [line, "\n"]).collect();
    write_file(&folder.join("server.conf"), config)?;
    if !namespace.has_device("br0") {
        let mac = crate::frame::show_mac(namespace.mac(NIC)?);
        namespace.ip_batch(&format!(
            "tuntap add dev tap0 mode tap
             link set tap0 up
             link add br0 address {mac} type bridge forward_delay 0
             address flush dev {NIC}
             link set {NIC} master br0
             link set tap0 master br0
             link set br0 up
             address add {GATEWAY}/24 dev br0
             route add default via {ROUTER}"
        ))?;
    }
    let mut command = hosted(namespace, folder);
    command.arg(binary).args(["--config", "server.conf"]);
    Ok(command)
}

/// Where a gateway that runs in `folder` finds what it knows as /var/log/openvpn.
fn site_log(folder: &Path) -> PathBuf {
    folder.join("log/openvpn")
}

/// A command in `namespace` that sees the /sys of its network, as on a host of its own, its own log folder and its own
/// /run/trestle.
fn hosted(namespace: &Namespace, folder: &Path) -> Command {
    let prepare = format!(
        "mkdir -p \"$0/log\" \"$0/run\" /run/trestle && mount -t sysfs sysfs /sys && mount -t bpf bpf /sys/fs/bpf && mount --bind \"$0/log\" /var/log \
         && mkdir -p {LOG_FOLDER} && mount --bind \"$0/run\" /run/trestle && exec \"$@\""
    );
    let mut command = namespace.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &prepare]).arg(folder);
    command
}
