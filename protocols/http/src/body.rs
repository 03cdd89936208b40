//! Bodies that arrive: the handle that an application gets, and the end that a connection feeds.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::rc::{Rc, Weak};

use bytes::{Bytes, BytesMut};
use ropewalk::{CancelledError, Consumer, Deferred, Failure, Producer, Resolver, Streaming};

use crate::error::MessageError;
use crate::framing::BodyLength;

/// Room made at once for a collected body that announces its length; the rest grows as it comes, so that
/// an announcement alone costs no memory.
const COLLECT_RESERVE_BYTES_MAX: u64 = 64 * 1024;

/// Why a body did not arrive.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection ended first.
    #[error("connection ended before the body was complete")]
    ConnectionLost,
    /// The consumer that it was sent to told it to stop.
    #[error("consumer stopped taking the body")]
    ConsumerStopped,
    /// It broke the rules of its framing, or is over the connection's limit.
    #[error("body is malformed")]
    Malformed(#[source] MessageError),
    /// The peer sent too little for too long.
    #[error("peer stopped sending the body")]
    Stalled,
    /// It is over the limit that was asked for.
    #[error("body is over the limit of {limit} bytes; send less")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

/// The body of a received message.
///
/// Bytes are read from the connection only once somebody wants them: [`collect`](Self::collect) gathers them,
/// [`send_to`](Self::send_to) passes them on as they come. Until then, and while a consumer is paused, the peer
/// is made to wait. Dropping the body without asking for it throws it away; a server then closes the
/// connection unless little of it is left.
pub struct IncomingBody(Repr);

enum Repr {
    /// It came together with its head.
    Whole(Bytes),
    Stream(Rc<Inflow>),
    Taken,
}

impl IncomingBody {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        IncomingBody(Repr::Whole(bytes))
    }

    pub(crate) fn stream(inflow: Rc<Inflow>) -> Self {
        IncomingBody(Repr::Stream(inflow))
    }

    /// Returns the length in bytes that the peer has announced, `None` if it is sent in chunks or until
    /// the connection closes.
    pub fn declared_length(&self) -> Option<u64> {
        match &self.0 {
            Repr::Whole(bytes) => Some(bytes.len() as u64),
            Repr::Stream(inflow) => match inflow.length {
                BodyLength::Exact(length) => Some(length),
                BodyLength::Chunked | BodyLength::UntilClose => None,
            },
            Repr::Taken => None,
        }
    }

    /// Gathers the whole body, of at most `limit_bytes`.
    ///
    /// A body that came together with its head is there at once. Cancelling throws the rest away.
    ///
    /// # Errors
    ///
    /// [`BodyError::TooLarge`] as soon as the limit is known to be passed, otherwise what [`BodyError`] says.
    pub fn collect(mut self, limit_bytes: u64) -> Deferred<Bytes> {
        if self.declared_length().is_some_and(|length| length > limit_bytes) {
            return Deferred::fail(BodyError::TooLarge { limit: limit_bytes });
        }
        match mem::replace(&mut self.0, Repr::Taken) {
            Repr::Whole(bytes) => Deferred::succeed(bytes),
            Repr::Taken => Deferred::succeed(Bytes::new()),
            Repr::Stream(inflow) => {
                let weak = Rc::downgrade(&inflow);
                let (deferred, resolver) = Deferred::with_canceller(move || abandon(&weak));
                let reserve = match inflow.length {
                    BodyLength::Exact(length) => length.min(COLLECT_RESERVE_BYTES_MAX) as usize,
                    BodyLength::Chunked | BodyLength::UntilClose => 0,
                };
                let collected = BytesMut::with_capacity(reserve);
                inflow.claim(Sink::Collect { collected, limit_bytes, resolver });
                deferred
            }
        }
    }

    /// Passes the body on to `consumer` as it comes, and returns the number of bytes when it is complete.
    ///
    /// The body registers itself as push producer and unregisters at the end, also at a bad one. Nothing
    /// is kept in between: while the consumer is paused, the connection is not read. Cancelling
    /// throws the rest away.
    ///
    /// # Errors
    ///
    /// What [`BodyError`] says; the consumer has then had the first part.
    pub fn send_to(mut self, consumer: Rc<dyn Consumer>) -> Deferred<u64> {
        match mem::replace(&mut self.0, Repr::Taken) {
            Repr::Whole(bytes) => {
                if !bytes.is_empty() {
                    consumer.write(&bytes);
                }
                Deferred::succeed(bytes.len() as u64)
            }
            Repr::Taken => Deferred::succeed(0),
            Repr::Stream(inflow) => {
                let consumer = ropewalk::flow::checked(consumer);
                let weak = Rc::downgrade(&inflow);
                let (deferred, resolver) = Deferred::with_canceller(move || abandon(&weak));
                consumer.register_producer(inflow.clone(), Streaming::Push);
                inflow.claim(Sink::Pipe { consumer, resolver });
                deferred
            }
        }
    }
}

impl Drop for IncomingBody {
    fn drop(&mut self) {
        if let Repr::Stream(inflow) = &self.0 {
            inflow.claim(Sink::Nobody);
        }
    }
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("IncomingBody")
            .field("declared_length", &self.declared_length())
            .finish_non_exhaustive()
    }
}

fn abandon(inflow: &Weak<Inflow>) {
    if let Some(inflow) = inflow.upgrade() {
        inflow.abandon();
    }
}

