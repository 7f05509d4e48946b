//! Which number belongs to which connected session. The lowest free one is given.

use std::collections::BTreeSet;

use super::InstanceId;
use crate::ids::PeerId;

/// Which peer ids a server gives, where several servers of one gateway must give different ones: of `of` shares the one
/// of this index.
///
/// ```text
///   peer id      0 .. 255   256 .. 511   512 .. 767   768 ..
///   share of 2      0           1            0           1
/// ```
///
/// Low numbers keep tables by peer short; whole blocks spread a server's peers over all workers, which take every n-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: usize,
    of: usize,
}

/// Numbers in a block: more than a machine has workers.
const BLOCK: usize = 256;

impl Default for Share {
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl Share {
    /// The share `index` of `of`; `None` unless it is one of them.
    pub const fn new(index: usize, of: usize) -> Option<Self> {
        if index < of { Some(Self { index, of }) } else { None }
    }

    /// The index of the share, of `of`, that `peer_id` belongs to.
    pub const fn index_of(peer_id: PeerId, of: usize) -> usize {
        if of == 0 { 0 } else { peer_id.index() / BLOCK % of }
    }

    /// The share's number at `place`.
    fn number(self, place: usize) -> Option<PeerId> {
        let block = (place / BLOCK).checked_mul(self.of)?.checked_add(self.index)?;
        PeerId::new(u32::try_from(block.checked_mul(BLOCK)? + place % BLOCK).ok()?)
    }

    /// Where `peer_id` stands in the share, if it does.
    fn place(self, peer_id: PeerId) -> Option<usize> {
        let (block, rest) = (peer_id.index() / BLOCK, peer_id.index() % BLOCK);
        (block % self.of == self.index).then_some(block / self.of * BLOCK + rest)
    }
}

/// Peer ids in use.
#[derive(Default)]
pub(super) struct Numbers {
    share: Share,
    /// By place in the share: `holders.len() <= max_clients`.
    holders: Vec<Option<InstanceId>>,
    /// The empty places of `holders`.
    free: BTreeSet<usize>,
}

impl Numbers {
    /// None in use, of a share.
    pub(super) fn of(share: Share) -> Self {
        Self { share, ..Self::default() }
    }

    /// Who has `peer_id`.
    pub(super) fn holder(&self, peer_id: PeerId) -> Option<InstanceId> {
        self.holders.get(self.share.place(peer_id)?).copied().flatten()
    }

    /// Numbers in use.
    pub(super) fn len(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    /// The lowest free number of the first `most`.
    pub(super) fn lowest_free(&self, most: usize) -> Option<PeerId> {
        let index = self.free.first().copied().unwrap_or(self.holders.len());
        Some(index).filter(|index| *index < most).and_then(|index| self.share.number(index))
    }

    /// Gives `peer_id`, which [`Self::lowest_free`] named, to `id`.
    pub(super) fn give(&mut self, peer_id: PeerId, id: InstanceId) {
        let Some(place) = self.share.place(peer_id) else { return };
        if place == self.holders.len() {
            self.holders.push(Some(id));
        } else if self.free.remove(&place) {
            self.holders[place] = Some(id);
        }
    }

    /// The number is free again.
    pub(super) fn take_back(&mut self, peer_id: PeerId) {
        let Some(place) = self.share.place(peer_id) else { return };
        if self.holders.get_mut(place).and_then(Option::take).is_some() {
            self.free.insert(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_all_numbers_and_none_in_common() {
        for of in [1, 2, 3, 16] {
            let mut seen = BTreeSet::new();
            for index in 0..of {
                let share = Share::new(index, of).unwrap();
                for place in 0..1000 {
                    let number = share.number(place).unwrap();
                    assert_eq!((share.place(number), Share::index_of(number, of)), (Some(place), index));
                    assert!(seen.insert(number), "{number} twice");
                    let other = Share::new((index + 1) % of, of).unwrap();
                    assert!(of == 1 || other.place(number).is_none());
                }
            }
            assert!(seen.iter().take(700 * of).map(|number| number.index()).eq(0..700 * of));
        }
        assert_eq!(Share::new(2, 2), None);
        assert_eq!(Share::new(1, 2).and_then(|share| share.number(1 << 23)), None);
    }

    #[test]
    fn a_share_gives_its_own_numbers_only() {
        let mut numbers = Numbers::of(Share::new(1, 2).unwrap());
        let first = numbers.lowest_free(1).unwrap();
        numbers.give(first, 7);
        assert_eq!((first.value(), numbers.holder(first), numbers.lowest_free(1)), (256, Some(7), None));
        let strange = PeerId::new(0).unwrap();
        numbers.give(strange, 8);
        assert_eq!((numbers.holder(strange), numbers.len()), (None, 1));
        numbers.take_back(first);
        assert_eq!((numbers.len(), numbers.lowest_free(1)), (0, Some(first)));
    }

    #[test]
    fn the_lowest_free_number_is_given_and_none_beyond_the_limit() {
        let mut numbers = Numbers::default();
        let give = |numbers: &mut Numbers, id| {
            let number = numbers.lowest_free(3)?;
            numbers.give(number, id);
            Some(number.value())
        };
        assert_eq!([10, 11, 12, 13].map(|id| give(&mut numbers, id)), [Some(0), Some(1), Some(2), None]);
        let number = |value| PeerId::new(value).unwrap();
        numbers.take_back(number(1));
        numbers.take_back(number(1));
        numbers.take_back(number(0));
        numbers.take_back(number(9));
        assert_eq!(
            (numbers.len(), numbers.holder(number(0)), numbers.holder(number(2))),
            (1, None, Some(12))
        );
        assert_eq!([14, 15, 16].map(|id| give(&mut numbers, id)), [Some(0), Some(1), None]);
        assert_eq!((numbers.len(), numbers.holder(number(1))), (3, Some(15)));
    }
}
