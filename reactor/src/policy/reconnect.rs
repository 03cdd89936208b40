//! [`ReconnectingClient`]: one connection, whatever happens to it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::Backoff;
use crate::clock::Instant;
use crate::context::LogContext;
use crate::deferred::{CancelHandle, Deferred, Resolver, maybe_deferred};
use crate::endpoint::Connect;
use crate::failure::{CancelledError, Failure};
use crate::protocol::{ConnectionLost, Protocol};
use crate::reactor::Reactor;
use crate::service::Service;
use crate::timers::DelayedCall;
use crate::transport::Transport;

/// How a [`ReconnectingClient`] goes on after a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReconnectOptions {
    /// How long it waits before it tries again.
    pub backoff: Backoff,
    /// How long a connection has to stand before it counts as a success, so that the waits begin anew.
    /// One that is lost sooner counts as a failure: a server that accepts and hangs up is not to be
    /// asked all the time.
    pub stable_after: Duration,
    /// How many failures in a row it takes before it gives up. `None`: it never does.
    pub failures_max: Option<u32>,
    /// How long a connection has to end in order when the client stops; then it is aborted.
    pub stop_limit: Duration,
}

impl Default for ReconnectOptions {
    /// The usual waits; a connection is a success after ten seconds; it never gives up; five seconds
    /// to end in order.
    fn default() -> ReconnectOptions {
        ReconnectOptions {
            backoff: Backoff::default(),
            stable_after: Duration::from_secs(10),
            failures_max: None,
            stop_limit: Duration::from_secs(5),
        }
    }
}

/// What a [`ReconnectingClient`] is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientState {
    /// It has a connection.
    Connected(Transport),
    /// It is connecting.
    Connecting,
    /// It has given up after as many failures as it may have, of which this was the last.
    GaveUp(Failure),
    /// It has not been started, or was stopped.
    Stopped,
    /// It waits before it tries again.
    Waiting {
        /// How long.
        delay: Duration,
        /// What failed: the attempt to connect, or the connection.
        failure: Failure,
    },
}

/// Why there will be no connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconnectError {
    /// As many attempts have failed as may.
    #[error(
        "client {name:?} has given up after {failures} failures, the last of which was: {last:#}"
    )]
    GaveUp {
        /// The client's name.
        name: String,
        /// How many attempts failed in a row.
        failures: u32,
        /// What the last of them failed with.
        last: Failure,
    },
    /// The client was stopped.
    #[error("client {name:?} has been stopped")]
    Stopped {
        /// The client's name.
        name: String,
    },
}

/// Keeps a connection up: connects, and connects again when that fails or the connection is lost, after
/// a [wait](Backoff) that grows with each failure in a row.
///
/// It is a cheap clone and a [`Service`]. Each connection gets a new protocol, and runs in a log context
/// of its own, `<name>-<number>`. Dropping all handles leaves it going; [`stop`](Service::stop) ends it, and
/// it can be started again.
///
/// ```
/// use ropewalk::endpoint::ClientEndpoint;
/// use ropewalk::policy::{ReconnectOptions, ReconnectingClient};
/// use ropewalk::testing::{Clock, assert_no_result};
/// use ropewalk::{Protocol, Service, Transport};
///
/// struct Listener;
///
/// impl Protocol for Listener {
///     fn data_received(&mut self, _: &Transport, _: &[u8]) {}
/// }
///
/// let clock = Clock::new();
/// let endpoint: ClientEndpoint = "tcp:localhost:8008".parse().unwrap();
/// let options = ReconnectOptions::default();
/// let client = ReconnectingClient::new("news", endpoint, || Box::new(Listener), options);
/// client.start(clock.reactor()).detach();
/// let connected = client.when_connected();
/// clock.pump();
/// assert_no_result(&connected); // nobody listens there yet
/// assert_eq!(client.failure_count(), 1);
/// ```
#[derive(Clone)]
pub struct ReconnectingClient {
    client: Rc<Client>,
}

