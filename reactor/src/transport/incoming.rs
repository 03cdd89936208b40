//! A connection as the loop serves it: what its stream is ready for, and the protocol's calls that
//! follow from that.

use std::io;
use std::rc::Rc;

use super::Transport;
use super::link::{Link, flag};
use super::stream::Stream;
use crate::backend::Readiness;
use crate::core::Core;
use crate::protocol::{ConnectionLost, Protocol};
use crate::turn::Buffers;

impl Transport {
    /// Does what the stream is ready for.
    #[inline(always)]
    pub(crate) fn serve(&self, core: &Rc<Core>, readiness: Readiness, buffers: &mut Buffers) {
        let link = &self.link;
        if !readiness.is_plain() || link.state.has(NOT_PLAIN) {
            return self.serve_in_full(core, readiness, buffers);
        }
        // The usual case: something has come, and one read takes it all.
        if !readiness.has(Readiness::READABLE) {
            return;
        }
        // Borrowed as if to be changed, which is the cheaper way to borrow.
        let result = match &*link.stream.borrow_mut() {
            Some(stream) => stream.read(&mut buffers.scratch),
            None => return,
        };
        match result {
            Ok(count) if count > 0 && count < buffers.scratch.len() => {
                self.deliver(core, &buffers.scratch[..count]);
            }
            result => {
                link.state.set(flag::MAYBE_READABLE);
                if self.take_in(core, result, buffers) {
                    self.read(core, buffers, READS_PER_TURN - 1);
                }
            }
        }
    }

    /// Does what [`serve`](Transport::serve) does when it is not as simple as that.
    #[inline(never)]
    fn serve_in_full(&self, core: &Rc<Core>, readiness: Readiness, buffers: &mut Buffers) {
        let link = &self.link;
        self.prepare(core, readiness);
        if readiness.has(Readiness::READABLE) {
            link.state.set(flag::MAYBE_READABLE);
            if link.state.has(flag::ON_UNREAD_LIST) {
                // Its turn comes with that list, and once a turn is enough.
            } else if link.state.has(flag::TLS) {
                self.read_encrypted(core, buffers);
            } else {
                self.read(core, buffers, READS_PER_TURN);
            }
        }
        if readiness.has(Readiness::FAILED) && link.state.has(NOT_READING) {
            link.close_failed(core);
        }
    }

    /// Does what comes before reading.
    fn prepare(&self, core: &Rc<Core>, readiness: Readiness) {
        let link = &self.link;
        if link.state.has(flag::LINGERING) {
            return link.linger(core);
        }
        if readiness.has(Readiness::UNREAD) {
            link.state.clear(flag::ON_UNREAD_LIST);
            if link.state.has(flag::HOLDS_BACK) && !link.state.has(NOT_DELIVERING) {
                link.state.clear(flag::HOLDS_BACK);
                self.call(core, "data_received", |protocol, transport| {
                    protocol.data_received(transport, &[]);
                });
            }
        }
        if readiness.has(Readiness::CLOSING) {
            link.state.set(flag::PEER_CLOSING);
        }
        if link.state.has(flag::CONNECTING)
            && readiness.has(Readiness::WRITABLE.and(Readiness::CLOSING))
        {
            link.finish_connecting(core);
        }
        if link.state.has(flag::WRITE_BLOCKED) && readiness.has(Readiness::WRITABLE) {
            link.state.clear(flag::WRITE_BLOCKED);
            link.flush_now(core);
        }
    }

    /// Reads until there is nothing more, the protocol has had enough, or others must have theirs.
    fn read(&self, core: &Rc<Core>, buffers: &mut Buffers, reads: usize) {
        let link = &self.link;
        for _ in 0..reads {
            if link.state.has(NOT_READING) {
                return;
            }
            let result = match &*link.stream.borrow() {
                Some(stream) => stream.read(&mut buffers.scratch),
                None => return,
            };
            if !self.take_in(core, result, buffers) {
                return;
            }
        }
        link.read_later(core);
    }

