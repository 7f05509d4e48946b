//! `trestle run`: the command line and `server.conf` into one [`Config`], and the gateway started with it.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Args;

use super::{ControlArgs, Error, log, segments};
use crate::config::{
    self, Config, Datapath, Further, Guards, Level, Note, Uplink, UplinkMode, XdpMode, further,
    guards::StormLimit,
};
use crate::control;

/// What `trestle run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// OpenVPN's server configuration, as it stands; several servers may share the segment; with --bridge it may be left away
    #[arg(value_name = "SERVER.CONF")]
    servers: Vec<PathBuf>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// What every gateway takes, whatever its role.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// The NIC on the wire, and how to stand beside the host: bridge (the wire is a port of the segment) or underlay
    /// (the wire carries only the tunnel; for EC2, Azure and GCE)
    #[arg(long, value_name = "NIC[:MODE]")]
    uplink: Vec<String>,
    /// Workers, one a receive queue [default: as many as the NIC has queues]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// CPUs the workers are pinned to, as 0,2-3
    #[arg(long, value_name = "LIST")]
    cpus: Option<String>,
    /// How frames come to the workers
    #[arg(long, value_enum, default_value_t)]
    datapath: Datapath,
    /// Where in the kernel XDP runs
    #[arg(long, value_enum, default_value_t)]
    xdp: XdpMode,
    /// Seconds after which a station that is not heard is forgotten [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    ageing: Option<u32>,
    /// Take everything back after so many seconds, unless `trestle confirm` comes before
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    confirm: Option<u32>,
    #[command(flatten)]
    guards: GuardArgs,
    #[command(flatten)]
    control: ControlArgs,
    /// A kernel bridge: what it has learnt is forwarded between its ports by XDP; without SERVER.CONF nothing else is done
    #[arg(long, value_name = "BR")]
    bridge: Option<String>,
    /// A file of segments: each becomes a gateway of its own, watched and reloaded
    #[arg(long, value_name = "TRESTLE.TOML")]
    config: Option<PathBuf>,
    /// The process whose end is this one's
    #[arg(long, value_name = "PID", hide = true)]
    supervisor: Option<u32>,
}

/// What guards the segment against its own members.
#[derive(Clone, Debug, Args)]
struct GuardArgs {
    /// Most frames a second of one peer, of a KIND: broadcast, multicast or unknown (unicast to nobody known)
    /// [default: off]
    #[arg(long, value_name = "KIND=N|off")]
    storm_limit: Vec<StormLimit>,
    /// Most stations behind one peer [default: what max-routes-per-client says]
    #[arg(long, value_name = "N")]
    mac_limit: Option<NonZeroU32>,
    /// Let a segment that is joined to itself through a peer go on turning
    #[arg(long)]
    no_loop_guard: bool,
}

impl GuardArgs {
    fn guards(&self) -> Guards {
        let mut guards =
            Guards { mac_limit: self.mac_limit, loop_guard: !self.no_loop_guard, ..Guards::default() };
        self.storm_limit.iter().for_each(|&limit| guards.limit(limit));
        guards
    }
}

/// Ageing when neither the command line nor `stale-routes-check` says another: what switches have by default.
const AGEING: Duration = Duration::from_secs(300);

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// What is wrong with the command line, the configuration, or the host.
pub fn run(args: RunArgs) -> Result<(), Error> {
    match &args.gateway.config {
        Some(file) if args.servers.is_empty() => segments::run(file, &args.gateway.control.control),
        _ => start(configure(args)?),
    }
}

/// Starts the log, then the gateway.
pub(super) fn start((config, notes): (Config, Vec<Note>)) -> Result<(), Error> {
    log::start(&config.server)?;
    for note in &notes {
        match note.level {
            Level::Info => tracing::info!("{note}"),
            Level::Warning => tracing::warn!("{note}"),
        }
    }
    Ok(control::run(config)?)
}

