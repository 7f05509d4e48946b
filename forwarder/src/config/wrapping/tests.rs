use std::{fs, path::Path};

use super::*;
use crate::config;

const LEAST: &str = "dev tap\nserver-bridge nogw\n<ca>\n</ca>\n<cert>\n</cert>\n<key>\n</key>\n";
const HEAD: &str = "-----BEGIN OpenVPN Static key V1-----";
const FOOT: &str = "-----END OpenVPN Static key V1-----";

fn key_text(bytes: usize) -> String {
    format!("{HEAD}\n{}\n{FOOT}\n", "5a".repeat(bytes))
}

fn parsed(text: &str) -> Server {
    config::parse(format!("{text}\n{LEAST}").as_bytes(), Path::new("s.conf")).unwrap()
}

fn loaded(text: &str) -> Result<Wrappings, String> {
    load(&parsed(text)).map(|(wrappings, _)| wrappings).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    config::parse(format!("{text}\n{LEAST}").as_bytes(), Path::new("s.conf")).unwrap_err().to_string()
}

fn block(name: &str, text: &str) -> String {
    format!("<{name}>\n{text}</{name}>\n")
}

/// A folder of the test's own, removed with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trestle-wrapping-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn each_directive_leads_to_its_wrapping() {
    let key = key_text(256);
    assert!(!loaded("").unwrap().are_wanted());
    assert!(matches!(loaded(&block("tls-auth", &key)).unwrap().shared, Wrapping::Auth(_)));
    assert!(matches!(loaded(&block("tls-crypt", &key)).unwrap().shared, Wrapping::Crypt(_)));
    let server_key = include_str!("../../../openvpn/tests/data/tls_crypt_v2_server.key");
    let both = loaded(&format!("{}{}", block("tls-crypt", &key), block("tls-crypt-v2", server_key))).unwrap();
    assert!(matches!(both.shared, Wrapping::Crypt(_)) && both.own.is_some_and(|own| !own.force_cookie));
}

#[test]
fn the_direction_may_stand_behind_the_file_or_alone() {
    let direction = |text: &str| parsed(text).wrapping.direction;
    assert_eq!(direction("tls-auth ta.key"), None);
    assert_eq!(direction("tls-auth ta.key 0"), Some(Direction::Zero));
    assert_eq!(direction("tls-auth ta.key\nkey-direction 1"), Some(Direction::One));
    assert_eq!(direction("key-direction 1\ntls-auth ta.key 0"), Some(Direction::Zero));
    assert!(refused("tls-auth ta.key 2").contains("`tls-auth` does not take `2`"));
    assert!(refused("key-direction bidirectional").contains("key-direction"));
}

#[test]
fn what_stands_behind_tls_crypt_v2_and_its_age_is_read() {
    let files = parsed("tls-crypt-v2 v2.key force-cookie\ntls-crypt-v2-max-age 7").wrapping;
    assert_eq!((files.force_cookie, files.max_age), (true, Some(Duration::from_secs(7 * 86_400))));
    assert!(!parsed("tls-crypt-v2 v2.key allow-noncookie").wrapping.force_cookie);
    assert!(refused("tls-crypt-v2 v2.key cookies").contains("force-cookie"));
    assert!(refused("tls-crypt-v2-max-age 0").contains("not a number it can have"));
}

#[test]
fn tls_auth_and_tls_crypt_exclude_one_another() {
    let key = key_text(256);
    let said = loaded(&format!("{}{}", block("tls-auth", &key), block("tls-crypt", &key))).unwrap_err();
    assert!(said.contains("exclude one another"), "{said}");
}

#[test]
fn a_key_that_cannot_be_used_is_named_with_its_cure() {
    let said = loaded(&block("tls-crypt", &key_text(128))).unwrap_err();
    assert_eq!(
        said,
        "s.conf:1: the block <tls-crypt> holds a key of 128 bytes where 256 belong; name the file that `openvpn \
         --genkey secret FILE` wrote, the same as OpenVPN used"
    );
    let said = loaded(&block("tls-crypt-v2", &key_text(256))).unwrap_err();
    assert!(
        said.contains("tls-crypt-v2 server key") && said.contains("--genkey tls-crypt-v2-server"),
        "{said}"
    );
    let said = loaded("tls-auth /nowhere/ta.key 0").unwrap_err();
    assert!(said.contains("/nowhere/ta.key"), "{said}");
}

#[test]
fn a_secret_file_that_others_may_read_is_told() {
    let folder = Folder::new("open");
    let path = folder.0.join("ta.key");
    fs::write(&path, key_text(256)).unwrap();
    let notes = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (_, notes) = load(&parsed(&format!("tls-auth {} 0", path.display()))).unwrap();
        notes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(notes(0o600), Vec::<String>::new());
    for mode in [0o640, 0o604, 0o622] {
        let notes = notes(mode);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("s.conf:1: `tls-auth` ") && notes[0].contains("chmod go="), "{notes:?}");
    }
}
