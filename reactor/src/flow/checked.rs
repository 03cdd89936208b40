//! The rules between producers and consumers, checked by standing in between.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use super::{Consumer, Producer, Streaming, report};
use crate::deferred::Deferred;
use crate::files::FileRange;

/// Who broke which rule of [producers and consumers](super).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// A producer goes on though it was told to pause: it has written much more than it can have had in
    /// hand.
    #[error("{producer} was told to pause by {consumer} and has written {bytes} bytes since")]
    IgnoredPause {
        /// Who.
        producer: &'static str,
        /// To whom.
        consumer: &'static str,
        /// How much.
        bytes: usize,
    },
    /// A consumer paused a producer that writes only when it is asked.
    #[error("{consumer} paused {producer}, a pull producer; just do not ask it")]
    PausedPull {
        /// Who.
        consumer: &'static str,
        /// Whom.
        producer: &'static str,
    },
    /// A producer was registered while another one was, or the same one.
    #[error(
        "{producer} was registered with {consumer}, which is fed by {registered} already; \
             unregister that first"
    )]
    RegisteredTwice {
        /// The newcomer.
        producer: &'static str,
        /// With whom.
        consumer: &'static str,
        /// Who is there.
        registered: &'static str,
    },
    /// A consumer told something to a producer that it had told to stop.
    #[error("{consumer} told {producer} to {told} after it had told it to stop")]
    ToldAfterStop {
        /// Who.
        consumer: &'static str,
        /// Whom.
        producer: &'static str,
        /// What.
        told: &'static str,
    },
    /// A consumer told something to a producer that had unregistered.
    #[error("{consumer} told {producer} to {told}, which is not registered with it any more")]
    ToldAfterUnregister {
        /// Who.
        consumer: &'static str,
        /// Whom.
        producer: &'static str,
        /// What.
        told: &'static str,
    },
    /// A producer wrote although it had been told to stop.
    #[error("{producer} wrote to {consumer}, which had told it to stop")]
    WroteAfterStop {
        /// Who.
        producer: &'static str,
        /// To whom.
        consumer: &'static str,
    },
    /// A producer wrote although it had unregistered.
    #[error("{producer} wrote to {consumer} after it had unregistered")]
    WroteAfterUnregister {
        /// Who.
        producer: &'static str,
        /// To whom.
        consumer: &'static str,
    },
    /// A pull producer wrote without having been asked.
    #[error("{producer}, a pull producer, wrote to {consumer} without having been asked")]
    WroteUnasked {
        /// Who.
        producer: &'static str,
        /// To whom.
        consumer: &'static str,
    },
}

/// Returns a consumer that passes everything on to this one and watches that the rules are kept, by it and
/// by the producer that is registered with what is returned.
///
/// Without debug assertions it returns `consumer` itself.
///
/// ```
/// use std::rc::Rc;
/// use ropewalk::flow::{FlowError, checked, pipe};
/// use ropewalk::testing::UnhandledErrors;
/// use ropewalk::{Consumer, Producer, Streaming};
///
/// struct Hasty;
///
/// impl Producer for Hasty {
///     fn pause_producing(&self) {}
///     fn resume_producing(&self) {}
///     fn stop_producing(&self) {}
/// }
///
/// let complaints = UnhandledErrors::trap();
/// let (writer, _reader) = pipe(1024, 256);
/// let consumer = checked(Rc::new(writer));
/// consumer.register_producer(Rc::new(Hasty), Streaming::Push);
/// consumer.unregister_producer();
/// consumer.write(b"one thing more");
/// # if cfg!(debug_assertions) {
/// let complaint = &complaints.take()[0].failure;
/// assert!(matches!(complaint.downcast_ref(), Some(FlowError::WroteAfterUnregister { .. })));
/// # }
/// ```
#[must_use]
pub fn checked(consumer: Rc<dyn Consumer>) -> Rc<dyn Consumer> {
    if cfg!(debug_assertions) {
        let consumer_name = consumer.type_name();
        Rc::new(Checked { consumer, consumer_name, watched: RefCell::new(None) })
    } else {
        consumer
    }
}

struct Checked {
    consumer: Rc<dyn Consumer>,
    consumer_name: &'static str,
    /// The last producer that was registered.
    watched: RefCell<Option<Rc<Watched>>>,
}

