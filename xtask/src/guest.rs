//! Commands under another kernel: Debian's, in a machine that qemu emulates, with this machine's files.
//!
//! ```text
//!   qemu ── kernel + initramfs (busybox, modules, guest/init)
//!        ├─ 9p share "host": /, read-only, under a tmpfs: the guest changes nothing here
//!        ├─ 9p share "scratch": the command to run; its exit code comes back
//!        └─ second serial port: what the command writes
//! ```
//! No hardware virtualisation is needed, so everything is slow; `PATIENCE` stretches the tests' deadlines.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::install;
use crate::stage::{must, root, target};

/// How much longer than on the host things may take in an emulated machine (measured: 10 to 40 times for plain
/// computing, less where the tests wait for timers).
const PATIENCE: &str = "20";
/// What an emulated machine takes, beside the kernels.
const PACKAGES: &[&str] = &["busybox-static", "cpio", "kmod", "qemu-system-x86", "xz-utils"];
/// Needed before the host's files can be reached; and tun, whose device node udev makes elsewhere. The kernel loads
/// all others when they are first used.
const MODULES: &[&str] = &["9p", "9pnet_virtio", "overlay", "virtio_pci", "tun"];
/// First process of a guest.
const INIT: &str = include_str!("../guest/init");

/// A kernel ready to boot.
#[derive(Debug)]
pub struct Guest {
    release: String,
    folder: PathBuf,
}

impl Guest {
    /// Gets Debian's newest kernel of `series` (as `6.1`) and makes an initramfs for it.
    pub fn prepare(series: &str) -> Result<Self, String> {
        install(PACKAGES)?;
        let folder = target()?.join("guests").join(series);
        fs::create_dir_all(&folder).map_err(|e| format!("creating {}: {e}", folder.display()))?;
        let package = newest_package(series)?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        let guest = Self { release, folder };
        if !guest.kernel().exists() {
            guest.unpack(&package)?;
        }
        guest.make_initramfs()?;
        Ok(guest)
    }

