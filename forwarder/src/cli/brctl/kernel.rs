//! The kernel's bridges: read and set by /sys, and by the old ioctls where /sys has them not.
//!
//! /sys/class/net shows the network namespace it was mounted in, ioctls the one we are in; containers often have
//! neither. Which of the two is asked first, and whose error is told, is as in bridge-utils.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::FileExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
};

use super::{
    facts::{BridgeFacts, Entry, PortFacts},
    timers::Ticks,
};
use crate::xdp::{
    bridge::{Bridge, BridgeSocket, FdbBytes, Number, Port},
    sys,
};

/// Where interfaces are.
const CLASS_NET: &str = "/sys/class/net/";
/// bridge-utils cuts paths after that many bytes.
const PATH_BYTES: usize = 255;
/// How often a forwarding table that changes while it is read is asked for again.
const RETRIES: usize = 10;

/// Both ways to the kernel's bridges.
#[derive(Debug)]
pub(super) struct Kernel {
    /// [`CLASS_NET`], but in tests.
    root: PathBuf,
    socket: BridgeSocket,
}

impl Kernel {
    pub(super) fn open() -> Result<Self, Errno> {
        Self::with_root(CLASS_NET.into())
    }

    /// With interfaces under `root`, which ends in a slash.
    pub(super) fn with_root(root: PathBuf) -> Result<Self, Errno> {
        Ok(Self { root, socket: BridgeSocket::open().map_err(errno)? })
    }

    pub(super) fn bridge(&self, request: Bridge, name: &OsStr) -> Result<(), Errno> {
        let by_old_way = |_| self.socket.bridge_by_old_way(request, name);
        self.socket.bridge(request, name).or_else(by_old_way).map_err(errno)
    }

    pub(super) fn port(&self, request: Port, bridge: &OsStr, device: &OsStr) -> Result<(), Errno> {
        let index = if_nametoindex(device).map_err(|_| Errno::ENODEV)?;
        let by_old_way = |_| {
            let request = match request {
                Port::Add => Number::AddInterface,
                Port::Delete => Number::DeleteInterface,
            };
            self.socket.number(bridge, request, [index.into(), 0])
        };
        self.socket.port(request, bridge, index).or_else(by_old_way).map_err(errno)
    }

    pub(super) fn set_bridge(
        &self,
        bridge: &OsStr,
        file: &str,
        value: u64,
        number: Number,
    ) -> Result<(), Errno> {
        let by_old_way = |_| self.socket.number(bridge, number, [value, 0]);
        write(&self.path(bridge, &format!("bridge/{file}")), value).or_else(by_old_way).map_err(errno)
    }

    pub(super) fn set_port(
        &self,
        bridge: &OsStr,
        port: &OsStr,
        file: &str,
        value: u64,
        number: Number,
    ) -> Result<(), Errno> {
        let Err(error) = write(&self.path(port, &format!("brport/{file}")), value) else { return Ok(()) };
        match self.port_number(bridge, port)? {
            Some(at) => self.socket.number(bridge, number, [at as u64, value]).map_err(errno),
            None => Err(errno(error)),
        }
    }

    /// Names of all bridges, in byte order: the real one's locale is always "C".
    pub(super) fn bridges(&self) -> Vec<OsString> {
        let is_bridge = |name: &OsString| self.path(name, "bridge").is_dir();
        let mut found: Vec<OsString> = names(&self.root).unwrap_or_default();
        found.retain(is_bridge);
        if found.is_empty() {
            let indices = self.socket.bridges().unwrap_or_default();
            // The first index without a name ends the list.
            found = indices.into_iter().map_while(name_of).collect();
        }
        found
    }

    /// Names of a bridge's ports.
    pub(super) fn ports(&self, bridge: &OsStr) -> Result<Vec<OsString>, Errno> {
        names(&self.path(bridge, "brif")).or_else(|_| {
            let indices = self.socket.ports(bridge).map_err(errno)?;
            Ok(indices.into_iter().filter(|index| *index != 0).filter_map(name_of).collect())
        })
    }

    pub(super) fn bridge_facts(&self, bridge: &OsStr) -> Result<BridgeFacts, Errno> {
        let folder = self.path(bridge, "bridge");
        if fs::read_dir(&folder).is_err() {
            return self.socket.bridge_info(bridge).map(Into::into).map_err(errno);
        }
        Ok(BridgeFacts::read(&Attributes(&folder)))
    }

