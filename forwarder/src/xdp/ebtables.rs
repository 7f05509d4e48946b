//! Asking for a table of ebtables, which is done by socket options with pointers in them.
//! Source: include/uapi/linux/netfilter_bridge/ebtables.h, `do_ebt_get_ctl` in net/bridge/netfilter/ebtables.c.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// Tables larger than this are not read: they have rules.
const ENTRIES_BYTES: u32 = 64 * 1024;
const EBT_SO_GET_INFO: i32 = 128;
const EBT_SO_GET_ENTRIES: i32 = 129;

/// A table, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How many rules it has.
    pub rules: u32,
    /// Its chains (`struct ebt_entries`), if it has no rules; else empty.
    pub entries: Vec<u8>,
}

/// `struct ebt_replace`.
#[repr(C)]
struct Replace {
    name: [u8; 32],
    valid_hooks: u32,
    nentries: u32,
    entries_size: u32,
    hook_entry: [*mut u8; 6],
    num_counters: u32,
    counters: *mut u8,
    entries: *mut u8,
}

/// Reads the table `name` of the calling thread's network namespace. Loads the table's module if there is one.
///
/// # Errors
/// There is no such table, or the process may not read it (CAP_NET_ADMIN).
pub fn table(name: &str) -> io::Result<Table> {
    let mut asked = question(name)?;
    let plain = size_of::<Replace>();
    // SAFETY: the kernel writes at most `plain` bytes, the size of `asked`, and follows no pointer for this option.
    unsafe { get(EBT_SO_GET_INFO, &mut asked, plain) }?;
    if asked.nentries != 0 || asked.entries_size > ENTRIES_BYTES {
        return Ok(Table { rules: asked.nentries.max(1), entries: Vec::new() });
    }
    let size = asked.entries_size as usize;
    let mut entries = vec![0u8; size];
    asked.entries = entries.as_mut_ptr();
    asked.num_counters = 0;
    // SAFETY: the length is that of the structure and of what its pointer leads to, as this option wants it. The kernel
    // writes nothing to the structure but `entries_size` bytes to `entries`, which lives and is that long, after it has
    // compared that number with the table's: a table that grew meanwhile is an error.
    unsafe { get(EBT_SO_GET_ENTRIES, &mut asked, plain + size) }?;
    Ok(Table { rules: 0, entries })
}

fn question(name: &str) -> io::Result<Replace> {
    let mut padded = [0u8; 32];
    let room = padded.get_mut(..name.len()).filter(|room| room.len() < 32);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    Ok(Replace {
        name: padded,
        valid_hooks: 0,
        nentries: 0,
        entries_size: 0,
        hook_entry: [ptr::null_mut(); 6],
        num_counters: 0,
        counters: ptr::null_mut(),
        entries: ptr::null_mut(),
    })
}

/// # Safety
/// `option` must be one for which the kernel writes no further than `asked` and what its pointers lead to, given `len`.
unsafe fn get(option: i32, asked: &mut Replace, len: usize) -> io::Result<()> {
    let raw: Option<SockProtocol> = Some(SockProtocol::Raw);
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, raw)?;
    let mut len = libc::socklen_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    let value = (&raw mut *asked).cast();
    // SAFETY: `value` is a live structure; that nothing beyond it is written is the caller's duty.
    let code = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), libc::IPPROTO_IP, option, value, &raw mut len)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
