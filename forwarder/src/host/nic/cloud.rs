//! Clouds' virtual networks deliver by what the cloud knows of its machines: frames to or from other MACs, broadcast
//! and non-IP protocols are lost on the way. Bridging such a NIC seems to work and does not.

use std::fmt;
use std::path::Path;

/// A cloud whose network is not Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon EC2.
    Ec2,
    /// Microsoft Azure, or a Hyper-V switch, which by default drops foreign MACs as well.
    Azure,
    /// Google Compute Engine.
    Google,
    /// Hetzner, whose dedicated servers look like anybody's: only its cloud's machines are known.
    Hetzner,
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ec2 => "Amazon EC2",
            Self::Azure => "Microsoft Azure or Hyper-V",
            Self::Google => "Google Compute Engine",
            Self::Hetzner => "Hetzner",
        })
    }
}

impl Cloud {
    /// The cloud whose NIC this is, by its driver ([`super::driver`]) and by what the firmware says of the machine
    /// (`sysfs`: [`super::SYSFS`]).
    pub fn of(driver: Option<&str>, sysfs: &Path) -> Option<Self> {
        match driver? {
            "ena" => Some(Self::Ec2),
            "hv_netvsc" | "mana" => Some(Self::Azure),
            "gve" => Some(Self::Google),
            // Software interfaces: nobody's wire.
            "veth" | "bridge" | "tun" | "macvlan" | "macvtap" | "dummy" | "vlan" => None,
            _ => Self::of_machine(sysfs),
        }
    }

    fn of_machine(sysfs: &Path) -> Option<Self> {
        let dmi =
            |name: &str| std::fs::read_to_string(sysfs.join("class/dmi/id").join(name)).unwrap_or_default();
        match (dmi("sys_vendor").trim(), dmi("product_name").trim()) {
            ("Amazon EC2", _) => Some(Self::Ec2),
            ("Google", _) | (_, "Google Compute Engine") => Some(Self::Google),
            ("Hetzner", _) => Some(Self::Hetzner),
            ("Microsoft Corporation", "Virtual Machine") => Some(Self::Azure),
            _ => None,
        }
    }

    /// What to tell who bridges `nic`.
    pub fn bridge_warning(&self, nic: &str) -> String {
        if *self == Self::Hetzner {
            return format!(
                "{nic} is a NIC of {self}, who takes foreign MAC addresses for abuse and may block the machine: peers must \
                 not send to its wire; use --uplink {nic}:underlay"
            );
        }
        format!(
            "{nic} is a NIC of {self}, whose network drops frames of foreign MAC addresses, broadcast and protocols \
             other than IP: what peers send to its wire is lost; use --uplink {nic}:underlay"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Folder;

    fn machine(vendor: &str, product: &str) -> Folder {
        let folder = Folder::new();
        folder.write("class/dmi/id/sys_vendor", &format!("{vendor}\n"));
        folder.write("class/dmi/id/product_name", &format!("{product}\n"));
        folder
    }

    #[test]
    fn a_cloud_is_known_by_its_driver_or_its_machine() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(Cloud::of(Some("ena"), nowhere), Some(Cloud::Ec2));
        assert_eq!(Cloud::of(Some("mana"), nowhere), Some(Cloud::Azure));
        assert_eq!(Cloud::of(Some("gve"), nowhere), Some(Cloud::Google));
        assert_eq!(Cloud::of(Some("virtio_net"), nowhere), None);
        let google = machine("Google", "Google Compute Engine");
        assert_eq!(Cloud::of(Some("virtio_net"), google.path()), Some(Cloud::Google));
        assert_eq!(Cloud::of(Some("veth"), google.path()), None, "a software interface is nobody's wire");
        assert_eq!(Cloud::of(None, google.path()), None);
        assert_eq!(Cloud::of(Some("ixgbevf"), machine("Amazon EC2", "c4.large").path()), Some(Cloud::Ec2));
        assert_eq!(Cloud::of(Some("virtio_net"), machine("Hetzner", "vServer").path()), Some(Cloud::Hetzner));
        assert_eq!(Cloud::of(Some("mlx5_core"), machine("Dell Inc.", "PowerEdge").path()), None);
    }

    #[test]
    fn the_warning_names_the_nic_and_the_cure() {
        assert!(Cloud::Hetzner.bridge_warning("eth0").contains("abuse"));
        let warning = Cloud::Ec2.bridge_warning("ens5");
        assert!(
            warning.contains("ens5 is a NIC of Amazon EC2") && warning.ends_with("--uplink ens5:underlay")
        );
    }
}
