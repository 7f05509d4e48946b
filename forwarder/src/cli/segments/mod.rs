//! `trestle run --config trestle.toml`: a process for each segment, and one that starts, watches and reloads them.
//!
//! ```text
//!  trestle.toml ─ accepted: read, every server file and certificate judged ─ compared with what runs
//!                                                                              │
//!      supervisor ── trestle run ... --supervisor PID (office) ◄── restarted ──┤
//!                 └─ trestle run ... --supervisor PID (lab)    ◄── kept ───────┘
//! ```

mod accepted;
mod child;
mod notify;
mod supervisor;

pub(super) use supervisor::run;
