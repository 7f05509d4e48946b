//! How control packets are wrapped: `tls-auth`, `tls-crypt`, `tls-crypt-v2` and what belongs to them. The directives name
//! the keys; [`load`] reads them.

use std::{os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use openvpn::{
    data::Role,
    server::{OwnKeys, Wrappings},
    wire::wrapping::{ClientKey, Direction, KeyFileError, ServerKey, StaticKey, Wrapping},
};

use super::{
    apply::Done,
    error::{Error, Level, Note, Place},
    server::{Server, Source},
    tls::{Material, resolve},
    words::Directive,
};

/// What the file says about wrapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `tls-auth`.
    pub tls_auth: Option<Source>,
    /// `key-direction`, or the number behind `tls-auth`, whichever stands last.
    pub direction: Option<Direction>,
    /// `tls-crypt`.
    pub tls_crypt: Option<Source>,
    /// `tls-crypt-v2`.
    pub tls_crypt_v2: Option<Source>,
    /// `tls-crypt-v2 FILE force-cookie`.
    pub force_cookie: bool,
    /// `tls-crypt-v2-max-age`.
    pub max_age: Option<Duration>,
}

pub(super) fn tls_auth(d: Directive<'_>) -> Done {
    d.draft.server.wrapping.tls_auth = Some(d.source()?);
    if d.optional(1).is_some() {
        d.draft.server.wrapping.direction = Some(direction(&d, 1)?);
    }
    Ok(())
}

pub(super) fn key_direction(d: Directive<'_>) -> Done {
    d.draft.server.wrapping.direction = Some(direction(&d, 0)?);
    Ok(())
}

fn direction(d: &Directive<'_>, index: usize) -> Result<Direction, Error> {
    match d.word(index)? {
        "0" => Ok(Direction::Zero),
        "1" => Ok(Direction::One),
        _ => Err(d.not_among(index, "0 in the server's file and 1 in the clients', or nothing in both")),
    }
}

pub(super) fn tls_crypt(d: Directive<'_>) -> Done {
    d.draft.server.wrapping.tls_crypt = Some(d.source()?);
    Ok(())
}

pub(super) fn tls_crypt_v2(d: Directive<'_>) -> Done {
    d.draft.server.wrapping.force_cookie = match d.optional(1) {
        Some("force-cookie") => true,
        Some("allow-noncookie") | None => false,
        Some(_) => return Err(d.not_among(1, "`force-cookie`, `allow-noncookie` or nothing behind the file")),
    };
    d.draft.server.wrapping.tls_crypt_v2 = Some(d.source()?);
    Ok(())
}

pub(super) fn max_age(d: Directive<'_>) -> Done {
    let days: u32 = d.number(0, 1..=i32::MAX.unsigned_abs())?;
    d.draft.server.wrapping.max_age = Some(Duration::from_secs(u64::from(days) * 86_400));
    Ok(())
}

/// Reads the keys that `server` names.
///
/// # Errors
/// Which file cannot be used, why, and what to do.
pub fn load(server: &Server) -> Result<(Wrappings, Vec<Note>), Error> {
    let files = &server.wrapping;
    let shared = match (&files.tls_auth, &files.tls_crypt) {
        (None, None) => Wrapping::None,
        (Some(source), None) => {
            Wrapping::auth(key(server, source, "tls-auth", StaticKey::parse)?, server.digest, files.direction)
        }
        (None, Some(source)) => {
            Wrapping::crypt(key(server, source, "tls-crypt", StaticKey::parse)?, Role::Server)
        }
        (Some(_), Some(source)) => {
            return Err(Error::at(
                Place::line(&server.file, source.line()),
                "`tls-auth` and `tls-crypt` exclude one another",
                "keep the one that the clients' files have",
            ));
        }
    };
    let own = files.tls_crypt_v2.as_ref().map(|source| own_keys(server, source)).transpose()?;
    Ok((Wrappings { shared, own }, open_files(server)))
}

/// How a client wraps control packets.
#[derive(Clone, Debug, Default)]
pub struct OfClient {
    /// With what key.
    pub wrapping: Wrapping,
    /// tls-crypt-v2: what of the key's file the server is told.
    pub wrapped_key: Option<Vec<u8>>,
}

/// Reads the keys that a client's file names; `common` is what it has in common with a server's.
///
/// # Errors
/// Which file cannot be used, why, and what to do.
pub fn load_client(common: &Server) -> Result<(OfClient, Vec<Note>), Error> {
    let files = &common.wrapping;
    let named = [&files.tls_auth, &files.tls_crypt, &files.tls_crypt_v2];
    if let Some(source) = named.into_iter().flatten().nth(1) {
        return Err(Error::at(
            Place::line(&common.file, source.line()),
            "`tls-auth`, `tls-crypt` and `tls-crypt-v2` exclude one another",
            "keep the one that the server's file has",
        ));
    }
    let static_key = |source, name| key(common, source, name, StaticKey::parse);
    let of_client = |wrapping| OfClient { wrapping, wrapped_key: None };
    let wrapping = match named {
        [Some(source), ..] => {
            of_client(Wrapping::auth(static_key(source, "tls-auth")?, common.digest, files.direction))
        }
        [_, Some(source), _] => of_client(Wrapping::crypt(static_key(source, "tls-crypt")?, Role::Client)),
        [.., Some(source)] => {
            let key = key(common, source, "tls-crypt-v2", ClientKey::parse)?;
            OfClient {
                wrapped_key: Some(key.wrapped.clone()),
                wrapping: Wrapping::crypt(key.key, Role::Client),
            }
        }
        _ => OfClient::default(),
    };
    Ok((wrapping, open_files(common)))
}

fn own_keys(server: &Server, source: &Source) -> Result<OwnKeys, Error> {
    Ok(OwnKeys {
        server_key: Arc::new(key(server, source, "tls-crypt-v2", ServerKey::parse)?),
        force_cookie: server.wrapping.force_cookie,
        max_age: server.wrapping.max_age,
    })
}

fn key<T>(
    server: &Server,
    source: &Source,
    name: &str,
    parse: fn(&[u8]) -> Result<T, KeyFileError>,
) -> Result<T, Error> {
    let material = Material::read(server, source, name)?;
    parse(material.bytes()).map_err(|error| {
        let kind = if name == "tls-crypt-v2" { "tls-crypt-v2-server" } else { "secret" };
        let cure =
            format!("name the file that `openvpn --genkey {kind} FILE` wrote, the same as OpenVPN used");
        material.error(error.to_string(), cure)
    })
}

/// Secret files that others than their owner may read. Source: options.c `check_file_access`.
fn open_files(server: &Server) -> Vec<Note> {
    let files = &server.wrapping;
    let secret = [
        ("key", Some(&server.key)),
        ("tls-auth", files.tls_auth.as_ref()),
        ("tls-crypt", files.tls_crypt.as_ref()),
        ("tls-crypt-v2", files.tls_crypt_v2.as_ref()),
    ];
    secret.into_iter().filter_map(|(name, source)| open_file(server, name, source?)).collect()
}

fn open_file(server: &Server, name: &str, source: &Source) -> Option<Note> {
    let Source::File { path, line } = source else { return None };
    let path = resolve(server, path);
    let mode = std::fs::metadata(&path).ok()?.permissions().mode();
    let text = format!(
        "`{name}` {0} is open to others than its owner: `chmod go= {0}`, it is a secret",
        path.display()
    );
    let place = Place::line(&server.file, *line);
    (mode & 0o077 != 0).then_some(Note { level: Level::Warning, place, text })
}

#[cfg(test)]
mod tests;
