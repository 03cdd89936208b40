//! [`Reactor`], the handle on the event loop.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::address::{Address, UnixAddress};
use crate::backend::Backend;
use crate::backend::mio::MioBackend;
use crate::clock::Instant;
use crate::context;
use crate::core::{self, Core, Stage};
use crate::deferred::{Deferred, task};
use crate::failure::Failure;
use crate::protocol::{ConnectError, ConnectionLost, Factory, Protocol};
use crate::ready::{self, Job};
use crate::remote::ReactorRemote;
use crate::signals::{Signal, SignalSource};
use crate::slots::Key;
use crate::sys;
use crate::teardown;
use crate::timers::DelayedCall;
use crate::transport::Transport;
use crate::transport::connect::{self, Attempt, Supply};
use crate::transport::port::{AcceptOptions, ListeningPort, Port, Security};
use crate::transport::tcp::{ConnectOptions, ListenOptions};
use crate::transport::tls::Session;
use crate::transport::unix::UnixListenOptions;
use crate::turn::{Patience, Turner};

/// The event loop: time, timers, connections, work from other threads.
///
/// A handle is a cheap clone and stays on its thread. It is passed to whoever needs it; there is no
/// global one. Many reactors can live on one thread, but only one of them turns at a time.
///
/// A reactor owns what is started on it: timers, tasks, connections, and the handles that lie in
/// them. All of that is ended when [`run`](Reactor::run) returns; a reactor that is never run, or
/// only with [`run_until`](Reactor::run_until), keeps it until `stop` and `run` have been called.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::Reactor;
///
/// # fn main() -> std::io::Result<()> {
/// let reactor = Reactor::new()?;
/// let handle = reactor.clone();
/// reactor.call_later(Duration::from_millis(1), move || handle.stop());
/// reactor.run()
/// # }
/// ```
#[derive(Clone)]
pub struct Reactor {
    core: Rc<Core>,
}

// Making and running.

impl Reactor {
    /// Makes a reactor over the operating system, and raises the process's soft limit of open
    /// descriptors to the hard one.
    ///
    /// # Errors
    ///
    /// Those of the system's poll mechanism, for instance when no descriptor is left.
    pub fn new() -> io::Result<Reactor> {
        sys::raise_descriptor_limit();
        Ok(Reactor::with_backend(Rc::new(MioBackend::new()?)))
    }

    pub(crate) fn with_backend(backend: Rc<dyn Backend>) -> Reactor {
        Reactor { core: Rc::new_cyclic(|this| Core::new(backend, this)) }
    }

    pub(crate) fn from_core(core: Rc<Core>) -> Reactor {
        Reactor { core }
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// Runs the loop until somebody calls [`stop`](Reactor::stop), then ends all that is left, in
    /// this order: ports stop listening; connections are told that the reactor stopped; tasks and
    /// timers are dropped; calls from other threads are refused.
    ///
    /// # Errors
    ///
    /// Those of the system's poll call; and if the reactor runs already or has stopped.
    pub fn run(&self) -> io::Result<()> {
        let mut turner = Turner::new(self)?;
        if self.core.stage.get() == Stage::Stopped {
            return Err(core::stopped());
        }
        if self.core.stage.get() == Stage::Idle {
            self.core.stage.set(Stage::Running);
        }
        let mut result = Ok(());
        while self.core.stage.get() == Stage::Running && result.is_ok() {
            result = turner.turn(Patience::UntilEvent);
        }
        teardown::tear_down(&self.core, &mut turner);
        result
    }

    /// Runs the loop until `deferred` has its result, and returns that. Nothing is ended: what
    /// was going on goes on when the loop runs next. For command-line tools and tests.
    ///
    /// # Errors
    ///
    /// The failure of `deferred`; that the reactor was stopped meanwhile; or why the loop cannot
    /// run, see [`run`](Reactor::run).
    pub fn run_until<T: 'static>(&self, deferred: Deferred<T>) -> Result<T, Failure> {
        let mut turner = Turner::new(self)?;
        self.core.check_open()?;
        let stage_before = self.core.stage.replace(Stage::Running);
        let outcome = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&outcome);
        // It ends in success whatever came, so that nobody reports the failure as unhandled.
        let watched = deferred.add_both(move |result| {
            slot.replace(Some(result));
            Ok(())
        });
        let result = loop {
            if let Some(result) = outcome.take() {
                break result;
            }
            if self.core.stage.get() != Stage::Running {
                break Err(core::stopped().into());
            }
            if let Err(error) = turner.turn(Patience::UntilEvent) {
                break Err(error.into());
            }
        };
        drop(watched);
        if self.core.stage.get() == Stage::Running {
            self.core.stage.set(stage_before);
        }
        result
    }

    /// Makes [`run`](Reactor::run) return after the current turn; if the loop isn't running, as
    /// soon as it does.
    pub fn stop(&self) {
        if self.core.stage.get() != Stage::Stopped {
            self.core.stage.set(Stage::Stopping);
        }
    }

    /// Ends everything without telling anybody, as the death of a process does. For simulations.
    pub(crate) fn kill(&self) {
        teardown::kill(&self.core);
    }

    /// Returns a handle for other threads.
    #[must_use]
    pub fn remote(&self) -> ReactorRemote {
        self.core.remote.clone()
    }
}

