//! [`ServerTls`]: what a server shows, and what it wants to see.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::identity::certificates_from_pem;
use super::{Identities, TlsError, protocols, provider};
use crate::reactor::Reactor;

/// Makes the configuration of a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    identities: Identities,
    clients: Clients,
    alpn: Vec<Vec<u8>>,
    resumption: Resumption,
}

/// What clients have to show.
#[derive(Clone, Debug)]
enum Clients {
    Anybody,
    Optional(Arc<RootCertStore>),
    Required(Arc<RootCertStore>),
}

#[derive(Clone, Copy, Debug)]
enum Resumption {
    None,
    Tickets,
}

impl ServerTls {
    /// Makes one that shows these identities, asks clients for nothing, and lets them resume their
    /// sessions.
    #[must_use]
    pub fn new(identities: Identities) -> ServerTls {
        let (clients, resumption) = (Clients::Anybody, Resumption::Tickets);
        ServerTls { identities, clients, alpn: Vec::new(), resumption }
    }

    /// Serves only clients with a certificate for which one of these vouches (given in PEM).
    ///
    /// # Errors
    ///
    /// [`TlsError::NoCertificate`], [`TlsError::Pem`], [`TlsError::Root`].
    pub fn require_clients(mut self, roots_pem: &[u8]) -> Result<ServerTls, TlsError> {
        self.clients = Clients::Required(roots(roots_pem)?);
        Ok(self)
    }

    /// Asks clients for a certificate for which one of these vouches (given in PEM), but serves those
    /// without one, too. Which it was is in [`TlsInfo`](super::TlsInfo). One for which nobody vouches is
    /// refused.
    ///
    /// # Errors
    ///
    /// As [`require_clients`](ServerTls::require_clients).
    pub fn ask_clients(mut self, roots_pem: &[u8]) -> Result<ServerTls, TlsError> {
        self.clients = Clients::Optional(roots(roots_pem)?);
        Ok(self)
    }

    /// Speaks these protocols by ALPN, the preferred one first. A client that offers only others is
    /// refused; one that offers none is not.
    #[must_use]
    pub fn alpn<P: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = P>) -> ServerTls {
        self.alpn = protocols(names);
        self
    }

    /// Lets no session be resumed: each connection has a full handshake, and each client shows its
    /// certificate again.
    #[must_use]
    pub fn without_resumption(mut self) -> ServerTls {
        self.resumption = Resumption::None;
        self
    }

    /// Makes the configuration. It can be shared by several ports.
    ///
    /// Dates of clients' certificates are checked by the reactor's clock.
    ///
    /// # Errors
    ///
    /// [`TlsError::Setup`].
    pub fn config(&self, reactor: &Reactor) -> Result<Arc<ServerConfig>, TlsError> {
        let clock = reactor.core().backend.certificate_clock();
        let builder = ServerConfig::builder_with_details(provider(), clock)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match &self.clients {
            Clients::Anybody => builder.with_no_client_auth(),
            Clients::Optional(roots) | Clients::Required(roots) => {
                let mut verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
                if let Clients::Optional(_) = &self.clients {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier
                    .build()
                    .map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.identities.clone()));
        config.alpn_protocols = self.alpn.clone();
        match self.resumption {
            Resumption::None => {
                config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Resumption::Tickets => {
                config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
                config.ticketer = Ticketer::new().map_err(TlsError::Setup)?;
            }
        }
        Ok(Arc::new(config))
    }
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_from_pem(pem)? {
        roots.add(certificate).map_err(TlsError::Root)?;
    }
    Ok(Arc::new(roots))
}

/// Sessions of clients that take no tickets; rustls keeps as many by default.
const SESSIONS_MAX: usize = 256;
