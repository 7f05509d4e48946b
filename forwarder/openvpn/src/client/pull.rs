//! What is made of pushed options before they are read.

use super::CloseReason;

/// `pull-filter`: what becomes of pushed options that begin with some text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFilter {
    /// What becomes of them.
    pub action: PullAction,
    /// How they begin.
    pub begins: String,
}

/// What a [`PullFilter`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullAction {
    /// The option is taken.
    Accept,
    /// The option is left out.
    Ignore,
    /// The session ends.
    Reject,
}

/// Leaves of `options` what `filters` let pass; the first filter that fits an option decides. Source: options_push.c
/// `apply_pull_filter`.
///
/// # Errors
/// An option is rejected.
pub(super) fn filter(filters: &[PullFilter], options: Vec<String>) -> Result<Vec<String>, CloseReason> {
    let mut kept = Vec::with_capacity(options.len());
    for option in options {
        let fitting = filters.iter().find(|filter| option.trim_start().starts_with(&filter.begins));
        match fitting.map_or(PullAction::Accept, |filter| filter.action) {
            PullAction::Accept => kept.push(option),
            PullAction::Ignore => {}
            PullAction::Reject => {
                return Err(CloseReason::Incompatible(format!("{option} (rejected by `pull-filter`)")));
            }
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(filters: &[(PullAction, &str)], options: &[&str]) -> Result<Vec<String>, CloseReason> {
        let filters: Vec<PullFilter> =
            filters.iter().map(|&(action, begins)| PullFilter { action, begins: begins.into() }).collect();
        filter(&filters, options.iter().map(|&option| option.into()).collect())
    }

    #[test]
    fn the_first_filter_that_fits_decides() {
        use PullAction::{Accept, Ignore};
        let options = ["route 10.0.0.0", "route-gateway 10.0.0.1", "ping 10"];
        let filters = [(Accept, "route-gateway"), (Ignore, "route")];
        assert_eq!(filtered(&filters, &options).unwrap(), ["route-gateway 10.0.0.1", "ping 10"]);
        assert_eq!(filtered(&[], &options).unwrap(), options);
    }

    #[test]
    fn a_rejected_option_ends_the_session() {
        let rejected = filtered(&[(PullAction::Reject, "ping")], &["peer-id 0", "ping-restart 5"]);
        assert!(rejected.unwrap_err().to_string().contains("ping-restart 5"));
    }
}
