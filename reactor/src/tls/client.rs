//! [`ClientTls`]: whom a client believes, and who it is itself.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::identity::certificates_from_pem;
use super::verify::PinVerifier;
use super::{Identity, SpkiPin, TlsError, protocols, provider};
use crate::reactor::Reactor;

/// Makes the configuration of a client.
///
/// With root certificates, a server is believed if one of them vouches for it and for its name. With
/// [pins](SpkiPin), if its key is one of these, whatever its certificate says. With both, if both hold.
#[derive(Clone, Debug)]
pub struct ClientTls {
    roots: RootCertStore,
    pins: Vec<SpkiPin>,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
}

impl ClientTls {
    /// Makes one that believes nobody yet.
    #[must_use]
    pub fn new() -> ClientTls {
        let (roots, pins) = (RootCertStore::empty(), Vec::new());
        ClientTls { roots, pins, identity: None, alpn: Vec::new() }
    }

    /// Believes servers for which this certificate vouches.
    ///
    /// # Errors
    ///
    /// [`TlsError::Root`] if it cannot.
    pub fn root(mut self, certificate: CertificateDer<'static>) -> Result<ClientTls, TlsError> {
        self.roots.add(certificate).map_err(TlsError::Root)?;
        Ok(self)
    }

    /// Believes servers for which any of these certificates vouches, given in PEM: a company's own, or
    /// the system's bundle. Those that cannot vouch are passed over, as bundles commonly hold some; one
    /// has to be left.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoCertificate`], [`TlsError::Pem`].
    pub fn roots_from_pem(self, pem: &[u8]) -> Result<ClientTls, TlsError> {
        self.roots_from_der(certificates_from_pem(pem)?)
    }

    /// As [`roots_from_pem`](ClientTls::roots_from_pem), of what has been decoded, by
    /// `rustls-native-certs` for instance.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoCertificate`].
    pub fn roots_from_der(
        mut self,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<ClientTls, TlsError> {
        let (added, passed_over) = self.roots.add_parsable_certificates(certificates);
        if passed_over > 0 {
            log::debug!("some root certificates cannot be used passed_over={passed_over}");
        }
        if added == 0 { Err(TlsError::NoCertificate) } else { Ok(self) }
    }

    /// Believes the server with this key. More than one may be pinned: the next key should be before
    /// the server changes to it.
    #[must_use]
    pub fn pin(mut self, pin: SpkiPin) -> ClientTls {
        self.pins.push(pin);
        self
    }

    /// Shows this certificate to servers that ask for one.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> ClientTls {
        self.identity = Some(identity);
        self
    }

    /// Offers these protocols by ALPN, the preferred one first.
    #[must_use]
    pub fn alpn<P: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = P>) -> ClientTls {
        self.alpn = protocols(names);
        self
    }

    /// Makes the configuration. It can be shared by all connections, and should be: sessions are
    /// resumed only among those that share it.
    ///
    /// Dates are checked by the reactor's clock.
    ///
    /// # Errors
    ///
    /// [`TlsError::NobodyIsTrusted`], [`TlsError::Setup`].
    pub fn config(&self, reactor: &Reactor) -> Result<Arc<ClientConfig>, TlsError> {
        let clock = reactor.core().backend.certificate_clock();
        let builder = ClientConfig::builder_with_details(provider(), clock)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match (self.roots.is_empty(), self.pins.is_empty()) {
            (true, true) => return Err(TlsError::NobodyIsTrusted),
            (false, true) => builder.with_root_certificates(self.roots.clone()),
            (_, false) => {
                let verifier = PinVerifier::new(self.pins.clone(), self.roots.clone())?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = SingleCertAndKey::from(identity.key().as_ref().clone());
                builder.with_client_cert_resolver(Arc::new(key))
            }
        };
        config.alpn_protocols = self.alpn.clone();
        Ok(Arc::new(config))
    }
}

impl Default for ClientTls {
    fn default() -> ClientTls {
        ClientTls::new()
    }
}
