//! Wall-clock time.

use std::{io, time::Instant};

use trestle_bench::memory::{Round, Work};

/// Turns that are timed one by one in each pass. More would let the machine change between one way and the next.
const TURNS: usize = 64;
/// Passes over all ways, in turn: what disturbs the machine for a while disturbs all of them alike.
const PASSES: usize = 15;

/// One way, one length, and how long its turns took.
struct Row {
    work: Work,
    bytes: usize,
    round: Round,
    /// Nanoseconds a delivered frame, one for each turn.
    turns: Vec<f64>,
}

/// Times `chosen`, all in turn, and prints nanoseconds a delivered frame.
pub fn table(chosen: &[(Work, usize)]) -> io::Result<()> {
    let mut rows =
        chosen.iter().map(|(work, bytes)| Row::new(*work, *bytes)).collect::<io::Result<Vec<_>>>()?;
    for _ in 0..PASSES {
        rows.iter_mut().try_for_each(Row::pass)?;
    }
    println!("{:16} {:>6} {:>10} {:>8} {:>8}", "ns a frame", "bytes", "median", "10 %", "90 %");
    for row in &mut rows {
        let [low, median, high] = row.quantiles([0.1, 0.5, 0.9]);
        println!("{:16} {:>6} {median:>10.0} {low:>8.0} {high:>8.0}", row.work.name(), row.bytes);
    }
    Ok(())
}

impl Row {
    fn new(work: Work, bytes: usize) -> io::Result<Self> {
        Ok(Self { work, bytes, round: Round::new(work, bytes)?, turns: Vec::with_capacity(PASSES * TURNS) })
    }

    fn pass(&mut self) -> io::Result<()> {
        (0..TURNS).try_for_each(|_| {
            self.round.offer()?;
            let start = Instant::now();
            self.round.turn();
            let took = start.elapsed();
            self.turns.push(took.as_nanos() as f64 / self.work.delivered(self.bytes) as f64);
            self.round.collect()
        })
    }

    fn quantiles<const N: usize>(&mut self, at: [f64; N]) -> [f64; N] {
        self.turns.sort_by(f64::total_cmp);
        at.map(|quantile| self.turns[((self.turns.len() - 1) as f64 * quantile) as usize])
    }
}
