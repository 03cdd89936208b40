//! TLS on a connection: rustls between the stream and the protocol.
//!
//! Owns the order of things (handshake, ciphertext before plaintext, closing notes); rustls owns
//! what they contain.

use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Transport;
use super::incoming::{NOT_READING, READS_PER_TURN};
use super::link::{Link, flag};
use crate::core::Core;
use crate::protocol::ConnectionLost;
use crate::turn::Buffers;

impl Link {
    /// Begins the handshake, which must come to its end in time.
    pub(super) fn start_handshake(self: &Rc<Link>, core: &Rc<Core>) {
        self.set_timer(core, HANDSHAKE_TIME_MAX, Link::give_up_handshake);
        self.flush_now(core);
    }

    fn give_up_handshake(self: &Rc<Link>, core: &Core) {
        if self.state.has(flag::HANDSHAKING) && !self.state.has(flag::LOST) {
            let error = io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no TLS handshake within {} s", HANDSHAKE_TIME_MAX.as_secs()),
            );
            self.close_with(core, error);
        }
    }

    /// Takes one helping of ciphertext from the stream.
    fn receive_ciphertext(self: &Rc<Link>, core: &Rc<Core>) -> Received {
        let result = {
            let stream = self.stream.borrow();
            let mut session = self.extras().session.borrow_mut();
            let (Some(stream), Some(session)) = (&*stream, &mut *session) else {
                return Received::Nothing;
            };
            match session.read_tls(&mut &*stream) {
                Err(error) => Err(ConnectionLost::Failed(Arc::new(error))),
                Ok(count) => match session.process_new_packets() {
                    Ok(_) => Ok(count),
                    Err(error) => Err(ConnectionLost::Tls(Arc::new(error))),
                },
            }
        };
        match result {
            Ok(0) => Received::End,
            Ok(_) => Received::Something,
            Err(ConnectionLost::Failed(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Received::Nothing
            }
            Err(ConnectionLost::Failed(error)) if error.kind() == io::ErrorKind::Interrupted => {
                Received::Something
            }
            Err(reason) => {
                // rustls may have an alert for the peer. It goes out if it can; the connection is
                // over in either case.
                let _ = self.send_encrypted();
                if self.state.has(flag::HANDSHAKING) {
                    log::debug!("TLS handshake with {} failed: {reason:?}", self.peer());
                }
                self.close(core, reason);
                Received::Nothing
            }
        }
    }

    /// Sends what rustls has for the peer and what it makes of the backlog.
    pub(super) fn send_encrypted(self: &Rc<Link>) -> io::Result<()> {
        let stream = self.stream.borrow();
        let mut session = self.extras().session.borrow_mut();
        let (Some(stream), Some(session)) = (&*stream, &mut *session) else { return Ok(()) };
        let mut backlog = self.extras().backlog.borrow_mut();
        let mut encrypted_bytes = 0;
        loop {
            while session.wants_write() && !self.state.has(flag::WRITE_BLOCKED) {
                match session.write_tls(&mut &*stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.state.set(flag::WRITE_BLOCKED);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if self.state.has(flag::HANDSHAKING | flag::WRITE_BLOCKED) {
                return Ok(());
            }
            if backlog.is_empty() {
                self.state.clear(flag::HAS_BACKLOG);
                return Ok(());
            }
            if encrypted_bytes >= ENCRYPTED_BYTES_PER_TURN {
                self.leave_over();
                return Ok(());
            }
            let count = session.writer().write(backlog.front())?;
            backlog.consume(count);
            encrypted_bytes += count;
        }
    }

    /// Tells the peer, within TLS, that nothing more will be sent. Returns whether that is done.
    pub(super) fn close_notify(self: &Rc<Link>) -> io::Result<bool> {
        if let Some(session) = &mut *self.extras().session.borrow_mut()
            && !self.state.has(flag::CLOSE_NOTIFIED)
        {
            self.state.set(flag::CLOSE_NOTIFIED);
            session.send_close_notify();
        }
        self.send_encrypted()?;
        Ok(!self.has_unsent_ciphertext())
    }

    pub(super) fn has_unsent_ciphertext(&self) -> bool {
        self.extras().session.borrow().as_ref().is_some_and(|session| session.wants_write())
    }
}

/// What came of reading ciphertext.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Received {
    /// The stream is at its end.
    End,
    /// There is nothing for now, or the connection is over.
    Nothing,
    Something,
}

impl Transport {
    /// Reads, decrypts and delivers, with the same bounds as without TLS.
    #[inline(never)]
    pub(super) fn read_encrypted(&self, core: &Rc<Core>, buffers: &mut Buffers) {
        let link = &self.link;
        for _ in 0..READS_PER_TURN {
            if !self.deliver_plaintext(core, buffers) {
                return;
            }
            match link.receive_ciphertext(core) {
                Received::Nothing => return link.state.clear(flag::MAYBE_READABLE),
                Received::End => return self.finish_ciphertext(core, buffers),
                Received::Something => {}
            }
            self.follow_handshake(core);
        }
        link.read_later(core);
    }

    /// Delivers what has been decrypted. Returns whether to go on reading.
    fn deliver_plaintext(&self, core: &Rc<Core>, buffers: &mut Buffers) -> bool {
        let link = &self.link;
        loop {
            if link.state.has(NOT_READING) {
                return false;
            }
            let result = match &mut *link.extras().session.borrow_mut() {
                Some(session) => session.reader().read(&mut buffers.scratch),
                None => return false,
            };
            match result {
                Ok(0) => {
                    self.finish_reading(core);
                    return false;
                }
                Ok(count) => {
                    let data = &buffers.scratch[..count];
                    self.call(core, "data_received", |protocol, transport| {
                        protocol.data_received(transport, data);
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    link.close_with(core, error);
                    return false;
                }
            }
        }
    }

    /// The stream is at its end. Without a note inside TLS that this is meant, bytes may be missing,
    /// and that is what reading on reports.
    fn finish_ciphertext(&self, core: &Rc<Core>, buffers: &mut Buffers) {
        self.link.state.clear(flag::MAYBE_READABLE);
        if self.deliver_plaintext(core, buffers) {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            self.link.close_with(core, error);
        }
    }

    /// Answers the peer, and tells the protocol once the handshake is done.
    fn follow_handshake(&self, core: &Rc<Core>) {
        let link = &self.link;
        let Some((is_handshaking, wants_write)) =
            link.extras().session.borrow().as_ref().map(|s| (s.is_handshaking(), s.wants_write()))
        else {
            return;
        };
        if wants_write {
            link.flush_later();
        }
        if link.state.has(flag::HANDSHAKING) && !is_handshaking {
            link.state.clear(flag::HANDSHAKING);
            let timer = core.timers.borrow_mut().remove(link.extras().timer.get());
            drop(timer);
            link.make(core);
        }
    }
}

/// A peer that has not come to the end of its handshake by then is cut off. People on slow links
/// need two or three seconds.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// What one connection may have encrypted in one flush: some 100 microseconds.
const ENCRYPTED_BYTES_PER_TURN: usize = 256 * 1024;
