//! What the connections of one server share, and the factory that makes them.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use ropewalk::{Address, Deferred, Factory, LogContext, Protocol, Reactor, Resolver};
use slab::Slab;

use super::Handler;
use super::connection::{Connection, HttpServer};
use super::date::DateCache;
use crate::limits::Limits;

/// Makes an HTTP/1.1 server of each accepted connection.
///
/// A cheap clone; clones are the same server. One connection has one request under way at a time: the
/// answers to pipelined requests come in order, and a client that sends more of them than it reads the
/// answers of is made to wait.
///
/// ```no_run
/// use std::rc::Rc;
///
/// use http::StatusCode;
/// use ropewalk::{ListenOptions, Reactor};
/// use ropewalk_http::{HttpFactory, Limits, Reply, Request, Response};
///
/// # fn main() -> std::io::Result<()> {
/// let reactor = Reactor::new()?;
/// let handler = |_: Request| Reply::Now(Response::text(StatusCode::OK, "hello\n"));
/// let factory = HttpFactory::new(&reactor, Rc::new(handler), Limits::default());
/// reactor.listen_tcp("127.0.0.1:8008".parse().unwrap(), Rc::new(factory), ListenOptions::default())?;
/// reactor.run()
/// # }
/// ```
#[derive(Clone)]
pub struct HttpFactory {
    server: Rc<Server>,
}

/// What all connections of a server share.
pub(crate) struct Server {
    pub(crate) reactor: Reactor,
    pub(crate) handler: Rc<dyn Handler>,
    pub(crate) limits: Limits,
    pub(crate) date: DateCache,
    /// Where heads are put together; empty between uses.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// The context of the last request, if nobody else holds it, for the next one.
    pub(crate) spare_context: Cell<LogContext>,
    connections: RefCell<Slab<Weak<Connection>>>,
    requests: Cell<u64>,
    is_draining: Cell<bool>,
    drained: RefCell<Vec<Resolver<()>>>,
    refused: Cell<u64>,
}

impl HttpFactory {
    /// Makes a server that answers with `handler`.
    pub fn new(reactor: &Reactor, handler: Rc<dyn Handler>, limits: Limits) -> Self {
        let server = Server {
            reactor: reactor.clone(),
            handler,
            limits,
            date: DateCache::new(),
            scratch: RefCell::new(Vec::with_capacity(4096)),
            spare_context: Cell::default(),
            connections: RefCell::new(Slab::new()),
            requests: Cell::new(0),
            is_draining: Cell::new(false),
            drained: RefCell::new(Vec::new()),
            refused: Cell::new(0),
        };
        HttpFactory { server: Rc::new(server) }
    }

    /// Stops in order: takes no more connections, closes those that are idle, and lets requests that are
    /// under way be answered, with `Connection: close`. Fires when the last connection is gone.
    ///
    /// There is no deadline in this: use [`Deferred::with_timeout`], or stop the reactor. Cancelling changes
    /// nothing but the wait. Stop the listening port first, else clients see connections that are refused.
    pub fn drain(&self) -> Deferred<()> {
        let server = &self.server;
        server.is_draining.set(true);
        let connections: Vec<_> =
            server.connections.borrow().iter().filter_map(|(_, weak)| weak.upgrade()).collect();
        for connection in connections {
            connection.close_if_idle();
        }
        let (deferred, resolver) = Deferred::new();
        server.drained.borrow_mut().push(resolver);
        server.tell_if_drained();
        deferred
    }

    /// Returns the number of open connections.
    pub fn connection_count(&self) -> usize {
        self.server.connections.borrow().len()
    }

    /// Returns the number of requests so far.
    pub fn request_count(&self) -> u64 {
        self.server.requests.get()
    }
}

impl Factory for HttpFactory {
    fn build_protocol(&self, peer: &Address) -> Option<Box<dyn Protocol>> {
        let server = &self.server;
        if server.is_draining.get() {
            return None;
        }
        if server.connections.borrow().len() >= server.limits.connections_max {
            server.count_refusal();
            return None;
        }
        let connection = Connection::new(Rc::clone(server), peer.clone());
        let key = server.connections.borrow_mut().insert(Rc::downgrade(&connection));
        Some(Box::new(HttpServer::new(connection, key)))
    }
}

impl Server {
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Returns the number of the next request.
    pub(crate) fn number_request(&self) -> u64 {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        number
    }

    pub(crate) fn forget_connection(&self, key: usize) {
        self.connections.borrow_mut().try_remove(key);
        self.tell_if_drained();
    }

    fn tell_if_drained(&self) {
        if self.is_draining.get() && self.connections.borrow().is_empty() {
            let waiting = std::mem::take(&mut *self.drained.borrow_mut());
            for resolver in waiting {
                resolver.callback(());
            }
        }
    }

    /// Says so at the first refusal and then ever more rarely: a flood must not become a flood of lines.
    fn count_refusal(&self) {
        let refused = self.refused.get() + 1;
        self.refused.set(refused);
        if refused.is_power_of_two() {
            log::warn!(
                "refused connections over the limit; raise connections_max or find out who opens them \
                 connections_max={} refused_total={refused}",
                self.limits.connections_max
            );
        }
    }
}
