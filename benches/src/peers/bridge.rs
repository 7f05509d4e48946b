use trestle_tests::netns::Namespace;
use trestle_tests::network::{GATEWAY, NIC, ROUTER};
use trestle_tests::{Result, frame};

/// Moves the NIC and its address to a bridge, as an admin does who has a tunnel beside it.
pub fn make(gateway: &Namespace) -> Result<()> {
    let mac = frame::show_mac(gateway.mac(NIC)?);
    gateway.ip_batch(&format!(
        "link add br0 address {mac} type bridge forward_delay 0 mcast_snooping 0
         address flush dev {NIC}
         link set {NIC} master br0
         link set br0 up
         address add {GATEWAY}/16 dev br0
         route add default via {ROUTER}"
    ))
}

/// A TAP device that outlives programs, up.
pub fn make_tap(namespace: &Namespace, device: &str) -> Result<()> {
    namespace.ip_batch(&format!("tuntap add dev {device} mode tap\nlink set {device} up"))
}

/// Makes `device` a port of the bridge.
pub fn join(gateway: &Namespace, device: &str) -> Result<()> {
    gateway.ip_batch(&format!("link set {device} up\nlink set {device} master br0"))
}
