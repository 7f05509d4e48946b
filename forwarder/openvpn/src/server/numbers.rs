//! Which number belongs to which connected session. The lowest free one is given.

use std::collections::BTreeSet;

use super::InstanceId;
use crate::ids::PeerId;

/// Peer ids in use.
#[derive(Default)]
pub(super) struct Numbers {
    /// By peer id: `holders.len() <= max_clients`.
    holders: Vec<Option<InstanceId>>,
    /// The empty places of `holders`.
    free: BTreeSet<usize>,
}

impl Numbers {
    /// Who has `peer_id`.
    pub(super) fn holder(&self, peer_id: PeerId) -> Option<InstanceId> {
        self.holders.get(peer_id.index()).copied().flatten()
    }

    /// Numbers in use.
    pub(super) fn len(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    /// The lowest free number below `most`.
    pub(super) fn lowest_free(&self, most: usize) -> Option<PeerId> {
        let index = self.free.first().copied().unwrap_or(self.holders.len());
        Some(index).filter(|index| *index < most).and_then(|index| PeerId::new(u32::try_from(index).ok()?))
    }

    /// Gives `peer_id`, which [`Self::lowest_free`] named, to `id`.
    pub(super) fn give(&mut self, peer_id: PeerId, id: InstanceId) {
        if peer_id.index() == self.holders.len() {
            self.holders.push(Some(id));
        } else if self.free.remove(&peer_id.index()) {
            self.holders[peer_id.index()] = Some(id);
        }
    }

    /// The number is free again.
    pub(super) fn take_back(&mut self, peer_id: PeerId) {
        if self.holders.get_mut(peer_id.index()).and_then(Option::take).is_some() {
            self.free.insert(peer_id.index());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
