//! `trestle reload`: the supervisor reads its file again.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{AskArgs, Error, ask};
use crate::management::status::Request;

/// What the supervisor answers.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// What became of each segment.
    Reload(BTreeMap<String, String>),
    /// Why nothing was changed.
    Error(String),
}

/// # Errors
/// Nothing was changed, and why.
pub(super) fn run(args: &AskArgs) -> Result<(), Error> {
    let line = ask::ask(&args.control.control, Request::Reload)?;
    let outcome = match ask::read(&line)? {
        Answer::Error(reason) => return Err(Error::new(format!("nothing was changed: {reason}"))),
        Answer::Reload(outcome) => outcome,
    };
    if args.json {
        return ask::print(&line);
    }
    ask::print(&outcome.iter().map(|(name, verdict)| format!("{name}: {verdict}\n")).collect::<String>())
}
