//! Frames behind their length: 1, 2 or 4 bytes, most significant first.

use bytes::{Bytes, BytesMut};

use super::{FrameCodec, take_front};

/// Cuts a stream into frames that stand behind their length. Owns no socket, reads no clock.
///
/// Feed it what arrives and ask for frames until there is none; see [`FrameCodec`].
///
/// ```
/// use ropewalk::framing::{FrameCodec, LengthPrefix, LengthPrefixError, LengthPrefixedCodec};
///
/// let mut codec = LengthPrefixedCodec::new(LengthPrefix::U16, 1000);
/// let mut stream = Vec::new();
/// codec.encode(b"hello", |piece| stream.extend_from_slice(piece))?;
/// assert_eq!(stream, b"\x00\x05hello");
/// codec.feed(&stream[..3]);
/// assert_eq!(codec.next_frame()?, None);
/// codec.feed(&stream[3..]);
/// assert_eq!(codec.next_frame()?.unwrap(), "hello");
/// # Ok::<(), LengthPrefixError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LengthPrefixedCodec {
    pending: BytesMut,
    prefix: LengthPrefix,
    frame_bytes_max: u32,
    failed: Option<LengthPrefixError>,
}

/// How the length before a frame is told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LengthPrefix {
    /// One byte, for frames of up to 255 bytes.
    U8,
    /// Two bytes, for frames of up to 65,535 bytes.
    U16,
    /// Four bytes.
    U32,
}

/// Why a stream of frames behind their length stopped making sense, or a frame was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LengthPrefixError {
    /// The length that the peer announces, or that of a frame to be sent, is over the limit.
    #[error("frame has {announced} bytes but the limit is {limit}")]
    TooLong {
        /// The frame's length in bytes.
        announced: u64,
        /// How long a frame may be, in bytes.
        limit: u32,
    },
}

impl LengthPrefix {
    /// Returns how many bytes the length takes.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            LengthPrefix::U8 => 1,
            LengthPrefix::U16 => 2,
            LengthPrefix::U32 => 4,
        }
    }

    /// Returns the greatest length that it can tell.
    #[must_use]
    pub const fn length_max(self) -> u32 {
        match self {
            LengthPrefix::U8 => u8::MAX as u32,
            LengthPrefix::U16 => u16::MAX as u32,
            LengthPrefix::U32 => u32::MAX,
        }
    }
}

impl LengthPrefixedCodec {
    /// Makes a codec for frames of at most `frame_bytes_max` bytes, prefix not counted. What the prefix
    /// cannot tell is over the limit, too.
    #[must_use]
    pub fn new(prefix: LengthPrefix, frame_bytes_max: u32) -> LengthPrefixedCodec {
        LengthPrefixedCodec {
            pending: BytesMut::new(),
            prefix,
            frame_bytes_max: frame_bytes_max.min(prefix.length_max()),
            failed: None,
        }
    }

    /// Reads the length of the first frame, once all of it is there.
    fn announced(&self) -> Option<u32> {
        let pending = &self.pending[..];
        match self.prefix {
            LengthPrefix::U8 => pending.first().map(|&byte| byte.into()),
            LengthPrefix::U16 => pending.first_chunk().map(|&head| u16::from_be_bytes(head).into()),
            LengthPrefix::U32 => pending.first_chunk().map(|&head| u32::from_be_bytes(head)),
        }
    }
}

impl FrameCodec for LengthPrefixedCodec {
    type Frame = Bytes;
    type Error = LengthPrefixError;

    fn feed(&mut self, data: &[u8]) {
        if self.failed.is_none() {
            self.pending.extend_from_slice(data);
        }
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, LengthPrefixError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(announced) = self.announced() else { return Ok(None) };
        if announced > self.frame_bytes_max {
            let limit = self.frame_bytes_max;
            let error = LengthPrefixError::TooLong { announced: announced.into(), limit };
            self.failed = Some(error);
            self.pending = BytesMut::new();
            return Err(error);
        }
        let width = self.prefix.width();
        let frame_bytes = announced as usize;
        // Compared this way round because the sum might not fit on a small machine.
        if self.pending.len() - width < frame_bytes {
            return Ok(None);
        }
        Ok(Some(take_front(&mut self.pending, width + frame_bytes).split_off(width)))
    }

    fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    fn encode(&self, frame: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), LengthPrefixError> {
        let limit = self.frame_bytes_max;
        let length = match u32::try_from(frame.len()) {
            Ok(length) if length <= limit => length,
            _ => {
                let announced = frame.len() as u64;
                return Err(LengthPrefixError::TooLong { announced, limit });
            }
        };
        write(&length.to_be_bytes()[4 - self.prefix.width()..]);
        write(frame);
        Ok(())
    }
}
