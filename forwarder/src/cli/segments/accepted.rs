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
        self, Config, Guards, Listener, Source,
        segments::{self, Segment},
        tls,
    },
};

/// A segment that can be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// What `trestle run` is called with, but for guards.
    words: Vec<OsString>,
    /// Its guards, which a running gateway can take.
    pub guards: Guards,
    /// What TRESTLE_LOG says, where the segment has a `verb`.
    pub log: Option<&'static str>,
    /// Its control socket.
    pub control: PathBuf,
    /// Of everything its files hold: only ever compared within this process.
    contents: u64,
    /// The same of certificates and revocations, which a running gateway can take.
    certificates: u64,
}

impl Accepted {
    /// What `trestle` is called with.
    pub fn command_line(&self) -> Vec<OsString> {
        command_line(&self.guards, &self.words)
    }

    /// A running gateway can become this: certificates and guards change under connected peers.
    pub fn can_become(&self, other: &Self) -> bool {
        (&self.words, self.log, self.contents) == (&other.words, other.log, other.contents)
    }

    pub const fn has_certificates_of(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

fn command_line(guards: &Guards, words: &[OsString]) -> Vec<OsString> {
    let guards = guards.arguments().into_iter().map(OsString::from);
    [OsString::from("run")].into_iter().chain(guards).chain(words.iter().cloned()).collect()
}

/// Reads `file` and judges all of it. Control sockets of the segments are made in `directory`.
pub(super) fn accept(file: &Path, directory: &Path) -> Result<BTreeMap<String, Accepted>, Error> {
    let mut claims = Claims::default();
    let mut accepted = BTreeMap::new();
    for (name, segment) in segments::read(file)?.segments {
        let control = directory.join(format!("{name}.sock"));
        let words = words(&segment, &control);
        let wrong = |error: Error| Error::new(format!("{}: segment `{name}`: {error}", segment.place()));
        let config = judge(&command_line(&segment.guards, &words)).map_err(wrong)?;
        claims.add(&segment, &config)?;
        let log = segment.verb.map(level);
        let (contents, certificates) = (contents(&config), certificates(&config));
        let guards = segment.guards;
        accepted.insert(name, Accepted { words, guards, log, control, contents, certificates });
    }
    Ok(accepted)
}

/// The words that stand behind the guards in a segment's command line.
fn words(segment: &Segment, control: &Path) -> Vec<OsString> {
    let values = [
        ("uplink", segment.uplink.clone()),
        ("bridge", segment.bridge.clone()),
        ("workers", segment.workers.map(|number| number.to_string())),
        ("cpus", segment.cpus.clone()),
        ("datapath", word(segment.datapath)),
        ("xdp", word(segment.xdp)),
        ("ageing", segment.ageing.map(|seconds| seconds.to_string())),
    ];
    let values = values.into_iter().filter_map(|(key, value)| Some(format!("--{key}={}", value?)));
    let mut words: Vec<OsString> = values.map(OsString::from).collect();
    words.extend(["--control".into(), control.as_os_str().to_owned()]);
    words.extend(["--supervisor".into(), std::process::id().to_string().into(), "--".into()]);
    words.extend(segment.servers.iter().map(|path| path.as_os_str().to_owned()));
    words
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
        let listeners =
            config.servers().flat_map(|server| server.listeners.iter().map(|one| (&server.file, one)));
        for (file, listener) in listeners {
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

/// Of the servers' files and the keys that wrap control packets.
fn contents(config: &Config) -> u64 {
    let keys = |server: &config::Server| {
        let wrapping = &server.wrapping;
        let keys = [&wrapping.tls_auth, &wrapping.tls_crypt, &wrapping.tls_crypt_v2].map(Option::as_ref);
        files(server, keys).chain([server.file.clone()]).collect::<Vec<_>>()
    };
    digest(config.servers().flat_map(keys))
}

fn certificates(config: &Config) -> u64 {
    digest(config.servers().flat_map(|server| {
        files(server, [Some(&server.ca), Some(&server.cert), Some(&server.key), server.crl.as_ref()])
    }))
}

fn files<'a, const N: usize>(
    server: &'a config::Server,
    named: [Option<&'a Source>; N],
) -> impl Iterator<Item = PathBuf> + 'a {
    named.into_iter().flatten().filter_map(|source| match source {
        Source::File { path, .. } => Some(tls::resolve(server, path)),
        Source::Inline { .. } => None,
    })
}

fn digest(paths: impl Iterator<Item = PathBuf>) -> u64 {
    let mut hasher = DefaultHasher::new();
    paths.for_each(|path| tls::read_bounded(&path).ok().hash(&mut hasher));
    hasher.finish()
}
