//! The test kit: time that is moved by hand, a network in memory, and what to ask of deferreds.
//!
//! Tests with it need no socket, no thread and no sleep, and take the same course each time.
//!
//! ```
//! use std::time::Duration;
//! use ropewalk::testing::{Clock, assert_no_result, success_result_of};
//! use ropewalk::Deferred;
//!
//! let clock = Clock::new();
//! let (answer, resolver) = Deferred::new();
//! clock.reactor().call_later(Duration::from_secs(60), || resolver.callback("done"));
//! clock.advance(Duration::from_secs(59));
//! assert_no_result(&answer);
//! clock.advance(Duration::from_secs(1));
//! assert_eq!(success_result_of(answer), "done");
//! ```

mod clock;
mod faults;
pub(crate) mod leaks;
mod memory;
mod replace;
mod results;

pub use crate::files::memory::{InjectedFault, MemoryFileSystem};
pub use crate::process::scripted::ScriptedProcess;
pub use clock::Clock;
pub use faults::{Fault, FaultPoint};
pub use leaks::{NoDeferredLeaks, NothingLeft};
pub use memory::{MemoryPair, MemoryTransport};
pub use replace::{Replaceable, Replaced, replace};
pub use results::{UnhandledErrors, assert_no_result, failure_result_of, success_result_of};
