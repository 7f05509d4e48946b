//! What is told of a bridge, a port and a forwarding entry, wherever it was read.

use super::{kernel::Attributes, timers::Ticks};
use crate::xdp::bridge::{BridgeInfo, FdbBytes, PortInfo};

/// A bridge.
#[derive(Clone, Debug, Default)]
pub(super) struct BridgeFacts {
    pub(super) root: [u8; 8],
    pub(super) id: [u8; 8],
    pub(super) root_path_cost: i32,
    /// What the root has the bridge use; /sys shows it also as the bridge's own.
    pub(super) max_age: Ticks,
    pub(super) hello_time: Ticks,
    pub(super) forward_delay: Ticks,
    pub(super) bridge_max_age: Ticks,
    pub(super) bridge_hello_time: Ticks,
    pub(super) bridge_forward_delay: Ticks,
    pub(super) ageing_time: Ticks,
    pub(super) hello_timer: Ticks,
    pub(super) tcn_timer: Ticks,
    pub(super) topology_change_timer: Ticks,
    pub(super) gc_timer: Ticks,
    pub(super) root_port: u16,
    pub(super) stp: bool,
    pub(super) topology_change: bool,
    pub(super) topology_change_detected: bool,
}

impl BridgeFacts {
    pub(super) fn read(from: &Attributes<'_>) -> Self {
        let (max_age, hello_time) = (from.ticks("max_age"), from.ticks("hello_time"));
        let forward_delay = from.ticks("forward_delay");
        Self {
            root: from.id("root_id"),
            id: from.id("bridge_id"),
            root_path_cost: from.integer("root_path_cost"),
            max_age,
            hello_time,
            forward_delay,
            bridge_max_age: max_age,
            bridge_hello_time: hello_time,
            bridge_forward_delay: forward_delay,
            ageing_time: from.ticks("ageing_time"),
            hello_timer: from.ticks("hello_timer"),
            tcn_timer: from.ticks("tcn_timer"),
            topology_change_timer: from.ticks("topology_change_timer"),
            gc_timer: from.ticks("gc_timer"),
            root_port: from.integer("root_port").try_into().unwrap_or_default(),
            stp: from.integer("stp_state") != 0,
            topology_change: from.integer("topology_change") != 0,
            topology_change_detected: from.integer("topology_change_detected") != 0,
        }
    }
}

impl From<BridgeInfo> for BridgeFacts {
    fn from(info: BridgeInfo) -> Self {
        let ticks = |value: u32| Ticks(value.into());
        Self {
            root: info.designated_root,
            id: info.bridge_id,
            root_path_cost: info.root_path_cost.cast_signed(),
            max_age: ticks(info.max_age),
            hello_time: ticks(info.hello_time),
            forward_delay: ticks(info.forward_delay),
            bridge_max_age: ticks(info.bridge_max_age),
            bridge_hello_time: ticks(info.bridge_hello_time),
            bridge_forward_delay: ticks(info.bridge_forward_delay),
            ageing_time: ticks(info.ageing_time),
            hello_timer: ticks(info.hello_timer),
            tcn_timer: ticks(info.tcn_timer),
            topology_change_timer: ticks(info.topology_change_timer),
            gc_timer: ticks(info.gc_timer),
            root_port: info.root_port.into(),
            stp: info.stp_enabled != 0,
            topology_change: info.topology_change != 0,
            topology_change_detected: info.topology_change_detected != 0,
        }
    }
}

/// A port of a bridge.
#[derive(Clone, Debug, Default)]
pub(super) struct PortFacts {
    pub(super) number: i32,
    pub(super) id: u16,
    pub(super) state: u8,
    pub(super) root: [u8; 8],
    pub(super) path_cost: i32,
    pub(super) designated_bridge: [u8; 8],
    pub(super) designated_port: u16,
    pub(super) designated_cost: i32,
    pub(super) message_age_timer: Ticks,
    pub(super) forward_delay_timer: Ticks,
    pub(super) hold_timer: Ticks,
    pub(super) config_pending: bool,
    pub(super) topology_change_ack: bool,
    pub(super) hairpin: u8,
}

impl PortFacts {
    pub(super) fn read(from: &Attributes<'_>) -> Self {
        Self {
            number: from.integer("port_no"),
            id: from.integer("port_id").try_into().unwrap_or_default(),
            state: from.integer("state").try_into().unwrap_or_default(),
            root: from.id("designated_root"),
            path_cost: from.integer("path_cost"),
            designated_bridge: from.id("designated_bridge"),
            designated_port: from.integer("designated_port").try_into().unwrap_or_default(),
            designated_cost: from.integer("designated_cost"),
            message_age_timer: from.ticks("message_age_timer"),
            forward_delay_timer: from.ticks("forward_delay_timer"),
            hold_timer: from.ticks("hold_timer"),
            config_pending: from.integer("config_pending") != 0,
            topology_change_ack: from.integer("change_ack") != 0,
            hairpin: from.integer("hairpin_mode").try_into().unwrap_or_default(),
        }
    }

    /// The old way tells less: nothing of hairpin.
    pub(super) fn of(number: usize, info: &PortInfo) -> Self {
        Self {
            number: number.try_into().unwrap_or_default(),
            id: info.port_id,
            state: info.state,
            root: info.designated_root,
            path_cost: info.path_cost.cast_signed(),
            designated_bridge: info.designated_bridge,
            designated_port: info.designated_port,
            designated_cost: info.designated_cost.cast_signed(),
            message_age_timer: Ticks(info.message_age_timer.into()),
            forward_delay_timer: Ticks(info.forward_delay_timer.into()),
            hold_timer: Ticks(info.hold_timer.into()),
            config_pending: info.config_pending != 0,
            topology_change_ack: info.top_change_ack != 0,
            hairpin: 0,
        }
    }

    /// Its STP state. Source: `BR_STATE_*` of `include/uapi/linux/if_bridge.h`.
    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            0 => "disabled",
            1 => "listening",
            2 => "learning",
            3 => "forwarding",
            4 => "blocking",
            _ => "<INVALID STATE>",
        }
    }
}

/// A forwarding entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) mac: [u8; 6],
    pub(super) port: u16,
    pub(super) is_local: bool,
    pub(super) age: Ticks,
}

impl From<FdbBytes> for Entry {
    /// Source: `struct __fdb_entry` of `include/uapi/linux/if_bridge.h`, in the machine's byte order.
    fn from(bytes: FdbBytes) -> Self {
        let [a, b, c, d, e, f, low, is_local, age @ .., high, _, _, _] = bytes;
        Self {
            mac: [a, b, c, d, e, f],
            port: u16::from_le_bytes([low, high]),
            is_local: is_local != 0,
            age: Ticks(u32::from_ne_bytes(age).into()),
        }
    }
}
