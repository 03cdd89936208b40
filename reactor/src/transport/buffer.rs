//! Bytes on their way out of one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::stream::Stream;

/// What was written and not yet handed to the system, oldest first.
///
/// Small writes are copied behind each other; a large [`Bytes`] is kept as it is. A connection with
/// nothing to send owns no memory: its buffer goes back to the reactor's [`Spares`].
pub(crate) struct Outbound {
    /// The oldest bytes, from `sent` on. Everything, as long as nothing large was written.
    head: Vec<u8>,
    sent: usize,
    /// What follows `head`.
    rest: VecDeque<Chunk>,
    /// Bytes in `head` (unsent ones only) and `rest`.
    len: usize,
}

enum Chunk {
    Copied(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Copied(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }
}

impl Outbound {
    pub(crate) fn new() -> Outbound {
        Outbound { head: Vec::new(), sent: 0, rest: VecDeque::new(), len: 0 }
    }

    /// Appends a copy, in `head` if nothing stands behind that.
    #[inline]
    pub(crate) fn push_copy(&mut self, data: &[u8]) {
        self.len += data.len();
        if self.rest.is_empty() {
            self.head.extend_from_slice(data);
        } else {
            self.push_copy_behind(data);
        }
    }

    fn push_copy_behind(&mut self, data: &[u8]) {
        match self.rest.back_mut() {
            Some(Chunk::Copied(bytes)) if bytes.len() < CHUNK_BYTES => {
                bytes.extend_from_slice(data);
            }
            _ => self.rest.push_back(Chunk::Copied(data.to_vec())),
        }
    }

    /// Appends without copying, unless copying is the cheaper way.
    pub(crate) fn push_shared(&mut self, data: Bytes) {
        if data.len() < SHARED_BYTES_MIN {
            self.push_copy(&data);
        } else {
            self.len += data.len();
            self.rest.push_back(Chunk::Shared(data));
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Hands as much to the stream as it takes in one system call, and forgets that much.
    #[inline]
    pub(crate) fn send(&mut self, stream: &Stream) -> io::Result<usize> {
        let count = if self.rest.is_empty() {
            stream.write(&self.head[self.sent..])?
        } else {
            self.send_gathered(stream)?
        };
        self.consume(count);
        Ok(count)
    }

    fn send_gathered(&self, stream: &Stream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_CALL];
        let mut used = 0;
        for slice in self.slices().take(SLICES_PER_CALL) {
            slices[used] = IoSlice::new(slice);
            used += 1;
        }
        stream.write_vectored(&slices[..used])
    }

    /// Returns the oldest bytes that lie in one piece.
    #[cfg_attr(not(test), expect(dead_code, reason = "TLS, which needs it, lands next"))]
    pub(crate) fn front(&self) -> &[u8] {
        self.slices().next().unwrap_or_default()
    }

    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let head = &self.head[self.sent..];
        let rest = self.rest.iter().map(Chunk::as_slice);
        std::iter::once(head).chain(rest).filter(|slice| !slice.is_empty())
    }

    /// Forgets the oldest `count` bytes.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len, "only what is there can have been sent");
        self.len -= count;
        let head_left = self.head.len() - self.sent;
        if count < head_left {
            self.sent += count;
            return;
        }
        self.head.clear();
        self.sent = 0;
        if !self.rest.is_empty() {
            self.consume_rest(count - head_left);
        }
    }

    fn consume_rest(&mut self, mut count: usize) {
        while let Some(chunk) = self.rest.front_mut() {
            let length = chunk.as_slice().len();
            if count < length {
                match chunk {
                    Chunk::Shared(bytes) => drop(bytes.split_to(count)),
                    // It becomes the head, which knows how much of it was sent.
                    Chunk::Copied(bytes) => {
                        self.head = std::mem::take(bytes);
                        self.sent = count;
                        self.rest.pop_front();
                    }
                }
                return;
            }
            count -= length;
            self.rest.pop_front();
        }
        self.rest = VecDeque::new();
    }

    /// Takes a spare buffer, if this one has no memory and needs some.
    #[inline]
    pub(crate) fn borrow_memory(&mut self, spares: &mut Spares) {
        if self.head.capacity() == 0
            && let Some(spare) = spares.0.pop()
        {
            self.head = spare;
        }
    }

    /// Gives the memory of an empty buffer back.
    #[inline]
    pub(crate) fn return_memory(&mut self, spares: &mut Spares) {
        debug_assert!(self.is_empty());
        let memory = std::mem::take(&mut self.head);
        if memory.capacity() <= SPARE_BYTES_MAX && spares.0.len() < SPARES_MAX {
            spares.0.push(memory);
        }
    }
}

/// Buffers that some connection has emptied and another will fill.
#[derive(Default)]
pub(crate) struct Spares(Vec<Vec<u8>>);

/// A copied chunk this long is closed, so that appending never moves more than this.
const CHUNK_BYTES: usize = 64 * 1024;

/// Below this, a copy is cheaper than a slice of its own in the system call.
const SHARED_BYTES_MIN: usize = 4 * 1024;

/// Slices handed over in one call. The system's own limit is 1,024; beyond a few dozen the call
/// itself has long been paid for.
const SLICES_PER_CALL: usize = 32;

/// Spare buffers kept: as many as connections are flushed in a busy turn.
const SPARES_MAX: usize = 64;

/// Buffers that have grown beyond this are not kept: one burst must not cost memory for ever.
const SPARE_BYTES_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(out: &Outbound) -> Vec<u8> {
        out.slices().flatten().copied().collect()
    }

    proptest! {
        #[test]
        fn any_sequence_of_writes_and_sends_keeps_the_bytes_in_order(
            steps in prop::collection::vec((any::<bool>(), 0usize..9000, 0usize..20_000), 1..40),
        ) {
            let mut out = Outbound::new();
            let mut model = Vec::new();
            for (number, (is_shared, length, count)) in steps.into_iter().enumerate() {
                let data = vec![number as u8; length];
                model.extend_from_slice(&data);
                if is_shared {
                    out.push_shared(Bytes::from(data));
                } else {
                    out.push_copy(&data);
                }
                let count = count.min(model.len());
                out.consume(count);
                model.drain(..count);
                prop_assert_eq!(out.len(), model.len());
                prop_assert_eq!(out.front().is_empty(), model.is_empty());
                prop_assert_eq!(&contents(&out), &model);
            }
        }
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back_and_takes_it_again() {
        let mut spares = Spares::default();
        let mut out = Outbound::new();
        out.push_copy(b"abc");
        out.consume(3);
        out.return_memory(&mut spares);
        assert_eq!(out.head.capacity(), 0);
        assert_eq!(spares.0.len(), 1);
        out.borrow_memory(&mut spares);
        assert!(out.head.capacity() >= 3);
        assert!(spares.0.is_empty());
    }
}