/// A producer, as the consumer sees it.
struct Watched {
    /// `None` once nothing is to be told to it: a consumer and its producer often own each other.
    producer: RefCell<Option<Rc<dyn Producer>>>,
    producer_name: &'static str,
    streaming: Streaming,
    consumer_name: &'static str,
    is_registered: Cell<bool>,
    is_stopped: Cell<bool>,
    /// Of a pull producer.
    was_asked: Cell<bool>,
    /// Of a push producer: what it has written since it was told to pause.
    written_while_paused: Cell<Option<usize>>,
}

impl Checked {
    fn check_write(&self, bytes: usize) {
        let watched = self.watched.borrow().clone();
        // Whoever writes without ever registering does so at his own risk.
        let Some(watched) = watched else { return };
        let (producer, consumer) = (watched.producer_name, self.consumer_name);
        if watched.is_stopped.get() {
            report(FlowError::WroteAfterStop { producer, consumer });
        } else if !watched.is_registered.get() {
            report(FlowError::WroteAfterUnregister { producer, consumer });
        } else if watched.streaming == Streaming::Pull && !watched.was_asked.replace(false) {
            report(FlowError::WroteUnasked { producer, consumer });
        } else if let Some(before) = watched.written_while_paused.get() {
            let bytes = before.saturating_add(bytes);
            watched.written_while_paused.set(Some(bytes));
            if before <= IN_HAND_BYTES_MAX && bytes > IN_HAND_BYTES_MAX {
                report(FlowError::IgnoredPause { producer, consumer, bytes });
            }
        }
    }
}

impl Consumer for Checked {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        let before = self.watched.borrow().clone();
        if let Some(before) = before
            && before.is_registered.get()
            && !before.is_stopped.get()
        {
            let (producer, consumer) = (producer.type_name(), self.consumer_name);
            let registered = before.producer_name;
            report(FlowError::RegisteredTwice { producer, consumer, registered });
        }
        let watched = Rc::new(Watched {
            producer_name: producer.type_name(),
            producer: RefCell::new(Some(producer)),
            streaming,
            consumer_name: self.consumer_name,
            is_registered: Cell::new(true),
            is_stopped: Cell::new(false),
            was_asked: Cell::new(false),
            written_while_paused: Cell::new(None),
        });
        self.watched.replace(Some(Rc::clone(&watched)));
        self.consumer.register_producer(watched, streaming);
    }

    fn unregister_producer(&self) {
        self.consumer.unregister_producer();
        let watched = self.watched.borrow().clone();
        if let Some(watched) = watched {
            watched.is_registered.set(false);
            drop(watched.producer.take());
        }
    }

    fn write(&self, data: &[u8]) {
        self.check_write(data.len());
        self.consumer.write(data);
    }

    fn write_bytes(&self, data: Bytes) {
        self.check_write(data.len());
        self.consumer.write_bytes(data);
    }

    fn take_file(&self, range: &FileRange) -> Option<Deferred<u64>> {
        let taken = self.consumer.take_file(range);
        if taken.is_some() {
            self.check_write(0);
        }
        taken
    }

    fn type_name(&self) -> &'static str {
        self.consumer_name
    }
}

impl Watched {
    /// Returns the producer if it may be told something.
    fn check_told(&self, told: &'static str) -> Option<Rc<dyn Producer>> {
        let (consumer, producer) = (self.consumer_name, self.producer_name);
        if self.is_stopped.get() {
            report(FlowError::ToldAfterStop { consumer, producer, told });
        } else if !self.is_registered.get() {
            report(FlowError::ToldAfterUnregister { consumer, producer, told });
        }
        self.producer.borrow().clone()
    }
}

impl Producer for Watched {
    fn pause_producing(&self) {
        let producer = self.check_told("pause");
        if self.streaming == Streaming::Pull {
            let (consumer, producer) = (self.consumer_name, self.producer_name);
            report(FlowError::PausedPull { consumer, producer });
        }
        let written = self.written_while_paused.get().unwrap_or(0);
        self.written_while_paused.set(Some(written));
        if let Some(producer) = producer {
            producer.pause_producing();
        }
    }

    fn resume_producing(&self) {
        let producer = self.check_told("resume");
        self.was_asked.set(true);
        self.written_while_paused.set(None);
        if let Some(producer) = producer {
            producer.resume_producing();
        }
    }

    fn stop_producing(&self) {
        let producer = self.check_told("stop");
        self.is_stopped.set(true);
        drop(self.producer.take());
        if let Some(producer) = producer {
            producer.stop_producing();
        }
    }

    fn type_name(&self) -> &'static str {
        self.producer_name
    }
}

/// What a producer may have had in hand when it was told to pause: what one connection is read in a turn,
/// decoded, and some more.
const IN_HAND_BYTES_MAX: usize = 4 * 1024 * 1024;
