//! TLS: who one is, whom one believes, and what was agreed on.
//!
//! Owns the making of configurations for [`Reactor::listen_tls`](crate::Reactor::listen_tls),
//! [`Reactor::connect_tls`](crate::Reactor::connect_tls) and
//! [`HostConnector::tls`](crate::endpoint::HostConnector::tls). What TLS itself does, and which of its
//! versions and ciphers are good, is the business of [`rustls`]; a configuration made with it by hand
//! does as well.
//!
//! - [`Identity`] is a certificate with its key, read from PEM.
//! - [`ServerTls`] makes the configuration of a server: one identity or one for each name, which can be
//!   [replaced](Identities::replace) while it listens; certificates of clients; ALPN.
//! - [`ClientTls`] makes that of a client: roots, [pins](SpkiPin), an identity of its own; ALPN.
//!
//! ```
//! use ropewalk::Reactor;
//! use ropewalk::tls::{ClientTls, SpkiPin};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let reactor = Reactor::new()?;
//! let pin: SpkiPin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse()?;
//! let config = ClientTls::new().pin(pin).alpn(["http/1.1"]).config(&reactor)?;
//! # let _ = config;
//! # Ok(())
//! # }
//! ```

mod client;
mod identities;
mod identity;
mod info;
mod pin;
mod server;
mod verify;

use std::sync::Arc;

pub use rustls;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem;
use rustls::{CertificateError, OtherError};

pub use self::client::ClientTls;
pub use self::identities::Identities;
pub use self::identity::Identity;
pub use self::info::TlsInfo;
pub use self::pin::{PinError, SpkiPin};
pub use self::server::ServerTls;
pub use self::verify::PinMismatch;

/// Why TLS cannot be set up like this.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate where one has to be.
    #[error(
        "there is no certificate in it; PEM certificates begin with \"-----BEGIN CERTIFICATE-----\""
    )]
    NoCertificate,
    /// A server was given no identity.
    #[error("the server has no certificate to show; give it an identity")]
    NoIdentity,
    /// There is no private key where one has to be.
    #[error("there is no private key in it; PEM keys begin with \"-----BEGIN PRIVATE KEY-----\"")]
    NoKey,
    /// A client was given neither roots nor pins.
    #[error(
        "the client believes nobody; give it root certificates, or the pin of the server's key"
    )]
    NobodyIsTrusted,
    /// The text is not PEM.
    #[error("cannot read PEM")]
    Pem(#[source] Arc<pem::Error>),
    /// A certificate cannot be among the roots.
    #[error("cannot use a certificate as a root")]
    Root(#[source] rustls::Error),
    /// TLS does not work with this: for instance, certificate and key do not belong together.
    #[error("cannot use the certificate with the key")]
    Unusable(#[source] rustls::Error),
    /// Something else is not to the liking of rustls.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Why TLS cannot begin on a connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartTlsError {
    /// TLS is spoken on it.
    #[error("TLS is spoken on this connection already")]
    Already,
    /// It has ended, is about to be closed, or the peer has finished.
    #[error("the connection does not stand in both directions any more")]
    NotConnected,
    /// The configuration cannot be used.
    #[error("TLS cannot be set up")]
    Setup(#[source] Arc<rustls::Error>),
}

/// Everything that the configurations made here build on.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Writes what rustls says of a failure, for people: its own words for a check that is not its own are
/// those of a debugger.
pub(crate) fn describe(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => {
            error.to_string()
        }
        error => error.to_string(),
    }
}

fn protocols<P: AsRef<[u8]>>(names: impl IntoIterator<Item = P>) -> Vec<Vec<u8>> {
    names.into_iter().map(|name| name.as_ref().to_vec()).collect()
}
