//! `trestle brctl`, and the binary called as `brctl`: bridge-utils' tool on kernel bridges, to the byte.
//!
//! What is printed, where, and with which exit code is bridge-utils 1.7's, mistakes included: scripts depend on it.
//! It reads /sys and falls back on ioctls where /sys shows nothing (another network namespace's, or none), as that
//! one does. `-j` besides: [`json`].

mod facts;
mod json;
mod kernel;
mod members;
mod options;
mod settings;
mod show;
mod timers;

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufWriter, IsTerminal, LineWriter, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
};

use nix::errno::Errno;

use self::{kernel::Kernel, options::Asked};
use crate::xdp::sys;

/// What the real one calls itself; ours behaves as this version.
const VERSION: &str = "bridge-utils, 1.7\n";

/// What a command gets: the kernel, and where to write.
struct Session<'a> {
    kernel: Kernel,
    /// Whether `-j` was given.
    json: bool,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

/// Done, or not: exit code 0 or 1. Why not has been written by then.
type Done = Result<(), Failed>;

/// A command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed;

/// One command: name, least arguments, and its line in the help.
struct Command {
    name: &'static str,
    arguments: usize,
    help: &'static str,
    /// Given the words after its name: at least `arguments`.
    run: fn(&mut Session<'_>, &[OsString]) -> Done,
    /// Whether it knows `-j`.
    json: bool,
}

const fn command(
    name: &'static str,
    arguments: usize,
    help: &'static str,
    run: fn(&mut Session<'_>, &[OsString]) -> Done,
) -> Command {
    Command { name, arguments, help, run, json: false }
}

/// All commands, in the order of the help.
const COMMANDS: [Command; 16] = [
    command("addbr", 1, "<bridge>\t\tadd bridge", members::addbr),
    command("delbr", 1, "<bridge>\t\tdelete bridge", members::delbr),
    command("addif", 2, "<bridge> <device>\tadd interface to bridge", members::addif),
    command("delif", 2, "<bridge> <device>\tdelete interface from bridge", members::delif),
    command("hairpin", 3, "<bridge> <port> {on|off}\tturn hairpin on/off", settings::hairpin),
    command("setageing", 2, "<bridge> <time>\t\tset ageing time", settings::ageing),
    command("setbridgeprio", 2, "<bridge> <prio>\t\tset bridge priority", settings::bridge_priority),
    command("setfd", 2, "<bridge> <time>\t\tset bridge forward delay", settings::forward_delay),
    command("sethello", 2, "<bridge> <time>\t\tset hello time", settings::hello),
    command("setmaxage", 2, "<bridge> <time>\t\tset max message age", settings::max_age),
    command("setpathcost", 3, "<bridge> <port> <cost>\tset path cost", settings::path_cost),
    command("setportprio", 3, "<bridge> <port> <prio>\tset port priority", settings::port_priority),
    Command { json: true, ..command("show", 0, "[ <bridge> ]\t\tshow a list of bridges", show::show) },
    Command { json: true, ..command("showmacs", 1, "<bridge>\t\tshow a list of mac addrs", show::showmacs) },
    Command { json: true, ..command("showstp", 1, "<bridge>\t\tshow bridge stp info", show::showstp) },
    command("stp", 2, "<bridge> {on|off}\tturn stp on/off", settings::stp),
];

/// If the command line `words` means brctl: what it is called, and its own arguments.
pub(super) fn called(words: &[OsString]) -> Option<(&OsStr, &[OsString])> {
    let (program, rest) = words.split_first()?;
    if Path::new(program).file_name() == Some(OsStr::new("brctl")) {
        return Some((program, rest));
    }
    let (command, rest) = rest.split_first()?;
    (command == "brctl").then_some((command, rest))
}

/// Does what brctl does with these arguments.
pub(super) fn main(program: &OsStr, arguments: &[OsString]) -> ExitCode {
    sys::end_at_broken_pipe();
    let stdout = io::stdout();
    // As C's standard output: by lines to a terminal, else by blocks, so that errors stand before it.
    let mut out: Box<dyn Write> = if stdout.is_terminal() {
        Box::new(LineWriter::new(stdout))
    } else {
        Box::new(BufWriter::with_capacity(4096, stdout))
    };
    let done = run(program, arguments, &mut out, &mut io::stderr());
    // Like the real one: what cannot be written changes no exit code.
    let _ = out.flush();
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(program: &OsStr, arguments: &[OsString], out: &mut dyn Write, err: &mut dyn Write) -> Done {
    let posix = std::env::var_os("POSIXLY_CORRECT").is_some();
    match options::read(program, arguments, posix) {
        Asked::Help => {
            help(out);
            Ok(())
        }
        Asked::Version => {
            let _ = out.write_all(VERSION.as_bytes());
            Ok(())
        }
        Asked::Wrong(sentence) => wrong_option(&sentence, out, err),
        Asked::Words { words, json } => act(program, &words, json, out, err),
    }
}

fn wrong_option(sentence: &[u8], out: &mut dyn Write, err: &mut dyn Write) -> Done {
    let _ = err.write_all(sentence);
    let _ = err.write_all(b"Unknown option '?'\n");
    help(out);
    Err(Failed)
}

/// Carries out the command that `words` begin with.
fn act(program: &OsStr, words: &[OsString], json: bool, out: &mut dyn Write, err: &mut dyn Write) -> Done {
    let Some((name, arguments)) = words.split_first() else {
        help(out);
        return Err(Failed);
    };
    let kernel = Kernel::open()
        .map_err(|error| complain(err, &[b"can't setup bridge control: ", reason(error).as_bytes()]))?;
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        complain(err, &[b"never heard of command [", name.as_bytes(), b"]"]);
        help(out);
        return Err(Failed);
    };
    if json && !command.json {
        return wrong_option(&options::invalid(program, b'j'), out, err);
    }
    if arguments.len() < command.arguments {
        let _ = writeln!(
            out,
            "Incorrect number of arguments for command\nUsage: brctl {} {}",
            command.name, command.help
        );
        return Err(Failed);
    }
    (command.run)(&mut Session { kernel, json, out, err }, arguments)
}

fn help(out: &mut dyn Write) {
    let mut text = "Usage: brctl [commands]\ncommands:\n".to_owned();
    for Command { name, help, .. } in &COMMANDS {
        text.push_str(&format!("\t{name:<10}\t{help}\n"));
    }
    let _ = out.write_all(text.as_bytes());
}

impl Session<'_> {
    /// Writes one line to standard error.
    fn fail(&mut self, parts: &[&[u8]]) -> Failed {
        complain(self.err, parts)
    }
}

/// One line to standard error, in one write. Names in it are bytes: they need not be text.
fn complain(err: &mut dyn Write, parts: &[&[u8]]) -> Failed {
    let mut line = parts.concat();
    line.push(b'\n');
    let _ = err.write_all(&line);
    Failed
}

/// The C library's words for an error, which `std` decorates with its number and `nix` words differently.
fn reason(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
