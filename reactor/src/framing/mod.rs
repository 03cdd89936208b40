//! Cutting a stream of bytes into lines or frames, and putting frames on a stream.
//!
//! A **codec** knows a format and nothing else: bytes in, frames out, whatever the pieces in which the
//! bytes come. It owns no socket and reads no clock, so it can be used without a reactor, tested as a
//! table and fuzzed.
//!
//! | codec | a frame is |
//! |---|---|
//! | [`LineCodec`] | what stands before a delimiter, CRLF unless told otherwise; raw bytes in between |
//! | [`LengthPrefixedCodec`] | a length of 1, 2 or 4 bytes, most significant first, and that many bytes |
//! | [`NetstringCodec`] | `5:hello,` |
//!
//! Each has a limit that its maker must name, refuses what is over it as soon as that is known, and
//! never holds more than the limit and what it was fed last.
//!
//! A **shell** puts a codec on a connection: [`LineProtocol`] calls a [`LineReceiver`],
//! [`FrameProtocol`] a [`FrameReceiver`].
//!
//! ```
//! use bytes::Bytes;
//! use ropewalk::framing::{LineProtocol, LineReceiver, LineTransport};
//! use ropewalk::testing::{Clock, MemoryTransport};
//!
//! struct Shouting;
//!
//! impl LineReceiver for Shouting {
//!     fn line_received(&mut self, lines: &LineTransport, line: Bytes) {
//!         // It fails only for a line that has a line's end inside.
//!         let _ = lines.send_line(&line.to_ascii_uppercase());
//!     }
//! }
//!
//! let clock = Clock::new();
//! let memory = MemoryTransport::connect(&clock, LineProtocol::new(1024, Shouting));
//! memory.deliver(b"hello\r\nhow are ");
//! assert_eq!(memory.take_written(), b"HELLO\r\n");
//! memory.deliver(b"you\r\n");
//! assert_eq!(memory.take_written(), b"HOW ARE YOU\r\n");
//! ```

mod length_prefixed;
mod lines;
mod netstring;
mod receivers;
mod shell;

use std::error::Error;

use bytes::{Bytes, BytesMut};

pub use length_prefixed::{LengthPrefix, LengthPrefixError, LengthPrefixedCodec};
pub use lines::{LineCodec, LineError, LineEvent};
pub use netstring::{NetstringCodec, NetstringError};
pub use receivers::{LineProtocol, LineReceiver, LineTransport};
pub use shell::{FrameProtocol, FrameReceiver, FrameTransport};

/// A format that cuts a stream into frames, both ways, without doing any input or output.
///
/// Whoever drives it calls [`feed`](FrameCodec::feed) with whatever has arrived, then
/// [`next_frame`](FrameCodec::next_frame) until that gives `None`, and begins again. It may stop in
/// between and go on later; the codec keeps what it has not given out. After an error the stream has lost
/// its order: the codec drops what it keeps and what it is still fed, and repeats the error. The connection
/// is of no more use.
///
/// ```
/// use ropewalk::framing::{FrameCodec, NetstringCodec, NetstringError};
///
/// let mut codec = NetstringCodec::new(100);
/// let mut frames = Vec::new();
/// for piece in [&b"5:hel"[..], b"lo,3:", b"you,"] {
///     codec.feed(piece);
///     while let Some(frame) = codec.next_frame()? {
///         frames.push(frame);
///     }
/// }
/// assert_eq!(frames, ["hello", "you"]);
/// assert_eq!(codec.pending_bytes(), 0, "nothing is left half-way");
/// # Ok::<(), NetstringError>(())
/// ```
pub trait FrameCodec {
    /// What comes out.
    type Frame;

    /// Why the stream makes no sense, or a frame cannot be sent.
    type Error: Error + Send + Sync + 'static;

    /// Adds bytes as they arrive; any split is fine, one byte at a time included.
    fn feed(&mut self, data: &[u8]);

    /// Returns the next whole frame, or `None` until more bytes are fed.
    ///
    /// # Errors
    ///
    /// The peer has broken the format or passed the limit. It is the same error from then on.
    fn next_frame(&mut self) -> Result<Option<Self::Frame>, Self::Error>;

    /// Whether [`next_frame`](FrameCodec::next_frame) has failed.
    fn has_failed(&self) -> bool;

    /// Returns how many bytes have come that belong to no frame given out yet. At the end of a stream,
    /// more than none means that it was cut off.
    fn pending_bytes(&self) -> usize;

    /// Puts a frame on its way, by calling `write` with one piece of the stream after the other.
    ///
    /// # Errors
    ///
    /// The frame is over the limit, or cannot be told in this format. Nothing was written then.
    fn encode(&self, frame: &[u8], write: impl FnMut(&[u8])) -> Result<(), Self::Error>;
}

/// Takes the first bytes out. When none are left, no memory is kept: most connections are idle.
fn take_front(pending: &mut BytesMut, count: usize) -> Bytes {
    if count == pending.len() {
        return std::mem::take(pending).freeze();
    }
    pending.split_to(count).freeze()
}
