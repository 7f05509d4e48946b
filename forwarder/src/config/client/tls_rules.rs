//! Which server's certificate is taken.

/// `verify-x509-name`: what the server must be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// The whole subject, as upstream writes it: `C=DE, O=Studio, CN=server`.
    Subject(String),
    /// The common name.
    CommonName(String),
    /// What the common name begins with.
    Prefix(String),
}

impl NameRule {
    /// Whether a certificate with this subject and common name is the one.
    pub fn admits(&self, subject: &str, common_name: &str) -> bool {
        match self {
            Self::Subject(wanted) => subject == wanted,
            Self::CommonName(wanted) => common_name == wanted,
            Self::Prefix(wanted) => common_name.starts_with(wanted.as_str()),
        }
    }
}
