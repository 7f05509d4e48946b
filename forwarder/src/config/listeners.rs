//! Where the gateway listens: `port`, `lport`, `proto`, `local` and `bind` into a list of [`Listener`]s.
//!
//! Without `local` there is one, on every address. Each `local HOST [PORT] [PROTO]` makes one of its own, and takes what
//! it leaves out from `port` and `proto`, wherever those stand in the file. Source: OpenVPN 2.7, options.c
//! `options_postprocess_mutate_le`, socket.c `resolve_bind_local`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use openvpn::server::Transport;

use super::{
    apply::Done,
    error::{Error, Level, Place},
    words::{Directive, shown},
};

/// Most listeners: each has a socket for every worker, and a key in XDP's map for every address of the host.
const MAX_LISTENERS: usize = 16;
/// Longest `tcp-queue-limit` that is followed: with full frames some 6 MB a client that reads nothing.
const MAX_QUEUE: usize = 4096;

/// One address and port that clients reach the gateway at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// UDP or TCP.
    pub transport: Transport,
    /// Which addresses of clients.
    pub family: Family,
    /// The address listened on, of `family`; `None`: every address of the host.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// Addresses of which kind reach a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, by one IPv6 socket (`IPV6_V6ONLY` 0). Only without an address.
    Dual,
}

impl Listener {
    /// The address to bind to.
    pub fn bind_address(&self) -> SocketAddr {
        let every = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 | Family::Dual => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(self.address.unwrap_or(every), self.port)
    }

    /// Whether packets to `local` are for this one.
    pub(crate) fn takes(&self, transport: Transport, local: SocketAddr) -> bool {
        let family = match self.family {
            Family::V4 => local.is_ipv4(),
            Family::V6 => local.is_ipv6(),
            Family::Dual => true,
        };
        let address = self.address.is_none_or(|address| address == local.ip());
        self.transport == transport && self.port == local.port() && family && address
    }

    /// Whether a client may reach both at one address.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let families = self.family == other.family || [self.family, other.family].contains(&Family::Dual);
        let addresses = self.address.is_none() || other.address.is_none() || self.address == other.address;
        self.transport == other.transport && self.port == other.port && families && addresses
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", transport_name(self.transport), self.bind_address())
    }
}

/// As operators write it.
pub const fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    }
}

/// A word for a protocol: what it carries, and whether it names IPv6.
type Proto = (Transport, bool);

/// What has been read so far.
#[derive(Debug)]
pub(super) struct Listening {
    port: u16,
    proto: Proto,
    ipv6_only: bool,
    locals: Vec<Local>,
}

impl Default for Listening {
    fn default() -> Self {
        Self { port: 1194, proto: (Transport::Udp, false), ipv6_only: false, locals: Vec::new() }
    }
}

/// One `local` line.
#[derive(Debug)]
struct Local {
    line: u32,
    address: Option<IpAddr>,
    port: Option<u16>,
    proto: Option<Proto>,
}

