//! What the kernel may have against our programs, in sentences: what is wrong, and what to do.

use std::{error::Error, io};

use aya::{EbpfError, maps::MapError, programs::ProgramError, sys::SyscallError};
use caps::{CapSet, Capability};
use nix::libc;

/// Largest MTU that every driver we know of takes natively: ENA's 3498. A veth with pages of 4 KiB takes 3506.
pub const MTU_NATIVE: u32 = 3498;

/// Why the programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// EPERM.
    #[error(
        "this process may not load BPF programs: start it as root, or with CAP_BPF and CAP_NET_ADMIN (in a container \
         also allow the bpf system call)"
    )]
    Privilege,
    /// The kernel does not know the system call, or not a map or program of ours.
    #[error(
        "this kernel lacks {feature}: Linux 6.1 or newer is needed, with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS"
    )]
    TooOld {
        /// What it lacks.
        feature: String,
    },
    /// The verifier's no.
    #[error(
        "the kernel's verifier refuses program {program}: {reason}; please report this with the kernel's version"
    )]
    Verifier {
        /// Which one.
        program: String,
        /// Its last words.
        reason: String,
    },
    /// The verifier's no to a process without CAP_PERFMON. [Measured: Linux 6.1 says it, 6.18 does not.]
    #[error(
        "the verifier of this kernel grants program {program} only to processes with CAP_PERFMON ({reason}): start as \
         root, or with that capability too; it is given up with the others"
    )]
    Perfmon {
        /// Which one.
        program: String,
        /// The verifier's last words.
        reason: String,
    },
    /// A map or program is not in the object.
    #[error("the BPF object has no {name}: it was not built from this source; run `cargo xtask build-ebpf`")]
    ObjectWithout {
        /// Name of the map or program.
        name: &'static str,
    },
    /// The object cannot be read.
    #[error("the BPF object cannot be used: {0}; run `cargo xtask build-ebpf`")]
    Object(String),
}

impl LoadError {
    pub(super) fn from_object(error: EbpfError) -> Self {
        let code = os_error(&error);
        match (error, code) {
            (_, Some(libc::EPERM)) => Self::Privilege,
            (_, Some(libc::ENOSYS)) => Self::TooOld { feature: "the bpf system call".into() },
            (EbpfError::MapError(MapError::CreateError { name, .. }), Some(libc::EINVAL)) => {
                Self::TooOld { feature: format!("the kind of map {name} is") }
            }
            (error, _) => Self::Object(chain(&error)),
        }
    }

    pub(super) fn from_program(name: &str, error: ProgramError) -> Self {
        match (os_error(&error), error) {
            (Some(libc::EPERM), _) => Self::Privilege,
            (code, ProgramError::LoadError { io_error, verifier_log }) => {
                let log = verifier_log.to_string();
                if log.trim().is_empty() && code == Some(libc::EINVAL) {
                    return Self::TooOld { feature: format!("what program {name} is made of") };
                }
                let (program, reason) = (name.into(), last_words(&log, &io_error));
                match caps::has_cap(None, CapSet::Effective, Capability::CAP_PERFMON) {
                    Ok(false) => Self::Perfmon { program, reason },
                    _ => Self::Verifier { program, reason },
                }
            }
            (_, error) => Self::Object(chain(&error)),
        }
    }
}

/// The verifier's verdict stands above its statistics.
fn last_words(log: &str, error: &io::Error) -> String {
    let statistics = ["processed ", "stack depth ", "verification time "];
    let is_verdict =
        |line: &&str| !line.trim().is_empty() && !statistics.iter().any(|start| line.starts_with(start));
    let verdict = log.lines().rev().find(is_verdict);
    verdict.map_or_else(|| error.to_string(), |line| format!("{} ({error})", line.trim()))
}

/// Why the programs cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The name names nothing.
    #[error("there is no interface {interface}; `ip link` lists those there are")]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// EPERM.
    #[error(
        "this process may not attach programs to {interface}: start it as root, or with CAP_NET_ADMIN and CAP_BPF"
    )]
    Privilege {
        /// The interface.
        interface: String,
    },
    /// Another XDP program is there, and there can be one only.
    #[error(
        "another XDP program is on {interface}: `bpftool net` tells whose; stop its owner, or remove it with `ip link \
         set {interface} xdp off`, or start with --datapath socket"
    )]
    Occupied {
        /// The interface.
        interface: String,
    },
    /// The driver has no XDP.
    #[error("the driver of {interface} has no native XDP: start with --xdp generic, or --xdp auto")]
    NoNative {
        /// The interface.
        interface: String,
    },
    /// Frames may be longer than a page holds.
    #[error(
        "the MTU of {interface}, {mtu} (or of its far end, if it is a veth), is above what native XDP takes there: set \
         it with `ip link set {interface} mtu {MTU_NATIVE}`, or start with --xdp generic ({cause})"
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// What it has.
        mtu: u32,
        /// What the kernel said.
        cause: String,
    },
    /// A program is not in the object.
    #[error("the BPF object has no {name}: it was not built from this source; run `cargo xtask build-ebpf`")]
    ObjectWithout {
        /// Name of the program.
        name: &'static str,
    },
    /// Neither TCX nor clsact.
    #[error(
        "this kernel has neither TC links (Linux 6.6) nor the clsact qdisc, to switch between {interface} and the \
         peers: load the modules sch_ingress and cls_bpf with `modprobe -a sch_ingress cls_bpf`"
    )]
    NoTc {
        /// The interface.
        interface: String,
    },
    /// All else.
    #[error("the kernel refuses {what} on {interface}: {cause}")]
    Refused {
        /// "native XDP", "generic XDP", "a TC program".
        what: &'static str,
        /// The interface.
        interface: String,
        /// What it said.
        cause: String,
    },
}

/// The error number at the bottom of an error of aya's.
pub(super) fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        let here = error.downcast_ref::<io::Error>();
        let code = here.or_else(|| error.downcast_ref::<SyscallError>().map(|error| &error.io_error));
        if let Some(code) = code.and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

/// An error with all its causes.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_number_is_found_below_all_wrappers() {
        let system =
            SyscallError { call: "bpf_link_create", io_error: io::Error::from_raw_os_error(libc::EBUSY) };
        let error = EbpfError::ProgramError(ProgramError::SyscallError(system));
        assert_eq!(os_error(&error), Some(libc::EBUSY));
        assert_eq!(os_error(&ProgramError::NotLoaded), None);
    }

    #[test]
    fn causes_are_told_once_each() {
        let system =
            SyscallError { call: "bpf_link_create", io_error: io::Error::from_raw_os_error(libc::EBUSY) };
        let text = chain(&EbpfError::ProgramError(ProgramError::SyscallError(system)));
        assert_eq!(text.matches("bpf_link_create").count(), 1, "{text}");
        assert!(text.contains("busy"), "{text}");
    }

    #[test]
    fn the_verifiers_verdict_is_told_without_its_statistics() {
        let log = "0: R1=ctx()\nR7 bitwise operator &= on pointer prohibited\n\
                   verification time 7 usec\nstack depth 128\nprocessed 163 insns (limit 1000000)\n\n";
        let words = last_words(log, &io::Error::from_raw_os_error(libc::EACCES));
        assert!(
            words.starts_with("R7 bitwise operator &= on pointer prohibited (Permission denied"),
            "{words}"
        );
    }
}
