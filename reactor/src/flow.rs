//! Back-pressure: who makes bytes, who takes them, and how the taker slows the maker down.

use std::rc::Rc;

/// Makes bytes for a [`Consumer`] and listens to it.
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

    /// Push producers: go on producing. Pull producers: write one piece now, or unregister.
    fn resume_producing(&self);

    /// Stop for good: the consumer is gone and will take no more bytes.
    fn stop_producing(&self);
}

/// How a [`Producer`] wants to be driven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Streaming {
    /// It writes one piece each time it is asked with `resume_producing`.
    Pull,
    /// It writes at its own pace and can be paused.
    Push,
}

/// Takes bytes, and lets a [`Producer`] know when there are too many of them.
pub trait Consumer {
    /// Names the producer whose bytes come next.
    ///
    /// One producer at a time: another one that is registered already is told to stop.
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming);

    /// The producer has written everything it had. Does nothing if none is registered.
    fn unregister_producer(&self);

    /// Takes these bytes.
    fn write(&self, data: &[u8]);
}
