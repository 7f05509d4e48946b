//! Peers whose packets name no peer (`P_DATA_V1`): theirs is what comes from where they are.
//!
//! Such a packet may come to any worker, so each keeps all of their places, by command of the control thread, and hands
//! over what is another's. Peers that do name themselves never come here.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use openvpn::{ids::PeerId, server::Path};

/// Where these peers are. Bounded by `max-clients`.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    // Seeded at random: peers choose their ports.
    by_path: HashMap<Path, PeerId, RandomState>,
}

impl Unnamed {
    /// Whose packets come by `path`.
    pub fn at(&self, path: &Path) -> Option<PeerId> {
        self.by_path.get(path).copied()
    }

    /// Packets by `path` are the peer's from now on; `None`: nobody's.
    pub fn set(&mut self, path: Path, peer_id: Option<PeerId>) {
        match peer_id {
            Some(peer_id) => _ = self.by_path.insert(path, peer_id),
            None => _ = self.by_path.remove(&path),
        }
    }
}
