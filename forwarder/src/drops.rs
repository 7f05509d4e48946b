//! Every lost frame has a name: the reasons, declared once, with the sentence an operator reads.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $cure:literal;)*) => {
        /// Why a frame or packet was not delivered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Drop {
            $(#[doc = $cure] $variant,)*
        }

        impl Drop {
            /// All reasons, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The counter's name: `drops.<name>` in `trestle status -j`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means and what to do, for an operator.
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$variant => $cure,)* }
            }
        }
    };
}

drop_reasons! {
    // What arrives on the tunnel's port.
    TunnelMalformed = "tunnel_malformed", "A packet on the tunnel's port is too short, or of no kind OpenVPN has. Scanners send them; nothing to do.";
    ControlMalformed = "control_malformed", "A control packet cannot be parsed. Scanners send them; nothing to do.";
    ControlUnknownPeer = "control_unknown_peer", "A control packet from an address without a session and without a valid cookie. After a restart of the gateway clients send some until they reconnect.";
    ControlOutOfSync = "control_out_of_sync", "A control packet for a key that is no longer negotiated, or outside the receive window. It is sent again if it matters.";
    ControlUnauthentic = "control_unauthentic", "A control packet is not wrapped with the key of tls-auth, tls-crypt or tls-crypt-v2, or not at all. Scanners send them; a client whose attempts all end here has another key, direction or `auth`.";
    ControlReplayed = "control_replayed", "A wrapped control packet was received before, or long after later ones. A path that repeats packets, or somebody who does.";
    ControlRateLimited = "control_rate_limited", "More first packets in 10 s than connect-freq-initial allows. Many reconnecting clients, or a flood.";
    ControlRefused = "control_refused", "A client was refused: certificate, cipher or capability. The log names it and the reason.";
    ControlQueueFull = "control_queue_full", "The control thread is behind; clients repeat control packets. If it lasts, the machine is overloaded.";
    PeerUnknown = "peer_unknown", "A data packet names a peer_id that has no session. After a restart of the gateway clients send some until keepalive tells them.";
    KeyUnknown = "key_unknown", "A data packet names a key_id that is not installed, usually just after a rekey.";
    AuthenticationFailed = "authentication_failed", "A data packet does not authenticate: forged, corrupted, or of another session.";
    Replayed = "replayed", "A data packet was received before, or is older than the replay window.";
    PlaintextMalformed = "plaintext_malformed", "An authentic data packet holds no Ethernet frame: a client with other compression settings, or dev tun.";
    ReceiveQueueFull = "receive_queue_full", "The worker does not take frames from the NIC as fast as they arrive (AF_XDP ring full or no memory to receive into). More queues and workers, or less load.";
    TunnelSocketFull = "tunnel_socket_full", "The worker does not take tunnel packets from the kernel's socket as fast as they arrive: fragments in disorder, or --datapath socket. Raise net.core.rmem_max, or keep outer packets below the MTU.";
    FragmentsIncomplete = "fragments_incomplete", "Of a tunnel packet that came in IP fragments one did not come within half a second: the path loses packets. One packet a frame (a path or tun-mtu that needs no fragments) loses less.";
    FragmentsCrowdedOut = "fragments_crowded_out", "A tunnel packet that came in IP fragments gave way to newer ones before all were there: a flood of forged fragments, or a path that loses very many.";
    FragmentMalformed = "fragment_malformed", "IP fragments of a tunnel packet overlap, contradict each other, or are too many or too long for a frame of the segment. Forged, or of a client with a larger tun-mtu.";
    // What the switch decides.
    FrameMalformed = "frame_malformed", "A frame is shorter than an Ethernet header or longer than the segment's largest frame.";
    SourceInvalid = "source_invalid", "A frame's source address is zero, broadcast or multicast.";
    SourceIsGateway = "source_is_gateway", "A peer sent a frame with the source address of the gateway host or of a router it uses. Two machines share an address, or the peer is hostile.";
    MacLimit = "mac_limit", "A peer has more stations behind it than max-routes-per-client allows; frames from further ones are dropped.";
    MacTableFull = "mac_table_full", "The MAC table is full; frames to stations it lacks are flooded. More than 65,536 stations, or a flood of invented addresses.";
    LinkLocalGroup = "link_local_group", "A peer sent to 01:80:C2:00:00:0x (spanning tree, LLDP, LACP), which does not cross to the wire.";
    HairpinFiltered = "hairpin_filtered", "A frame's destination stands where it came from.";
    StormBroadcast = "storm_broadcast", "A peer sent more broadcasts a second than its limit (--storm-limit broadcast=N). A loop or a broken machine behind it, or a limit too low.";
    StormMulticast = "storm_multicast", "A peer sent more multicasts a second than its limit (--storm-limit multicast=N). A stream of pictures or sound, or a limit too low.";
    StormUnknown = "storm_unknown", "A peer sent more frames a second to stations nobody knows than its limit (--storm-limit unknown=N). A scan, a station that has left, or a limit too low.";
    LoopGuard = "loop_guard", "A frame from or to a peer that the loop guard holds down, because it joins the segment to itself, or a probe that came back through a loop. `trestle status` names both ends: open one of the two ways.";
    // What the way out refuses.
    PeerNoKey = "peer_no_key", "A frame for a peer whose data key is not agreed yet.";
    PeerNoPath = "peer_no_path", "A packet for a peer to whom the host has no route.";
    KeyExhausted = "key_exhausted", "A data key has been used as often as is safe and the next is not agreed.";
    NoFreeFrame = "no_free_frame", "The worker's memory is full: it is offered more than it can send.";
    TransmitQueueFull = "transmit_queue_full", "The NIC takes frames more slowly than they are offered.";
    WireGone = "wire_gone", "A frame for a port of the bridge that was taken away at that moment.";
    SocketSendFailed = "socket_send_failed", "The kernel did not take a tunnel packet; the log has the error.";
    HostPortFull = "host_port_full", "The host does not take frames as fast as peers send them.";
    HostPortOverrun = "host_port_overrun", "The worker does not take frames for peers from the host port as fast as the host and the kernel put them there.";
    StreamQueueFull = "stream_queue_full", "A peer over TCP does not take packets as fast as they are sent: its link is slow, or it does not read. More than tcp-queue-limit would only wait longer.";
    StreamGone = "stream_gone", "A packet for a peer whose TCP connection has just been closed.";
    HandoverFull = "handover_full", "The worker that owns a peer is behind.";
    ChecksumUnfinishable = "checksum_unfinishable", "A frame of the host says that its checksum is unfinished, where there is none.";
    SegmentMalformed = "segment_malformed", "The host handed over a large TCP segment that cannot be cut.";
}

/// Counters of one thread, read by others at any time.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; Drop::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Drop::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one frame lost for `reason`.
    pub fn count(&self, reason: Drop) {
        self.add(reason, 1);
    }

    /// Counts `frames` lost for `reason`.
    pub fn add(&self, reason: Drop, frames: u64) {
        self.0[reason as usize].fetch_add(frames, Ordering::Relaxed);
    }

    /// Frames lost for `reason` since the start.
    pub fn get(&self, reason: Drop) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}
