//! Where the server waits for connections, as services.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;

use ropewalk::{Deferred, Failure, ListenOptions, ListeningPort, Reactor, Service, Signal};
use ropewalk_http::{HttpFactory, Limits};
use rustls::ServerConfig;

use super::Homeserver;
use super::certificate::Certificate;
use crate::api::router::BODY_BYTES_MAX;
use crate::config::listen::{HttpListener, HttpsListener};
use crate::handlers::sync::ClientSync;

/// One address that clients connect to.
pub(super) struct Listener {
    reactor: Reactor,
    /// The section of the configuration, for errors.
    section: &'static str,
    address: SocketAddr,
    security: Security,
    factory: HttpFactory,
    sync: ClientSync,
    port: RefCell<Option<ListeningPort>>,
}

enum Security {
    Plain,
    Tls(Arc<ServerConfig>),
}

impl Listener {
    /// Plain HTTP.
    pub(super) fn http(
        listen: &HttpListener,
        homeserver: &Homeserver,
        reactor: &Reactor,
    ) -> io::Result<Self> {
        let address = resolve(&listen.host, listen.port)?;
        Ok(Self::new("listen.http", address, Security::Plain, homeserver, reactor))
    }

    /// HTTP over TLS. The certificate is read again whenever the process gets SIGHUP.
    pub(super) fn https(
        listen: &HttpsListener,
        homeserver: &Homeserver,
        reactor: &Reactor,
    ) -> Result<Self, Failure> {
        let address = resolve(&listen.host, listen.port)?;
        let certificate = Certificate::load(listen)?;
        let security = Security::Tls(certificate.server_config()?);
        reload_on_hangup(reactor, certificate)?;
        Ok(Self::new("listen.https", address, security, homeserver, reactor))
    }

    fn new(
        section: &'static str,
        address: SocketAddr,
        security: Security,
        homeserver: &Homeserver,
        reactor: &Reactor,
    ) -> Self {
        let limits = Limits { body_bytes_max: BODY_BYTES_MAX, ..Limits::default() };
        Self {
            reactor: reactor.clone(),
            section,
            address,
            security,
            factory: HttpFactory::new(reactor, Rc::clone(&homeserver.handler), limits),
            sync: homeserver.sync.clone(),
            port: RefCell::default(),
        }
    }

    /// Returns where clients reach the server.
    pub(super) fn url(&self) -> String {
        let address = self.port.borrow().as_ref().map_or(self.address, |port| port.local_address());
        match self.security {
            Security::Plain => format!("http://{address}"),
            Security::Tls(_) => format!("https://{address}"),
        }
    }
}

impl Service for Listener {
    fn name(&self) -> &str {
        self.section
    }

    fn start(&self, _: &Reactor) -> Deferred<()> {
        let factory = Rc::new(self.factory.clone());
        let options = ListenOptions::default();
        let listening = match &self.security {
            Security::Plain => self.reactor.listen_tcp(self.address, factory, options),
            Security::Tls(config) => {
                self.reactor.listen_tls(self.address, factory, Arc::clone(config), options)
            }
        };
        match listening {
            Ok(port) => {
                self.port.replace(Some(port));
                log::info!("listening at {}", self.url());
                Deferred::succeed(())
            }
            Err(source) => {
                Deferred::fail(ListenError { address: self.address, section: self.section, source })
            }
        }
    }

    /// Takes no more connections, answers those who wait for news, and lets the other requests end.
    fn stop(&self) -> Deferred<()> {
        if let Some(port) = self.port.take() {
            port.stop_listening();
        }
        self.sync.stop_waiting();
        self.factory.drain()
    }
}

fn reload_on_hangup(reactor: &Reactor, certificate: Arc<Certificate>) -> io::Result<()> {
    let handle = reactor.clone();
    reactor.on_signal(Signal::Hangup, move || {
        let certificate = Arc::clone(&certificate);
        handle
            .defer_to_thread(move || certificate.reload())
            .add_both(|outcome| {
                match outcome {
                    Ok(()) => log::info!("read the certificate again"),
                    Err(failure) => {
                        log::error!("kept the old certificate: {failure:#}");
                    }
                }
                Ok(())
            })
            .detach();
    })
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; choose another port with {section}.port")]
struct ListenError {
    address: SocketAddr,
    section: &'static str,
    source: io::Error,
}

/// Returns the address of a configured host. Blocks, and runs before the loop does.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    (bare, port).to_socket_addrs()?.next().ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{host:?} is no address of this machine"))
    })
}
