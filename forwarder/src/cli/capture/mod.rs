//! `trestle capture`: what comes in and goes out by a peer or a port, which tcpdump does not see.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{ControlArgs, Error, ask};
use crate::{
    management::capture::{Ask, FrameRecord, Opening, RECORD_BYTES, Record, Reply, SNAP},
    worker::Direction,
};

mod line;
mod pcapng;

use pcapng::{Packet, Writer};

/// What `trestle capture` takes.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// A port of the segment, or a peer by its name, number or address
    #[arg(value_name = "PORT|PEER")]
    name: String,
    /// Write pcapng there, `-` for standard output, instead of a line for each frame
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// End after so many frames
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Keep so many bytes of each frame
    #[arg(short, long, value_name = "BYTES", default_value_t = SNAP, value_parser = clap::value_parser!(u32).range(1..))]
    snap: u32,
    #[command(flatten)]
    control: ControlArgs,
}

/// Captures until there is enough, the gateway ends, or nobody reads.
///
/// # Errors
/// There is no gateway, no such port or peer, or nothing can be written.
pub(super) fn run(args: &CaptureArgs) -> Result<(), Error> {
    let asked = Ask { name: args.name.clone(), snap: args.snap.min(SNAP) };
    let (mut records, opening) = open(&args.control.control, &asked)?;
    let mut sink = Sink::open(args.write.as_deref(), &opening)?;
    let mut lost = 0;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        // Whoever looks on sees all there is before we wait.
        if records.buffer().is_empty() {
            sink.flush()?;
        }
        let Some(record) = next(&mut records)? else { break };
        match record {
            Record::Frame(frame) => {
                left -= 1;
                if !sink.take(&opening, &frame)? {
                    break;
                }
            }
            Record::Lost(frames) => lost = frames,
        }
    }
    sink.end(lost)
}

fn open(path: &Path, asked: &Ask) -> Result<(BufReader<UnixStream>, Opening), Error> {
    let mut stream = ask::connect(path)?;
    let refused =
        |error: io::Error| Error::new(format!("the gateway does not answer ({error}); see its log"));
    stream.set_read_timeout(Some(ask::PATIENCE)).map_err(refused)?;
    writeln!(stream, "{}", asked.line()).map_err(refused)?;
    let mut records = BufReader::with_capacity(1 << 18, stream);
    let mut first = String::new();
    (&mut records).take(1 << 20).read_line(&mut first).map_err(refused)?;
    // Frames may be long in coming; the answer may not.
    records.get_ref().set_read_timeout(None).map_err(refused)?;
    match ask::read(&first)? {
        Reply::Capture(opening) => Ok((records, opening)),
        Reply::Error(sentence) => Err(Error::new(sentence)),
    }
}

/// The next record; `None` when the gateway has ended.
fn next(records: &mut impl Read) -> Result<Option<Record>, Error> {
    let strange = || {
        Error::new("what the gateway sends is not understood; is it of another version than this command?")
    };
    let mut size = [0; 4];
    if records.read_exact(&mut size).is_err() {
        return Ok(None);
    }
    let size = u32::from_be_bytes(size);
    if size > RECORD_BYTES {
        return Err(strange());
    }
    let mut record = vec![0; usize::try_from(size).map_err(|_| strange())?];
    if records.read_exact(&mut record).is_err() {
        return Ok(None);
    }
    Record::read(&record).map(Some).ok_or_else(strange)
}

/// Where frames are written.
enum Sink {
    Lines(BufWriter<io::Stdout>),
    File { writer: Writer<Box<dyn Write>>, frames: u64, last_ns: u64 },
}

impl Sink {
    fn open(path: Option<&Path>, opening: &Opening) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::Lines(BufWriter::new(io::stdout()))) };
        let cannot = |error| Error::new(format!("{} cannot be written ({error})", path.display()));
        let to: Box<dyn Write> = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(Error::new(
                    "pcapng is nothing for a terminal; pipe it: `trestle capture NAME -w - | tcpdump -r -`",
                ));
            }
            Box::new(BufWriter::new(io::stdout()))
        } else {
            Box::new(BufWriter::new(File::create(path).map_err(cannot)?))
        };
        let interfaces: Vec<_> =
            opening.interfaces.iter().map(|one| (one.name.as_str(), one.description.as_str())).collect();
        let writer = Writer::begin(to, &interfaces, opening.snap).map_err(cannot)?;
        Ok(Self::File { writer, frames: 0, last_ns: 0 })
    }

    /// False when nobody reads any more.
    fn take(&mut self, opening: &Opening, frame: &FrameRecord) -> Result<bool, Error> {
        let drop = frame.drop.checked_sub(1).and_then(|at| opening.drops.get(usize::from(at)));
        let written = match self {
            Self::Lines(to) => {
                let interface = opening.interfaces.get(usize::from(frame.interface));
                let name = interface.map_or("?", |interface| &interface.name);
                writeln!(to, "{}", line::line(name, frame, drop.map(String::as_str)))
            }
            Self::File { writer, frames, last_ns } => {
                (*frames, *last_ns) = (*frames + 1, frame.time_ns);
                let comment = drop.map(|drop| format!("lost: {drop}"));
                writer.packet(Packet {
                    interface: frame.interface.into(),
                    time_ns: frame.time_ns,
                    outbound: frame.direction == Direction::Out,
                    length: frame.length,
                    bytes: &frame.bytes,
                    comment: comment.as_deref(),
                })
            }
        };
        read_on(written)
    }

    fn flush(&mut self) -> Result<(), Error> {
        read_on(match self {
            Self::Lines(to) => to.flush(),
            Self::File { writer, .. } => writer.flush(),
        })
        .map(|_| ())
    }

    fn end(mut self, lost: u64) -> Result<(), Error> {
        if let Self::File { writer, frames, last_ns } = &mut self {
            let missed = if lost > 0 { writer.missed(0, *last_ns, lost) } else { Ok(()) };
            read_on(missed)?;
            eprintln!("{frames} frames captured");
        }
        if lost > 0 {
            eprintln!("{lost} frames were not captured: they came faster than they could be written");
        }
        self.flush()
    }
}

/// False when nobody reads any more, which is no error.
fn read_on(written: io::Result<()>) -> Result<bool, Error> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::new(format!("the capture cannot be written: {error}"))),
    }
}
