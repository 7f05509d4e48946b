//! A segment with a network of its own, the host on it: `server` with `dev tap`, and what it stands for.

use std::net::Ipv4Addr;

use openvpn::server::Pool;

use super::{
    apply::{Done, POOL_MAX},
    server::{Bridge, HostAddress},
    words::Directive,
};

/// `server NETWORK NETMASK [nopool]`: the host has the first address, clients the others.
/// Source: helper.c `helper_client_server`.
pub(super) fn server(d: Directive<'_>) -> Done {
    let (network, netmask) = (d.address(0)?, netmask(&d, 1)?);
    let mask = netmask.to_bits();
    if network.to_bits() & !mask != 0 {
        return Err(d.error(
            format!("{network} is not the first address of a network with the mask {netmask}"),
            "write for instance `server 10.8.0.0 255.255.255.0`",
        ));
    }
    let address = |host| Ipv4Addr::from_bits(network.to_bits() + host);
    let pool = Pool {
        gateway: address(1),
        netmask,
        first: address(2),
        // The last but the broadcast address, and no more than upstream takes.
        last: address((!mask - 1).min(POOL_MAX)),
    };
    d.draft.bridge = Some(match d.optional(2) {
        None => Bridge::Pool { pool, line: d.line.number },
        Some("nopool") => Bridge::Gateway(pool.gateway),
        Some(_) => return Err(d.not_among(2, "`nopool` or nothing behind the mask")),
    });
    d.draft.host_address(HostAddress { address: pool.gateway, netmask, line: d.line.number });
    Ok(())
}

/// `ifconfig ADDRESS NETMASK`: the host's own.
pub(super) fn ifconfig(d: Directive<'_>) -> Done {
    let address = HostAddress { address: d.address(0)?, netmask: netmask(&d, 1)?, line: d.line.number };
    d.draft.host_address(address);
    Ok(())
}

/// `ifconfig-pool FIRST LAST [NETMASK]`: checked with the rest, for the mask may be `ifconfig`'s.
pub(super) fn ifconfig_pool(d: Directive<'_>) -> Done {
    let own = if d.optional(2).is_some() { Some(netmask(&d, 2)?) } else { None };
    d.draft.ifconfig_pool = Some((d.address(0)?, d.address(1)?, own, d.line.number));
    Ok(())
}

fn netmask(d: &Directive<'_>, index: usize) -> Result<Ipv4Addr, super::Error> {
    let netmask = d.address(index)?;
    let mask = netmask.to_bits();
    if mask.leading_ones() + mask.trailing_zeros() == 32 && (1..=30).contains(&mask.leading_ones()) {
        return Ok(netmask);
    }
    Err(d.error(format!("{netmask} is not a subnet's mask"), "write one as 255.255.255.0"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Server, parse};

    const KEYS: &str = "dev tap\n<ca>\n</ca>\n<cert>\n</cert>\n<key>\n</key>\n";

    fn parsed(text: &str) -> Server {
        parse(format!("{KEYS}{text}").as_bytes(), Path::new("s.conf")).unwrap()
    }

    fn refused(text: &str) -> String {
        parse(format!("{text}\n{KEYS}").as_bytes(), Path::new("s.conf")).unwrap_err().to_string()
    }

    #[test]
    fn a_network_of_its_own_has_the_host_first_and_clients_after_it() {
        let server = parsed("server 10.8.0.0 255.255.255.0\n");
        let pool = server.pool.unwrap();
        assert_eq!([pool.gateway, pool.first, pool.last].map(|a| a.octets()[3]), [1, 2, 254]);
        assert_eq!(server.host_address.unwrap().address, pool.gateway);
        assert_eq!(server.push, ["route-gateway 10.8.0.1"]);
    }

    #[test]
    fn without_a_pool_the_gateway_is_told_alone() {
        let server = parsed("server 10.8.0.0 255.255.255.0 nopool\n");
        assert_eq!((server.pool, &server.push[..]), (None, &["route-gateway 10.8.0.1".to_owned()][..]));
    }

    #[test]
    fn the_long_form_says_the_same() {
        let server = parsed(
            "mode server\nifconfig 10.8.0.1 255.255.255.0\nifconfig-pool 10.8.0.10 10.8.0.20\npush \"route-gateway 10.8.0.1\"\n",
        );
        let pool = server.pool.unwrap();
        assert_eq!([pool.gateway, pool.first, pool.last].map(|a| a.octets()[3]), [1, 10, 20]);
        assert_eq!(server.push, ["route-gateway 10.8.0.1"]);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for line in [
            "server 10.8.0.1 255.255.255.0",
            "server 10.8.0.0 255.0.255.0",
            "server 10.8.0.0 255.255.255.254",
        ] {
            assert!(refused(line).starts_with("s.conf:1: "), "{line}");
        }
        assert!(refused("mode server\nifconfig-pool 10.8.0.10 10.8.0.20").contains("mask"));
    }
}
