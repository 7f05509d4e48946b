//! `-j`, which the real one has not: one JSON value on one line. These keys are a contract.
//!
//! ```text
//! show      [{name, id, stp, ports: [name..]}..]
//! showmacs  [{mac, port, local, age_s}..]
//! showstp   {name, id, root, root_port, root_path_cost, max_age_s, hello_time_s, forward_delay_s, ageing_time_s,
//!            hello_timer_s, tcn_timer_s, topology_change_timer_s, gc_timer_s, topology_change,
//!            topology_change_detected,
//!            ports: [{name, number, id, state, path_cost, root, designated_bridge, designated_port,
//!                     designated_cost, message_age_timer_s, forward_delay_timer_s, hold_timer_s, config_pending,
//!                     topology_change_ack, hairpin}..]}
//! ```
//!
//! Ids are as in the text; `_s` are seconds. Names that are no UTF-8 have U+FFFD for what is not.

use std::ffi::{OsStr, OsString};

use serde_json::{Value, json};

use super::{
    Done, Session,
    facts::{BridgeFacts, Entry, PortFacts},
    show::{bridge_id, facts, mac},
};

pub(super) fn show(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let all = words.is_empty();
    let names = if all { session.kernel.bridges() } else { words.to_vec() };
    let mut done = Ok(());
    let mut bridges = Vec::new();
    for name in names {
        match facts(session, &name) {
            Ok(facts) => bridges.push(bridge(session, &name, &facts)),
            Err(failed) if !all => done = Err(failed),
            Err(_) => {}
        }
    }
    print(session, &bridges.into());
    done
}

fn bridge(session: &Session<'_>, name: &OsStr, facts: &BridgeFacts) -> Value {
    let ports = session.kernel.ports(name).unwrap_or_default();
    let ports: Vec<_> = ports.iter().map(|port| port.to_string_lossy()).collect();
    json!({"name": name.to_string_lossy(), "id": bridge_id(&facts.id), "stp": facts.stp, "ports": ports})
}

pub(super) fn showmacs(session: &mut Session<'_>, entries: &[Entry]) -> Done {
    let row = |entry: &Entry| {
        json!({
            "mac": mac(&entry.mac),
            "port": entry.port,
            "local": entry.is_local,
            "age_s": entry.age.seconds(),
        })
    };
    print(session, &entries.iter().map(row).collect());
    Ok(())
}

pub(super) fn showstp(session: &mut Session<'_>, name: &OsStr, facts: &BridgeFacts) -> Done {
    let names = session.kernel.ports(name).unwrap_or_default();
    let ports = names.iter().filter_map(|port| {
        let facts = session.kernel.port_facts(name, port).ok()?;
        Some(port_value(port, &facts))
    });
    let value = json!({
        "name": name.to_string_lossy(),
        "id": bridge_id(&facts.id),
        "root": bridge_id(&facts.root),
        "root_port": facts.root_port,
        "root_path_cost": facts.root_path_cost,
        "max_age_s": facts.max_age.seconds(),
        "hello_time_s": facts.hello_time.seconds(),
        "forward_delay_s": facts.forward_delay.seconds(),
        "ageing_time_s": facts.ageing_time.seconds(),
        "hello_timer_s": facts.hello_timer.seconds(),
        "tcn_timer_s": facts.tcn_timer.seconds(),
        "topology_change_timer_s": facts.topology_change_timer.seconds(),
        "gc_timer_s": facts.gc_timer.seconds(),
        "topology_change": facts.topology_change,
        "topology_change_detected": facts.topology_change_detected,
        "ports": ports.collect::<Vec<_>>(),
    });
    print(session, &value);
    Ok(())
}

fn port_value(name: &OsStr, facts: &PortFacts) -> Value {
    json!({
        "name": name.to_string_lossy(),
        "number": facts.number,
        "id": format!("{:04x}", facts.id),
        "state": facts.state_name(),
        "path_cost": facts.path_cost,
        "root": bridge_id(&facts.root),
        "designated_bridge": bridge_id(&facts.designated_bridge),
        "designated_port": format!("{:04x}", facts.designated_port),
        "designated_cost": facts.designated_cost,
        "message_age_timer_s": facts.message_age_timer.seconds(),
        "forward_delay_timer_s": facts.forward_delay_timer.seconds(),
        "hold_timer_s": facts.hold_timer.seconds(),
        "config_pending": facts.config_pending,
        "topology_change_ack": facts.topology_change_ack,
        "hairpin": facts.hairpin != 0,
    })
}

fn print(session: &mut Session<'_>, value: &Value) {
    let _ = writeln!(session.out, "{value}");
}
