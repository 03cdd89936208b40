//! The connections to one host, and who gets the next one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use ropewalk::{
    CancelledError, Deferred, DelayedCall, Failure, Instant, LogContext, Protocol, Reactor,
    Resolver, Transport,
};

use super::budget::Budget;
use super::connection::{ClientConnection, ClientProtocol};
use super::request::{ClientRequest, ClientResponse};
use super::{ClientError, ClientOptions};

/// Sends requests to one host, and keeps connections open for the next ones.
///
/// A cheap clone; clones share the connections. When the last one is dropped, idle connections are
/// closed, and the others once they have done their work.
///
/// ```no_run
/// use http::Method;
/// use ropewalk::Reactor;
/// use ropewalk_http::{ClientOptions, ClientRequest, HttpClient};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let reactor = Reactor::new()?;
/// let address = "127.0.0.1:8008".parse()?;
/// let client = HttpClient::new(&reactor, address, ClientOptions::default());
/// let request = ClientRequest::new(Method::GET, "localhost:8008", "/_matrix/client/versions")?;
/// let text = client.request(request).add_callback(|response| response.body.collect(65_536));
/// println!("{:?}", reactor.run_until(text).map_err(|failure| failure.to_string())?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpClient {
    pool: Rc<Pool>,
}

impl HttpClient {
    /// Makes a client for the host at `address`. Nothing is connected yet.
    pub fn new(reactor: &Reactor, address: SocketAddr, options: ClientOptions) -> Self {
        let connect = move |reactor: &Reactor, protocol| reactor.connect_tcp(address, protocol);
        HttpClient::with_connector(reactor, connect, options)
    }

    /// Makes a client whose connections are made by `connect`: over TLS, or to one of several addresses.
    ///
    /// `connect` has to put the protocol that it gets on a new connection to always the same host.
    /// Nothing is connected yet.
    ///
    /// Over TLS, with the name and the configuration of `rustls` in hand, that is
    /// `move |reactor, protocol| reactor.connect_tls(address, name.clone(), Arc::clone(&config), protocol)`.
    pub fn with_connector(
        reactor: &Reactor,
        connect: impl Fn(&Reactor, Box<dyn Protocol>) -> Deferred<Transport> + 'static,
        options: ClientOptions,
    ) -> Self {
        HttpClient { pool: Pool::new(reactor, Box::new(connect), options, None) }
    }

    /// Makes a client whose connections count among those of others.
    pub(crate) fn in_budget(
        reactor: &Reactor,
        connect: impl Fn(&Reactor, Box<dyn Protocol>) -> Deferred<Transport> + 'static,
        options: ClientOptions,
        budget: &Rc<Budget>,
    ) -> Self {
        let pool = Pool::new(reactor, Box::new(connect), options, Some(Rc::clone(budget)));
        budget.join(&pool);
        HttpClient { pool }
    }

