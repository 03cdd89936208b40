//! A connection as the loop serves it: what its stream is ready for, and the protocol's calls that
//! follow from that.

use std::io;
use std::rc::Rc;

use super::Transport;
use super::link::{Link, flag};
use crate::backend::Readiness;
use crate::core::Core;
use crate::protocol::{ConnectionLost, Protocol};
use crate::turn::Buffers;

impl Transport {
    /// Does what the stream is ready for.
    #[inline]
    pub(crate) fn serve(&self, core: &Rc<Core>, readiness: Readiness, buffers: &mut Buffers) {
        let link = &self.link;
        if link.state.has(SPECIAL) || readiness.has(SPECIAL_READINESS) {
            self.prepare(core, readiness);
        }
        if readiness.has(Readiness::READABLE) {
            link.state.set(flag::MAYBE_READABLE);
            if link.state.has(flag::ON_UNREAD_LIST) {
                // Its turn comes with that list, and once a turn is enough.
            } else if link.state.has(flag::TLS) {
                self.read_encrypted(core, buffers);
            } else {
                self.read(core, buffers);
            }
        }
        if readiness.has(Readiness::FAILED) && link.state.has(NOT_READING) {
            link.close_failed(core);
        }
    }

    /// Does what comes before reading.
    #[inline(never)]
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
    #[inline]
    fn read(&self, core: &Rc<Core>, buffers: &mut Buffers) {
        let link = &self.link;
        for _ in 0..READS_PER_TURN {
            if link.state.has(NOT_READING) {
                return;
            }
            let result = match &*link.stream.borrow() {
                Some(stream) => stream.read(&mut buffers.scratch),
                None => return,
            };
            let count = match result {
                Ok(count) if count > 0 => count,
                Ok(_) => return self.finish_reading(core),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return link.state.clear(flag::MAYBE_READABLE),
                    io::ErrorKind::Interrupted => continue,
                    _ => return link.close_with(core, error),
                },
            };
            let is_drained = count < buffers.scratch.len() && !link.state.has(flag::PEER_CLOSING);
            if is_drained {
                link.state.clear(flag::MAYBE_READABLE);
            }
            let data = &buffers.scratch[..count];
            self.call(core, "data_received", |protocol, transport| {
                protocol.data_received(transport, data);
            });
            if is_drained {
                return;
            }
        }
        link.read_later(core);
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
    #[inline]
    pub(super) fn call(
        &self,
        core: &Core,
        what: &'static str,
        f: impl FnOnce(&mut dyn Protocol, &Transport),
    ) {
        let link = &self.link;
        let Some(mut protocol) = link.protocol.take() else { return };
        let result = core.call(what, &link.context, || f(&mut *protocol, self));
        link.protocol.set(Some(protocol));
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
            core.unread.borrow_mut().push_back(self.key.get());
        }
    }
}

/// Why a link does not read.
pub(super) const NOT_READING: u32 =
    flag::LOST | flag::READ_PAUSED | flag::READ_FINISHED | flag::LOSING | flag::CONNECTING;

/// Why a protocol is not called with bytes that it has been given before. The peer may have finished.
pub(super) const NOT_DELIVERING: u32 =
    flag::LOST | flag::READ_PAUSED | flag::LOSING | flag::CONNECTING | flag::HANDSHAKING;

/// What has to be looked at before a link is read.
const SPECIAL: u32 = flag::CONNECTING | flag::WRITE_BLOCKED | flag::LINGERING;
const SPECIAL_READINESS: Readiness = Readiness::CLOSING.and(Readiness::UNREAD);

/// Reads of one connection in one turn; together 256 KiB, some 50 microseconds of copying.
pub(super) const READS_PER_TURN: usize = 4;
