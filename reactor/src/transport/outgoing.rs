//! A connection's way out: gathering, flushing, closing once all is sent, and steering the producer
//! that fills the buffer.

use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::buffer::Backlog;
use super::link::{Link, flag};
use crate::context::LogContext;
use crate::core::Core;
use crate::flow::{Producer, Streaming};
use crate::protocol::ConnectionLost;
use crate::ready::Job;
use crate::teardown::dropping;

/// A producer that is registered, and the context in which it was.
pub(super) struct Feeding {
    producer: Rc<dyn Producer>,
    streaming: Streaming,
    context: LogContext,
}

impl Link {
    #[inline(never)]
    pub(crate) fn write(self: &Rc<Link>, data: &[u8]) {
        // The usual case first: a small write, the first in this turn, and nothing in its way.
        let is_small = data.len() <= GATHERED_BYTES_MAX && !data.is_empty();
        if is_small && !self.state.has(NOT_GATHERED | flag::ON_UNSENT_LIST) {
            self.state.set(flag::ON_UNSENT_LIST);
            self.gathered_bytes.set(data.len() as u32);
            self.gathered_start.set(self.outbox.push(self, data));
        } else {
            self.write_more(data);
        }
    }

    #[inline(never)]
    fn write_more(self: &Rc<Link>, data: &[u8]) {
        let gathered_bytes = self.gathered_bytes.get() as usize;
        if gathered_bytes > 0
            && !self.state.has(NOT_GATHERED)
            && gathered_bytes + data.len() <= GATHERED_BYTES_MAX
            && self.outbox.extend(self, data)
        {
            self.gathered_bytes.set((gathered_bytes + data.len()) as u32);
        } else {
            self.write_to_backlog(data.len(), |backlog| backlog.push_copy(data));
        }
    }

    pub(crate) fn write_bytes(self: &Rc<Link>, data: Bytes) {
        if data.len() <= GATHERED_BYTES_MAX {
            self.write(&data);
        } else {
            self.write_to_backlog(data.len(), |backlog| backlog.push_shared(data));
        }
    }

    fn write_to_backlog(self: &Rc<Link>, bytes: usize, push: impl FnOnce(&mut Backlog)) {
        if bytes == 0 || !self.takes_writes() {
            return;
        }
        let Some(core) = self.core() else { return };
        push(&mut self.extras().backlog.borrow_mut());
        self.state.set(flag::HAS_BACKLOG);
        if self.buffered_bytes() >= FLUSH_BYTES && !self.state.has(flag::WRITE_BLOCKED) {
            return self.flush_now(&core);
        }
        self.flush_later();
        if self.state.has(flag::HAS_PRODUCER) {
            self.steer_producer(&core);
        }
    }

    pub(super) fn takes_writes(&self) -> bool {
        // While a producer is registered, closing waits for it.
        !self.state.has(flag::LOST | flag::WRITE_FINISHED)
            && (!self.state.has(flag::LOSING | flag::LOSING_WRITE)
                || self.state.has(flag::HAS_PRODUCER))
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        let backlog_bytes = self.extras_if_any().map_or(0, |extras| extras.backlog.borrow().len());
        self.gathered_bytes.get() as usize + backlog_bytes
    }

    pub(crate) fn lose_connection(self: &Rc<Link>) {
        self.lose(flag::LOSING);
    }

    pub(crate) fn lose_write_connection(self: &Rc<Link>) {
        self.lose(flag::LOSING_WRITE);
    }

    fn lose(self: &Rc<Link>, how: u32) {
        if self.state.has(flag::LOST) {
            return;
        }
        self.state.set(how);
        if let Some(core) = self.core() {
            if self.state.has(flag::CONNECTING) {
                return self.close(&core, ConnectionLost::Aborted);
            }
            self.flush_later();
            self.limit_closing(&core);
        }
    }

    /// Puts the link on the list of those to be flushed at the end of the turn.
    pub(super) fn flush_later(self: &Rc<Link>) {
        if !self.state.has(flag::ON_UNSENT_LIST | flag::WRITE_BLOCKED) {
            self.leave_over();
        }
    }