/// Everything that can be wrong before the host is touched.
///
/// # Errors
/// What is not there yet, a wrong list, an unusable configuration or certificate.
pub fn configure(args: RunArgs) -> Result<(Config, Vec<Note>), Error> {
    let paths = args.servers;
    if paths.is_empty() && args.gateway.bridge.is_some() {
        refuse_what_an_accelerator_has_not(&args.gateway)?;
        return args
            .gateway
            .configure(|| Ok((config::Server::none(), config::Role::Accelerator, Vec::new())));
    }
    args.gateway.configure(|| {
        let (first, paths) = paths.split_first().ok_or_else(|| {
            Error::new(
                "no configuration is named; name OpenVPN's: `trestle run server.conf --uplink NIC`, or a bridge to \
                 be accelerated: `trestle run --bridge br0`",
            )
        })?;
        let (Further { server, tls, wrappings }, mut notes) = load(first)?;
        let further = paths.iter().map(|path| load_further(path, &server, &mut notes));
        let further = further.collect::<Result<Vec<_>, Error>>()?;
        let mut former = vec![&server];
        for one in &further {
            former.iter().try_for_each(|former| further::check(&one.server, former))?;
            former.push(&one.server);
        }
        Ok((server, config::Role::Server { tls, wrappings, further }, notes))
    })
}

impl GatewayArgs {
    /// The configuration of a gateway, once the command line was found right; `read` gives what the role's file says, the
    /// role, and what the operator should read beside the file's own notes.
    pub(super) fn configure(
        self,
        read: impl FnOnce() -> Result<(config::Server, config::Role, Vec<Note>), Error>,
    ) -> Result<(Config, Vec<Note>), Error> {
        refuse_what_comes_later(&self)?;
        self.bridge.as_deref().map(check_bridge_name).transpose()?;
        let uplink = self.uplink.first().map(|word| parse_uplink(word)).transpose()?;
        let cpus = self.cpus.as_deref().map(parse_cpus).transpose()?.unwrap_or_default();
        let (server, role, more) = read()?;
        if self.bridge.is_some() {
            refuse_what_a_joined_bridge_has_not(&server, &role)?;
        }
        refuse_an_address_on_the_wire(&server, uplink.as_ref())?;
        let notes = server.notes.iter().cloned().chain(more).collect();
        let ageing = self.ageing.map(|seconds| Duration::from_secs(seconds.into())).or(server.ageing);
        let config = Config {
            server,
            role,
            uplink,
            bridge: self.bridge,
            workers: self.workers,
            cpus,
            datapath: self.datapath,
            xdp: self.xdp,
            control: self.control.control,
            ageing: ageing.unwrap_or(AGEING),
            confirm: self.confirm.map(|seconds| Duration::from_secs(seconds.into())),
            guards: self.guards.guards(),
            supervisor: self.supervisor,
        };
        Ok((config, notes))
    }
}

/// A server's file and all it names, and what the operator should read of those.
fn load(path: &Path) -> Result<(Further, Vec<Note>), Error> {
    let server = config::read(path)?;
    let loaded = config::tls::load(&server, unix_time())?;
    let (wrappings, notes) = config::wrapping::load(&server)?;
    let notes = loaded.notes.into_iter().chain(notes).collect();
    Ok((Further { server, tls: loaded.tls, wrappings }, notes))
}

fn load_further(path: &Path, first: &config::Server, notes: &mut Vec<Note>) -> Result<Further, Error> {
    let (further, more) = load(path)?;
    notes.extend(further.server.notes.iter().cloned().chain(more));
    notes.extend(further::passed_over(&further.server, first));
    Ok(further)
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "certificates are judged by the wall clock")]
pub(super) fn unix_time() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn refuse_what_comes_later(args: &GatewayArgs) -> Result<(), Error> {
    let later = if args.config.is_some() {
        "--config names whole segments and stands alone: write `trestle run --config trestle.toml`, and server files in it"
    } else if args.uplink.len() > 1 {
        "a second --uplink comes later; name one NIC"
    } else if args.bridge.is_some() && !args.uplink.is_empty() {
        "--bridge and --uplink exclude each other: the ports of the bridge are found by themselves; name one of the two"
    } else {
        return Ok(());
    };
    Err(Error::new(later))
}

/// A bridge has its own NICs, and the host its address there.
fn refuse_what_a_joined_bridge_has_not(server: &config::Server, role: &config::Role) -> Result<(), Error> {
    if matches!(role, config::Role::Client { .. }) {
        return Err(Error::new(
            "--bridge with a client's file comes later; name the NIC itself by --uplink NIC, out of its bridge",
        ));
    }
    let Some(own) = server.host_address else { return Ok(()) };
    let place = config::Place::line(&server.file, own.line);
    let what =
        format!("the host cannot have {} on a port of a bridge: its address is the bridge's", own.address);
    Err(config::Error::at(place, what, "write `server-bridge` and give the bridge its address yourself")
        .into())
}

