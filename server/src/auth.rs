//! Who a caller is, as the server knows it.
//!
//! With client certificates (mutual TLS) a caller is the common name (CN) of the subject of its certificate, which the
//! TLS layer has verified. Without them every caller is [`ANONYMOUS`]: they share their leases.

use std::fmt;

use tonic::codegen::http::Extensions;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::domain::lease::SERVER;

/// The name of every caller that shows no certificate.
pub const ANONYMOUS: &str = "anonymous";

/// Longest name of a caller, in bytes.
const LONGEST_NAME: usize = 253;

/// Name of a caller: the owner of the leases that it acquires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(String);

impl Caller {
    /// Returns the caller behind the connection of a request with these extensions.
    pub fn of(extensions: &Extensions) -> Result<Self, Unnamed> {
        let certificates =
            extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        match certificates.as_deref().and_then(|chain| chain.first()) {
            Some(certificate) => Self::of_certificate(certificate),
            None => Ok(Self(ANONYMOUS.to_owned())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of_certificate(der: &[u8]) -> Result<Self, Unnamed> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unnamed::Unreadable)?;
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return Err(Unnamed::NotOneName) };
        let name = name.as_str().map_err(|_| Unnamed::Unreadable)?;
        let is_printable = !name.is_empty() && name.len() <= LONGEST_NAME && !name.contains(char::is_control);
        if !is_printable {
            return Err(Unnamed::Unprintable);
        }
        if [ANONYMOUS, SERVER].contains(&name) {
            return Err(Unnamed::Reserved(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a client certificate does not name a caller.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    /// It is no X.509 certificate with a readable subject.
    #[error("the subject of the client certificate cannot be read")]
    Unreadable,
    /// Its subject has no common name, or several.
    #[error("the subject of the client certificate must have exactly one common name (CN)")]
    NotOneName,
    /// Its common name is empty, too long or has control characters.
    #[error(
        "the common name (CN) of the client certificate must have 1 to {LONGEST_NAME} bytes, no control characters"
    )]
    Unprintable,
    /// Its common name stands for something else.
    #[error("the common name {0:?} of the client certificate is reserved")]
    Reserved(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Result<Caller, Unnamed> {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if let [name, ..] = names {
            parameters.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        Caller::of_certificate(parameters.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_caller_is_the_common_name_of_its_certificate() {
        assert_eq!(named(&["team-a"]), Ok(Caller("team-a".to_owned())));
        assert_eq!(named(&["Zoë"]), Ok(Caller("Zoë".to_owned())));
    }

    #[test]
    fn a_certificate_that_names_nobody_is_refused() {
        assert_eq!(named(&[]), Err(Unnamed::NotOneName));
        assert_eq!(named(&["a\nb"]), Err(Unnamed::Unprintable));
        assert_eq!(named(&["tms"]), Err(Unnamed::Reserved("tms".to_owned())));
        assert_eq!(named(&["anonymous"]), Err(Unnamed::Reserved("anonymous".to_owned())));
        assert_eq!(Caller::of_certificate(b"no certificate"), Err(Unnamed::Unreadable));
    }

    #[test]
    fn a_caller_without_a_certificate_is_anonymous() {
        assert_eq!(Caller::of(&Extensions::new()).unwrap().as_str(), ANONYMOUS);
    }
}
