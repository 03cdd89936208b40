//! [`MultiService`]: many services that are one.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::Service;
use crate::deferred::{
    CancelHandle, Deferred, DeferredEvent, Outcome, ending_in_its_own_time, maybe_deferred,
};
use crate::failure::{CancelledError, Failure, TimeoutError};
use crate::reactor::Reactor;
use crate::timers::DelayedCall;

/// Services that are started in order and stopped in reverse order. Itself a service.
///
/// A handle is a cheap clone.
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
    children: RefCell<Vec<Rc<Child>>>,
    next_number: Cell<u64>,
    stage: Cell<Stage>,
    /// Set in [`Stage::Idle`].
    idle: DeferredEvent,
    reactor: RefCell<Option<Reactor>>,
    /// The one that is being stopped now.
    stopping: RefCell<Option<Rc<dyn Service>>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Idle,
    Running,
    Starting,
    Stopping,
}

struct Child {
    /// Orders the children.
    number: u64,
    service: Rc<dyn Service>,
    stage: Cell<ChildStage>,
    /// Its start, while that is under way.
    start: RefCell<Option<CancelHandle>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ChildStage {
    Idle,
    Started,
    Starting,
}

impl MultiService {
    /// Makes an empty one, which takes at most `stop_limit` to stop.
    pub fn new(name: impl Into<Box<str>>, stop_limit: Duration) -> Self {
        let idle = DeferredEvent::new();
        idle.set();
        Self {
            shared: Rc::new(Shared {
                name: name.into(),
                stop_limit,
                children: RefCell::default(),
                next_number: Cell::new(0),
                stage: Cell::new(Stage::Idle),
                idle,
                reactor: RefCell::default(),
                stopping: RefCell::default(),
            }),
        }
    }

    /// Adds a service after the others.
    ///
    /// If the others are running, it is started, and one that fails to start is logged and taken out
    /// again; see [`start_child`](Self::start_child) to hear of it. While they are being started, it is
    /// started in its turn.
    pub fn add(&self, service: impl Service + 'static) {
        self.add_shared(Rc::new(service));
    }

    /// As [`add`](Self::add), for a service that somebody else keeps a handle on.
    pub fn add_shared(&self, service: Rc<dyn Service>) {
        self.start_child(service)
            .add_errback(|failure| {
                log::error!("{failure:#}");
                Ok(())
            })
            .detach();
    }

    /// Adds a service after the others, and waits until it has started if they are running.
    ///
    /// If they are not, the deferred fires at once. Cancelling it cancels the start, and takes the service
    /// out again.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the service has been taken out again.
    pub fn start_child(&self, service: Rc<dyn Service>) -> Deferred<()> {
        let shared = &self.shared;
        let number = shared.next_number.get();
        shared.next_number.set(number + 1);
        let child = Rc::new(Child {
            number,
            service,
            stage: Cell::new(ChildStage::Idle),
            start: RefCell::default(),
        });
        shared.children.borrow_mut().push(Rc::clone(&child));
        let reactor = shared.reactor.borrow().clone();
        match reactor.filter(|_| shared.stage.get() == Stage::Running) {
            Some(reactor) => {
                let shared = Rc::clone(shared);
                child.start(&reactor).add_errback(move |failure| {
                    let removed = shared.take_child(|other| other.number == number);
                    drop(removed);
                    Err(failure)
                })
            }
            None => Deferred::succeed(()),
        }
    }

