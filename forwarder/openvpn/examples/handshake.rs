//! The server role on a plain UDP socket: all the IO that the protocol needs around it, for trying it against a real
//! client. It answers pings on the data channel and switches nothing.
//!
//! `cargo run -p trestle-openvpn --example handshake -- ADDRESS:PORT DIRECTORY [reneg-sec]`, where DIRECTORY holds
//! `ca.crt`, `server.crt` and `server.key`.
#![allow(clippy::disallowed_methods, reason = "outside the crate somebody has to read the clock")]

use std::{
    collections::HashMap,
    error::Error,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path as FilePath,
    time::{Duration, Instant},
};

use trestle_openvpn::{
    data::{DataChannel, Opened},
    ids::PeerId,
    server::{AllowCompression, Compress, Config, Event, ExitNotify, Path, Pool, Server},
    tls,
};

/// Largest frame: Ethernet header, VLAN tag and 1500 bytes.
const MAX_FRAME: usize = 1518;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: handshake ADDRESS:PORT DIRECTORY [reneg-sec]";
    let address: SocketAddr = args.next().ok_or(usage)?.parse()?;
    let directory = args.next().ok_or(usage)?;
    let reneg = args.next().map(|seconds| seconds.parse()).transpose()?.unwrap_or(3600);
    let config = config(FilePath::new(&directory), Duration::from_secs(reneg))?;
    run(&UdpSocket::bind(address)?, Server::new(config, seed()?, Instant::now()))
}

/// Once round: what arrived, what time brought, what goes out.
fn run(socket: &UdpSocket, mut server: Server) -> Result<(), Box<dyn Error>> {
    let local = socket.local_addr()?;
    let mut channels = HashMap::new();
    let mut buffer = [0; 65_536];
    loop {
        let wait = server.poll_timeout().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        socket.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
        if let Ok((len, remote)) = socket.recv_from(&mut buffer) {
            let path = Path::udp(remote, local);
            match buffer[0] >> 3 {
                9 => open(&mut server, &mut channels, &buffer[..len]),
                _ => {
                    if let Err(error) = server.handle_datagram(Instant::now(), path, &buffer[..len]) {
                        println!("{remote}: {error}");
                    }
                }
            }
        }
        server.handle_timeout(Instant::now());
        while let Some(event) = server.poll_event() {
            println!("{event:?}");
            handle(&mut server, &mut channels, socket, event)?;
        }
        while let Some(transmit) = server.poll_transmit() {
            socket.send_to(&transmit.payload, transmit.path.remote)?;
        }
    }
}

type Channels = HashMap<PeerId, (Path, DataChannel)>;

fn open(server: &mut Server, channels: &mut Channels, packet: &[u8]) {
    let [_, a, b, c, ..] = *packet else { return };
    let Some(peer_id) = PeerId::new(u32::from_be_bytes([0, a, b, c])) else { return };
    let Some((_, channel)) = channels.get_mut(&peer_id) else { return };
    let now = Instant::now();
    match channel.open(packet, &mut [0; MAX_FRAME]) {
        Ok(Opened::Exit) => server.handle_exit(now, peer_id),
        Ok(opened) => {
            println!("peer {peer_id} key {}: {opened:?}", packet[0] & 7);
            server.handle_activity(peer_id, now, now - Duration::from_secs(1));
        }
        Err(error) => println!("peer {peer_id}: {error}"),
    }
}

fn handle(
    server: &mut Server,
    channels: &mut Channels,
    socket: &UdpSocket,
    event: Event,
) -> Result<(), Box<dyn Error>> {
    match event {
        Event::Connected(peer) => {
            let channel = DataChannel::new(peer.peer_id, peer.profile, MAX_FRAME);
            channels.insert(peer.peer_id, (peer.path, channel));
        }
        Event::KeyInstalled { peer_id, key_id, keys } => {
            channels.entry(peer_id).and_modify(|(_, channel)| channel.install(key_id, *keys));
        }
        Event::SendWith { peer_id, key_id } => {
            channels.entry(peer_id).and_modify(|(_, channel)| channel.send_with(key_id));
        }
        Event::KeyRetired { peer_id, key_id } => {
            channels.entry(peer_id).and_modify(|(_, channel)| channel.retire(key_id));
        }
        Event::PingDue { peer_id } => {
            let mut packet = [0; 128];
            if let Some((path, channel)) = channels.get_mut(&peer_id)
                && let Ok(len) = channel.seal_ping(&mut packet)
            {
                socket.send_to(&packet[..len], path.remote)?;
                let now = Instant::now();
                server.handle_activity(peer_id, now - Duration::from_secs(3600), now);
            }
        }
        Event::Gone { peer_id, .. } => {
            channels.remove(&peer_id);
        }
        Event::PathChanged { .. } | Event::PathUnused { .. } | Event::Refused { .. } => {}
    }
    Ok(())
}

fn config(directory: &FilePath, reneg: Duration) -> Result<Config, Box<dyn Error>> {
    let read = |name: &str| std::fs::read(directory.join(name));
    let gateway = Ipv4Addr::new(10, 10, 21, 5);
    let tls = tls::server_config(&read("ca.crt")?, &read("server.crt")?, &read("server.key")?)?;
    Ok(Config {
        ping: Some(Duration::from_secs(10)),
        ping_restart: Some(Duration::from_secs(240)),
        push: vec![format!("route-gateway {gateway}"), "ping 10".into(), "ping-restart 120".into()],
        compress: Compress::Lz4V2,
        allow_compression: AllowCompression::Asym,
        pool: Some(Pool {
            gateway,
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            first: Ipv4Addr::new(10, 10, 21, 100),
            last: Ipv4Addr::new(10, 10, 21, 255),
        }),
        reneg: Some(reneg),
        exit_notify: Some(ExitNotify::Restart),
        ..Config::new(tls)
    })
}

fn seed() -> Result<[u8; 32], Box<dyn Error>> {
    use std::io::Read;
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
