//! Listening ports: accepting, and what they do when no descriptor is left.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use super::link::{Link, Setup};
use super::stream::{Listener, Stream};
use super::tcp;
use super::tls::{HANDSHAKE_TIME_MAX, Session};
use crate::address::{Address, UnixAddress};
use crate::allowance::Allowance;
use crate::backend::Readiness;
use crate::context::LogContext;
use crate::core::{Core, Source};
use crate::protocol::Factory;
use crate::ready::Job;
use crate::slots::Key;

/// A port that accepts connections until it is told to stop, or the reactor stops.
///
/// Dropping the handle leaves it listening.
#[derive(Clone)]
pub struct ListeningPort {
    core: Weak<Core>,
    key: Key,
    address: Address,
}

impl ListeningPort {
    /// Returns the IP address and port that it listens on, with the port that the system picked for
    /// port 0. A Unix socket has neither: `0.0.0.0:0`; see [`local`](ListeningPort::local).
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address.socket_address().unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// Returns the address that it listens on, of whichever kind.
    #[must_use]
    pub fn local(&self) -> &Address {
        &self.address
    }

    /// Accepts no more connections and frees the port. Those that were accepted live on.
    pub fn stop_listening(&self) {
        let Some(core) = self.core.upgrade() else { return };
        let port = core.sources.borrow_mut().remove(self.key);
        // What the factory owns may be anything; it goes with no borrow held.
        drop(port);
    }

    /// Whether it still accepts connections.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.core.upgrade().is_some_and(|core| core.sources.borrow().get(self.key).is_some())
    }
}

impl fmt::Debug for ListeningPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListeningPort")
            .field("address", &self.address)
            .field("is_listening", &self.is_listening())
            .finish()
    }
}

/// What a port puts on the streams that it accepts.
pub(crate) enum Security {
    Plain,
    Tls(Arc<rustls::ServerConfig>),
}

/// The inside of a listening port.
pub(crate) struct Port {
    listener: RefCell<Listener>,
    address: Address,
    /// Begins the names of its connections' contexts.
    name: Rc<str>,
    factory: Rc<dyn Factory>,
    security: Security,
    on_accept: AcceptOptions,
    key: Cell<Key>,
    connection_count: Cell<u64>,
    /// Whether it stands on the core's list of those to be served again.
    is_unread: Cell<bool>,
    /// Whether accepting pauses because it failed,
    is_pausing: Cell<bool>,
    /// and how often it has since it last succeeded.
    failure_count: Cell<u32>,
}

impl Port {
    pub(crate) fn open(
        core: &Rc<Core>,
        listener: Listener,
        factory: Rc<dyn Factory>,
        security: Security,
        on_accept: AcceptOptions,
    ) -> io::Result<ListeningPort> {
        core.check_open()?;
        let address = listener.local_address()?;
        let port = Rc::new(Port {
            listener: RefCell::new(listener),
            name: context_name(&address).into(),
            address: address.clone(),
            factory,
            security,
            on_accept,
            key: Cell::new(Key::NONE),
            connection_count: Cell::new(0),
            is_unread: Cell::new(false),
            is_pausing: Cell::new(false),
            failure_count: Cell::new(0),
        });
        let key = core.sources.borrow_mut().insert(Source::Port(Rc::clone(&port)));
        port.key.set(key);
        let registered = core.backend.register_listener(&mut port.listener.borrow_mut(), key);
        if let Err(error) = registered {
            core.sources.borrow_mut().remove(key);
            return Err(error);
        }
        Ok(ListeningPort { core: Rc::downgrade(core), key, address })
    }

    /// Says, for people, where this port is and how many connections it has had.
    pub(crate) fn inspect(&self) -> Vec<String> {
        vec![self.name.to_string(), self.connection_count.get().to_string()]
    }

