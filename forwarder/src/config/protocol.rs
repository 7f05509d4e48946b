//! What of the configuration the OpenVPN protocol needs: `openvpn::server::Config`.

use std::time::{Duration, SystemTime};

use openvpn::server::{Config as Protocol, Former};

use super::Config;

/// The protocol's part of `config`.
pub fn protocol(config: &Config) -> Protocol {
    let server = &config.server;
    Protocol {
        tls: config.tls.clone(),
        wrappings: config.wrappings.clone(),
        unix_s: unix_s(),
        data_ciphers: server.data_ciphers.clone(),
        digest: server.digest,
        ping: server.ping,
        ping_restart: server.ping_restart,
        push: server.push.clone(),
        compress: server.compress,
        allow_compression: server.allow_compression,
        pool: server.pool,
        max_clients: server.max_clients,
        duplicate_cn: server.duplicate_cn,
        reneg: server.reneg,
        hand_window: server.hand_window,
        tran_window: server.tran_window,
        connect_freq_initial: server
            .connect_freq_initial
            .unwrap_or_else(|| first_packets(server.max_clients)),
        exit_notify: server.exit_notify,
        tun_mtu: server.tun_mtu,
        sizes: server.sizes,
        fallback_cipher: server.fallback_cipher,
        former: Former::default(),
        directory: None,
    }
}

/// The wall clock at the start. Replay protection counts seconds from there, by the clock that only goes forward.
#[expect(clippy::disallowed_methods, reason = "replay protection needs a time that is later after a restart")]
fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// First packets answered per period where the file does not say: all clients may come back at once, after a restart.
/// Upstream's 100 in 10 s serve as the least.
fn first_packets(max_clients: usize) -> (u32, Duration) {
    (u32::try_from(max_clients).unwrap_or(u32::MAX).max(100), Duration::from_secs(10))
}
