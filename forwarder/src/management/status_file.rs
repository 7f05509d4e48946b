//! OpenVPN's status file, versions 1 to 3, as OpenVPN 2.6 writes it: tools read it, so its form is upstream's.
//!
//! It is opened before privileges are given up and rewritten in place: afterwards a new file could not be made in
//! its directory. Source: multi.c `multi_print_status`, brief A.14.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    net::Ipv4Addr,
    path::Path,
    time::SystemTime,
};

use jiff::{Timestamp, tz::TimeZone};

/// `status-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Sections with a heading each.
    One,
    /// Every line says what it is; commas between fields.
    Two,
    /// As [`Self::Two`], tabs between fields.
    Three,
}

/// A client in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its certificate's common name.
    pub name: String,
    /// Address and port it sends from.
    pub address: String,
    /// UDP payload bytes from it.
    pub rx_bytes: u64,
    /// UDP payload bytes to it.
    pub tx_bytes: u64,
    /// When it connected.
    pub since: SystemTime,
    /// Its address inside the tunnel, if it was given one.
    pub inside: Option<Ipv4Addr>,
    /// Number of its session: never used twice.
    pub session: u64,
    /// Its number in data packets.
    pub peer_id: u32,
    /// Its data cipher.
    pub cipher: &'static str,
}

/// A station behind a client in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its hardware address, as `02:00:00:00:00:01`.
    pub mac: String,
    /// VLAN; 0: untagged.
    pub vlan: u16,
    /// The client's name.
    pub name: String,
    /// Where the client sends from.
    pub address: String,
    /// When the station was last heard.
    pub last: SystemTime,
}

/// An open status file.
#[derive(Debug)]
pub struct StatusFile {
    file: File,
    version: Version,
}

impl StatusFile {
    /// Opens or makes the file, to be written in the form of `version`.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn open(path: &Path, version: Version) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, version })
    }

    /// Writes the state over the former one.
    ///
    /// # Errors
    /// The file system does not take it; the file may then hold part of both.
    pub fn write(&mut self, now: SystemTime, clients: &[Client], routes: &[Route]) -> io::Result<()> {
        let zone = TimeZone::system();
        let text = match self.version {
            Version::One => sections(now, clients, routes, &zone),
            Version::Two => lines(now, clients, routes, &zone, ','),
            Version::Three => lines(now, clients, routes, &zone, '\t'),
        };
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
    }
}

/// Version 1.
fn sections(now: SystemTime, clients: &[Client], routes: &[Route], zone: &TimeZone) -> String {
    let mut text = format!(
        "OpenVPN CLIENT LIST\nUpdated,{}\nCommon Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n",
        time(now, zone)
    );
    for client in clients {
        let Client { name, address, rx_bytes, tx_bytes, since, .. } = client;
        let since = time(*since, zone);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{},{address},{rx_bytes},{tx_bytes},{since}", field(name));
    }
    text.push_str("ROUTING TABLE\nVirtual Address,Common Name,Real Address,Last Ref\n");
    for route in routes {
        let Route { mac, vlan, name, address, last } = route;
        let last = time(*last, zone);
        let _ = writeln!(text, "{mac}@{vlan},{},{address},{last}", field(name));
    }
    text.push_str("GLOBAL STATS\nMax bcast/mcast queue length,0\nEND\n");
    text
}

/// What versions 2 and 3 call the fields of a client and of a station.
const CLIENT_LIST: &str = "HEADER,CLIENT_LIST,Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes \
    Received,Bytes Sent,Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,Data Channel Cipher";
const ROUTING_TABLE: &str =
    "HEADER,ROUTING_TABLE,Virtual Address,Common Name,Real Address,Last Ref,Last Ref (time_t)";