    /// Accepts what is waiting, up to the budget of one turn.
    #[inline(never)]
    pub(crate) fn serve(self: &Rc<Port>, core: &Rc<Core>, readiness: Readiness) {
        if readiness.has(Readiness::UNREAD) {
            self.is_unread.set(false);
        }
        // If it stands on the list, its turn comes with that, and once a turn is enough.
        if self.is_pausing.get() || self.is_unread.get() {
            return;
        }
        let mut allowance = Allowance::new(&*core.backend, ACCEPTS_PER_TURN);
        while allowance.take() {
            let accepted = self.listener.borrow().accept();
            match accepted {
                Ok((stream, peer)) => self.accept(core, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => return self.pause(core, &error),
            }
            if core.sources.borrow().get(self.key.get()).is_none() {
                // The factory or protocol has stopped the listening.
                return;
            }
        }
        self.serve_later(core);
    }

    fn serve_later(&self, core: &Core) {
        self.is_unread.set(true);
        core.read_later(self.key.get());
    }

    fn accept(self: &Rc<Port>, core: &Rc<Core>, stream: Stream, peer: Address) {
        let failure_count = self.failure_count.replace(0);
        if failure_count > 0 {
            log::info!("accepting connections on {} again failures={failure_count}", self.address);
        }
        self.on_accept.apply(&stream);
        core.counters.accepts.add(1);
        let number = self.connection_count.get() + 1;
        self.connection_count.set(number);
        let context = LogContext::of_connection(&self.name, number);
        let mut protocol = None;
        let built = core.call("build_protocol", &context, || {
            protocol = self.factory.build_protocol(&peer);
        });
        let Some(protocol) = protocol.filter(|_| built.is_ok()) else { return };
        let session = match &self.security {
            Security::Plain => None,
            Security::Tls(config) => {
                match Session::server(Arc::clone(config), self.on_accept.handshake_limit) {
                    Ok(session) => Some(session),
                    Err(error) => {
                        return log::error!("cannot speak TLS with {peer}: {error}");
                    }
                }
            }
        };
        let setup = Setup { stream, peer, protocol, context, session };
        if let Err(error) = Link::establish(core, setup) {
            log::warn!("cannot serve a connection to {}: {error}", self.address);
        }
    }

    /// Lets the system hold new connections for a while: there is no descriptor or no memory for
    /// them, and the listener stays readable, so that trying again at once would spin.
    fn pause(self: &Rc<Port>, core: &Rc<Core>, error: &io::Error) {
        let failure_count = self.failure_count.get();
        self.failure_count.set(failure_count.saturating_add(1));
        if failure_count.is_multiple_of(FAILURES_PER_LOG_LINE) {
            let address = &self.address;
            let pause_ms = ACCEPT_PAUSE.as_millis();
            log::error!(
                "cannot accept connections on {address}: {error}; trying again pause_ms={pause_ms}"
            );
        }
        self.is_pausing.set(true);
        let port = Rc::downgrade(self);
        let weak_core = Rc::downgrade(core);
        let job = Job::in_context(LogContext::sentinel(), move || {
            if let (Some(port), Some(core)) = (port.upgrade(), weak_core.upgrade()) {
                port.is_pausing.set(false);
                // No new edge will come for what waits already.
                port.serve_later(&core);
            }
        });
        core.timers.borrow_mut().insert(core.backend.now() + ACCEPT_PAUSE, job);
    }
}

/// What is done to each stream that a port accepts.
#[derive(Clone, Copy)]
pub(crate) struct AcceptOptions {
    pub(crate) no_delay: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) handshake_limit: Duration,
}

impl Default for AcceptOptions {
    fn default() -> AcceptOptions {
        AcceptOptions { no_delay: false, keepalive: None, handshake_limit: HANDSHAKE_TIME_MAX }
    }
}

impl AcceptOptions {
    fn apply(self, stream: &Stream) {
        let Stream::Tcp(stream) = stream else { return };
        // Both fail only for a connection that has ended already, which reading will show.
        if self.no_delay {
            let _ = stream.set_nodelay(true);
        }
        if let Some(idle_time) = self.keepalive {
            let _ = tcp::set_keepalive(&SockRef::from(stream), idle_time);
        }
    }
}

fn context_name(address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("tcp-{}", address.port()),
        Address::Unix(UnixAddress::Path(path)) => {
            format!("unix-{}", path.file_name().unwrap_or_default().to_string_lossy())
        }
        Address::Unix(address) => format!("unix-{address}"),
        Address::Pipe => "pipe".to_owned(),
    }
}

/// Whether the error is that of a connection which went away while it waited; the next may be fine.
/// Linux passes on what the network has reported for it.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionAborted
        | ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::Interrupted
        | ErrorKind::NetworkDown
        | ErrorKind::NetworkUnreachable
        | ErrorKind::TimedOut => true,
        _ => matches!(error.raw_os_error(), Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EPERM)),
    }
}

/// Connections accepted on one port in one turn.
const ACCEPTS_PER_TURN: u32 = 64;

/// How long a port waits after it could not accept. Descriptors come free as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// One line a minute while it lasts.
const FAILURES_PER_LOG_LINE: u32 = 120;
