//! Closing without taking back what was sent.
//!
//! A TCP socket that is closed while bytes lie in it unread, or to which bytes come after that,
//! answers with a reset, and a reset makes the peer's system throw away what it has received and its
//! program not read yet: the answer that was written just before. So, where the peer is known to be
//! talking still, the stream is kept for a while, and what comes is thrown away.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::link::{Link, flag};
use crate::address::Address;
use crate::core::Core;
use crate::protocol::ConnectionLost;
use crate::ready::Job;

impl Link {
    /// Closes a connection that both sides are done with, as far as this side knows.
    pub(super) fn close_gently(self: &Rc<Link>, core: &Rc<Core>) {
        // Pipes know no reset, and what is not read from a terminal is somebody else's to read.
        if !self.state.has(flag::MAYBE_READABLE)
            || self.state.has(flag::READ_FINISHED)
            || *self.peer() == Address::Pipe
        {
            return self.close(core, ConnectionLost::Done);
        }
        let is_shut_down = match &*self.stream.borrow() {
            Some(stream) => stream.shutdown_write().is_ok(),
            None => false,
        };
        self.end(core, ConnectionLost::Done);
        if is_shut_down && !self.discard() {
            self.state.set(flag::LINGERING);
            self.set_timer(core, LINGER_TIME_MAX, |link, core| link.drop_stream(core));
        } else {
            self.drop_stream(core);
        }
    }

    /// Gives the peer some time more to take what is left before the connection closes. Called when that is
    /// asked for, and whenever the peer has taken something.
    pub(super) fn limit_closing(self: &Rc<Link>, core: &Rc<Core>) {
        if !self.state.has(flag::LOSING) || self.state.has(flag::LOST | flag::HANDSHAKING) {
            return;
        }
        // A program may compute for as long as it likes before it reads its input to the end.
        if *self.peer() == Address::Pipe {
            return;
        }
        if self.has_unsent() {
            let deadline = core.backend.now() + CLOSING_STALL_MAX;
            let timer = self.extras().timer.get();
            let mut timers = core.timers.borrow_mut();
            if timers.deadline(timer).is_some() {
                return timers.reschedule(timer, deadline);
            }
            drop(timers);
            self.set_timer(core, CLOSING_STALL_MAX, Link::give_up_closing);
        }
    }

    fn give_up_closing(self: &Rc<Link>, core: &Core) {
        if self.state.has(flag::LOST) || !self.has_unsent() {
            return;
        }
        self.reset_on_close();
        let error = io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the peer took nothing for {} s while closing", CLOSING_STALL_MAX.as_secs()),
        );
        self.close_with(core, error);
    }

    fn has_unsent(&self) -> bool {
        self.buffered_bytes() > 0 || self.state.has(flag::TLS) && self.has_unsent_ciphertext()
    }

    /// Throws away what has come, and closes the stream if it is at its end.
    pub(super) fn linger(self: &Rc<Link>, core: &Core) {
        if self.discard() {
            self.drop_stream(core);
        }
    }

    /// Throws away what has come. Returns whether nothing can come any more.
    fn discard(&self) -> bool {
        let stream = self.stream.borrow();
        let Some(stream) = &*stream else { return true };
        let mut buffer = [0; DISCARDED_BYTES_PER_READ];
        for _ in 0..DISCARDS_PER_TURN {
            match stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return false,
                    io::ErrorKind::Interrupted => {}
                    _ => return true,
                },
            }
        }
        // Whoever sends that much and that fast is not waiting for an answer.
        true
    }

    /// Calls `f` once this time is over, unless the stream is closed before.
    pub(super) fn set_timer(
        self: &Rc<Link>,
        core: &Rc<Core>,
        delay: Duration,
        f: impl FnOnce(&Rc<Link>, &Core) + 'static,
    ) {
        let link = Rc::downgrade(self);
        let weak_core = Rc::downgrade(core);
        let job = Job::in_context(self.context.clone(), move || {
            if let (Some(link), Some(core)) = (link.upgrade(), weak_core.upgrade()) {
                f(&link, &core);
            }
        });
        let before = core.timers.borrow_mut().remove(self.extras().timer.get());
        drop(before);
        let deadline = core.backend.now() + delay;
        self.extras().timer.set(core.timers.borrow_mut().insert(deadline, job));
    }
}

/// How long a peer may take nothing of what is left when the connection is to close: it has gone without
/// a word, or means to hold on to our memory.
const CLOSING_STALL_MAX: Duration = Duration::from_secs(30);

/// How long a stream is kept for a peer that does not stop talking: time enough for it to see the
/// answer over a slow network.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// 1 MiB in all at a time.
const DISCARDS_PER_TURN: usize = 128;
const DISCARDED_BYTES_PER_READ: usize = 8 * 1024;
