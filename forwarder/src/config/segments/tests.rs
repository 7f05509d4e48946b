use super::*;

const WHOLE: &str = r#"# two of them
[segment.office]
uplink = "ens5:underlay"
server = ["udp.conf", "/etc/openvpn/tcp.conf"]
workers = 2
cpus = "0,2-3"
datapath = "af-xdp"
xdp = "native"
ageing = 60
verb = 4

[segment.office.guards]
broadcast = 2_000
multicast = "off"
mac-limit = 5
loop-guard = false

[segment.lab]
bridge = "br0"
"#;

fn parsed(text: &str) -> Result<Segments, String> {
    parse(text.as_bytes(), Path::new("/etc/trestle/t.toml")).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, words: &str) {
    let error = parsed(text).unwrap_err();
    assert!(error.starts_with("/etc/trestle/t.toml") && error.contains(words), "{error}");
}

#[test]
fn everything_a_segment_can_say_is_read() {
    let segments = parsed(WHOLE).unwrap().segments;
    assert_eq!(segments.keys().collect::<Vec<_>>(), ["lab", "office"]);
    let office = &segments["office"];
    assert_eq!((office.line, office.uplink.as_deref()), (2, Some("ens5:underlay")));
    let servers = ["/etc/trestle/udp.conf", "/etc/openvpn/tcp.conf"].map(PathBuf::from);
    assert_eq!(office.servers, servers);
    assert_eq!((office.workers.map(usize::from), office.cpus.as_deref()), (Some(2), Some("0,2-3")));
    assert_eq!((office.datapath, office.xdp), (Datapath::AfXdp, XdpMode::Native));
    assert_eq!((office.ageing, office.verb), (Some(60), Some(4)));
    let guards = office.guards;
    assert_eq!(guards.broadcast.map(u32::from), Some(2000));
    assert_eq!(
        (guards.multicast, guards.mac_limit.map(u32::from), guards.loop_guard),
        (None, Some(5), false)
    );
    let lab = &segments["lab"];
    assert_eq!((lab.line, lab.bridge.as_deref(), &lab.servers[..]), (18, Some("br0"), &[][..]));
    assert_eq!((lab.guards, lab.datapath), (Guards::default(), Datapath::Auto));
}

#[test]
fn one_server_needs_no_list() {
    let segments = parsed("segment.a = { server = 's.conf' }").unwrap().segments;
    assert_eq!(segments["a"].servers, [PathBuf::from("/etc/trestle/s.conf")]);
}

#[test]
fn an_unknown_key_is_refused_at_its_line_with_the_nearest_known_one() {
    refused("\n[segments.a]\n", "t.toml:2: `segments` is unknown; perhaps `segment` is meant");
    refused(
        "[segment.a]\nbrigde = \"br0\"\n",
        "t.toml:2: `segment.a.brigde` is unknown; perhaps `bridge` is meant",
    );
    let text = "[segment.a]\nbridge = \"br0\"\n[segment.a.guards]\nloop_guard = true\n";
    refused(text, "t.toml:4: `segment.a.guards.loop_guard` is unknown; perhaps `loop-guard` is meant");
    refused("[segment.a]\nxyzzy = 1\n", "`segment.a.xyzzy` is unknown; write one of uplink, bridge, server");
}

#[test]
fn what_is_not_toml_names_its_line() {
    refused("[segment.a]\nbridge = br0\n", "t.toml:2: this is not TOML");
    refused("[segment.a]\nbridge = 'x'\nbridge = 'y'\n", "t.toml:3: this is not TOML");
    assert!(parse(b"\xff", Path::new("t")).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn a_wrong_value_says_what_to_write() {
    let with = |line: &str| format!("[segment.a]\nserver = 's'\n{line}\n");
    refused(
        &with("workers = 0"),
        "t.toml:3: `segment.a.workers` is not what it can be; write a number from 1 to",
    );
    refused(&with("workers = -1"), "write a number from 1");
    refused(&with("ageing = 1.5"), "write a number from 1");
    refused(&with("verb = 12"), "write a number from 0 to 11");
    refused(&with("uplink = 5"), "write a text in quotes");
    refused(&with("datapath = 'xdp'"), "write one of \"auto\", \"af-xdp\", \"socket\"");
    refused(&with("guards = 5"), "`segment.a.guards` is not a table; write `[segment.a.guards]`");
    refused(&with("guards.broadcast = 0"), "write a number from 1, or \"off\"");
    refused(&with("guards.loop-guard = 'on'"), "write `true` or `false`");
    refused("[segment.a]\nserver = ['x', 5]\n", "write a text in quotes, or a list of at most 16");
    refused("[segment.a]\nserver = ['x', 'x']\n", "t.toml:2: `server` names /etc/trestle/x twice");
    refused("segment = 5\n", "`segment` is not a table");
    refused(
        "[[segment]]\nname = 'a'\n",
        "`segment` is not a table; write `[segment.NAME]` and its keys below",
    );
}

#[test]
fn a_segment_has_a_plain_name_and_something_to_do() {
    refused("[segment.'a b']\nbridge = 'x'\n", "`a b` cannot be a segment's name");
    refused("[segment.control]\nbridge = 'x'\n", "`control` cannot be a segment's name");
    refused(&format!("[segment.{}]\nbridge = 'x'\n", "a".repeat(33)), "cannot be a segment's name");
    refused("\n[segment.a]\nuplink = 'ens5'\n", "t.toml:2: segment `a` has neither `server` nor `bridge`");
    refused("", "t.toml: the file names no segment");
    let many: String = (0..65).map(|n| format!("[segment.s{n}]\nbridge = 'br{n}'\n")).collect();
    refused(&many, "more than 64 segments");
}
