//! `client-config-dir`: each client's own file, read when it logs in.

use std::{
    io,
    path::{Path, PathBuf},
};

use openvpn::server::{Barred, Directory, Particulars};

use crate::config::{self, Server, clients, clients::ClientFile};

/// The file of clients that have none of their own.
const DEFAULT: &str = "DEFAULT";

/// The directory with the clients' files.
#[derive(Debug)]
pub(super) struct ClientFiles {
    directory: PathBuf,
    exclusive: bool,
}

impl ClientFiles {
    /// What `client-config-dir` names, if the file has it. Says at the start what every login would say otherwise.
    pub fn of(server: &Server) -> Option<Self> {
        let named = server.client_files.as_ref()?;
        let directory = config::tls::resolve(server, &named.directory);
        if let Err(error) = std::fs::read_dir(&directory) {
            tracing::warn!(
                directory = %directory.display(), %error,
                "`client-config-dir` cannot be read: make it, readable by `user`; clients are taken as having no file"
            );
        }
        Some(Self { directory, exclusive: named.exclusive })
    }

    /// The client's own file, else that of all others.
    fn read(&self, name: &str) -> Option<(PathBuf, Vec<u8>)> {
        let own = file_name(name).and_then(|name| self.read_one(&name));
        own.or_else(|| self.read_one(DEFAULT))
    }

    fn read_one(&self, name: &str) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.directory.join(name);
        match read_file(&path) {
            Ok(bytes) => Some((path, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a client's file is passed over: it cannot be read");
                None
            }
        }
    }

    fn is_listed(&self, name: &str) -> bool {
        name != DEFAULT && file_name(name).is_some_and(|name| self.read_one(&name).is_some())
    }
}

impl Directory for ClientFiles {
    fn particulars(&self, name: &str) -> Particulars {
        let barred = |barred| Particulars { barred: Some(barred), ..Particulars::default() };
        if self.exclusive && !self.is_listed(name) {
            return barred(Barred::Unlisted);
        }
        let Some((path, bytes)) = self.read(name) else { return Particulars::default() };
        match clients::parse(&bytes, &path) {
            Ok(ClientFile { particulars, faults }) => {
                faults.iter().for_each(|fault| tracing::warn!("{fault}"));
                particulars
            }
            Err(fault) => {
                tracing::warn!("{fault}");
                barred(Barred::Unclear)
            }
        }
    }
}

/// The name of the file that belongs to a client's name, which its certificate may have made up. Source: platform.c
/// `platform_gen_path`; hidden files are left alone beyond that.
fn file_name(name: &str) -> Option<String> {
    let safe = name.replace('/', "_");
    Some(safe).filter(|safe| !safe.is_empty() && !safe.starts_with('.') && !safe.contains('\0'))
}

/// Only an ordinary file: to open a pipe would wait for its other end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    config::tls::read_bounded(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that vanishes with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("trestle-ccd-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
            std::fs::write(self.0.join(name), bytes).unwrap();
        }

        fn files(&self, exclusive: bool) -> ClientFiles {
            ClientFiles { directory: self.0.clone(), exclusive }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn limit(files: &ClientFiles, name: &str) -> Option<usize> {
        files.particulars(name).max_stations
    }

    #[test]
    fn a_client_has_its_own_file_or_that_of_all_others() {
        let folder = Folder::new("own");
        folder.write("agent", "max-routes-per-client 1\n");
        folder.write("a_b", "max-routes-per-client 2\n");
        let files = folder.files(false);
        assert_eq!(
            [limit(&files, "agent"), limit(&files, "a/b"), limit(&files, "x")],
            [Some(1), Some(2), None]
        );
        folder.write(DEFAULT, "max-routes-per-client 9\n");
        assert_eq!([limit(&files, "agent"), limit(&files, "x")], [Some(1), Some(9)]);
    }

    #[test]
    fn no_name_leads_out_of_the_directory_or_to_a_hidden_file() {
        let folder = Folder::new("out");
        std::fs::create_dir_all(folder.0.join("ccd")).unwrap();
        folder.write("secret", "disable\n");
        folder.write("ccd/.hidden", "disable\n");
        let files = ClientFiles { directory: folder.0.join("ccd"), exclusive: false };
        for name in ["../secret", "/etc/passwd", "..", ".", ".hidden", "", "a\0b", "ccd/../../secret"] {
            assert_eq!(files.particulars(name), Particulars::default(), "{name:?}");
        }
        let path = folder.0.join("secret").display().to_string();
        assert_eq!(files.particulars(&path), Particulars::default());
    }

    #[test]
    fn with_ccd_exclusive_only_who_has_a_file_may_in() {
        let folder = Folder::new("exclusive");
        folder.write("agent", "");
        folder.write(DEFAULT, "");
        let files = folder.files(true);
        assert_eq!(files.particulars("agent").barred, None);
        for name in ["stranger", DEFAULT, "..", ""] {
            assert_eq!(files.particulars(name).barred, Some(Barred::Unlisted), "{name}");
        }
    }

    #[test]
    fn what_is_no_text_bars_and_what_is_no_file_is_passed_over() {
        let folder = Folder::new("odd");
        folder.write("noise", [0xff, 0xfe, 0]);
        folder.write("huge", vec![b'#'; (1 << 20) + 1]);
        std::fs::create_dir_all(folder.0.join("folder")).unwrap();
        let files = folder.files(false);
        assert_eq!(files.particulars("noise").barred, Some(Barred::Unclear));
        assert_eq!(files.particulars("huge"), Particulars::default());
        assert_eq!(files.particulars("folder"), Particulars::default());
        let nowhere = ClientFiles { directory: folder.0.join("nowhere"), exclusive: false };
        assert_eq!(nowhere.particulars("agent"), Particulars::default());
    }
}
