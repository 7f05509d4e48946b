//! What happens to an instance: it is admitted or refused, pushed its options, and parts.

use std::{collections::BTreeMap, time::Instant};

use rustls::pki_types::CertificateDer;

use super::{
    Connected, Event, GoneReason, InstanceId, Path, Server,
    admission::{self, Refusal, Terms, Told, refusal},
    instance::{Address, Instance, LINGER, Peer, Stage, Timer},
    name::common_name,
};
use crate::{
    data::{DataKeys, Framing, Role},
    ids::PeerId,
    session::{self, Greeting},
    wire::{
        command::Command,
        key_method::KeyMethod,
        occ,
        peer_info::{PeerInfo, proto},
        push,
    },
};

/// What the session says.
impl Server {
    pub(super) fn handle_event(
        &mut self,
        now: Instant,
        id: InstanceId,
        instance: &mut Instance,
        event: session::Event,
    ) {
        match event {
            session::Event::KeyMethod(_, message) => self.handle_key_method(now, id, instance, &message),
            session::Event::Command(text) => self.handle_command(now, instance, &text),
            session::Event::Failed(reason) => self.handle_failure(now, instance, reason),
            session::Event::Expired => self.leave(now, instance, GoneReason::RekeyFailed),
            // The old key goes on; what matters is whether the session expires.
            session::Event::RekeyFailed(_) => {}
            session::Event::Keys(..) | session::Event::SendWith(_) | session::Event::Retired(_) => {
                self.pass_on(instance, event);
            }
        }
    }

    /// Keys concern the data path only while the client is a peer.
    fn pass_on(&mut self, instance: &Instance, event: session::Event) {
        let Some(peer) = instance.peer() else { return };
        let (peer_id, profile, derivation) = (peer.id, peer.terms.profile, peer.terms.derivation());
        self.events.extend(match event {
            session::Event::Keys(key_id, material) => {
                let block = material.block(derivation);
                let keys = Box::new(DataKeys::new(profile, Role::Server, block.bytes()));
                Some(Event::KeyInstalled { peer_id, key_id, keys })
            }
            session::Event::SendWith(key_id) => Some(Event::SendWith { peer_id, key_id }),
            session::Event::Retired(key_id) => Some(Event::KeyRetired { peer_id, key_id }),
            _ => None,
        });
    }

    fn handle_key_method(
        &mut self,
        now: Instant,
        id: InstanceId,
        instance: &mut Instance,
        message: &KeyMethod,
    ) {
        if matches!(instance.stage, Stage::Lingering(_)) {
            // It has left or was sent away: the way back in is a reset.
            return instance.session.fail(now, "the session is over".into());
        }
        let certificate = instance.session.peer_certificate().map(|shown| shown.clone().into_owned());
        match (instance.peer(), certificate) {
            (Some(peer), Some(shown)) if peer.certificate == shown => {
                let greeting = self.greeting(&peer.terms, &instance.path, message);
                instance.session.accept(now, Some(greeting));
            }
            (Some(_), _) => instance.session.fail(now, "the certificate changed in a rekey".into()),
            (None, Some(certificate)) => self.judge(now, id, instance, message, certificate),
            (None, None) => instance.session.fail(now, "the client showed no certificate".into()),
        }
    }

    fn handle_command(&mut self, now: Instant, instance: &mut Instance, text: &str) {
        match Command::parse(text) {
            Command::PushRequest => self.push(now, instance),
            Command::Exit => self.leave(now, instance, GoneReason::Exit),
            _ => {}
        }
    }

    /// TLS failed: what alert there is gets its time to arrive.
    fn handle_failure(&mut self, now: Instant, instance: &mut Instance, reason: String) {
        match instance.stage {
            Stage::HalfOpen => {
                let reason = format!("its handshake failed: {reason}");
                self.events.push_back(Event::Refused { path: instance.path, name: None, reason });
                instance.stage = Stage::Lingering(now + LINGER);
            }
            Stage::Connected(_) => self.leave(now, instance, GoneReason::RekeyFailed),
            Stage::Lingering(_) => {}
        }
    }
}

