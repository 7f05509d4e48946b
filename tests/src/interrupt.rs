use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

use crate::{Fault, Result};

/// From now on Ctrl-C and SIGTERM set the flag that is returned, so that networks are removed in good order; the second
/// ends the process at once, and the next start removes what is left.
///
/// To be called before other threads are started: they inherit that the signals are blocked.
pub fn watch() -> Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().map_err(Fault::os("blocking signals"))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            if flag.swap(true, Ordering::Relaxed) {
                exit(130);
            }
            eprintln!("interrupted: tidying up");
        }
    });
    Ok(interrupted)
}
