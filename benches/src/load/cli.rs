use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::{Parser, ValueEnum};
use nix::net::if_::if_nametoindex;
use openvpn::{
    data::{Cipher, Layout},
    tls,
};
use rustls::crypto::aws_lc_rs;

use super::{Cargo, Datapath, Fleet, Macs, Orders, Plan, Rate, Run, To};

/// How long the server may take to show that it still knows the first session.
const KEPT: Duration = Duration::from_secs(3);
/// Most sessions: each has a port of its own.
const MAX_SESSIONS: u32 = 50_000;

/// Loads an OpenVPN server (TAP over UDP; Trestle, or stock OpenVPN 2.6) with Ethernet frames from many sessions, and
/// says what came back.
///
/// All sessions use one certificate, so the server needs `duplicate-cn`. Each sends the frame in the file with a source
/// address of its own. They hear each other only if the server has `client-to-client`.
///
/// For many sessions raise the server's `connect-freq-initial`, whose default is 100 in 10 seconds.
#[derive(Debug, Parser)]
#[command(name = "trestle-load", version, after_long_help = LONG_HELP)]
struct Options {
    /// The server, by address or name
    #[arg(long, value_name = "ADDR:PORT")]
    remote: String,
    /// Certificate of the authority that signed the server's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The client's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How many sessions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SESSIONS)))]
    sessions: u32,
    /// The raw bytes of the frame, from its destination address on, without checksum
    #[arg(long, value_name = "FILE")]
    frame_file: PathBuf,
    /// Frames a second of all sessions together, or `max`
    #[arg(long, value_name = "PPS|max", default_value = "1000", value_parser = rate)]
    rate: Rate,
    /// For how long frames are sent
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Where frames go: each session's to the next session, to everybody, or as the frame says
    #[arg(long, value_name = "WHOM", default_value = "frame")]
    to: Whom,
    /// By which way packets leave
    #[arg(long, value_name = "WAY", default_value = "auto")]
    datapath: Way,
    /// The interface to go by, if not the one of the route
    #[arg(long, value_name = "NIC")]
    interface: Option<String>,
    /// Our address, if not the one of the route
    #[arg(long, value_name = "ADDR", default_value_t = Ipv4Addr::UNSPECIFIED)]
    local: Ipv4Addr,
    /// The one version of TLS spoken
    #[arg(long, value_name = "VERSION")]
    tls: Option<Tls>,
    /// Does not offer data keys from the TLS exporter: they come as with OpenVPN 2.5
    #[arg(long)]
    prf: bool,
    #[command(flatten)]
    wrapping: super::wrapping::WrappingOptions,
    /// The newest layout of data packets offered
    #[arg(long, value_name = "LAYOUT", default_value = "v2")]
    layout: Newest,
    /// The one data cipher offered, if not upstream's three
    #[arg(long, value_name = "NAME", value_parser = cipher)]
    cipher: Option<Cipher>,
    /// Sends the frame as it is, without number and time at its end: order and delay are not known then
    #[arg(long)]
    no_stamp: bool,
    /// The four bytes all source addresses begin with, as 02:00:5e:01; else random
    #[arg(long, value_name = "MAC", value_parser = prefix)]
    mac_prefix: Option<Macs>,
    /// Within how many seconds sessions must be connected; it goes on with those that are
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    connect_timeout: Duration,
    /// How many sessions shake hands at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Prints one JSON object instead of a table
    #[arg(short, long)]
    json: bool,
}

/// Where frames go.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Whom {
    /// Session 0's to session 1, and so on, the last one's to session 0
    Session,
    /// To ff:ff:ff:ff:ff:ff
    Broadcast,
    /// To the address that stands in the frame
    Frame,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tls {
    #[value(name = "1.2")]
    Only12,
    #[value(name = "1.3")]
    Only13,
}

/// A layout of data packets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Newest {
    /// P_DATA_V1: without peer id, as before OpenVPN 2.4
    V1,
    /// P_DATA_V2, as OpenVPN 2.4 to 2.6
    V2,
    /// With epochs, as OpenVPN 2.7
    Epoch,
}

fn cipher(name: &str) -> Result<Cipher, String> {
    Cipher::from_name(name).ok_or_else(|| format!("`{name}` is no cipher there is"))
}

/// By which way packets leave.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    /// AF_XDP if it can be had without copying, else the sockets
    Auto,
    /// AF_XDP or not at all
    AfXdp,
    /// The kernel's UDP sockets
    Socket,
}