    /// Sends a request. The response comes as soon as its head is complete.
    ///
    /// There is no limit in time for the whole but what the options say of its parts: see
    /// [`Deferred::with_timeout`]. Cancelling closes the connection if the request has been sent.
    ///
    /// A connection that was kept may be closed by the server at the moment in which it is used again. A request
    /// for which that is safe is then sent once more; others fail with [`ClientError::ConnectionLost`].
    ///
    /// # Errors
    ///
    /// [`ClientError`], and [`ConnectError`](ropewalk::ConnectError) or [`TimeoutError`](ropewalk::TimeoutError)
    /// of the attempt to connect.
    #[track_caller]
    pub fn request(&self, request: ClientRequest) -> Deferred<ClientResponse> {
        let limit = self.pool.options.waiting_max;
        if self.pool.waiting.borrow().len() >= limit {
            return Deferred::fail(ClientError::QueueFull { limit });
        }
        let stage = Rc::new(RefCell::new(Stage::Waiting));
        let cancelled = Rc::clone(&stage);
        let weak_pool = Rc::downgrade(&self.pool);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            // Whatever this leads to comes too late to matter.
            let stage = cancelled.replace(Stage::Cancelled);
            match stage {
                Stage::Connecting(connecting) => connecting.cancel(),
                Stage::Sent(connection) => {
                    if let Some(connection) = connection.upgrade() {
                        connection.abort();
                    }
                }
                Stage::Waiting => {
                    if let Some(pool) = weak_pool.upgrade() {
                        pool.leave_line(&cancelled, CancelledError);
                    }
                }
                Stage::Cancelled => {}
            }
        });
        self.pool.submit(Pending { request, resolver, stage });
        deferred
    }

    /// Returns the number of open connections, those that are being made included.
    pub fn connection_count(&self) -> usize {
        self.pool.open_count.get()
    }

    /// Whether no connection is open and no request waits for one.
    pub(crate) fn is_unused(&self) -> bool {
        self.connection_count() == 0 && self.pool.waiting.borrow().is_empty()
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpClient")
            .field("connection_count", &self.connection_count())
            .finish_non_exhaustive()
    }
}

/// A request on its way to a connection.
pub(super) struct Pending {
    pub(super) request: ClientRequest,
    pub(super) resolver: Resolver<ClientResponse>,
    pub(super) stage: Rc<RefCell<Stage>>,
}

/// What cancelling a request has to undo.
pub(super) enum Stage {
    Cancelled,
    Connecting(Deferred<()>),
    Sent(Weak<ClientConnection>),
    Waiting,
}

/// A request in the line for a connection.
struct InLine {
    pending: Pending,
    /// Its place among those of all pools of a budget.
    ticket: u64,
    limit: DelayedCall,
}

/// What makes the connections.
type Connector = Box<dyn Fn(&Reactor, Box<dyn Protocol>) -> Deferred<Transport>>;

pub(super) struct Pool {
    pub(super) reactor: Reactor,
    connector: Connector,
    made_count: Cell<u64>,
    pub(super) options: ClientOptions,
    /// The one that was used last is at the end, and used next: the others may grow old.
    idle: RefCell<Vec<Rc<ClientConnection>>>,
    open_count: Cell<usize>,
    waiting: RefCell<VecDeque<InLine>>,
    budget: Option<Rc<Budget>>,
}

impl Pool {
    fn new(
        reactor: &Reactor,
        connector: Connector,
        options: ClientOptions,
        budget: Option<Rc<Budget>>,
    ) -> Rc<Self> {
        Rc::new(Pool {
            reactor: reactor.clone(),
            connector,
            options,
            idle: RefCell::default(),
            made_count: Cell::new(0),
            open_count: Cell::new(0),
            waiting: RefCell::default(),
            budget,
        })
    }

    fn submit(self: &Rc<Self>, pending: Pending) {
        let kept = self.idle.borrow_mut().pop();
        match (kept, &self.budget) {
            (Some(connection), _) => connection.send(pending, true),
            (None, _) if !self.may_grow() => self.join_line(pending),
            (None, Some(budget)) if !budget.has_room() => {
                budget.make_room();
                self.join_line(pending);
            }
            (None, _) => self.connect(pending),
        }
    }

    /// Whether one connection more is allowed to this host.
    pub(super) fn may_grow(&self) -> bool {
        self.open_count.get() < self.options.limits.connections_max.max(1)
    }

