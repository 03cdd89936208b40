//! Lines on a connection: [`LineProtocol`] calls a [`LineReceiver`], with raw mode.

use bytes::Bytes;

use super::{FrameProtocol, FrameReceiver, FrameTransport, LineCodec, LineError, LineEvent};
use crate::protocol::{ConnectionLost, Protocol};
use crate::transport::Transport;

/// What to do with the lines that arrive on one connection.
///
/// The calls come in the order of [`Protocol`]'s and never nest. Pausing the transport inside
/// [`line_received`](LineReceiver::line_received) holds back the lines that have arrived already, until it is
/// resumed; after [`lose_connection`](Transport::lose_connection) no further line is delivered.
pub trait LineReceiver {
    /// The connection stands. The handle may be kept: it is a cheap clone.
    fn connection_made(&mut self, lines: &LineTransport) {
        let _ = lines;
    }

    /// A line has arrived; it comes without its delimiter.
    fn line_received(&mut self, lines: &LineTransport, line: Bytes);

    /// Some bytes have arrived in [raw mode](LineTransport::set_raw_mode). Where one piece ends and the next
    /// begins means nothing.
    ///
    /// Unless this is overridden, they are thrown away.
    fn raw_data_received(&mut self, lines: &LineTransport, data: Bytes) {
        let _ = (lines, data);
    }

    /// The peer has sent too long a line.
    ///
    /// Unless this is overridden, the connection is closed and a debug line says why. To go on, call
    /// [`skip_line`](LineTransport::skip_line).
    fn line_length_exceeded(&mut self, lines: &LineTransport, error: LineError) {
        let transport = lines.transport();
        log::debug!("closing the connection to {}: {error}", transport.peer());
        transport.lose_connection();
    }

    /// The peer has finished sending but can still receive. A last line without delimiter can be had from
    /// [`take_pending`](LineTransport::take_pending).
    ///
    /// Unless this is overridden, what was written goes out and the connection is closed.
    fn read_connection_lost(&mut self, lines: &LineTransport) {
        lines.transport().lose_connection();
    }

    /// The connection is gone. Nothing is called on this receiver any more; it is dropped next.
    fn connection_lost(&mut self, reason: ConnectionLost) {
        let _ = reason;
    }
}

/// A connection as lines see it: a cheap clone, whoever holds it.
pub type LineTransport = FrameTransport<LineCodec>;

impl LineTransport {
    /// Sends a copy of this line and its delimiter.
    ///
    /// # Errors
    ///
    /// [`LineError`], if it is too long or holds its own delimiter; nothing was sent then.
    pub fn send_line(&self, line: &[u8]) -> Result<(), LineError> {
        self.send_frame(line)
    }

    /// From now on, what comes behind the current line is given to
    /// [`raw_data_received`](LineReceiver::raw_data_received).
    pub fn set_raw_mode(&self) {
        self.with_codec(LineCodec::set_raw_mode);
    }

    /// Goes back to lines. `extra` is what has been received in raw mode but belongs to lines already; it is
    /// delivered soon, not from inside this call.
    pub fn set_line_mode(&self, extra: &[u8]) {
        self.with_codec(|codec| codec.set_line_mode(extra));
    }

    /// In [`line_length_exceeded`](LineReceiver::line_length_exceeded): throws away the rest of the line that
    /// is too long, and goes on with the next one.
    pub fn skip_line(&self) {
        self.with_codec(LineCodec::skip_line);
    }

    /// Takes out what has come of a line that has not ended.
    #[must_use]
    pub fn take_pending(&self) -> Bytes {
        self.with_codec(LineCodec::take_pending)
    }
}

/// A [`Protocol`] that cuts what arrives into lines and calls a receiver for each.
///
/// See [the module](super) for an example.
#[derive(Debug)]
pub struct LineProtocol<R>(FrameProtocol<LineCodec, Lines<R>>);

impl<R: LineReceiver> LineProtocol<R> {
    /// Makes a protocol for lines of at most `line_bytes_max` bytes that end with CRLF.
    #[must_use]
    pub fn new(line_bytes_max: usize, receiver: R) -> LineProtocol<R> {
        LineProtocol::with_codec(LineCodec::new(line_bytes_max), receiver)
    }

    /// Makes a protocol for the kind of lines that this codec cuts.
    #[must_use]
    pub fn with_codec(codec: LineCodec, receiver: R) -> LineProtocol<R> {
        LineProtocol(FrameProtocol::new(codec, Lines(receiver)))
    }
}

impl<R: LineReceiver> Protocol for LineProtocol<R> {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.0.data_received(transport, data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.0.read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.0.connection_lost(reason);
    }
}

/// A line receiver seen as a receiver of frames.
#[derive(Debug)]
struct Lines<R>(R);

impl<R: LineReceiver> FrameReceiver<LineCodec> for Lines<R> {
    fn connection_made(&mut self, lines: &LineTransport) {
        self.0.connection_made(lines);
    }

    fn frame_received(&mut self, lines: &LineTransport, event: LineEvent) {
        match event {
            LineEvent::Line(line) => self.0.line_received(lines, line),
            LineEvent::Raw(data) => self.0.raw_data_received(lines, data),
        }
    }

    fn decoding_failed(&mut self, lines: &LineTransport, error: LineError) {
        self.0.line_length_exceeded(lines, error);
    }

    fn read_connection_lost(&mut self, lines: &LineTransport) {
        self.0.read_connection_lost(lines);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.0.connection_lost(reason);
    }
}
