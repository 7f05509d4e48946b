//! What of the configuration the OpenVPN protocol needs: `openvpn::server::Config`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use openvpn::{
    client::Config as ClientProtocol,
    data::Framing,
    server::{Compress, Config as Protocol, Former, Share, Wrappings},
};

use super::{Server, client::Client, wrapping::OfClient};

/// The protocol's part of `server`, with its certificates.
pub fn protocol(server: &Server, tls: Arc<rustls::ServerConfig>, wrappings: Wrappings) -> Protocol {
    Protocol {
        tls,
        wrappings,
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
        exporter_only: server.exporter_only,
        former: Former::default(),
        directory: None,
        share: Share::default(),
    }
}

/// The protocol's part of a client's file, with its certificates and keys. To be made anew for every session: replay
/// protection counts seconds from there.
pub fn client_protocol(
    client: &Client,
    tls: Arc<rustls::ClientConfig>,
    wrapping: OfClient,
) -> ClientProtocol {
    let common = &client.common;
    ClientProtocol {
        wrapping: wrapping.wrapping,
        wrapped_key: wrapping.wrapped_key,
        unix_s: unix_s(),
        data_ciphers: common.data_ciphers.clone(),
        reneg: common.reneg,
        hand_window: common.hand_window,
        tran_window: common.tran_window,
        tun_mtu: common.tun_mtu,
        digest: common.digest,
        framing: framing(common.compress),
        ping: client.ping,
        ping_restart: client.ping_restart,
        pull_filters: client.pull_filters.clone(),
        ..ClientProtocol::new(tls)
    }
}

/// The framing of a client's file, where the server pushes none. Source: brief A.11.
const fn framing(compress: Compress) -> Framing {
    match compress {
        Compress::Off => Framing::None,
        Compress::StubV2 | Compress::Lz4V2 => Framing::V2,
        Compress::Stub | Compress::Lz4 => Framing::Swapped,
        Compress::Lzo | Compress::LzoNo => Framing::Prefixed,
    }
}

/// The wall clock at the start. Replay protection counts seconds from there, by the clock that only goes forward.
#[expect(clippy::disallowed_methods, reason = "replay protection needs a time that is later after a restart")]
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// First packets answered per period where the file does not say: all clients may come back at once, after a restart.
/// Upstream's 100 in 10 s serve as the least.
fn first_packets(max_clients: usize) -> (u32, Duration) {
    (u32::try_from(max_clients).unwrap_or(u32::MAX).max(100), Duration::from_secs(10))
}