    /// Sends a request over a new connection, even beyond the limit: it replaces one that is gone.
    pub(super) fn connect(self: &Rc<Self>, pending: Pending) {
        self.open_count.set(self.open_count.get() + 1);
        if let Some(budget) = &self.budget {
            budget.opened();
        }
        let connection = ClientConnection::new(self);
        let protocol = Box::new(ClientProtocol::new(Rc::clone(&connection)));
        let stage = Rc::clone(&pending.stage);
        // The connection may outlive the request that it is made for, so it does not run in its context.
        self.made_count.set(self.made_count.get() + 1);
        let context = LogContext::numbered("http-client", self.made_count.get());
        let connecting = context.run(|| (self.connector)(&self.reactor, protocol));
        let connected = connecting
            .with_timeout(&self.reactor, self.options.connect_timeout)
            .add_both(move |result| {
                match result {
                    Ok(_) => connection.send(pending, false),
                    Err(failure) => {
                        pending.stage.replace(Stage::Waiting);
                        pending.resolver.errback(failure);
                    }
                }
                Ok(())
            });
        if !connected.is_fired() && matches!(*stage.borrow(), Stage::Waiting) {
            stage.replace(Stage::Connecting(connected));
        }
    }

    /// Takes a connection back, or sends the next request over it.
    pub(super) fn take_back(&self, connection: &Rc<ClientConnection>) {
        let budget = self.budget.as_ref();
        if budget.is_some_and(|budget| budget.is_wanted_by_others(self.first_ticket())) {
            return connection.close();
        }
        match self.next_in_line() {
            Some(pending) => connection.send(pending, true),
            None => self.idle.borrow_mut().push(Rc::clone(connection)),
        }
    }

    /// A connection is gone, or was never made.
    pub(super) fn forget(self: &Rc<Self>, connection: &ClientConnection) {
        self.open_count.set(self.open_count.get().saturating_sub(1));
        let gone = {
            let mut idle = self.idle.borrow_mut();
            let at = idle.iter().position(|kept| std::ptr::eq(&**kept, connection));
            at.map(|at| idle.remove(at))
        };
        drop(gone);
        match &self.budget {
            Some(budget) => budget.closed(),
            None => self.connect_next(),
        }
    }

    /// Makes a connection for the request that has waited longest, if one does.
    pub(super) fn connect_next(self: &Rc<Self>) {
        if let Some(pending) = self.next_in_line() {
            self.connect(pending);
        }
    }
}

// The line.

impl Pool {
    fn join_line(self: &Rc<Self>, pending: Pending) {
        let limit = self.options.waiting_timeout;
        let (pool, stage) = (Rc::downgrade(self), Rc::clone(&pending.stage));
        let limit = self.reactor.call_later(limit, move || {
            if let Some(pool) = pool.upgrade() {
                pool.leave_line(&stage, ClientError::WaitingTimeout { limit });
            }
        });
        let ticket = self.budget.as_ref().map_or(0, |budget| budget.next_ticket());
        self.waiting.borrow_mut().push_back(InLine { pending, ticket, limit });
    }

    /// Takes a request out of the line, if it is there.
    fn leave_line(&self, stage: &Rc<RefCell<Stage>>, why: impl Into<Failure>) {
        let left = {
            let mut waiting = self.waiting.borrow_mut();
            let at = waiting.iter().position(|entry| Rc::ptr_eq(&entry.pending.stage, stage));
            at.and_then(|at| waiting.remove(at))
        };
        let Some(InLine { pending, limit, .. }) = left else { return };
        limit.cancel();
        pending.resolver.errback(why);
    }

    fn next_in_line(&self) -> Option<Pending> {
        let InLine { pending, limit, .. } = self.waiting.borrow_mut().pop_front()?;
        limit.cancel();
        Some(pending)
    }

    /// The place of the first in line.
    pub(super) fn first_ticket(&self) -> Option<u64> {
        self.waiting.borrow().front().map(|entry| entry.ticket)
    }
}

// What is idle.

impl Pool {
    /// Since when the connection that has been idle longest is that.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle.borrow().first().map(|connection| connection.idle_since())
    }

    pub(super) fn close_longest_idle(&self) {
        let longest = {
            let mut idle = self.idle.borrow_mut();
            if idle.is_empty() { None } else { Some(idle.remove(0)) }
        };
        if let Some(connection) = longest {
            connection.close();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for connection in self.idle.take() {
            connection.close();
        }
    }
}
