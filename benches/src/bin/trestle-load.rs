//! `trestle-load`: many clients in one, to load a gateway with frames and see what comes back.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    trestle_bench::load::cli::main()
}
