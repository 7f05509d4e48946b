//! `trestle confirm`: whoever started the gateway with `--confirm` is still there.

use super::{AskArgs, Error, ask};
use crate::management::status::{Confirmation, Confirmed, Request};

/// # Errors
/// No gateway runs, or it is too late.
pub(super) fn run(args: &AskArgs) -> Result<(), Error> {
    let line = ask::ask(&args.control.control, Request::Confirm)?;
    let Confirmation { confirm } = ask::read(&line)?;
    if args.json {
        ask::print(&line)?;
    }
    match confirm {
        Confirmed::TooLate => {
            Err(Error::new("it is too late: the gateway takes everything back; start it anew"))
        }
        Confirmed::Confirmed | Confirmed::NothingToConfirm if args.json => Ok(()),
        Confirmed::Confirmed => ask::print("confirmed: the gateway stays"),
        Confirmed::NothingToConfirm => ask::print("there is nothing to confirm: the gateway stays as it is"),
    }
}
