//! Running a service as a program: until a signal, and in order to the end.

use std::rc::Rc;
use std::time::Duration;

use super::Service;
use super::multi::{hanging, report_overdue};
use crate::deferred::{Deferred, DeferredEvent, Outcome, ending_in_its_own_time, maybe_deferred};
use crate::failure::{CancelledError, Failure, TimeoutError};
use crate::reactor::Reactor;
use crate::signals::Signal;

/// Runs a program that is one service: starts it, waits for SIGINT or SIGTERM, stops it, and ends the
/// reactor. What `main` calls last.
///
/// The first of these signals stops the service in order, also while it is still starting. What does not
/// stop in time is named in the log. The second signal ends the process at once, with the exit status
/// that shells expect (128 and the signal's number), and names what it did not wait for.
///
/// ```no_run
/// use std::rc::Rc;
/// use std::time::Duration;
/// use ropewalk::{Failure, MultiService, Reactor, TimerService, run_service};
///
/// fn main() -> Result<(), Failure> {
///     let program = MultiService::new("program", Duration::from_secs(8));
///     program.add(TimerService::new("report", Duration::from_secs(60), || {
///         println!("another minute");
///         Ok(())
///     }));
///     run_service(&Reactor::new()?, Rc::new(program))
/// }
/// ```
///
/// # Errors
///
/// What the service failed to start with; or why the loop or the signals fail.
pub fn run_service(reactor: &Reactor, service: Rc<dyn Service>) -> Result<(), Failure> {
    let result = reactor.run_until(serve(reactor, service));
    reactor.stop();
    // What is left on the reactor is ended. The loop itself makes no turn any more.
    let ended = reactor.run();
    result.and_then(|()| Ok(ended?))
}

/// Starts a service and stops it at SIGINT or SIGTERM; fires when it has stopped.
///
/// As [`run_service`], for a program that turns the reactor itself. Cancelling the deferred does what the
/// first signal does, and leaves it to fire when the service has stopped.
///
/// # Errors
///
/// As [`run_service`].
pub fn serve(reactor: &Reactor, service: Rc<dyn Service>) -> Deferred<()> {
    let is_asked_to_stop = DeferredEvent::new();
    for signal in [Signal::Interrupt, Signal::Terminate] {
        if let Err(error) = stop_on(reactor, signal, &is_asked_to_stop, &service) {
            return Deferred::fail(error);
        }
    }
    let ask = is_asked_to_stop.clone();
    let (deferred, end) = ending_in_its_own_time(move || ask.set());
    let handle = reactor.clone();
    reactor
        .spawn(async move {
            let outcome = live(&handle, &*service, &is_asked_to_stop).await;
            end.fire(outcome);
            Ok(())
        })
        // The reactor has stopped, which whoever waits hears from the deferred.
        .add_errback(|failure| failure.trap::<CancelledError>().map(drop))
        .detach();
    deferred
}

/// The whole life of a service.
async fn live(
    reactor: &Reactor,
    service: &dyn Service,
    is_asked_to_stop: &DeferredEvent,
) -> Outcome<()> {
    let start = maybe_deferred(|| service.start(reactor));
    let cancel = start.cancel_handle();
    let impatience = is_asked_to_stop.wait().add_callback(move |()| {
        cancel.cancel();
        Ok(())
    });
    let started = start.await;
    drop(impatience);
    match started {
        Ok(()) => {}
        Err(failure) if failure.is::<CancelledError>() && is_asked_to_stop.is_set() => {
            return Ok(());
        }
        Err(failure) => return Err(failure),
    }
    log::info!("service {:?} has started", service.name());
    is_asked_to_stop.wait().await?;
    log::info!("stopping");
    // One that is made of others keeps to its limit by itself, and knows better whom to name.
    let made_of_others = service.as_multi_service().map(|multi| multi.limit() + GRACE);
    let limit = service.stop_limit().or(made_of_others).unwrap_or(STOP_LIMIT);
    match maybe_deferred(|| service.stop()).with_timeout(reactor, limit).await {
        Err(failure) if failure.is::<TimeoutError>() => {
            report_overdue(&hanging(service.name(), service), limit);
        }
        Err(failure) => log::error!("service {:?} failed to stop: {failure:#}", service.name()),
        Ok(()) => log::info!("service {:?} has stopped", service.name()),
    }
    Ok(())
}

fn stop_on(
    reactor: &Reactor,
    signal: Signal,
    is_asked_to_stop: &DeferredEvent,
    service: &Rc<dyn Service>,
) -> std::io::Result<()> {
    let (ask, service) = (is_asked_to_stop.clone(), Rc::clone(service));
    let core = Rc::downgrade(reactor.core());
    reactor.on_signal(signal, move || {
        if !ask.is_set() {
            return ask.set();
        }
        let name = hanging(service.name(), &*service);
        log::warn!("told to stop a second time; ending at once, without service {name:?}");
        if let Some(core) = core.upgrade() {
            core.backend.end_process(SIGNALLED + signal.number());
        }
    })
}

/// What a shell adds to a signal's number to make the exit status of who was ended by it.
const SIGNALLED: i32 = 128;

/// What a service that is made of others gets on top of its own limit, for what it does when that is over.
const GRACE: Duration = Duration::from_secs(1);

/// How long a service that says nothing about it may take to stop: less than the ten seconds after which
/// container runtimes kill.
const STOP_LIMIT: Duration = Duration::from_secs(8);