impl Listening {
    /// The listeners, in the order of their lines; at least one.
    pub(super) fn finish(&self, place: impl Fn(u32) -> Place) -> Result<Vec<Listener>, Error> {
        if self.locals.is_empty() {
            return Ok(vec![self.listener(None, None, None)]);
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for local in &self.locals {
            let listener = self.listener(local.address, local.port, local.proto);
            if listeners.iter().any(|other| other.overlaps(&listener)) {
                return Err(Error::at(
                    place(local.line),
                    format!("an earlier `local` listens on {listener} already"),
                    "take the line out, or name another port behind the address",
                ));
            }
            listeners.push(listener);
        }
        Ok(listeners)
    }

    fn listener(&self, address: Option<IpAddr>, port: Option<u16>, proto: Option<Proto>) -> Listener {
        let (transport, names_ipv6) = proto.unwrap_or(self.proto);
        let every_ipv6 = if self.ipv6_only { Family::V6 } else { Family::Dual };
        let family = match address {
            Some(IpAddr::V4(_)) => Family::V4,
            Some(IpAddr::V6(address)) if !address.is_unspecified() => Family::V6,
            Some(IpAddr::V6(_)) => every_ipv6,
            None if names_ipv6 => every_ipv6,
            // Where nothing says which, upstream takes what the resolver names first: IPv4 on Linux.
            None => Family::V4,
        };
        let address = address.filter(|address| !address.is_unspecified());
        Listener { transport, family, address, port: port.unwrap_or(self.port) }
    }
}

/// `port` and `lport`.
pub(super) fn port(d: Directive<'_>) -> Done {
    d.draft.listening.port = d.number(0, 1..=u16::MAX)?;
    Ok(())
}

pub(super) fn proto(d: Directive<'_>) -> Done {
    d.draft.listening.proto = proto_word(&d, 0)?;
    Ok(())
}

fn proto_word(d: &Directive<'_>, index: usize) -> Result<Proto, Error> {
    match d.word(index)? {
        "udp" | "udp4" => Ok((Transport::Udp, false)),
        "udp6" => Ok((Transport::Udp, true)),
        "tcp" | "tcp4" | "tcp-server" | "tcp4-server" => Ok((Transport::Tcp, false)),
        "tcp6" | "tcp6-server" => Ok((Transport::Tcp, true)),
        word @ ("tcp-client" | "tcp4-client" | "tcp6-client") => {
            Err(d.error(format!("`{word}` stands in a client's file"), "write `tcp-server` in this one"))
        }
        _ => Err(d.not_among(index, "`udp`, `udp6`, `tcp-server` or `tcp6-server`")),
    }
}

/// `local HOST|* [PORT] [PROTO]`.
pub(super) fn local(d: Directive<'_>) -> Done {
    if d.draft.listening.locals.len() >= MAX_LISTENERS {
        return Err(d.error(
            format!("more than {MAX_LISTENERS} `local` lines"),
            "listen on every address by `local * PORT`",
        ));
    }
    let local = Local {
        line: d.line.number,
        address: address(&d)?,
        port: d.optional(1).map(|_| d.number(1, 1..=u16::MAX)).transpose()?,
        proto: d.optional(2).map(|_| proto_word(&d, 2)).transpose()?,
    };
    d.draft.listening.locals.push(local);
    Ok(())
}

/// The address of a `local` line; `None` for `*`.
fn address(d: &Directive<'_>) -> Result<Option<IpAddr>, Error> {
    let word = d.word(0)?;
    if word == "*" {
        return Ok(None);
    }
    word.parse().map(Some).map_err(|_| {
        d.error(
            format!("`{}` is not an address", shown(word)),
            "write one as 10.10.21.5, or `*` for every address: names are not looked up",
        )
    })
}

/// `bind [ipv6only]`.
pub(super) fn bind(d: Directive<'_>) -> Done {
    match d.optional(0) {
        None => Ok(()),
        Some("ipv6only") => {
            d.draft.listening.ipv6_only = true;
            Ok(())
        }
        Some(_) => Err(d.not_among(0, "`bind` or `bind ipv6only`")),
    }
}

pub(super) fn tcp_queue_limit(d: Directive<'_>) -> Done {
    // Upstream takes any positive `int`.
    let packets: usize = d.number(0, 1..=usize::try_from(i32::MAX).unwrap_or(usize::MAX))?;
    let followed = packets.min(MAX_QUEUE);
    if followed < packets {
        d.draft.note(Level::Warning, d.line.number, format!("at most {MAX_QUEUE} packets wait for a client"));
    }
    d.draft.server.tcp_queue_limit = followed;
    Ok(())
}

/// Our own sockets never wait for more to send; clients before 2.7 do unless they are pushed this. Source: helper.c
/// `helper_tcp_nodelay`.
pub(super) fn tcp_nodelay(d: Directive<'_>) -> Done {
    d.draft.server.push.push("socket-flags TCP_NODELAY".into());
    Ok(())
}

pub(super) fn socket_flags(d: Directive<'_>) -> Done {
    match d.line.words.iter().position(|word| word != "TCP_NODELAY") {
        None => Ok(()),
        Some(index) => Err(d.not_among(index, "`TCP_NODELAY`, which is always set")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn listening(text: &str) -> Result<Vec<Listener>, String> {
        let least = "dev tap\nserver-bridge nogw\n<ca>\n</ca>\n<cert>\n</cert>\n<key>\n</key>\n";
        let server = super::super::parse(format!("{text}\n{least}").as_bytes(), Path::new("s.conf"));
        server.map(|server| server.listeners).map_err(|error| error.to_string())
    }

    fn shown(text: &str) -> Vec<String> {
        listening(text).unwrap().iter().map(ToString::to_string).collect()
    }

    fn families(text: &str) -> Vec<Family> {
        listening(text).unwrap().iter().map(|listener| listener.family).collect()
    }

    #[test]
    fn without_local_every_address_is_listened_on() {
        assert_eq!(shown(""), ["udp 0.0.0.0:1194"]);
        assert_eq!(shown("port 443\nproto tcp-server"), ["tcp 0.0.0.0:443"]);
        assert_eq!(shown("lport 443"), ["udp 0.0.0.0:443"]);
    }

    #[test]
    fn ipv6_is_both_unless_it_is_said_to_be_alone() {
        use Family::{Dual, V4, V6};
        assert_eq!(families("proto udp"), [V4]);
        assert_eq!(families("proto udp6"), [Dual]);
        assert_eq!(families("proto tcp6-server\nbind ipv6only"), [V6]);
        assert_eq!(families("local ::\nlocal * 2 udp6\nlocal 0.0.0.0 3 udp6"), [Dual, Dual, V4]);
        assert_eq!(families("local 2001:db8::5"), [V6]);
        assert_eq!(shown("proto udp6\nlocal ::\nlocal 10.0.0.5 2"), ["udp [::]:1194", "udp 10.0.0.5:2"]);
    }

    #[test]
    fn each_local_takes_what_it_leaves_out_from_port_and_proto() {
        let text = "local 10.0.0.5\nlocal * 53\nlocal 10.0.0.6 443 tcp-server\nport 700\nproto udp";
        assert_eq!(shown(text), ["udp 10.0.0.5:700", "udp 0.0.0.0:53", "tcp 10.0.0.6:443"]);
        assert_eq!(shown("local * 443 udp\nlocal * 443 tcp").len(), 2);
        assert_eq!(shown("local 0.0.0.0"), ["udp 0.0.0.0:1194"]);
    }

    #[test]
    fn what_is_listened_on_twice_is_refused_at_its_line() {
        for twice in ["local *\nlocal *", "local 10.0.0.5 7\nlocal * 7", "local :: 7\nlocal 10.0.0.5 7"] {
            let error = listening(twice).unwrap_err();
            assert!(error.starts_with("s.conf:2: an earlier `local` listens on udp"), "{error}");
        }
        assert!(listening("bind ipv6only\nlocal ::\nlocal *").is_ok());
        assert!(listening("local 10.0.0.5\nlocal 10.0.0.6").is_ok());
        assert!(listening(&"local *\n".repeat(17)).unwrap_err().contains("more than 16"));
    }

    #[test]
    fn other_words_are_refused_with_what_to_write() {
        assert!(listening("proto tcp-client").unwrap_err().contains("`tcp-server`"));
        assert!(listening("proto sctp").unwrap_err().contains("`udp`, `udp6`"));
        assert!(listening("local gw.example.org").unwrap_err().contains("is not an address"));
        assert!(listening("local * 0").unwrap_err().contains("not a number"));
        assert!(listening("bind yes").unwrap_err().contains("`bind ipv6only`"));
        assert!(listening("socket-flags TCP_NODELAY SO_FAST").unwrap_err().contains("SO_FAST"));
    }

    #[test]
    fn a_queue_longer_than_is_good_is_cut_with_a_note() {
        let text = "tcp-queue-limit 100000\ndev tap\nserver-bridge nogw\n<ca>\n</ca>\n<cert>\n</cert>\n<key>\n</key>\n";
        let server = super::super::parse(text.as_bytes(), Path::new("s.conf")).unwrap();
        assert_eq!((server.tcp_queue_limit, server.notes.len()), (MAX_QUEUE, 1));
    }
}
