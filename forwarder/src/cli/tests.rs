use std::{path::Path, sync::Arc, time::Duration};

use clap::CommandFactory;

use super::*;
use crate::config::{Datapath, UplinkMode, XdpMode};

fn run_args(words: &[&str]) -> run::RunArgs {
    match Cli::try_parse_from(["trestle", "run"].iter().chain(words)).unwrap().command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

/// The sentence `trestle run` fails with before the host is touched.
fn refused(words: &[&str]) -> String {
    run::configure(run_args(words)).unwrap_err().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn what_is_not_there_yet_is_refused_in_one_sentence() {
    assert!(refused(&["s.conf", "--config", "t.toml"]).starts_with("--config names whole segments"));
    assert!(refused(&["s.conf", "--uplink", "a", "--uplink", "b"]).starts_with("a second --uplink"));
    assert_eq!(
        refused(&["s.conf", "--uplink", "ens5:macnat"]),
        "--uplink ens5:macnat comes later; on a cloud's NIC write --uplink ens5:underlay"
    );
}

#[test]
fn a_bridge_alone_is_accelerated() {
    let (config, notes) = run::configure(run_args(&["--bridge", "br0"])).unwrap();
    assert!(matches!(config.role, config::Role::Accelerator));
    assert_eq!((config.bridge.as_deref(), config.uplink), (Some("br0"), None));
    assert_eq!((config.server.listeners, notes), (Vec::new(), Vec::new()));
}

#[test]
fn what_an_accelerator_has_not_is_refused_in_one_sentence() {
    let cases: [(&[&str], &str); 7] = [
        (&["--uplink", "ens5"], "--uplink names the NIC of a tunnel"),
        (&["--workers", "2"], "--workers and --cpus have no meaning"),
        (&["--cpus", "1"], "--workers and --cpus have no meaning"),
        (&["--datapath", "socket"], "--datapath socket leaves nothing"),
        (&["--xdp", "generic"], "generic XDP is no faster"),
        (&["--ageing", "5"], "the bridge's own ageing time holds"),
        (&["--config", "t.toml"], "--config names whole segments"),
    ];
    for (words, start) in cases {
        let words = [&["--bridge", "br0"], words].concat();
        assert!(refused(&words).starts_with(start), "{words:?}: {}", refused(&words));
    }
    for name in ["", "a-name-of-16-byte", "br 0", "br/0", ".."] {
        assert!(refused(&["--bridge", name]).contains("cannot be a bridge's name"), "{name}");
    }
}

#[test]
fn wrong_words_on_the_command_line_are_named() {
    assert!(refused(&[]).starts_with("no configuration is named"));
    assert!(refused(&["s.conf", "--uplink", "ens5:bond"]).contains("does not know the mode `bond`"));
    assert!(refused(&["s.conf", "--uplink", ":bridge"]).contains("cannot be a NIC's name"));
    for list in ["x", "3-1", "1,,2", "0-99999", "-"] {
        let cpus = format!("--cpus={list}");
        assert!(refused(&["s.conf", &cpus]).contains("is not a list of CPUs"), "{list}");
    }
    for words in [&["--workers", "0"][..], &["--datapath", "x"], &["--ageing", "0"], &["--frob"]] {
        let words = ["trestle", "run", "s.conf"].iter().chain(words);
        assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2);
    }
}

#[test]
fn a_missing_configuration_is_named() {
    assert_eq!(
        refused(&["/nonexistent/s.conf"]),
        "/nonexistent/s.conf: the configuration cannot be read: No such file or directory; \
         name an OpenVPN server configuration: `trestle run server.conf`"
    );
}

/// The reference file with certificates beside it.
fn reference(directory: &Path) -> String {
    std::fs::create_dir_all(directory).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("server.conf", include_str!("../config/testdata/reference-server.conf"));
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = ca.self_signed(&key).unwrap();
    write("ca.crt", &ca.pem());
    write("server.crt", &ca.pem());
    write("server.key", &key.serialize_pem());
    directory.join("server.conf").display().to_string()
}

#[test]
fn the_reference_deployment_becomes_a_configuration() {
    let directory = std::env::temp_dir().join(format!("trestle-cli-{}", std::process::id()));
    let file = reference(&directory);
    let words =
        [&file, "--uplink", "ens5:underlay", "--cpus", "2,0-1", "--datapath", "af-xdp", "--xdp", "generic"];
    let (config, notes) = run::configure(run_args(&words)).unwrap();
    let (defaults, _) = run::configure(run_args(&[&file, "--uplink", "ens5"])).unwrap();
    let (aged, _) = run::configure(run_args(&[&file, "--ageing", "5"])).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let uplink = config.uplink.unwrap();
    assert_eq!((uplink.nic.as_str(), uplink.mode), ("ens5", UplinkMode::Underlay));
    assert_eq!(config.cpus, [2, 0, 1]);
    assert_eq!((config.datapath, config.xdp), (Datapath::AfXdp, XdpMode::Generic));
    assert!(notes.iter().any(|note| note.text.contains("10.10.21.255")));
    assert_eq!(defaults.uplink.as_ref().map(|uplink| uplink.mode), Some(UplinkMode::Bridge));
    assert_eq!(defaults.ageing, Duration::from_secs(300));
    assert_eq!((aged.ageing, aged.uplink), (Duration::from_secs(5), None));
    let config::Role::Server { tls, wrappings, .. } = &defaults.role else { panic!("{:?}", defaults.role) };
    let protocol = config::protocol::protocol(&defaults.server, Arc::clone(tls), wrappings.clone());
    assert_eq!(protocol.ping_restart, Some(Duration::from_secs(240)));
    assert_eq!(protocol.max_clients, 1024);
}

#[test]
fn without_a_gateway_a_question_says_how_to_start_one() {
    let path = Path::new("/nonexistent/control.sock");
    let error = ask::ask(path, crate::management::status::Request::Status).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no gateway is running with the control socket /nonexistent/control.sock; \
         start one with `trestle run SERVER.CONF`, or name its socket by --control"
    );
}

#[test]
fn a_question_gets_its_answer_over_the_socket() {
    use std::io::{BufRead, BufReader, Write};
    let path = std::env::temp_dir().join(format!("trestle-ask-{}", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let gateway = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(b"{\"peers\":[]}\n").unwrap();
        line
    });
    let answer = ask::ask(&path, crate::management::status::Request::Peers).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((answer.as_str(), gateway.join().unwrap().as_str()), ("{\"peers\":[]}", "peers\n"));
}
