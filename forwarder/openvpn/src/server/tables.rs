//! Keeping the server's tables together: every instance is found by its number, its address and its timer.

use std::time::Instant;

use super::{
    Event, InstanceId, Path, Server, Transmit,
    instance::{Instance, Stage, Timer},
    numbers::Numbers,
};
use crate::ids::PeerId;

impl Server {
    pub(super) fn id_of(&self, peer_id: PeerId) -> Option<InstanceId> {
        self.numbers.holder(peer_id)
    }

    /// Every change of an instance goes through here: afterwards its events are handled, its packets queued, its
    /// timer on record is right, and it is forgotten if it is over. `None` if there is no such instance.
    pub(super) fn visit<T>(
        &mut self,
        now: Instant,
        id: InstanceId,
        change: impl FnOnce(&mut Self, &mut Instance) -> T,
    ) -> Option<T> {
        let mut instance = self.instances.remove(&id)?;
        let result = change(self, &mut instance);
        while let Some(event) = instance.session.poll_event() {
            self.handle_event(now, id, &mut instance, event);
        }
        while let Some(payload) = instance.session.poll_transmit(now) {
            self.transmits.push_back(Transmit { path: instance.path, payload });
            if let Some(peer) = instance.peer_mut() {
                peer.last_sent = now;
            }
        }
        instance.session.poll_job().into_iter().for_each(|job| self.jobs.add(id, job));
        self.record_timer(id, instance.timeout(&self.config));
        if self.is_over(now, &instance) {
            self.unlink(id, &instance.path);
        } else {
            self.instances.insert(id, instance);
        }
        Some(result)
    }

    pub(super) fn is_over(&self, now: Instant, instance: &Instance) -> bool {
        match instance.stage {
            Stage::HalfOpen => self.stop_at.is_some(),
            Stage::Connected(_) => false,
            Stage::Lingering(until) => until <= now || self.stop_at.is_some() && instance.session.is_quiet(),
        }
    }

    pub(super) fn record_timer(&mut self, id: InstanceId, timer: Option<(Instant, Timer)>) {
        if let Some(before) = self.timer_of.remove(&id) {
            self.timers.remove(&(before, id));
        }
        if let Some((at, timer)) = timer {
            self.timer_of.insert(id, at);
            self.timers.insert((at, id), timer.reason());
        }
    }

    pub(super) fn unlink(&mut self, id: InstanceId, path: &Path) {
        self.record_timer(id, None);
        if let Some(ids) = self.by_path.get_mut(path) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_path.remove(path);
                if !path.is_udp() {
                    self.events.push_back(Event::PathUnused { path: *path });
                }
            }
        }
    }

    pub(super) fn move_instance(&mut self, id: InstanceId, path: Path) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let former = std::mem::replace(&mut instance.path, path);
        let timer = instance.timeout(&self.config);
        self.unlink(id, &former);
        self.by_path.entry(path).or_default().push(id);
        self.record_timer(id, timer);
    }

    pub(super) fn forget_all(&mut self) {
        self.instances.clear();
        self.by_path.clear();
        self.numbers = Numbers::of(self.config.share);
        self.by_name.clear();
        self.timers.clear();
        self.timer_of.clear();
    }
}
