//! Believing a server because of its key.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::{SpkiPin, TlsError, provider};

/// The server's key is none of those that were pinned.
///
/// It is found inside [`rustls::CertificateError::Other`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the server's key is {found}, which is not pinned; either it has changed its key, or this is \
     another server"
)]
pub struct PinMismatch {
    /// The pin of the key that it has.
    pub found: SpkiPin,
}

/// Checks that the server has one of these keys and, if asked to, that somebody vouches for it.
///
/// Without that, nothing else in the certificate matters: neither names nor dates nor who signed it.
/// That the server holds the key is shown by its signature in the handshake, as ever.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pins: Vec<SpkiPin>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinVerifier {
    pub(super) fn new(pins: Vec<SpkiPin>, roots: RootCertStore) -> Result<PinVerifier, TlsError> {
        let chain = if roots.is_empty() { None } else { Some(chain_verifier(roots)?) };
        let algorithms = provider().signature_verification_algorithms;
        Ok(PinVerifier { pins, chain, algorithms })
    }
}

/// Checks names, dates, and who vouches.
fn chain_verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Setup(Error::General(error.to_string())))
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let found = SpkiPin::of_key(&parsed.subject_public_key_info());
        // All are compared, so that the time does not tell which it was.
        let matching = self.pins.iter().filter(|pin| pin.matches(&found)).count();
        if matching == 0 {
            let mismatch = OtherError(Arc::new(PinMismatch { found }));
            return Err(Error::InvalidCertificate(CertificateError::Other(mismatch)));
        }
        match &self.chain {
            None => Ok(ServerCertVerified::assertion()),
            Some(chain) => chain.verify_server_cert(
                certificate,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
