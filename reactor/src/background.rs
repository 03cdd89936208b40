//! Work that belongs to no request.

use crate::context::LogContext;
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;

/// Runs a future to its end in a log context of its own, named `<name>-<counter>`.
///
/// What it costs is charged to nobody else, and its log lines name it. The counter is the reactor's, so
/// that a simulation gives the same names each time. A failure is logged as an error and goes no further.
/// The process ends with the reactor at the latest.
///
/// ```
/// use ropewalk::testing::Clock;
/// use ropewalk::{LogContext, run_as_background_process};
///
/// let clock = Clock::new();
/// run_as_background_process(clock.reactor(), "prune caches", async {
///     assert!(LogContext::current().name().starts_with("prune caches-"));
///     Ok(())
/// });
/// clock.pump();
/// ```
pub fn run_as_background_process(
    reactor: &Reactor,
    name: &str,
    work: impl Future<Output = Result<(), Failure>> + 'static,
) {
    let counter = &reactor.core().counters.background_processes;
    counter.add(1);
    let context = LogContext::new(format!("{name}-{}", counter.get()));
    let name = name.to_owned();
    context.run(|| {
        reactor
            .spawn(work)
            .add_both(move |outcome| {
                match outcome {
                    Err(failure) if failure.is::<CancelledError>() => {
                        log::debug!("background process {name:?} was cancelled");
                    }
                    Err(failure) => {
                        log::error!("background process {name:?} failed: {failure:#}");
                    }
                    Ok(()) => {}
                }
                LogContext::current().finish();
                Ok(())
            })
            .detach();
    });
}
