//! Bytes of one connection that the system would not take yet, or that are too many to gather.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::stream::Stream;

/// Bytes that wait to be sent, oldest first.
///
/// Small writes are copied behind each other; a large [`Bytes`] is kept as it is. Empty, it owns no
/// memory.
#[derive(Default)]
pub(crate) struct Backlog {
    chunks: VecDeque<Chunk>,
    len: usize,
    /// What has been sent and is not dropped yet: its owner may be anything, and may write again.
    sent: Vec<Bytes>,
}

enum Chunk {
    /// Bytes, and how many of them were sent.
    Copied(Vec<u8>, usize),
    Shared(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Copied(bytes, sent) => &bytes[*sent..],
            Chunk::Shared(bytes) => bytes,
        }
    }
}

impl Backlog {
    pub(crate) fn push_copy(&mut self, data: &[u8]) {
        self.len += data.len();
        match self.chunks.back_mut() {
            Some(Chunk::Copied(bytes, _)) if bytes.len() < CHUNK_BYTES => {
                bytes.extend_from_slice(data);
            }
            _ => self.chunks.push_back(Chunk::Copied(data.to_vec(), 0)),
        }
    }

    /// Puts bytes in front of all others.
    pub(crate) fn push_front(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.len += data.len();
            self.chunks.push_front(Chunk::Copied(data.to_vec(), 0));
        }
    }

    /// Appends without copying, unless copying is the cheaper way.
    pub(crate) fn push_shared(&mut self, data: Bytes) {
        if data.len() < SHARED_BYTES_MIN {
            self.push_copy(&data);
        } else {
            self.len += data.len();
            self.chunks.push_back(Chunk::Shared(data));
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

    /// Hands `first` and then what waits here to the stream, as much as it takes in one system call.
    pub(crate) fn send(&self, first: &[u8], stream: &Stream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_CALL];
        let mut used = 0;
        if !first.is_empty() {
            slices[0] = IoSlice::new(first);
            used = 1;
        }
        for chunk in self.chunks.iter().take(SLICES_PER_CALL - used) {
            slices[used] = IoSlice::new(chunk.as_slice());
            used += 1;
        }
        stream.write_vectored(&slices[..used])
    }

    /// Returns the oldest bytes that lie in one piece.
    pub(crate) fn front(&self) -> &[u8] {
        self.chunks.front().map(Chunk::as_slice).unwrap_or_default()
    }

    /// Forgets the oldest `count` bytes. What owned them waits for [`take_sent`](Backlog::take_sent).
    pub(crate) fn consume(&mut self, mut count: usize) {
        debug_assert!(count <= self.len, "only what is there can have been sent");
        self.len -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            let length = chunk.as_slice().len();
            if count < length {
                match chunk {
                    Chunk::Copied(_, sent) => *sent += count,
                    Chunk::Shared(bytes) => drop(bytes.split_to(count)),
                }
                return;
            }
            count -= length;
            if let Some(Chunk::Shared(bytes)) = self.chunks.pop_front() {
                self.sent.push(bytes);
            }
        }
        self.chunks = VecDeque::new();
    }

    /// Takes what has been sent, to be dropped when nobody uses the backlog.
    pub(crate) fn take_sent(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.sent)
    }
}

/// A copied chunk this long is closed, so that appending never moves more than this.
const CHUNK_BYTES: usize = 64 * 1024;

/// Below this, a copy is cheaper than a slice of its own in the system call.
const SHARED_BYTES_MIN: usize = 4 * 1024;

/// Slices handed over in one call. The system's own limit is 1,024; beyond a few dozen the call
/// itself has long been paid for.
const SLICES_PER_CALL: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(backlog: &Backlog) -> Vec<u8> {
        backlog.chunks.iter().flat_map(Chunk::as_slice).copied().collect()
    }

    proptest! {
        #[test]
        fn any_sequence_of_writes_and_sends_keeps_the_bytes_in_order(
            steps in prop::collection::vec((0..3, 0usize..9000, 0usize..20_000), 1..40),
        ) {
            let mut backlog = Backlog::default();
            let mut model = Vec::new();
            for (number, (kind, length, count)) in steps.into_iter().enumerate() {
                let data = vec![number as u8; length];
                match kind {
                    0 => backlog.push_copy(&data),
                    1 => backlog.push_shared(Bytes::from(data.clone())),
                    _ => backlog.push_front(&data),
                }
                let place = if kind == 2 { 0 } else { model.len() };
                model.splice(place..place, data);
                let count = count.min(model.len());
                backlog.consume(count);
                model.drain(..count);
                prop_assert_eq!(backlog.len(), model.len());
                prop_assert_eq!(&contents(&backlog), &model);
            }
            backlog.consume(model.len());
            backlog.take_sent();
            prop_assert_eq!(backlog.chunks.capacity() + backlog.sent.capacity(), 0);
        }
    }
}
