//! A file in the folder of journals may hold anything: reading it ends, within bounds, and what it says can be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trestle::host::nic::journal::record::{Contents, Record, SLOT, SLOTS};

fuzz_target!(|input: &[u8]| {
    let contents = Contents::parse(input);
    assert!(contents.changes.len() + contents.damaged <= SLOTS.min(input.len().div_ceil(SLOT)));
    for (slot, change) in contents.changes {
        assert!(slot < SLOTS && change.index > 0 && change.was != change.set);
        assert!(!change.name.is_empty() && change.name.len() <= 15 && !change.name.contains('/'));
        assert!(
            change
                .feature
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        );
        let record = Record::Change(change);
        let again = record.to_slot().expect("what was read fits");
        assert_eq!(Record::from_slot(&again), Some(record));
    }
});
