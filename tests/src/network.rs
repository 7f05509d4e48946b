//! The reference network.
//!
//! ```text
//!   gateway ens5 10.10.21.5 ──┐
//!   lan     eth0 10.10.21.20 ─┤ wire (a switch)
//!   router  lan0 10.10.21.1 ──┘
//!   router  out0 203.0.113.1 ─┐ internet (a switch)       203.0.113.1:443 → 10.10.21.5:443
//!   agent1  eth0 198.51.100.11┤
//!   agent2  eth0 198.51.100.12┘
//! ```
//! Agents reach nothing of 10.10.21.0/24 but through the tunnel: the router forwards what it has translated, no more.
//!
//! With [`Layout::ipv6`] there is IPv6, too, without translation. The gateway knows the router by a link-local address:
//!
//! ```text
//!   gateway ens5 2001:db8:21::5 ── lan0 fe80::1  router  out0 2001:db8:51::1 ── agent1 2001:db8:51::11, agent2 …::12
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::Result;
use crate::frame::Mac;
use crate::netns::Namespace;

/// The gateway's address on the LAN.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 21, 5);
/// The LAN host's address.
pub const LAN_HOST: Ipv4Addr = Ipv4Addr::new(10, 10, 21, 20);
/// The router's address on the LAN.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 10, 21, 1);
/// Where agents find the gateway.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The gateway's IPv6 address, inside and outside.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x21, 0, 0, 0, 0, 5);
/// Another of the gateway's.
pub const SECOND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x21, 0, 0, 0, 0, 6);
/// The gateway's on the LAN alone.
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 5);
/// The first agent's IPv6 address; the others' count on.
pub const AGENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x11);
/// First address of the pool; the reference `server.conf` hands it to the first client.
pub const POOL_FIRST: Ipv4Addr = Ipv4Addr::new(10, 10, 21, 100);
/// The gateway's NIC.
pub const NIC: &str = "ens5";

/// What kind of network to lay out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Agents outside.
    pub agents: usize,
    /// Receive and transmit queues of the gateway's NIC.
    pub queues: u32,
    /// `false`: frames arrive as from a wire, checksums finished and VLAN tags in place. `true`: as the sender's stack
    /// left them.
    pub unfinished_checksums: bool,
    /// The wire carries what EC2, Azure and GCE carry: IP and ARP of the NIC's own address, nothing else.
    pub cloud: bool,
    /// There is IPv6 besides IPv4.
    pub ipv6: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { agents: 2, queues: 1, unfinished_checksums: false, cloud: false, ipv6: false }
    }
}

/// The namespaces of one reference network.
#[derive(Debug)]
pub struct Network {
    /// Where the gateway runs.
    pub gateway: Namespace,
    /// The switch between gateway, LAN host and router; ports `w-gw`, `w-lan`, `w-router`.
    pub wire: Namespace,
    /// A host on the LAN, device `eth0`.
    pub lan: Namespace,
    /// The LAN's router, devices `lan0` and `out0`.
    pub router: Namespace,
    /// The switch outside.
    pub internet: Namespace,
    /// Where agents run, device `eth0`, and `tap0` when connected.
    pub agents: Vec<Namespace>,
}

impl Network {
    /// Lays out a network.
    pub fn lay_out(layout: Layout) -> Result<Self> {
        let network = Self {
            gateway: Namespace::create("gateway")?,
            wire: Namespace::create("wire")?,
            lan: Namespace::create("lan")?,
            router: Namespace::create("router")?,
            internet: Namespace::create("internet")?,
            agents: (1..=layout.agents)
                .map(|n| Namespace::create(&format!("agent{n}")))
                .collect::<Result<_>>()?,
        };
        network.switches()?;
        network.lan_side(layout.queues)?;
        network.outside()?;
        network.translation()?;
        if layout.ipv6 {
            network.second_family()?;
        }
        if !layout.unfinished_checksums {
            network.wire.run("ethtool", "-K w-gw tx off txvlan off")?;
        }
        if layout.cloud {
            network.wire.nft(&cloud_rules(network.gateway.mac(NIC)?))?;
        }
        Ok(network)
    }

    /// Every namespace, for a sweep over all.
    pub fn all(&self) -> impl Iterator<Item = &Namespace> {
        [&self.gateway, &self.wire, &self.lan, &self.router, &self.internet].into_iter().chain(&self.agents)
    }

