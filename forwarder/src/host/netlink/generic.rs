//! Generic netlink's families: found by name, asked by commands. Kernel: include/uapi/linux/genetlink.h.

use std::io;

use neli::types::Buffer;

use super::Requests;
use super::nested::Nested;

/// The one family with a fixed number.
const GENL_ID_CTRL: u16 = 0x10;
/// `struct genlmsghdr`: command, version, two bytes reserved.
pub const HEADER: usize = 4;

mod number {
    pub(super) const CTRL_GETFAMILY: u8 = 3;
    pub(super) const CTRL_FAMILY_ID: u16 = 1;
    pub(super) const CTRL_FAMILY_NAME: u16 = 2;
    pub(super) const CTRL_MCAST_GROUPS: u16 = 7;
    pub(super) const CTRL_MCAST_GROUP_NAME: u16 = 1;
    pub(super) const CTRL_MCAST_GROUP_ID: u16 = 2;
}

/// A family, as the kernel numbers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// The type of its messages.
    pub id: u16,
    /// Its multicast groups: name and number.
    pub groups: Vec<(String, u32)>,
}

impl Family {
    /// Finds the family `name`; an error of `ENOENT` where the kernel has none.
    pub fn find(requests: &mut Requests, name: &str) -> io::Result<Self> {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let question = message(number::CTRL_GETFAMILY, &[(number::CTRL_FAMILY_NAME, &text)]);
        let found = requests.request(GENL_ID_CTRL, 0, &question, |found: &mut Option<Self>, _, rest| {
            *found = found.take().or_else(|| family(rest));
        });
        found?.ok_or_else(|| io::Error::other(format!("the kernel did not number the family {name}")))
    }

    /// The number of a multicast group.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(found, _)| found == name).map(|(_, id)| *id)
    }
}

/// A command with attributes of a few bytes each.
pub fn message(command: u8, attributes: &[(u16, &[u8])]) -> Buffer {
    let mut bytes = vec![command, 1, 0, 0];
    for (kind, value) in attributes {
        // What is written here is short by construction; a longer one would be cut, and refused by the kernel.
        let len = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Buffer::from(bytes)
}

fn family(rest: &[u8]) -> Option<Family> {
    let attributes = Nested::behind(HEADER, rest);
    let groups = attributes.nested(number::CTRL_MCAST_GROUPS).each().filter_map(|(_, group)| {
        let group = Nested::of(group);
        Some((group.text(number::CTRL_MCAST_GROUP_NAME)?, group.number(number::CTRL_MCAST_GROUP_ID)?))
    });
    Some(Family { id: attributes.short(number::CTRL_FAMILY_ID)?, groups: groups.collect() })
}
