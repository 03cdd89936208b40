//! [`Identity`]: a certificate and its key.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{SpkiPin, TlsError, provider};

/// Who one end of a connection is: a certificate, those that vouch for it, and the private key. A
/// cheap clone.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a certificate, followed by those that vouch for it, and a private key from PEM.
    ///
    /// Both may stand in one text, which is then given twice; what is of another kind is passed over.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoCertificate`], [`TlsError::NoKey`], [`TlsError::Pem`]; [`TlsError::Unusable`] if
    /// the two do not belong together.
    pub fn from_pem(certificates: &[u8], private_key: &[u8]) -> Result<Identity, TlsError> {
        let certificates = certificates_from_pem(certificates)?;
        let private_key = match PrivateKeyDer::from_pem_slice(private_key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey),
            Err(error) => return Err(TlsError::Pem(Arc::new(error))),
        };
        Identity::from_der(certificates, private_key)
    }

    /// As [`from_pem`](Identity::from_pem), of what has been decoded.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoCertificate`], [`TlsError::Unusable`].
    pub fn from_der(
        certificates: Vec<CertificateDer<'static>>,
        private_key: PrivateKeyDer<'static>,
    ) -> Result<Identity, TlsError> {
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = CertifiedKey::from_der(certificates, private_key, &provider())
            .map_err(TlsError::Unusable)?;
        Ok(Identity { key: Arc::new(key) })
    }

    /// Returns the certificate, and after it those that vouch for it.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Returns the pin by which clients can know this identity.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`] if the certificate cannot be read.
    pub fn pin(&self) -> Result<SpkiPin, TlsError> {
        let certificate = self.certificates().first().ok_or(TlsError::NoCertificate)?;
        SpkiPin::of_certificate(certificate)
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// Shows nothing of the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("pin", &self.pin().ok()).finish_non_exhaustive()
    }
}

/// Reads certificates, one at least.
pub(super) fn certificates_from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| TlsError::Pem(Arc::new(error)))?;
    if certificates.is_empty() { Err(TlsError::NoCertificate) } else { Ok(certificates) }
}
