//! What of a file of segments was found right, before anything that runs is touched.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use clap::Parser;

use crate::{
    cli::{Cli, Command, Error, run},
    config::{
        self, Config, Listener, Source,
        guards::Storm,
        segments::{self, Segment},
        tls,
    },
};

/// A segment that can be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// What `trestle` is called with.
    pub words: Vec<OsString>,
    /// What TRESTLE_LOG says, where the segment has a `verb`.
    pub log: Option<&'static str>,
    /// Its control socket.
    pub control: PathBuf,
    /// Of everything its files hold: only ever compared within this process.
    contents: u64,
}

/// Reads `file` and judges all of it. Control sockets of the segments are made in `directory`.
pub(super) fn accept(file: &Path, directory: &Path) -> Result<BTreeMap<String, Accepted>, Error> {
    let mut claims = Claims::default();
    let mut accepted = BTreeMap::new();
    for (name, segment) in segments::read(file)?.segments {
        let control = directory.join(format!("{name}.sock"));
        let words = words(&segment, &control)?;
        let wrong = |error: Error| Error::new(format!("{}: segment `{name}`: {error}", segment.place()));
        let config = judge(&words).map_err(wrong)?;
        claims.add(&segment, &config)?;
        let log = segment.verb.map(level);
        accepted.insert(name, Accepted { words, log, control, contents: contents(&config.server) });
    }
    Ok(accepted)
}

/// The command line of a segment, without the program's name.
fn words(segment: &Segment, control: &Path) -> Result<Vec<OsString>, Error> {
    if let [_, second, ..] = &segment.servers[..] {
        let cure = "a second server file in one segment comes later; give it a segment of its own, or a second \
                    `local` line";
        return Err(Error::new(format!("{}: {}: {cure}", segment.place(), second.display())));
    }
    let guards = &segment.guards;
    let limits = [guards.broadcast, guards.multicast, guards.unknown];
    let limits = Storm::ALL.into_iter().zip(limits);
    let storms =
        limits.filter_map(|(storm, limit)| Some(format!("--storm-limit={}={}", storm.name(), limit?)));
    let values = [
        ("uplink", segment.uplink.clone()),
        ("bridge", segment.bridge.clone()),
        ("workers", segment.workers.map(|number| number.to_string())),
        ("cpus", segment.cpus.clone()),
        ("datapath", word(segment.datapath)),
        ("xdp", word(segment.xdp)),
        ("ageing", segment.ageing.map(|seconds| seconds.to_string())),
        ("mac-limit", guards.mac_limit.map(|limit| limit.to_string())),
    ];
    let values = values.into_iter().filter_map(|(key, value)| Some(format!("--{key}={}", value?)));
    let loops = (!guards.loop_guard).then(|| "--no-loop-guard".to_owned());
    let mut words: Vec<OsString> = vec!["run".into()];
    words.extend(values.chain(storms).chain(loops).map(OsString::from));
    words.extend(["--control".into(), control.as_os_str().to_owned()]);
    words.extend(["--supervisor".into(), std::process::id().to_string().into(), "--".into()]);
    words.extend(segment.servers.iter().map(|path| path.as_os_str().to_owned()));
    Ok(words)
}

fn word(value: impl clap::ValueEnum) -> Option<String> {
    value.to_possible_value().map(|word| word.get_name().to_owned())
}

/// As `verb` has it, in the form of tracing's filters.
const fn level(verb: u8) -> &'static str {
    match verb {
        0 => "error",
        1..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    }
}

/// Everything that the segment's own process will find wrong before it touches the host.
fn judge(words: &[OsString]) -> Result<Config, Error> {
    let words = std::iter::once(OsString::from("trestle")).chain(words.iter().cloned());
    let cli = Cli::try_parse_from(words)
        .map_err(|error| Error::new(error.to_string().lines().next().unwrap_or_default().to_owned()))?;
    match cli.command {
        Command::Run(args) => Ok(run::configure(args)?.0),
        _ => Err(Error::new("it is no gateway")),
    }
}

/// What only one segment of a host can have.
#[derive(Default)]
struct Claims {
    names: BTreeMap<String, String>,
    listeners: Vec<(Listener, PathBuf)>,
}

impl Claims {
    fn add(&mut self, segment: &Segment, config: &Config) -> Result<(), Error> {
        let uplink = config.uplink.as_ref().map(|uplink| ("uplink", &uplink.nic));
        let bridge = config.bridge.as_ref().map(|bridge| ("bridge", bridge));
        let device = config.server.device.as_ref().map(|device| ("dev", device));
        for (what, name) in uplink.into_iter().chain(bridge).chain(device) {
            let former = self.names.insert(name.clone(), segment.name.clone());
            if let Some(former) = former.filter(|former| *former != segment.name) {
                return Err(Error::new(format!(
                    "{}: `{what}` {name} of segment `{}` is segment `{former}`'s already; name another",
                    segment.place(),
                    segment.name
                )));
            }
        }
        let file = &config.server.file;
        for listener in &config.server.listeners {
            if let Some((_, other)) = self.listeners.iter().find(|(other, _)| other.overlaps(listener)) {
                return Err(Error::new(format!(
                    "{}: {} and {} both listen on {listener}; give one of them another `port`",
                    segment.place(),
                    other.display(),
                    file.display()
                )));
            }
            self.listeners.push((*listener, file.clone()));
        }
        Ok(())
    }
}

/// Of a server's file and all files it names that are read only at the start.
fn contents(server: &config::Server) -> u64 {
    let mut hasher = DefaultHasher::new();
    let wrapping = &server.wrapping;
    let named = [Some(&server.ca), Some(&server.cert), Some(&server.key)];
    let more =
        [&server.crl, &wrapping.tls_auth, &wrapping.tls_crypt, &wrapping.tls_crypt_v2].map(Option::as_ref);
    let files = named.into_iter().chain(more).flatten().filter_map(|source| match source {
        Source::File { path, .. } => Some(tls::resolve(server, path)),
        Source::Inline { .. } => None,
    });
    for path in files.chain([server.file.clone()]) {
        tls::read_bounded(&path).ok().hash(&mut hasher);
    }
    hasher.finish()
}
