//! What a peer may ask of us, and for how long. Owns the numbers, not the policing of them.

use std::time::Duration;

/// Longest request or response head in bytes, blank line included. Offsets in a head are 16 bits wide.
pub const HEAD_BYTES_CEILING: usize = u16::MAX as usize;

/// Most header lines one head may have, whatever [`Limits`] says: looking a field up goes through all of them.
pub const HEADER_COUNT_CEILING: usize = 128;

/// Longest method name in bytes. The longest registered one has 17 (`UPDATEREDIRECTREF`).
pub const METHOD_BYTES_MAX: usize = 32;

/// Longest line that announces a chunk, in bytes, extensions included. Nobody we know sends extensions;
/// sixteen digits and some slack are enough.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Most bytes of trailers after a chunked body. They are skipped, so there is no reason to take many.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Bytes that are kept although nobody can use them yet: further requests while one is being answered, a
/// body that nobody has asked for. Then reading stops. One read of the transport can come on top.
pub(crate) const STASH_BYTES_MAX: usize = 16 * 1024;

/// Longest body that is handed over together with its head, without a stream.
pub(crate) const WHOLE_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Most bytes that are thrown away of a body that nobody wants, so that the connection can go on.
pub(crate) const DISCARD_BYTES_MAX: u64 = 256 * 1024;

/// Longest body that is copied behind its head, to be written in one piece with it.
pub(crate) const INLINE_BODY_BYTES_MAX: usize = 8 * 1024;

/// Limits of one side of a connection, for the codec and for the shell around it.
///
/// The defaults are safe on the open internet. Change single fields:
///
/// ```
/// use ropewalk_http::Limits;
///
/// let limits = Limits { body_bytes_max: 50 << 20, ..Limits::default() };
/// assert_eq!(limits.header_count_max, 100);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Longest head in bytes, start line and blank line included; over it a request gets 431.
    /// Values over [`HEAD_BYTES_CEILING`] mean that ceiling.
    pub head_bytes_max: usize,
    /// Most header lines in a head; over it a request gets 431. At most [`HEADER_COUNT_CEILING`].
    pub header_count_max: usize,
    /// Longest request target in bytes; over it a request gets 414.
    pub target_bytes_max: usize,
    /// Longest body in bytes, before any smaller limit that a handler sets. Over it: 413.
    pub body_bytes_max: u64,
    /// Most connections that a server keeps open; further ones are closed as they are accepted.
    pub connections_max: usize,
    /// Time for a whole head, from accepting the connection or from the first byte of a later head.
    pub head_timeout: Duration,
    /// Time that a kept-alive connection may be silent between two messages.
    pub idle_timeout: Duration,
    /// Length of the window in which a body, in either direction, has to advance by
    /// [`progress_bytes_min`](Self::progress_bytes_min).
    pub stall_timeout: Duration,
    /// How far a body has to get in each [`stall_timeout`](Self::stall_timeout), in bytes, unless it ends.
    /// Time in which we ourselves had stopped reading does not count.
    pub progress_bytes_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // Sync filters and signed federation headers are long; twice what the big proxies pass on.
            head_bytes_max: 32 * 1024,
            header_count_max: 100,
            target_bytes_max: 16 * 1024,
            body_bytes_max: 100 << 20,
            // Well under the usual hard descriptor limit (2^20), well over one process's clients.
            connections_max: 100_000,
            head_timeout: Duration::from_secs(30),
            // A little over the 60 s of the usual proxies, so that they, who know more, close first.
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(30),
            // A thirtieth of a kilobyte a second: any modem keeps up, one byte a second does not.
            progress_bytes_min: 1024,
        }
    }
}

impl Limits {
    pub(crate) fn head_bytes(&self) -> usize {
        self.head_bytes_max.min(HEAD_BYTES_CEILING)
    }

    pub(crate) fn header_count(&self) -> usize {
        self.header_count_max.min(HEADER_COUNT_CEILING)
    }
}
