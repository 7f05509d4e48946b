//! From a configuration to a running gateway. Each step holds what it made: when a later one fails, all is undone by
//! being dropped.
//!
//! ```text
//!  look at the host ─ open what needs privileges (port, files, host port, memory, programs) ─ drop privileges
//!     ─ steer, attach ─ start the workers ─ loop
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use caps::Capability;
use crossbeam::channel::bounded;
use mio::{Poll, Waker};
use nix::sys::{prctl, signal::Signal};
use openvpn::server::{Former, Server, Share, Wrappings};

use super::{
    Error,
    borrowed::Borrowed,
    bridge,
    capture::Captures,
    client_files::ClientFiles,
    confirm::Confirmation,
    crew::Crew,
    datapath::{Datapath, Kernel},
    dialler::{Dialler, Wake},
    fitness,
    gateway::{Gateway, token},
    guarding::Guarding,
    host_port,
    listeners::{self, ControlSockets},
    peer_entries::PeerEntries,
    plan::{self, Plan},
    pool::Pool,
    pool_schedule::{self, PoolSchedule},
    report::{About, StatusSchedule},
    reread::Reread,
    role::Role,
    servers::{self, Listening, Servers},
    sessions::Sessions,
    signals::Signals,
    stations::Stations,
    streams::{self, Connections, Prepared},
    surroundings::Surroundings,
    wires::Wires,
};
use crate::{
    config::{self, Config, Listener},
    host::{
        netlink::Requests,
        privileges::{self, Identity},
    },
    management::socket::ControlSocket as ManagementSocket,
    worker::Clock,
};

/// Notices that may wait for the control thread: a batch of new stations from each of many workers.
const NOTICES: usize = 4096;
/// Who had which address of a server, and the file of it.
type Addresses = (Former, Option<PoolSchedule>);
/// Where a client's file says nothing of its own address.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Starts the gateway.
#[expect(clippy::disallowed_methods, reason = "the process's clock begins here")]
pub(super) fn start(config: &Config) -> Result<Gateway, Error> {
    // Before any thread: they inherit it.
    let signals = Signals::take().map_err(|error| Error::os("wait for signals", error))?;
    let now = Instant::now();
    let mut requests = Requests::routing().map_err(|error| Error::os("talk to netlink", error))?;
    let plan = Plan::of(config, &mut requests)?;
    fitness::check(&plan, &mut requests)?;
    let confirmation = Confirmation::ask(config.confirm);
    let identity = Identity::resolve(config.server.user.as_deref(), config.server.group.as_deref())?;
    let poll = Poll::new().map_err(|error| Error::os("wait for events", error))?;
    let mut management = ManagementSocket::bind(&config.control)?;
    let watched = management.register(poll.registry(), token::MANAGEMENT);
    watched.map_err(|error| Error::os("wait for events", error))?;
    let status_file = StatusSchedule::open(&config.server, now);
    let addresses = config.servers().map(|server| pool_schedule::open(server, now)).collect();
    write_pid(&config.server)?;
    let listening = listeners::open(config, plan.workers)?;
    let config = &listening.bound(config).map_err(|error| Error::os("use its UDP sockets", error))?;
    let mut sockets = ControlSockets::new(listening.control, token::TUNNEL)
        .map_err(|error| Error::os("use its UDP sockets", error))?;
    sockets.register(poll.registry()).map_err(|error| Error::os("wait for events", error))?;
    let preparation = fitness::prepare(&plan)?;
    let crew = Crew::enlist(&plan, listening.tunnels)?;
    let mut borrowed = crew.host_port().and_then(|name| Borrowed::of(&plan, name, &mut requests));
    let host_port =
        crew.host_port().map(|name| host_port::prepare(&plan, name, &mut requests)).transpose()?;
    borrowed.iter_mut().for_each(|borrowed| borrowed.changed(&mut requests));
    let port_index = host_port.as_ref().map_or(0, |port| port.index);
    let kernel = plan.needs_programs().then(|| Kernel::load(&plan, &crew, port_index)).transpose()?;
    let bridge = bridge::follow(&plan, port_index, now)?;
    // Threads inherit what is left, so this comes before the first.
    privileges::drop_privileges(identity, kept_besides(config, &plan))?;
    config.supervisor.map(end_with).transpose()?;
    let peer_entries = plan.joins.as_ref().map(|_| PeerEntries::open(port_index)).transpose()?;
    let surroundings = Surroundings::open(plan.place(config, host_port.as_ref().map(|port| port.mac)), now)?;

    let waker =
        Waker::new(poll.registry(), token::NOTICES).map_err(|error| Error::os("wake itself", error))?;
    let (notices_in, notices) = bounded(NOTICES);
    let clock = Clock::new(now);
    let xsk = crew.xsk();
    let waker = Arc::new(waker);
    let prepared = streams::prepare(listening.streams, &waker)?;
    let bell = prepared.as_ref().map(Prepared::bell);
    let mut working = crew.begin(&plan, config.ageing, &notices_in, &waker, clock, bell)?;
    let connections = prepared.zip(working.streams.take());
    let connections = connections
        .map(|(prepared, lanes)| Connections::start(prepared, lanes, &plan, &config.server, now))
        .transpose()?;
    let host_port = host_port.map(|port| port.name);
    let limits = config.servers().map(|server| server.max_macs_per_peer).collect();
    let sessions = Sessions::new(clock, plan.max_frame, limits, config.guards);
    let mut gateway = Gateway {
        role: role(config, addresses, waker, now)?,
        stations: Stations::new(config.ageing, now),
        sessions,
        datapath: Datapath::new(working, kernel, xsk, preparation, Wires::new(&plan), peer_entries),
        bridge,
        poll,
        signals,
        sockets,
        connections,
        surroundings,
        notices,
        management,
        reread: Reread::of(config),
        about: About::new(config, &plan, host_port.as_deref(), now),
        status_file,
        captures: Captures::new(now),
        next_chores: now,
        confirmation,
        guarding: Guarding::new(config.guards, seed)?,
        _borrowed: borrowed,
        stopping: false,
    };
    gateway.watch()?;
    gateway.post_guards();
    gateway.apply_surroundings(now);
    gateway.datapath.attach(&plan, host_port.as_deref())?;
    gateway.begin_bridge(now);
    gateway.announce(&plan);
    gateway.begin_confirmation();
    Ok(gateway)
}