    /// A command that runs `program` with `arguments` in the guest, at the top of the source tree.
    pub fn command(
        &self,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Command, String> {
        let scratch = self.folder.join("scratch");
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch).map_err(|e| format!("creating {}: {e}", scratch.display()))?;
        let script = script(program, arguments, environment);
        fs::write(scratch.join("command"), script).map_err(|e| format!("writing a guest's command: {e}"))?;
        // The shell turns the guest's exit code into its own; none was written if the guest died.
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\" </dev/null; exit \"$(cat \"$0\"/exit-code || echo 125)\""]).arg(&scratch);
        shell.args(["timeout", "--foreground", "3600", "qemu-system-x86_64"]).args(self.machine(&scratch));
        Ok(shell)
    }

    fn machine(&self, scratch: &Path) -> Vec<String> {
        let share = |tag: &str, path: &Path, more: &str| {
            format!("local,path={},mount_tag={tag},security_model=none,multidevs=remap{more}", path.display())
        };
        let console = self.folder.join("console.log");
        let line = format!(
            "console=ttyS0 quiet panic=-1 reboot=t tsc=unstable mitigations=off guest_release={} guest_modules={}",
            self.release,
            self.folder.display()
        );
        let words = [
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2G",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-nic",
            "none",
        ];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        words.extend(["-kernel".to_owned(), self.kernel().display().to_string()]);
        words.extend(["-initrd".to_owned(), self.initramfs().display().to_string()]);
        words.extend(["-append".to_owned(), line]);
        words.extend(["-virtfs".to_owned(), share("host", Path::new("/"), ",readonly=on")]);
        words.extend(["-virtfs".to_owned(), share("scratch", scratch, "")]);
        words.extend(["-serial".to_owned(), format!("file:{}", console.display())]);
        words.extend(["-serial".to_owned(), "stdio".to_owned()]);
        words
    }

    fn kernel(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    fn initramfs(&self) -> PathBuf {
        self.folder.join(format!("initramfs-{}.cpio", self.release))
    }

    fn unpack(&self, package: &str) -> Result<(), String> {
        println!("downloading {package}");
        must(Command::new("apt-get").args(["--quiet", "download", package]).current_dir(&self.folder))?;
        let shell = "for package in ./linux-image-*.deb; do dpkg -x \"$package\" . && rm \"$package\"; done";
        must(Command::new("sh").args(["-e", "-c", shell]).current_dir(&self.folder))?;
        must(Command::new("/sbin/depmod").arg("-b").arg(&self.folder).arg(&self.release))
    }

    fn make_initramfs(&self) -> Result<(), String> {
        let tree = self.folder.join("initramfs");
        let _ = fs::remove_dir_all(&tree);
        for folder in ["bin", "modules", "proc", "sys", "dev", "lower", "upper", "root"] {
            let folder = tree.join(folder);
            fs::create_dir_all(&folder).map_err(|e| format!("creating {}: {e}", folder.display()))?;
        }
        let failed = |e: std::io::Error| format!("filling an initramfs: {e}");
        fs::copy("/bin/busybox", tree.join("bin/busybox")).map_err(failed)?;
        fs::write(tree.join("init"), INIT).map_err(failed)?;
        fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        for (number, module) in (100..).zip(self.modules()?) {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let plain = tree.join("modules").join(format!("{number}-{}", name.trim_end_matches(".xz")));
            let shell = "case $1 in *.xz) xz -dc \"$1\";; *) cat \"$1\";; esac > \"$2\"";
            must(Command::new("sh").args(["-c", shell, "sh"]).arg(&module).arg(&plain))?;
        }
        let shell = "find . | cpio --create --format=newc --quiet > \"$1\"";
        must(Command::new("sh").args(["-c", shell, "sh"]).arg(self.initramfs()).current_dir(&tree))
    }

    /// Files of the modules a guest starts with, each after those it needs.
    fn modules(&self) -> Result<Vec<PathBuf>, String> {
        let mut files = Vec::new();
        for module in MODULES {
            let mut ask = Command::new("/sbin/modprobe");
            ask.arg("-d").arg(&self.folder).args(["-S", &self.release, "--show-depends", module]);
            let told = ask.output().map_err(|e| format!("modprobe: {e}"))?;
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            let named =
                told.lines().filter_map(|line| line.strip_prefix("insmod ")).map(|rest| rest.trim().into());
            files.extend(named.filter(|file: &PathBuf| !files.contains(file)).collect::<Vec<_>>());
        }
        Ok(files)
    }
}

/// The environment tests need to be patient with a guest.
pub const ENVIRONMENT: &[(&str, &str)] = &[("TRESTLE_PATIENCE", PATIENCE)];

fn newest_package(series: &str) -> Result<String, String> {
    let pattern = format!(r"^linux-image-{}\.[0-9.+debu-]+-amd64$", series.replace('.', r"\."));
    let listed = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output();
    let listed = listed.map_err(|e| format!("apt-cache: {e}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    let newest = names.max_by_key(|name| version(name));
    newest
        .map(str::to_owned)
        .ok_or_else(|| format!("apt knows no kernel {series}; is this Debian 12, updated?"))
}

/// Every number in a package's name, for comparing.
fn version(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn script(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut lines = format!("export PATH={}\ncd {}\n", quoted(&path), quoted(&root().to_string_lossy()));
    for (key, value) in environment {
        lines.push_str(&format!("export {key}={}\n", quoted(value)));
    }
    let words = std::iter::once(program.to_string_lossy().into_owned())
        .chain(arguments.iter().map(|&a| a.to_owned()));
    lines + &words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ") + "\n"
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_highest_numbers() {
        assert!(version("linux-image-6.1.0-56-amd64") > version("linux-image-6.1.0-9-amd64"));
        assert!(version("linux-image-6.12.117+deb12-amd64") > version("linux-image-6.12.99+deb12-amd64"));
    }

    #[test]
    fn a_guests_command_keeps_its_words() {
        let script = script(Path::new("/bin/echo"), &["it's", "two words"], &[("KEY", "a b")]);
        assert!(script.ends_with("export KEY='a b'\n'/bin/echo' 'it'\\''s' 'two words'\n"), "{script}");
    }
}