    /// Puts the link on that list, of this turn or, once that is being flushed, of the next.
    pub(super) fn leave_over(self: &Rc<Link>) {
        if !self.state.has(flag::ON_UNSENT_LIST) {
            self.state.set(flag::ON_UNSENT_LIST);
            self.gathered_start.set(self.outbox.push(self, &[]));
        }
    }

    /// Flushes before the end of the turn. An entry in the outbox stays there, empty.
    pub(super) fn flush_now(self: &Rc<Link>, core: &Rc<Core>) {
        let mut piece = Vec::new();
        let gathered_bytes = self.gathered_bytes.get() as usize;
        if gathered_bytes > 0 {
            let start = self.gathered_start.get();
            let Some(copy) = self.outbox.copy_piece(self, start, gathered_bytes) else {
                // What is being flushed goes first, and this along with it.
                return;
            };
            piece = copy;
            self.gathered_bytes.set(0);
        }
        if !self.state.has(flag::LOST) {
            let result = self.send_backlog(core, &piece, SEND_BYTES_PER_TURN);
            self.settle(core, result);
            self.drop_sent();
        }
    }

    /// Sends all that was gathered in a turn, which is this link's alone. Returns whether the system
    /// took it; what it did not take stays where it is.
    #[inline(always)]
    pub(super) fn flush_whole(&self, core: &Core, gathered: &[u8]) -> bool {
        let length = gathered.len();
        let is_all = self.gathered_bytes.get() as usize == length && length > 0;
        if !is_all || self.state.has(FLUSHED_IN_FULL) {
            return false;
        }
        let result = match &*self.stream.borrow_mut() {
            Some(stream) => stream.write(gathered),
            None => return false,
        };
        match result {
            Ok(count) if count == length => {
                core.counters.bytes_out.add(count);
                self.state.clear(flag::ON_UNSENT_LIST);
                self.gathered_bytes.set(0);
                true
            }
            result => {
                self.sent_in_part(core, result.unwrap_or(0));
                false
            }
        }
    }

    /// An error, if there was one, will show again.
    #[cold]
    fn sent_in_part(&self, core: &Core, count: usize) {
        core.counters.bytes_out.add(count);
        self.gathered_start.set(self.gathered_start.get() + count);
        self.gathered_bytes.set(self.gathered_bytes.get().saturating_sub(count as u32));
    }

    /// Sends its piece of what was gathered and then the backlog. Calls nobody, but for dropping what
    /// was sent: what follows from it is queued.
    #[inline]
    pub(crate) fn flush(self: &Rc<Link>, core: &Rc<Core>, gathered: &[u8], bytes_max: usize) {
        self.state.clear(flag::ON_UNSENT_LIST);
        let (start, length) = (self.gathered_start.get(), self.gathered_bytes.replace(0) as usize);
        let mut piece = gathered.get(start..start + length).unwrap_or_default();
        if !piece.is_empty()
            && !self.state.has(FLUSHED_IN_FULL)
            && let Some(stream) = &*self.stream.borrow_mut()
            && let Ok(count) = stream.write(piece)
        {
            core.counters.bytes_out.add(count);
            if count == length {
                return;
            }
            piece = piece.get(count..).unwrap_or_default();
        }
        // An error, if there was one, will show again.
        self.flush_in_full(core, piece, bytes_max);
    }

    /// Does what [`flush`](Link::flush) does when it cannot take the short way.
    #[cold]
    fn flush_in_full(self: &Rc<Link>, core: &Rc<Core>, piece: &[u8], bytes_max: usize) {
        if !self.state.has(flag::LOST) {
            let result = self.send_backlog(core, piece, bytes_max);
            self.settle(core, result);
            self.drop_sent();
        }
    }

    /// Drops the bytes that were sent as they are. What owns them may be anybody's, and do anything.
    fn drop_sent(&self) {
        let Some(extras) = self.extras_if_any() else { return };
        let sent = extras.backlog.borrow_mut().take_sent();
        for bytes in sent {
            dropping("bytes that were sent", bytes);
        }
    }

