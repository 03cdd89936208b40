//! Failures that nobody handled.
//!
//! Owns what happens when a deferred goes away while it still holds a failure: a log line, and a note
//! for whoever is watching (the test kit does).

use std::panic::Location;

use crate::context::LogContext;
use crate::failure::{CancelledError, Failure};
use crate::ready;

/// A failure whose deferred went away before anybody handled it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnhandledFailure {
    /// The failure.
    pub failure: Failure,
    /// The name of the context that it came from.
    pub context: String,
    /// Where the last step of its chain was added, or the deferred was made if there was none.
    pub deferred_created: Option<&'static Location<'static>>,
}

/// A failure that is reported when it is dropped, unless somebody handles it.
pub(super) struct Unhandled(Option<Failure>);

impl Unhandled {
    #[inline]
    pub(super) fn new(failure: Failure) -> Self {
        Self(Some(failure))
    }

    pub(super) fn handle(mut self) -> Failure {
        self.0.take().expect("it is there until it is handled, which happens once")
    }
}

impl Drop for Unhandled {
    fn drop(&mut self) {
        if let Some(failure) = self.0.take() {
            report(&failure, None);
        }
    }
}

/// Reports a failure in the current context.
#[cold]
pub(crate) fn report(failure: &Failure, created: Option<&'static Location<'static>>) {
    if ready::is_silent() {
        return;
    }
    // Who cancels rarely wants to hear of it again.
    let is_error = !failure.is::<CancelledError>();
    if is_error
        && ready::with_unhandled_watcher(|watch| {
            watch(UnhandledFailure {
                failure: failure.clone(),
                context: LogContext::current().name().to_owned(),
                deferred_created: created,
            });
        })
    {
        return;
    }
    let level = if is_error { log::Level::Error } else { log::Level::Debug };
    let created = created.unwrap_or(failure.created());
    match failure.backtrace() {
        Some(backtrace) => log::log!(
            level,
            "unhandled failure in deferred: {failure:#}; failed at {}, deferred made at {created}\n{backtrace}",
            failure.created()
        ),
        None => log::log!(
            level,
            "unhandled failure in deferred: {failure:#}; failed at {}, deferred made at {created}",
            failure.created()
        ),
    }
}