/// What is kept besides: by an accelerator what it takes to look at far ends, by who joins a bridge what it takes to open
/// sockets on ports that come later.
fn kept_besides(config: &Config, plan: &Plan) -> &'static [Capability] {
    match (&config.role, &plan.joins) {
        (config::Role::Accelerator, _) => &privileges::LOOKING,
        (_, Some(_)) if plan.xdp.is_some() => &privileges::LOCKING,
        _ => &[],
    }
}

/// What the gateway is to the other end of its tunnels.
fn role(config: &Config, addresses: Vec<Addresses>, waker: Arc<Waker>, now: Instant) -> Result<Role, Error> {
    match &config.role {
        config::Role::Server { tls, wrappings, further } => {
            let pool = Pool::start(plan::allowed_cpus().len(), servers::run, move || wake(&waker))?;
            let first = (&config.server, tls, wrappings);
            let further = further.iter().map(|one| (&one.server, &one.tls, &one.wrappings));
            let all = std::iter::once(first).chain(further).zip(addresses).enumerate();
            let all = all.map(|(index, (parts, addresses))| {
                listening(parts, addresses, Share::new(index, config.servers().count()), now)
            });
            Ok(Role::Server(Box::new(Servers::new(all.collect::<Result<_, _>>()?, pool))))
        }
        config::Role::Client { file, tls, wrapping } => {
            let protocol = config::protocol::client_protocol(file, Arc::clone(tls), wrapping.clone());
            let local = config.server.listeners.first().map_or(ANY, Listener::bind_address);
            let wake: Wake = Arc::new(move || wake(&waker));
            let dialler = Dialler::new(file, protocol, local, seed, wake, now)?;
            Ok(Role::Client(Box::new(dialler)))
        }
        config::Role::Accelerator => Ok(Role::Accelerator { stopped: false }),
    }
}

/// One of the servers.
fn listening(
    (server, tls, wrappings): (&config::Server, &Arc<rustls::ServerConfig>, &Wrappings),
    (former, pool_file): Addresses,
    share: Option<Share>,
    now: Instant,
) -> Result<Listening, Error> {
    let mut protocol = config::protocol::protocol(server, Arc::clone(tls), wrappings.clone());
    protocol.former = former;
    protocol.directory = ClientFiles::of(server).map(|files| Arc::new(files) as _);
    protocol.share = share.unwrap_or_default();
    let listeners = server.listeners.clone();
    Ok(Listening { server: Server::new(protocol, seed()?, now), listeners, pool_file })
}

/// Tells the control thread that there is something to take.
fn wake(control: &Waker) {
    if let Err(error) = control.wake() {
        tracing::debug!(%error, "the control thread was not woken");
    }
}

/// From now on the supervisor's end is a SIGTERM to us. A change of user would undo that, so this comes after it.
fn end_with(supervisor: u32) -> Result<(), Error> {
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|error| Error::os("end with its supervisor", error))?;
    let parent = nix::unistd::getppid().as_raw();
    if i32::try_from(supervisor) == Ok(parent) { Ok(()) } else { Err(Error::SupervisorGone) }
}

/// `writepid`.
fn write_pid(server: &config::Server) -> Result<(), Error> {
    let Some(path) = &server.pid_file else { return Ok(()) };
    let path = config::tls::resolve(server, path);
    let written = std::fs::write(&path, format!("{}\n", std::process::id()));
    written.map_err(|source| Error::File { what: "writepid", path, source })
}

/// Secret randomness for the protocol.
fn seed() -> Result<[u8; 32], Error> {
    let mut seed = [0; 32];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut seed).map_err(|_| Error::os("have random numbers", std::io::ErrorKind::Other))?;
    Ok(seed)
}
