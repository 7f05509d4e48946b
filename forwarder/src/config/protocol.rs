//! What of the configuration the OpenVPN protocol needs: `openvpn::server::Config`.

use openvpn::server::Config as Protocol;

use super::Config;

/// The protocol's part of `config`.
pub fn protocol(config: &Config) -> Protocol {
    let server = &config.server;
    Protocol {
        tls: config.tls.clone(),
        data_ciphers: server.data_ciphers.clone(),
        ping: server.ping,
        ping_restart: server.ping_restart,
        push: server.push.clone(),
        compress: server.compress,
        pool: server.pool,
        max_clients: server.max_clients,
        duplicate_cn: server.duplicate_cn,
        reneg: server.reneg,
        hand_window: server.hand_window,
        tran_window: server.tran_window,
        connect_freq_initial: server.connect_freq_initial,
        exit_notify: server.exit_notify,
        tun_mtu: server.tun_mtu,
        port: server.port,
    }
}
