//! Huge pages: memory that takes one entry of the CPU's address cache where ordinary pages take 512.

use std::fs;

/// The one size that fits a worker's memory: of pages of 1 GiB each worker would take a whole one.
const PAGE_KIB: u64 = 2048;

/// Whether enough huge pages are reserved (`vm.nr_hugepages`) and free for `bytes` of memory. They may be gone a moment
/// later, or this process may be denied them: whoever asks for them must be able to do without.
pub fn are_free_for(bytes: u64) -> bool {
    fs::read_to_string("/proc/meminfo").is_ok_and(|meminfo| suffice(&meminfo, bytes))
}

fn suffice(meminfo: &str, bytes: u64) -> bool {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let pages = bytes.div_ceil(PAGE_KIB * 1024);
    field("Hugepagesize") == Some(PAGE_KIB) && field("HugePages_Free").is_some_and(|free| free >= pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal: 24 kB\nHugePages_Total:      8\nHugePages_Free:       6\nHugepagesize:       2048 kB\n";

    #[test]
    fn huge_pages_are_used_only_where_enough_of_the_right_size_are_free() {
        assert!(suffice(MEMINFO, 6 << 21));
        assert!(!suffice(MEMINFO, (6 << 21) + 1));
        assert!(!suffice(&MEMINFO.replace("2048 kB", "1048576 kB"), 1));
        assert!(!suffice("", 1));
        assert!(!suffice("HugePages_Free: many\nHugepagesize: 2048 kB", 1));
    }
}
