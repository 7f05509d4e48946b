//! Builds `ebpf/` into the objects that are kept in the tree: the gateway's `ebpf/trestle.bpf.o`, and
//! `ebpf/bench.bpf.o` of the ruler.
//!
//! Two roads lead there. The pinned one, Debian's rustc-web with its prebuilt `core` for BPF, gives the same bytes on
//! every machine: the kept objects are built by it, and `--check` compares. The other, nightly with rust-src, is aya's
//! usual one; its object differs in its bytes, and is judged by the verdict tests.
//!
//! What else could vary is pinned or removed: dependencies by `ebpf/Cargo.lock`, this checkout's and the registry's
//! paths by remapping, DWARF by stripping (loaders read BTF only).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";
/// The kept objects, and the program in `ebpf/` that each is made of.
const OBJECTS: &[(&str, &str)] = &[("ebpf/trestle.bpf.o", "trestle"), ("ebpf/bench.bpf.o", "bench")];

const RUSTC: &str = "/usr/bin/rustc";
const RUSTC_VERSION: &str = "rustc 1.96.0 ";
const LINKER_VERSION: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";
const PACKAGES: &[&str] =
    &["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev"];

/// Which compiler is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Toolchain {
    /// The one the kept object is built with.
    Pinned,
    /// rustup's nightly with rust-src.
    Nightly,
}

/// Builds the objects with whichever toolchain there is, and keeps them. With `check`: builds them with the pinned one,
/// and compares them with the kept ones, which stay.
///
/// # Errors
///
/// A sentence: no toolchain, what the build said, or that the objects differ.
pub fn run(check: bool) -> Result<(), String> {
    let root = root()?;
    let toolchain = match (pinned(), nightly()) {
        (Ok(()), _) => Toolchain::Pinned,
        (Err(missing), _) if check => return Err(format!("{missing}: run `cargo xtask setup` first")),
        (Err(_), true) => Toolchain::Nightly,
        (Err(missing), false) => {
            return Err(format!(
                "no BPF toolchain: {missing}; run `cargo xtask setup`, or install nightly and rust-src with rustup"
            ));
        }
    };
    build(&root, toolchain)?;
    for (object, program) in OBJECTS {
        let built = strip(&target_dir(&root).join(TARGET).join("release").join(program), toolchain)?;
        keep(&built, &root, object, check)?;
    }
    Ok(())
}

/// Takes over what was built, or compares it with what is kept.
fn keep(built: &Path, root: &Path, object: &str, check: bool) -> Result<(), String> {
    let kept = root.join(object);
    if check {
        return compare(built, &kept, object);
    }
    fs::copy(built, &kept).map_err(|error| format!("{} cannot be written: {error}", kept.display()))?;
    println!("built {object}");
    Ok(())
}

/// Installs the pinned toolchain where it is missing: Debian packages, and bpf-linker by cargo.
///
/// # Errors
///
/// A sentence: which command failed.
pub fn setup() -> Result<(), String> {
    if pinned_compiler().is_err() {
        println!("installing {}", PACKAGES.join(" "));
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--yes", "--no-install-recommends"]).args(PACKAGES);
        complete(apt.env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    if pinned_linker().is_err() {
        println!("installing bpf-linker {LINKER_VERSION}");
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
        cargo.args(["--no-default-features", "--features", "llvm-22"]);
        complete(cargo.env("LLVM_PREFIX", LLVM).env("PATH", llvm_first()?))?;
    }
    pinned()
}

/// Whether the pinned toolchain is complete; if not, what is missing.
pub fn pinned() -> Result<(), String> {
    pinned_compiler()?;
    pinned_linker()
}

fn pinned_compiler() -> Result<(), String> {
    let version = output(Command::new(RUSTC).arg("--version")).unwrap_or_default();
    if !version.starts_with(RUSTC_VERSION) {
        return Err(format!("{RUSTC} is not {RUSTC_VERSION}(Debian's rustc-web)"));
    }
    let library = output(Command::new(RUSTC).args(["--print", "target-libdir", "--target", TARGET]))?;
    if !Path::new(library.trim()).is_dir() {
        return Err(format!("{RUSTC} has no core for {TARGET} (Debian's libstd-rust-web-dev-bpf)"));
    }
    if !objcopy().is_file() {
        return Err(format!("{} is missing (Debian's llvm-22)", objcopy().display()));
    }
    Ok(())
}

fn pinned_linker() -> Result<(), String> {
    let version = output(Command::new("bpf-linker").arg("--version")).unwrap_or_default();
    match version.split_whitespace().nth(1) {
        Some(LINKER_VERSION) => Ok(()),
        _ => Err(format!("bpf-linker {LINKER_VERSION} is missing")),
    }
}

fn nightly() -> bool {
    let sysroot = output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]));
    let source = |sysroot: String| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library").is_dir();
    let linker = output(Command::new("bpf-linker").arg("--version")).is_ok();
    linker && sysroot.is_ok_and(source)
}

