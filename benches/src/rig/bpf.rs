//! The ruler's XDP programs in the kernel: loading, attaching, reading and writing their maps.

use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder, OpenObject, ProgramMut};
use nix::net::if_::if_nametoindex;
use trestle_tests::{Fault, Result};

/// The object that `cargo xtask build-ebpf` makes of `ebpf/bench`.
const OBJECT: &[u8] = include_bytes!("../../../ebpf/bench.bpf.o");

/// The programs, not in the kernel yet.
pub fn open() -> Result<OpenObject> {
    ObjectBuilder::default().open_memory(OBJECT).map_err(refused("reading the ruler's programs"))
}

/// Has the kernel verify the programs and make their maps.
pub fn load(object: OpenObject) -> Result<Object> {
    object.load().map_err(refused("loading the ruler's programs"))
}

/// Attaches a program to a device of the network namespace that the calling thread is in, until the link is dropped.
pub fn attach(object: &mut Object, program: &str, device: &str) -> Result<Link> {
    let index =
        i32::try_from(index(device)?).map_err(|_| Fault::other(format!("{device} has no valid index")))?;
    let refused = refused(format!("attaching `{program}` to {device}"));
    self::program(object, program)?.attach_xdp(index).map_err(refused)
}

/// The program of that name.
pub fn program<'a>(object: &'a mut Object, name: &str) -> Result<ProgramMut<'a>> {
    let found = object.progs_mut().find(|program| program.name() == name);
    found.ok_or_else(|| Fault::other(format!("ebpf/bench.bpf.o has no program `{name}`: build it anew")))
}

/// Index of a device of the network namespace that the calling thread is in.
pub fn index(device: &str) -> Result<u32> {
    if_nametoindex(device).map_err(Fault::os(format!("looking for {device}")))
}

/// Sets an entry of a map.
pub fn update(object: &Object, map: &str, key: u32, value: &[u8]) -> Result<()> {
    set(&self::map(object, map)?, key, value)
}

/// The same, of a map at hand.
pub fn set(map: &impl MapCore, key: u32, value: &[u8]) -> Result<()> {
    let refused = |error| refused(format!("writing into {:?}", map.name()))(error);
    map.update(&key.to_ne_bytes(), value, MapFlags::ANY).map_err(refused)
}

/// An entry of a map, as 64-bit numbers; one row a processor where each has its own.
pub fn lookup(object: &Object, map: &str, key: u32) -> Result<Vec<Vec<u64>>> {
    rows(&self::map(object, map)?, key)
}

/// The same, of a map at hand.
pub fn rows(map: &impl MapCore, key: u32) -> Result<Vec<Vec<u64>>> {
    let rows = if map.map_type().is_percpu() {
        map.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)
    } else {
        map.lookup(&key.to_ne_bytes(), MapFlags::ANY).map(|row| row.map(|row| vec![row]))
    };
    let rows = rows.map_err(refused(format!("reading from {:?}", map.name())))?.unwrap_or_default();
    Ok(rows.iter().map(|row| words(row)).collect())
}

/// The map of that name.
pub fn map<'a>(object: &'a Object, name: &str) -> Result<libbpf_rs::Map<'a>> {
    let found = object.maps().find(|map| map.name() == name);
    found.ok_or_else(|| Fault::other(format!("ebpf/bench.bpf.o has no map `{name}`: build it anew")))
}

/// Numbers as a map has them.
pub fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|chunk| u64::from_ne_bytes(*chunk)).collect()
}

/// What the kernel, or libbpf, has against doing `what`.
pub fn refused(what: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> Fault {
    let what = what.into();
    move |error| Fault::other(format!("{what}: {error:#}"))
}
