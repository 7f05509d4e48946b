//! One run: frames at a pace through all sessions, and what comes back.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    Fleet,
    cargo::{Cargo, CargoError, To},
    nic::Nic,
    pace::{Pace, Rate},
    report::Report,
    road::{BURST, Burst, Road},
    tally::Tally,
    udp::Udp,
};

/// How long the gateway may take to learn where the sessions are.
const LEARNING: Duration = Duration::from_millis(200);
/// Sessions announced in a row: a stock server's socket holds some two hundred short packets.
const ANNOUNCED: usize = 32;
/// And how long the server may take to breathe.
const BREATH: Duration = Duration::from_millis(1);
/// How long frames may be under way after the last was sent.
const LINGER: Duration = Duration::from_millis(500);
/// Frames of one session in a row at `--rate max`: enough for a call to pay, and half of what stock clients accept in
/// disorder (a replay window of 64).
const IN_A_ROW: usize = 32;
/// Frames between two looks at what has arrived.
const BATCH: usize = 128;
/// Longest sleep: keepalives and Ctrl-C are looked after that often.
const NAP: Duration = Duration::from_millis(10);

/// By which way packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// The faster one of those that can be had.
    Auto,
    /// AF_XDP or not at all.
    AfXdp,
    /// The sockets.
    Socket,
}

/// What to send, how fast, for how long.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The frame.
    pub cargo: Cargo,
    /// Of all sessions together.
    pub rate: Rate,
    /// For how long.
    pub duration: Duration,
    /// By which way.
    pub datapath: Datapath,
    /// The NIC that must be used, by index; `None`: that of the route.
    pub interface: Option<u32>,
}

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The frame does not fit what is asked.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// AF_XDP was asked for and is not to be had.
    #[error("AF_XDP cannot be used: {0}; `--datapath auto` uses the sockets then")]
    NoAfXdp(String),
}

/// A run that is prepared.
#[derive(Debug)]
pub struct Run {
    orders: Orders,
    road: Road,
    /// Why it is not AF_XDP.
    detour: Option<String>,
    /// Next sequence number by session number.
    sequences: Vec<u32>,
    /// Index of the session whose turn it is.
    turn: usize,
}