/// Builds every program.
fn build(root: &Path, toolchain: Toolchain) -> Result<(), String> {
    let target = target_dir(root);
    let mut cargo = match toolchain {
        Toolchain::Pinned => Command::new("cargo"),
        Toolchain::Nightly => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", "nightly", "cargo"]);
            rustup
        }
    };
    // Variables of the cargo that runs us, or of the user, must not change the object.
    for name in
        ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_RUSTFLAGS", "RUSTUP_TOOLCHAIN"]
    {
        cargo.env_remove(name);
    }
    cargo
        .args(["build", "--workspace", "--release", "--locked", "--target", TARGET])
        .current_dir(root.join("ebpf"));
    cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_ENCODED_RUSTFLAGS", flags(root)?);
    match toolchain {
        // The prebuilt core is for that compiler, which is a stable one: BPF's assembly is not.
        Toolchain::Pinned => cargo.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1"),
        Toolchain::Nightly => cargo.args(["-Z", "build-std=core"]).env_remove("RUSTC"),
    };
    complete(&mut cargo)
}

/// Compiler flags, separated as cargo wants them.
fn flags(root: &Path) -> Result<String, String> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        remap(root, "/trestle"),
        remap(&registry(root)?, "/registry"),
    ];
    Ok(flags.join("\x1f"))
}

/// The folder with the sources of dependencies, whose name differs between machines.
fn registry(root: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root.join("ebpf"));
    let metadata: serde_json::Value = serde_json::from_str(&output(&mut cargo)?)
        .map_err(|error| format!("`cargo metadata` says what cannot be read: {error}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter(|package| package["name"] == "aya-ebpf")
        .find_map(|package| {
            Path::new(package["manifest_path"].as_str()?).parent()?.parent().map(Path::to_owned)
        })
        .ok_or_else(|| "ebpf/Cargo.lock names no aya-ebpf".to_owned())
}

/// DWARF is four fifths of the object, and nobody's who loads it.
fn strip(built: &Path, toolchain: Toolchain) -> Result<PathBuf, String> {
    let stripped = built.with_extension("bpf.o");
    if toolchain == Toolchain::Nightly && !objcopy().is_file() {
        return Ok(built.to_owned());
    }
    complete(Command::new(objcopy()).arg("--strip-debug").args([built, &stripped]))?;
    Ok(stripped)
}

fn compare(built: &Path, kept: &Path, object: &str) -> Result<(), String> {
    let read =
        |path: &Path| fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
    if read(built)? == read(kept)? {
        println!("{object} is what its source gives");
        return Ok(());
    }
    Err(format!(
        "{object} is not what its source gives ({}): run `cargo xtask build-ebpf` and commit the result",
        built.display()
    ))
}

fn objcopy() -> PathBuf {
    Path::new(LLVM).join("bin/llvm-objcopy")
}

fn llvm_first() -> Result<String, String> {
    let path = env::var("PATH").map_err(|error| format!("PATH: {error}"))?;
    Ok(format!("{LLVM}/bin:{path}"))
}

/// The workspace's folder.
fn root() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    here.and_then(|root| root.canonicalize().ok())
        .ok_or_else(|| "the checkout this was built from is gone".to_owned())
}

fn target_dir(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir)).join("ebpf")
}

/// Runs a command to its end, its output shown.
fn complete(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{name}` failed ({status}): {command:?}")),
        Err(error) => Err(format!("`{name}` cannot be started: {error}")),
    }
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("`{name}` cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{name}` failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{name}` prints what is no text"))
}
