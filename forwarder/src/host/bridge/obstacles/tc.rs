//! Traffic control on ports: filters, BPF programs, queueing disciplines that shape.
//! Kernel: include/uapi/linux/rtnetlink.h, net/sched/sch_api.c.

use std::collections::BTreeSet;

use aya::programs::ProgramError;
use aya::programs::tc::{SchedClassifier, TcAttachType};
use neli::types::Buffer;
use nix::libc;

use super::super::super::netlink::Requests;
use super::super::super::netlink::nested::Nested;
use super::super::super::{Error, Result};
use super::{Obstacle, ObstacleKind};

/// `struct tcmsg`: family and padding, interface, handle, parent, info.
const HEADER: usize = 20;
/// `TCA_KIND`.
const KIND: u16 = 1;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and `…_EGRESS`: where filters of clsact stand.
const DIRECTIONS: [(&str, u32, TcAttachType); 2] =
    [("ingress", 0xffff_fff2, TcAttachType::Ingress), ("egress", 0xffff_fff3, TcAttachType::Egress)];
/// Disciplines that only order frames or keep queues short, which a port without a queue needs not. All others shape,
/// drop on purpose, or do what their owner wants.
const HARMLESS: [&str; 12] = [
    "noqueue",
    "mq",
    "pfifo_fast",
    "pfifo",
    "bfifo",
    "pfifo_head_drop",
    "fq",
    "fq_codel",
    "fq_pie",
    "codel",
    "pie",
    "sfq",
];

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The interface it is on.
    pub interface: u32,
    /// Its name.
    pub kind: String,
}

impl Qdisc {
    /// What `RTM_NEWQDISC` holds.
    pub fn parse(rest: &[u8]) -> Option<Self> {
        let interface = u32::from_ne_bytes(rest.get(4..8)?.try_into().ok()?);
        Some(Self { interface, kind: Nested::behind(HEADER, rest).text(KIND)? })
    }

    fn holds_filters(&self) -> bool {
        matches!(self.kind.as_str(), "clsact" | "ingress")
    }

    fn harmless(&self) -> bool {
        self.holds_filters() || HARMLESS.contains(&self.kind.as_str())
    }
}

/// The way to traffic control.
#[derive(Debug)]
pub(super) struct TrafficControl(Requests);

impl TrafficControl {
    pub(super) fn open() -> Result<Self> {
        Ok(Self(Requests::routing().map_err(Error::os("open a netlink socket"))?))
    }

    /// What stands on these ports, given by number and name.
    pub(super) fn on_ports(&mut self, ports: &[(u32, &str)]) -> Result<Vec<Obstacle>> {
        let qdiscs = self.qdiscs()?;
        let mut found = Vec::new();
        for (index, name) in ports {
            let of_port = || qdiscs.iter().filter(|qdisc| qdisc.interface == *index);
            let shaping: BTreeSet<_> =
                of_port().filter(|qdisc| !qdisc.harmless()).map(|qdisc| qdisc.kind.clone()).collect();
            let port = (*name).to_owned();
            let mut kinds: Vec<_> =
                shaping.into_iter().map(|kind| ObstacleKind::Qdisc { kind, port: port.clone() }).collect();
            if let Some(holder) = of_port().find(|qdisc| qdisc.holds_filters()) {
                kinds.extend(self.filters(holder, &port)?);
            }
            kinds.extend(programs(&port));
            found.extend(kinds.into_iter().map(|kind| Obstacle { port: Some(*index), kind }));
        }
        Ok(found)
    }

    fn qdiscs(&mut self) -> Result<Vec<Qdisc>> {
        let found = self.0.dump(libc::RTM_GETQDISC, &question(0, 0), |found: &mut Vec<_>, _, rest| {
            found.extend(Qdisc::parse(rest));
        });
        found.map_err(Error::os("read the queueing disciplines"))
    }

    fn filters(&mut self, holder: &Qdisc, port: &str) -> Result<Vec<ObstacleKind>> {
        // The older `ingress` shows the same filters under both.
        let places = if holder.kind == "ingress" { &DIRECTIONS[..1] } else { &DIRECTIONS };
        let mut found = Vec::new();
        for (direction, parent, _) in places {
            if self.has_filters(holder.interface, *parent)? {
                found.push(ObstacleKind::TcFilter { direction, port: port.to_owned() });
            }
        }
        Ok(found)
    }

    fn has_filters(&mut self, index: u32, parent: u32) -> Result<bool> {
        let question = question(index, parent);
        let found = self.0.dump(libc::RTM_GETTFILTER, &question, |found: &mut bool, _, _| *found = true);
        match found {
            // The port or its discipline is gone meanwhile, or it has no such place.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) =>
            {
                Ok(false)
            }
            other => other.map_err(Error::os("read the filters of tc")),
        }
    }
}

/// BPF programs attached without a filter (kernel 6.6; before that there are none).
fn programs(port: &str) -> impl Iterator<Item = ObstacleKind> {
    DIRECTIONS.into_iter().filter_map(|(direction, _, place)| {
        let attached = match SchedClassifier::query_tcx(port, place) {
            Ok((_, programs)) => !programs.is_empty(),
            // There is one, and this process may not open it.
            Err(ProgramError::SyscallError(error)) => error.call == "bpf_prog_get_fd_by_id",
            Err(_) => false,
        };
        attached.then(|| ObstacleKind::Tcx { direction, port: port.to_owned() })
    })
}

fn question(index: u32, parent: u32) -> Buffer {
    let mut message = vec![0; 4];
    for number in [index, 0, parent, 0] {
        message.extend(number.to_ne_bytes());
    }
    Buffer::from(message)
}
