//! A start that cannot succeed: one sentence that names the cause, exit code 1, nothing half-attached.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use trestle_tests::gateway::{Mode, SERVER_CONF, Start, refused};
use trestle_tests::network::{GATEWAY, Layout, NIC};
use trestle_tests::process::run;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::host_safety::traces;
use crate::stations::config_with;

pub const SUITE: Suite = Suite {
    name: "bad_start",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout { agents: 0, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        an_unknown_directive_is_named_with_its_line,
        a_missing_server_conf_is_named,
        a_missing_file_is_named_with_its_line,
        a_certificate_of_version_1_is_refused,
        a_certificate_signed_with_sha1_is_refused,
        a_certificate_with_a_short_rsa_key_is_refused,
        a_key_of_another_certificate_is_refused,
        a_nic_that_does_not_exist_is_named,
        an_mtu_above_what_xdp_takes_is_refused,
        a_port_in_use_is_named,
        missing_privileges_are_named,
        another_xdp_program_on_the_nic_is_respected,
    ],
};

fn an_unknown_directive_is_named_with_its_line(site: &mut Site) -> Result<()> {
    refuses(site, &config_with("no-such-directive 1"), &[], &["server.conf:23", "no-such-directive"])
}

fn a_missing_server_conf_is_named(site: &mut Site) -> Result<()> {
    let host = &site.network.gateway;
    let before = traces(host)?;
    let said = refused(host, site.folder(), &["nowhere.conf", "--uplink", NIC])?;
    assert_sentence(&said, &["nowhere.conf"]);
    assert_eq!(traces(host)?, before);
    Ok(())
}

fn a_missing_file_is_named_with_its_line(site: &mut Site) -> Result<()> {
    let config = SERVER_CONF.replace("ca ca.crt", "ca nowhere.crt");
    refuses(site, &config, &[], &["server.conf:4", "nowhere.crt"])
}

fn a_certificate_of_version_1_is_refused(site: &mut Site) -> Result<()> {
    refuses_certificate(site, "rsa:2048", &["-sha256"], &["server.crt", "v1|version 1|X.509 v1"])
}

fn a_certificate_signed_with_sha1_is_refused(site: &mut Site) -> Result<()> {
    refuses_certificate(site, "rsa:2048", &["-sha1", "-extfile", "extensions"], &["server.crt", "SHA-1|SHA1"])
}

fn a_certificate_with_a_short_rsa_key_is_refused(site: &mut Site) -> Result<()> {
    refuses_certificate(
        site,
        "rsa:1024",
        &["-sha256", "-extfile", "extensions"],
        &["server.crt", "1024", "2048"],
    )
}

fn a_key_of_another_certificate_is_refused(site: &mut Site) -> Result<()> {
    let folder = copy_of_files(site, "another-key")?;
    let other = site.pki.issue("server", trestle_tests::pki::Purpose::Server)?;
    fs::write(folder.join("server.key"), other.key).map_err(Fault::io("writing a key"))?;
    refuses_in(site, &folder, SERVER_CONF, &[], &["server.key"])
}

fn a_nic_that_does_not_exist_is_named(site: &mut Site) -> Result<()> {
    let host = &site.network.gateway;
    let before = traces(host)?;
    let said =
        refused(host, site.folder(), &[&server_conf(site.folder(), SERVER_CONF)?, "--uplink", "nosuch0"])?;
    assert_sentence(&said, &["nosuch0"]);
    assert_eq!(traces(host)?, before);
    Ok(())
}

fn an_mtu_above_what_xdp_takes_is_refused(site: &mut Site) -> Result<()> {
    site.network.gateway.ip(&format!("link set {NIC} mtu 9000"))?;
    let verdict =
        refuses(site, SERVER_CONF, &["--datapath", "af-xdp", "--xdp", "native"], &["9000", "MTU|mtu"]);
    site.network.gateway.ip(&format!("link set {NIC} mtu 1500"))?;
    verdict
}

fn a_port_in_use_is_named(site: &mut Site) -> Result<()> {
    let taken = site.network.gateway.within(|| UdpSocket::bind((GATEWAY, 443)))?;
    let _taken = taken.map_err(Fault::io("taking port 443"))?;
    refuses(site, SERVER_CONF, &[], &["443", "in use"])
}