/// Coming.
impl Server {
    fn judge(
        &mut self,
        now: Instant,
        id: InstanceId,
        instance: &mut Instance,
        message: &KeyMethod,
        certificate: CertificateDer<'static>,
    ) {
        let name = common_name(&certificate);
        let terms = match &name {
            Some(name) => admission::judge(&self.config, name, &instance.path, message),
            None => Err(refusal(
                "no common name",
                "its certificate has no common name, or one of more than 64 characters: issue a proper one"
                    .into(),
            )),
        };
        let admitted = terms.and_then(|terms| {
            self.part_predecessors(now, &instance.path, &terms.name);
            self.free_number().map(|peer_id| (terms, peer_id))
        });
        match admitted {
            Ok((terms, peer_id)) => self.admit(now, (id, peer_id), instance, message, terms, certificate),
            Err(refusal) => self.refuse(now, instance, message, name, refusal),
        }
    }

    fn admit(
        &mut self,
        now: Instant,
        (id, peer_id): (InstanceId, PeerId),
        instance: &mut Instance,
        message: &KeyMethod,
        terms: Terms,
        certificate: CertificateDer<'static>,
    ) {
        let address = self.address_for(&terms);
        self.numbers.give(peer_id, id);
        if !self.config.duplicate_cn {
            self.by_name.insert(terms.name.clone(), peer_id);
        }
        self.events.push_back(Event::Connected(Connected {
            peer_id,
            name: terms.name.clone(),
            path: instance.path,
            address: address.map(|address| address.address),
            max_stations: terms.particulars.max_stations,
            profile: terms.profile,
            software: terms.info.software.clone(),
        }));
        let greeting = self.greeting(&terms, &instance.path, message);
        let unasked = terms.info.supports(proto::REQUEST_PUSH);
        let dynamic = terms.info.supports(proto::DYN_TLS_CRYPT);
        let peer = Peer {
            id: peer_id,
            terms,
            address,
            certificate,
            last_received: now,
            last_sent: now,
            reset_answered: None,
            pushed: None,
        };
        instance.stage = Stage::Connected(Box::new(peer));
        instance.session.accept(now, Some(greeting));
        if dynamic {
            instance.session.wrap_rekeys(now);
        }
        if unasked {
            self.push(now, instance);
        }
    }

    /// The address that the client's file names, or one of the pool. Without either it is a peer all the same, as
    /// upstream has it: the LAN's DHCP may give it one.
    fn address_for(&mut self, terms: &Terms) -> Option<Address> {
        if let Some((address, netmask)) = terms.particulars.address {
            return Some(Address { address, netmask, pooled: self.leases.take(address) });
        }
        let netmask = self.config.pool.as_ref()?.netmask;
        let address = self.leases.lease(&terms.name)?;
        Some(Address { address, netmask, pooled: true })
    }

    /// The client hears why; it needs our key-method message first, to be able to.
    fn refuse(
        &mut self,
        now: Instant,
        instance: &mut Instance,
        message: &KeyMethod,
        name: Option<String>,
        refusal: Refusal,
    ) {
        if let Some(word) = refusal.told.message(&PeerInfo::parse(&message.peer_info)) {
            let options = String::from_utf8_lossy(&message.options).replace("tls-client", "tls-server");
            instance.session.accept(now, Some(Greeting { options, peer_info: String::new() }));
            instance.session.send_command(now, word);
        }
        instance.stage = Stage::Lingering(now + LINGER);
        self.events.push_back(Event::Refused { path: instance.path, name, reason: refusal.reason });
    }

    fn greeting(&self, terms: &Terms, path: &Path, message: &KeyMethod) -> Greeting {
        // Named only where the client names it too: a difference would make it log a warning.
        let framing = if occ::has_compression(&message.options) { Framing::V2 } else { Framing::None };
        let options = occ::Options {
            tun_mtu: self.config.tun_mtu,
            cipher: terms.profile.cipher,
            framing,
            fragments: terms.profile.fragment.is_some(),
            stream: !path.is_udp(),
            server: true,
        };
        Greeting { options: options.to_text(), peer_info: String::new() }
    }

    fn push(&self, now: Instant, instance: &mut Instance) {
        let Stage::Connected(peer) = &mut instance.stage else { return };
        if !peer.take_push(now) {
            return;
        }
        let options = admission::push_options(&self.config, &peer.terms, peer.address, peer.id);
        for message in push::messages(&options) {
            instance.session.send_command(now, message);
        }
    }

    fn free_number(&self) -> Result<PeerId, Refusal> {
        let number = self.numbers.lowest_free(self.config.max_clients);
        number.ok_or_else(|| {
            let reason = format!(
                "max-clients {} are connected: raise it in the server's file",
                self.config.max_clients
            );
            Refusal { told: Told::Later("server is full"), reason }
        })
    }
}

