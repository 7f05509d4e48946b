//! Several server files in one segment: each has listeners, certificates, addresses and names of its own; what concerns
//! the host and the segment is said by the first.

use std::{net::Ipv4Addr, sync::Arc};

use super::{Config, Error, Level, Listener, Note, Place, Role, Server, tls};

/// A further server's file of the segment, of which only what concerns its clients counts.
#[derive(Clone, Debug)]
pub struct Further {
    /// What it says.
    pub server: Server,
    /// See [`Role::Server`].
    pub tls: Arc<rustls::ServerConfig>,
    /// See [`Role::Server`].
    pub wrappings: openvpn::server::Wrappings,
}

impl Config {
    /// What the files say, the first one's at first.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        let further: &[Further] = match &self.role {
            Role::Server { further, .. } => further,
            Role::Client { .. } | Role::Accelerator => &[],
        };
        std::iter::once(&self.server).chain(further.iter().map(|further| &further.server))
    }

    /// Where clients reach it, by whichever server.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.servers().flat_map(|server| &server.listeners)
    }
}

/// What two servers of one segment cannot both have, or must agree in.
///
/// # Errors
/// A sentence with both files.
pub fn check(server: &Server, other: &Server) -> Result<(), Error> {
    let wrong = |sentence: String, cure: &str| {
        let sentence = format!("{sentence}, as {} has it", other.file.display());
        Err(Error::at(Place::file(&server.file), sentence, cure))
    };
    let taken = |listener: &&Listener| other.listeners.iter().any(|other| other.overlaps(listener));
    if let Some(listener) = server.listeners.iter().find(taken) {
        return wrong(format!("this listens on {listener}"), "give one of them another `port`");
    }
    if server.device.is_some() && server.device != other.device {
        return wrong(
            "`dev` is not the same".into(),
            "write the same `dev` in both: a segment has one host port",
        );
    }
    if server.tun_mtu != other.tun_mtu {
        return wrong(
            "`tun-mtu` is not the same".into(),
            "write the same in both: frames go from one to the other",
        );
    }
    if server.client_to_client != other.client_to_client {
        return wrong("`client-to-client` is not".into(), "write it in both files, or in none");
    }
    if server.host_address.is_some() && server.host_address.map(own) != other.host_address.map(own) {
        return wrong(
            "the host's own address is not the same".into(),
            "write `server-bridge` in this file, with the first one's network and another range",
        );
    }
    if let (Some(pool), Some(others)) = (server.pool, other.pool)
        && pool.first <= others.last
        && others.first <= pool.last
    {
        return wrong("addresses are leased".into(), "divide the range: give each file a part of its own");
    }
    let file = |server: &Server| server.pool_file.as_ref().map(|file| tls::resolve(server, &file.path));
    if file(server).is_some() && file(server) == file(other) {
        return wrong("`ifconfig-pool-persist` names the same file".into(), "name another file");
    }
    Ok(())
}

const fn own(address: super::HostAddress) -> Ipv4Addr {
    address.address
}

/// What is passed over of a further server's file, for the operator.
pub fn passed_over(server: &Server, first: &Server) -> Option<Note> {
    let differs = [
        ("user", server.user != first.user),
        ("group", server.group != first.group),
        ("log", server.log.is_some()),
        ("status", server.status.is_some()),
        ("writepid", server.pid_file.is_some()),
    ];
    let names: Vec<&str> =
        differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect();
    let text = format!(
        "of several servers the first file, {}, alone says {}",
        first.file.display(),
        names.join(", ")
    );
    (!names.is_empty()).then(|| Note { place: Place::file(&server.file), level: Level::Warning, text })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn server(file: &str, text: &str) -> Server {
        let least = "mode server\ndev tap\nca a\ncert b\nkey c\n";
        super::super::parse(format!("{least}{text}").as_bytes(), Path::new(file)).unwrap()
    }

    fn refused(one: &str, two: &str) -> String {
        check(&server("two.conf", two), &server("one.conf", one)).unwrap_err().to_string()
    }

    #[test]
    fn servers_that_share_a_segment_differ_where_they_must_and_agree_where_they_must() {
        let pool = |from, to| format!("server-bridge 10.0.0.1 255.255.255.0 10.0.0.{from} 10.0.0.{to}\n");
        let (one, two) = (format!("port 1\n{}", pool(10, 19)), format!("port 2\n{}", pool(20, 29)));
        check(&server("two.conf", &two), &server("one.conf", &one)).unwrap();
        let overlapping = format!("port 2\n{}", pool(19, 29));
        let kept = [&one, &two].map(|text| format!("{text}ifconfig-pool-persist p\n"));
        let kept = (&kept[0], &kept[1]);
        for (one, two, sentence) in [
            ("port 5\n", "port 5\n", "two.conf: this listens on udp 0.0.0.0:5, as one.conf has it; "),
            (&one, &overlapping, "two.conf: addresses are leased, as one.conf has it; "),
            ("port 1\n", "port 2\ntun-mtu 1400\n", "two.conf: `tun-mtu` is not the same"),
            ("port 1\nclient-to-client\n", "port 2\n", "two.conf: `client-to-client` is not"),
            (kept.0, kept.1, "two.conf: `ifconfig-pool-persist` names the same file"),
        ] {
            assert!(refused(one, two).starts_with(sentence), "{}", refused(one, two));
        }
    }
}
