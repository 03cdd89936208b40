//! A pipe within the process: what one side writes, the other reads, with a bounded amount in between.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::{Consumer, Feed, FlowError, Producer, Streaming, checked, report};
use crate::deferred::{Deferred, Resolver};
use crate::failure::{CancelledError, Failure};

/// Makes a pipe: bytes written to one end come out of the other, in order.
///
/// A push producer that is registered with the writer is paused when more than `high_bytes` wait, and
/// resumed when at most `low_bytes` are left; a pull producer is asked for more then.
///
/// ```
/// use ropewalk::flow::pipe;
/// use ropewalk::testing::success_result_of;
/// use ropewalk::Consumer;
///
/// let (writer, reader) = pipe(64 * 1024, 16 * 1024);
/// writer.write(b"hello");
/// writer.finish();
/// assert_eq!(success_result_of(reader.read()).unwrap(), "hello");
/// assert_eq!(success_result_of(reader.read()), None, "the end");
/// ```
#[must_use]
pub fn pipe(high_bytes: usize, low_bytes: usize) -> (PipeWriter, PipeReader) {
    let shared = Rc::new(Shared {
        buffer: RefCell::default(),
        buffered_bytes: Cell::new(0),
        high_bytes,
        low_bytes: low_bytes.min(high_bytes),
        feed: Rc::default(),
        end: RefCell::new(None),
        sink: RefCell::new(Sink::Unclaimed),
    });
    let end = Rc::new(WritingEnd { shared: Rc::clone(&shared) });
    (PipeWriter { end }, PipeReader { shared: Some(shared) })
}

/// Why a pipe gave less than everything.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// The consumer that the bytes were sent to told the pipe to stop.
    #[error("consumer stopped taking bytes after {sent_bytes}")]
    ConsumerStopped {
        /// How many it has had.
        sent_bytes: u64,
    },
    /// The writing end was dropped without having been finished, so that nobody knows whether that was
    /// all.
    #[error("pipe was dropped by its writer before it was finished")]
    WriterDropped,
}

/// The end of a [`pipe()`] that is written to: a [`Consumer`]. A handle is a cheap clone.
///
/// Unregistering a producer does not end the stream; [`finish`](PipeWriter::finish) does. When the last handle
/// is dropped before that, the reader gets [`PipeError::WriterDropped`] after the bytes.
#[derive(Clone)]
pub struct PipeWriter {
    end: Rc<WritingEnd>,
}

/// Notices when the last handle goes.
struct WritingEnd {
    shared: Rc<Shared>,
}

/// The end of a [`pipe()`] that is read from, piece by piece or into a consumer.
///
/// Dropping it stops the producer at the other end; what is still written is dropped.
pub struct PipeReader {
    /// `None` once the bytes go to a consumer.
    shared: Option<Rc<Shared>>,
}

struct Shared {
    buffer: RefCell<VecDeque<Bytes>>,
    buffered_bytes: Cell<usize>,
    high_bytes: usize,
    low_bytes: usize,
    feed: Rc<Feed>,
    /// How the stream ended, once it has.
    end: RefCell<Option<Result<(), PipeError>>>,
    sink: RefCell<Sink>,
}

/// Who gets the bytes.
enum Sink {
    Consumer(Weak<Outflow>),
    /// Nobody, ever: what comes is dropped.
    Gone,
    /// Those who read, in order.
    Reads {
        waiting: BTreeMap<u64, Resolver<Option<Bytes>>>,
        next: u64,
    },
    /// Nobody has asked yet.
    Unclaimed,
}

impl PipeWriter {
    /// Nothing more will be written: the reader gets to the end.
    pub fn finish(&self) {
        self.end.shared.finish(Ok(()));
    }

    /// Returns how many bytes have been written and not read.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.end.shared.buffered_bytes.get()
    }

    /// Whether the reader is gone, so that what is written is dropped.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        matches!(*self.end.shared.sink.borrow(), Sink::Gone)
    }
}

