//! Which client gets which address. Source: brief B, "Pool".

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::Ipv4Addr,
};

use super::Pool;

/// Most former holders remembered; the address of one forgotten is given by age like any other.
const MEMORY: usize = 4096;

/// The addresses of a pool, free and leased.
pub(super) struct Leases {
    /// Free addresses with the order of their release, the longest free first; never leased ones come in ascending
    /// order.
    free: BTreeMap<u64, Ipv4Addr>,
    released: u64,
    /// What each name last had.
    former: HashMap<String, Ipv4Addr>,
    /// Names in `former`, oldest first.
    names: VecDeque<String>,
    remember: bool,
}

impl Leases {
    /// All addresses free. With `duplicate_cn` a name is no identity, and nothing is remembered.
    pub(super) fn new(pool: Option<&Pool>, duplicate_cn: bool) -> Self {
        let free: BTreeMap<u64, Ipv4Addr> = (0..).zip(pool.into_iter().flat_map(leasable)).collect();
        let released = u64::try_from(free.len()).unwrap_or(u64::MAX);
        Self { free, released, former: HashMap::new(), names: VecDeque::new(), remember: !duplicate_cn }
    }

    /// An address for `name`: its former one if free, else the one free for longest; `None` when all are leased.
    pub(super) fn lease(&mut self, name: &str) -> Option<Ipv4Addr> {
        let former = self.former.get(name).copied();
        let order = self
            .free
            .iter()
            .find(|(_, address)| Some(**address) == former)
            .or_else(|| self.free.first_key_value())
            .map(|(order, _)| *order)?;
        let address = self.free.remove(&order)?;
        self.keep_in_mind(name, address);
        Some(address)
    }

    /// The address is free again.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.free.insert(self.released, address);
        self.released += 1;
    }

    fn keep_in_mind(&mut self, name: &str, address: Ipv4Addr) {
        if !self.remember || self.former.insert(name.to_owned(), address).is_some() {
            return;
        }
        self.names.push_back(name.to_owned());
        if self.names.len() > MEMORY
            && let Some(oldest) = self.names.pop_front()
        {
            self.former.remove(&oldest);
        }
    }
}

/// Largest pool: a /16.
const MAX_POOL: usize = 65_536;

/// The pool's addresses without the gateway, the subnet's own address and its broadcast address.
fn leasable(pool: &Pool) -> impl Iterator<Item = Ipv4Addr> {
    let mask = u32::from(pool.netmask);
    let network = u32::from(pool.gateway) & mask;
    let taken = [u32::from(pool.gateway), network, network | !mask];
    (u32::from(pool.first)..=u32::from(pool.last))
        .take(MAX_POOL)
        .filter(move |address| !taken.contains(address))
        .map(Ipv4Addr::from)
}
