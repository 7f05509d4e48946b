//! `show`, `showmacs`, `showstp` as text.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::OsStrExt,
};

use nix::errno::Errno;

use super::{
    Done, Failed, Session,
    facts::{BridgeFacts, Entry, PortFacts},
    json, reason,
};

pub(super) fn show(session: &mut Session<'_>, words: &[OsString]) -> Done {
    if session.json {
        return json::show(session, words);
    }
    let mut rows = Rows { header: true };
    if words.is_empty() {
        for bridge in session.kernel.bridges() {
            // One that vanishes meanwhile ends the list, and is no failure.
            if rows.show(session, &bridge).is_err() {
                break;
            }
        }
        return Ok(());
    }
    let mut done = Ok(());
    for bridge in words {
        done = rows.show(session, bridge).and(done);
    }
    done
}

/// The rows of `show`: the first comes under a header.
struct Rows {
    header: bool,
}

impl Rows {
    fn show(&mut self, session: &mut Session<'_>, bridge: &OsStr) -> Done {
        let facts = facts(session, bridge)?;
        let mut row = Vec::new();
        if std::mem::take(&mut self.header) {
            row.extend_from_slice(b"bridge name\tbridge id\t\tSTP enabled\tinterfaces\n");
        }
        row.extend_from_slice(bridge.as_bytes());
        let stp = if facts.stp { "yes" } else { "no" };
        row.extend_from_slice(format!("\t\t{}\t{stp}\t\t", bridge_id(&facts.id)).as_bytes());
        match session.kernel.ports(bridge) {
            Ok(ports) => row.extend_from_slice(ports.join(OsStr::new("\n\t\t\t\t\t\t\t")).as_bytes()),
            Err(errno) => {
                row.extend_from_slice(format!(" can't get port info: {}", reason(errno)).as_bytes())
            }
        }
        row.push(b'\n');
        let _ = session.out.write_all(&row);
        Ok(())
    }
}

/// A bridge's facts, or why there are none, said.
pub(super) fn facts(session: &mut Session<'_>, bridge: &OsStr) -> Result<BridgeFacts, Failed> {
    session.kernel.bridge_facts(bridge).map_err(|errno| match errno {
        Errno::ENODEV => session.fail(&[b"bridge ", bridge.as_bytes(), b" does not exist!"]),
        _ => session.fail(&[b"device ", bridge.as_bytes(), b" is not a bridge!"]),
    })
}

pub(super) fn showmacs(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let entries = sorted_entries(session, &words[0])?;
    if session.json {
        return json::showmacs(session, &entries);
    }
    let mut text = "port no\tmac addr\t\tis local?\tageing timer\n".to_owned();
    for entry in entries {
        let local = if entry.is_local { "yes" } else { "no" };
        // The real one knows 255 ports; a higher number is cut there, and here.
        let port = entry.port & 0xff;
        let _ = writeln!(text, "{port:3}\t{}\t{local}\t\t{}", mac(&entry.mac), entry.age);
    }
    let _ = session.out.write_all(text.as_bytes());
    Ok(())
}

fn sorted_entries(session: &mut Session<'_>, bridge: &OsStr) -> Result<Vec<Entry>, Failed> {
    let mut entries = session
        .kernel
        .entries(bridge)
        .map_err(|errno| session.fail(&[b"read of forward table failed: ", reason(errno).as_bytes()]))?;
    // Stable: one MAC in several VLANs keeps the kernel's order.
    entries.sort_by_key(|entry| entry.mac);
    Ok(entries)
}

pub(super) fn showstp(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let bridge = &words[0];
    let facts = facts(session, bridge)?;
    if session.json {
        return json::showstp(session, bridge, &facts);
    }
    let mut text = bridge.as_bytes().to_vec();
    text.extend_from_slice(bridge_block(&facts).as_bytes());
    match session.kernel.ports(bridge) {
        Ok(ports) => {
            for port in ports {
                let Ok(facts) = session.kernel.port_facts(bridge, &port) else {
                    // It went meanwhile. The real one prints where in memory its name is, and ends.
                    text.extend_from_slice(&[b"Can't get info for ", port.as_bytes()].concat());
                    break;
                };
                text.extend_from_slice(port.as_bytes());
                text.extend_from_slice(port_block(&facts).as_bytes());
            }
        }
        Err(errno) => text.extend_from_slice(format!("can't get ports: {}\n", reason(errno)).as_bytes()),
    }
    let _ = session.out.write_all(&text);
    Ok(())
}

/// All of a bridge but its name.
fn bridge_block(facts: &BridgeFacts) -> String {
    let mut flags = String::new();
    if facts.topology_change {
        flags.push_str("TOPOLOGY_CHANGE ");
    }
    if facts.topology_change_detected {
        flags.push_str("TOPOLOGY_CHANGE_DETECTED ");
    }
    let rows = [
        format!("bridge id\t\t{}", bridge_id(&facts.id)),
        format!("designated root\t{}", bridge_id(&facts.root)),
        format!("root port\t\t{:4}\t\t\tpath cost\t\t{:4}", facts.root_port, facts.root_path_cost),
        format!("max age\t\t{}\t\t\tbridge max age\t\t{}", facts.max_age, facts.bridge_max_age),
        format!("hello time\t\t{}\t\t\tbridge hello time\t{}", facts.hello_time, facts.bridge_hello_time),
        format!(
            "forward delay\t\t{}\t\t\tbridge forward delay\t{}",
            facts.forward_delay, facts.bridge_forward_delay
        ),
        format!("ageing time\t\t{}", facts.ageing_time),
        format!("hello timer\t\t{}\t\t\ttcn timer\t\t{}", facts.hello_timer, facts.tcn_timer),
        format!("topology change timer\t{}\t\t\tgc timer\t\t{}", facts.topology_change_timer, facts.gc_timer),
        format!("flags\t\t\t{flags}"),
    ];
    format!("\n {}\n\n\n", rows.join("\n "))
}

/// All of a port but its name.
fn port_block(facts: &PortFacts) -> String {
    let mut flags = String::new();
    if facts.config_pending {
        flags.push_str("CONFIG_PENDING ");
    }
    if facts.topology_change_ack {
        flags.push_str("TOPOLOGY_CHANGE_ACK ");
    }
    let mut rows = vec![
        format!("port id\t\t{:04x}\t\t\tstate\t\t{:>15}", facts.id, facts.state_name()),
        format!("designated root\t{}\tpath cost\t\t{:4}", bridge_id(&facts.root), facts.path_cost),
        format!(
            "designated bridge\t{}\tmessage age timer\t{}",
            bridge_id(&facts.designated_bridge),
            facts.message_age_timer
        ),
        format!(
            "designated port\t{:04x}\t\t\tforward delay timer\t{}",
            facts.designated_port, facts.forward_delay_timer
        ),
        format!("designated cost\t{:4}\t\t\thold timer\t\t{}", facts.designated_cost, facts.hold_timer),
        format!("flags\t\t\t{flags}"),
    ];
    if facts.hairpin != 0 {
        rows.push(format!("hairpin mode\t\t{:4}", facts.hairpin));
    }
    format!(" ({})\n {}\n\n", facts.number, rows.join("\n "))
}

/// `8000.22fb56cf1867`
pub(super) fn bridge_id(id: &[u8; 8]) -> String {
    let [high, low, mac @ ..] = id;
    let mac: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{high:02x}{low:02x}.{mac}")
}

/// `22:fb:56:cf:18:67`
pub(super) fn mac(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