/// Parting.
impl Server {
    pub(super) fn run_timers(&mut self, now: Instant, instance: &mut Instance) {
        instance.session.handle_timeout(now);
        while let Some((at, timer)) = instance.timeout(&self.config)
            && at <= now
        {
            match timer {
                Timer::Ping => self.ping(now, instance),
                Timer::PingRestart => self.drop_silent(now, instance),
                Timer::Session(_) | Timer::Linger => break,
            }
        }
    }

    fn ping(&mut self, now: Instant, instance: &mut Instance) {
        if let Some(peer) = instance.peer_mut() {
            peer.last_sent = now;
            let peer_id = peer.id;
            self.events.push_back(Event::PingDue { peer_id });
        }
    }

    fn drop_silent(&mut self, now: Instant, instance: &mut Instance) {
        self.leave(now, instance, GoneReason::PingTimeout);
        instance.stage = Stage::Lingering(now);
    }

    /// Ends a peer's session with a last word.
    pub(super) fn part(&mut self, now: Instant, peer_id: PeerId, reason: GoneReason, word: Option<&str>) {
        let Some(id) = self.id_of(peer_id) else { return };
        self.visit(now, id, |server, instance| {
            if let Some(word) = word {
                instance.session.send_command(now, word.to_owned());
            }
            server.leave(now, instance, reason);
        });
    }

    /// The client is no peer any more; its number and address are free.
    fn leave(&mut self, now: Instant, instance: &mut Instance, reason: GoneReason) {
        let stage = std::mem::replace(&mut instance.stage, Stage::Lingering(now + LINGER));
        match stage {
            Stage::Connected(peer) => self.release(&peer, reason),
            Stage::HalfOpen => {}
            Stage::Lingering(until) => instance.stage = Stage::Lingering(until),
        }
    }

    fn release(&mut self, peer: &Peer, reason: GoneReason) {
        self.numbers.take_back(peer.id);
        if self.by_name.get(&peer.terms.name) == Some(&peer.id) {
            self.by_name.remove(&peer.terms.name);
        }
        let pooled = peer.address.filter(|address| address.pooled);
        pooled.into_iter().for_each(|address| self.leases.release(address.address));
        self.events.push_back(Event::Gone { peer_id: peer.id, reason });
    }

    /// A client that is admitted ends what it was before: the session at its address, and, unless `duplicate-cn`,
    /// those of its name.
    fn part_predecessors(&mut self, now: Instant, path: &Path, name: &str) {
        let is_peer =
            |id: &InstanceId| self.instances.get(id).is_some_and(|instance| instance.peer().is_some());
        let named = self.by_name.get(name).and_then(|peer_id| self.id_of(*peer_id));
        let here = self.by_path.get(path).into_iter().flatten().copied();
        let ended: BTreeMap<InstanceId, GoneReason> = named
            .map(|id| (id, GoneReason::Replaced))
            .into_iter()
            .chain(here.map(|id| (id, GoneReason::Restarted)))
            .filter(|(id, _)| is_peer(id))
            .collect();
        for (id, reason) in ended {
            self.end_at_once(now, id, reason);
        }
    }

    pub(super) fn end_at_once(&mut self, now: Instant, id: InstanceId, reason: GoneReason) {
        if let Some(mut instance) = self.instances.remove(&id) {
            self.leave(now, &mut instance, reason);
            self.unlink(id, &instance.path);
        }
    }

    /// True if the peer may float to `path`. Another session there gives way if it is the same client's.
    pub(super) fn clear_way_for_float(&mut self, now: Instant, id: InstanceId, path: &Path) -> bool {
        let Some(peer) = self.instances.get(&id).and_then(Instance::peer) else { return false };
        let ids = self.by_path.get(path).cloned().unwrap_or_default();
        let others = ids.into_iter().filter(|other| *other != id);
        let others = others.filter_map(|other| Some((other, self.instances.get(&other)?.peer()?)));
        let (same, different): (Vec<_>, Vec<_>) =
            others.partition(|(_, other)| other.certificate == peer.certificate);
        let free = different.is_empty();
        let same: Vec<InstanceId> = same.into_iter().map(|(id, _)| id).filter(|_| free).collect();
        for other in same {
            self.end_at_once(now, other, GoneReason::Replaced);
        }
        free
    }
}