    pub(super) fn port_facts(&self, bridge: &OsStr, port: &OsStr) -> Result<PortFacts, Errno> {
        let folder = self.path(port, "brport");
        if fs::read_dir(&folder).is_err() {
            let number = self.port_number(bridge, port)?.ok_or(Errno::ENOENT)?;
            let info = self.socket.port_info(bridge, number).map_err(errno)?;
            return Ok(PortFacts::of(number, &info));
        }
        Ok(PortFacts::read(&Attributes(&folder)))
    }

    /// The forwarding table, in the kernel's order.
    pub(super) fn entries(&self, bridge: &OsStr) -> Result<Vec<Entry>, Errno> {
        let bytes = match File::open(self.path(bridge, "brforward")) {
            Ok(file) => table(&file),
            Err(_) => self.entries_by_old_way(bridge)?,
        };
        Ok(bytes.into_iter().map(Entry::from).collect())
    }

    fn entries_by_old_way(&self, bridge: &OsStr) -> Result<Vec<FdbBytes>, Errno> {
        let mut all = Vec::new();
        loop {
            let again = |got: &Result<Vec<FdbBytes>, Errno>| matches!(got, Err(Errno::EAGAIN));
            let mut part = self.socket.entries(bridge, all.len()).map_err(errno);
            for _ in 1..RETRIES {
                if !again(&part) {
                    break;
                }
                part = self.socket.entries(bridge, all.len()).map_err(errno);
            }
            let part = part?;
            if part.is_empty() {
                return Ok(all);
            }
            all.extend(part);
        }
    }

    /// At which number of `bridge` the interface is a port.
    fn port_number(&self, bridge: &OsStr, port: &OsStr) -> Result<Option<usize>, Errno> {
        let index = if_nametoindex(port)?;
        let ports = self.socket.ports(bridge).map_err(errno)?;
        Ok(ports.iter().position(|at| *at == index))
    }

    fn path(&self, interface: &OsStr, rest: &str) -> PathBuf {
        let mut path = self.root.as_os_str().as_bytes().to_vec();
        path.extend_from_slice(interface.as_bytes());
        path.push(b'/');
        path.extend_from_slice(rest.as_bytes());
        path.truncate(PATH_BYTES);
        OsString::from_vec(path).into()
    }
}

/// A folder of /sys with one value a file.
pub(super) struct Attributes<'a>(&'a Path);

impl Attributes<'_> {
    /// 0 if there is no such file, -1 if it holds no number: as bridge-utils has it.
    pub(super) fn integer(&self, name: &str) -> i32 {
        let Ok(text) = fs::read(self.0.join(name)) else { return 0 };
        sys::scan_integer(&text).unwrap_or(-1)
    }

    pub(super) fn ticks(&self, name: &str) -> Ticks {
        Ticks(i64::from(self.integer(name)).cast_unsigned())
    }

    /// A bridge's id, `8000.22fb56cf1867`; digits that are missing are zero.
    pub(super) fn id(&self, name: &str) -> [u8; 8] {
        let text = fs::read(self.0.join(name)).unwrap_or_default();
        let mut digits = text.into_iter().filter(u8::is_ascii_hexdigit).map(hex);
        let mut id = [0; 8];
        for byte in &mut id {
            let (Some(high), Some(low)) = (digits.next(), digits.next()) else { break };
            *byte = high << 4 | low;
        }
        id
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or_default()
}

/// What a folder holds, sorted by bytes.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names: Vec<OsString> = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    Ok(names)
}

fn name_of(index: u32) -> Option<OsString> {
    if_indextoname(index).ok().map(|name| OsString::from_vec(name.into_bytes()))
}

/// Reads `brforward`: the kernel fills a page at a time, and gives nothing at the end.
fn table(file: &File) -> Vec<FdbBytes> {
    let mut all = Vec::new();
    let mut page = [0; 4096];
    loop {
        let at = (all.len() * size_of::<FdbBytes>()) as u64;
        let (entries, _) = match file.read_at(&mut page, at) {
            Ok(length) => page[..length].as_chunks::<{ size_of::<FdbBytes>() }>(),
            Err(_) => return all,
        };
        if entries.is_empty() {
            return all;
        }
        all.extend_from_slice(entries);
    }
}

/// Writes a value as bridge-utils does, into a file that must be there.
fn write(path: &Path, value: u64) -> io::Result<()> {
    // In one write: the kernel takes each as a value of its own.
    OpenOptions::new().write(true).open(path)?.write_all(format!("{value}\n").as_bytes())
}

fn errno(error: io::Error) -> Errno {
    // Only the kernel's errors come here; should another ever, EIO says so.
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