const LONG_HELP: &str = "\
What is sent
  Sources are locally administered addresses: four bytes that all sessions have in common, random for each run unless
  --mac-prefix says them, and two with the session's number. The last 24 bytes of the payload, if it has so many, become
  a stamp: 8 bytes that name the run, 4 the session, 4 the frame's number, 8 the time in nanoseconds since the run began.
  EtherType, tags and length stay; a checksum over the payload is not mended. Sessions take turns. At --rate max each
  sends 32 frames in a row.

What is counted
  sent        frames the kernel took
  received    frames that arrived at sessions of this run, each copy of a broadcast; the line of the session that sent
              them counts them
  lost        of those that should have arrived: with --to session and to a broadcast or multicast address. Of frames
              for others (--to frame) nobody here knows: `?`, in JSON null
  reordered   arrived after a frame that was sent later
  again       arrived a second time
  delay       from sealing to opening, through this host and the gateway, all on one clock

Ways out
  By the sockets a burst leaves as one large datagram that the kernel cuts (UDP GSO), packets that have to be fragments
  one by one. By AF_XDP packets and fragments leave past the kernel's stack, where the route leads out of an Ethernet NIC
  and the process may (root, or CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF); an XDP program on that NIC brings answers to the
  first 256 sessions, what it does not know goes on to the kernel. `auto` takes AF_XDP if the NIC has zero-copy, for
  without it the sockets are faster.

Ctrl-C ends the run with its report. The server is told that the sessions leave.

Exit code: 0 with a report; 1 if no session was connected, nothing could be sent, or a file is no good; 2 for a wrong
command line.

The JSON object: version, remote, datapath (af-xdp or socket), way, frame_bytes, to, stamped, rate (null: max), seconds,
sessions_wanted, sessions_connected, failures [{session, reason}], dropped_here, handshake_ms and delay_us {min, p50,
p99, p99.9, max}, total and sessions [{session, peer_id, local, mac, handshake_ms, rekeys, ...}] with sent,
sent_per_second, unsent, expected, received, received_per_second, lost, reordered, duplicates, delay_us. null is \"not
known\".

Example: 20,000 frames a second of 1414 bytes between three sessions
  head -c 1414 /dev/zero > frame
  trestle-load --remote 192.0.2.5:443 --ca ca.crt --cert load.crt --key load.key --sessions 3 --frame-file frame \\
               --to session --rate 20000 --seconds 5";

/// Runs the program.
pub fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("trestle-load: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let plan = plan(options)?;
    let cargo = cargo(options)?;
    let interface = options.interface.as_deref().map(index).transpose()?;
    let stop = trestle_tests::interrupt::watch().map_err(|error| error.to_string())?;
    let mut fleet = connect(&plan, &stop)?;
    let orders = Orders {
        cargo,
        rate: options.rate,
        duration: options.seconds,
        datapath: match options.datapath {
            Way::Auto => Datapath::Auto,
            Way::AfXdp => Datapath::AfXdp,
            Way::Socket => Datapath::Socket,
        },
        interface,
    };
    let result = go(orders, &mut fleet, &stop, options.json);
    fleet.leave();
    result
}

fn go(orders: Orders, fleet: &mut Fleet, stop: &AtomicBool, json: bool) -> Result<(), String> {
    let run = Run::prepare(orders, fleet).map_err(|error| error.to_string())?;
    eprintln!("sending by {}", run.way());
    let report = run.go(fleet, stop);
    if json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?);
    } else {
        print!("{}", report.table());
    }
    if report.total.sent == 0 && !stop.load(Ordering::Relaxed) {
        return Err("nothing could be sent: see the sessions' reasons above".into());
    }
    Ok(())
}

fn connect(plan: &Plan, stop: &Arc<AtomicBool>) -> Result<Fleet, String> {
    let fleet = Fleet::connect(plan, stop).map_err(|error| error.to_string())?;
    let (wanted, live) = (plan.sessions, fleet.live());
    eprintln!("{live} of {wanted} sessions connected with {}", plan.remote);
    for (reason, count) in fleet.reasons() {
        eprintln!("{count} of {wanted}: {reason}");
    }
    Ok(fleet)
}

