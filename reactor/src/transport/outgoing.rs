//! A connection's way out: gathering, flushing, closing once all is sent, and steering the producer
//! that fills the buffer.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::link::{Link, flag};
use crate::context::LogContext;
use crate::core::Core;
use crate::flow::{Producer, Streaming};
use crate::protocol::ConnectionLost;
use crate::ready::Job;

/// A producer that is registered, and the context in which it was.
pub(super) struct Feeding {
    producer: Rc<dyn Producer>,
    streaming: Streaming,
    context: LogContext,
}

impl Link {
    #[inline]
    pub(crate) fn write(self: &Rc<Link>, data: &[u8]) {
        if self.takes_writes() && !data.is_empty() {
            self.write_with(|out| out.push_copy(data));
        }
    }

    pub(crate) fn write_bytes(self: &Rc<Link>, data: Bytes) {
        if self.takes_writes() && !data.is_empty() {
            self.write_with(|out| out.push_shared(data));
        }
    }

    #[inline]
    fn write_with(self: &Rc<Link>, push: impl FnOnce(&mut super::buffer::Outbound)) {
        let Some(core) = self.core.upgrade() else { return };
        let mut out = self.out.borrow_mut();
        out.borrow_memory(&mut core.spares.borrow_mut());
        push(&mut out);
        let len = out.len();
        drop(out);
        if len >= FLUSH_BYTES && !self.state.has(flag::WRITE_BLOCKED) {
            return self.flush(&core);
        }
        self.flush_later(&core);
        if self.state.has(flag::HAS_PRODUCER) {
            self.steer_producer(&core);
        }
    }

    fn takes_writes(&self) -> bool {
        // While a producer is registered, closing waits for it.
        !self.state.has(flag::LOST | flag::WRITE_FINISHED)
            && (!self.state.has(flag::LOSING | flag::LOSING_WRITE)
                || self.state.has(flag::HAS_PRODUCER))
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.out.borrow().len()
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
        if let Some(core) = self.core.upgrade() {
            if self.state.has(flag::CONNECTING) {
                return self.close(&core, ConnectionLost::Aborted);
            }
            self.flush_later(&core);
        }
    }

    /// Puts the link on the list of those to be flushed at the end of the turn.
    #[inline]
    fn flush_later(self: &Rc<Link>, core: &Core) {
        if !self.state.has(flag::ON_UNSENT_LIST | flag::WRITE_BLOCKED) {
            self.state.set(flag::ON_UNSENT_LIST);
            core.unsent.borrow_mut().push(Rc::clone(self));
        }
    }

    /// Sends what the stream takes. Calls nobody: what follows from it is queued.
    pub(crate) fn flush(self: &Rc<Link>, core: &Core) {
        self.state.clear(flag::ON_UNSENT_LIST);
        if self.state.has(flag::LOST | flag::WRITE_BLOCKED) {
            return;
        }
        match self.send(core) {
            Ok(()) => self.settle(core),
            Err(error) => self.close(core, ConnectionLost::Failed(Arc::new(error))),
        }
    }

    fn send(self: &Rc<Link>, core: &Core) -> io::Result<()> {
        let stream = self.stream.borrow();
        let Some(stream) = &*stream else { return Ok(()) };
        let mut out = self.out.borrow_mut();
        let mut sent_bytes = 0;
        while !out.is_empty() {
            if sent_bytes >= SEND_BYTES_PER_TURN {
                self.flush_later(core);
                return Ok(());
            }
            match out.send(stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => sent_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state.set(flag::WRITE_BLOCKED);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.return_memory(&mut core.spares.borrow_mut());
        Ok(())
    }

    /// Does what depends on how much is left to send.
    #[inline]
    fn settle(self: &Rc<Link>, core: &Core) {
        if self.state.has(flag::HAS_PRODUCER) {
            self.steer_producer(core);
        } else if self.state.has(flag::LOSING | flag::LOSING_WRITE) && self.out.borrow().is_empty()
        {
            self.finish_writing(core);
        }
    }

    /// Everything is sent, and this side has asked for the end.
    fn finish_writing(self: &Rc<Link>, core: &Core) {
        if self.state.has(flag::LOSING) {
            return self.close(core, ConnectionLost::Done);
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
            Err(error) => self.close(core, ConnectionLost::Failed(Arc::new(error))),
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
        let Some(core) = self.core.upgrade() else { return };
        self.dismiss_producer(&core);
        let feeding = Feeding { producer, streaming, context: LogContext::current() };
        if !self.takes_writes() {
            return feeding.stop(&core);
        }
        self.feeding.replace(Some(feeding));
        self.state.set(flag::HAS_PRODUCER);
        self.steer_producer(&core);
    }

    pub(crate) fn unregister_producer(self: &Rc<Link>) {
        if !self.state.has(flag::HAS_PRODUCER) {
            return;
        }
        self.state.clear(flag::HAS_PRODUCER | flag::PRODUCER_WAITS);
        // It may be anybody's; it goes with no borrow held.
        let feeding = self.feeding.take();
        drop(feeding);
        if self.state.has(flag::LOSING | flag::LOSING_WRITE)
            && let Some(core) = self.core.upgrade()
        {
            self.flush_later(&core);
        }
    }

    /// Tells the producer to stop, if there is one.
    pub(super) fn dismiss_producer(&self, core: &Core) {
        self.state.clear(flag::HAS_PRODUCER | flag::PRODUCER_WAITS);
        if let Some(feeding) = self.feeding.take() {
            feeding.stop(core);
        }
    }

    pub(crate) fn set_watermarks(self: &Rc<Link>, high_bytes: usize, low_bytes: usize) {
        self.high_water_bytes.set(high_bytes);
        self.low_water_bytes.set(low_bytes.min(high_bytes));
        if self.state.has(flag::HAS_PRODUCER)
            && let Some(core) = self.core.upgrade()
        {
            self.steer_producer(&core);
        }
    }

    /// Pauses, resumes or asks the producer, as the unsent bytes demand.
    fn steer_producer(self: &Rc<Link>, core: &Core) {
        let buffered_bytes = self.out.borrow().len();
        let feeding = self.feeding.borrow();
        let Some(feeding) = &*feeding else { return };
        let waits = self.state.has(flag::PRODUCER_WAITS);
        match feeding.streaming {
            Streaming::Push if !waits && buffered_bytes > self.high_water_bytes.get() => {
                self.state.set(flag::PRODUCER_WAITS);
                self.tell_producer(core, feeding, |_, producer| producer.pause_producing());
            }
            Streaming::Push if waits && buffered_bytes <= self.low_water_bytes.get() => {
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
        let feeding = self.feeding.borrow();
        feeding.as_ref().is_some_and(|feeding| Rc::ptr_eq(&feeding.producer, producer))
    }
}

impl Feeding {
    fn stop(self, core: &Core) {
        let Feeding { producer, context, .. } = self;
        core.ready.push(Job::in_context(context, move || producer.stop_producing()));
    }
}

/// A buffer that reaches this is flushed at once: memory stays small, and the peer gets something
/// to do.
const FLUSH_BYTES: usize = 64 * 1024;

/// What one connection may send in one flush before others get their turn.
const SEND_BYTES_PER_TURN: usize = 1024 * 1024;
