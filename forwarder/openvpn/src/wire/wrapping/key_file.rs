//! PEM-like files with keys of OpenVPN's own, as `openvpn --genkey` writes them.

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Why a key file cannot be used; follows the file's name in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such section.
    #[error("has no line `-----BEGIN {0}-----`")]
    Missing(&'static str),
    /// What the section holds is not what it says.
    #[error("is damaged between its BEGIN and END lines")]
    Damaged,
    /// The section ends too early or too late.
    #[error("holds a key of {found} bytes where {expected} belong")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

/// The bytes of the section `label` of `text`, which are in base64. Whatever stands around it is no concern of ours.
pub(super) fn section(text: &[u8], label: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyFileError::Damaged)?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == begin).ok_or(KeyFileError::Missing(label))?;
    let mut base64 = Zeroizing::new(String::with_capacity(text.len()));
    for line in lines {
        if line == end {
            let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| KeyFileError::Damaged)?;
            return Ok(Zeroizing::new(bytes));
        }
        base64.push_str(line);
    }
    Err(KeyFileError::Damaged)
}