    /// Does what follows from a read. Returns whether to read on.
    fn take_in(&self, core: &Rc<Core>, result: io::Result<usize>, buffers: &mut Buffers) -> bool {
        let link = &self.link;
        let count = match result {
            Ok(count) if count > 0 => count,
            Ok(_) => {
                self.finish_reading(core);
                return false;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    link.state.clear(flag::MAYBE_READABLE);
                    return false;
                }
                io::ErrorKind::Interrupted => return true,
                _ => {
                    link.close_with(core, error);
                    return false;
                }
            },
        };
        // A read that leaves room in the buffer has taken everything.
        let mut is_drained = count < buffers.scratch.len()
            && !link.state.has(flag::PEER_CLOSING | flag::CARRIES_DESCRIPTORS);
        if !is_drained && link.state.has(flag::CARRIES_DESCRIPTORS) {
            let is_message = self.receive_descriptors(core);
            if link.state.has(flag::LOST | flag::LOSING) {
                return false;
            }
            is_drained =
                !is_message && count < buffers.scratch.len() && !link.state.has(flag::PEER_CLOSING);
        }
        if is_drained {
            link.state.clear(flag::MAYBE_READABLE);
        }
        self.deliver(core, &buffers.scratch[..count]);
        if link.state.has(flag::TLS) {
            // It has just begun, and what comes now is ciphertext.
            link.read_later(core);
            return false;
        }
        !is_drained
    }

    #[inline(always)]
    fn deliver(&self, core: &Core, data: &[u8]) {
        core.counters.reads.add(1);
        core.counters.bytes_in.add(data.len());
        self.call(core, "data_received", |protocol, transport| {
            protocol.data_received(transport, data);
        });
    }

    /// Hands over the descriptors that came with what was read. Returns whether there were any: a
    /// read ends behind them, also where more bytes wait.
    #[inline(never)]
    fn receive_descriptors(&self, core: &Rc<Core>) -> bool {
        let mut is_message = false;
        loop {
            let descriptor = self.link.stream.borrow().as_ref().and_then(Stream::take_descriptor);
            let Some(descriptor) = descriptor else { return is_message };
            is_message = true;
            self.call(core, "file_descriptor_received", |protocol, transport| {
                protocol.file_descriptor_received(transport, descriptor);
            });
        }
    }

    /// The peer will send no more.
    #[inline(never)]
    pub(super) fn finish_reading(&self, core: &Rc<Core>) {
        let link = &self.link;
        link.state.set(flag::READ_FINISHED);
        link.state.clear(flag::MAYBE_READABLE);
        if link.state.has(flag::WRITE_FINISHED) {
            return link.close(core, ConnectionLost::Done);
        }
        self.call(core, "read_connection_lost", |protocol, transport| {
            protocol.read_connection_lost(transport);
        });
    }

    /// Calls the protocol. Should it panic, it is told of the end and nothing else.
    #[inline(always)]
    pub(super) fn call(
        &self,
        core: &Core,
        what: &'static str,
        f: impl FnOnce(&mut dyn Protocol, &Transport),
    ) {
        let link = &self.link;
        let Some(mut protocol) = link.protocol.take() else { return };
        let result = core.call(what, &link.context, || f(&mut *protocol, self));
        let none = link.protocol.replace(Some(protocol));
        debug_assert!(none.is_none(), "nobody else fills the place");
        std::mem::forget(none);
        if result.is_err() {
            link.close_panicked(core);
        }
    }
}

impl Link {
    #[cold]
    fn close_panicked(self: &Rc<Link>, core: &Core) {
        self.reset_on_close();
        self.close(core, ConnectionLost::ProtocolPanicked);
    }

    /// Puts the link on the list of those to be read in the next turn.
    pub(super) fn read_later(&self, core: &Core) {
        let idle = match self.state.has(flag::HOLDS_BACK) {
            true => NOT_DELIVERING,
            false => NOT_READING,
        };
        if !self.state.has(idle | flag::ON_UNREAD_LIST) {
            self.state.set(flag::ON_UNREAD_LIST);
            core.read_later(self.key.get());
        }
    }
}

/// Why a link does not read.
pub(super) const NOT_READING: u32 = flag::LOST
    | flag::READ_PAUSED
    | flag::READ_HELD
    | flag::READ_FINISHED
    | flag::LOSING
    | flag::CONNECTING;

/// Why a protocol is not called with bytes that it has been given before. The peer may have finished.
pub(super) const NOT_DELIVERING: u32 = flag::LOST
    | flag::READ_PAUSED
    | flag::READ_HELD
    | flag::LOSING
    | flag::CONNECTING
    | flag::HANDSHAKING;

/// What keeps an event from being served the short way: something has to be done first, or reading
/// is more than one call.
const NOT_PLAIN: u32 = NOT_READING
    | flag::CARRIES_DESCRIPTORS
    | flag::HANDSHAKING
    | flag::HOLDS_BACK
    | flag::LINGERING
    | flag::MAYBE_READABLE
    | flag::ON_UNREAD_LIST
    | flag::PEER_CLOSING
    | flag::TLS
    | flag::WRITE_BLOCKED;

/// Reads of one connection in one turn; together 256 KiB, some 50 microseconds of copying.
pub(super) const READS_PER_TURN: usize = 4;
