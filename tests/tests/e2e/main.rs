//! End to end: real OpenVPN clients, real stacks and raw frames across a gateway, in network namespaces.

use std::process::ExitCode;

mod pings;

fn main() -> ExitCode {
    ExitCode::from(trestle_tests::runner::main(&[pings::SUITE]))
}