    #[cold]
    fn send_backlog(
        self: &Rc<Link>,
        core: &Core,
        mut piece: &[u8],
        bytes_max: usize,
    ) -> io::Result<()> {
        if self.state.has(flag::TLS) {
            debug_assert!(piece.is_empty(), "TLS connections have nothing in the outbox");
            return self.send_encrypted();
        }
        let stream = self.stream.borrow();
        let Some(stream) = &*stream else { return Ok(()) };
        let mut backlog = self.extras().backlog.borrow_mut();
        let mut sent_bytes = 0;
        let result = loop {
            if piece.is_empty() && backlog.is_empty() {
                self.state.clear(flag::HAS_BACKLOG);
                return Ok(());
            }
            if self.state.has(flag::WRITE_BLOCKED | flag::SENDING_FILE) {
                break Ok(());
            }
            if sent_bytes >= bytes_max {
                self.leave_over();
                break Ok(());
            }
            let room = self.room();
            if room == 0 {
                // Whoever says so has it sent later.
                self.state.set(flag::WRITE_BLOCKED);
                break Ok(());
            }
            let result = if room == usize::MAX {
                backlog.send(piece, stream)
            } else {
                let next = if piece.is_empty() { backlog.front() } else { piece };
                stream.write(&next[..next.len().min(room)])
            };
            match result {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    sent_bytes += count;
                    core.counters.bytes_out.add(count);
                    self.tell_sent(count);
                    let of_piece = count.min(piece.len());
                    piece = &piece[of_piece..];
                    backlog.consume(count - of_piece);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state.set(flag::WRITE_BLOCKED);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        backlog.push_front(piece);
        self.state.set(flag::HAS_BACKLOG);
        result
    }

    /// Does what depends on how much is left to send.
    fn settle(self: &Rc<Link>, core: &Rc<Core>, sent: io::Result<()>) {
        if let Err(error) = sent {
            return self.close_with(core, error);
        }
        if self.state.has(flag::LOSING) {
            self.limit_closing(core);
        }
        if self.state.has(flag::HAS_PRODUCER) {
            self.steer_producer(core);
        } else if self.state.has(flag::LOSING | flag::LOSING_WRITE)
            && self.buffered_bytes() == 0
            && !self.state.has(flag::HANDSHAKING | flag::SENDING_FILE)
        {
            self.finish_writing(core);
        }
    }

    /// Everything is sent, and this side has asked for the end.
    fn finish_writing(self: &Rc<Link>, core: &Rc<Core>) {
        if self.state.has(flag::TLS) {
            match self.close_notify() {
                Ok(true) => {}
                Ok(false) => return,
                // A peer that has finished may be gone; a note that nobody reads is no loss.
                Err(_) if self.state.has(flag::READ_FINISHED) => {}
                Err(error) => {
                    return self.close_with(core, error);
                }
            }
        }
        if self.state.has(flag::LOSING) {
            return self.close_gently(core);
        }
        if self.state.has(flag::WRITE_FINISHED) {
            return;
        }
        self.state.set(flag::WRITE_FINISHED);
        let result = match &*self.stream.borrow() {
            Some(stream) => stream.shutdown_write(),
            None => Ok(()),
        };
        match result {
            Err(error) => self.close_with(core, error),
            Ok(()) if self.state.has(flag::READ_FINISHED) => self.close(core, ConnectionLost::Done),
            Ok(()) => {}
        }
    }
}

// The producer.

impl Link {
    pub(crate) fn register_producer(
        self: &Rc<Link>,
        producer: Rc<dyn Producer>,
        streaming: Streaming,
    ) {
        let Some(core) = self.core() else { return };
        self.dismiss_producer(&core);
        let feeding = Feeding { producer, streaming, context: LogContext::current() };
        if !self.takes_writes() {
            return feeding.stop(&core);
        }
        self.extras().feeding.replace(Some(feeding));
        self.state.set(flag::HAS_PRODUCER);
        self.steer_producer(&core);
    }

    pub(crate) fn unregister_producer(self: &Rc<Link>) {
        if !self.state.has(flag::HAS_PRODUCER) {
            return;
        }
        self.state.clear(flag::HAS_PRODUCER | flag::PRODUCER_WAITS);
        // It may be anybody's; it goes with no borrow held.
        let feeding = self.extras().feeding.take();
        drop(feeding);
        if self.state.has(flag::LOSING | flag::LOSING_WRITE) {
            self.flush_later();
        }
    }

    /// Tells the producer to stop, if there is one.
    pub(super) fn dismiss_producer(&self, core: &Core) {
        self.state.clear(flag::HAS_PRODUCER | flag::PRODUCER_WAITS);
        if let Some(feeding) = self.extras_if_any().and_then(|extras| extras.feeding.take()) {
            feeding.stop(core);
        }
    }

    pub(crate) fn set_watermarks(self: &Rc<Link>, high_bytes: usize, low_bytes: usize) {
        self.extras().high_water_bytes.set(high_bytes);
        self.extras().low_water_bytes.set(low_bytes.min(high_bytes));
        if self.state.has(flag::HAS_PRODUCER)
            && let Some(core) = self.core()
        {
            self.steer_producer(&core);
        }
    }

    /// Pauses, resumes or asks the producer, as the unsent bytes demand.
    fn steer_producer(self: &Rc<Link>, core: &Core) {
        let buffered_bytes = self.buffered_bytes();
        let feeding = self.extras().feeding.borrow();
        let Some(feeding) = &*feeding else { return };
        let waits = self.state.has(flag::PRODUCER_WAITS);
        match feeding.streaming {
            Streaming::Push if !waits && buffered_bytes > self.extras().high_water_bytes.get() => {
                self.state.set(flag::PRODUCER_WAITS);
                self.tell_producer(core, feeding, |_, producer| producer.pause_producing());
            }
            Streaming::Push if waits && buffered_bytes <= self.extras().low_water_bytes.get() => {
                self.state.clear(flag::PRODUCER_WAITS);
                self.tell_producer(core, feeding, |_, producer| producer.resume_producing());
            }
            Streaming::Pull if !waits && buffered_bytes == 0 => {
                self.state.set(flag::PRODUCER_WAITS);
                self.tell_producer(core, feeding, |link, producer| {
                    // What it writes now is flushed, and once that is sent it is asked again.
                    link.state.clear(flag::PRODUCER_WAITS);
                    producer.resume_producing();
                });
            }
            Streaming::Pull | Streaming::Push => {}
        }
    }

    /// Calls the producer after the current callback, if it is still registered then.
    fn tell_producer(
        self: &Rc<Link>,
        core: &Core,
        feeding: &Feeding,
        tell: impl FnOnce(&Link, &dyn Producer) + 'static,
    ) {
        let link = Rc::clone(self);
        let producer = Rc::clone(&feeding.producer);
        core.ready.push(Job::in_context(feeding.context.clone(), move || {
            if link.is_fed_by(&producer) {
                tell(&link, &*producer);
            }
        }));
    }

    fn is_fed_by(&self, producer: &Rc<dyn Producer>) -> bool {
        let feeding = self.extras().feeding.borrow();
        feeding.as_ref().is_some_and(|feeding| Rc::ptr_eq(&feeding.producer, producer))
    }
}

impl Feeding {
    fn stop(self, core: &Core) {
        let Feeding { producer, context, .. } = self;
        core.ready.push(Job::in_context(context, move || producer.stop_producing()));
    }
}

/// What keeps a write out of the outbox.
const NOT_GATHERED: u32 = flag::LOST
    | flag::WRITE_FINISHED
    | flag::LOSING
    | flag::LOSING_WRITE
    | flag::HAS_BACKLOG
    | flag::WRITE_BLOCKED
    | flag::HAS_PRODUCER
    | flag::METERED
    | flag::SENDING_FILE
    | flag::TLS;

/// What makes flushing more than one call of the system.
const FLUSHED_IN_FULL: u32 = NOT_GATHERED;

/// What one connection may have in the outbox; more goes to its backlog.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// A buffer that reaches this is flushed at once: memory stays small, and the peer gets something
/// to do.
const FLUSH_BYTES: usize = 64 * 1024;

/// What one connection may send in one flush before others get their turn.
pub(super) const SEND_BYTES_PER_TURN: usize = 1024 * 1024;
