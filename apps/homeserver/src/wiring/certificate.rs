//! The certificate of the TLS listener: read at start, and again when an operator has renewed it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::listen::HttpsListener;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    /// The file with the certificates has none.
    #[error("{} holds no certificate; it should hold the server's and those that vouch for it, in PEM", path.display())]
    Empty { path: PathBuf },
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {}; it should hold {what}, in PEM", path.display())]
    Unreadable { path: PathBuf, what: &'static str, source: pem::Error },
    /// Certificate and key do not belong together, or TLS cannot use them.
    #[error("cannot use the certificate {} with the key {}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// The certificate that new connections are shown. Connections that are open keep theirs.
#[derive(Debug)]
pub(super) struct Certificate {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads certificate and key. Blocks.
    pub(super) fn load(listen: &HttpsListener) -> Result<Arc<Self>, CertificateError> {
        let current = read(&listen.certificate, &listen.private_key)?;
        Ok(Arc::new(Self {
            certificate_file: listen.certificate.clone(),
            key_file: listen.private_key.clone(),
            current: RwLock::new(Arc::new(current)),
        }))
    }

    /// Reads the files again; what cannot be used leaves everything as it was. Blocks.
    pub(super) fn reload(&self) -> Result<(), CertificateError> {
        let fresh = Arc::new(read(&self.certificate_file, &self.key_file)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Returns what the listener needs to speak TLS with this certificate.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let unreadable = |path: &Path, what| {
        let path = path.to_owned();
        move |source| CertificateError::Unreadable { path, what, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, pem::Error>>)
        .map_err(unreadable(certificate, "certificates"))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { path: certificate.to_owned() });
    }
    let private_key =
        PrivateKeyDer::from_pem_file(key).map_err(unreadable(key, "the private key"))?;
    CertifiedKey::from_der(chain, private_key, &provider()).map_err(|source| {
        CertificateError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        }
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FIRST: (&str, &str) =
        (include_str!("testdata/first.pem"), include_str!("testdata/first.key.pem"));
    const SECOND: (&str, &str) =
        (include_str!("testdata/second.pem"), include_str!("testdata/second.key.pem"));

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new((certificate, key): (&str, &str)) -> Self {
            let files = Self { folder: tempfile::tempdir().expect("a folder") };
            files.write((certificate, key));
            files
        }

        fn write(&self, (certificate, key): (&str, &str)) {
            fs::write(self.folder.path().join("c.pem"), certificate).expect("written");
            fs::write(self.folder.path().join("k.pem"), key).expect("written");
        }

        fn listen(&self) -> HttpsListener {
            HttpsListener {
                certificate: self.folder.path().join("c.pem"),
                private_key: self.folder.path().join("k.pem"),
                ..HttpsListener::default()
            }
        }
    }

    fn shown(certificate: &Certificate) -> Vec<u8> {
        certificate.current.read().expect("not poisoned").cert[0].to_vec()
    }

    #[test]
    fn a_renewed_certificate_is_shown_after_a_reload_and_a_broken_one_is_not() {
        let files = Files::new(FIRST);
        let certificate = Certificate::load(&files.listen()).expect("usable");
        assert!(certificate.server_config().is_ok());
        let first = shown(&certificate);
        files.write((SECOND.0, FIRST.1));
        assert!(certificate.reload().is_err(), "the key is another's");
        assert_eq!(shown(&certificate), first);
        files.write(SECOND);
        certificate.reload().expect("usable");
        assert_ne!(shown(&certificate), first);
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (why, files, expected) in [
            ("no certificate", ("", FIRST.1), "holds no certificate"),
            ("no key", (FIRST.0, ""), "should hold the private key"),
            ("another's key", (FIRST.0, SECOND.1), "cannot use the certificate"),
            ("rubbish", ("rubbish", "rubbish"), "holds no certificate"),
        ] {
            let error = Certificate::load(&Files::new(files).listen()).expect_err(why);
            assert!(error.to_string().contains(expected), "{why}: {error}");
        }
        let missing = HttpsListener { certificate: "/no/such".into(), ..HttpsListener::default() };
        let error = Certificate::load(&missing).expect_err("missing");
        assert!(error.to_string().starts_with("cannot read /no/such"), "{error}");
    }
}
