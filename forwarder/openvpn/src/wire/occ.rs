//! The options consistency string. Peers compare it and log differences; nobody rejects on it. Source: brief A.6.

use crate::data::{Cipher, Framing};

/// What the string tells of our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `tun-mtu`.
    pub tun_mtu: u16,
    /// The data cipher; before it is agreed the preferred one.
    pub cipher: Cipher,
    /// Whether some compression framing is in use.
    pub framing: Framing,
    /// Whether `fragment` is in use.
    pub fragments: bool,
    /// Packets go over TCP.
    pub stream: bool,
    /// True on the server.
    pub server: bool,
}

impl Options {
    /// The string as it goes into the key-method 2 message.
    pub fn to_text(self) -> String {
        let Self { tun_mtu, cipher, framing, fragments, stream, server } = self;
        // What upstream adds to `tun-mtu`: tun-mtu-extra 32, opcode 1, packet id 4, tag 16, and though packets have
        // neither, nonce 12 and block 16; then framing and fragment header, and over TCP the length. Only logs depend on it.
        // Source: mtu.c `calc_options_string_link_mtu`.
        let fragment = if fragments { 4 } else { 0 };
        let length = if stream { 2 } else { 0 };
        let link_mtu = u32::from(tun_mtu) + 81 + u32::from(framing.overhead()) + fragment + length;
        let fragment = if fragments { ",mtu-dynamic" } else { "" };
        let compression = if framing == Framing::None { "" } else { ",comp-lzo" };
        let bits = cipher.key_len() * 8;
        let role = if server { "tls-server" } else { "tls-client" };
        // The same over IPv6. Source: socket.c `proto_remote`.
        let proto = match (stream, server) {
            (false, _) => "UDPv4",
            (true, true) => "TCPv4_SERVER",
            (true, false) => "TCPv4_CLIENT",
        };
        format!(
            "V4,dev-type tap,link-mtu {link_mtu},tun-mtu {tun_mtu},proto {proto}{compression}{fragment},cipher {},auth [null-digest],\
             keysize {bits},key-method 2,{role}",
            cipher.name()
        )
    }
}

/// The name of the data cipher that a peer's string names, whether we have it or not.
pub fn cipher_name(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    text.split(',').find_map(|item| item.strip_prefix("cipher "))
}

/// The device type that a peer's string names: `tap` or `tun`.
pub fn device_type(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    text.split(',').find_map(|item| item.strip_prefix("dev-type "))
}

/// Whether the peer has `fragment` in its file; `None` if it sends no string. Source: options.c `options_string`.
pub fn fragments(text: &[u8]) -> Option<bool> {
    let items = || text.split(|&byte| byte == b',');
    (!text.is_empty()).then(|| items().any(|item| item == b"mtu-dynamic"))
}

/// True if a peer's string names a compression framing.
pub fn has_compression(text: &[u8]) -> bool {
    text.split(|&byte| byte == b',').any(|item| item == b"comp-lzo")
}
