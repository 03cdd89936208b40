//! What lies between a connection's protocol and the task that reads and writes it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use crate::flow::{Producer, Streaming};
use crate::protocol::{ConnectionLost, Protocol};
use crate::transport::Transport;

/// One connection, as its reader and writer see it.
#[derive(Default)]
pub(super) struct Wire {
    /// None before the connection is made, and after its end.
    transport: RefCell<Option<Transport>>,
    incoming: RefCell<BytesMut>,
    /// The peer has finished sending.
    is_finished: Cell<bool>,
    end: RefCell<Option<End>>,
    /// Too much is waiting to be read.
    is_reading_paused: Cell<bool>,
    /// Too much is waiting to be sent.
    is_writing_paused: Cell<bool>,
    /// This side has finished sending.
    is_closed: Cell<bool>,
    /// Nobody is there any more to read or write.
    is_abandoned: Cell<bool>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

enum End {
    Lost(ConnectionLost),
    /// The connection was never made.
    NeverMade,
}

impl End {
    fn error(&self) -> io::Error {
        let End::Lost(reason) = self else {
            return io::Error::new(io::ErrorKind::NotConnected, "the connection was not made");
        };
        let kind = match reason {
            ConnectionLost::Done => io::ErrorKind::BrokenPipe,
            ConnectionLost::Failed(error) => error.kind(),
            ConnectionLost::Tls(_) => io::ErrorKind::InvalidData,
            ConnectionLost::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, reason.clone())
    }
}

// Reading.

impl Wire {
    /// Shows the reader what has arrived. Ready with `None` at the peer's end.
    pub(super) fn poll_incoming<T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut BytesMut) -> T,
    ) -> Poll<Option<io::Result<T>>> {
        let mut incoming = self.incoming.borrow_mut();
        if !incoming.is_empty() {
            let taken = take(&mut incoming);
            let left = incoming.len();
            if left == 0 {
                // An idle connection owns no buffer.
                *incoming = BytesMut::new();
            }
            drop(incoming);
            self.resume_reading(left);
            return Poll::Ready(Some(Ok(taken)));
        }
        if self.is_finished.get() {
            return Poll::Ready(None);
        }
        match &*self.end.borrow() {
            Some(End::Lost(ConnectionLost::Done)) => Poll::Ready(None),
            Some(end) => Poll::Ready(Some(Err(end.error()))),
            None => {
                self.reader.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn resume_reading(&self, left_bytes: usize) {
        if left_bytes <= READ_LOW_BYTES
            && self.is_reading_paused.replace(false)
            && let Some(transport) = &*self.transport.borrow()
        {
            transport.resume_producing();
        }
    }

    fn receive(&self, transport: &Transport, data: &[u8]) {
        let mut incoming = self.incoming.borrow_mut();
        incoming.extend_from_slice(data);
        if incoming.len() >= READ_HIGH_BYTES && !self.is_reading_paused.replace(true) {
            transport.pause_producing();
        }
        drop(incoming);
        self.wake_reader();
    }

    fn wake_reader(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

// Writing.

impl Wire {
    /// Calls `write` once there is room for more.
    pub(super) fn poll_outgoing<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&Transport) -> T,
    ) -> Poll<io::Result<T>> {
        self.check_writable()?;
        let transport = self.transport.borrow();
        match &*transport {
            // The transport tells of a pause only after the current callback has returned.
            Some(transport)
                if !self.is_writing_paused.get()
                    && transport.buffered_bytes() <= WRITE_HIGH_BYTES =>
            {
                Poll::Ready(Ok(write(transport)))
            }
            _ => {
                self.writer.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    pub(super) fn check_writable(&self) -> io::Result<()> {
        if self.is_closed.get() {
            let why = "this side has closed the stream already";
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, why));
        }
        self.end.borrow().as_ref().map_or(Ok(()), |end| Err(end.error()))
    }

    /// What was written lies in the transport, unless the connection broke.
    pub(super) fn check_flushed(&self) -> io::Result<()> {
        match &*self.end.borrow() {
            None | Some(End::Lost(ConnectionLost::Done)) => Ok(()),
            Some(end) => Err(end.error()),
        }
    }

    /// Finishes sending, once there is something to finish.
    pub(super) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed.get() {
            return Poll::Ready(Ok(()));
        }
        match (&*self.transport.borrow(), &*self.end.borrow()) {
            (_, Some(End::Lost(ConnectionLost::Done))) => {}
            (_, Some(end)) => return Poll::Ready(Err(end.error())),
            (Some(transport), None) => {
                transport.unregister_producer();
                transport.lose_write_connection();
            }
            (None, None) => {
                self.writer.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
        }
        self.is_closed.set(true);
        Poll::Ready(Ok(()))
    }

    fn wake_writer(&self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

// Steered from this side.

impl Wire {
    pub(super) fn transport(&self) -> Option<Transport> {
        self.transport.borrow().clone()
    }

    /// Nobody reads or writes any more: what was written is sent, and the connection closed.
    pub(super) fn abandon(&self) {
        self.is_abandoned.set(true);
        let incoming = self.incoming.take();
        drop(incoming);
        if let Some(transport) = self.transport() {
            transport.unregister_producer();
            transport.lose_connection();
        }
    }

    fn come_to_end(&self, end: End) {
        self.end.replace(Some(end));
        // It owns the protocol, which owns this.
        let transport = self.transport.take();
        drop(transport);
        self.wake_reader();
        self.wake_writer();
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("transport", &self.transport.borrow())
            .field("unread_bytes", &self.incoming.borrow().len())
            .finish()
    }
}

/// The connection's own end of the wire.
pub(super) struct WireProtocol(pub(super) Rc<Wire>);

impl Protocol for WireProtocol {
    fn connection_made(&mut self, transport: &Transport) {
        let wire = &self.0;
        if wire.is_abandoned.get() {
            return transport.lose_connection();
        }
        transport.set_watermarks(WRITE_HIGH_BYTES, WRITE_LOW_BYTES);
        transport.register_producer(Rc::new(Writer(Rc::clone(wire))), Streaming::Push);
        wire.transport.replace(Some(transport.clone()));
        wire.wake_writer();
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        if !self.0.is_abandoned.get() {
            self.0.receive(transport, data);
        }
    }

    /// The task may have something left to say.
    fn read_connection_lost(&mut self, transport: &Transport) {
        self.0.is_finished.set(true);
        self.0.wake_reader();
        if self.0.is_abandoned.get() {
            transport.lose_connection();
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.0.come_to_end(End::Lost(reason));
    }
}

impl Drop for WireProtocol {
    fn drop(&mut self) {
        if self.0.end.borrow().is_none() {
            self.0.come_to_end(End::NeverMade);
        }
    }
}

/// Hears when there is room for more to be sent.
struct Writer(Rc<Wire>);

impl Producer for Writer {
    fn pause_producing(&self) {
        self.0.is_writing_paused.set(true);
    }

    fn resume_producing(&self) {
        self.0.is_writing_paused.set(false);
        self.0.wake_writer();
    }

    fn stop_producing(&self) {
        self.0.wake_writer();
    }
}

/// Unread bytes from here on pause the reading. One more read may have been under way by then.
const READ_HIGH_BYTES: usize = 64 * 1024;

/// So few unread bytes resume it: the rest is read while more is on its way.
const READ_LOW_BYTES: usize = 16 * 1024;

/// More unsent bytes than this make writers wait.
const WRITE_HIGH_BYTES: usize = 64 * 1024;

/// So few let them go on: enough to keep the network busy until they have.
const WRITE_LOW_BYTES: usize = 16 * 1024;
