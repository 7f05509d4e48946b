//! Whether this host is fit for what is asked of it: asked before anything is opened, so that a bad start leaves
//! nothing behind.

use std::path::Path;

use super::{Error, crew, plan::Plan};
use crate::{
    host::{
        self,
        links::{self, Link},
        netlink::Requests,
        nic::{self, Preparation, SYSFS, cloud::Cloud},
        preflight::{self, Kernel},
        privileges,
    },
    xdp::{attach::XdpChoice, frames::XDP_HEADROOM_BYTES},
};

/// Checks the kernel, our privileges and the NIC; warns of what works but perhaps not as meant.
pub(super) fn check(plan: &Plan, requests: &mut Requests) -> Result<(), Error> {
    Kernel::running()?.check()?;
    privileges::check()?;
    let Some(nic) = &plan.nic else { return Ok(()) };
    preflight::check_uplink(nic, &links::all(requests)?)?;
    if let Some(choice) = plan.xdp {
        check_xdp(plan, nic, choice)?;
    }
    warn(plan, nic);
    Ok(())
}

fn check_xdp(plan: &Plan, nic: &Link, choice: XdpChoice) -> Result<(), Error> {
    preflight::check_no_xdp(nic)?;
    let native = choice != XdpChoice::Generic;
    let driver = nic::driver(Path::new(SYSFS), nic);
    let chunk = plan.chunk_bytes();
    check_tun_mtu(plan, chunk)?;
    nic::mtu::check(nic, driver.as_deref(), native, chunk, 0)?;
    preflight::check_locked_memory(crew::memory_bytes(plan))?;
    Ok(())
}

fn check_tun_mtu(plan: &Plan, chunk: u32) -> Result<(), Error> {
    let room = (chunk - XDP_HEADROOM_BYTES) as usize;
    let Some(excess) = plan.longest_packet().checked_sub(room).filter(|excess| *excess > 0) else {
        return Ok(());
    };
    Err(Error::from(host::Error::Unfit(format!(
        "`tun-mtu` is {excess} bytes more than AF_XDP's memory holds with the tunnel's headers: lower it, or run with --datapath socket"
    ))))
}

fn warn(plan: &Plan, nic: &Link) {
    for warning in preflight::warnings(nic) {
        tracing::warn!("{warning}");
    }
    let driver = nic::driver(Path::new(SYSFS), nic);
    if let Some(cloud) = Cloud::of(driver.as_deref(), Path::new(SYSFS)).filter(|_| plan.bridge) {
        tracing::warn!("{}", cloud.bridge_warning(&nic.name));
    }
}

/// Has the NIC leave frames as they are while XDP takes them, and the far end of a veth finish them; `None` where no XDP
/// runs. Before privileges are dropped: the far end's network namespace may have to be entered.
pub(super) fn prepare(plan: &Plan) -> Result<Option<Preparation>, Error> {
    let Some(nic) = plan.nic.as_ref().filter(|_| plan.xdp.is_some()) else { return Ok(None) };
    let preparation = Preparation::of(nic)?;
    for (interface, feature) in preparation.changed() {
        tracing::info!(interface, feature, "turned off while the gateway runs");
    }
    for refusal in preparation.refused() {
        tracing::warn!("{refusal}");
    }
    Ok(Some(preparation))
}
