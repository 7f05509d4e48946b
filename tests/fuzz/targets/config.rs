//! Arbitrary text as `server.conf`, as a file of `client-config-dir`, as the file of `ifconfig-pool-persist`, as a
//! client's profile, and as `trestle.toml`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use openvpn::server::PushEdit;
use trestle::{
    config::{Error, Guards, Server, client, clients, parse, segments},
    management::pool_file,
};

fuzz_target!(|input: &[u8]| {
    check_client_file(input);
    for (name, _) in pool_file::parse(input) {
        assert!(!name.is_empty());
        check_sentence(&name);
    }
    match parse(input, Path::new("server.conf")) {
        Ok(server) => check(&server, input),
        Err(error) => check_error(error, input),
    }
    match segments::parse(input, Path::new("trestle.toml")) {
        Ok(found) => check_segments(&found),
        Err(error) => check_error(error, input),
    }
    if let Some(guards) = std::str::from_utf8(input).ok().and_then(Guards::from_line) {
        assert_eq!(Guards::from_line(&guards.line()), Some(guards));
    }
    match client::parse(input, Path::new("client.ovpn")) {
        Ok(file) => check_client(&file, input),
        Err(error) => check_error(error, input),
    }
});

fn check_error(error: Error, input: &[u8]) {
    check_sentence(&error.to_string());
    check_line(error.place.and_then(|place| place.line), input);
}

/// What is accepted of a file of segments makes sense.
fn check_segments(found: &segments::Segments) {
    assert!((1..=segments::MAX_SEGMENTS).contains(&found.segments.len()));
    for (name, segment) in &found.segments {
        assert!(*name == segment.name && !name.contains(['/', '.']) && name.len() <= 32);
        assert!(segment.servers.len() <= segments::MAX_SERVERS);
        assert!(!segment.servers.is_empty() || segment.bridge.is_some());
    }
}

/// What is accepted of a client makes sense.
fn check_client(file: &client::Client, input: &[u8]) {
    check(&file.common, input);
    assert!((1..=64).contains(&file.remotes.len()));
    assert!(file.remotes.iter().all(|remote| !remote.host.is_empty() && remote.port > 0));
    assert!(file.retry.0 <= file.retry.1 && !file.retry.0.is_zero());
}

/// What is accepted makes sense.
fn check(server: &Server, input: &[u8]) {
    assert!(!server.listeners.is_empty());
    assert!(!server.data_ciphers.is_empty());
    assert!(server.max_clients > 0);
    assert!(server.pool.is_none_or(|pool| pool.first <= pool.last));
    for option in &server.push {
        check_sentence(option);
    }
    for note in &server.notes {
        check_sentence(&note.text);
        check_line(note.place.line, input);
    }
}

/// What a client's file gives can be pushed, and each fault names a line.
fn check_client_file(input: &[u8]) {
    let Ok(found) = clients::parse(input, Path::new("agent")) else { return };
    for fault in &found.faults {
        check_sentence(&fault.to_string());
        check_line(fault.place.as_ref().and_then(|place| place.line), input);
    }
    for edit in &found.particulars.push {
        if let PushEdit::Add(option) = edit {
            check_sentence(option);
        }
    }
}

/// An operator's terminal and a client's parser get one line, whatever stands in the file.
fn check_sentence(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// A line that is named is there.
fn check_line(line: Option<u32>, input: &[u8]) {
    let lines = input.split(|&byte| byte == b'\n').count();
    assert!(line.is_none_or(|line| (1..=lines).contains(&(line as usize))));
}
