//! Two workers on two CPUs against one.

use std::{io, time::Duration};

use trestle_bench::memory::Scaling;

const LENGTHS: [usize; 3] = [60, 1414, 1514];
/// Both are measured so often in turn; medians are compared.
const ROUNDS: usize = 9;
const TIME: Duration = Duration::from_millis(200);

/// Prints frames a second of one and of two workers, and their ratio.
pub fn table() -> io::Result<()> {
    println!("{:16} {:>6} {:>10} {:>10} {:>6}", "frames/s", "bytes", "1 worker", "2 workers", "ratio");
    LENGTHS.into_iter().try_for_each(row)
}

fn row(bytes: usize) -> io::Result<()> {
    let mut scaling = Scaling::new(2, bytes)?;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(scaling.frames_per_second(1, TIME)?);
        two.push(scaling.frames_per_second(2, TIME)?);
    }
    let (one, two) = (median(one), median(two));
    println!("{:16} {bytes:>6} {one:>10.0} {two:>10.0} {:>6.2}", "lan-to-peer", two / one);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
