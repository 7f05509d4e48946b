//! Tables of the old ebtables. (The new one, `ebtables-nft`, makes chains of nftables.)

use std::path::Path;

use crate::xdp::ebtables;

/// Those there may be.
const TABLES: [(&str, &str); 3] = [
    ("filter", "/sys/module/ebtable_filter"),
    ("nat", "/sys/module/ebtable_nat"),
    ("broute", "/sys/module/ebtable_broute"),
];

/// Tables that do something: with rules, or a policy other than ACCEPT.
///
/// Asking for a table loads its module, and a loaded one costs every frame a little: only loaded ones are asked for.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    let loaded = TABLES.into_iter().filter(|(_, module)| Path::new(module).exists());
    loaded.map(|(table, _)| table).filter(|table| acts(table))
}

/// A table that cannot be read is not there, or not for this namespace.
fn acts(table: &str) -> bool {
    match ebtables::table(table) {
        Ok(ebtables::Table { rules: 0, entries }) => !accepts_all(&entries),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Whether every chain of a table without rules lets everything pass. `entries` are `struct ebt_entries`, one a chain:
/// distinguisher, name, offset of counters, policy, number of rules, padding.
/// Source: include/uapi/linux/netfilter_bridge/ebtables.h.
fn accepts_all(entries: &[u8]) -> bool {
    const CHAIN: usize = 48;
    const POLICY: std::ops::Range<usize> = 40..44;
    const ACCEPT: i32 = -1;
    entries.chunks_exact(CHAIN).all(|chain| chain[POLICY] == ACCEPT.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_rules_acts_where_a_chain_does_not_accept() {
        let chain = |policy: i32| {
            let mut chain = [0u8; 48];
            chain[40..44].copy_from_slice(&policy.to_ne_bytes());
            chain
        };
        assert!(accepts_all(&[chain(-1), chain(-1)].concat()));
        assert!(!accepts_all(&[chain(-1), chain(-2)].concat()));
        assert!(accepts_all(&[]));
    }

    #[test]
    fn a_table_that_is_not_there_is_an_error_and_not_a_rule() {
        assert!(ebtables::table("no-such-table").is_err());
        assert!(ebtables::table(&"x".repeat(100)).is_err());
    }
}