    /// Takes the first service with this name out, and stops it if it has started. Its children's names
    /// do not count.
    ///
    /// The deferred fires when the service has stopped, or its time for that is over (which is logged).
    /// Cancelling leaves that to itself.
    ///
    /// # Errors
    ///
    /// [`NoSuchService`]; or what the service failed to stop with.
    pub fn remove(&self, name: &str) -> Deferred<()> {
        let shared = &self.shared;
        let Some(child) = shared.take_child(|child| child.service.name() == name) else {
            return Deferred::fail(NoSuchService { name: name.to_owned() });
        };
        match child.stage.replace(ChildStage::Idle) {
            ChildStage::Idle => Deferred::succeed(()),
            ChildStage::Starting => {
                child.give_up_start();
                Deferred::succeed(())
            }
            ChildStage::Started => {
                let limit = child.service.stop_limit().unwrap_or(shared.stop_limit);
                let stopped = maybe_deferred(|| child.service.stop());
                let reactor = shared.reactor.borrow().clone();
                let stopped = match reactor {
                    Some(reactor) => stopped.with_timeout(&reactor, limit),
                    None => stopped,
                };
                let name = format!("{}/{}", shared.name, child.service.name());
                stopped.add_errback(move |failure| {
                    let TimeoutError { limit } =
                        *failure.downcast_ref::<TimeoutError>().ok_or_else(|| failure.clone())?;
                    report_overdue(&hanging(&name, &*child.service), limit);
                    Ok(())
                })
            }
        }
    }

    /// Returns the first service with this name: one of its own, or else one of its children's that are
    /// [`MultiService`]s themselves, at any depth.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<Rc<dyn Service>> {
        let children = self.shared.children.borrow().clone();
        let own = children.iter().find(|child| child.service.name() == name);
        own.map(|child| Rc::clone(&child.service)).or_else(|| {
            let multi = children.iter().filter_map(|child| child.service.as_multi_service());
            multi.filter_map(|multi| multi.service_named(name)).next()
        })
    }

    /// Returns the names of its services, in order.
    #[must_use]
    pub fn service_names(&self) -> Vec<String> {
        let children = self.shared.children.borrow();
        children.iter().map(|child| child.service.name().to_owned()).collect()
    }

    /// Whether all services have started, and nobody has asked to stop them.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.stage.get() == Stage::Running
    }

    /// Returns how long all of them together may take to stop.
    pub(super) fn limit(&self) -> Duration {
        self.shared.stop_limit
    }

    /// Returns how many services have started and not been stopped.
    #[must_use]
    pub fn started_count(&self) -> usize {
        let children = self.shared.children.borrow();
        children.iter().filter(|child| child.stage.get() == ChildStage::Started).count()
    }
}

impl Service for MultiService {
    fn name(&self) -> &str {
        &self.shared.name
    }

    /// Starts one service after the other. If one fails, those before it are stopped.
    ///
    /// Cancelling cancels the start that is under way and stops those that have started; the deferred
    /// fails when that is done. [`stop`](Service::stop) does the same to a start that is under way.
    ///
    /// # Errors
    ///
    /// [`StartError`], [`CancelledError`], or [`AlreadyStarted`].
    fn start(&self, reactor: &Reactor) -> Deferred<()> {
        let shared = &self.shared;
        if shared.stage.get() != Stage::Idle {
            return Deferred::fail(AlreadyStarted { name: shared.name.to_string() });
        }
        shared.stage.set(Stage::Starting);
        shared.idle.clear();
        shared.reactor.replace(Some(reactor.clone()));
        let weak = Rc::downgrade(shared);
        let (deferred, end) = ending_in_its_own_time(move || {
            if let Some(shared) = weak.upgrade() {
                shared.give_up_start();
            }
        });
        let duty = Duty::new(shared);
        let reactor_handle = reactor.clone();
        reactor
            .spawn(async move {
                let outcome = duty.shared.start_all(&reactor_handle).await;
                if outcome.is_err() {
                    duty.shared.stop_all(&reactor_handle).await;
                }
                duty.end(outcome.is_ok());
                end.fire(outcome);
                Ok(())
            })
            .add_errback(ignore_cancelling)
            .detach();
        deferred
    }

