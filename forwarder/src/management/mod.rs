//! What the operator sees: the state of the gateway as JSON over a Unix socket, and OpenVPN's status file.

/// What goes over the control socket for `trestle capture`.
pub mod capture;
/// Who had which address, as OpenVPN keeps it.
pub mod pool_file;
/// The control socket's server side.
pub mod socket;
/// What `trestle status`, `peers`, `fdb`, `ports` and `drops` answer.
pub mod status;
/// OpenVPN's status file, version 1.
pub mod status_file;
