//! What single clients are given that others are not: the files of `client-config-dir`, read by whoever owns the server.

use std::{fmt, net::Ipv4Addr};

use super::Compress;

/// Knows every client's particulars. It is asked once a login, when the certificate is already verified, so that a
/// change counts from the next login on.
pub trait Directory: fmt::Debug + Send + Sync {
    /// What there is about the client whose certificate says `name`: attacker-controlled, printable.
    fn particulars(&self, name: &str) -> Particulars;
}

/// What one client is given. The default: what all are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Particulars {
    /// It may not in.
    pub barred: Option<Barred>,
    /// `ifconfig-push`: its address and netmask instead of one from the pool.
    pub address: Option<(Ipv4Addr, Ipv4Addr)>,
    /// `push`, `push-reset` and `push-remove`, in order.
    pub push: Vec<PushEdit>,
    /// `compress`, where it differs.
    pub compress: Option<Compress>,
    /// `max-routes-per-client`, where it differs.
    pub max_stations: Option<usize>,
}

/// Why a client may not in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// `disable`.
    Disabled,
    /// `ccd-exclusive`, and it has no file.
    Unlisted,
    /// Its file is no text that could be understood, and may say `disable`.
    Unclear,
}

/// A change of what is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEdit {
    /// `push`: one option more, behind the others.
    Add(String),
    /// `push-reset`: nothing of what all clients are pushed.
    Reset,
    /// `push-remove`: no option that begins with this.
    Remove(String),
}

impl Particulars {
    /// What of `common`, and what else, is pushed. What is agreed with each client (`peer-id`, `cipher`, ...) stands
    /// apart. Source: push.c `push_reset`, `push_remove_option`.
    pub(super) fn edit(&self, common: &[String]) -> Vec<String> {
        let mut options = common.to_vec();
        for edit in &self.push {
            match edit {
                PushEdit::Add(option) => options.push(option.clone()),
                PushEdit::Reset => options.clear(),
                PushEdit::Remove(beginning) => options.retain(|option| !option.starts_with(beginning)),
            }
        }
        options
    }

    /// True if `push-remove` takes away an option that is agreed with each client.
    pub(super) fn removes(&self, option: &str) -> bool {
        self.push.contains(&PushEdit::Remove(option.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_of_the_push_list_are_done_in_order() {
        let common = ["route 10.1.0.0".to_owned(), "route-gateway 10.0.0.1".into(), "ping 10".into()];
        let edited =
            |push: &[PushEdit]| Particulars { push: push.to_vec(), ..Particulars::default() }.edit(&common);
        let add = |option: &str| PushEdit::Add(option.to_owned());
        let remove = |option: &str| PushEdit::Remove(option.to_owned());
        assert_eq!(edited(&[]), common);
        assert_eq!(edited(&[remove("route")]), ["ping 10"]);
        assert_eq!(edited(&[add("route 10.2.0.0"), remove("route "), remove("x")]), common[1..]);
        assert_eq!(edited(&[add("a"), PushEdit::Reset, add("b")]), ["b"]);
    }
}
