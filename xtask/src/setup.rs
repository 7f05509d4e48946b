use std::process::Command;

use crate::stage::must;

/// What building needs, beside a Rust toolchain (libbpf and AWS-LC are C).
const BUILD: &[&str] =
    &["build-essential", "clang", "cmake", "libclang-dev", "libelf-dev", "m4", "pkg-config", "zlib1g-dev"];
/// What the end-to-end tests and the demo need.
const RUN: &[&str] = &[
    "bpftool",
    "ethtool",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "nftables",
    "openssl",
    "openvpn",
    "procps",
    "util-linux",
];

/// Installs the packages that are missing, and says which.
pub fn run() -> Result<(), String> {
    install(&[BUILD, RUN].concat())
}

/// Installs those of `packages` that are missing, and says which.
///
/// Without root, or where there is no apt, the error says what to install.
pub fn install(packages: &[&str]) -> Result<(), String> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        println!("all packages are there");
        return Ok(());
    }
    println!("missing packages: {}", missing.join(" "));
    if !trestle_tests::site::is_root() {
        return Err(format!("installing packages needs root: `sudo apt-get install {}`", missing.join(" ")));
    }
    must(apt().arg("update"))?;
    must(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let list = packages.join(" ");
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${Status}\n"])
        .args(packages)
        .output();
    let known = query
        .map_err(|e| format!("this is no Debian or Ubuntu ({e}); install what corresponds to: {list}"))?;
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let there = |package: &str| {
        known.lines().any(|line| line.split_once(' ') == Some((package, "install ok installed")))
    };
    Ok(packages.iter().copied().filter(|package| !there(package)).collect())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    command
}
