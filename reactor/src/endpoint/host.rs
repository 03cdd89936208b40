//! [`HostConnector`]: what is to be connected to, and how.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::race;
use crate::deferred::Deferred;
use crate::protocol::{ConnectionLost, Protocol};
use crate::reactor::Reactor;
use crate::tls;
use crate::transport::Transport;
use crate::transport::tcp::ConnectOptions;

/// Says whether an address may be connected to.
pub type AddressRule = Rc<dyn Fn(&SocketAddr) -> bool>;

/// Connects to a host by name or address, over TCP or TLS.
///
/// The name is looked up ([`Reactor::resolve_host`]), and its addresses are tried in the order given
/// except that the two families take turns. The next one is begun a quarter of a second after the one
/// before, or at once if that has failed; those under way go on. The first connection that stands,
/// TLS handshake included, gets the protocol, and the others are given up.
///
/// A connector is a value: it can be cloned, kept, and used again.
///
/// ```
/// use ropewalk::endpoint::HostConnector;
/// use ropewalk::testing::{Clock, failure_result_of};
/// use ropewalk::{Protocol, Transport};
///
/// struct Mute;
///
/// impl Protocol for Mute {
///     fn data_received(&mut self, _: &Transport, _: &[u8]) {}
/// }
///
/// let clock = Clock::new();
/// clock.hosts().add("hs.example", ["127.0.0.1".parse().unwrap()]);
/// let connector = HostConnector::new("hs.example", 8448)
///     .permit(|address| !address.ip().is_loopback());
/// let connected = connector.connect(clock.reactor(), Box::new(Mute));
/// clock.pump();
/// assert_eq!(
///     failure_result_of(connected).to_string(),
///     "cannot connect to hs.example port 8448: \
///      127.0.0.1:8448: this program's rules forbid this address",
/// );
/// ```
#[derive(Clone)]
pub struct HostConnector {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) options: ConnectOptions,
    pub(super) permit: Option<AddressRule>,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) attempt_delay: Duration,
    pub(super) timeout: Duration,
}

impl HostConnector {
    /// Names the host, or gives its address, and the port. The connection will be made within 30
    /// seconds.
    pub fn new(host: impl Into<String>, port: u16) -> HostConnector {
        HostConnector {
            host: host.into(),
            port,
            options: ConnectOptions::default(),
            permit: None,
            tls: None,
            server_name: None,
            attempt_delay: ATTEMPT_DELAY,
            timeout: CONNECT_TIME_MAX,
        }
    }

    /// Speaks TLS. The host has to prove that it is who it is called here; see
    /// [`server_name`](HostConnector::server_name).
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> HostConnector {
        self.tls = Some(config);
        self
    }

    /// Sets whom the peer has to prove to be, if not the host that is connected to.
    #[must_use]
    pub fn server_name(mut self, name: ServerName<'static>) -> HostConnector {
        self.server_name = Some(name);
        self
    }

    /// Asks `rule` about each address before it is connected to. It sees what the name was resolved
    /// to, and no other look-up comes between its word and the connection.
    #[must_use]
    pub fn permit(mut self, rule: impl Fn(&SocketAddr) -> bool + 'static) -> HostConnector {
        self.permit = Some(Rc::new(rule));
        self
    }

    /// Sets how the connection's socket is made.
    #[must_use]
    pub fn options(mut self, options: ConnectOptions) -> HostConnector {
        self.options = options;
        self
    }

    /// Sets how long an attempt has to itself before the next one is begun. RFC 8305 recommends 250 ms,
    /// and never less than 10 ms.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> HostConnector {
        self.attempt_delay = delay.max(ATTEMPT_DELAY_MIN);
        self
    }

    /// Sets within which time the connection has to stand, from the look-up of the name to the end of
    /// the TLS handshake.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> HostConnector {
        self.timeout = limit;
        self
    }

    /// Returns the host as it was given.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects, and puts `protocol` on the connection.
    ///
    /// The deferred gets the transport after `connection_made` has returned. Cancelling it gives up.
    /// A protocol whose connection was never made is dropped without a call.
    ///
    /// # Errors
    ///
    /// [`ResolveError`](crate::resolver::ResolveError) if there is no address to try;
    /// [`ConnectHostError`].
    #[track_caller]
    pub fn connect(&self, reactor: &Reactor, protocol: Box<dyn Protocol>) -> Deferred<Transport> {
        race::connect(reactor, self, protocol)
    }
}

impl fmt::Debug for HostConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConnector")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("options", &self.options)
            .field("is_restricted", &self.permit.is_some())
            .field("is_tls", &self.tls.is_some())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Reactor {
    /// Connects to a host by name over TCP, and puts `protocol` on the connection: the short way to
    /// [`HostConnector::connect`], which has the details, and options besides.
    #[track_caller]
    pub fn connect_host(
        &self,
        host: &str,
        port: u16,
        protocol: Box<dyn Protocol>,
    ) -> Deferred<Transport> {
        HostConnector::new(host, port).connect(self, protocol)
    }
}

/// Why no address of a host could be connected to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectHostError {
    /// The host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What came of each address that was looked at, in the order in which that was known.
    pub attempts: Vec<(SocketAddr, AttemptFailure)>,
    /// The limit in time, if that is what ended it.
    pub time_limit: Option<Duration>,
}

/// What came of one address.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AttemptFailure {
    /// The attempt failed.
    Connection(ConnectionLost),
    /// A rule of this program forbids the address; see [`HostConnector::permit`].
    Forbidden,
    /// There had been no answer when the time was up.
    NoAnswer,
}

impl fmt::Display for AttemptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptFailure::Connection(ConnectionLost::Failed(error)) => error.fmt(f),
            AttemptFailure::Connection(ConnectionLost::Tls(error)) => {
                write!(f, "TLS: {}", tls::describe(error))
            }
            AttemptFailure::Connection(reason) => reason.fmt(f),
            AttemptFailure::Forbidden => f.write_str("this program's rules forbid this address"),
            AttemptFailure::NoAnswer => f.write_str("no answer"),
        }
    }
}

impl fmt::Display for ConnectHostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {} port {}", self.host, self.port)?;
        if let Some(limit) = self.time_limit {
            write!(f, " within {} s", limit.as_secs_f64())?;
        }
        for (number, (address, failure)) in self.attempts.iter().enumerate() {
            let separator = if number == 0 { ":" } else { ";" };
            write!(f, "{separator} {address}: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectHostError {}

/// RFC 8305, section 5: the delay between two attempts, and the shortest that may be used.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
const ATTEMPT_DELAY_MIN: Duration = Duration::from_millis(10);

/// People have given up by then. Twisted's endpoints wait as long.
pub(super) const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
