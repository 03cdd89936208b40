//! TCP listeners: accepting, and what they do when no descriptor is left.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use super::link::{Link, Setup};
use super::stream::{Listener, Stream};
use crate::context::LogContext;
use crate::core::{Core, Source};
use crate::protocol::{Address, Factory};
use crate::ready::Job;
use crate::slots::Key;

/// How a port listens and what its connections start with.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections that the system may hold until they are accepted.
    pub backlog: u32,
    /// Whether small writes are sent at once (`TCP_NODELAY`).
    pub no_delay: bool,
    /// Whether other processes may listen on the same address and share its connections
    /// (`SO_REUSEPORT`).
    pub share_port: bool,
}

impl Default for ListenOptions {
    /// A backlog of 1,024, small writes sent at once, the port not shared.
    fn default() -> ListenOptions {
        ListenOptions { backlog: 1024, no_delay: true, share_port: false }
    }
}

/// How an outgoing connection's socket is made.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The address of this end; port 0 picks a free one. `None`: the system picks both.
    pub bind_address: Option<SocketAddr>,
    /// Whether small writes are sent at once (`TCP_NODELAY`).
    pub no_delay: bool,
}

impl Default for ConnectOptions {
    /// The system picks this end's address; small writes are sent at once.
    fn default() -> ConnectOptions {
        ConnectOptions { bind_address: None, no_delay: true }
    }
}

/// A port that accepts connections until it is told to stop, or the reactor stops.
///
/// Dropping the handle leaves it listening.
#[derive(Clone)]
pub struct ListeningPort {
    core: Weak<Core>,
    key: Key,
    address: SocketAddr,
}

impl ListeningPort {
    /// Returns the address that it listens on, with the port that the system picked for port 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
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
    address: SocketAddr,
    factory: Rc<dyn Factory>,
    security: Security,
    no_delay: bool,
    key: Cell<Key>,
    connection_count: Cell<u64>,
    /// Whether accepting pauses because it failed.
    is_pausing: Cell<bool>,
}

impl Port {
    pub(crate) fn open(
        core: &Rc<Core>,
        address: SocketAddr,
        factory: Rc<dyn Factory>,
        security: Security,
        options: &ListenOptions,
    ) -> io::Result<ListeningPort> {
        core.check_open()?;
        let listener = core.backend.listen(address, options)?;
        let address = listener.local_address()?;
        let port = Rc::new(Port {
            listener: RefCell::new(listener),
            address,
            factory,
            security,
            no_delay: options.no_delay,
            key: Cell::new(Key::NONE),
            connection_count: Cell::new(0),
            is_pausing: Cell::new(false),
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

    /// Accepts what is waiting, up to the budget of one turn.
    #[inline(never)]
    pub(crate) fn serve(self: &Rc<Port>, core: &Rc<Core>) {
        if self.is_pausing.get() {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = self.listener.borrow().accept();
            match accepted {
                Ok((stream, peer)) => self.accept(core, stream, peer),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // This one went away while it waited; the next may be fine.
                    io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::Interrupted => {}
                    _ => return self.pause(core, &error),
                },
            }
            if core.sources.borrow().get(self.key.get()).is_none() {
                // The factory or protocol has stopped the listening.
                return;
            }
        }
        core.read_later(self.key.get());
    }

    fn accept(self: &Rc<Port>, core: &Rc<Core>, stream: Stream, peer: SocketAddr) {
        if self.no_delay
            && let Stream::Tcp(stream) = &stream
        {
            // It fails only for a connection that has ended already, which reading will show.
            let _ = stream.set_nodelay(true);
        }
        core.counters.accepts.add(1);
        let number = self.connection_count.get() + 1;
        self.connection_count.set(number);
        let context = LogContext::new(format!("tcp-{}-{number}", self.address.port()));
        let mut protocol = None;
        let built = core.call("build_protocol", &context, || {
            protocol = self.factory.build_protocol(&Address::Tcp(peer));
        });
        let Some(protocol) = protocol.filter(|_| built.is_ok()) else { return };
        let session = match &self.security {
            Security::Plain => None,
            Security::Tls(config) => match rustls::ServerConnection::new(Arc::clone(config)) {
                Ok(session) => Some(session.into()),
                Err(error) => {
                    return log::error!("cannot speak TLS with {peer}: {error}");
                }
            },
        };
        let setup = Setup { stream, peer, protocol, context, session };
        if let Err(error) = Link::establish(core, setup) {
            log::warn!("cannot serve the connection from {peer}: {error}");
        }
    }

    /// Lets the system hold new connections for a while: there is no descriptor or no memory for
    /// them, and the listener stays readable, so that trying again at once would spin.
    fn pause(self: &Rc<Port>, core: &Rc<Core>, error: &io::Error) {
        let address = self.address;
        let pause_ms = ACCEPT_PAUSE.as_millis();
        log::error!(
            "cannot accept connections on {address}: {error}; trying again pause_ms={pause_ms}"
        );
        self.is_pausing.set(true);
        let port = Rc::downgrade(self);
        let weak_core = Rc::downgrade(core);
        let job = Job::in_context(LogContext::sentinel(), move || {
            if let (Some(port), Some(core)) = (port.upgrade(), weak_core.upgrade()) {
                port.is_pausing.set(false);
                // No new edge will come for what waits already.
                core.read_later(port.key.get());
            }
        });
        core.timers.borrow_mut().insert(core.backend.now() + ACCEPT_PAUSE, job);
    }
}

/// Opens a socket and begins to connect it.
pub(crate) fn connect(address: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let stream = match options.bind_address {
        None => TcpStream::connect(address)?,
        Some(bind_address) => {
            let domain = Domain::for_address(address);
            let socket =
                Socket::new(domain, Type::STREAM.nonblocking(), Some(SocketProtocol::TCP))?;
            socket.set_cloexec(true)?;
            socket.bind(&bind_address.into())?;
            match socket.connect(&address.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                _ => TcpStream::from_std(socket.into()),
            }
        }
    };
    stream.set_nodelay(options.no_delay)?;
    Ok(stream)
}

/// Opens a listening socket.
pub(crate) fn bind(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(SocketProtocol::TCP))?;
    socket.set_cloexec(true)?;
    // So that a restarted server gets its port back while old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.share_port)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Connections accepted on one port in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// How long a port waits after it could not accept. Descriptors come free as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
