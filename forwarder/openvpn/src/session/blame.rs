//! TLS failures in words an operator can act on.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Cause and cure of `error`; what has no words of its own is said in the library's.
pub(super) fn explain(error: &Error) -> String {
    let words = match error {
        Error::PeerIncompatible(incompatible) => incompatibility(incompatible),
        Error::InvalidCertificate(certificate) => certificate_error(certificate),
        Error::NoCertificatesPresented => {
            Some("the peer shows no certificate: give it `cert` and `key`".to_owned())
        }
        Error::AlertReceived(alert) => Some(alert_received(*alert)),
        Error::InvalidMessage(_) => Some("what the peer sends is not TLS".to_owned()),
        _ => None,
    };
    words.unwrap_or_else(|| format!("TLS failed: {error}"))
}

fn incompatibility(incompatible: &PeerIncompatible) -> Option<String> {
    use PeerIncompatible::{
        NoCipherSuitesInCommon, NoKxGroupsInCommon, ServerDoesNotSupportTls12Or13,
        ServerTlsVersionIsDisabledByOurConfig, SupportedVersionsExtensionRequired, Tls12NotOffered,
        Tls12NotOfferedOrEnabled,
    };
    match incompatible {
        SupportedVersionsExtensionRequired
        | Tls12NotOffered
        | Tls12NotOfferedOrEnabled
        | ServerDoesNotSupportTls12Or13
        | ServerTlsVersionIsDisabledByOurConfig => Some(
            "the peer speaks no version of TLS that this end does: look at `tls-version-min` and `tls-version-max` on \
             both ends; an OpenVPN built with OpenSSL 1.0.1 or later speaks TLS 1.2"
                .to_owned(),
        ),
        NoCipherSuitesInCommon | NoKxGroupsInCommon => Some(format!(
            "the peer offers no cipher suite or group that this end has ({incompatible:?}): take `tls-cipher`, \
             `tls-ciphersuites`, `tls-groups` and `ecdh-curve` out of its profile"
        )),
        _ => None,
    }
}

fn certificate_error(error: &CertificateError) -> Option<String> {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidForName,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let words = match error {
        // A bad signature: an authority of the same name is meant, with another key.
        UnknownIssuer | BadSignature => {
            "is not signed by an authority in `ca`: issue one from there, or add its authority"
        }
        Expired | ExpiredContext { .. } => "has expired: renew it, and check both clocks",
        NotValidYet | NotValidYetContext { .. } => "is not valid yet: check both clocks",
        NotValidForName => "has another name than `verify-x509-name` says",
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "is for another purpose: its extended key usage must name this role"
        }
        _ => return Some(format!("the peer's certificate cannot be used: {error}")),
    };
    Some(format!("the peer's certificate {words}"))
}

fn alert_received(alert: AlertDescription) -> String {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    match alert {
        UnknownCA | BadCertificate | CertificateUnknown | CertificateExpired | UnsupportedCertificate => {
            format!("the peer does not accept our certificate ({alert:?}): both ends need the same `ca`")
        }
        _ => format!("the peer gave up with the TLS alert {alert:?}: its own log says why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_failures_name_their_cure() {
        let cases = [
            (Error::from(PeerIncompatible::SupportedVersionsExtensionRequired), "tls-version-max"),
            (Error::from(CertificateError::UnknownIssuer), "`ca`"),
            (Error::from(CertificateError::BadSignature), "`ca`"),
            (Error::from(CertificateError::NotValidForName), "`verify-x509-name`"),
            (Error::from(CertificateError::Expired), "renew"),
            (Error::NoCertificatesPresented, "`cert` and `key`"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "same `ca`"),
            (Error::General("something else".into()), "something else"),
        ];
        for (error, cure) in cases {
            assert!(explain(&error).contains(cure), "{}", explain(&error));
        }
    }
}