impl Run {
    /// Opens the way for `orders` through the sessions of `fleet`.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn prepare(orders: Orders, fleet: &Fleet) -> Result<Self, RunError> {
        if orders.cargo.to() == To::Session && fleet.live() < 2 {
            return Err(CargoError::Alone.into());
        }
        let (road, detour) = choose(&orders, fleet)?;
        let sessions = fleet.sessions().last().map_or(0, |last| last.number() + 1);
        Ok(Self { orders, road, detour, sequences: vec![0; sessions], turn: 0 })
    }

    /// By which way frames go, and why, as a sentence's part.
    pub fn way(&self) -> String {
        match &self.detour {
            Some(why) => format!("{} ({why})", self.road),
            None => self.road.to_string(),
        }
    }

    /// Sends, receives and reports; raising `stop` ends it early.
    pub fn go(mut self, fleet: &mut Fleet, stop: &AtomicBool) -> Report {
        self.announce(fleet);
        let began = Instant::now();
        let live = fleet.live();
        let mut tally = Tally::new(&self.orders.cargo, self.sequences.len(), live, began);
        let mut pace = Pace::new(self.orders.rate, began);
        let until = began + self.orders.duration;
        loop {
            let now = Instant::now();
            if now >= until || stop.load(Ordering::Relaxed) || fleet.live() == 0 {
                break;
            }
            let due = pace.due(now, BATCH);
            if due > 0 {
                pace.count(due);
                self.send(fleet, &mut tally, due, now);
            }
            let wait = pace.wait(now).min(NAP).min(until.saturating_duration_since(now));
            self.receive(fleet, &mut tally, wait);
        }
        let sending = began.elapsed();
        self.await_rest(fleet, &mut tally, stop);
        Report::new(&self.orders, &self.road, self.detour.as_deref(), fleet, &tally, sending)
    }

    /// Has the gateway learn where the sessions are, so that frames between them are not flooded.
    fn announce(&mut self, fleet: &mut Fleet) {
        for at in 0..fleet.sessions().len() {
            let Some(session) = fleet.sessions_mut().get_mut(at).filter(|session| session.over().is_none())
            else {
                continue;
            };
            // There is a key since it was connected, and the frame is short.
            let _ = session.send(Instant::now(), &self.orders.cargo.announcement(session.number()));
            if at % ANNOUNCED == ANNOUNCED - 1 {
                fleet.turn(BREATH, |_, _| {});
            }
        }
        let until = Instant::now() + LEARNING;
        while Instant::now() < until {
            fleet.turn(NAP, |_, _| {});
        }
    }

    /// Sends `count` frames, some of one session in a row, then of the next.
    fn send(&mut self, fleet: &mut Fleet, tally: &mut Tally, count: usize, now: Instant) {
        let in_a_row = match self.orders.rate {
            Rate::Max => IN_A_ROW,
            Rate::PerSecond(_) => count.div_ceil(fleet.live().max(1)).min(BURST),
        };
        let mut left = count;
        while left > 0 {
            let Some(at) = self.next_turn(fleet) else { return };
            let part = in_a_row.min(left);
            self.send_burst(fleet, tally, at, part, now);
            left -= part;
        }
        self.road.flush();
    }

    fn send_burst(&mut self, fleet: &mut Fleet, tally: &mut Tally, at: usize, count: usize, now: Instant) {
        let sessions = fleet.sessions_mut();
        let next = next_live(sessions, at).map_or(0, |next| sessions[next].number());
        let session = &mut sessions[at];
        let number = session.number();
        self.orders.cargo.dress(number, next);
        let mut burst =
            Burst { cargo: &mut self.orders.cargo, tally, sequence: &mut self.sequences[number], now };
        self.road.send(session, &mut burst, count);
    }

    /// Index of the next session that is up.
    fn next_turn(&mut self, fleet: &Fleet) -> Option<usize> {
        let at = next_live(fleet.sessions(), self.turn)?;
        self.turn = at;
        Some(at)
    }

    fn receive(&mut self, fleet: &mut Fleet, tally: &mut Tally, wait: Duration) {
        let mut sink = |number, frame: &[u8]| tally.received(number, frame, Instant::now());
        let any = self.road.receive(fleet, &mut sink);
        fleet.turn(if any { Duration::ZERO } else { wait }, &mut sink);
    }

    /// Waits for frames under way.
    fn await_rest(&mut self, fleet: &mut Fleet, tally: &mut Tally, stop: &AtomicBool) {
        let until = Instant::now() + LINGER;
        while Instant::now() < until && !tally.is_complete() && !stop.load(Ordering::Relaxed) {
            self.receive(fleet, tally, Duration::from_millis(1));
        }
    }
}

/// The road for `orders`, and why it is not AF_XDP.
fn choose(orders: &Orders, fleet: &Fleet) -> Result<(Road, Option<String>), RunError> {
    let udp = || Road::Udp(Udp::new(&orders.cargo));
    let forced = match orders.datapath {
        Datapath::Socket => return Ok((udp(), Some("`--datapath socket` asks for it".to_owned()))),
        Datapath::AfXdp => true,
        Datapath::Auto => false,
    };
    match Nic::open(fleet, &orders.cargo, orders.interface, forced) {
        Ok(nic) => Ok((Road::Nic(Box::new(nic)), None)),
        Err(why) if forced => Err(RunError::NoAfXdp(why)),
        Err(why) => Ok((udp(), Some(why))),
    }
}

/// The first session after `at`, round in a ring, that is up.
fn next_live(sessions: &[super::Session], at: usize) -> Option<usize> {
    let count = sessions.len();
    (1..=count).map(|step| (at + step) % count).find(|&index| sessions[index].over().is_none())
}
