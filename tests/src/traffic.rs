use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::netns::Namespace;
use crate::process::{Process, output, patient};
use crate::{Fault, Result};

/// What iperf3 sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// One TCP connection, as fast as it goes.
    Tcp,
    /// UDP datagrams of 1200 bytes at so many Mbit/s.
    Udp(u32),
}

/// What iperf3 measured at the receiver.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Bits a second received.
    pub bits_per_second: f64,
    /// Lost datagrams of all sent, 0 to 1; 0 for TCP.
    pub loss: f64,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// For so long.
    Seconds(u32),
    /// Until so many bytes are sent.
    Megabytes(u32),
}

/// Sends `stream` from `from` to `address`, which is in `to`.
pub fn iperf3(
    from: &Namespace,
    to: &Namespace,
    address: Ipv4Addr,
    stream: Stream,
    extent: Extent,
) -> Result<Throughput> {
    let log = std::env::temp_dir().join(format!("{}.iperf3", to.name()));
    let mut serving = to.command("iperf3");
    serving.args(["--server", "--one-off", "--forceflush"]);
    let mut server = Process::spawn("iperf3 server", &mut serving, &log)?;
    let measured = server.wait_for("Server listening", Duration::from_secs(10)).and_then(|()| {
        let mut client = from.command("iperf3");
        client.args(["--json", "--connect-timeout", "5000", "--client", &address.to_string()]);
        match extent {
            Extent::Seconds(seconds) => client.args(["--time", &seconds.to_string()]),
            Extent::Megabytes(megabytes) => client.args(["--bytes", &format!("{megabytes}M")]),
        };
        if let Stream::Udp(megabits) = stream {
            client.args(["--udp", "--length", "1200", "--bitrate", &format!("{megabits}M")]);
        }
        output(&mut client, 40)
    });
    drop(server);
    let _ = std::fs::remove_file(&log);
    let measured = measured?;
    read_report(&measured.stdout).ok_or_else(|| {
        Fault::other(format!(
            "iperf3 to {address}: code {:?}: {}{}",
            measured.code, measured.stdout, measured.stderr
        ))
    })
}

fn read_report(text: &str) -> Option<Throughput> {
    let report: Value = serde_json::from_str(text).ok()?;
    if report.get("error").is_some() {
        return None;
    }
    let end = &report["end"];
    // With UDP iperf3 before 3.10 has only `sum`; later ones call the receiver's view `sum_received`.
    let received = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
    let bits_per_second = received["bits_per_second"].as_f64()?;
    let loss =
        received["lost_percent"].as_f64().or_else(|| end["sum"]["lost_percent"].as_f64()).unwrap_or(0.0);
    Some(Throughput { bits_per_second, loss: loss / 100.0 })
}

/// Numbered datagrams, each sent back by the other side: runs until stopped and knows every one that was lost.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<FlowReport>,
    echo: JoinHandle<()>,
}

/// What became of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// Datagrams sent.
    pub sent: u32,
    /// Numbers that were not answered within a second after the last.
    pub lost: Vec<u32>,
    /// Answers that came again.
    pub duplicates: u32,
}

impl Flow {
    /// Port the echoing side listens on.
    const PORT: u16 = 7007;

    /// Starts a flow from `from` to `address` in `to`, one datagram every `interval`.
    pub fn start(from: &Namespace, to: &Namespace, address: Ipv4Addr, interval: Duration) -> Result<Self> {
        let echo = bound(to, (address, Self::PORT).into())?;
        let socket = bound(from, (Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.connect((address, Self::PORT)).map_err(Fault::io("connecting a flow"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ends, echo_ends) = (Arc::clone(&stop), Arc::clone(&stop));
        Ok(Self {
            stop,
            sender: std::thread::spawn(move || send_numbers(&socket, interval, &ends)),
            echo: std::thread::spawn(move || send_back(&echo, &echo_ends)),
        })
    }

    /// Ends the flow and tells what was lost.
    pub fn stop(self) -> Result<FlowReport> {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.sender.join().map_err(|_| Fault::other("the sender of a flow panicked"))?;
        self.echo.join().map_err(|_| Fault::other("the echo of a flow panicked"))?;
        Ok(report)
    }
}

fn bound(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace.within(|| UdpSocket::bind(address))?;
    let socket = socket.map_err(Fault::io(format!("binding {address} in {}", namespace.name())))?;
    socket.set_read_timeout(Some(Duration::from_millis(1))).map_err(Fault::io("setting a time-out"))?;
    Ok(socket)
}

fn send_numbers(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> FlowReport {
    let mut answered: Vec<u32> = Vec::new();
    let mut sent = 0_u32;
    let mut next = Instant::now();
    let mut last_call = None;
    while last_call.is_none_or(|end| Instant::now() < end && answered.contains(&0)) {
        if last_call.is_none() && Instant::now() >= next {
            let _ = socket.send(&sent.to_be_bytes());
            answered.push(0);
            sent += 1;
            next += interval;
        }
        let mut number = [0; 4];
        if let Ok(4) = socket.recv(&mut number)
            && let Some(times) = answered.get_mut(u32::from_be_bytes(number) as usize)
        {
            *times += 1;
        }
        if last_call.is_none() && stop.load(Ordering::Relaxed) {
            last_call = Some(Instant::now() + patient(Duration::from_secs(1)));
        }
    }
    let lost = (0..sent).zip(&answered).filter(|(_, times)| **times == 0).map(|(number, _)| number).collect();
    FlowReport { sent, lost, duplicates: answered.iter().map(|times| times.saturating_sub(1)).sum() }
}

/// Answers until a moment after the sender has given up.
fn send_back(socket: &UdpSocket, stop: &AtomicBool) {
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end) {
        let mut bytes = [0; 64];
        if let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], from);
        }
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(Instant::now() + patient(Duration::from_millis(1100)));
        }
    }
}
