//! Services: what is started and stopped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::Instant;
use crate::deferred::{Deferred, maybe_deferred};
use crate::failure::{Failure, TimeoutError};
use crate::reactor::Reactor;

/// A part of a program that is started once and stopped once.
pub trait Service {
    /// Returns the name that log lines and errors use.
    fn name(&self) -> &str;

    /// Starts; the deferred fires when the service does its work. A service that could not start is not
    /// stopped.
    fn start(&self, reactor: &Reactor) -> Deferred<()>;

    /// Stops: takes no new work and ends what is under way; the deferred fires when that is done.
    fn stop(&self) -> Deferred<()>;
}

/// Services that are started in order and stopped in reverse order. Itself a service.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::{Deferred, MultiService, Reactor, Service};
///
/// struct Greeter;
///
/// impl Service for Greeter {
///     fn name(&self) -> &str { "greeter" }
///     fn start(&self, _reactor: &Reactor) -> Deferred<()> { Deferred::succeed(()) }
///     fn stop(&self) -> Deferred<()> { Deferred::succeed(()) }
/// }
///
/// # fn main() -> Result<(), ropewalk::Failure> {
/// let reactor = Reactor::new()?;
/// let server = MultiService::new("server", Duration::from_secs(8));
/// server.add(Greeter);
/// reactor.run_until(server.start(&reactor))?;
/// reactor.run_until(server.stop())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MultiService {
    shared: Rc<Shared>,
}

struct Shared {
    name: Box<str>,
    stop_limit: Duration,
    services: RefCell<Vec<Rc<dyn Service>>>,
    /// How many of them have started, from the first.
    started: Cell<usize>,
    reactor: RefCell<Option<Reactor>>,
}

impl MultiService {
    /// Makes an empty one, which takes at most `stop_limit` to stop.
    pub fn new(name: impl Into<Box<str>>, stop_limit: Duration) -> Self {
        Self {
            shared: Rc::new(Shared {
                name: name.into(),
                stop_limit,
                services: RefCell::default(),
                started: Cell::new(0),
                reactor: RefCell::default(),
            }),
        }
    }

    /// Adds a service after the others. Those added after [`start`](Service::start) was called are not
    /// started.
    pub fn add(&self, service: impl Service + 'static) {
        self.add_shared(Rc::new(service));
    }

    /// As [`add`](Self::add), for a service that somebody else keeps a handle on.
    pub fn add_shared(&self, service: Rc<dyn Service>) {
        self.shared.services.borrow_mut().push(service);
    }

    /// Returns how many services have started and not been stopped.
    pub fn started_count(&self) -> usize {
        self.shared.started.get()
    }
}

impl Service for MultiService {
    fn name(&self) -> &str {
        &self.shared.name
    }

    /// Starts one service after the other. If one fails, those before it are stopped, and the failure is
    /// [`StartError`].
    fn start(&self, reactor: &Reactor) -> Deferred<()> {
        let shared = Rc::clone(&self.shared);
        *shared.reactor.borrow_mut() = Some(reactor.clone());
        let services = shared.services.borrow().clone();
        let reactor_handle = reactor.clone();
        reactor.spawn(async move {
            for service in services {
                if let Err(cause) = maybe_deferred(|| service.start(&reactor_handle)).await {
                    let name = service.name().to_owned();
                    shared.stop_all(&reactor_handle).await;
                    return Err(Failure::new(StartError { name, cause }));
                }
                log::debug!("service {:?} has started", service.name());
                shared.started.set(shared.started.get() + 1);
            }
            Ok(())
        })
    }

    /// Stops those that have started, last first, each after the one before has stopped.
    ///
    /// What they fail with is logged. When the limit of time is used up, the services that are left are
    /// told to stop, and nobody waits for them. Does not fail, and does nothing the second time.
    fn stop(&self) -> Deferred<()> {
        let shared = Rc::clone(&self.shared);
        let reactor = shared.reactor.take();
        let Some(reactor) = reactor else { return Deferred::succeed(()) };
        let reactor_handle = reactor.clone();
        reactor.spawn(async move {
            shared.stop_all(&reactor_handle).await;
            Ok(())
        })
    }
}

impl Shared {
    async fn stop_all(&self, reactor: &Reactor) {
        let deadline: Instant = reactor.now() + self.stop_limit;
        let services = self.services.borrow().clone();
        let started = self.started.replace(0);
        for service in services.iter().take(started).rev() {
            let left = deadline.since(reactor.now());
            match maybe_deferred(|| service.stop()).with_timeout(reactor, left).await {
                Ok(()) => log::debug!("service {:?} has stopped", service.name()),
                Err(failure) if failure.is::<TimeoutError>() => log::warn!(
                    "service {:?} has not stopped within {:?}; going on without it",
                    service.name(),
                    self.stop_limit
                ),
                Err(failure) => {
                    log::error!("service {:?} failed to stop: {failure:#}", service.name());
                }
            }
        }
    }
}

impl fmt::Debug for MultiService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiService")
            .field("name", &self.shared.name)
            .field("services", &self.shared.services.borrow().len())
            .field("started", &self.shared.started.get())
            .finish()
    }
}

/// A service of a [`MultiService`] did not start.
#[derive(Clone, Debug, thiserror::Error)]
#[error("service {name:?} failed to start: {cause}")]
pub struct StartError {
    /// The service's name.
    pub name: String,
    /// What it failed with.
    pub cause: Failure,
}