fn plan(options: &Options) -> Result<Plan, String> {
    let remote = resolve(&options.remote)?;
    let (ca, cert, key) = (read(&options.ca)?, read(&options.cert)?, read(&options.key)?);
    let versions = match options.tls {
        None => tls::Versions::All,
        Some(Tls::Only12) => tls::Versions::Only12,
        Some(Tls::Only13) => tls::Versions::Only13,
    };
    let tls = tls::client_config_with(versions, &ca, &cert, &key).map_err(|error| {
        format!("{error} ({}, {}, {})", options.ca.display(), options.cert.display(), options.key.display())
    })?;
    let sessions = usize::try_from(options.sessions).unwrap_or(usize::MAX);
    let mut plan = Plan::new(remote, tls, sessions);
    plan.local = options.local;
    plan.interface.clone_from(&options.interface);
    plan.time_out = options.connect_timeout;
    plan.at_once = usize::try_from(options.at_once).unwrap_or(usize::MAX);
    plan.one_certificate = Some(KEPT);
    plan.max_frame = super::MAX_FRAME;
    plan.client.exporter = !options.prf;
    options.wrapping.apply(&mut plan.client)?;
    plan.client.layout = match options.layout {
        Newest::V1 => Layout::V1,
        Newest::V2 => Layout::V2,
        Newest::Epoch => Layout::Epoch,
    };
    if let Some(cipher) = options.cipher {
        plan.client.data_ciphers = vec![cipher];
    }
    Ok(plan)
}

fn cargo(options: &Options) -> Result<Cargo, String> {
    let to = match options.to {
        Whom::Session => To::Session,
        Whom::Broadcast => To::Broadcast,
        Whom::Frame => To::Frame,
    };
    let mut random = [0; 12];
    aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| "the random number generator fails: try again")?;
    let [_, a, b, c, tag @ ..] = random;
    // Locally administered, of one station.
    let macs = options.mac_prefix.unwrap_or(Macs([0x02, a, b, c]));
    Cargo::read(&options.frame_file, to, macs, tag, !options.no_stamp)
        .map_err(|error| format!("{}: {error}", options.frame_file.display()))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn index(interface: &str) -> Result<u32, String> {
    if_nametoindex(interface)
        .map_err(|_| format!("there is no interface {interface} here: `ip link` names them"))
}

/// The first IPv4 address of a name, or the address itself.
fn resolve(remote: &str) -> Result<SocketAddrV4, String> {
    let wrong = |why: String| format!("--remote {remote}: {why}; it must be ADDRESS:PORT, as 192.0.2.5:443");
    let mut addresses = remote.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    let first = addresses.find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    first.ok_or_else(|| wrong("it has no IPv4 address".into()))
}

fn rate(text: &str) -> Result<Rate, String> {
    match text.parse() {
        Ok(0) => Err("no frames at all is no load: it must be 1 at least".into()),
        Ok(rate) => Ok(Rate::PerSecond(rate)),
        Err(_) if text == "max" => Ok(Rate::Max),
        Err(_) => Err("it must be a number of frames a second, or `max`".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a number of seconds above 0 and up to a year".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    let allowed = seconds > 0.0 && seconds <= 366.0 * 86_400.0;
    allowed.then(|| Duration::from_secs_f64(seconds)).ok_or_else(wrong)
}

fn prefix(text: &str) -> Result<Macs, String> {
    let byte = |text: &str| {
        let is_byte = text.len() == 2 && text.chars().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(text, 16).ok().filter(|_| is_byte)
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    match bytes.as_deref() {
        Some([first, ..]) if first & 0b11 != 0b10 => {
            Err("a station's own locally administered address begins with x2, x6, xa or xe".into())
        }
        Some(&[a, b, c, d]) => Ok(Macs([a, b, c, d])),
        _ => Err("it must be four bytes, as 02:00:5e:01".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn what_is_no_rate_time_or_address_is_refused() {
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("20000"), Ok(Rate::PerSecond(20_000)));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("fast").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("0").is_err() && seconds("inf").is_err() && seconds("NaN").is_err());
        assert_eq!(prefix("02:00:5e:01"), Ok(Macs([2, 0, 0x5e, 1])));
        for wrong in
            ["", "02:00:5e", "00:00:5e:01", "03:00:5e:01", "02:00:5e:01:02", "2:0:5e:1", "+2:00:00:00"]
        {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
        assert!(resolve("192.0.2.5").is_err() && resolve("[::1]:443").is_err());
        assert_eq!(resolve("192.0.2.5:443").map(|remote| remote.port()), Ok(443));
    }
}
