//! End to end: real OpenVPN clients, real stacks and raw frames across a gateway, in network namespaces.
//!
//! One file a subject; each function is one proof, and its name says of what.

use std::process::ExitCode;

mod ageing;
mod bad_packets;
mod bad_start;
mod bridge;
mod bridge_obstacles;
mod bridge_vlans;
mod capture;
mod checksums;
mod ciphers;
mod client_config;
mod compression;
mod confirm;
mod doctor;
mod endurance;
mod fragmenting;
mod fragments;
mod guards;
mod host_safety;
mod hostility;
mod ipv6;
mod join;
mod joined;
mod load;
mod loops;
mod negotiation;
mod observation;
mod roaming;
mod segments;
mod sessions;
mod stations;
mod switching;
mod tcp;
mod underlay;
mod weather;
mod wrapping;

fn main() -> ExitCode {
    ExitCode::from(trestle_tests::runner::main(&[
        switching::SUITE,
        fragments::SUITE,
        fragments::QUEUES,
        fragments::UNSERVED,
        guards::SUITE,
        loops::SUITE,
        loops::JOINED,
        loops::STORMS,
        checksums::FINISHED,
        checksums::UNFINISHED,
        bad_packets::SUITE,
        observation::SUITE,
        capture::SUITE,
        ageing::SUITE,
        segments::SUITE,
        sessions::SUITE,
        sessions::LIFE,
        sessions::KEEPALIVE,
        client_config::SUITE,
        roaming::SUITE,
        roaming::RESTARTS,
        negotiation::SUITE,
        wrapping::SUITE,
        wrapping::OUR_CLIENT,
        negotiation::OLDER,
        ciphers::SUITE,
        ciphers::LAYOUTS,
        compression::SUITE,
        fragmenting::SUITE,
        fragmenting::MSSFIX,
        underlay::SUITE,
        underlay::CLOUD,
        underlay::ROUTED,
        ipv6::SUITE,
        ipv6::UNDERLAY,
        ipv6::ALONE,
        ipv6::NARROW,
        endurance::SUITE,
        endurance::CROWD,
        join::TRESTLE,
        join::STOCK,
        joined::SUITE,
        joined::ACCELERATED,
        joined::QUEUES,
        joined::LIFE,
        join::LIFE,
        join::LIFE_OF_TRESTLES,
        hostility::SUITE,
        hostility::RUINS,
        host_safety::SUITE,
        confirm::SUITE,
        doctor::SUITE,
        load::SUITE,
        load::ONE_CERTIFICATE,
        bad_start::SUITE,
        bridge::SUITE,
        bridge_obstacles::SUITE,
        bridge_vlans::SUITE,
        tcp::SUITE,
        weather::SUITE,
    ]))
}