/// Without SERVER.CONF there is no tunnel and nobody behind it: what concerns those is a mistake, or a forgotten file.
fn refuse_what_an_accelerator_has_not(args: &GatewayArgs) -> Result<(), Error> {
    let words = if !args.uplink.is_empty() {
        "--uplink names the NIC of a tunnel, and there is none without SERVER.CONF: leave it away, the ports of the \
         bridge are found by themselves"
    } else if args.workers.is_some() || !args.cpus.as_deref().unwrap_or_default().is_empty() {
        "--workers and --cpus have no meaning without SERVER.CONF: the kernel forwards between ports on the CPUs \
         their interrupts come to; leave them away"
    } else if args.datapath == Datapath::Socket {
        "--datapath socket leaves nothing to accelerate a bridge with: leave it away"
    } else if args.xdp == XdpMode::Generic {
        "generic XDP is no faster than the bridge itself: leave --xdp away, and ports without native XDP stay with \
         the kernel"
    } else if args.ageing.is_some() {
        "the bridge's own ageing time holds: set it with `brctl setageing` or `ip link set dev BR type bridge \
         ageing_time`, and leave --ageing away"
    } else {
        return Ok(());
    };
    Err(Error::new(words))
}

fn check_bridge_name(name: &str) -> Result<(), Error> {
    if is_interface_name(name) {
        return Ok(());
    }
    Err(Error::new(format!("`{name}` cannot be a bridge's name; `ip link show type bridge` shows them")))
}

/// As `dev_valid_name` of net/core/dev.c has it.
fn is_interface_name(name: &str) -> bool {
    let fits = (1..IFNAMSIZ).contains(&name.len()) && !matches!(name, "." | "..");
    fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace())
}

/// With the zero byte at the end. Source: include/uapi/linux/if.h.
const IFNAMSIZ: usize = 16;

/// A host that is on the wire by its NIC would be there twice.
fn refuse_an_address_on_the_wire(
    server: &config::Server,
    uplink: Option<&Uplink>,
) -> Result<(), config::Error> {
    let bridged = uplink.filter(|uplink| uplink.mode == UplinkMode::Bridge);
    let (Some(uplink), Some(own)) = (bridged, server.host_address) else { return Ok(()) };
    Err(config::Error::at(
        config::Place::line(&server.file, own.line),
        format!(
            "the host cannot have {} on the segment: it is there with the address of {}",
            own.address, uplink.nic
        ),
        format!(
            "write --uplink {}:underlay for a network of its own, or `server-bridge` for the wire's",
            uplink.nic
        ),
    ))
}

fn parse_uplink(word: &str) -> Result<Uplink, Error> {
    let (nic, mode) = word.split_once(':').unwrap_or((word, "bridge"));
    let mode = match mode {
        "bridge" => UplinkMode::Bridge,
        "underlay" => UplinkMode::Underlay,
        "macnat" => {
            return Err(Error::new(format!(
                "--uplink {nic}:macnat comes later; on a cloud's NIC write --uplink {nic}:underlay"
            )));
        }
        other => {
            return Err(Error::new(format!(
                "--uplink does not know the mode `{other}`; write {nic}:bridge or {nic}:underlay"
            )));
        }
    };
    if !is_interface_name(nic) {
        return Err(Error::new(format!("`{nic}` cannot be a NIC's name; `ip link` shows them")));
    }
    Ok(Uplink { nic: nic.to_owned(), mode })
}

/// Highest CPU number taken: what Linux is built for at most.
const CPUS: usize = 8192;

/// `0,2-3` as the CPUs 0, 2 and 3, in this order.
fn parse_cpus(list: &str) -> Result<Vec<usize>, Error> {
    let wrong = || Error::new(format!("--cpus {list} is not a list of CPUs; write one as 0,2-3"));
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            first.trim().parse().ok().zip(last.trim().parse().ok()).ok_or_else(wrong)?;
        if first > last || last >= CPUS {
            return Err(wrong());
        }
        cpus.extend((first..=last).filter(|cpu| !cpus.contains(cpu)).collect::<Vec<_>>());
    }
    Ok(cpus)
}
