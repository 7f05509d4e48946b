//! What is told at the end: a table, or one JSON object.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Fleet, Session,
    pace::Rate,
    road::Road,
    run::Orders,
    tally::{Sender, Tally, histogram},
};

/// Most sessions that have a line each; more are for programs to read.
const ROWS: usize = 64;
/// Nanoseconds of a microsecond.
const US: f64 = 1000.0;

/// All that `trestle-load -j` prints: these names are a contract. `null` is "not known", never zero.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// The server.
    pub remote: String,
    /// `af-xdp` or `socket`: by which way frames left.
    pub datapath: &'static str,
    /// The same in words, with interface and, where it is the sockets, why.
    pub way: String,
    /// Length of the frame.
    pub frame_bytes: usize,
    /// `session`, `broadcast` or `frame`: where frames went.
    pub to: &'static str,
    /// Whether frames carried number and time: without, order and delay are not known.
    pub stamped: bool,
    /// Frames a second that were asked for; `null`: as many as possible.
    pub rate: Option<u32>,
    /// For how long frames were sent.
    pub seconds: f64,
    /// Sessions asked for.
    pub sessions_wanted: usize,
    /// Sessions that were connected.
    pub sessions_connected: usize,
    /// Those that were not, or ended before the end, each with its reason.
    pub failures: Vec<Failed>,
    /// Frames that the kernel dropped on this host after it had taken them; those the NIC drops are not known.
    pub dropped_here: u64,
    /// How long handshakes took.
    pub handshake_ms: Option<Spread>,
    /// Over all sessions.
    pub total: Line,
    /// Each session.
    pub sessions: Vec<SessionLine>,
}

/// A session that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// Its number.
    pub session: usize,
    /// Why.
    pub reason: String,
}

/// Frames of one session or of all.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Frames the kernel took.
    pub sent: u64,
    /// The same a second.
    pub sent_per_second: f64,
    /// Frames the kernel did not take.
    pub unsent: u64,
    /// Copies that should arrive at sessions of ours.
    pub expected: Option<u64>,
    /// Copies that arrived.
    pub received: u64,
    /// The same a second.
    pub received_per_second: f64,
    /// Copies that did not arrive.
    pub lost: Option<u64>,
    /// Copies that arrived after one that was sent later.
    pub reordered: Option<u64>,
    /// Copies that arrived again.
    pub duplicates: Option<u64>,
    /// From sealing to opening.
    pub delay_us: Option<Spread>,
}

/// How something is spread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// Half are below.
    pub p50: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The most.
    pub max: f64,
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionLine {
    /// Its number.
    pub session: usize,
    /// The server's number for it.
    pub peer_id: u32,
    /// Our address and port.
    pub local: String,
    /// The source of its frames.
    pub mac: String,
    /// How long its handshake took.
    pub handshake_ms: f64,
    /// New keys since.
    pub rekeys: u32,
    /// Its frames.
    #[serde(flatten)]
    pub frames: Line,
}