type Observer = Rc<dyn Fn(&ClientState)>;

struct Client {
    name: Box<str>,
    endpoint: Box<dyn Connect>,
    build: RefCell<Box<dyn FnMut() -> Box<dyn Protocol>>>,
    options: ReconnectOptions,
    reactor: RefCell<Option<Reactor>>,
    state: RefCell<ClientState>,
    /// Failures in a row.
    failures: Cell<u32>,
    /// Which attempt this is: news of those before it are stale.
    attempt: Cell<u64>,
    connected_at: Cell<Instant>,
    under_way: RefCell<CancelHandle>,
    timer: RefCell<Option<DelayedCall>>,
    waiting: RefCell<BTreeMap<u64, Resolver<Transport>>>,
    next_ticket: Cell<u64>,
    /// The connection that ends because the client was stopped.
    ending: RefCell<Option<Ending>>,
    observers: RefCell<Vec<Observer>>,
}

struct Ending {
    attempt: u64,
    abort: DelayedCall,
    waiting: Vec<Resolver<()>>,
}

impl ReconnectingClient {
    /// Makes a client, which does nothing until it is [started](Service::start). `build` makes a protocol for
    /// each attempt to connect.
    pub fn new(
        name: impl Into<Box<str>>,
        endpoint: impl Connect + 'static,
        build: impl FnMut() -> Box<dyn Protocol> + 'static,
        options: ReconnectOptions,
    ) -> ReconnectingClient {
        let client = Client {
            name: name.into(),
            endpoint: Box::new(endpoint),
            build: RefCell::new(Box::new(build)),
            options,
            reactor: RefCell::default(),
            state: RefCell::new(ClientState::Stopped),
            failures: Cell::new(0),
            attempt: Cell::new(0),
            connected_at: Cell::new(Instant::START),
            under_way: RefCell::default(),
            timer: RefCell::default(),
            waiting: RefCell::default(),
            next_ticket: Cell::new(0),
            ending: RefCell::default(),
            observers: RefCell::default(),
        };
        ReconnectingClient { client: Rc::new(client) }
    }

    /// Returns a deferred for the connection: the present one, or the next. Cancelling it removes only
    /// this observer.
    ///
    /// # Errors
    ///
    /// [`ReconnectError`] if there will be none.
    #[track_caller]
    pub fn when_connected(&self) -> Deferred<Transport> {
        let client = &self.client;
        match &*client.state.borrow() {
            ClientState::Connected(transport) => return Deferred::succeed(transport.clone()),
            ClientState::GaveUp(failure) => return Deferred::fail(client.gave_up(failure)),
            ClientState::Stopped => return Deferred::fail(client.stopped()),
            ClientState::Connecting | ClientState::Waiting { .. } => {}
        }
        let ticket = client.next_ticket.get();
        client.next_ticket.set(ticket + 1);
        let weak = Rc::downgrade(client);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let resolver =
                weak.upgrade().and_then(|client| client.waiting.borrow_mut().remove(&ticket));
            if let Some(resolver) = resolver {
                resolver.errback(Failure::plain(CancelledError));
            }
        });
        client.waiting.borrow_mut().insert(ticket, resolver);
        deferred
    }

    /// Has `f` called whenever the state has changed, after the callback in which it did.
    pub fn observe(&self, f: impl Fn(&ClientState) + 'static) {
        self.client.observers.borrow_mut().push(Rc::new(f));
    }

    /// Returns what the client is doing.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.client.state.borrow().clone()
    }

    /// Returns how many attempts and connections have failed in a row.
    #[must_use]
    pub fn failure_count(&self) -> u32 {
        self.client.failures.get()
    }

    /// Tries again at once, if it waits: somebody knows that the network is back.
    pub fn retry_now(&self) {
        if matches!(*self.client.state.borrow(), ClientState::Waiting { .. }) {
            let timer = self.client.timer.take();
            if let Some(timer) = timer {
                timer.reset(Duration::ZERO);
                self.client.timer.replace(Some(timer));
            }
        }
    }
}

