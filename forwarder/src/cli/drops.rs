//! `trestle drops`: what was lost, why, and what to do.

use super::{
    DropsArgs, Error, ask,
    table::{Align, aligned, plain, plural},
};
use crate::{
    drops::Drop,
    management::status::{DropCounts, Drops, Request},
};

pub(super) fn run(args: &DropsArgs) -> Result<(), Error> {
    ask::show(&args.ask, Request::Drops, |answer: &DropCounts| table(&answer.drops, args.all))
}

pub(super) fn table(drops: &Drops, all: bool) -> String {
    let rows: Vec<Vec<String>> = drops
        .iter()
        .filter(|&(_, &count)| all || count > 0)
        .map(|(name, count)| vec![count.to_string(), name.clone(), explain(name).to_owned()])
        .collect();
    if rows.is_empty() {
        return "no frame was lost\n".to_owned();
    }
    aligned(&[("count", Align::Right), ("reason", Align::Left), ("what it means", Align::Left)], &rows)
}

fn explain(name: &str) -> &'static str {
    Drop::ALL
        .iter()
        .find(|reason| reason.name() == name)
        .map_or("The gateway is of another version than this command.", |reason| reason.explain())
}

/// One line: how many frames were lost, and for what above all.
pub(super) fn summary(drops: &Drops) -> String {
    let total = drops.values().fold(0_u64, |sum, &count| sum.saturating_add(count));
    match drops.iter().max_by_key(|&(_, &count)| count).filter(|_| total > 0) {
        None => "no frame was lost".to_owned(),
        Some((name, count)) => format!(
            "{} lost, {count} of them {}: `trestle drops` explains",
            plural(total, "frame"),
            plain(name)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::status::example;

    #[test]
    fn only_what_happened_is_shown_with_what_to_do() {
        let drops = example().status.drops;
        assert_eq!(
            table(&drops, false),
            "count  reason    what it means\n    \
             3  replayed  A data packet was received before, or is older than the replay window.\n"
        );
        assert_eq!(table(&drops, true).lines().count(), Drop::ALL.len() + 1);
    }

    #[test]
    fn nothing_lost_is_said_in_words() {
        assert_eq!(table(&Drops::new(), true), "no frame was lost\n");
        assert_eq!(summary(&Drops::new()), "no frame was lost");
    }

    #[test]
    fn the_summary_names_the_most_frequent_reason() {
        let drops = Drops::from([("replayed".into(), 3), ("mac_limit".into(), 5)]);
        assert_eq!(summary(&drops), "8 frames lost, 5 of them mac_limit: `trestle drops` explains");
    }
}