impl Report {
    pub(super) fn new(
        orders: &Orders,
        road: &Road,
        detour: Option<&str>,
        fleet: &Fleet,
        tally: &Tally,
        sending: Duration,
    ) -> Self {
        let seconds = sending.as_secs_f64();
        let lines = fleet.sessions().iter().filter_map(|session| {
            let sender = tally.senders().get(session.number())?;
            Some(SessionLine::new(session, orders, Line::new(&[sender], tally, seconds)))
        });
        let all: Vec<&Sender> = tally.senders().iter().collect();
        let way = detour.map_or_else(|| road.to_string(), |why| format!("{road} ({why})"));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            remote: fleet.sessions().first().map_or_else(String::new, |first| first.remote().to_string()),
            datapath: road.name(),
            way,
            frame_bytes: orders.cargo.len(),
            to: orders.cargo.to().name(),
            stamped: tally.is_stamped(),
            rate: match orders.rate {
                Rate::PerSecond(rate) => Some(rate),
                Rate::Max => None,
            },
            seconds,
            sessions_wanted: fleet.wanted(),
            sessions_connected: fleet.sessions().len(),
            failures: failures(fleet),
            dropped_here: road.lost(),
            handshake_ms: handshakes(fleet),
            total: Line::new(&all, tally, seconds),
            sessions: lines.collect(),
        }
    }

    /// The report for people: a line for each session, if they are not too many, and one for all.
    pub fn table(&self) -> String {
        let mut text = format!("{:>7} {}\n", "session", Line::HEAD);
        for session in self.sessions.iter().filter(|_| self.sessions.len() <= ROWS) {
            let _ = writeln!(text, "{:>7} {}", session.session, session.frames.cells());
        }
        let _ = writeln!(text, "{:>7} {}", "all", self.total.cells());
        let _ = write!(
            text,
            "\n{} of {} sessions with {}, {} bytes a frame, {:.1} s, by {}\n",
            self.sessions_connected,
            self.sessions_wanted,
            self.remote,
            self.frame_bytes,
            self.seconds,
            self.way
        );
        if let Some(spread) = self.handshake_ms {
            let Spread { p50, p99, max, .. } = spread;
            let _ = writeln!(text, "handshakes: {p50:.1} ms p50, {p99:.1} ms p99, {max:.1} ms at most");
        }
        self.remarks().iter().for_each(|remark| {
            let _ = writeln!(text, "{remark}");
        });
        text
    }

    /// What the figures do not say by themselves.
    fn remarks(&self) -> Vec<String> {
        let mut reasons = BTreeMap::new();
        for Failed { reason, .. } in &self.failures {
            *reasons.entry(reason).or_insert(0) += 1;
        }
        let failed =
            |(reason, count): (&String, i32)| format!("{count} of {}: {reason}", self.sessions_wanted);
        let mut remarks: Vec<String> = reasons.into_iter().map(failed).collect();
        if self.sessions.len() > ROWS {
            remarks.push(format!("More than {ROWS} sessions: `-j` has a line for each."));
        }
        if self.total.unsent > 0 {
            remarks.push(format!(
                "{} frames were not taken by the kernel, and are not counted.",
                self.total.unsent
            ));
        }
        if self.total.expected.is_none() {
            remarks.push("What is lost is not known: the frames are for others than these sessions.".into());
        }
        if self.total.expected.is_some_and(|expected| expected > 0) && self.total.received == 0 {
            remarks.push(
                "Nothing that was sent came back: a server hands frames from session to session with \
                 `client-to-client` only."
                    .into(),
            );
        }
        if !self.stamped {
            remarks.push("Frames carried no stamp: order and delay are not known.".into());
        }
        remarks
    }
}

impl Line {
    const HEAD: &str =
        "      sent     /s   received     /s       lost  reordered  again    p50 µs    p99 µs  p99.9 µs";

    fn new(senders: &[&Sender], tally: &Tally, seconds: f64) -> Self {
        let sum = |field: fn(&Sender) -> u64| senders.iter().map(|sender| field(sender)).sum::<u64>();
        let known = |field: fn(&Sender) -> Option<u64>| {
            senders.iter().map(|sender| field(sender)).sum::<Option<u64>>()
        };
        let (sent, received) = (sum(|sender| sender.sent), sum(|sender| sender.received));
        let mut delay_ns = histogram();
        for sender in senders {
            if let (Some(all), Some(own)) = (&mut delay_ns, &sender.delay_ns) {
                // The same bounds: nothing is out of range.
                let _ = all.add(own);
            }
        }
        Self {
            sent,
            sent_per_second: per(sent, seconds),
            unsent: sum(|sender| sender.unsent),
            expected: known(|sender| sender.expected),
            received,
            received_per_second: per(received, seconds),
            lost: known(Sender::lost),
            reordered: tally.follows_order().then(|| sum(|sender| sender.reordered)),
            duplicates: tally.follows_order().then(|| sum(|sender| sender.duplicates)),
            delay_us: delay_ns.and_then(|all| spread(&all, US)),
        }
    }

    fn cells(&self) -> String {
        let count = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        let us = |pick: fn(&Spread) -> f64| {
            self.delay_us.as_ref().map_or_else(|| "?".to_owned(), |spread| format!("{:.1}", pick(spread)))
        };
        format!(
            "{:>10} {:>6.0} {:>10} {:>6.0} {:>10} {:>10} {:>6} {:>9} {:>9} {:>9}",
            self.sent,
            self.sent_per_second,
            self.received,
            self.received_per_second,
            count(self.lost),
            count(self.reordered),
            count(self.duplicates),
            us(|spread| spread.p50),
            us(|spread| spread.p99),
            us(|spread| spread.p999),
        )
    }
}