impl Service for ReconnectingClient {
    fn name(&self) -> &str {
        &self.client.name
    }

    /// Begins to connect. The deferred does not wait for that, and never fails.
    fn start(&self, reactor: &Reactor) -> Deferred<()> {
        let client = &self.client;
        if matches!(*client.state.borrow(), ClientState::Stopped | ClientState::GaveUp(_)) {
            client.reactor.replace(Some(reactor.clone()));
            client.failures.set(0);
            LogContext::sentinel().run(|| client.connect());
        }
        Deferred::succeed(())
    }

    /// Ends the connection, or the attempt. The deferred fires when that is done.
    fn stop(&self) -> Deferred<()> {
        let client = &self.client;
        let before = client.state.borrow().clone();
        let transport = match before {
            ClientState::Connected(transport) => Some(transport),
            ClientState::Stopped => return client.stopped_deferred(),
            _ => None,
        };
        let under_way = client.under_way.take();
        let timer = client.timer.take();
        if let Some(timer) = timer {
            timer.cancel();
        }
        if transport.is_none() {
            // News of the attempt will be stale.
            client.attempt.set(client.attempt.get() + 1);
        }
        client.enter(ClientState::Stopped);
        under_way.cancel();
        client.tell_waiting(Err(client.stopped().into()));
        let reactor = client.reactor.borrow().clone();
        let (Some(transport), Some(reactor)) = (transport, reactor) else {
            return Deferred::succeed(());
        };
        transport.lose_connection();
        let abort = reactor.call_later(client.options.stop_limit, move || {
            transport.abort_connection();
        });
        let attempt = client.attempt.get();
        let ending = Ending { attempt, abort, waiting: Vec::new() };
        let before = client.ending.replace(Some(ending));
        if let Some(before) = before {
            // It was started again meanwhile, and that connection is about to end, too.
            before.tell();
        }
        client.stopped_deferred()
    }
}

impl Client {
    fn connect(self: &Rc<Client>) {
        let Some(reactor) = self.reactor.borrow().clone() else { return };
        let attempt = self.attempt.get() + 1;
        self.attempt.set(attempt);
        self.enter(ClientState::Connecting);
        let context = LogContext::new(format!("{}-{attempt}", self.name));
        let client = Rc::clone(self);
        context.clone().run(|| {
            let connecting = maybe_deferred(|| {
                let protocol = {
                    // It may come back here through the client's own methods, but not from its end.
                    let mut build = self.build.borrow_mut();
                    build()
                };
                let protocol = Kept {
                    inner: protocol,
                    client: Rc::clone(self),
                    attempt,
                    context: context.clone(),
                };
                self.endpoint.connect(&reactor, Box::new(protocol))
            });
            let connecting = connecting.add_both(move |outcome: Result<Transport, Failure>| {
                if let Err(failure) = outcome {
                    LogContext::current().finish();
                    client.attempt_failed(attempt, failure);
                }
                Ok(())
            });
            self.under_way.replace(connecting.cancel_handle());
            connecting.detach();
        });
    }

    fn connection_made(&self, attempt: u64, transport: &Transport) {
        if attempt != self.attempt.get() || !matches!(*self.state.borrow(), ClientState::Connecting)
        {
            return transport.abort_connection();
        }
        if let Some(reactor) = &*self.reactor.borrow() {
            self.connected_at.set(reactor.now());
        }
        self.enter(ClientState::Connected(transport.clone()));
    }

