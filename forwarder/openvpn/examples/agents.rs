//! Many clients of one server at once, to see what each costs it: Trestle or stock OpenVPN.
//!
//! `cargo run --release -p trestle-openvpn --example agents -- ADDRESS:PORT DIRECTORY SESSIONS AT-ONCE PID [STAY]`,
//! where DIRECTORY holds `ca.crt`, `client.crt` and `client.key`, and PID is the server's. At most AT-ONCE sessions
//! shake hands at a time. Says what CPU time and memory the server took for them; then stays connected (without
//! keepalives) for STAY seconds, and says it again.
#![allow(clippy::disallowed_methods, reason = "outside the crate somebody has to read the clock")]

use std::{
    error::Error,
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use trestle_openvpn::{
    client::{Client, Config, Event},
    tls,
};

/// Longest a run takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: agents ADDRESS:PORT DIRECTORY SESSIONS AT-ONCE PID [STAY]";
    let arg = |at: usize| args.get(at).ok_or(usage);
    let server: SocketAddr = arg(0)?.parse()?;
    let (sessions, at_once): (usize, usize) = (arg(2)?.parse()?, arg(3)?.parse()?);
    let config = config(Path::new(arg(1)?))?;
    let pid = arg(4)?;
    let stay: u64 = args.get(5).map_or(Ok(0), |seconds| seconds.parse())?;

    let (before, begun) = (Cost::of(pid)?, Instant::now());
    let mut agents = Vec::new();
    let mut connected = 0;
    while connected < sessions && begun.elapsed() < DEADLINE {
        while agents.len() < sessions && agents.len() - connected < at_once {
            agents.push(Agent::new(server, config.clone())?);
        }
        let busy = agents.iter_mut().filter(|agent| !agent.is_idle).try_fold(false, turn)?;
        connected = agents.iter().filter(|agent| agent.is_idle).count();
        if !busy {
            thread::sleep(Duration::from_micros(500));
        }
    }
    let took = begun.elapsed();
    // What follows a connection (acknowledgements, the rest of the push reply) belongs to its cost.
    turn_for(Duration::from_secs(1), &mut agents)?;
    println!(
        "{connected} of {sessions} in {:.2} s; {}",
        took.as_secs_f64(),
        Cost::of(pid)?.since(&before, connected)
    );
    if stay > 0 {
        turn_for(Duration::from_secs(stay), &mut agents)?;
        println!("{stay} s later: {}", Cost::of(pid)?.since(&before, connected));
    }
    Ok(())
}

fn turn(busy: bool, agent: &mut Agent) -> std::io::Result<bool> {
    Ok(agent.turn()? || busy)
}

fn turn_for(time: Duration, agents: &mut [Agent]) -> std::io::Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        agents.iter_mut().try_fold(false, turn)?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

struct Agent {
    socket: UdpSocket,
    client: Client,
    /// It is connected and has nothing more to say.
    is_idle: bool,
}

impl Agent {
    fn new(server: SocketAddr, config: Config) -> Result<Self, Box<dyn Error>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, client: Client::new(config, seed()?, Instant::now())?, is_idle: false })
    }

    /// True if something came.
    fn turn(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 2048];
        let mut heard = false;
        while let Ok(len) = self.socket.recv(&mut buffer) {
            heard = true;
            // Data packets are the server's keepalives.
            if buffer[0] >> 3 != 9 && self.client.handle_datagram(Instant::now(), &buffer[..len]).is_err() {
                println!("a control packet came to nothing");
            }
        }
        self.client.handle_timeout(Instant::now());
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Connected(_) => self.is_idle = true,
                Event::Closed(reason) => println!("closed: {reason:?}"),
                _ => {}
            }
        }
        while let Some(payload) = self.client.poll_transmit() {
            // A full socket or a late ICMP error: it is sent again.
            let _ = self.socket.send(&payload);
        }
        Ok(heard)
    }
}

/// What a process has used.
struct Cost {
    cpu_ns: u64,
    rss_kb: u64,
    threads: Vec<(String, u64)>,
}

impl Cost {
    fn of(pid: &str) -> Result<Self, Box<dyn Error>> {
        let mut threads = Vec::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let ran = fs::read_to_string(task.join("schedstat"))?;
            let ran: u64 = ran.split_whitespace().next().unwrap_or_default().parse()?;
            threads.push((fs::read_to_string(task.join("comm"))?.trim().to_owned(), ran));
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let rss_kb = rss.trim().trim_end_matches(" kB").parse()?;
        Ok(Self { cpu_ns: threads.iter().map(|(_, ran)| ran).sum(), rss_kb, threads })
    }

    /// What was used since `before`, for each of so many sessions and by thread; threads keep their places.
    fn since(&self, before: &Self, sessions: usize) -> String {
        let each = |total: f64| total / sessions.max(1) as f64;
        let threads = self.threads.iter().zip(&before.threads);
        let threads =
            threads.map(|((name, now), (_, then))| format!("{name} {:.0} ms", (now - then) as f64 / 1e6));
        format!(
            "server: {:.3} ms of CPU and {:.1} kB each, {} kB in all; threads: {}",
            each((self.cpu_ns - before.cpu_ns) as f64 / 1e6),
            each(self.rss_kb as f64 - before.rss_kb as f64),
            self.rss_kb,
            threads.collect::<Vec<_>>().join(", "),
        )
    }
}

fn config(directory: &Path) -> Result<Config, Box<dyn Error>> {
    let read = |name: &str| fs::read(directory.join(name));
    let tls = tls::client_config(&read("ca.crt")?, &read("client.crt")?, &read("client.key")?)?;
    Ok(Config::new(tls))
}

fn seed() -> Result<[u8; 32], Box<dyn Error>> {
    use std::io::Read;
    let mut seed = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