impl SessionLine {
    fn new(session: &Session, orders: &Orders, frames: Line) -> Self {
        let mac = orders.cargo.macs().of(session.number());
        Self {
            session: session.number(),
            peer_id: session.peer_id().value(),
            local: session.local().to_string(),
            mac: mac.map(|byte| format!("{byte:02x}")).join(":"),
            handshake_ms: session.handshake().duration().as_secs_f64() * 1000.0,
            rekeys: session.rekeys(),
            frames,
        }
    }
}

fn failures(fleet: &Fleet) -> Vec<Failed> {
    let failed = fleet.failures().iter().map(|failure| (failure.number, &failure.reason));
    let over = fleet.sessions().iter().filter_map(|session| Some((session.number(), session.over()?)));
    failed.chain(over).map(|(session, reason)| Failed { session, reason: reason.to_string() }).collect()
}

fn handshakes(fleet: &Fleet) -> Option<Spread> {
    let mut all = histogram()?;
    for session in fleet.sessions() {
        let ns = u64::try_from(session.handshake().duration().as_nanos()).unwrap_or(u64::MAX);
        all.saturating_record(ns.max(1));
    }
    spread(&all, US * 1000.0)
}

fn spread(histogram: &Histogram<u64>, unit: f64) -> Option<Spread> {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / unit;
    (!histogram.is_empty()).then(|| Spread {
        min: histogram.min() as f64 / unit,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max() as f64 / unit,
    })
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sent: u64, expected: Option<u64>, received: u64) -> Line {
        Line {
            sent,
            sent_per_second: 0.0,
            unsent: 0,
            expected,
            received,
            received_per_second: 0.0,
            lost: expected.map(|expected| expected - received),
            reordered: Some(0),
            duplicates: None,
            delay_us: None,
        }
    }

    fn report(total: Line, sessions: usize) -> Report {
        let session = |number| SessionLine {
            session: number,
            peer_id: 7,
            local: "192.0.2.1:40000".into(),
            mac: "02:00:00:00:00:00".into(),
            handshake_ms: 1.5,
            rekeys: 0,
            frames: total.clone(),
        };
        let failed = |session| Failed { session, reason: "the server is asleep".into() };
        Report {
            version: "0",
            remote: "192.0.2.5:443".into(),
            datapath: "socket",
            way: "UDP sockets".into(),
            frame_bytes: 60,
            to: "session",
            stamped: true,
            rate: None,
            seconds: 1.0,
            sessions_wanted: sessions + 2,
            sessions_connected: sessions,
            failures: [0, 1].map(failed).to_vec(),
            dropped_here: 0,
            handshake_ms: None,
            sessions: (0..sessions).map(session).collect(),
            total,
        }
    }

    #[test]
    fn the_table_says_what_the_figures_do_not() {
        let text = report(line(5, Some(5), 0), 2).table();
        assert_eq!(text.lines().take_while(|line| !line.is_empty()).count(), 4, "{text}");
        assert!(text.contains("2 of 4: the server is asleep"), "{text}");
        assert!(text.contains("`client-to-client`"), "{text}");
        let text = report(line(5, None, 0), 1).table();
        assert!(text.contains("What is lost is not known") && !text.contains("client-to-client"), "{text}");
        assert!(text.contains('?'), "{text}");
    }

    #[test]
    fn a_thousand_sessions_have_no_thousand_lines() {
        let text = report(line(5, Some(5), 5), 1000).table();
        assert!(text.lines().count() < 10 && text.contains("More than 64 sessions"), "{text}");
    }

    #[test]
    fn the_keys_of_the_json_object_are_those_of_the_help() {
        let json = serde_json::to_value(report(line(5, None, 0), 1)).unwrap();
        for key in
            ["version", "remote", "datapath", "way", "failures", "dropped_here", "total", "handshake_ms"]
        {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(json["rate"].is_null() && json["total"]["lost"].is_null());
        assert_eq!((&json["sessions"][0]["sent"], &json["sessions"][0]["peer_id"]), (&5.into(), &7.into()));
        let spread = Spread { min: 1.0, p50: 2.0, p99: 3.0, p999: 4.0, max: 5.0 };
        assert_eq!(serde_json::to_value(spread).unwrap()["p99.9"], 4.0);
    }
}
