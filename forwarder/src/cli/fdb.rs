//! `trestle fdb`: which station stands behind which port.

use super::{
    AskArgs, Error, ask,
    table::{Align, aligned, duration, plural},
};
use crate::management::status::{Fdb, Place, Request, Station};

pub(super) fn run(args: &AskArgs) -> Result<(), Error> {
    ask::show(args, Request::Fdb, table)
}

pub(super) fn table(fdb: &Fdb) -> String {
    let headings = [
        ("mac", Align::Left),
        ("vlan", Align::Right),
        ("place", Align::Left),
        ("behind", Align::Left),
        ("last heard", Align::Left),
    ];
    let rows: Vec<Vec<String>> = fdb.entries.iter().map(row).collect();
    format!(
        "{}\n{} of at most {}; forgotten after {}; {} learnt, {} moved, {} forgotten\n",
        aligned(&headings, &rows),
        plural(u64::try_from(fdb.entries.len()).unwrap_or(u64::MAX), "station"),
        fdb.limit,
        duration(fdb.ageing_s),
        fdb.learned,
        fdb.moved,
        fdb.expired,
    )
}

fn row(station: &Station) -> Vec<String> {
    let place = match station.place {
        Place::Host => "host",
        Place::Wire => "wire",
        Place::Peer => "peer",
    };
    let vlan = if station.vlan == 0 { "-".into() } else { station.vlan.to_string() };
    let heard = if station.fixed { "fixed".into() } else { format!("{} ago", duration(station.age_s)) };
    vec![station.mac.clone(), vlan, place.into(), station.port.clone(), heard]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::status::example;

    #[test]
    fn the_table_is_as_it_was_agreed() {
        assert_eq!(table(&example().fdb), include_str!("testdata/fdb.txt"));
    }
}
