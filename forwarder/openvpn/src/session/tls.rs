//! TLS as bytes in, bytes out: rustls without a socket.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};

use super::KeyBlock;

/// Most decrypted bytes that wait to be understood. Messages are far smaller; more is an attack.
const MAX_PLAINTEXT: usize = 32 * 1024;
/// OpenVPN's label of the data keys' exporter. Source: brief A.9.
const DATA_KEYS_LABEL: &[u8] = b"EXPORTER-OpenVPN-datakeys";
/// The label of dynamic tls-crypt's. Source: brief A.5.
const WRAPPING_LABEL: &[u8] = b"EXPORTER-OpenVPN-dynamic-tls-crypt";

/// What every negotiation of a session begins its TLS connection with.
#[derive(Clone, Debug)]
pub enum Engine {
    /// The server's end; with `offload` its handshakes are done in jobs.
    Server {
        /// Certificates and protocol versions.
        config: Arc<ServerConfig>,
        /// Whether [`super::Session::poll_job`] has the expensive steps.
        offload: bool,
    },
    /// The client's end.
    Client(Arc<ClientConfig>),
}

impl Engine {
    /// A server's certificates for handshakes that begin from now on.
    pub(super) fn set_server(&mut self, tls: &Arc<ServerConfig>) {
        if let Self::Server { config, .. } = self {
            *config = Arc::clone(tls);
        }
    }

    /// True for the TLS client, which speaks first, whoever began the negotiation.
    pub(super) fn is_client(&self) -> bool {
        matches!(self, Self::Client(_))
    }

    /// True if handshakes are done in jobs.
    pub(super) fn offloads(&self) -> bool {
        matches!(self, Self::Server { offload: true, .. })
    }
}

/// One TLS connection.
pub(super) struct Tls {
    connection: Connection,
    /// Decrypted, not yet consumed. `plaintext.len() <= MAX_PLAINTEXT`
    pub(super) plaintext: Vec<u8>,
}

impl Tls {
    pub(super) fn new(engine: &Engine) -> Result<Self, rustls::Error> {
        let connection = match engine {
            Engine::Server { config, .. } => ServerConnection::new(Arc::clone(config))?.into(),
            Engine::Client(config) => {
                // Clients send no server name; rustls wants one, and our verifier does not look at it.
                let name = ServerName::from(std::net::Ipv4Addr::UNSPECIFIED);
                let mut connection = ClientConnection::new(Arc::clone(config), name)?;
                connection.set_buffer_limit(None);
                connection.into()
            }
        };
        Ok(Self { connection, plaintext: Vec::new() })
    }

    /// Feeds bytes of the TLS stream. On error an alert may be waiting in [`Self::take_output`].
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            let taken = self.connection.read_tls(&mut bytes).map_err(too_much)?;
            self.connection.process_new_packets()?;
            self.collect_plaintext()?;
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    fn collect_plaintext(&mut self) -> Result<(), rustls::Error> {
        let mut chunk = [0; 4096];
        // An error here only says that there is no more for now.
        while let Ok(len) = self.connection.reader().read(&mut chunk)
            && len > 0
        {
            self.plaintext.extend_from_slice(chunk.get(..len).unwrap_or_default());
            if self.plaintext.len() > MAX_PLAINTEXT {
                return Err(rustls::Error::General("the peer sends more text than any message has".into()));
            }
        }
        Ok(())
    }

    /// Gives back what a long message took.
    pub(super) fn shrink(&mut self) {
        self.plaintext.shrink_to_fit();
    }

    /// Encrypts `message`: one message, one TLS record.
    pub(super) fn write(&mut self, message: &[u8]) {
        // Writing to rustls's memory fails only at its buffer limit, far above any message of ours.
        let _ = self.connection.writer().write_all(message);
    }

    /// At most `most` bytes of the TLS stream to send; empty when there are none.
    pub(super) fn take_output(&mut self, most: usize) -> Vec<u8> {
        let mut chunk = Chunk { bytes: Vec::new(), most };
        while chunk.bytes.len() < most && self.connection.wants_write() {
            if !matches!(self.connection.write_tls(&mut chunk), Ok(1..)) {
                break;
            }
        }
        chunk.bytes
    }

    pub(super) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The peer's own certificate.
    pub(super) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates().and_then(<[_]>::first)
    }

    /// The 256 bytes that data keys are made of. "No context" differs from an empty one under TLS 1.2.
    pub(super) fn export_data_keys(&self) -> Result<KeyBlock, rustls::Error> {
        self.export(DATA_KEYS_LABEL)
    }

    /// The 256 bytes that wrap the packets of later negotiations.
    pub(super) fn export_wrapping_key(&self) -> Result<KeyBlock, rustls::Error> {
        self.export(WRAPPING_LABEL)
    }

    fn export(&self, label: &[u8]) -> Result<KeyBlock, rustls::Error> {
        let mut block = KeyBlock::empty();
        self.connection.export_keying_material(block.bytes_mut(), label, None)?;
        Ok(block)
    }
}

fn too_much(_: io::Error) -> rustls::Error {
    rustls::Error::General("the peer sends more than TLS allows to be buffered".into())
}

/// Takes so many bytes and no more.
struct Chunk {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Chunk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.most - self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..len).unwrap_or_default());
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
