use proptest::prelude::*;

use super::*;
use crate::config::table::{DIRECTIVES as SERVERS, class};

/// The least a client's file holds.
const LEAST: &str = "dev tap\nremote vpn.example.com\n<ca>\n</ca>\n<cert>\n</cert>\n<key>\n</key>\n";
/// The reference deployment's profile, certificates left out.
const REFERENCE: &str = "client\ndev tap0\nproto udp\nremote SERVER_ADDRESS 443\nresolv-retry infinite\nnobind\n\
     persist-key\npersist-tun\nremote-cert-tls server\ncipher AES-256-GCM\nverb 3\n\
     <ca>\n...\n</ca>\ncert client.crt\nkey client.key\n";

fn read(text: &str) -> Result<Client, Error> {
    parse(text.as_bytes(), Path::new("c.ovpn"))
}

fn parsed(text: &str) -> Client {
    read(&format!("{LEAST}{text}")).unwrap()
}

fn refused(text: &str) -> String {
    read(&format!("{text}\n{LEAST}")).unwrap_err().to_string()
}

fn remotes(client: &Client) -> Vec<String> {
    client.remotes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_reference_profile_is_taken_as_it_stands() {
    let client = read(REFERENCE).unwrap();
    assert_eq!(remotes(&client), ["SERVER_ADDRESS:443"]);
    assert_eq!((client.common.device.as_deref(), client.common.listeners[0].port), (Some("tap0"), 0));
    assert!(client.require_server_usage);
    assert_eq!(client.retry, (Duration::from_secs(1), Duration::from_secs(300)));
    assert_eq!((client.ping, client.ping_restart), (None, Some(Duration::from_secs(120))));
    assert_eq!(client.answer_timeout, Duration::from_secs(120));
    assert!(client.common.notes.iter().all(|note| note.level == Level::Info), "{:?}", client.common.notes);
}

#[test]
fn a_profile_that_checks_nothing_of_the_server_is_warned_of() {
    let warned = |text: &str| parsed(text).common.notes.iter().any(|note| note.level == Level::Warning);
    assert!(warned(""));
    assert!(!warned("remote-cert-tls server"));
    assert!(!warned("verify-x509-name server name"));
}

#[test]
fn remotes_keep_their_order_and_take_the_common_port() {
    let text =
        "remote b 443 udp\n<connection>\nremote 192.0.2.1\nport 53\n</connection>\nremote ::1 7\nrport 4000";
    assert_eq!(remotes(&parsed(text)), ["vpn.example.com:4000", "b:443", "192.0.2.1:53", "[::1]:7"]);
    assert_eq!(remotes(&parsed("port 5000")), ["vpn.example.com:5000"]);
    assert_eq!(remotes(&parsed("")), ["vpn.example.com:1194"]);
}

#[test]
fn our_own_port_is_any_unless_one_is_named() {
    let port = |text: &str| parsed(text).common.listeners[0].port;
    assert_eq!([port(""), port("port 5000"), port("lport 6000"), port("lport 0")], [0, 5000, 6000, 0]);
    assert_eq!(port("port 5000\nnobind"), 0);
    assert_eq!(port("local 192.0.2.7 1195"), 1195);
}

#[test]
fn times_are_the_files_own_where_it_has_them() {
    let seconds = Duration::from_secs;
    let client = parsed("keepalive 5 30\nconnect-retry 2 9\nserver-poll-timeout 4\nconnect-retry-max 3");
    assert_eq!((client.ping, client.ping_restart), (Some(seconds(5)), Some(seconds(30))));
    assert_eq!((client.retry, client.answer_timeout), ((seconds(2), seconds(9)), seconds(4)));
    assert_eq!(client.attempts, Some(3));
    assert_eq!(parsed("connect-retry-max 0").attempts, None);
    assert_eq!(parsed("ping-restart 0").ping_restart, None);
    let client = parsed("ping-exit 9");
    assert_eq!((client.ping_restart, client.exit_on_silence), (Some(seconds(9)), true));
}

#[test]
fn what_cannot_be_is_refused_with_its_place_and_cure() {
    let cases = [
        ("remote", "`remote` has 0 words behind it"),
        ("remote a 0", "c.ovpn:1: `0` of `remote` is not a number"),
        ("remote a 1 tcp", "TCP comes later"),
        ("proto udp6", "IPv6 outside comes later"),
        ("<connection>\nport 1\n</connection>", "names no `remote`"),
        ("<connection>\nremote a\nverb 3\n</connection>", "c.ovpn:3: `verb` is not known within"),
        ("connection x", "is a block"),
        ("server-bridge", "a server's directive stands in a client's file"),
        ("mode server", "the file is a server's"),
        ("auth-user-pass", "`auth-user-pass` comes later"),
        ("remote-cert-tls client", "`remote-cert-tls server` in a client's file"),
        ("pull-filter drop route", "`accept`, `ignore` or `reject`"),
        ("verify-x509-name a b", "`name-prefix`"),
        ("remot a", "perhaps `remote` is meant"),
    ];
    for (text, words) in cases {
        let error = refused(text);
        assert!(error.contains(words), "{text:?}: {error}");
    }
    let parse_dev = |line: &str| read(&LEAST.replace("dev tap", line)).unwrap_err().to_string();
    let least_without = |line: &str| read(&LEAST.replace(line, "")).unwrap_err().to_string();
    assert!(least_without("remote vpn.example.com\n").contains("`remote` is missing"));
    assert!(parse_dev("dev tun").contains("`dev tun` carries IP packets"));
    assert!(least_without("<key>\n</key>\n").contains("this client's private key"));
}

#[test]
fn more_remotes_than_upstream_takes_are_refused() {
    assert!(refused(&"remote a\n".repeat(65)).contains("more than 64 remotes"));
}

#[test]
fn a_name_rule_admits_whom_it_means() {
    let (subject, name) = ("C=DE, O=Studio, CN=server-1", "server-1");
    let admits = |rule: NameRule| rule.admits(subject, name);
    assert!(admits(NameRule::Subject(subject.into())) && !admits(NameRule::Subject(name.into())));
    assert!(admits(NameRule::CommonName(name.into())) && !admits(NameRule::CommonName("server".into())));
    assert!(admits(NameRule::Prefix("server-".into())) && !admits(NameRule::Prefix("client".into())));
}

#[test]
fn every_directive_of_the_manual_has_a_class_in_a_clients_file_and_stands_once() {
    let manual = include_str!("../testdata/directives-2.7.txt").lines().filter(|line| !line.starts_with('#'));
    for name in manual.chain(SERVERS.iter().map(|&(name, _)| name)) {
        assert!(class(table::DIRECTIVES, name).is_some(), "{name}");
    }
    for (at, (name, _)) in table::DIRECTIVES.iter().enumerate() {
        assert!(table::DIRECTIVES[..at].iter().all(|(other, _)| other != name), "{name} stands twice");
    }
}

proptest! {
    #[test]
    fn whatever_a_file_holds_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes, Path::new("c.ovpn"));
    }

    #[test]
    fn whatever_stands_behind_a_directive_is_read_or_refused(
        at in 0..table::DIRECTIVES.len(),
        words in "[ -~]{0,60}",
    ) {
        let (name, _) = table::DIRECTIVES[at];
        let _ = read(&format!("{LEAST}{name} {words}\n<{name}>\n{words}\n</{name}>\n"));
    }
}