// Time and chance.

impl Reactor {
    /// Reads the monotonic clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.core.backend.now()
    }

    /// Returns what [`now`](Reactor::now) was at some moment between this turn's first callback and the
    /// present, without reading the clock: enough for deadlines of seconds.
    ///
    /// In the sentinel context and outside of callbacks the clock is read.
    #[must_use]
    #[inline]
    pub fn now_or_just_before(&self) -> Instant {
        match context::slice_started() {
            Some(started) if ready::is_turning(self.core.remote.id()) => started,
            _ => self.now(),
        }
    }

    /// Reads the time of day. It may jump; measure with [`now`](Reactor::now).
    #[must_use]
    pub fn wall_clock(&self) -> SystemTime {
        self.core.backend.wall_clock()
    }

    /// Fills `destination` with bytes fit for keys; in a simulation they come from its seed.
    pub fn random_bytes(&self, destination: &mut [u8]) {
        self.core.backend.random_bytes(destination);
    }

    /// Calls `f` once, `delay` from now at the earliest, in the context that is current now.
    ///
    /// Calls for the same instant are made in the order in which they were asked for. On a reactor
    /// that has stopped, `f` is dropped.
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + 'static) -> DelayedCall {
        let weak = Rc::downgrade(&self.core);
        if self.core.stage.get() == Stage::Stopped {
            return DelayedCall::new(weak, Key::NONE);
        }
        let now = self.core.backend.now();
        let mut timers = self.core.timers.borrow_mut();
        timers.move_on_if_empty(now);
        let key = timers.insert(now + delay, Job::new(f));
        DelayedCall::new(weak, key)
    }

    /// Has the loop run a future to its end, in the context that is current now. It is first polled
    /// after the current callback has returned.
    ///
    /// Dropping the deferred leaves the task running; a failure is logged then. Cancelling it
    /// cancels the deferred that the task waits for (all of them, if it awaits several together), and the
    /// task goes on with [`CancelledError`](crate::CancelledError), so that it can clean up; a task that
    /// waits for a future of another kind, or is cancelled a second time, is dropped where it stands. A
    /// task that panics fails its deferred with [`Panicked`](crate::Panicked). What a task owns is
    /// dropped before its deferred has the result. When the reactor stops, its tasks are dropped, and
    /// their deferreds fail with `CancelledError`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ropewalk::{Deferred, Reactor};
    /// # fn main() -> Result<(), ropewalk::Failure> {
    /// let reactor = Reactor::new()?;
    /// let (answer, resolver) = Deferred::new();
    /// reactor.call_later(Duration::from_millis(1), || resolver.callback(21));
    /// let doubled = reactor.spawn(async { Ok(answer.await? * 2) });
    /// assert_eq!(reactor.run_until(doubled)?, 42);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn<T: 'static>(
        &self,
        future: impl Future<Output = Result<T, Failure>> + 'static,
    ) -> Deferred<T> {
        task::spawn(&self.core, future)
    }

    /// Calls `f` once the loop runs: in this or its next turn if it does already.
    pub fn call_when_running(&self, f: impl FnOnce() + 'static) {
        self.call_soon(f);
    }

    /// Calls `f` after the current callback has returned, before anything is sent or waited for.
    ///
    /// Such calls are made in order, in the context that is current now. On a reactor that has
    /// stopped, `f` is dropped.
    pub fn call_soon(&self, f: impl FnOnce() + 'static) {
        if self.core.stage.get() != Stage::Stopped {
            self.core.ready.push(Job::new(f));
        }
    }
}