impl Consumer for PipeWriter {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        let shared = &self.end.shared;
        shared.feed.register(producer, streaming);
        if self.is_abandoned() || shared.end.borrow().is_some() {
            shared.feed.stop();
        } else {
            shared.steer();
        }
    }

    fn unregister_producer(&self) {
        self.end.shared.feed.unregister();
    }

    fn write(&self, data: &[u8]) {
        self.write_bytes(Bytes::copy_from_slice(data));
    }

    fn write_bytes(&self, data: Bytes) {
        self.end.shared.write(data);
    }
}

impl Drop for WritingEnd {
    fn drop(&mut self) {
        self.shared.feed.stop();
        self.shared.finish(Err(PipeError::WriterDropped));
    }
}

impl PipeReader {
    /// Reads the next piece, `None` at the end. Several reads are served in order; cancelling one leaves
    /// the piece to the next.
    ///
    /// # Errors
    ///
    /// [`PipeError::WriterDropped`].
    #[track_caller]
    pub fn read(&self) -> Deferred<Option<Bytes>> {
        let Some(shared) = &self.shared else { return Deferred::succeed(None) };
        if let Some(piece) = shared.pop() {
            shared.steer();
            return Deferred::succeed(Some(piece));
        }
        if let Some(end) = *shared.end.borrow() {
            return match end {
                Ok(()) => Deferred::succeed(None),
                Err(error) => Deferred::fail(error),
            };
        }
        let mut sink = shared.sink.borrow_mut();
        if !matches!(*sink, Sink::Reads { .. }) {
            *sink = Sink::Reads { waiting: BTreeMap::new(), next: 0 };
        }
        let Sink::Reads { waiting, next } = &mut *sink else { return Deferred::succeed(None) };
        let number = *next;
        *next += 1;
        let weak = Rc::downgrade(shared);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            let Some(shared) = weak.upgrade() else { return };
            let resolver = match &mut *shared.sink.borrow_mut() {
                Sink::Reads { waiting, .. } => waiting.remove(&number),
                _ => None,
            };
            if let Some(resolver) = resolver {
                resolver.errback(CancelledError);
            }
        });
        waiting.insert(number, resolver);
        deferred
    }

    /// Passes everything on to `consumer` as it comes, and returns the number of bytes at the end.
    ///
    /// The pipe registers itself as push producer and unregisters at the end, also at a bad one. Cancelling
    /// unregisters, too, and drops the reader.
    ///
    /// # Errors
    ///
    /// [`PipeError`]; the consumer has then had the first part.
    #[track_caller]
    pub fn send_to(mut self, consumer: Rc<dyn Consumer>) -> Deferred<u64> {
        let Some(shared) = self.shared.take() else { return Deferred::succeed(0) };
        let consumer = checked(consumer);
        let (deferred, resolver) = Deferred::new();
        let outflow = Rc::new(Outflow {
            shared: Rc::clone(&shared),
            consumer: Rc::clone(&consumer),
            is_paused: Cell::new(false),
            sent_bytes: Cell::new(0),
            resolver: Cell::new(None),
        });
        let weak = Rc::downgrade(&outflow);
        resolver.set_canceller(move || {
            if let Some(outflow) = weak.upgrade() {
                outflow.consumer.unregister_producer();
                outflow.settle(Err(CancelledError.into()));
            }
        });
        outflow.resolver.set(Some(resolver));
        shared.sink.replace(Sink::Consumer(Rc::downgrade(&outflow)));
        let producer: Rc<dyn Producer> = Rc::clone(&outflow) as _;
        consumer.register_producer(producer, Streaming::Push);
        outflow.drain();
        deferred
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.abandon();
        }
    }
}

impl Shared {
    fn write(self: &Rc<Self>, data: Bytes) {
        if self.end.borrow().is_some() {
            let producer = self.feed.producer_name().unwrap_or("somebody");
            let consumer = std::any::type_name::<PipeWriter>();
            return report(FlowError::WroteAfterUnregister { producer, consumer });
        }
        if data.is_empty() {
            return;
        }
        self.feed.wrote();
        let mut sink = self.sink.borrow_mut();
        match &mut *sink {
            Sink::Gone => return,
            Sink::Reads { waiting, .. } => {
                if let Some((_, resolver)) = waiting.pop_first() {
                    drop(sink);
                    resolver.callback(Some(data));
                    return self.steer();
                }
            }
            Sink::Consumer(outflow) => {
                let outflow = outflow.upgrade();
                drop(sink);
                self.push(data);
                match outflow {
                    Some(outflow) => outflow.drain(),
                    None => self.abandon(),
                }
                return;
            }
            Sink::Unclaimed => {}
        }
        drop(sink);
        self.push(data);
        self.steer();
    }

