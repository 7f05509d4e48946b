use std::{net::Ipv4Addr, path::Path, time::Duration};

use openvpn::{
    data::Cipher,
    server::{Compress, ExitNotify, Pool},
    tls::Versions,
};
use proptest::prelude::*;

use super::*;

const REFERENCE: &[u8] = include_bytes!("testdata/reference-server.conf");
/// The least a server's file holds, three lines.
const LEAST: &str = "dev tap\nserver-bridge nogw\n<ca>\n</ca>\n<cert>\n</cert>\n<key>\n</key>\n";

pub(super) fn parsed(text: &str) -> Server {
    parse(format!("{LEAST}{text}").as_bytes(), Path::new("s.conf")).unwrap()
}

/// The error of `text` in place of the file's first line.
pub(super) fn refused(text: &str) -> String {
    parse(format!("{text}\n{LEAST}").as_bytes(), Path::new("s.conf")).unwrap_err().to_string()
}

pub(super) fn notes(server: &Server) -> Vec<String> {
    server.notes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_reference_file_is_taken_as_it_stands() {
    let server = parse(REFERENCE, Path::new("server.conf")).unwrap();
    assert_eq!(server.listeners[0].to_string(), "udp 0.0.0.0:443");
    assert_eq!(server.device.as_deref(), Some("tap0"));
    assert_eq!(
        server.pool,
        Some(Pool {
            gateway: Ipv4Addr::new(10, 10, 21, 5),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            first: Ipv4Addr::new(10, 10, 21, 100),
            last: Ipv4Addr::new(10, 10, 21, 255),
        })
    );
    assert!(server.client_to_client);
    assert_eq!(server.ping, Some(Duration::from_secs(10)));
    assert_eq!(server.ping_restart, Some(Duration::from_secs(240)));
    assert_eq!(server.compress, Compress::Lz4V2);
    assert_eq!(server.push, ["route-gateway 10.10.21.5", "ping 10", "ping-restart 120"]);
    assert_eq!(server.data_ciphers, Cipher::DEFAULT);
    assert_eq!((server.user.as_deref(), server.group.as_deref()), (Some("nobody"), Some("nogroup")));
    assert_eq!(server.exit_notify, Some(ExitNotify::Restart));
    assert_eq!(server.log, Some(LogFile { path: "/var/log/openvpn/openvpn.log".into(), append: false }));
    let status = server.status.as_ref().unwrap();
    assert_eq!(status.path, Path::new("/var/log/openvpn/openvpn-status.log"));
    assert_eq!(status.interval, Duration::from_secs(60));
    assert_eq!(server.ca, Source::File { path: "ca.crt".into(), line: 4 });
}

#[test]
fn the_reference_files_notes_say_what_is_not_followed() {
    let server = parse(REFERENCE, Path::new("server.conf")).unwrap();
    assert_eq!(
        notes(&server),
        [
            "server.conf:16: `persist-key` has no effect: keys, device and addresses are always kept",
            "server.conf:17: `persist-tun` has no effect: keys, device and addresses are always kept",
            "server.conf:20: `log-append` has no effect: the first `log` or `log-append` counts",
            "server.conf:8: the pool includes 10.10.21.255, the subnet's broadcast address: it is never leased",
        ]
    );
}

#[test]
fn what_the_file_leaves_out_is_as_upstream_has_it() {
    let server = parsed("");
    assert_eq!((server.listeners[0].port, server.tun_mtu, server.max_clients), (1194, 1500, 1024));
    assert_eq!(server.max_macs_per_peer, 256);
    assert_eq!((server.ping, server.ping_restart), (None, None));
    assert_eq!(server.reneg, Some(Duration::from_secs(3600)));
    assert_eq!(server.hand_window, Duration::from_secs(60));
    assert_eq!(server.connect_freq_initial, None);
    assert_eq!(server.compress, Compress::Off);
    assert!(!server.client_to_client && !server.duplicate_cn && server.push.is_empty());
}

#[test]
fn an_unknown_word_is_refused_with_the_nearest_known_one() {
    assert_eq!(
        refused("keepalve 10 120"),
        "s.conf:1: `keepalve` is not a directive of OpenVPN; perhaps `keepalive` is meant"
    );
    assert_eq!(
        refused("frobnicate yes"),
        "s.conf:1: `frobnicate` is not a directive of OpenVPN; correct it or take the line out"
    );
}

#[test]
fn an_unknown_word_is_noted_where_the_file_allows_it() {
    let server = parsed("ignore-unknown-option frobnicate\nfrobnicate yes\n");
    assert_eq!(notes(&server), ["s.conf:10: `frobnicate` is unknown, as `ignore-unknown-option` allows"]);
}

#[test]
fn what_comes_later_says_what_to_do_for_now() {
    assert_eq!(
        refused("session-timeout 60"),
        "s.conf:1: `session-timeout` comes later; take the line out for now"
    );
}

#[test]
fn what_never_comes_says_why() {
    assert_eq!(
        refused("plugin x.so"),
        "s.conf:1: `plugin` is refused: plugins are OpenVPN's own shared objects; take the line out"
    );
    assert!(refused("remote example.org").contains("a client's directive"));
}

#[test]
fn dev_tun_is_refused() {
    let error = parse(b"dev tun0\nserver-bridge nogw\n", Path::new("s.conf")).unwrap_err();
    assert!(error.to_string().starts_with("s.conf:1: `dev tun` carries IP packets"), "{error}");
}

#[test]
fn a_device_of_any_name_is_taken_when_its_type_is_said() {
    let text = LEAST.replace("dev tap\n", "dev lan0\ndev-type tap\n");
    assert_eq!(parse(text.as_bytes(), Path::new("s")).unwrap().device.as_deref(), Some("lan0"));
    let text = LEAST.replace("dev tap\n", "dev lan0\n");
    assert!(parse(text.as_bytes(), Path::new("s")).unwrap_err().cure.contains("dev-type tap"));
    assert!(refused("dev tap0/../../x").contains("cannot be an interface's name"));
    assert!(refused("dev tap012345678901234").contains("cannot be an interface's name"));
}

#[test]
fn numbers_are_checked_with_their_range() {
    assert_eq!(
        refused("port 65536"),
        "s.conf:1: `65536` of `port` is not a number it can have; write one from 1 to 65535"
    );
    assert!(refused("port -1").contains("not a number"));
    assert!(refused("tun-mtu 100").contains("576 to 9000"));
    assert!(refused("max-clients 0").contains("from 1"));
}

#[test]
fn the_number_of_words_is_checked() {
    assert_eq!(
        refused("keepalive 10"),
        "s.conf:1: `keepalive` has 1 words behind it; it takes 2 behind it; quote what holds white space"
    );
    assert!(refused("client-to-client yes").contains("it takes nothing behind it"));
    assert!(refused("ca").contains("0 words"));
    assert!(refused("<port>\n443\n</port>").contains("`port` takes no block"));
}

#[test]
fn a_pool_must_lie_in_the_gateways_subnet() {
    let bridge = |words: &str| refused(&format!("server-bridge {words}"));
    assert!(bridge("10.0.0.1 255.255.255.0 10.0.1.5 10.0.1.9").contains("not in the subnet"));
    assert!(bridge("10.0.0.1 255.255.255.0 10.0.0.9 10.0.0.5").contains("is no pool"));
    assert!(bridge("10.0.0.1 255.0.255.0 10.0.0.5 10.0.0.9").contains("not a subnet's mask"));
    assert!(bridge("10.0.0.1 10.0.0.5").contains("four addresses"));
    assert!(bridge("lan 255.255.255.0 10.0.0.5 10.0.0.9").contains("not an IPv4 address"));
}

#[test]
fn a_pool_with_the_gateway_in_it_is_noted() {
    let text = LEAST.replace("nogw", "10.0.0.5 255.255.255.0 10.0.0.1 10.0.0.9");
    let server = parse(text.as_bytes(), Path::new("s")).unwrap();
    assert_eq!(
        notes(&server),
        ["s:2: the pool includes 10.0.0.5, the gateway's own address: it is never leased"]
    );
}

#[test]
fn without_a_pool_clients_are_told_to_ask_the_lan() {
    assert!(parsed("").push.is_empty());
    let text = LEAST.replace(" nogw", "");
    assert_eq!(parse(text.as_bytes(), Path::new("s")).unwrap().push, ["route-gateway dhcp"]);
}

#[test]
fn a_file_that_is_no_servers_is_refused() {
    let error = parse(b"dev tap\nca a\ncert b\nkey c\n", Path::new("s")).unwrap_err();
    assert!(error.sentence.contains("not a server's"));
    assert!(parse(b"mode server\ndev tap\nca a\ncert b\nkey c\n", Path::new("s")).is_ok());
    let error = parse(b"mode server\ndev tap\nca a\ncert b\n", Path::new("s")).unwrap_err();
    assert_eq!(error.to_string(), "s: `key` is missing; name the server's private key");
}

#[test]
fn keepalive_stands_alone_and_waits_long_enough() {
    assert!(refused("keepalive 10 19").contains("at least twice"));
    let error = parse(format!("{LEAST}ping 5\nkeepalive 10 60\n").as_bytes(), Path::new("s")).unwrap_err();
    assert!(error.to_string().starts_with("s:9: `keepalive` says this already"), "{error}");
    let server = parsed("ping 5\nping-restart 30\n");
    assert_eq!(
        (server.ping, server.ping_restart),
        (Some(Duration::from_secs(5)), Some(Duration::from_secs(30)))
    );
}

#[test]
fn the_first_log_counts() {
    let server = parsed("log-append a\nlog b\n");
    assert_eq!(server.log, Some(LogFile { path: "a".into(), append: true }));
}

#[test]
fn versions_of_tls_are_bounded_from_both_sides() {
    let versions = |text: &str| parsed(text).tls_versions;
    assert_eq!(versions(""), Versions::All);
    assert_eq!(versions("tls-version-min 1.2\n"), Versions::All);
    assert_eq!(versions("tls-version-min 1.3\n"), Versions::Only13);
    assert_eq!(versions("tls-version-max 1.2\n"), Versions::Only12);
    assert_eq!(versions("tls-version-min 1.2\ntls-version-max 1.2\n"), Versions::Only12);
    assert_eq!(versions("tls-version-min 1.4 or-highest\n"), Versions::Only13);
    assert_eq!(versions("tls-version-min 1.0\n"), Versions::All);
    assert_eq!(notes(&parsed("tls-version-max 1.1\n")).len(), 1);
    assert!(refused("tls-version-min 1.4").contains("1.2"));
    assert!(refused("tls-version-min 1.3\ntls-version-max 1.2").contains("no version is left"));
}

#[test]
fn old_ciphers_count_where_compat_mode_says_so() {
    let ciphers = |text: &str| {
        let server = parsed(text);
        (server.data_ciphers, server.fallback_cipher, server.notes.len())
    };
    let only = |cipher| vec![cipher];
    let lone = "data-ciphers AES-256-GCM\ncipher AES-128-GCM\n";
    assert_eq!(ciphers(lone), (only(Cipher::Aes256Gcm), None, 1));
    assert_eq!(ciphers(&format!("{lone}compat-mode 2.5.0\n")), (only(Cipher::Aes256Gcm), None, 1));
    let both = vec![Cipher::Aes256Gcm, Cipher::Aes128Gcm];
    assert_eq!(ciphers(&format!("compat-mode 2.4.7\n{lone}")), (both.clone(), None, 0));
    assert_eq!(ciphers(&format!("{lone}compat-mode 2.3.18\n")), (both, Some(Cipher::Aes128Gcm), 0));
    assert_eq!(parsed("data-ciphers-fallback AES-128-GCM\n").fallback_cipher, Some(Cipher::Aes128Gcm));
    assert_eq!(notes(&parsed("data-ciphers-fallback ROT13\n")).len(), 1);
    assert!(refused("compat-mode new").contains("not a version"));
}

#[test]
fn what_concerns_single_clients_is_read() {
    let server = parsed("client-config-dir ccd\nccd-exclusive\n");
    assert_eq!(server.client_files, Some(ClientFiles { directory: "ccd".into(), exclusive: true }));
    let error = parse(format!("{LEAST}ccd-exclusive\n").as_bytes(), Path::new("s")).unwrap_err();
    assert!(error.to_string().starts_with("s:9: `ccd-exclusive` stands without"), "{error}");
    let pooled = |text: &str| {
        let least = LEAST.replace("nogw", "10.0.0.5 255.255.255.0 10.0.0.100 10.0.0.200");
        parse(format!("{least}{text}").as_bytes(), Path::new("s")).unwrap().pool_file
    };
    let path = PathBuf::from("ipp.txt");
    let often = Some(Duration::from_secs(600));
    assert_eq!(
        pooled("ifconfig-pool-persist ipp.txt\n"),
        Some(PoolFile { path: path.clone(), interval: often })
    );
    assert_eq!(pooled("ifconfig-pool-persist ipp.txt 0\n"), Some(PoolFile { path, interval: None }));
    assert_eq!(pooled("ifconfig-pool-persist ipp.txt\nduplicate-cn\n"), None);
    assert_eq!(notes(&parsed("ifconfig-pool-persist ipp.txt\n")).len(), 1);
}

#[test]
fn pushed_options_keep_their_order_before_the_servers_own() {
    let text = LEAST.replace("nogw", "10.0.0.5 255.255.255.0 10.0.0.100 10.0.0.200");
    let text = format!(
        "{text}keepalive 1 2\npush \"route 10.1.0.0 255.255.0.0\"\npush \"dhcp-option DNS 10.0.0.2\"\n"
    );
    assert_eq!(
        parse(text.as_bytes(), Path::new("s")).unwrap().push,
        [
            "route 10.1.0.0 255.255.0.0",
            "dhcp-option DNS 10.0.0.2",
            "route-gateway 10.0.0.5",
            "ping 1",
            "ping-restart 2",
        ]
    );
}

#[test]
fn compression_is_pushed_per_client_and_never_as_it_stands() {
    let server = parsed("push \"compress lz4-v2\"\n");
    assert_eq!((server.compress, server.push.len()), (Compress::Lz4V2, 0));
}

#[test]
fn what_would_break_a_push_reply_is_refused() {
    assert!(refused("push \"route 1.2.3.4,peer-id 5\"").contains("comma"));
    assert!(refused("push \"peer-id 5\"").contains("pushed by the server itself"));
    assert!(refused("push \"\"").contains("lacks a word"));
    assert!(refused(&format!("push \"{}\"", "x".repeat(256))).contains("longer"));
}

#[test]
fn a_directive_with_dashes_and_a_zero_time_are_taken() {
    let server = parsed("--reneg-sec 0\nsndbuf 0\nrcvbuf 65536\nexplicit-exit-notify 2\n");
    assert_eq!((server.reneg, server.sndbuf_bytes, server.rcvbuf_bytes), (None, None, Some(65_536)));
    assert_eq!(server.exit_notify, Some(ExitNotify::NextRemote));
}

#[test]
fn long_and_odd_words_are_shown_short_and_plain() {
    let error = refused(&format!("{}\u{1b}[31m", "x".repeat(500)));
    assert!(error.len() < 200 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn second_words_are_checked_too() {
    assert!(refused("reneg-sec 3600 soon").contains("`soon` of `reneg-sec`"));
    assert!(refused("stale-routes-check 60 soon").contains("not a number"));
    assert!(refused("tls-version-min 1.2 or-else").contains("or-highest"));
    let server = parsed("reneg-sec 60 30\nstale-routes-check 600 60\n");
    assert_eq!(
        (server.reneg, server.ageing),
        (Some(Duration::from_secs(60)), Some(Duration::from_secs(600)))
    );
}

#[test]
fn an_inline_key_is_never_printed() {
    let text = "mode server\ndev tap\nca a\ncert b\n<key>\nsecret\n</key>\n";
    let server = parse(text.as_bytes(), Path::new("s")).unwrap();
    assert!(!format!("{server:?}").contains("secret"));
    let lines = lexer::lines(text.as_bytes(), Path::new("s")).unwrap();
    assert!(!format!("{lines:?}").contains("secret"));
}

/// A byte of the reference file changed, removed or doubled.
fn mutate(mut bytes: Vec<u8>, edits: &[(usize, u8, u8)]) -> Vec<u8> {
    for &(at, what, byte) in edits {
        let at = at % bytes.len();
        match what % 3 {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = parse(&bytes, Path::new("s"));
    }

    #[test]
    fn a_damaged_file_never_panics(edits in proptest::collection::vec(any::<(usize, u8, u8)>(), 1..20)) {
        let _ = parse(&mutate(REFERENCE.to_vec(), &edits), Path::new("s"));
    }

    #[test]
    fn known_words_with_odd_ones_behind_never_panic(
        at in 0..table::DIRECTIVES.len(),
        words in proptest::collection::vec("[ -~]{0,12}", 0..5),
    ) {
        let quoted: String = words.iter().map(|word| format!(" '{}'", word.replace('\'', ""))).collect();
        let text = format!("{LEAST}{}{quoted}\n", table::DIRECTIVES[at].0);
        if let Err(error) = parse(text.as_bytes(), Path::new("s")) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

#[test]
fn no_directive_is_silently_ignored() {
    for (name, class) in table::DIRECTIVES {
        let named = format!("`{name}`");
        match class {
            Class::Accepted(because) => {
                let said = notes(&parsed(name)).into_iter().filter(|note| note.contains(&named));
                let said: Vec<String> = said.collect();
                assert!(
                    said.len() == 1 && said[0].contains(because) && !because.is_empty(),
                    "{name}: {said:?}"
                );
            }
            Class::NotYet(_) | Class::Refused(..) => {
                let error = refused(name);
                assert!(error.starts_with("s.conf:1: ") && error.contains(&named), "{name}: {error}");
            }
            Class::Done(..) => {}
        }
    }
}
