//! How the sessions' control packets are wrapped, by the files that a client's profile names.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::{Args, ValueEnum};
use openvpn::{
    client::Config,
    data::{Digest, Role},
    wire::wrapping::{ClientKey, Direction, KeyFileError, StaticKey, Wrapping},
};

/// The options of wrapping.
#[derive(Debug, Args)]
pub(super) struct WrappingOptions {
    /// Static key that authenticates control packets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tls_crypt", "tls_crypt_v2"])]
    tls_auth: Option<PathBuf>,
    /// Which half of the static key is whose
    #[arg(long, value_name = "0|1", requires = "tls_auth")]
    key_direction: Option<Half>,
    /// Digest of --tls-auth
    #[arg(long, value_name = "DIGEST", default_value = "SHA1", value_parser = digest)]
    auth: Digest,
    /// Static key that encrypts control packets
    #[arg(long, value_name = "FILE", conflicts_with = "tls_crypt_v2")]
    tls_crypt: Option<PathBuf>,
    /// The client's own key that encrypts control packets
    #[arg(long, value_name = "FILE")]
    tls_crypt_v2: Option<PathBuf>,
}

/// `key-direction`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Half {
    #[value(name = "0")]
    Zero,
    #[value(name = "1")]
    One,
}

impl WrappingOptions {
    /// Has `client` wrap its packets.
    pub(super) fn apply(&self, client: &mut Config) -> Result<(), String> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        client.unix_s = since_1970.unwrap_or_default().as_secs();
        if let Some(path) = &self.tls_auth {
            let direction = self.key_direction.map(|half| match half {
                Half::Zero => Direction::Zero,
                Half::One => Direction::One,
            });
            client.wrapping = Wrapping::auth(key(path, StaticKey::parse)?, self.auth, direction);
        }
        if let Some(path) = &self.tls_crypt {
            client.wrapping = Wrapping::crypt(key(path, StaticKey::parse)?, Role::Client);
        }
        if let Some(path) = &self.tls_crypt_v2 {
            let ClientKey { key, wrapped } = key(path, ClientKey::parse)?;
            client.wrapping = Wrapping::crypt(key, Role::Client);
            client.wrapped_key = Some(wrapped);
        }
        Ok(())
    }
}

fn key<T>(path: &Path, parse: fn(&[u8]) -> Result<T, KeyFileError>) -> Result<T, String> {
    parse(&super::cli::read(path)?).map_err(|error| format!("{} {error}", path.display()))
}

fn digest(name: &str) -> Result<Digest, String> {
    Digest::from_name(name).ok_or_else(|| {
        let known = Digest::ALL.map(Digest::name).join(", ");
        format!("it must be one of {known}")
    })
}
