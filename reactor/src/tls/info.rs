//! [`TlsInfo`]: what both ends have agreed on.

use rustls::pki_types::CertificateDer;

use super::{SpkiPin, TlsError};

/// What the two ends of a connection have agreed on; see
/// [`Transport::tls`](crate::Transport::tls).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version of TLS.
    pub protocol_version: rustls::ProtocolVersion,
    /// How bytes are encrypted and kept from being changed.
    pub cipher_suite: rustls::CipherSuite,
    /// The protocol to be spoken, if both know ALPN.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for, if it did. At the client's end also one that is an address,
    /// which is never sent.
    pub server_name: Option<String>,
    /// The peer's certificate and those that vouch for it, as it showed them; empty if it showed none.
    /// They have been checked.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// Whether this goes on from an earlier connection, whose certificates these are.
    pub is_resumed: bool,
}

impl TlsInfo {
    /// Returns the pin of the peer's key, if it showed a certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`] if that cannot be read.
    pub fn peer_pin(&self) -> Result<Option<SpkiPin>, TlsError> {
        self.peer_certificates.first().map(SpkiPin::of_certificate).transpose()
    }
}
