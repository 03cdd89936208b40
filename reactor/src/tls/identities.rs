//! [`Identities`]: what a server shows to whom, replaceable while it serves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Identity, TlsError};

/// The identities of a server: each is shown to clients that ask for one of its names, and the first
/// one to all others.
///
/// A cheap clone; clones share what they hold, on any thread. Connections that are open keep what they
/// were shown when it is [replaced](Identities::replace).
///
/// ```
/// # fn read(_: &str) -> Vec<u8> { unimplemented!() }
/// use ropewalk::tls::{Identities, Identity, ServerTls, TlsError};
///
/// # fn main() -> Result<(), TlsError> {
/// # let reactor = ropewalk::Reactor::new().unwrap();
/// # if true { return Ok(()) }
/// let identities = Identities::new([Identity::from_pem(&read("hs.pem"), &read("hs.key"))?])?;
/// let config = ServerTls::new(identities.clone()).config(&reactor)?;
/// // .. and when the certificate has been renewed:
/// identities.replace([Identity::from_pem(&read("hs.pem"), &read("hs.key"))?])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Identities {
    shown: Arc<RwLock<Arc<Shown>>>,
}

struct Shown {
    identities: Vec<Identity>,
    /// Which identity has this name. A name may begin with `*.` for any one label.
    by_name: BTreeMap<String, usize>,
}

impl Identities {
    /// Takes the identities to be shown, one at least. Of several with the same name the first has it.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoIdentity`], [`TlsError::Unusable`].
    pub fn new(identities: impl IntoIterator<Item = Identity>) -> Result<Identities, TlsError> {
        let shown = Arc::new(Shown::new(identities.into_iter().collect())?);
        Ok(Identities { shown: Arc::new(RwLock::new(shown)) })
    }

    /// Shows these from now on.
    ///
    /// # Errors
    ///
    /// As [`new`](Identities::new); then everything stays as it was.
    pub fn replace(&self, identities: impl IntoIterator<Item = Identity>) -> Result<(), TlsError> {
        let shown = Arc::new(Shown::new(identities.into_iter().collect())?);
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    /// Returns the identity that a client gets to see if it asks for this name, or for none.
    #[must_use]
    pub fn identity_for(&self, server_name: Option<&str>) -> Option<Identity> {
        let shown = self.shown();
        shown.find(server_name).cloned()
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shown {
    fn new(identities: Vec<Identity>) -> Result<Shown, TlsError> {
        if identities.is_empty() {
            return Err(TlsError::NoIdentity);
        }
        let mut by_name = BTreeMap::new();
        for (index, identity) in identities.iter().enumerate() {
            let certificate = identity.certificates().first().ok_or(TlsError::NoCertificate)?;
            for name in names(certificate)? {
                by_name.entry(name).or_insert(index);
            }
        }
        Ok(Shown { identities, by_name })
    }

    fn find(&self, server_name: Option<&str>) -> Option<&Identity> {
        let index = server_name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.by_name.get(&name).copied().or_else(|| {
                let (_, rest) = name.split_once('.')?;
                self.by_name.get(&format!("*.{rest}")).copied()
            })
        });
        self.identities.get(index.unwrap_or(0))
    }
}

/// Returns the names that a certificate is for.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, TlsError> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| TlsError::Unusable(rustls::Error::General(error.to_string())))?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown();
        shown.find(hello.server_name()).map(|identity| Arc::clone(identity.key()))
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown();
        f.debug_struct("Identities")
            .field("identities", &shown.identities)
            .field("by_name", &shown.by_name)
            .finish()
    }
}
