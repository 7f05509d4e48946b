//! XDP wants a whole frame in one page beside its headroom, and every driver counts its own extras. A NIC whose MTU
//! is larger refuses the program, some with no more than "invalid argument".

use super::super::links::Link;
use super::super::{Error, Result};

/// The kernel's `XDP_PACKET_HEADROOM`.
const HEADROOM: u32 = 256;
/// `SKB_DATA_ALIGN(sizeof(struct skb_shared_info))` on 64-bit machines.
const SHARED_INFO: u32 = 320;
/// Ethernet header.
const ETHERNET: u32 = 14;
/// One VLAN tag.
const VLAN: u32 = 4;
/// Frame check sequence.
const FCS: u32 = 4;
/// What drivers call a page, also where pages are larger.
const PAGE: u32 = 4096;

/// Largest MTU `driver` takes with XDP, from its source; `None` where it is not known, or not limited (generic mode).
pub fn max_mtu(driver: &str, native: bool) -> Option<u32> {
    let room = PAGE - HEADROOM - SHARED_INFO;
    if !native {
        return None;
    }
    match driver {
        // VETH_XDP_HEADROOM, of the other end's MTU; virtnet_xdp_set; netvsc_xdp_set; MANA_XDP_MTU_MAX.
        "veth" | "virtio_net" | "hv_netvsc" | "mana" => Some(room - ETHERNET),
        // ENA_XDP_MAX_MTU; mlx5e_xdp_max_mtu.
        "ena" | "mlx5_core" => Some(room - ETHERNET - VLAN - FCS),
        // Buffers of 3072 bytes: ixgbe_xdp_setup.
        "ixgbe" | "ixgbevf" => Some(3072 - ETHERNET - VLAN - FCS),
        // I40E_PACKET_HDR_PAD, ICE_ETH_PKT_HDR_PAD, IGB_ETH_PKT_HDR_PAD: two tags.
        "i40e" | "ice" | "igb" => Some(3072 - ETHERNET - 2 * VLAN - FCS),
        // igc_xdp_set_prog: no jumbo frames with XDP.
        "igc" => Some(1500),
        _ => None,
    }
}

/// Largest MTU whose frames, tagged once, fit into an AF_XDP chunk of `chunk` bytes of which `headroom` stay free.
/// In any mode: a longer frame is not delivered to the socket.
pub const fn max_mtu_of_chunk(chunk: u32, headroom: u32) -> u32 {
    chunk.saturating_sub(HEADROOM + headroom + ETHERNET + VLAN)
}

/// Whether `nic`, driven by `driver`, can be used with XDP and chunks of `chunk` bytes as it is.
pub fn check(nic: &Link, driver: Option<&str>, native: bool, chunk: u32, headroom: u32) -> Result<()> {
    let limit = driver.and_then(|driver| max_mtu(driver, native));
    let (limit, whose) = match limit.filter(|limit| *limit < max_mtu_of_chunk(chunk, headroom)) {
        Some(limit) => (limit, format!("the driver {} takes with XDP", driver.unwrap_or_default())),
        None => (max_mtu_of_chunk(chunk, headroom), "AF_XDP takes".to_owned()),
    };
    if nic.mtu <= limit {
        return Ok(());
    }
    Err(Error::Unfit(format!(
        "{nic} has an MTU of {}, more than the {limit} that {whose}: `ip link set dev {nic} mtu 1500` (and in the \
         network's configuration, to stay so), or run with --datapath socket",
        nic.mtu,
        nic = nic.name,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links::sample;
    use crate::host::testing::{Folder, Namespace, passing_program};

    #[test]
    fn known_limits_are_those_of_the_drivers() {
        assert_eq!(max_mtu("veth", true), Some(3506));
        assert_eq!(max_mtu("ena", true), Some(3498));
        assert_eq!(max_mtu("ixgbe", true), Some(3050));
        assert_eq!(max_mtu("i40e", true), Some(3046));
        assert_eq!(max_mtu("ena", false), None);
        assert_eq!(max_mtu("unheard_of", true), None);
    }

    #[test]
    fn ec2_s_usual_mtu_is_refused_with_the_cure() {
        let nic = Link { name: "ens5".into(), mtu: 9001, ..sample(2, [2; 6]) };
        let error = check(&nic, Some("ena"), true, 4096, 0).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "ens5 has an MTU of 9001, more than the 3498 that the driver ena takes with XDP"
            )
        );
        assert!(error.contains("ip link set dev ens5 mtu 1500") && error.contains("--datapath socket"));
        let error = check(&nic, None, false, 4096, 0).unwrap_err().to_string();
        assert!(error.contains("more than the 3822 that AF_XDP takes"), "{error}");
    }

    #[test]
    fn an_ordinary_mtu_is_taken_by_all_and_the_limit_itself_fits() {
        let nic = |mtu| Link { mtu, ..sample(2, [2; 6]) };
        for driver in [None, Some("ena"), Some("igc"), Some("veth")] {
            assert!(check(&nic(1500), driver, true, 2048, 0).is_ok(), "{driver:?}");
        }
        assert!(check(&nic(3506), Some("veth"), true, 4096, 0).is_ok());
        assert!(check(&nic(3507), Some("veth"), true, 4096, 0).is_err());
        assert!(check(&nic(1775), Some("veth"), true, 2048, 0).is_err(), "chunks may be the tighter limit");
    }

    #[test]
    fn a_veth_takes_xdp_up_to_the_known_mtu_of_its_other_end() {
        let folder = Folder::new();
        let (Some(host), Some(program)) = (Namespace::new(), passing_program(&folder)) else { return };
        host.ip("link add uplink type veth peer name wire");
        let limit = max_mtu("veth", true).unwrap();
        let attach = format!("link set dev uplink xdpdrv obj {} sec xdp", program.display());
        host.ip(&format!("link set wire mtu {}", limit + 1));
        assert!(!host.ip_takes(&attach));
        host.ip(&format!("link set wire mtu {limit}"));
        assert!(host.ip_takes(&attach));
    }
}
