//! OpenVPN's file of who had which address (`ifconfig-pool-persist`): read at the start, rewritten now and then.
//!
//! Lines `NAME,IPv4,IPv6`; there are no IPv6 addresses here, so that the third field is empty. `#` and `;` begin a
//! comment. Like the status file it is opened before privileges are given up and rewritten in place.
//! Source: pool.c `ifconfig_pool_read`, `ifconfig_pool_list`.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    net::Ipv4Addr,
    path::Path,
};

/// Longest file read, in bytes: a pool of 65536 addresses with names of 64 characters.
const MAX_BYTES: u64 = 8 << 20;
/// Longest name, as upstream's buffer.
const MAX_NAME: usize = 127;

/// An open file.
#[derive(Debug)]
pub struct PoolFile {
    file: File,
    /// What stands in it.
    written: String,
}

impl PoolFile {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// It cannot be opened for reading and writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, written: String::new() })
    }

    /// Who had which address when the file was last written.
    ///
    /// # Errors
    /// The file system does not give it.
    pub fn read(&mut self) -> io::Result<Vec<(String, Ipv4Addr)>> {
        read(&mut self.file)
    }

    /// Writes who has or last had which address, if it is not what stands there.
    ///
    /// # Errors
    /// The file system does not take it; the file may then hold part of both.
    pub fn write<'a>(&mut self, holders: impl Iterator<Item = (&'a str, Ipv4Addr)>) -> io::Result<()> {
        let text = text(holders);
        if text == self.written {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
        self.written = text;
        Ok(())
    }
}

/// Who had which address, from a file that is never written.
///
/// # Errors
/// It cannot be read.
pub fn read_only(path: &Path) -> io::Result<Vec<(String, Ipv4Addr)>> {
    read(&mut File::open(path)?)
}

fn read(file: &mut File) -> io::Result<Vec<(String, Ipv4Addr)>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

/// The lines that name a client and an address; others are passed over, as by upstream.
pub fn parse(bytes: &[u8]) -> Vec<(String, Ipv4Addr)> {
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, Ipv4Addr)> {
    let line = line.trim_end_matches('\r');
    let mut fields = line.split(',');
    let name = fields.next().filter(|name| is_name(name) && !name.starts_with(['#', ';']))?;
    Some((name.to_owned(), fields.next()?.parse().ok()?))
}

fn text<'a>(holders: impl Iterator<Item = (&'a str, Ipv4Addr)>) -> String {
    let mut text = String::new();
    for (name, address) in holders.filter(|(name, _)| is_name(name) && !name.starts_with(['#', ';'])) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name},{address},");
    }
    text
}

/// True for a name that can stand between commas.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(|c: char| c == ',' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, 21, host)
    }

    #[test]
    fn upstreams_lines_are_read_and_others_passed_over() {
        let text = b"agent1,10.10.21.100,\nagent 2,10.10.21.101\r\n#c,10.10.21.102,\n;c,10.10.21.102,\nv6only,,fd00::1\n\
                     nonsense\n,10.10.21.103,\nagent4,10.10.21.300,\n\xff,10.10.21.104,\nboth,10.10.21.105,fd00::5";
        let names = parse(text);
        let expected = [("agent1", 100), ("agent 2", 101), ("both", 105)];
        assert_eq!(names, expected.map(|(name, host)| (name.to_owned(), address(host))));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let holders = [
            ("agent1", address(100)),
            ("with,comma", address(101)),
            ("#odd", address(102)),
            ("b", address(3)),
        ];
        let written = text(holders.into_iter());
        assert_eq!(written, "agent1,10.10.21.100,\nb,10.10.21.3,\n");
        assert_eq!(parse(written.as_bytes()).len(), 2);
    }

    #[test]
    fn the_file_is_rewritten_in_place() {
        let path = std::env::temp_dir().join(format!("trestle-pool-{}", std::process::id()));
        std::fs::write(&path, "old,10.10.21.9,\nolder,10.10.21.8,\nand more\n").unwrap();
        let mut file = PoolFile::open(&path).unwrap();
        assert_eq!(file.read().unwrap().len(), 2);
        file.write([("a", address(1))].into_iter()).unwrap();
        assert_eq!(read_only(&path).unwrap(), [("a".to_owned(), address(1))]);
        file.write(std::iter::empty()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::remove_file(&path).unwrap();
    }
}