    /// Stops those that have started, last first, each after the one before has stopped.
    ///
    /// What they fail with is logged. One that takes too long is named in the log and cancelled, and the
    /// next is stopped; when the limit of time of all together is used up, the services that are left are
    /// told to stop, and nobody waits for them. Does not fail, and does nothing the second time.
    /// Cancelling ends the waiting only.
    fn stop(&self) -> Deferred<()> {
        let shared = &self.shared;
        match shared.stage.get() {
            Stage::Idle => return Deferred::succeed(()),
            Stage::Starting => shared.give_up_start(),
            Stage::Stopping => {}
            Stage::Running => {
                shared.stage.set(Stage::Stopping);
                let reactor = shared.reactor.borrow().clone();
                let duty = Duty::new(shared);
                if let Some(reactor) = reactor {
                    let handle = reactor.clone();
                    reactor
                        .spawn(async move {
                            duty.shared.stop_all(&handle).await;
                            duty.end(false);
                            Ok(())
                        })
                        .add_errback(ignore_cancelling)
                        .detach();
                }
            }
        }
        shared.idle.wait()
    }

    fn as_multi_service(&self) -> Option<&MultiService> {
        Some(self)
    }
}

/// The task of starting or stopping. If it is dropped before its end, the reactor has stopped, and the
/// services are at rest.
struct Duty {
    shared: Rc<Shared>,
    is_running_after: bool,
}

impl Duty {
    fn new(shared: &Rc<Shared>) -> Duty {
        Duty { shared: Rc::clone(shared), is_running_after: false }
    }

    fn end(mut self, is_running: bool) {
        self.is_running_after = is_running;
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.is_running_after {
            return self.shared.stage.set(Stage::Running);
        }
        self.shared.stage.set(Stage::Idle);
        let reactor = self.shared.reactor.take();
        drop(reactor);
        self.shared.idle.set();
    }
}

impl Shared {
    async fn start_all(&self, reactor: &Reactor) -> Outcome<()> {
        while self.stage.get() == Stage::Starting {
            let Some(child) = self.next_to_start() else { return Ok(()) };
            let late = report_late_start(reactor, &self.name, &child);
            let outcome = child.start(reactor).await;
            late.cancel();
            outcome?;
        }
        Err(Failure::plain(CancelledError))
    }

    /// Returns the first child behind all those that have started.
    fn next_to_start(&self) -> Option<Rc<Child>> {
        let children = self.children.borrow();
        let behind = children.iter().rposition(|child| child.stage.get() != ChildStage::Idle);
        children.get(behind.map_or(0, |last| last + 1)).cloned()
    }

    /// Has those stopped that have started, as soon as the start that is under way has been cancelled.
    fn give_up_start(&self) {
        if self.stage.get() != Stage::Starting {
            return;
        }
        self.stage.set(Stage::Stopping);
        let children = self.children.borrow().clone();
        for child in children {
            child.give_up_start();
        }
    }

    async fn stop_all(&self, reactor: &Reactor) {
        self.stage.set(Stage::Stopping);
        let deadline = reactor.now() + self.stop_limit;
        while let Some(child) = self.next_to_stop() {
            let service = &child.service;
            let left = deadline.since(reactor.now());
            let limit = service.stop_limit().map_or(left, |limit| limit.min(left));
            self.stopping.replace(Some(Rc::clone(service)));
            let outcome = maybe_deferred(|| service.stop()).with_timeout(reactor, limit).await;
            self.stopping.take();
            let name = format!("{}/{}", self.name, service.name());
            match outcome {
                Ok(()) => log::debug!("service {name:?} has stopped"),
                Err(failure) if failure.is::<TimeoutError>() => {
                    report_overdue(&hanging(&name, &**service), limit);
                }
                Err(failure) => {
                    log::error!("service {name:?} failed to stop: {failure:#}");
                }
            }
        }
    }

    /// Returns the last child that has started, which counts as stopped from now on.
    fn next_to_stop(&self) -> Option<Rc<Child>> {
        loop {
            let child = {
                let children = self.children.borrow();
                let busy = |child: &&Rc<Child>| child.stage.get() != ChildStage::Idle;
                Rc::clone(children.iter().rev().find(busy)?)
            };
            if child.stage.replace(ChildStage::Idle) == ChildStage::Started {
                return Some(child);
            }
            // It was added to the others while they were running, and has not started yet.
            child.give_up_start();
        }
    }

