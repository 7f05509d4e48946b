//! Which client gets which address. Source: brief B, "Pool".

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use super::{Former, Pool};

/// The addresses of a pool, free and leased. All tables are bounded by the pool's size.
pub(super) struct Leases {
    /// Free addresses with the order of their release, the longest free first; never leased ones come in ascending
    /// order.
    free: BTreeMap<u64, Ipv4Addr>,
    /// The same by address.
    order: BTreeMap<Ipv4Addr, u64>,
    released: u64,
    /// What each name last had; the inverse of `last`.
    former: HashMap<String, Ipv4Addr>,
    /// Who last had each address.
    last: BTreeMap<Ipv4Addr, String>,
    /// Addresses that only who last had them gets.
    fixed: BTreeSet<Ipv4Addr>,
    remember: bool,
}

impl Leases {
    /// All addresses free, some of them had by `former` holders. With `duplicate_cn` a name is no identity, and nothing
    /// is remembered.
    pub(super) fn new(pool: Option<&Pool>, former: &Former, duplicate_cn: bool) -> Self {
        let free: BTreeMap<u64, Ipv4Addr> = (0..).zip(pool.into_iter().flat_map(leasable)).collect();
        let released = u64::try_from(free.len()).unwrap_or(u64::MAX);
        let order = free.iter().map(|(order, address)| (*address, *order)).collect();
        let mut leases = Self {
            free,
            order,
            released,
            former: HashMap::new(),
            last: BTreeMap::new(),
            fixed: BTreeSet::new(),
            remember: !duplicate_cn,
        };
        former.holders.iter().for_each(|(name, address)| leases.recall(name, *address, former.fixed));
        leases
    }

    /// Who had an address is taken as if they had just released it. Source: pool.c `ifconfig_pool_set`.
    fn recall(&mut self, name: &str, address: Ipv4Addr, fixed: bool) {
        let Some(order) = self.order.get(&address).copied().filter(|_| self.remember) else { return };
        self.free.remove(&order);
        self.release(address);
        self.keep_in_mind(name, address);
        if fixed {
            self.fixed.insert(address);
        }
    }

    /// An address for `name`: its former one if free, else the one free for longest, or, where names mean nothing, the
    /// lowest; `None` when all are leased.
    pub(super) fn lease(&mut self, name: &str) -> Option<Ipv4Addr> {
        let former = self.former.get(name).and_then(|address| self.order.get(address));
        let order = match former {
            Some(order) => *order,
            None if self.remember => self.longest_free()?,
            None => *self.order.first_key_value()?.1,
        };
        let address = self.free.remove(&order)?;
        self.order.remove(&address);
        self.keep_in_mind(name, address);
        Some(address)
    }

    fn longest_free(&self) -> Option<u64> {
        self.free.iter().find(|(_, address)| !self.fixed.contains(address)).map(|(order, _)| *order)
    }

    /// Takes one certain address out of the pool, for a client that is given it by its file. True if it was there and
    /// free: it must be released then.
    pub(super) fn take(&mut self, address: Ipv4Addr) -> bool {
        let order = self.order.remove(&address);
        order.is_some_and(|order| self.free.remove(&order).is_some())
    }

    /// The address is free again.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.free.insert(self.released, address);
        self.order.insert(address, self.released);
        self.released += 1;
    }

    /// Who has or last had which address.
    pub(super) fn holders(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.last.iter().map(|(address, name)| (name.as_str(), *address))
    }

    /// A name has one address, an address one name.
    fn keep_in_mind(&mut self, name: &str, address: Ipv4Addr) {
        if !self.remember {
            return;
        }
        if let Some(other) = self.last.insert(address, name.to_owned()).filter(|other| other != name) {
            self.former.remove(&other);
        }
        if let Some(left) = self.former.insert(name.to_owned(), address).filter(|left| *left != address) {
            self.last.remove(&left);
            self.fixed.remove(&left);
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
        let mut leases = Leases::new(Some(&pool(0, 255)), &Former::default(), false);
        let leased: Vec<u8> = (0..).map_while(|at: u32| lease(&mut leases, &at.to_string())).collect();
        assert_eq!(leased.len(), 253);
        assert!([0, 5, 255].iter().all(|host| !leased.contains(host)));
    }

    #[test]
    fn a_name_gets_its_former_address_and_a_new_one_what_is_free_for_longest() {
        let mut leases = Leases::new(Some(&pool(100, 103)), &Former::default(), false);
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
        let mut leases = Leases::new(Some(&pool(100, 103)), &Former::default(), true);
        assert_eq!(lease(&mut leases, "a"), Some(100));
        assert_eq!(lease(&mut leases, "a"), Some(101));
        leases.release(Ipv4Addr::new(10, 10, 21, 100));
        assert_eq!(lease(&mut leases, "b"), Some(100));
    }

    #[test]
    fn names_remembered_are_bounded_by_the_pool() {
        let mut leases = Leases::new(Some(&pool(100, 109)), &Former::default(), false);
        for at in 0..1000 {
            let address = leases.lease(&at.to_string()).unwrap();
            leases.release(address);
        }
        assert_eq!((leases.former.len(), leases.last.len()), (10, 10));
        assert_eq!(leases.holders().count(), 10);
    }

    fn former(holders: &[(&str, u8)], fixed: bool) -> Former {
        let holders = holders.iter().map(|(name, host)| ((*name).into(), Ipv4Addr::new(10, 10, 21, *host)));
        Former { holders: holders.collect(), fixed }
    }

    #[test]
    fn who_had_an_address_before_a_restart_gets_it_again() {
        let file = former(&[("a", 102), ("b", 100), ("stranger", 7)], false);
        let mut leases = Leases::new(Some(&pool(100, 103)), &file, false);
        let holders: Vec<_> =
            leases.holders().map(|(name, address)| (name.to_owned(), address.octets()[3])).collect();
        assert_eq!(holders, [("b".into(), 100), ("a".into(), 102)]);
        assert_eq!(lease(&mut leases, "c"), Some(101));
        assert_eq!(lease(&mut leases, "a"), Some(102));
        assert_eq!(lease(&mut leases, "d"), Some(103));
        // Not fixed: what is left goes to whoever comes.
        assert_eq!(lease(&mut leases, "e"), Some(100));
        assert_eq!(lease(&mut leases, "b"), None);
    }

    #[test]
    fn a_fixed_address_waits_for_its_holder() {
        let mut leases = Leases::new(Some(&pool(100, 101)), &former(&[("a", 100)], true), false);
        assert_eq!(lease(&mut leases, "b"), Some(101));
        assert_eq!(lease(&mut leases, "c"), None);
        assert_eq!(lease(&mut leases, "a"), Some(100));
        leases.release(Ipv4Addr::new(10, 10, 21, 100));
        assert_eq!(lease(&mut leases, "c"), None);
    }

    #[test]
    fn an_address_taken_for_a_clients_file_is_not_leased() {
        let mut leases = Leases::new(Some(&pool(100, 101)), &Former::default(), false);
        let address = Ipv4Addr::new(10, 10, 21, 100);
        assert!(leases.take(address));
        assert!(!leases.take(address));
        assert!(!leases.take(Ipv4Addr::new(10, 10, 21, 9)));
        assert_eq!((lease(&mut leases, "a"), lease(&mut leases, "b")), (Some(101), None));
        leases.release(address);
        assert_eq!(lease(&mut leases, "b"), Some(100));
    }
}
