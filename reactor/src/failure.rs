//! `Failure`: the one error type that travels along deferreds.
//!
//! Owns the error value, where it was made and, when asked for, the backtrace. Which failures exist is
//! each module's own affair; the ones here are those that the reactor itself makes.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::ready;

/// Why something did not work: any error, together with where it entered a deferred.
///
/// Cloning is cheap (a reference count), so one failure can be given to many waiters. A failure can
/// cross threads. `?` turns any `Error + Send + Sync + 'static` into one.
///
/// Ask what it is with [`is`](Self::is), [`downcast_ref`](Self::downcast_ref) or
/// [`trap`](Self::trap); never compare its text. `{}` prints the error alone, `{:#}` appends its
/// sources, each after a colon.
///
/// ```
/// use ropewalk::{Deferred, Failure};
///
/// let number = Deferred::succeed("twelve")
///     .add_callback(|text| Ok(text.parse::<i32>()?))
///     .add_errback(|failure| {
///         failure.trap::<std::num::ParseIntError>()?; // anything else passes on
///         Ok(0)
///     });
/// assert_eq!(number.into_result().unwrap().unwrap(), 0);
/// ```
#[derive(Clone)]
pub struct Failure(Arc<Evidence>);

struct Evidence {
    error: Box<dyn Error + Send + Sync>,
    created: &'static Location<'static>,
    backtrace: Backtrace,
}

impl Failure {
    /// Makes a failure of an error. The caller's place in the source is remembered, and its backtrace
    /// if `RUST_BACKTRACE` asks for one.
    #[track_caller]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::with_backtrace(error.into(), Backtrace::capture())
    }

    /// Makes a failure whose backtrace would say nothing that the error does not.
    #[track_caller]
    pub(crate) fn plain(error: impl Error + Send + Sync + 'static) -> Self {
        Self::with_backtrace(Box::new(error), Backtrace::disabled())
    }

    #[track_caller]
    fn with_backtrace(error: Box<dyn Error + Send + Sync>, backtrace: Backtrace) -> Self {
        Self(Arc::new(Evidence { error, created: Location::caller(), backtrace }))
    }

    /// Makes a failure of what a panicking callback, task or thread job left behind.
    #[track_caller]
    pub fn from_panic(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => match payload.downcast_ref::<&'static str>() {
                Some(text) => (*text).to_owned(),
                None => "no message".to_owned(),
            },
        };
        let failure = Self::new(Panicked { message });
        ready::tell_panic_watcher(&failure);
        failure
    }

    /// Whether the error is an `E`.
    pub fn is<E: Error + 'static>(&self) -> bool {
        self.0.error.is::<E>()
    }

    /// Returns the error if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.error.downcast_ref::<E>()
    }

    /// Keeps only failures that are an `E`.
    ///
    /// # Errors
    ///
    /// The failure itself if it is something else, so that `failure.trap::<E>()?` at the top of an
    /// errback passes on what the errback does not understand.
    pub fn trap<E: Error + 'static>(self) -> Result<Self, Self> {
        if self.is::<E>() { Ok(self) } else { Err(self) }
    }

    /// Returns the error.
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0.error
    }

    /// Returns where the failure was made.
    pub fn created(&self) -> &'static Location<'static> {
        self.0.created
    }

    /// Returns the backtrace taken when the failure was made, if `RUST_BACKTRACE` asked for it.
    pub fn backtrace(&self) -> Option<&Backtrace> {
        (self.0.backtrace.status() == BacktraceStatus::Captured).then_some(&self.0.backtrace)
    }

    /// Whether both are clones of one failure.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.error)?;
        if f.alternate() {
            let mut source = self.0.error.source();
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({self:#}, created at {})", self.0.created)
    }
}

/// The deferred was cancelled before it had its result.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, thiserror::Error)]
#[error("cancelled")]
pub struct CancelledError;

/// A deferred had no result when its time was up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no result within {} s", .limit.as_secs_f64())]
pub struct TimeoutError {
    /// How long was waited.
    pub limit: Duration,
}

/// A resolver was dropped without giving its deferred a result.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the resolver of the deferred made at {created} was dropped without a result")]
pub struct ResolverDropped {
    /// Where the deferred was made.
    pub created: &'static Location<'static>,
}

/// A callback, task or thread job panicked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("panicked: {message}")]
pub struct Panicked {
    /// The panic's message, or `no message` when it was neither a `String` nor a `&str`.
    pub message: String,
}