    fn take_child(&self, is_it: impl Fn(&Child) -> bool) -> Option<Rc<Child>> {
        let mut children = self.children.borrow_mut();
        let place = children.iter().position(|child| is_it(child))?;
        Some(children.remove(place))
    }
}

impl Child {
    fn start(self: &Rc<Child>, reactor: &Reactor) -> Deferred<()> {
        self.stage.set(ChildStage::Starting);
        let started = maybe_deferred(|| self.service.start(reactor));
        self.start.replace(Some(started.cancel_handle()));
        let child = Rc::clone(self);
        started.add_both(move |outcome| {
            child.start.take();
            let name = child.service.name();
            match outcome {
                Ok(()) if child.stage.get() == ChildStage::Starting => {
                    child.stage.set(ChildStage::Started);
                    log::debug!("service {name:?} has started");
                    Deferred::succeed(())
                }
                Ok(()) => {
                    log::debug!("service {name:?} has started, but is not wanted any more");
                    child.stop_unwanted()
                }
                Err(cause) => {
                    child.stage.set(ChildStage::Idle);
                    Deferred::fail(match cause.is::<CancelledError>() {
                        true => cause,
                        false => Failure::new(StartError { name: name.to_owned(), cause }),
                    })
                }
            }
        })
    }

    /// Stops it because its start was given up but came to a good end.
    fn stop_unwanted(self: Rc<Child>) -> Deferred<()> {
        maybe_deferred(|| self.service.stop()).add_both(move |outcome| {
            if let Err(failure) = outcome {
                log::error!("service {:?} failed to stop: {failure:#}", self.service.name());
            }
            Err(Failure::plain(CancelledError))
        })
    }

    fn give_up_start(&self) {
        let start = self.start.take();
        if let Some(start) = start {
            self.stage.set(ChildStage::Idle);
            start.cancel();
        }
    }
}

/// Names the service that is to blame: `service`, or the one that it waits for itself.
pub(super) fn hanging(name: &str, service: &dyn Service) -> String {
    let stopping =
        service.as_multi_service().and_then(|multi| multi.shared.stopping.borrow().clone());
    match stopping {
        Some(inner) => hanging(&format!("{name}/{}", inner.name()), &*inner),
        None => name.to_owned(),
    }
}

pub(super) fn report_overdue(name: &str, limit: Duration) {
    log::warn!("service {name:?} has not stopped within {limit:?}; going on without it");
}

/// Says so if a start takes longer than anybody expects, until the call is cancelled.
fn report_late_start(reactor: &Reactor, name: &str, child: &Rc<Child>) -> DelayedCall {
    let (name, service) = (name.to_owned(), Rc::clone(&child.service));
    reactor.call_later(START_NOTICE, move || {
        log::warn!(
            "service \"{name}/{}\" is still starting after {START_NOTICE:?}",
            service.name()
        );
    })
}

/// What a task's deferred says when the reactor stops.
fn ignore_cancelling(failure: Failure) -> Outcome<()> {
    failure.trap::<CancelledError>().map(drop)
}

impl fmt::Debug for MultiService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiService")
            .field("name", &self.shared.name)
            .field("stage", &self.shared.stage.get())
            .field("services", &self.service_names())
            .field("started", &self.started_count())
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

/// A [`MultiService`] was to be started while it was started, or being started or stopped.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("service {name:?} has been started already; stop it and wait for that first")]
pub struct AlreadyStarted {
    /// The service's name.
    pub name: String,
}

/// A [`MultiService`] has no service with this name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no service named {name:?}")]
pub struct NoSuchService {
    /// The name.
    pub name: String,
}

/// A start that takes longer than this is noted in the log: somebody is waiting for the program.
const START_NOTICE: Duration = Duration::from_secs(10);