/// Versions 2 and 3, which differ in what stands between fields.
fn lines(now: SystemTime, clients: &[Client], routes: &[Route], zone: &TimeZone, separator: char) -> String {
    let title = format!("TITLE,Trestle {}", env!("CARGO_PKG_VERSION"));
    let head = [title, format!("TIME,{},{}", time(now, zone), unix(now)), CLIENT_LIST.into()];
    let clients = clients.iter().map(|client| client_line(client, zone));
    let routes = routes.iter().map(|route| route_line(route, zone));
    let tail = ["GLOBAL_STATS,Max bcast/mcast queue length,0".into(), "END".into()];
    let all = head.into_iter().chain(clients).chain([ROUTING_TABLE.into()]).chain(routes).chain(tail);
    // No field holds a comma: names have theirs replaced.
    all.map(|line| line.replace(',', &separator.to_string()) + "\n").collect()
}

/// Nobody logs in by name, and no client is given an IPv6 address: upstream writes `UNDEF` and nothing.
fn client_line(client: &Client, zone: &TimeZone) -> String {
    let Client { name, address, rx_bytes, tx_bytes, since, inside, session, peer_id, cipher } = client;
    let inside = inside.map(|address| address.to_string()).unwrap_or_default();
    let (name, at, seconds) = (field(name), time(*since, zone), unix(*since));
    format!(
        "CLIENT_LIST,{name},{address},{inside},,{rx_bytes},{tx_bytes},{at},{seconds},UNDEF,{session},{peer_id},{cipher}"
    )
}

fn route_line(route: &Route, zone: &TimeZone) -> String {
    let Route { mac, vlan, name, address, last } = route;
    format!("ROUTING_TABLE,{mac}@{vlan},{},{address},{},{}", field(name), time(*last, zone), unix(*last))
}

/// Seconds since 1970.
fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A name as it may stand between commas.
fn field(name: &str) -> String {
    name.chars().map(|c| if c == ',' || c.is_control() { '_' } else { c }).collect()
}

/// Local time as `2026-01-31 23:59:59`. Source: `time_string` of otime.c.
fn time(at: SystemTime, zone: &TimeZone) -> String {
    // A clock outside jiff's years is no reason to stop: the first of 1970 shows that something is odd.
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn example() -> (Vec<Client>, Vec<Route>) {
        let clients = vec![Client {
            name: "agent-1".into(),
            address: "203.0.113.7:40001".into(),
            rx_bytes: 5107,
            tx_bytes: 4821,
            since: at(1_767_225_600),
            inside: Some(Ipv4Addr::new(10, 10, 21, 100)),
            session: 3,
            peer_id: 0,
            cipher: "AES-256-GCM",
        }];
        let routes = vec![Route {
            mac: "02:00:00:00:00:01".into(),
            vlan: 0,
            name: "agent-1".into(),
            address: "203.0.113.7:40001".into(),
            last: at(1_767_225_660),
        }];
        (clients, routes)
    }

    #[test]
    fn the_file_has_upstreams_form() {
        let (clients, routes) = example();
        assert_eq!(
            sections(at(1_767_225_661), &clients, &routes, &TimeZone::UTC),
            include_str!("testdata/status-1.txt")
        );
        let two = include_str!("testdata/status-2.txt").replace("VERSION", env!("CARGO_PKG_VERSION"));
        assert_eq!(lines(at(1_767_225_661), &clients, &routes, &TimeZone::UTC, ','), two);
        let three = lines(at(1_767_225_661), &clients, &routes, &TimeZone::UTC, '\t');
        assert_eq!(three, two.replace(',', "\t"));
    }

    #[test]
    fn times_are_local() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time(at(1_767_225_600), &zone), "2026-01-01 02:00:00");
    }

    #[test]
    fn a_shorter_state_leaves_nothing_of_a_longer_one() {
        let path = std::env::temp_dir().join(format!("trestle-status-{}", std::process::id()));
        let (clients, routes) = example();
        let mut file = StatusFile::open(&path, Version::One).unwrap();
        file.write(at(0), &clients, &routes).unwrap();
        file.write(at(0), &[], &[]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.starts_with("OpenVPN CLIENT LIST\nUpdated,") && text.ends_with("length,0\nEND\n"));
        assert_eq!(text.lines().count(), 8);
    }

    #[test]
    fn a_name_cannot_break_the_lines() {
        assert_eq!(field("a,b\nc"), "a_b_c");
    }
}