fn missing_privileges_are_named(site: &mut Site) -> Result<()> {
    let host = &site.network.gateway;
    let before = traces(host)?;
    let binary = trestle_tests::gateway::binary()?;
    let config = server_conf(site.folder(), SERVER_CONF)?;
    let mut command = host.command("setpriv");
    command.args(["--reuid=nobody", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    // A copy: nobody may not enter every folder on the way to the binary.
    let copy = site.folder().join("trestle");
    fs::copy(&binary, &copy).map_err(Fault::io("copying the binary"))?;
    command.arg(&copy).args(["run", &config, "--uplink", NIC]).current_dir(site.folder());
    make_readable(site.folder())?;
    let said = trestle_tests::process::output(&mut command, 20)?;
    assert_sentence(&said, &["root|privilege|CAP_NET_ADMIN"]);
    assert_eq!(traces(host)?, before);
    Ok(())
}

fn another_xdp_program_on_the_nic_is_respected(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    let config = SERVER_CONF.replace("port 443", "port 444").replace("dev tap0", "dev tap1");
    for xdp in ["native", "generic", "auto"] {
        refuses(site, &config, &["--datapath", "af-xdp", "--xdp", xdp], &["XDP", NIC])?;
    }
    site.gateway()?.status()?;
    site.gateway()?.stop()?;
    Ok(())
}

/// Starts the gateway with `config`, and checks its refusal and that it left nothing.
fn refuses(site: &Site, config: &str, arguments: &[&str], words: &[&str]) -> Result<()> {
    refuses_in(site, site.folder(), config, arguments, words)
}

fn refuses_in(site: &Site, folder: &Path, config: &str, arguments: &[&str], words: &[&str]) -> Result<()> {
    let host = &site.network.gateway;
    let before = traces(host)?;
    let config = server_conf(folder, config)?;
    let all = [&[config.as_str(), "--uplink", NIC], arguments].concat();
    assert_sentence(&refused(host, folder, &all)?, words);
    assert_eq!(traces(host)?, before, "a refused start leaves something behind");
    Ok(())
}

/// Exit code 1 and, as the last thing said, a sentence with all of `words`; `|` separates alternatives.
fn assert_sentence(said: &trestle_tests::process::Output, words: &[&str]) {
    let all = format!("{}{}", said.stdout, said.stderr);
    assert_eq!(said.code, Some(1), "exit code; it said: {all}");
    assert!(!all.contains("panicked"), "{all}");
    let sentence = all.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    for word in words {
        assert!(
            word.split('|').any(|word| sentence.contains(word)),
            "{word:?} is missing in: {sentence:?} of: {all}"
        );
    }
}

/// Gives the server a certificate made by openssl, and expects its refusal.
fn refuses_certificate(site: &Site, key: &str, signing: &[&str], words: &[&str]) -> Result<()> {
    let name = format!("certificate{}", signing.join("-").replace(':', ""));
    let folder = copy_of_files(site, &(name + &key.replace(':', "")))?;
    fs::write(folder.join("extensions"), "extendedKeyUsage=serverAuth\n")
        .map_err(Fault::io("writing extensions"))?;
    let make = |arguments: &[&str]| run(Command::new("openssl").args(arguments).current_dir(&folder), 60);
    let (new_key, request) = (["-newkey", key, "-nodes"], ["-keyout", "server.key", "-out", "server.csr"]);
    make(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=Old CA",
    ])?;
    make(&[&["req"][..], &new_key, &request, &["-subj", "/CN=server"]].concat())?;
    let sign =
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-out", "server.crt"];
    make(&[&sign[..], signing].concat())?;
    refuses_in(site, &folder, SERVER_CONF, &[], words)
}

/// A folder of its own with copies of what `server.conf` names.
fn copy_of_files(site: &Site, name: &str) -> Result<PathBuf> {
    let folder = site.folder().join(name);
    fs::create_dir_all(&folder).map_err(Fault::io(format!("creating {}", folder.display())))?;
    for file in ["ca.crt", "server.crt", "server.key", "dh2048.pem"] {
        fs::copy(site.folder().join(file), folder.join(file))
            .map_err(Fault::io(format!("copying {file}")))?;
    }
    Ok(folder)
}

fn server_conf(folder: &Path, config: &str) -> Result<String> {
    fs::write(folder.join("server.conf"), config).map_err(Fault::io("writing server.conf"))?;
    Ok("server.conf".to_owned())
}

fn make_readable(folder: &Path) -> Result<()> {
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder), 10).map(drop)
}