/// What a connection wants to hear of the body that it feeds.
pub(crate) trait InflowOwner {
    /// More bytes are wanted now. May be called at any time, from inside [`Inflow::push`] as well.
    fn body_wanted(&self);
}

/// The connection's end of an [`IncomingBody`] that has not come whole.
pub(crate) struct Inflow {
    length: BodyLength,
    sink: RefCell<Sink>,
    received_bytes: Cell<u64>,
    is_paused: Cell<bool>,
    owner: Weak<dyn InflowOwner>,
}

/// Who gets the bytes.
enum Sink {
    /// The application has not said yet.
    Unclaimed,
    Collect {
        collected: BytesMut,
        limit_bytes: u64,
        resolver: Resolver<Bytes>,
    },
    Pipe {
        consumer: Rc<dyn Consumer>,
        resolver: Resolver<u64>,
    },
    /// They are thrown away.
    Nobody,
    /// The body is over, this way or that, before anybody asked.
    Ended(Option<BodyError>),
}

impl Inflow {
    pub(crate) fn new(length: BodyLength, owner: Weak<dyn InflowOwner>) -> Rc<Self> {
        Rc::new(Inflow {
            length,
            sink: RefCell::new(Sink::Unclaimed),
            received_bytes: Cell::new(0),
            is_paused: Cell::new(false),
            owner,
        })
    }

    /// Returns whether bytes would be taken now.
    pub(crate) fn wants_data(&self) -> bool {
        match &*self.sink.borrow() {
            Sink::Unclaimed => false,
            Sink::Pipe { .. } => !self.is_paused.get(),
            Sink::Collect { .. } | Sink::Nobody | Sink::Ended(..) => true,
        }
    }

    /// Returns whether the bytes that come are thrown away.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(*self.sink.borrow(), Sink::Nobody)
    }

    /// Says that nobody will ask for the body any more, if nobody has.
    pub(crate) fn abandon_unclaimed(&self) {
        let mut sink = self.sink.borrow_mut();
        if matches!(*sink, Sink::Unclaimed) {
            *sink = Sink::Nobody;
        }
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.get()
    }

    /// Returns how much is still to come, if that is known.
    pub(crate) fn remaining_bytes(&self) -> Option<u64> {
        match self.length {
            BodyLength::Exact(length) => Some(length.saturating_sub(self.received_bytes.get())),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        }
    }

    /// Hands on a piece. It may call the application.
    pub(crate) fn push(&self, data: &[u8]) {
        self.received_bytes.set(self.received_bytes.get() + data.len() as u64);
        let mut sink = self.sink.borrow_mut();
        match &mut *sink {
            Sink::Collect { collected, limit_bytes, .. } => {
                if collected.len() as u64 + data.len() as u64 <= *limit_bytes {
                    collected.extend_from_slice(data);
                    return;
                }
                let limit = *limit_bytes;
                drop(sink);
                self.settle(Err(BodyError::TooLarge { limit }));
            }
            Sink::Pipe { consumer, .. } => {
                let consumer = Rc::clone(consumer);
                drop(sink);
                consumer.write(data);
            }
            Sink::Unclaimed | Sink::Nobody | Sink::Ended(..) => {}
        }
    }

    /// The body is complete.
    pub(crate) fn end(&self) {
        self.settle(Ok(()));
    }

    /// The body will not be complete.
    pub(crate) fn fail(&self, error: BodyError) {
        self.settle(Err(error));
    }

    fn settle(&self, result: Result<(), BodyError>) {
        let sink = mem::replace(&mut *self.sink.borrow_mut(), Sink::Nobody);
        match sink {
            Sink::Unclaimed => {
                *self.sink.borrow_mut() = Sink::Ended(result.err());
            }
            Sink::Collect { collected, resolver, .. } => {
                resolver.fire(result.map(|()| collected.freeze()).map_err(Failure::from));
            }
            Sink::Pipe { consumer, resolver } => {
                consumer.unregister_producer();
                let total = self.received_bytes.get();
                resolver.fire(result.map(|()| total).map_err(Failure::from));
            }
            Sink::Nobody => {}
            ended @ Sink::Ended(..) => *self.sink.borrow_mut() = ended,
        }
    }

    fn claim(&self, new: Sink) {
        let mut sink = self.sink.borrow_mut();
        match &*sink {
            Sink::Unclaimed => {
                *sink = new;
                drop(sink);
                self.want();
            }
            Sink::Ended(error) => {
                let result = error.map_or(Ok(()), Err);
                *sink = new;
                drop(sink);
                self.settle(result);
            }
            _ => {}
        }
    }

    fn abandon(&self) {
        let sink = mem::replace(&mut *self.sink.borrow_mut(), Sink::Nobody);
        match sink {
            Sink::Collect { resolver, .. } => resolver.errback(CancelledError),
            Sink::Pipe { consumer, resolver } => {
                consumer.unregister_producer();
                resolver.errback(CancelledError);
            }
            Sink::Unclaimed | Sink::Nobody => {}
            ended @ Sink::Ended(_) => *self.sink.borrow_mut() = ended,
        }
        self.want();
    }

    fn want(&self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.body_wanted();
        }
    }
}

impl Producer for Inflow {
    fn pause_producing(&self) {
        self.is_paused.set(true);
    }

    fn resume_producing(&self) {
        if self.is_paused.replace(false) {
            self.want();
        }
    }

    fn stop_producing(&self) {
        let is_pipe = matches!(*self.sink.borrow(), Sink::Pipe { .. });
        if is_pipe {
            self.settle(Err(BodyError::ConsumerStopped));
            self.want();
        }
    }
}