// The world outside.

impl Reactor {
    /// Connects to a TCP address and puts `protocol` on the connection.
    ///
    /// The deferred gets the transport after `connection_made` has returned. Cancelling it gives
    /// up. A protocol whose connection was never made is dropped without a call.
    ///
    /// # Errors
    ///
    /// [`ConnectError`](crate::ConnectError). There is no limit in time but the system's: see
    /// [`Deferred::with_timeout`].
    #[track_caller]
    pub fn connect_tcp(
        &self,
        address: SocketAddr,
        protocol: Box<dyn Protocol>,
    ) -> Deferred<Transport> {
        self.connect_tcp_with(address, &ConnectOptions::default(), protocol)
    }

    /// Connects to a TCP address with options: from a certain address, kept alive. Otherwise as
    /// [`connect_tcp`](Reactor::connect_tcp).
    #[track_caller]
    pub fn connect_tcp_with(
        &self,
        address: SocketAddr,
        options: &ConnectOptions,
        protocol: Box<dyn Protocol>,
    ) -> Deferred<Transport> {
        self.connect_with(address.into(), options, protocol, None)
    }

    /// Connects to a Unix stream socket and puts `protocol` on the connection.
    ///
    /// Otherwise as [`connect_tcp`](Reactor::connect_tcp). A path is looked up at once, on the
    /// loop's thread.
    #[track_caller]
    pub fn connect_unix(
        &self,
        address: impl Into<UnixAddress>,
        protocol: Box<dyn Protocol>,
    ) -> Deferred<Transport> {
        let address = Address::Unix(address.into());
        self.connect_with(address, &ConnectOptions::default(), protocol, None)
    }

    /// Connects to a TCP address, speaks TLS with whoever proves to be `name`, and puts `protocol`
    /// on that.
    ///
    /// The deferred gets the transport once the handshake is done and `connection_made` has
    /// returned. Otherwise as [`connect_tcp`](Reactor::connect_tcp).
    ///
    /// # Errors
    ///
    /// [`ConnectError`](crate::ConnectError); its source tells a failure of TLS from one of the
    /// network.
    #[track_caller]
    pub fn connect_tls(
        &self,
        address: SocketAddr,
        name: rustls::pki_types::ServerName<'static>,
        config: Arc<rustls::ClientConfig>,
        protocol: Box<dyn Protocol>,
    ) -> Deferred<Transport> {
        match Session::client(config, name) {
            Ok(session) => {
                let options = &ConnectOptions::default();
                self.connect_with(address.into(), options, protocol, Some(session))
            }
            Err(error) => {
                let source = ConnectionLost::Tls(Arc::new(error));
                Deferred::fail(ConnectError { address: Address::Tcp(address), source })
            }
        }
    }

    #[track_caller]
    fn connect_with(
        &self,
        address: Address,
        options: &ConnectOptions,
        protocol: Box<dyn Protocol>,
        session: Option<Session>,
    ) -> Deferred<Transport> {
        let protocol = Supply::Now(protocol);
        connect::connect(&self.core, Attempt { address, options, protocol, session })
    }

    /// Listens on a TCP address; port 0 picks a free one.
    ///
    /// Each connection gets the protocol that `factory` builds for it, and runs in a log context
    /// of its own.
    ///
    /// # Errors
    ///
    /// Those of the system: the address is in use, or not one of this machine's.
    pub fn listen_tcp(
        &self,
        address: SocketAddr,
        factory: Rc<dyn Factory>,
        options: ListenOptions,
    ) -> io::Result<ListeningPort> {
        self.core.check_open()?;
        let listener = self.core.backend.listen(address, &options)?;
        Port::open(&self.core, listener, factory, Security::Plain, options.on_accept())
    }

