//! `trestle join`: the command line and a client's profile into one [`Config`], and the gateway started with it.

use std::path::PathBuf;

use clap::Args;

use super::{Error, run};
use crate::config::{self, Config, Note, client};

/// What `trestle join` takes.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// OpenVPN's client profile, as it stands
    #[arg(value_name = "CLIENT.OVPN")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    gateway: run::GatewayArgs,
}

/// Runs the gateway until it is told to stop, or the server refuses it for good.
///
/// # Errors
/// What is wrong with the command line, the profile, or the host; why the server refuses us.
pub fn run(args: JoinArgs) -> Result<(), Error> {
    run::start(configure(args)?)
}

/// Everything that can be wrong before the host is touched.
///
/// # Errors
/// What is not there yet, a wrong list, an unusable profile or certificate.
pub fn configure(args: JoinArgs) -> Result<(Config, Vec<Note>), Error> {
    let path = args.profile;
    args.gateway.configure(|| {
        let path = path.as_deref().ok_or_else(|| {
            Error::new("no profile is named; name OpenVPN's: `trestle join client.ovpn --uplink NIC`")
        })?;
        let client = client::read(path)?;
        let loaded = config::tls::load_client(&client, run::unix_time())?;
        let (wrapping, notes) = config::wrapping::load_client(&client.common)?;
        let common = client.common.clone();
        let role = config::Role::Client { file: Box::new(client), tls: loaded.tls, wrapping };
        Ok((common, role, loaded.notes.into_iter().chain(notes).collect()))
    })
}
