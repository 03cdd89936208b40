//! Back-pressure: who makes bytes, who takes them, and how the taker slows the maker down.
//!
//! A [`Producer`] is registered with a [`Consumer`] and writes to it. The consumer tells it when to pause,
//! when to go on, and when to stop for good.
//!
//! | | push | pull |
//! |---|---|---|
//! | writes | when it has something | one piece each time that it is asked |
//! | `pause_producing` | too much waits: write no more | never told |
//! | `resume_producing` | go on | write the next piece, now or later |
//! | `stop_producing` | nothing is wanted any more | the same |
//!
//! Transports, the bodies of HTTP messages, files ([`files`](crate::files)) and [pipes](pipe()) all speak this. A
//! [`Tee`] has one producer feed several consumers.
//!
//! # The rules
//!
//! 1. One producer at a time is registered with a consumer, from `register_producer` to
//!    `unregister_producer`.
//! 2. A producer writes only while it is registered. A pull producer writes once when it was asked;
//!    being asked again before it has written is the same as being asked once.
//! 3. A push producer that is told to pause may hand over what it has in hand, and then writes nothing.
//! 4. A consumer tells a producer things only while that is registered, and not from inside `write`. A
//!    pull producer is not paused, and a producer that was told to stop is told nothing more.
//! 5. A producer that is told to stop writes nothing more. It need not unregister.
//!
//! Builds with debug assertions check them wherever the crate puts a producer and a consumer together, and
//! so do tests of your own with [`checked`]. Whoever breaks one is named in a [`FlowError`], which is
//! reported like a failure that nobody handled; nothing else comes of it.

mod checked;
mod feed;
mod pipe;
mod tee;

use std::rc::Rc;

use bytes::Bytes;

use crate::deferred::Deferred;
use crate::files::FileRange;

pub use checked::{FlowError, checked};
pub(crate) use feed::{Feed, report};
pub use pipe::{PipeError, PipeReader, PipeWriter, pipe};
pub use tee::{SlowBranch, Tee, TeeBranch};

/// Makes bytes for a [`Consumer`] and listens to it. The rules are in [the module](self).
///
/// All methods take `&self`, because a producer is commonly the one who is writing at that moment.
/// A [`Transport`](crate::Transport) calls them after the current callback has returned, never from
/// inside `write`. None of them may be relied on to come exactly once: pausing a paused producer
/// must do no harm.
pub trait Producer {
    /// Stop producing until [`resume_producing`](Producer::resume_producing).
    ///
    /// Only a push producer is ever told this.
    fn pause_producing(&self);

    /// Push producers: go on producing. Pull producers: write one piece now or soon, or unregister.
    fn resume_producing(&self);

    /// Stop for good: the consumer is gone and will take no more bytes.
    fn stop_producing(&self);

    /// Names the producer in complaints.
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// How a [`Producer`] wants to be driven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Streaming {
    /// It writes one piece each time it is asked with `resume_producing`.
    Pull,
    /// It writes at its own pace and can be paused.
    Push,
}

/// Takes bytes, and lets a [`Producer`] know when there are too many of them. The rules are in [the
/// module](self).
pub trait Consumer {
    /// Names the producer whose bytes come next.
    ///
    /// One producer at a time: another one that is registered already is told to stop.
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming);

    /// The producer has written everything it had. Does nothing if none is registered.
    fn unregister_producer(&self);

    /// Takes these bytes.
    fn write(&self, data: &[u8]);

    /// Takes these bytes, without copying them if it can.
    fn write_bytes(&self, data: Bytes) {
        self.write(&data);
    }

    /// Takes a stretch of a file by a way of its own, if it has one that is shorter than having its bytes
    /// written. `None` if it has not; the caller then writes them.
    ///
    /// Called by a registered pull producer in place of a write. The deferred gets the number of bytes taken,
    /// from the start of the stretch on.
    fn take_file(&self, range: &FileRange) -> Option<Deferred<u64>> {
        let _ = range;
        None
    }

    /// Names the consumer in complaints.
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}
