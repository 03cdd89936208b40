//! A codec on a connection: [`FrameProtocol`] feeds it, and calls a [`FrameReceiver`] for each frame.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::FrameCodec;
use crate::protocol::{ConnectionLost, Protocol};
use crate::transport::Transport;

/// What to do with the frames that arrive on one connection.
///
/// The calls come in the order of [`Protocol`]'s and never nest. Pausing the transport inside
/// [`frame_received`](FrameReceiver::frame_received) holds back the frames that have arrived already, until
/// it is resumed; after [`lose_connection`](Transport::lose_connection) no further frame is delivered.
pub trait FrameReceiver<C: FrameCodec> {
    /// The connection stands. The handle may be kept: it is a cheap clone.
    fn connection_made(&mut self, frames: &FrameTransport<C>) {
        let _ = frames;
    }

    /// A whole frame has arrived.
    fn frame_received(&mut self, frames: &FrameTransport<C>, frame: C::Frame);

    /// The peer has broken the format or passed the limit; no frame follows.
    ///
    /// Unless this is overridden, the connection is closed and a debug line says why.
    fn decoding_failed(&mut self, frames: &FrameTransport<C>, error: C::Error) {
        let transport = frames.transport();
        log::debug!("closing the connection to {}: {error}", transport.peer());
        transport.lose_connection();
    }

    /// The peer has finished sending but can still receive. If [bytes are
    /// pending](FrameTransport::pending_bytes), it was cut off in the middle of a frame.
    ///
    /// Unless this is overridden, what was written goes out and the connection is closed.
    fn read_connection_lost(&mut self, frames: &FrameTransport<C>) {
        frames.transport().lose_connection();
    }

    /// The connection is gone. Nothing is called on this receiver any more; it is dropped next.
    fn connection_lost(&mut self, reason: ConnectionLost) {
        let _ = reason;
    }
}

/// A connection as frames see it: a cheap clone, whoever holds it.
pub struct FrameTransport<C> {
    transport: Transport,
    shared: Rc<Shared<C>>,
}

/// What a protocol and its handles have in common.
#[derive(Debug)]
struct Shared<C> {
    codec: RefCell<C>,
    /// The receiver is being called; what is left is looked at when it returns.
    is_delivering: Cell<bool>,
}

impl<C: FrameCodec> FrameTransport<C> {
    /// Sends a copy of this frame.
    ///
    /// # Errors
    ///
    /// The codec's, for a frame that is over the limit or cannot be told; nothing was sent then.
    pub fn send_frame(&self, frame: &[u8]) -> Result<(), C::Error> {
        self.shared.codec.borrow().encode(frame, |piece| self.transport.write(piece))
    }

    /// Returns the transport, to close or pause it, or to register a producer.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Returns how many bytes have come that belong to no frame delivered yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.shared.codec.borrow().pending_bytes()
    }

    /// Changes the codec, and has what it holds delivered soon if that makes whole frames of it.
    pub(super) fn with_codec<T>(&self, f: impl FnOnce(&mut C) -> T) -> T {
        let result = f(&mut self.shared.codec.borrow_mut());
        if self.pending_bytes() > 0 && !self.shared.is_delivering.get() {
            self.transport.deliver_again();
        }
        result
    }
}

impl<C> Clone for FrameTransport<C> {
    fn clone(&self) -> Self {
        FrameTransport { transport: self.transport.clone(), shared: Rc::clone(&self.shared) }
    }
}

impl<C> fmt::Debug for FrameTransport<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameTransport").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// A [`Protocol`] that cuts what arrives into frames and calls a receiver for each.
///
/// ```
/// use bytes::Bytes;
/// use ropewalk::framing::{FrameProtocol, FrameReceiver, FrameTransport, NetstringCodec};
/// use ropewalk::testing::{Clock, MemoryTransport};
///
/// struct Echo;
///
/// impl FrameReceiver<NetstringCodec> for Echo {
///     fn frame_received(&mut self, frames: &FrameTransport<NetstringCodec>, frame: Bytes) {
///         frames.send_frame(&frame).expect("what was within the limit on its way in");
///     }
/// }
///
/// let clock = Clock::new();
/// let protocol = FrameProtocol::new(NetstringCodec::new(1024), Echo);
/// let memory = MemoryTransport::connect(&clock, protocol);
/// memory.deliver(b"5:hello,3:y");
/// assert_eq!(memory.take_written(), b"5:hello,");
/// ```
#[derive(Debug)]
pub struct FrameProtocol<C, R> {
    shared: Rc<Shared<C>>,
    receiver: R,
}

impl<C: FrameCodec, R: FrameReceiver<C>> FrameProtocol<C, R> {
    /// Puts a receiver behind a codec.
    #[must_use]
    pub fn new(codec: C, receiver: R) -> FrameProtocol<C, R> {
        let shared = Shared { codec: RefCell::new(codec), is_delivering: Cell::new(false) };
        FrameProtocol { shared: Rc::new(shared), receiver }
    }

    /// Delivers what is whole, until the receiver has had enough.
    fn deliver(&mut self, frames: &FrameTransport<C>) {
        while frames.transport.is_delivering() {
            let next = self.shared.codec.borrow_mut().next_frame();
            match next {
                Ok(Some(frame)) => self.receiver.frame_received(frames, frame),
                Ok(None) => return,
                Err(error) => {
                    self.receiver.decoding_failed(frames, error);
                    if self.shared.codec.borrow().has_failed() {
                        return;
                    }
                }
            }
        }
        // Paused, most likely: the rest comes when it goes on.
        frames.transport.deliver_again();
    }

    fn frames(&self, transport: &Transport) -> FrameTransport<C> {
        FrameTransport { transport: transport.clone(), shared: Rc::clone(&self.shared) }
    }
}

impl<C: FrameCodec, R: FrameReceiver<C>> Protocol for FrameProtocol<C, R> {
    fn connection_made(&mut self, transport: &Transport) {
        let frames = self.frames(transport);
        self.receiver.connection_made(&frames);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        // It has been told of the failure once, and did not want to hear more.
        if self.shared.codec.borrow().has_failed() {
            return;
        }
        let frames = self.frames(transport);
        self.shared.codec.borrow_mut().feed(data);
        self.shared.is_delivering.set(true);
        self.deliver(&frames);
        self.shared.is_delivering.set(false);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        let frames = self.frames(transport);
        self.receiver.read_connection_lost(&frames);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.receiver.connection_lost(reason);
    }
}
