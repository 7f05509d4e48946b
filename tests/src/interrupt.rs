use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

use crate::{Fault, Result};

/// From now on Ctrl-C and SIGTERM set the flag that is returned, so that networks are removed in good order; the second
/// ends the process at once, and the next start removes what is left.
///
/// To be called before other threads are started: they inherit that the signals are blocked. So do child processes:
/// see [`unblocked`].
pub fn watch() -> Result<Arc<AtomicBool>> {
    let signals = signals();
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

/// Does `work`, which starts a child process, on a thread that does not block what [`watch`] blocks: the child would
/// inherit it, and never hear that it is to end.
///
/// A Ctrl-C in this very moment ends the process as if nothing watched; the next start removes what is left.
pub fn unblocked<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // It fails for a signal that does not exist only.
            let _ = signals().thread_unblock();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals
}