    fn push(&self, data: Bytes) {
        self.buffered_bytes.set(self.buffered_bytes.get() + data.len());
        self.buffer.borrow_mut().push_back(data);
    }

    fn pop(&self) -> Option<Bytes> {
        let piece = self.buffer.borrow_mut().pop_front()?;
        self.buffered_bytes.set(self.buffered_bytes.get() - piece.len());
        Some(piece)
    }

    /// Pauses or resumes the producer, as what waits demands.
    fn steer(&self) {
        let buffered_bytes = self.buffered_bytes.get();
        if buffered_bytes > self.high_bytes {
            self.feed.pause();
        } else if buffered_bytes <= self.low_bytes {
            self.feed.resume();
        }
    }

    fn finish(self: &Rc<Self>, end: Result<(), PipeError>) {
        if self.end.borrow().is_some() {
            return;
        }
        self.end.replace(Some(end));
        let sink = mem::replace(&mut *self.sink.borrow_mut(), Sink::Unclaimed);
        match sink {
            Sink::Consumer(outflow) => {
                self.sink.replace(Sink::Consumer(Weak::clone(&outflow)));
                if let Some(outflow) = outflow.upgrade() {
                    outflow.drain();
                }
            }
            Sink::Reads { waiting, .. } => {
                for resolver in waiting.into_values() {
                    resolver.fire(end.map(|()| None).map_err(Failure::from));
                }
            }
            Sink::Gone => drop(self.sink.replace(Sink::Gone)),
            Sink::Unclaimed => {}
        }
    }

    /// Nobody will read any more.
    fn abandon(&self) {
        let sink = mem::replace(&mut *self.sink.borrow_mut(), Sink::Gone);
        let buffer = self.buffer.take();
        self.buffered_bytes.set(0);
        self.feed.stop();
        drop((sink, buffer));
    }
}

/// The reading end of a pipe as a producer for a consumer.
struct Outflow {
    shared: Rc<Shared>,
    consumer: Rc<dyn Consumer>,
    is_paused: Cell<bool>,
    sent_bytes: Cell<u64>,
    resolver: Cell<Option<Resolver<u64>>>,
}

impl Outflow {
    /// Passes on what waits, as far as the consumer takes it; ends, if that was all.
    fn drain(&self) {
        while !self.is_paused.get() {
            let Some(piece) = self.shared.pop() else { break };
            self.sent_bytes.set(self.sent_bytes.get() + piece.len() as u64);
            self.consumer.write_bytes(piece);
        }
        self.shared.steer();
        let end = *self.shared.end.borrow();
        if let Some(end) = end
            && self.shared.buffered_bytes.get() == 0
            && !matches!(*self.shared.sink.borrow(), Sink::Gone)
        {
            self.consumer.unregister_producer();
            let sent_bytes = self.sent_bytes.get();
            self.settle(end.map(|()| sent_bytes).map_err(Failure::from));
        }
    }

    fn settle(&self, outcome: Result<u64, Failure>) {
        self.shared.abandon();
        if let Some(resolver) = self.resolver.take() {
            resolver.fire(outcome);
        }
    }
}

impl Producer for Outflow {
    fn pause_producing(&self) {
        self.is_paused.set(true);
    }

    fn resume_producing(&self) {
        if self.is_paused.replace(false) {
            self.drain();
        }
    }

    fn stop_producing(&self) {
        let sent_bytes = self.sent_bytes.get();
        self.settle(Err(PipeError::ConsumerStopped { sent_bytes }.into()));
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<PipeReader>()
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").field("buffered_bytes", &self.buffered_bytes()).finish()
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffered_bytes = self.shared.as_ref().map_or(0, |shared| shared.buffered_bytes.get());
        f.debug_struct("PipeReader").field("buffered_bytes", &buffered_bytes).finish()
    }
}
