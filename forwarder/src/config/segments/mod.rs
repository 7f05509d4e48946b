//! `trestle.toml`: any number of segments, each a gateway of its own.
//!
//! ```toml
//! [segment.office]
//! uplink = "ens5"                      # or "ens5:underlay"
//! server = ["udp.conf", "tcp443.conf"] # OpenVPN's files, beside this one
//!
//! [segment.office.guards]
//! broadcast = 2000                     # frames a second of one peer, or "off"
//!
//! [segment.lab]
//! bridge = "br0"                       # without `server`: its ports are made faster, nothing else
//! ```
//!
//! [`parse`] does no IO: it is what the fuzzer calls.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

mod read;
#[cfg(test)]
mod tests;

use super::{Datapath, Error, Guards, Place, XdpMode, tls};
use read::Table;

/// Most segments: each is a process with its own memory.
pub const MAX_SEGMENTS: usize = 64;
/// Most server files of one segment, as many as one file may have listeners.
pub const MAX_SERVERS: usize = 16;
/// Longest name of a segment: it stands in the name of a socket.
const MAX_NAME: usize = 32;

/// What `trestle.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// The segments by name; at least one.
    pub segments: BTreeMap<String, Segment>,
}

/// One segment: what the command line of `trestle run` would say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// The file it stands in, and its line: where it is wrong as a whole.
    pub file: PathBuf,
    /// See `file`.
    pub line: u32,
    /// OpenVPN's server files; relative ones begin beside `file`.
    pub servers: Vec<PathBuf>,
    /// `--uplink`.
    pub uplink: Option<String>,
    /// `--bridge`.
    pub bridge: Option<String>,
    /// `--workers`.
    pub workers: Option<NonZeroUsize>,
    /// `--cpus`.
    pub cpus: Option<String>,
    /// `--datapath`.
    pub datapath: Datapath,
    /// `--xdp`.
    pub xdp: XdpMode,
    /// `--ageing`, in seconds.
    pub ageing: Option<u32>,
    /// `verb`, where the segment says another than its server file.
    pub verb: Option<u8>,
    /// Its guards.
    pub guards: Guards,
}

impl Segment {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place::line(&self.file, self.line)
    }
}

/// Reads the file's text. Does no IO: `file` only names it, and says where relative paths begin.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub fn parse(bytes: &[u8], file: &Path) -> Result<Segments, Error> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::at(Place::file(file), "the file is not UTF-8", "store it as UTF-8 text"))?;
    let root = read::document(text, file)?;
    let top = Table::root(&root, text, file);
    top.refuse_unknown(&["segment"])?;
    let mut segments = BTreeMap::new();
    for (name, table) in top.tables("segment")? {
        if segments.len() == MAX_SEGMENTS {
            return Err(
                table.error(format!("there are more than {MAX_SEGMENTS} segments"), "join some of them")
            );
        }
        segments.insert(name.to_owned(), segment(name, &table, file)?);
    }
    if segments.is_empty() {
        let cure = "write a table for each segment: `[segment.office]`";
        return Err(Error::at(Place::file(file), "the file names no segment", cure));
    }
    Ok(Segments { file: file.to_owned(), segments })
}

/// Reads the file at `path`.
///
/// # Errors
/// The file cannot be read, or what [`parse`] finds.
pub fn read(path: &Path) -> Result<Segments, Error> {
    let bytes = tls::read_bounded(path).map_err(|error| {
        let sentence = format!("the segments cannot be read: {}", tls::reason(&error));
        Error::at(Place::file(path), sentence, "name a file of segments: `trestle run --config trestle.toml`")
    })?;
    parse(&bytes, path)
}

/// The keys of `[segment.NAME]`.
const KEYS: [&str; 10] =
    ["uplink", "bridge", "server", "workers", "cpus", "datapath", "xdp", "ageing", "verb", "guards"];

fn segment(name: &str, table: &Table<'_>, file: &Path) -> Result<Segment, Error> {
    check_name(name, table)?;
    table.refuse_unknown(&KEYS)?;
    let beside = file.parent().unwrap_or(Path::new(""));
    let segment = Segment {
        name: name.to_owned(),
        file: file.to_owned(),
        line: table.line(),
        servers: servers(table, beside)?,
        uplink: table.text("uplink")?,
        bridge: table.text("bridge")?,
        workers: table.number("workers", 1..=MAX_WORKERS)?.and_then(NonZeroUsize::new),
        cpus: table.text("cpus")?,
        datapath: table.choice("datapath")?.unwrap_or_default(),
        xdp: table.choice("xdp")?.unwrap_or_default(),
        ageing: table.number("ageing", 1..=u32::MAX)?,
        verb: table.number("verb", 0..=11_u8)?,
        guards: table.table("guards")?.map(|guards| read_guards(&guards)).transpose()?.unwrap_or_default(),
    };
    if segment.servers.is_empty() && segment.bridge.is_none() {
        let cure = "name OpenVPN's files by `server = [\"server.conf\"]`, or a bridge to be accelerated by \
                    `bridge = \"br0\"`";
        return Err(table.error(format!("segment `{name}` has neither `server` nor `bridge`"), cure));
    }
    Ok(segment)
}

/// More than CPUs there may be.
const MAX_WORKERS: usize = 8192;

fn check_name(name: &str, table: &Table<'_>) -> Result<(), Error> {
    let fits = (1..=MAX_NAME).contains(&name.len());
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if fits && plain && name != RESERVED {
        return Ok(());
    }
    Err(table.error(
        format!("`{}` cannot be a segment's name", super::words::shown(name)),
        format!("take 1 to {MAX_NAME} letters, digits, `-` and `_`, and not `{RESERVED}`"),
    ))
}

/// The supervisor's own socket stands beside those of the segments.
const RESERVED: &str = "control";

fn servers(table: &Table<'_>, beside: &Path) -> Result<Vec<PathBuf>, Error> {
    let named = table.texts("server", MAX_SERVERS)?;
    let mut servers: Vec<PathBuf> = Vec::new();
    for path in named.iter().map(|path| beside.join(path)) {
        if servers.contains(&path) {
            let sentence = format!("`server` names {} twice", path.display());
            return Err(table.error_at("server", sentence, "name it once"));
        }
        servers.push(path);
    }
    Ok(servers)
}

fn read_guards(table: &Table<'_>) -> Result<Guards, Error> {
    table.refuse_unknown(&["broadcast", "multicast", "unknown", "mac-limit", "loop-guard"])?;
    Ok(Guards {
        broadcast: table.limit("broadcast")?,
        multicast: table.limit("multicast")?,
        unknown: table.limit("unknown")?,
        mac_limit: table.limit("mac-limit")?,
        loop_guard: table.flag("loop-guard")?.unwrap_or(true),
    })
}
