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
    /// The same by address.
    order: BTreeMap<Ipv4Addr, u64>,
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
        let order = free.iter().map(|(order, address)| (*address, *order)).collect();
        Self {
            free,
            order,
            released,
            former: HashMap::new(),
            names: VecDeque::new(),
            remember: !duplicate_cn,
        }
    }

    /// An address for `name`: its former one if free, else the one free for longest, or, where names mean nothing, the
    /// lowest; `None` when all are leased.
    pub(super) fn lease(&mut self, name: &str) -> Option<Ipv4Addr> {
        let former = self.former.get(name).and_then(|address| self.order.get(address));
        let order = match former {
            Some(order) => *order,
            None if self.remember => *self.free.first_key_value()?.0,
            None => *self.order.first_key_value()?.1,
        };
        let address = self.free.remove(&order)?;
        self.order.remove(&address);
        self.keep_in_mind(name, address);
        Some(address)
    }

    /// The address is free again.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.free.insert(self.released, address);
        self.order.insert(address, self.released);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(first: u8, last: u8) -> Pool {
        let address = |host| Ipv4Addr::new(10, 10, 21, host);
        Pool {
            gateway: address(5),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            first: address(first),
            last: address(last),
        }
    }

    fn lease(leases: &mut Leases, name: &str) -> Option<u8> {
        leases.lease(name).map(|address| address.octets()[3])
    }

    #[test]
    fn neither_network_nor_gateway_nor_broadcast_is_leased() {
        let mut leases = Leases::new(Some(&pool(0, 255)), false);
        let leased: Vec<u8> = (0..).map_while(|at: u32| lease(&mut leases, &at.to_string())).collect();
        assert_eq!(leased.len(), 253);
        assert!([0, 5, 255].iter().all(|host| !leased.contains(host)));
    }

    #[test]
    fn a_name_gets_its_former_address_and_a_new_one_what_is_free_for_longest() {
        let mut leases = Leases::new(Some(&pool(100, 103)), false);
        for (name, host) in [("a", 100), ("b", 101), ("c", 102), ("d", 103)] {
            assert_eq!(lease(&mut leases, name), Some(host));
        }
        assert_eq!(lease(&mut leases, "e"), None);
        for host in [102, 100, 101] {
            leases.release(Ipv4Addr::new(10, 10, 21, host));
        }
        assert_eq!(lease(&mut leases, "b"), Some(101));
        assert_eq!(lease(&mut leases, "e"), Some(102));
        assert_eq!(lease(&mut leases, "c"), Some(100));
    }

    #[test]
    fn with_duplicate_cn_the_lowest_free_address_is_leased() {
        let mut leases = Leases::new(Some(&pool(100, 103)), true);
        assert_eq!(lease(&mut leases, "a"), Some(100));
        assert_eq!(lease(&mut leases, "a"), Some(101));
        leases.release(Ipv4Addr::new(10, 10, 21, 100));
        assert_eq!(lease(&mut leases, "b"), Some(100));
    }

    #[test]
    fn names_remembered_are_bounded() {
        let mut leases = Leases::new(Some(&pool(100, 200)), false);
        for at in 0..2 * MEMORY {
            let address = leases.lease(&at.to_string()).unwrap();
            leases.release(address);
        }
        assert_eq!((leases.former.len(), leases.names.len()), (MEMORY, MEMORY));
    }
}
