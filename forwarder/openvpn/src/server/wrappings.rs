//! How clients' control packets are wrapped, and what their first ones say before anything is kept of them.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::ControlError;
use crate::{
    data::Role,
    session::carries_wrapped_key,
    wire::{
        Head,
        wrapping::{Metadata, ServerKey, Stamp, Wrapping, split_wrapped_key},
    },
};

/// How clients' control packets are wrapped. Both ways may stand beside one another.
#[derive(Clone, Debug, Default)]
pub struct Wrappings {
    /// `tls-auth` or `tls-crypt`: one key for all clients.
    pub shared: Wrapping,
    /// `tls-crypt-v2`: each client's own key, wrapped by this one.
    pub own: Option<OwnKeys>,
}

/// `tls-crypt-v2`.
#[derive(Clone, Debug)]
pub struct OwnKeys {
    /// Wraps clients' keys.
    pub server_key: Arc<ServerKey>,
    /// `force-cookie`: clients that cannot tell their key twice (before 2.6) are not answered, because something of each
    /// must be kept from its first packet on.
    pub force_cookie: bool,
    /// `tls-crypt-v2-max-age`: older keys, and those that do not say how old they are, are not taken.
    pub max_age: Option<Duration>,
}

/// A packet of a client nobody knows, unwrapped.
pub(super) struct First<'a> {
    pub(super) body: Cow<'a, [u8]>,
    pub(super) stamp: Option<Stamp>,
    /// What its other packets are wrapped with, and the answers.
    pub(super) wrapping: Wrapping,
    /// The key is its own, and too old or of unknown age.
    pub(super) expired: bool,
}

impl Wrappings {
    /// True if every packet must be wrapped.
    pub fn are_wanted(&self) -> bool {
        !self.shared.is_none() || self.own.is_some()
    }

    /// Unwraps `rest`, which followed `head`, without keeping anything. Costs one HMAC, two with a key told.
    pub(super) fn unwrap<'a>(
        &self,
        head: &Head,
        rest: &'a [u8],
        unix_s: u64,
    ) -> Result<First<'a>, ControlError> {
        if carries_wrapped_key(head.opcode) && self.are_wanted() {
            return self.own.as_ref().ok_or(ControlError::Unauthentic)?.unwrap(head, rest, unix_s);
        }
        if self.shared.is_none() && self.are_wanted() {
            return Err(ControlError::Unauthentic);
        }
        let wrapping = self.shared.clone();
        let unwrapped = wrapping.unwrap(head, rest).map_err(|_| ControlError::Unauthentic)?;
        Ok(First { body: unwrapped.body, stamp: unwrapped.stamp, wrapping, expired: false })
    }
}

impl OwnKeys {
    fn unwrap<'a>(&self, head: &Head, rest: &'a [u8], unix_s: u64) -> Result<First<'a>, ControlError> {
        let (rest, wrapped) = split_wrapped_key(rest).map_err(|_| ControlError::Unauthentic)?;
        let client = self.server_key.unwrap(wrapped).map_err(|_| ControlError::Unauthentic)?;
        let wrapping = Wrapping::crypt(client.key, Role::Server);
        let unwrapped = wrapping.unwrap(head, rest).map_err(|_| ControlError::Unauthentic)?;
        let expired = self.max_age.is_some_and(|most| !is_younger(&client.metadata, most, unix_s));
        Ok(First { body: unwrapped.body, stamp: unwrapped.stamp, wrapping, expired })
    }
}

/// A key from the future is young: clocks differ.
fn is_younger(metadata: &Metadata, most: Duration, unix_s: u64) -> bool {
    let Metadata::Made(made) = metadata else { return false };
    let age = i128::from(unix_s) - i128::from(*made);
    age <= i128::from(most.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_for_its_time_and_not_without_a_date() {
        const DAY: u64 = 86_400;
        let younger = |metadata, unix_s| is_younger(&metadata, Duration::from_secs(DAY), unix_s);
        assert!(younger(Metadata::Made(1000), 1000 + DAY));
        assert!(!younger(Metadata::Made(1000), 1001 + DAY));
        assert!(younger(Metadata::Made(i64::MAX), 0));
        assert!(!younger(Metadata::Made(i64::MIN), u64::MAX));
        assert!(!younger(Metadata::User(vec![1]), 0));
        assert!(!younger(Metadata::Other, 0));
    }
}
