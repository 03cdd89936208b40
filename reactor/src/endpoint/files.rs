//! The files of TLS endpoints: read off the loop, and made into configurations.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustls::{ClientConfig, ServerConfig};

use super::client::ClientTlsFiles;
use super::server::ServerTlsFiles;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::reactor::Reactor;
use crate::tls::{ClientTls, Identities, Identity, ServerTls, TlsError};

/// A file of an endpoint holds nothing that TLS can use.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot use {} as the {what}", path.display())]
pub struct EndpointFileError {
    /// The file.
    pub path: PathBuf,
    /// What it was to hold.
    pub what: &'static str,
    /// Why it does not.
    #[source]
    pub source: TlsError,
}

fn unusable(path: &Path, what: &'static str) -> impl FnOnce(TlsError) -> Failure + use<> {
    let path = path.to_owned();
    move |source| Failure::from(EndpointFileError { path, what, source })
}

impl ServerTlsFiles {
    /// Reads the certificate and the key: at the start, and again when they have been renewed, to
    /// [replace](Identities::replace) what is shown.
    ///
    /// # Errors
    ///
    /// [`EndpointFileError`]; [`FileError`](crate::files::FileError).
    #[track_caller]
    pub fn read_identity(&self, reactor: &Reactor) -> Deferred<Identity> {
        let files = self.clone();
        let handle = reactor.clone();
        reactor.spawn(async move {
            let key = read(&handle, &files.private_key).await?;
            let mut certificates = match files.certificate == files.private_key {
                true => key.to_vec(),
                false => read(&handle, &files.certificate).await?.to_vec(),
            };
            if let Some(extra_chain) = &files.extra_chain {
                certificates.push(b'\n');
                certificates.extend_from_slice(&read(&handle, extra_chain).await?);
            }
            let identity = Identity::from_pem(&certificates, &key);
            identity.map_err(|source| match source {
                TlsError::NoKey => unusable(&files.private_key, "private key")(source),
                source => unusable(&files.certificate, "certificate")(source),
            })
        })
    }

    /// Reads the files, and makes the configuration of a server that shows `identities`.
    ///
    /// # Errors
    ///
    /// As [`read_identity`](ServerTlsFiles::read_identity).
    #[track_caller]
    pub fn read_config(
        &self,
        reactor: &Reactor,
        identities: Identities,
    ) -> Deferred<Arc<ServerConfig>> {
        let files = self.clone();
        let handle = reactor.clone();
        reactor.spawn(async move {
            let mut server = ServerTls::new(identities).alpn(&files.alpn);
            if let Some(roots) = &files.client_roots {
                let pem = read(&handle, roots).await?;
                server = server
                    .require_clients(&pem)
                    .map_err(unusable(roots, "certificates that vouch for clients"))?;
            }
            Ok(server.config(&handle)?)
        })
    }
}

/// Reads what a listening endpoint needs.
#[track_caller]
pub(super) fn server_config(
    reactor: &Reactor,
    files: &ServerTlsFiles,
) -> Deferred<Arc<ServerConfig>> {
    let files = files.clone();
    let handle = reactor.clone();
    files.read_identity(reactor).add_callback(move |identity| match Identities::new([identity]) {
        Ok(identities) => files.read_config(&handle, identities),
        Err(error) => Deferred::fail(error),
    })
}

/// Reads what a connecting endpoint needs.
#[track_caller]
pub(super) fn client_config(
    reactor: &Reactor,
    files: &ClientTlsFiles,
) -> Deferred<Arc<ClientConfig>> {
    let files = files.clone();
    let handle = reactor.clone();
    reactor.spawn(async move {
        let mut client = ClientTls::new().alpn(&files.alpn);
        for pin in &files.pins {
            client = client.pin(*pin);
        }
        if let Some(roots) = &files.trust_roots {
            let pem = read(&handle, roots).await?;
            client = client
                .roots_from_pem(&pem)
                .map_err(unusable(roots, "certificates that vouch for servers"))?;
        }
        if let Some(certificate) = &files.certificate {
            let pem = read(&handle, certificate).await?;
            let key = match &files.private_key {
                Some(key) => read(&handle, key).await?,
                None => pem.clone(),
            };
            let identity = Identity::from_pem(&pem, &key);
            client = client.identity(identity.map_err(unusable(certificate, "certificate"))?);
        }
        Ok(client.config(&handle)?)
    })
}

fn read(reactor: &Reactor, path: &Path) -> Deferred<Bytes> {
    reactor.files().read(path, FILE_BYTES_MAX)
}

/// The system's bundle of roots has some 200 KiB; a file beyond this is something else.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
