//! Bodies that are sent: whole ones, and streams that a producer writes at the peer's pace.

use std::cell::Cell;
use std::fmt;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use ropewalk::{Consumer, Producer, Streaming, Transport};

use crate::chunked::{ChunkHeader, LAST_CHUNK};
use crate::framing::BodyLength;

/// The body of a message to be sent.
pub(crate) enum OutgoingBody {
    Stream { length: Option<u64>, start: Box<dyn FnOnce(BodyWriter)> },
    Whole(Bytes),
}

impl fmt::Debug for OutgoingBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutgoingBody::Stream { length, .. } => write!(formatter, "Stream({length:?})"),
            OutgoingBody::Whole(bytes) => write!(formatter, "Whole({} bytes)", bytes.len()),
        }
    }
}

/// What a connection wants to hear of the body that somebody writes to it.
pub(crate) trait WriterOwner {
    /// So many bytes have been written, framing included.
    fn body_wrote(&self, bytes: usize);
    /// The body is over; the connection cannot be used any longer unless it is complete.
    fn body_finished(&self, exchange: u64, is_complete: bool);
}

/// Takes the bytes of a streamed body and frames them.
///
/// It is a [`Consumer`]: register a push producer, which is paused while the peer takes too little, or a pull
/// producer, which is asked for one piece at a time. Writing without either is possible, and is
/// kept in memory. At the end call [`finish`](Self::finish). A writer that is dropped without it breaks the
/// connection, so that the peer does not take the part for the whole.
pub struct BodyWriter {
    transport: Transport,
    framing: Cell<Framing>,
    owner: Weak<dyn WriterOwner>,
    exchange: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Chunked,
    Done,
    Exact { remaining: u64 },
    UntilClose,
}

impl BodyWriter {
    pub(crate) fn new(
        transport: Transport,
        length: BodyLength,
        owner: Weak<dyn WriterOwner>,
        exchange: u64,
    ) -> Self {
        let framing = match length {
            BodyLength::Chunked => Framing::Chunked,
            BodyLength::Exact(remaining) => Framing::Exact { remaining },
            BodyLength::UntilClose => Framing::UntilClose,
        };
        BodyWriter { transport, framing: Cell::new(framing), owner, exchange }
    }

    /// Returns whether anybody is there to read what is written.
    pub fn is_connected(&self) -> bool {
        self.framing.get() != Framing::Done && self.transport.is_connected()
    }

    /// Completes the body and unregisters the producer. Calling it again does nothing.
    ///
    /// If the announced length has not been reached, the connection is broken off: that is the only way
    /// left to tell the peer.
    pub fn finish(&self) {
        match self.framing.replace(Framing::Done) {
            Framing::Done => {}
            Framing::Chunked => {
                self.transport.write(LAST_CHUNK);
                self.end(LAST_CHUNK.len(), true);
            }
            Framing::Exact { remaining: 0 } | Framing::UntilClose => self.end(0, true),
            Framing::Exact { remaining } => {
                log::error!("streamed body ended {remaining} bytes before its announced length");
                self.end(0, false);
            }
        }
    }

    fn end(&self, bytes: usize, is_complete: bool) {
        self.transport.unregister_producer();
        match self.owner.upgrade() {
            Some(owner) => {
                owner.body_wrote(bytes);
                owner.body_finished(self.exchange, is_complete);
            }
            None => self.transport.abort_connection(),
        }
    }
}

impl Consumer for BodyWriter {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        if self.framing.get() == Framing::Done {
            producer.stop_producing();
        } else {
            self.transport.register_producer(producer, streaming);
        }
    }

    fn unregister_producer(&self) {
        if self.framing.get() != Framing::Done {
            self.transport.unregister_producer();
        }
    }

    fn write(&self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let framed_bytes = match self.framing.get() {
            Framing::Done => return,
            Framing::Chunked => {
                let header = ChunkHeader::new(data.len());
                self.transport.write(header.as_bytes());
                self.transport.write(data);
                self.transport.write(b"\r\n");
                header.as_bytes().len() + data.len() + 2
            }
            Framing::Exact { remaining } => {
                let Some(remaining) = remaining.checked_sub(data.len() as u64) else {
                    log::error!("streamed body is longer than its announced length");
                    self.framing.set(Framing::Done);
                    return self.end(0, false);
                };
                self.framing.set(Framing::Exact { remaining });
                self.transport.write(data);
                data.len()
            }
            Framing::UntilClose => {
                self.transport.write(data);
                data.len()
            }
        };
        if let Some(owner) = self.owner.upgrade() {
            owner.body_wrote(framed_bytes);
        }
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if self.framing.replace(Framing::Done) != Framing::Done {
            self.end(0, false);
        }
    }
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BodyWriter")
            .field("framing", &self.framing.get())
            .field("is_connected", &self.is_connected())
            .finish()
    }
}