    fn connection_lost(self: &Rc<Client>, attempt: u64, reason: &ConnectionLost) {
        let ending = self.ending.borrow_mut().take_if(|ending| ending.attempt == attempt);
        if let Some(ending) = ending {
            return ending.tell();
        }
        if attempt != self.attempt.get() {
            return;
        }
        let Some(reactor) = self.reactor.borrow().clone() else { return };
        let stood = reactor.now() - self.connected_at.get();
        if stood >= self.options.stable_after {
            self.failures.set(0);
        }
        self.attempt_failed(attempt, Failure::plain(reason.clone()));
    }

    fn attempt_failed(self: &Rc<Client>, attempt: u64, failure: Failure) {
        let is_stale = attempt != self.attempt.get();
        if is_stale || matches!(*self.state.borrow(), ClientState::Stopped) {
            return;
        }
        let Some(reactor) = self.reactor.borrow().clone() else { return };
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if self.options.failures_max.is_some_and(|max| failures >= max) {
            log::warn!("client {:?} gives up failures={failures}: {failure:#}", self.name);
            self.enter(ClientState::GaveUp(failure.clone()));
            return self.tell_waiting(Err(self.gave_up(&failure).into()));
        }
        let delay = self.options.backoff.delay(&reactor, failures);
        let name = &self.name;
        let delay_ms = delay.as_millis();
        log::debug!(
            "client {name:?} tries again failures={failures} delay_ms={delay_ms}: {failure:#}"
        );
        self.enter(ClientState::Waiting { delay, failure });
        let client = Rc::clone(self);
        let timer =
            LogContext::sentinel().run(|| reactor.call_later(delay, move || client.connect()));
        self.timer.replace(Some(timer));
    }

    fn enter(&self, state: ClientState) {
        let before = self.state.replace(state.clone());
        drop(before);
        let reactor = self.reactor.borrow().clone();
        let Some(reactor) = reactor else { return };
        for observer in self.observers.borrow().iter().cloned() {
            let state = state.clone();
            reactor.call_soon(move || observer(&state));
        }
    }

    fn tell_waiting(&self, outcome: Result<Transport, Failure>) {
        // One at a time: one who waits may cancel another.
        loop {
            let next = self.waiting.borrow_mut().pop_first();
            let Some((_, resolver)) = next else { return };
            resolver.fire(outcome.clone());
        }
    }

    fn stopped_deferred(&self) -> Deferred<()> {
        match &mut *self.ending.borrow_mut() {
            None => Deferred::succeed(()),
            Some(ending) => {
                let (deferred, resolver) = Deferred::new();
                ending.waiting.push(resolver);
                deferred
            }
        }
    }

    fn stopped(&self) -> ReconnectError {
        ReconnectError::Stopped { name: self.name.to_string() }
    }

    fn gave_up(&self, last: &Failure) -> ReconnectError {
        let (name, failures) = (self.name.to_string(), self.failures.get());
        ReconnectError::GaveUp { name, failures, last: last.clone() }
    }
}

impl Ending {
    fn tell(self) {
        self.abort.cancel();
        for resolver in self.waiting {
            resolver.callback(());
        }
    }
}

impl fmt::Debug for ReconnectingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectingClient")
            .field("name", &self.client.name)
            .field("state", &self.client.state.borrow())
            .field("failures", &self.failure_count())
            .finish_non_exhaustive()
    }
}

/// A protocol whose client hears of the connection's beginning and end.
struct Kept {
    inner: Box<dyn Protocol>,
    /// The reactor owns the connection, and so the client lives as long as that.
    client: Rc<Client>,
    attempt: u64,
    context: LogContext,
}

impl Protocol for Kept {
    fn connection_made(&mut self, transport: &Transport) {
        self.client.connection_made(self.attempt, transport);
        self.inner.connection_made(transport);
        if transport.is_connected() {
            self.client.tell_waiting(Ok(transport.clone()));
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.inner.data_received(transport, data);
    }

    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) {
        self.inner.file_descriptor_received(transport, descriptor);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.inner.read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.inner.connection_lost(reason.clone());
        self.context.finish();
        self.client.connection_lost(self.attempt, &reason);
    }
}