    /// Listens on a Unix stream socket.
    ///
    /// The file is made with the permissions that `options` give, and removed when the port stops. One
    /// that a dead process has left is replaced; any other file is not touched. While that is
    /// looked into, a file with `.lock` behind its name lies beside it.
    ///
    /// ```no_run
    /// use ropewalk::{Protocol, Reactor, Transport, UnixListenOptions, factory};
    ///
    /// struct WhoAmI;
    ///
    /// impl Protocol for WhoAmI {
    ///     fn connection_made(&mut self, transport: &Transport) {
    ///         if let Some(peer) = transport.peer_credentials() {
    ///             transport.write(format!("you are user {}\n", peer.user_id).as_bytes());
    ///         }
    ///         transport.lose_connection();
    ///     }
    ///
    ///     fn data_received(&mut self, _: &Transport, _: &[u8]) {}
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let options = UnixListenOptions { mode: 0o666, ..UnixListenOptions::default() };
    /// reactor.listen_unix("/run/whoami.sock", factory(|_| WhoAmI), options)?;
    /// reactor.run()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the system; and if somebody listens there, or a file that isn't a socket has that
    /// name.
    pub fn listen_unix(
        &self,
        address: impl Into<UnixAddress>,
        factory: Rc<dyn Factory>,
        options: UnixListenOptions,
    ) -> io::Result<ListeningPort> {
        self.core.check_open()?;
        let listener = self.core.backend.listen_unix(&address.into(), &options)?;
        Port::open(&self.core, listener, factory, Security::Plain, AcceptOptions::default())
    }

    /// Listens on a TCP address and speaks TLS on what it accepts.
    ///
    /// `connection_made` comes once the handshake is done. Offer no protocol but HTTP/1.1 or your
    /// own in the configuration's ALPN list.
    ///
    /// # Errors
    ///
    /// As [`listen_tcp`](Reactor::listen_tcp).
    pub fn listen_tls(
        &self,
        address: SocketAddr,
        factory: Rc<dyn Factory>,
        config: Arc<rustls::ServerConfig>,
        options: ListenOptions,
    ) -> io::Result<ListeningPort> {
        self.core.check_open()?;
        let listener = self.core.backend.listen(address, &options)?;
        Port::open(&self.core, listener, factory, Security::Tls(config), options.on_accept())
    }

    /// Sets how long one call, or several of one log context in a row, may hold the loop; a tenth of a second at
    /// first, and no less than a tenth of a millisecond. Those that hold it longer are logged as a warning, with what was called last and the
    /// context, and [counted](crate::metrics::ReactorMetrics::overlong_calls).
    pub fn set_hold_limit(&self, limit: Duration) {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.core.hold_nanos_max.set(nanos);
        if ready::is_turning(self.core.remote.id()) {
            context::set_hold_nanos_max(nanos);
        }
    }

    /// Calls `f` on the loop whenever the process receives this signal, in place of what the
    /// system would do, until the reactor stops. Arrivals in quick succession may be delivered as
    /// one. Several callbacks for one signal are all called.
    ///
    /// # Errors
    ///
    /// Those of the system, for instance when no descriptor is left.
    pub fn on_signal(&self, signal: Signal, f: impl FnMut() + 'static) -> io::Result<()> {
        SignalSource::watch(&self.core, signal, Box::new(f))
    }

    /// Makes SIGINT and SIGTERM stop the loop. Once that has ended, they end the process again.
    ///
    /// # Errors
    ///
    /// As [`on_signal`](Reactor::on_signal).
    pub fn install_signals(&self) -> io::Result<()> {
        for signal in [Signal::Interrupt, Signal::Terminate] {
            let core = Rc::downgrade(&self.core);
            self.on_signal(signal, move || {
                if let Some(core) = core.upgrade() {
                    Reactor { core }.stop();
                }
            })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("stage", &self.core.stage.get())
            .field("timers", &self.core.timers.borrow().len())
            .field("sources", &self.core.sources.borrow().len())
            .field("counters", &self.core.counters)
            .finish()
    }
}
