//! Services: what is started and stopped.
//!
//! [`Service`] is what a part of a program says about itself, `multi` makes one of many, `run` ties one to
//! the process; the others are the services that most programs need. One that connects, again and again,
//! is [`ReconnectingClient`](crate::policy::ReconnectingClient).

mod multi;
mod run;
mod server;
mod timer;

use std::time::Duration;

pub use self::multi::{AlreadyStarted, MultiService, NoSuchService, StartError};
pub use self::run::{run_service, serve};
pub use self::server::ServerService;
pub use self::timer::TimerService;
use crate::deferred::Deferred;
use crate::reactor::Reactor;

/// A part of a program that is started and stopped.
///
/// A service may be started again after it has stopped. Whoever starts it (most often a
/// [`MultiService`]) calls neither method while the other one's deferred has no result, with one
/// exception: it may cancel a start.
pub trait Service {
    /// Returns the name that log lines and errors use.
    fn name(&self) -> &str;

    /// Starts; the deferred fires when the service does its work.
    ///
    /// A service that could not start, or whose start was cancelled before it had its result, is not
    /// stopped: it cleans up after itself.
    fn start(&self, reactor: &Reactor) -> Deferred<()>;

    /// Stops: takes no new work and ends what is under way; the deferred fires when that is done. It is
    /// cancelled if it takes too long.
    fn stop(&self) -> Deferred<()>;

    /// Returns how long stopping may take, if that is less than what all have together.
    fn stop_limit(&self) -> Option<Duration> {
        None
    }

    /// Returns the service as the [`MultiService`] that it is, so that its children are found by name.
    ///
    /// A service that wraps one returns that.
    fn as_multi_service(&self) -> Option<&MultiService> {
        None
    }
}
