//! What a client says about itself in the key-method 2 message. Source: brief A.7.

use crate::data::Cipher;

/// Bits of `IV_PROTO`.
pub mod proto {
    /// Data packets with peer id.
    pub const DATA_V2: u32 = 1 << 1;
    /// The push reply may come unasked.
    pub const REQUEST_PUSH: u32 = 1 << 2;
    /// Data keys may come from the TLS exporter.
    pub const TLS_KEY_EXPORT: u32 = 1 << 3;
    /// The client says `EXIT` on the control channel.
    pub const CC_EXIT_NOTIFY: u32 = 1 << 7;
    /// `AUTH_FAILED,TEMP` is understood: the client comes back later.
    pub const AUTH_FAIL_TEMP: u32 = 1 << 8;
    /// Later negotiations may be wrapped with a key of the first one.
    pub const DYN_TLS_CRYPT: u32 = 1 << 9;
    /// Data packets may have epochs.
    pub const DATA_EPOCH: u32 = 1 << 10;
}

/// Longest `software` text kept, in bytes.
const MAX_SOFTWARE: usize = 64;

/// The lines we act on; all others are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// `IV_PROTO`, 0 when absent.
    pub proto: u32,
    /// `IV_CIPHERS`, or what `IV_NCP=2` implies; names we know only.
    pub ciphers: Vec<Cipher>,
    /// `IV_CIPHERS` was present: the client takes no other cipher than those.
    pub has_cipher_list: bool,
    /// `IV_CIPHERS` or `IV_NCP=2` was present: the client understands a pushed `cipher`.
    pub negotiates: bool,
    /// `IV_MTU` was present: the client understands a pushed `tun-mtu`.
    pub has_mtu: bool,
    /// Which compression framings it takes.
    pub framings: Framings,
    /// `IV_VER` and `IV_PLAT`: printable ASCII, at most 64 bytes.
    pub software: String,
}

impl PeerInfo {
    /// Reads the lines; unknown and malformed ones are skipped, a repeated key counts the last time.
    pub fn parse(text: &[u8]) -> Self {
        let mut info = Self::default();
        let (mut version, mut platform, mut ncp) = ("", "", false);
        for line in text.split(|&byte| byte == b'\n') {
            let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once('='))
            else {
                continue;
            };
            match key {
                "IV_PROTO" => info.proto = value.parse().unwrap_or(0),
                "IV_CIPHERS" => {
                    info.has_cipher_list = true;
                    info.ciphers = value.split(':').filter_map(Cipher::from_name).collect();
                }
                "IV_NCP" => ncp = value.parse::<u32>().is_ok_and(|level| level >= 2),
                "IV_MTU" => info.has_mtu = true,
                _ if info.framings.read(key, value) => {}
                "IV_VER" => version = value,
                "IV_PLAT" => platform = value,
                _ => {}
            }
        }
        info.negotiates = ncp || info.has_cipher_list;
        if ncp && !info.has_cipher_list {
            info.ciphers = vec![Cipher::Aes256Gcm, Cipher::Aes128Gcm];
        }
        // A hostile list may repeat a name for ever.
        info.ciphers.truncate(16);
        info.software = printable(&format!("{version} {platform}"));
        info
    }

    /// True if every bit of `bits` is set in `IV_PROTO`.
    pub fn supports(&self, bits: u32) -> bool {
        self.proto & bits == bits
    }
}

/// The compression framings a client takes when they are pushed; without peer info none. Source: comp.c
/// `comp_generate_peer_info_string`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framings {
    /// `IV_LZ4v2=1`.
    pub lz4_v2: bool,
    /// `IV_COMP_STUBv2=1`.
    pub stub_v2: bool,
    /// `IV_LZ4=1`.
    pub lz4: bool,
    /// `IV_COMP_STUB=1`.
    pub stub: bool,
    /// `IV_LZO=1`.
    pub lzo: bool,
    /// `IV_LZO_STUB=1`: `comp-lzo`, as long as nothing is compressed.
    pub lzo_stub: bool,
}

impl Framings {
    /// Takes a line in; false if it is about something else.
    fn read(&mut self, key: &str, value: &str) -> bool {
        let framing = match key {
            "IV_LZ4v2" => &mut self.lz4_v2,
            "IV_COMP_STUBv2" => &mut self.stub_v2,
            "IV_LZ4" => &mut self.lz4,
            "IV_COMP_STUB" => &mut self.stub,
            "IV_LZO" => &mut self.lzo,
            "IV_LZO_STUB" => &mut self.lzo_stub,
            _ => return false,
        };
        *framing = value == "1";
        true
    }
}

fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_SOFTWARE).collect()
}
