//! A single-threaded event-loop reactor with deferreds.

mod backend;
mod background;
pub mod cache;
mod clock;
mod context;
mod core;
mod deferred;
mod failure;
mod flow;
pub mod logging;
mod looping;
mod protocol;
mod reactor;
mod ready;
mod remote;
mod service;
mod signals;
mod slots;
mod sys;
mod teardown;
pub mod testing;
mod threads;
mod timers;
mod transport;
mod turn;

pub use backend::Stopwatch;
pub use background::run_as_background_process;
pub use clock::Instant;
pub use context::{LogContext, Scope, Usage};
pub use deferred::{
    CancelHandle, Deferred, DeferredList, DeferredLock, DeferredSemaphore, Guard, IntoDeferred,
    Linearizer, ObservableDeferred, RaceFailed, Resolver, ResultTaken, UnhandledFailure,
    gather_results, maybe_deferred, race,
};
pub use failure::{CancelledError, Failure, Panicked, ResolverDropped, TimeoutError};
pub use flow::{Consumer, Producer, Streaming};
pub use looping::LoopingCall;
pub use protocol::{Address, ConnectError, ConnectionLost, Factory, Protocol};
pub use reactor::Reactor;
pub use remote::ReactorRemote;
pub use service::{MultiService, Service, StartError};
pub use signals::Signal;
pub use threads::{ThreadPool, ThreadPoolError, ThreadPoolOptions, ThreadPoolStatistics};
pub use timers::DelayedCall;
pub use transport::Transport;
pub use transport::tcp::{ListenOptions, ListeningPort};
