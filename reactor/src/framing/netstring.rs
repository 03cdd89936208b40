//! Netstrings, `5:hello,`: a length in decimal digits, a colon, that many bytes, a comma.

use bytes::{Bytes, BytesMut};

use super::{FrameCodec, take_front};

/// Cuts a stream into [netstrings](https://cr.yp.to/proto/netstrings.txt). Owns no socket, reads no
/// clock.
///
/// Feed it what arrives and ask for frames until there is none; see [`FrameCodec`]. It is strict: no
/// leading zeros, no spaces, so that there is one way to write each frame.
///
/// ```
/// use ropewalk::framing::{FrameCodec, NetstringCodec, NetstringError};
///
/// let mut codec = NetstringCodec::new(1000);
/// codec.feed(b"5:hello,0:,");
/// assert_eq!(codec.next_frame()?.unwrap(), "hello");
/// assert_eq!(codec.next_frame()?.unwrap(), "");
/// assert_eq!(codec.next_frame()?, None);
/// codec.feed(b"4321:");
/// let error = NetstringError::TooLong { announced: 4321, limit: 1000 };
/// assert_eq!(codec.next_frame(), Err(error));
/// # Ok::<(), NetstringError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NetstringCodec {
    pending: BytesMut,
    frame_bytes_max: usize,
    failed: Option<NetstringError>,
}

/// Why a stream of netstrings stopped making sense, or one was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NetstringError {
    /// The length begins with a zero and is not zero.
    #[error("netstring's length begins with a zero")]
    LeadingZero,
    /// What follows the bytes is not a comma.
    #[error("netstring ends with byte 0x{found:02x} instead of a comma")]
    NoComma {
        /// What stands there.
        found: u8,
    },
    /// There is something else where a length should be.
    #[error("netstring's length holds byte 0x{found:02x}, which is neither a digit nor a colon")]
    NotALength {
        /// What stands there.
        found: u8,
    },
    /// The length that the peer announces, or that of a frame to be sent, is over the limit.
    #[error("netstring has {announced} bytes or more but the limit is {limit}")]
    TooLong {
        /// The length in bytes, or the first digits of it that were too many.
        announced: usize,
        /// How long one may be, in bytes.
        limit: usize,
    },
}

impl NetstringCodec {
    /// Makes a codec for netstrings that hold at most `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> NetstringCodec {
        NetstringCodec { pending: BytesMut::new(), frame_bytes_max, failed: None }
    }

    /// Reads the length of the first netstring and returns it with the number of its digits, `None` if
    /// its colon has not come.
    fn announced(&self) -> Result<Option<(usize, usize)>, NetstringError> {
        let limit = self.frame_bytes_max;
        let mut announced = 0_usize;
        for (index, &byte) in self.pending.iter().enumerate() {
            match byte {
                b'0'..=b'9' if index > 0 && announced == 0 => {
                    return Err(NetstringError::LeadingZero);
                }
                b'0'..=b'9' => {
                    // Saturated, it is over every limit but the one that no frame can reach.
                    announced = announced.saturating_mul(10).saturating_add((byte - b'0').into());
                    if announced > limit {
                        return Err(NetstringError::TooLong { announced, limit });
                    }
                }
                b':' if index > 0 => return Ok(Some((announced, index))),
                found => return Err(NetstringError::NotALength { found }),
            }
        }
        Ok(None)
    }

    fn cut(&mut self) -> Result<Option<Bytes>, NetstringError> {
        let Some((frame_bytes, digits)) = self.announced()? else { return Ok(None) };
        let body = &self.pending[digits + 1..];
        let Some(&found) = body.get(frame_bytes) else { return Ok(None) };
        if found != b',' {
            return Err(NetstringError::NoComma { found });
        }
        let mut whole = take_front(&mut self.pending, digits + 1 + frame_bytes + 1);
        whole.truncate(digits + 1 + frame_bytes);
        Ok(Some(whole.split_off(digits + 1)))
    }
}

impl FrameCodec for NetstringCodec {
    type Frame = Bytes;
    type Error = NetstringError;

    fn feed(&mut self, data: &[u8]) {
        if self.failed.is_none() {
            self.pending.extend_from_slice(data);
        }
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, NetstringError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let frame = self.cut();
        if let Err(error) = &frame {
            self.failed = Some(*error);
            self.pending = BytesMut::new();
        }
        frame
    }

    fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    fn encode(&self, frame: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), NetstringError> {
        if frame.len() > self.frame_bytes_max {
            let (announced, limit) = (frame.len(), self.frame_bytes_max);
            return Err(NetstringError::TooLong { announced, limit });
        }
        write(format!("{}:", frame.len()).as_bytes());
        write(frame);
        write(b",");
        Ok(())
    }
}
