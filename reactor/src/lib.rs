//! A single-threaded event-loop reactor with deferreds.

pub mod cache;
mod clock;
#[allow(dead_code, reason = "the loop installs its clock")]
mod context;
mod deferred;
mod failure;
mod flow;
pub mod logging;
mod protocol;
mod reactor;
#[allow(dead_code, reason = "the loop serves the queue")]
mod ready;
mod timers;
mod transport;

pub use clock::Instant;
pub use context::{LogContext, Scope, Usage};
pub use deferred::{
    CancelHandle, Deferred, DeferredList, DeferredLock, DeferredSemaphore, Guard, IntoDeferred,
    Linearizer, ObservableDeferred, RaceFailed, Resolver, UnhandledFailure, gather_results,
    maybe_deferred, race,
};
pub use failure::{CancelledError, Failure, Panicked, ResolverDropped, TimeoutError};
pub use flow::{Consumer, Producer, Streaming};
pub use protocol::{Address, ConnectionLost, Factory, Protocol};
pub use reactor::{Reactor, ReactorRemote};
pub use timers::DelayedCall;
pub use transport::Transport;
pub use transport::tcp::{ListenOptions, ListeningPort};