    fn switches(&self) -> Result<()> {
        for switch in [&self.wire, &self.internet] {
            // A switch has no address, and hands frames to no packet filter of its own (where br_netfilter is loaded).
            switch.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            for filter in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
                if Path::new("/proc/sys").join(filter).exists() {
                    switch.sysctl(filter, "0")?;
                }
            }
            switch.ip("link add sw type bridge mcast_snooping 0 forward_delay 0")?;
            switch.ip("link set sw up")?;
        }
        Ok(())
    }

    fn lan_side(&self, queues: u32) -> Result<()> {
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        let wire = self.wire.name();
        self.gateway.ip_batch(&format!(
            "link add {NIC} {queues} type veth peer name w-gw {queues} netns {wire}
             address add {GATEWAY}/24 dev {NIC}
             link set {NIC} up
             route add default via {ROUTER}"
        ))?;
        self.lan.ip_batch(&format!(
            "link add eth0 type veth peer name w-lan netns {wire}
             address add {LAN_HOST}/24 dev eth0
             link set eth0 up
             route add default via {ROUTER}"
        ))?;
        self.router.ip_batch(&format!(
            "link add lan0 type veth peer name w-router netns {wire}
             address add {ROUTER}/24 dev lan0
             link set lan0 up"
        ))?;
        plug(&self.wire, &["w-gw", "w-lan", "w-router"])
    }

    fn outside(&self) -> Result<()> {
        let internet = self.internet.name();
        self.router.ip_batch(&format!(
            "link add out0 type veth peer name i-router netns {internet}
             address add 198.51.100.1/24 dev out0
             address add {PUBLIC}/32 dev out0
             link set out0 up"
        ))?;
        plug(&self.internet, &["i-router"])?;
        for (number, agent) in (1..).zip(&self.agents) {
            agent.ip_batch(&format!(
                "link add eth0 type veth peer name i-agent{number} netns {internet}
                 address add 198.51.100.{}/24 dev eth0
                 link set eth0 up
                 route add default via 198.51.100.1",
                10 + number
            ))?;
            plug(&self.internet, &[&format!("i-agent{number}")])?;
        }
        Ok(())
    }

    fn second_family(&self) -> Result<()> {
        self.gateway.ip_batch(&format!(
            "address add {GATEWAY_V6}/64 dev {NIC} nodad
             address add {SECOND_V6}/64 dev {NIC} nodad
             address add {LINK_LOCAL}/64 dev {NIC} nodad
             route add default via fe80::1 dev {NIC}"
        ))?;
        self.router.ip_batch(
            "address add fe80::1/64 dev lan0 nodad
             address add 2001:db8:21::1/64 dev lan0 nodad
             address add 2001:db8:51::1/64 dev out0 nodad",
        )?;
        for (number, agent) in self.agents.iter().enumerate() {
            agent.ip_batch(&format!(
                "address add {}/64 dev eth0 nodad
                 route add default via 2001:db8:51::1",
                agent_v6(number)
            ))?;
        }
        self.router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        self.router.nft(&format!(
            "table ip6 filter {{
               chain across {{
                 type filter hook forward priority 0; policy drop;
                 ct state established,related accept
                 ip6 daddr {{ {GATEWAY_V6}, {SECOND_V6} }} udp dport 443 accept
                 iifname \"lan0\" accept
               }}
             }}"
        ))
    }

    fn translation(&self) -> Result<()> {
        self.router.sysctl("net/ipv4/ip_forward", "1")?;
        self.router.nft(&format!(
            "table ip translation {{
               chain in {{
                 type nat hook prerouting priority -100
                 ip daddr {PUBLIC} meta l4proto {{ tcp, udp }} th dport 443 dnat to {GATEWAY}:443
               }}
               chain out {{
                 type nat hook postrouting priority 100
                 oifname \"out0\" masquerade
               }}
               chain across {{
                 type filter hook forward priority 0; policy drop;
                 ct state established,related accept
                 ct status dnat accept
                 iifname \"lan0\" accept
               }}
             }}"
        ))
    }
}

/// IPv6 address of agent `number` (from 0) outside.
pub fn agent_v6(number: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits(AGENT_V6.to_bits() + number as u128)
}

/// The bridge of [`Network::bridge_up`].
pub const BRIDGE: &str = "br0";

/// What the reference deployment's admin runs to build the bridge.
const BRIDGE_UP: &str = include_str!("../data/bridge-up.sh");

impl Network {
    /// Gives the gateway a bridge as the reference deployment has it: br0 with the address and hardware address of its NIC,
    /// which netplan sees to there, then the admin's own script, with the real brctl.
    pub fn bridge_up(&self) -> Result<()> {
        let mac = crate::frame::show_mac(self.gateway.mac(NIC)?);
        self.gateway.ip_batch(&format!(
            "link add {BRIDGE} address {mac} type bridge forward_delay 0
             address flush dev {NIC}
             link set {NIC} master {BRIDGE}
             link set {BRIDGE} up
             address add {GATEWAY}/24 dev {BRIDGE}
             route add default via {ROUTER}"
        ))?;
        self.gateway.script(BRIDGE_UP).map(drop)
    }

    /// Adds a port with one queue: `w1` on the gateway, `lan1` of the router.
    pub fn bridge_add_single_queue_port(&self) -> Result<()> {
        self.gateway.ip_batch(&format!(
            "link add w1 type veth peer name lan1 netns {}
             link set w1 master {BRIDGE} up",
            self.router.name()
        ))?;
        self.router.run("ethtool", "-K lan1 tx off txvlan off")?;
        self.router.sysctl("net/ipv6/conf/lan1/disable_ipv6", "1")?;
        self.router.ip("link set lan1 up").map(drop)
    }
}

/// Makes `ports` of `switch` those of its bridge.
pub(crate) fn plug(switch: &Namespace, ports: &[&str]) -> Result<()> {
    let lines: Vec<String> = ports.iter().map(|port| format!("link set {port} master sw up")).collect();
    switch.ip_batch(&lines.join("\n"))
}

/// What a cloud's fabric does to an instance's NIC: foreign sources, broadcast other than ARP and everything that is
/// not IP or ARP are dropped, and only what is addressed to the NIC comes in.
fn cloud_rules(mac: Mac) -> String {
    let mac = crate::frame::show_mac(mac);
    format!(
        "table bridge fabric {{
           chain across {{
             type filter hook forward priority 0; policy accept;
             ether type != {{ ip, arp }} drop
             iifname \"w-gw\" ether saddr != {mac} drop
             ether type arp accept
             ether daddr ff:ff:ff:ff:ff:ff drop
             oifname \"w-gw\" ether daddr != {mac} drop
           }}
         }}"
    )
}
