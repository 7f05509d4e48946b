//! Every directive of OpenVPN 2.7 that can stand in a server's file, and what becomes of it here.
//!
//! One table, so that nothing is silently ignored: a directive is done, accepted because it needs nothing here, comes
//! later, or is refused; what is not in the table is unknown, and the nearest known word is suggested.

use super::{
    apply::{self, Done},
    ciphers, compression, fallback, listeners,
    nearest::nearest,
    negotiate, per_client, routed, sizes, tls_version,
    words::Directive,
    wrapping,
};

/// What becomes of a directive.
#[derive(Clone, Copy)]
pub(super) enum Class {
    /// Followed, by this function, with at least and at most so many words.
    Done(usize, usize, fn(Directive<'_>) -> Done),
    /// Needs nothing here, because...
    Accepted(&'static str),
    /// Comes later; what to do for now.
    NotYet(&'static str),
    /// Will not come, because...; what to do.
    Refused(&'static str, &'static str),
}

use Class::{Accepted, Done as Does, NotYet, Refused};

const NO_SCRIPTS: Class = NotYet("take the line out for now: no scripts are run");
const NO_PASSWORDS: Class = NotYet("take the line out for now: clients log in by certificate");
const NO_VLANS: Class = NotYet("take the line out for now: tagged frames cross unchanged");
const NO_ROUTING: Class = NotYet(
    "take the line out for now and give the host's interface its address by your network configuration",
);
const CLIENTS: Class = Refused("a client's directive stands in a server's file", "take the line out");
const KEYS_STAY: Class = Accepted("keys, device and addresses are always kept");
const OUR_LOOP: Class = Accepted("the data path has its own batches and queues");
const RETIRED: Class = Refused("OpenVPN itself has given it up", "take the line out");
const STRONGER: Class = Accepted("rustls allows only what is strong, whatever this says");
const IN_PROFILE: Class = Refused(
    "it belongs to the file of a single client",
    "write it into that client's file in `client-config-dir`",
);
const QUESTION: Class =
    Refused("it is a command, not a setting", "take the line out, and give it to openvpn(8) by hand");
const WINDOWS: Class = Accepted("it concerns Windows");
const AGREED: Class =
    Refused("it is agreed with each client and pushed by the server itself", "take the line out");

/// Names and their classes.
pub(super) type Table = &'static [(&'static str, Class)];

/// Name and class, by subject.
#[rustfmt::skip]
pub(super) const DIRECTIVES: Table = &[
    // Where the gateway listens.
    ("port", Does(1, 1, listeners::port)),
    ("lport", Does(1, 1, listeners::port)),
    ("proto", Does(1, 1, listeners::proto)),
    ("local", Does(1, 3, listeners::local)),
    ("bind", Does(0, 1, listeners::bind)),
    ("sndbuf", Does(1, 1, apply::sndbuf)),
    ("rcvbuf", Does(1, 1, apply::rcvbuf)),
    ("multihome", Accepted("answers always leave from the address the client used")),
    ("float", Accepted("a client may always change its address")),
    ("fast-io", OUR_LOOP),
    ("txqueuelen", OUR_LOOP),
    ("tcp-queue-limit", Does(1, 1, listeners::tcp_queue_limit)),
    ("tcp-nodelay", Does(0, 0, listeners::tcp_nodelay)),
    ("socket-flags", Does(0, 15, listeners::socket_flags)),
    ("connect-freq", Accepted("`connect-freq-initial` bounds how many clients begin at once")),
    ("connect-freq-initial", Does(2, 2, apply::connect_freq_initial)),
    ("bind-dev", NotYet("take the line out for now, or bind to one address by `local`")),
    ("mark", NotYet("take the line out for now")),
    ("passtos", NotYet("take the line out for now")),
    ("proto-force", CLIENTS),
    ("port-share", Refused("another server's connections are not passed on", "take the line out, and give the other server an address or a port of its own")),
    ("inetd", RETIRED),
    // The segment and the device on it.
    ("dev", Does(1, 1, apply::dev)),
    ("dev-type", Does(1, 1, apply::dev_type)),
    ("dev-node", NotYet("take the line out and name the device by `dev tap0`")),
    ("tun-mtu", Does(1, 2, sizes::tun_mtu)),
    ("tun-mtu-extra", Does(1, 1, sizes::tun_mtu_extra)),
    ("tun-mtu-max", Accepted("clients are told `tun-mtu`, and longer frames are not taken")),
    ("link-mtu", Does(1, 1, sizes::link_mtu)),
    ("fragment", Does(1, 2, sizes::fragment)),
    ("mssfix", Does(0, 2, sizes::mssfix)),
    ("mtu-disc", Accepted("packets that are too long for the path are sent as IP fragments")),
    ("mtu-test", CLIENTS),
    ("mode", Does(1, 1, apply::mode)),
    ("server-bridge", Does(0, 4, apply::server_bridge)),
    ("server", Does(2, 3, routed::server)),
    ("server-ipv6", NotYet("take the line out: IPv6 crosses like any frame, with the LAN's own router")),
    ("topology", Accepted("it concerns `dev tun`")),
    ("client-to-client", Does(0, 0, apply::client_to_client)),
    ("ifconfig", Does(2, 2, routed::ifconfig)),
    ("ifconfig-ipv6", NO_ROUTING),
    ("ifconfig-noexec", Accepted("no address is set on the host's interface")),
    ("ifconfig-nowarn", Accepted("no such warning is made")),
    ("ifconfig-pool", Does(2, 3, routed::ifconfig_pool)),
    ("ifconfig-pool-persist", Does(1, 2, per_client::pool_persist)),
    ("ifconfig-ipv6-pool", NO_ROUTING),
    ("route", NO_ROUTING),
    ("route-ipv6", NO_ROUTING),
    ("route-gateway", NO_ROUTING),
    ("route-metric", NO_ROUTING),
    ("route-delay", NO_ROUTING),
    ("route-noexec", Accepted("no routes are set")),
    ("route-nopull", CLIENTS),
    ("vlan-tagging", NO_VLANS),
    ("vlan-accept", NO_VLANS),
    ("vlan-pvid", NO_VLANS),
    ("max-routes-per-client", Does(1, 1, apply::max_routes_per_client)),
    ("stale-routes-check", Does(1, 2, apply::stale_routes_check)),
    ("bcast-buffers", OUR_LOOP),
    ("hash-size", OUR_LOOP),
    ("mktun", NotYet("take the line out: make the device with `ip tuntap add`, or let the gateway make it")),
    ("rmtun", NotYet("take the line out")),
    ("disable-dco", Accepted("the kernel's OpenVPN is not used")),
    ("windows-driver", WINDOWS),
    // Certificates and TLS.
    ("ca", Does(0, 1, apply::ca)),
    ("cert", Does(0, 1, apply::cert)),
    ("key", Does(0, 1, apply::key)),
    ("dh", Does(0, 1, apply::dh)),
    ("crl-verify", Does(0, 2, apply::crl_verify)),
    ("extra-certs", NotYet("append the certificates to the `cert` file instead")),
    ("capath", NotYet("put the certificates into one file and name it by `ca`")),
    ("pkcs12", NotYet("unpack it with `openssl pkcs12` into `ca`, `cert` and `key`")),
    ("askpass", NotYet("store the key without a password: `openssl pkey -in KEY -out NEW`")),
    ("remote-cert-tls", Does(1, 1, apply::remote_cert_tls)),
    ("remote-cert-ku", NotYet("write `remote-cert-tls client` instead")),
    ("remote-cert-eku", NotYet("write `remote-cert-tls client` instead")),
    ("ns-cert-type", Refused("OpenVPN itself has given it up", "write `remote-cert-tls client` instead")),
    ("verify-client-cert", Does(0, 1, apply::verify_client_cert)),
    ("client-cert-not-required", Refused("OpenVPN itself has given it up", "take the line out: clients log in by certificate")),
    ("verify-x509-name", NotYet("take the line out for now: every certificate of `ca` that is not revoked may log in")),
    ("peer-fingerprint", NotYet("take the line out for now and name a `ca`")),
    ("verify-hash", NotYet("take the line out for now")),
    ("x509-username-field", NotYet("take the line out for now: a client's name is its certificate's common name")),
    ("x509-track", NO_SCRIPTS),
    ("tls-server", Accepted("a server is always the TLS server")),
    ("tls-client", CLIENTS),
    ("tls-version-min", Does(1, 2, tls_version::min)),
    ("tls-version-max", Does(1, 1, tls_version::max)),
    ("tls-cipher", STRONGER),
    ("tls-ciphersuites", STRONGER),
    ("tls-groups", STRONGER),
    ("ecdh-curve", STRONGER),
    ("tls-cert-profile", STRONGER),
    ("tls-timeout", Does(1, 1, apply::tls_timeout)),
    ("tls-auth", Does(0, 2, wrapping::tls_auth)),
    ("tls-crypt", Does(0, 1, wrapping::tls_crypt)),
    ("tls-crypt-v2", Does(0, 2, wrapping::tls_crypt_v2)),
    ("tls-crypt-v2-verify", NO_SCRIPTS),
    ("tls-crypt-v2-max-age", Does(1, 1, wrapping::max_age)),
    ("key-direction", Does(1, 1, wrapping::key_direction)),
    ("tls-exit", CLIENTS),
    ("tls-verify", NO_SCRIPTS),
    ("tls-export-cert", NO_SCRIPTS),
    ("single-session", NotYet("take the line out for now")),
    ("secret", Refused("static keys join two machines only, and OpenVPN itself has given them up", "make certificates and name them by `ca`, `cert` and `key`")),
    ("engine", Refused("keys are handled by rustls, which has no engines", "store the key in a file and name it by `key`")),
    ("providers", Refused("keys are handled by rustls, which has no providers", "store the key in a file and name it by `key`")),
    ("pkcs11-id", NotYet("store the key in a file and name it by `key`")),
    ("pkcs11-providers", NotYet("store the key in a file and name it by `key`")),
    ("prng", Accepted("random numbers come from the kernel")),
    ("use-prediction-resistance", Accepted("random numbers come from the kernel")),
    ("keying-material-exporter", NotYet("take the line out for now")),
    // What is agreed with clients.
    ("cipher", Does(1, 1, fallback::cipher)),
    ("data-ciphers", Does(1, 1, ciphers::data_ciphers)),
    ("ncp-ciphers", Does(1, 1, ciphers::data_ciphers)),
    ("data-ciphers-fallback", Does(1, 1, fallback::data_ciphers_fallback)),
    ("ncp-disable", RETIRED),
    ("auth", Does(1, 1, ciphers::auth)),
    ("keysize", Accepted("the cipher's name says it")),
    ("compress", Does(0, 1, compression::compress)),
    ("comp-lzo", Does(0, 1, compression::comp_lzo)),
    ("comp-noadapt", Accepted("it concerns compressing by LZO, which only clients do")),
    ("allow-compression", Does(1, 1, compression::allow_compression)),
    ("compat-mode", Does(1, 2, fallback::compat_mode)),
    ("push", Does(1, 1, negotiate::push)),
    ("push-reset", IN_PROFILE),
    ("push-remove", IN_PROFILE),
    ("push-peer-info", Accepted("a server has none to give")),
    ("ifconfig-push", IN_PROFILE),
    ("ifconfig-push-constraint", IN_PROFILE),
    ("ifconfig-ipv6-push", IN_PROFILE),
    ("iroute", IN_PROFILE),
    ("iroute-ipv6", IN_PROFILE),
    ("disable", IN_PROFILE),
    ("replay-window", Accepted("the window is at least as wide as upstream's default")),
    ("no-replay", RETIRED),
    ("no-iv", RETIRED),
    ("mute-replay-warnings", Accepted("replayed packets are counted, not logged")),
    ("replay-persist", Accepted("what is repeated after a restart of the gateway gets an answer without state and no session")),
    ("disable-occ", Accepted("options are never compared")),
    ("opt-verify", NotYet("take the line out for now")),
    ("key-method", RETIRED),
    ("tls-remote", RETIRED),
    // Sessions.
    ("keepalive", Does(2, 2, apply::keepalive)),
    ("ping", Does(1, 1, apply::ping)),
    ("ping-restart", Does(1, 1, apply::ping_restart)),
    ("ping-exit", NotYet("write `ping-restart` instead: the gateway outlives its clients")),
    ("ping-timer-rem", Accepted("a peer's time runs only while it is connected")),
    ("inactive", NotYet("take the line out for now: silent clients are dropped by `keepalive`")),
    ("session-timeout", NotYet("take the line out for now")),
    ("max-clients", Does(1, 1, apply::max_clients)),
    ("duplicate-cn", Does(0, 0, apply::duplicate_cn)),
    ("reneg-sec", Does(1, 2, apply::reneg_sec)),
    ("reneg-bytes", Accepted("keys are renewed by time, and long before they are worn out")),
    ("reneg-pkts", Accepted("keys are renewed by time, and long before they are worn out")),
    ("hand-window", Does(1, 1, apply::hand_window)),
    ("tran-window", Does(1, 1, apply::tran_window)),
    ("explicit-exit-notify", Does(0, 1, apply::explicit_exit_notify)),
    ("client-config-dir", Does(1, 1, per_client::client_config_dir)),
    ("ccd-exclusive", Does(0, 0, per_client::ccd_exclusive)),
    ("auth-user-pass-verify", NO_PASSWORDS),
    ("auth-user-pass-optional", NO_PASSWORDS),
    ("auth-gen-token", NO_PASSWORDS),
    ("auth-gen-token-secret", NO_PASSWORDS),
    ("username-as-common-name", NO_PASSWORDS),
    ("auth-nocache", Accepted("no passwords are kept")),
    ("persist-key", KEYS_STAY),
    ("persist-tun", KEYS_STAY),
    ("persist-local-ip", KEYS_STAY),
    ("persist-remote-ip", KEYS_STAY),
    // Scripts, plugins, management.
    ("script-security", Accepted("no scripts are run")),
    ("setenv", Accepted("no scripts are run")),
    ("setenv-safe", Accepted("no scripts are run")),
    ("up-restart", Accepted("no scripts are run")),
    ("up-delay", Accepted("no scripts are run")),
    ("up", NO_SCRIPTS),
    ("down", NO_SCRIPTS),
    ("down-pre", NO_SCRIPTS),
    ("ipchange", NO_SCRIPTS),
    ("route-up", NO_SCRIPTS),
    ("route-pre-down", NO_SCRIPTS),
    ("client-connect", NO_SCRIPTS),
    ("client-disconnect", NO_SCRIPTS),
    ("client-crresponse", NO_SCRIPTS),
    ("learn-address", NO_SCRIPTS),
    ("tmp-dir", Accepted("no scripts are run")),
    ("iproute", Accepted("no commands are run")),
    ("plugin", Refused("plugins are OpenVPN's own shared objects", "take the line out")),
    ("management", NotYet("take the line out for now: `trestle status` shows what happens")),
    ("management-client", NotYet("take the line out for now")),
    ("management-client-auth", NotYet("take the line out for now: clients log in by certificate")),
    ("management-client-user", NotYet("take the line out for now")),
    ("management-client-group", NotYet("take the line out for now")),
    ("management-client-pf", RETIRED),
    ("management-hold", NotYet("take the line out for now")),
    ("management-signal", NotYet("take the line out for now")),
    ("management-log-cache", NotYet("take the line out for now")),
    ("management-up-down", NotYet("take the line out for now")),
    ("management-query-passwords", NotYet("take the line out for now")),
    // The process and its files.
    ("config", NotYet("put everything into one file")),
    ("cd", Does(1, 1, apply::cd)),
    ("user", Does(1, 1, apply::user)),
    ("group", Does(1, 1, apply::group)),
    ("chroot", NotYet("take the line out for now: `user` gives up privileges")),
    ("setcon", NotYet("take the line out for now")),
    ("daemon", Accepted("the gateway stays in the foreground, where systemd keeps it")),
    ("syslog", Accepted("what is said goes to stderr, where the journal takes it, or to `log-append FILE`")),
    ("writepid", Does(1, 1, apply::writepid)),
    ("nice", Accepted("set it where the gateway is started: `Nice=` of systemd, or nice(1)")),
    ("mlock", NotYet("take the line out for now")),
    ("status", Does(1, 2, apply::status)),
    ("status-version", Does(0, 1, apply::status_version)),
    ("log", Does(1, 1, apply::log)),
    ("log-append", Does(1, 1, apply::log_append)),
    ("verb", Does(1, 1, apply::verb)),
    ("mute", Accepted("packets are counted, not logged, so that nothing need be muted")),
    ("suppress-timestamps", Accepted("the journal and the log file keep their times")),
    ("machine-readable-output", Accepted("`trestle status -j` is for machines")),
    ("errors-to-stderr", Accepted("errors at the start always go to stderr")),
    ("echo", Accepted("there is no management client to show it to")),
    ("remap-usr1", Accepted("SIGUSR1 has no meaning here")),
    ("ignore-unknown-option", Does(1, 16, apply::ignore_unknown_option)),
    ("multisession", RETIRED),
    ("shaper", NotYet("take the line out for now")),
    ("gremlin", Refused("it breaks packets on purpose", "take the line out")),
    // Clients' directives.
    ("client", CLIENTS),
    ("pull", CLIENTS),
    ("pull-filter", CLIENTS),
    ("remote", CLIENTS),
    ("remote-random", CLIENTS),
    ("remote-random-hostname", CLIENTS),
    ("rport", CLIENTS),
    ("nobind", CLIENTS),
    ("resolv-retry", CLIENTS),
    ("connect-retry", CLIENTS),
    ("connect-retry-max", CLIENTS),
    ("connect-timeout", CLIENTS),
    ("server-poll-timeout", CLIENTS),
    ("http-proxy", CLIENTS),
    ("http-proxy-option", CLIENTS),
    ("socks-proxy", CLIENTS),
    ("auth-user-pass", CLIENTS),
    ("auth-retry", CLIENTS),
    ("auth-token", CLIENTS),
    ("auth-token-user", CLIENTS),
    ("static-challenge", CLIENTS),
    ("redirect-gateway", Refused("a client's directive stands in a server's file", "write `push \"redirect-gateway\"`")),
    ("redirect-private", Refused("a client's directive stands in a server's file", "write `push \"redirect-private\"`")),
    ("block-outside-dns", Refused("a client's directive stands in a server's file", "write `push \"block-outside-dns\"`")),
    ("block-ipv6", Refused("a client's directive stands in a server's file", "write `push \"block-ipv6\"`")),
    ("block-local", CLIENTS),
    ("dhcp-option", Refused("a client's directive stands in a server's file", "write `push \"dhcp-option ...\"`")),
    ("dns", Refused("a client's directive stands in a server's file", "write `push \"dns ...\"`")),
    ("allow-recursive-routing", CLIENTS),
    ("allow-pull-fqdn", CLIENTS),
    ("connection", CLIENTS),
    ("client-nat", CLIENTS),
    ("preresolve", CLIENTS),
    ("register-dns", CLIENTS),
    ("route-method", CLIENTS),
    ("ip-win32", CLIENTS),
    ("lladdr", NotYet("take the line out and set the address of the host's interface by your network configuration")),
    // Commands, other ends and other systems.
    ("help", QUESTION),
    ("version", QUESTION),
    ("show-ciphers", QUESTION),
    ("show-digests", QUESTION),
    ("show-engines", QUESTION),
    ("show-tls", QUESTION),
    ("show-groups", QUESTION),
    ("show-curves", QUESTION),
    ("show-gateway", QUESTION),
    ("show-pkcs11-ids", QUESTION),
    ("show-adapters", QUESTION),
    ("show-net", QUESTION),
    ("show-net-up", QUESTION),
    ("show-valid-subnets", QUESTION),
    ("genkey", QUESTION),
    ("test-crypto", QUESTION),
    ("allow-nonadmin", WINDOWS),
    ("cryptoapicert", Refused("it concerns Windows", "store the key in a file and name it by `key`")),
    ("dhcp-release", WINDOWS),
    ("dhcp-renew", WINDOWS),
    ("dhcp-pre-release", WINDOWS),
    ("pause-exit", WINDOWS),
    ("service", WINDOWS),
    ("tap-sleep", WINDOWS),
    ("win-sys", WINDOWS),
    ("dns-updown", CLIENTS),
    ("http-proxy-retry", CLIENTS),
    ("http-proxy-timeout", CLIENTS),
    ("http-proxy-user-pass", CLIENTS),
    ("socks-proxy-retry", CLIENTS),
    ("allow-deprecated-insecure-static-crypto", Refused("static keys join two machines only, and OpenVPN itself has given them up", "make certificates and name them by `ca`, `cert` and `key`")),
    ("force-tls-key-material-export", Does(0, 0, negotiate::exporter_only)),
    ("ifconfig-pool-linear", RETIRED),
    ("compat-names", RETIRED),
    ("no-name-remapping", RETIRED),
    ("mtu-dynamic", RETIRED),
    ("udp-mtu", Does(1, 1, sizes::link_mtu)),
    ("tun-ipv6", Accepted("IPv6 crosses like any frame")),
    ("max-routes", Accepted("OpenVPN itself has no such limit any more")),
    ("max-packet-size", Does(1, 1, sizes::max_packet_size)),
    ("parameter", Accepted("there is no management client to show it to")),
    ("override-username", NO_PASSWORDS),
    ("route-ipv6-gateway", NO_ROUTING),
    ("route-table", NO_ROUTING),
    ("management-external-key", NotYet("store the key in a file and name it by `key`")),
    ("management-external-cert", NotYet("store the certificate in a file and name it by `cert`")),
    ("management-forget-disconnect", NotYet("take the line out for now")),
    ("management-query-proxy", NotYet("take the line out for now")),
    ("management-query-remote", NotYet("take the line out for now")),
    ("pkcs11-cert-private", NotYet("store the key in a file and name it by `key`")),
    ("pkcs11-id-management", NotYet("store the key in a file and name it by `key`")),
    ("pkcs11-pin-cache", NotYet("store the key in a file and name it by `key`")),
    ("pkcs11-private-mode", NotYet("store the key in a file and name it by `key`")),
    ("pkcs11-protected-authentication", NotYet("store the key in a file and name it by `key`")),
    ("peer-id", AGREED),
    ("protocol-flags", AGREED),
    ("key-derivation", AGREED),
    ("push-continuation", AGREED),
];

/// The class of directive `name`.
pub(super) fn class(table: Table, name: &str) -> Option<Class> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, class)| class)
}

/// The known directive that `name` is most likely meant for.
pub(super) fn suggested(table: Table, name: &str) -> Option<&'static str> {
    nearest(name, table.iter().map(|&(known, _)| known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_stands_in_the_table_once() {
        for (at, (name, _)) in DIRECTIVES.iter().enumerate() {
            assert!(DIRECTIVES[..at].iter().all(|(other, _)| other != name), "{name} stands twice");
        }
    }

    #[test]
    fn every_directive_of_the_manual_is_known() {
        let manual = include_str!("testdata/directives-2.7.txt");
        let names: Vec<&str> = manual.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(names.len() > 300, "{} names", names.len());
        let missing: Vec<&str> = names.into_iter().filter(|name| class(DIRECTIVES, name).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_slip_suggests_the_known_word() {
        let suggested = |name| suggested(DIRECTIVES, name);
        assert_eq!(suggested("keepalve"), Some("keepalive"));
        assert_eq!(suggested("cient-to-client"), Some("client-to-client"));
        assert_eq!(suggested("potr"), Some("port"));
        assert_eq!(suggested("frobnicate"), None);
        assert_eq!(suggested(&"x".repeat(5000)), None);
    }
}
