//! TLS on a connection: rustls between the stream and the protocol.
//!
//! Owns the order of things (handshake, ciphertext before plaintext, closing notes); rustls owns
//! what they contain.

use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::Transport;
use super::buffer::Backlog;
use super::incoming::{NOT_READING, READS_PER_TURN};
use super::link::{Link, State, flag};
use super::stream::Stream;
use crate::core::Core;
use crate::deferred::{Deferred, Resolver};
use crate::protocol::ConnectionLost;
use crate::tls::{StartTlsError, TlsInfo};
use crate::turn::Buffers;

/// TLS on one stream.
pub(crate) struct Session {
    tls: rustls::Connection,
    /// The name that this end has asked for, if it is the client.
    server_name: Option<Box<str>>,
    handshake_limit: Duration,
    /// How many bytes at the front of the backlog were written before TLS was begun, and are sent as
    /// they are.
    clear_bytes: usize,
    /// Ciphertext that was read and is not decrypted yet, because nothing is to be delivered.
    left_over: Vec<u8>,
    /// Who waits for the end of a handshake that was begun in mid-connection.
    started: Option<Resolver<()>>,
}

impl Session {
    /// Makes the server's end.
    pub(crate) fn server(
        config: Arc<rustls::ServerConfig>,
        handshake_limit: Duration,
    ) -> Result<Session, rustls::Error> {
        let tls = rustls::ServerConnection::new(config)?.into();
        Ok(Session {
            tls,
            server_name: None,
            handshake_limit,
            clear_bytes: 0,
            left_over: Vec::new(),
            started: None,
        })
    }

    /// Makes the client's end.
    pub(crate) fn client(
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Session, rustls::Error> {
        let server_name = Some(name.to_str().into());
        let tls = rustls::ClientConnection::new(config, name)?.into();
        let handshake_limit = HANDSHAKE_TIME_MAX;
        Ok(Session {
            tls,
            server_name,
            handshake_limit,
            clear_bytes: 0,
            left_over: Vec::new(),
            started: None,
        })
    }

    /// Tells whoever waits for the handshake that it comes to nothing.
    pub(super) fn end(&mut self, reason: &ConnectionLost) {
        if let Some(started) = self.started.take() {
            started.errback(reason.clone());
        }
    }

    fn info(&self) -> Option<TlsInfo> {
        let asked_for = match &self.tls {
            rustls::Connection::Client(_) => self.server_name.as_deref(),
            rustls::Connection::Server(server) => server.server_name(),
        };
        let peer_certificates = self.tls.peer_certificates().unwrap_or_default();
        Some(TlsInfo {
            protocol_version: self.tls.protocol_version()?,
            cipher_suite: self.tls.negotiated_cipher_suite()?.suite(),
            alpn: self.tls.alpn_protocol().map(<[u8]>::to_vec),
            server_name: asked_for.map(str::to_owned),
            peer_certificates: peer_certificates
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            is_resumed: self.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        })
    }

    /// Sends what is to go unencrypted. Returns whether all of it has gone.
    fn send_clear(
        &mut self,
        stream: &Stream,
        backlog: &mut Backlog,
        state: &State,
    ) -> io::Result<bool> {
        while self.clear_bytes > 0 && !state.has(flag::WRITE_BLOCKED) {
            let front = backlog.front();
            let count = front.len().min(self.clear_bytes);
            match stream.write(&front[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    backlog.consume(count);
                    self.clear_bytes -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.set(flag::WRITE_BLOCKED);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.clear_bytes == 0)
    }
}

impl Link {
    /// Begins the handshake, which must come to its end in time.
    pub(super) fn start_handshake(self: &Rc<Link>, core: &Rc<Core>) {
        let limit = self.extras().session.borrow().as_ref().map(|session| session.handshake_limit);
        if let Some(limit) = limit {
            self.set_timer(core, limit, move |link, core| link.give_up_handshake(core, limit));
        }
        if let Some(stream) = &*self.stream.borrow() {
            stream.begin_handshake();
        }
        self.flush_now(core);
    }

    /// Puts TLS on a connection on which bytes have flowed.
    fn start_tls(
        self: &Rc<Link>,
        session: Result<Session, rustls::Error>,
    ) -> Result<Deferred<()>, StartTlsError> {
        let core = self.core().ok_or(StartTlsError::NotConnected)?;
        if self.state.has(
            flag::CONNECTING | flag::LOST | flag::LOSING | flag::LOSING_WRITE | flag::READ_FINISHED,
        ) {
            return Err(StartTlsError::NotConnected);
        }
        if self.state.has(flag::TLS) {
            return Err(StartTlsError::Already);
        }
        let mut session = session.map_err(|error| StartTlsError::Setup(Arc::new(error)))?;
        // What was written so far goes first, and what cannot go yet lies in the backlog then.
        self.flush_now(&core);
        if self.state.has(flag::LOST) {
            return Err(StartTlsError::NotConnected);
        }
        let (deferred, resolver) = Deferred::new();
        session.clear_bytes = self.extras().backlog.borrow().len();
        session.started = Some(resolver);
        self.extras().session.replace(Some(Box::new(session)));
        self.state.set(flag::TLS | flag::HANDSHAKING);
        self.start_handshake(&core);
        Ok(deferred)
    }

    fn give_up_handshake(self: &Rc<Link>, core: &Core, limit: Duration) {
        if self.state.has(flag::HANDSHAKING) && !self.state.has(flag::LOST) {
            let error = io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no TLS handshake within {} s", limit.as_secs_f64()),
            );
            self.close_with(core, error);
        }
    }

    /// Takes one helping of ciphertext from the stream.
    fn receive_ciphertext(&self, core: &Core, buffer: &mut [u8]) -> io::Result<Received> {
        let result = match &*self.stream.borrow() {
            Some(stream) => stream.read(buffer),
            None => return Ok(Received::Nothing),
        };
        match result {
            Ok(0) => Ok(Received::End),
            Ok(count) => {
                core.counters.reads.add(1);
                core.counters.bytes_in.add(count);
                // A read that leaves room in the buffer has taken everything.
                let is_all = count < buffer.len() && !self.state.has(flag::PEER_CLOSING);
                Ok(Received::Something { count, is_all })
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                io::ErrorKind::Interrupted => Ok(Received::Something { count: 0, is_all: false }),
                _ => Err(error),
            },
        }
    }

    /// Has rustls take some of the ciphertext, or hear of its end if there is none. Returns how much it
    /// took; nothing if the connection is over.
    fn decrypt(self: &Rc<Link>, core: &Rc<Core>, mut ciphertext: &[u8]) -> usize {
        let result = match &mut *self.extras().session.borrow_mut() {
            Some(session) => match session.tls.read_tls(&mut ciphertext) {
                Err(error) => Err(ConnectionLost::Failed(Arc::new(error))),
                Ok(count) => match session.tls.process_new_packets() {
                    Ok(_) => Ok(count),
                    Err(error) => Err(ConnectionLost::Tls(Arc::new(error))),
                },
            },
            None => return 0,
        };
        result.unwrap_or_else(|reason| {
            // rustls may have an alert for the peer. It goes out if it can; the connection is over in
            // either case.
            let _ = self.send_encrypted();
            if self.state.has(flag::HANDSHAKING) {
                log::debug!("TLS handshake with {} failed: {reason:?}", self.peer());
            }
            self.close(core, reason);
            0
        })
    }

    fn take_left_over(&self) -> Vec<u8> {
        match &mut *self.extras().session.borrow_mut() {
            Some(session) => std::mem::take(&mut session.left_over),
            None => Vec::new(),
        }
    }

    /// Keeps ciphertext that is not to be decrypted yet.
    fn leave_ciphertext(&self, ciphertext: &[u8]) {
        if let Some(session) = &mut *self.extras().session.borrow_mut()
            && !ciphertext.is_empty()
        {
            session.left_over = ciphertext.to_vec();
            self.state.set(flag::MAYBE_READABLE);
        }
    }

    /// Sends what rustls has for the peer and what it makes of the backlog.
    pub(super) fn send_encrypted(self: &Rc<Link>) -> io::Result<()> {
        let stream = self.stream.borrow();
        let mut session = self.extras().session.borrow_mut();
        let (Some(stream), Some(session)) = (&*stream, &mut *session) else { return Ok(()) };
        let mut backlog = self.extras().backlog.borrow_mut();
        if !session.send_clear(stream, &mut backlog, &self.state)? {
            return Ok(());
        }
        let session = &mut session.tls;
        let mut encrypted_bytes = 0;
        loop {
            while session.wants_write() && !self.state.has(flag::WRITE_BLOCKED) {
                match session.write_tls(&mut &*stream) {
                    Ok(count) => {
                        if let Some(core) = self.core() {
                            core.counters.bytes_out.add(count);
                        }
                    }
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
            let room = self.room();
            if room == 0 {
                // Whoever says so has it sent later.
                self.state.set(flag::WRITE_BLOCKED);
                return Ok(());
            }
            let front = backlog.front();
            let count = session.writer().write(&front[..front.len().min(room)])?;
            backlog.consume(count);
            self.tell_sent(count);
            encrypted_bytes += count;
        }
    }

    /// Tells the peer, within TLS, that nothing more will be sent. Returns whether that is done.
    pub(super) fn close_notify(self: &Rc<Link>) -> io::Result<bool> {
        if let Some(session) = &mut *self.extras().session.borrow_mut()
            && !self.state.has(flag::CLOSE_NOTIFIED)
        {
            self.state.set(flag::CLOSE_NOTIFIED);
            session.tls.send_close_notify();
        }
        self.send_encrypted()?;
        Ok(!self.has_unsent_ciphertext())
    }

    pub(super) fn has_unsent_ciphertext(&self) -> bool {
        self.extras().session.borrow().as_ref().is_some_and(|session| session.tls.wants_write())
    }
}

/// What came of reading ciphertext.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Received {
    /// The stream is at its end.
    End,
    /// There is nothing for now, or the connection is over.
    Nothing,
    Something {
        count: usize,
        /// Whether the stream is known to have no more.
        is_all: bool,
    },
}

impl Transport {
    /// Reads, decrypts and delivers, with the same bounds as without TLS.
    #[inline(never)]
    pub(super) fn read_encrypted(&self, core: &Rc<Core>, buffers: &mut Buffers) {
        let mut ciphertext = std::mem::take(&mut buffers.ciphertext);
        ciphertext.resize(CIPHERTEXT_BYTES, 0);
        self.read_through(core, &mut ciphertext, buffers);
        buffers.ciphertext = ciphertext;
        if self.link.state.has(flag::MAYBE_READABLE) {
            self.link.read_later(core);
        }
    }

    fn read_through(&self, core: &Rc<Core>, ciphertext: &mut [u8], buffers: &mut Buffers) {
        let link = &self.link;
        let left_over = link.take_left_over();
        if !self.take_ciphertext(core, &left_over, buffers) {
            return;
        }
        for _ in 0..READS_PER_TURN {
            match link.receive_ciphertext(core, ciphertext) {
                Err(error) => return link.close_with(core, error),
                Ok(Received::Nothing) => return link.state.clear(flag::MAYBE_READABLE),
                Ok(Received::End) => return self.finish_ciphertext(core, buffers),
                Ok(Received::Something { count, is_all }) => {
                    if is_all {
                        link.state.clear(flag::MAYBE_READABLE);
                    }
                    if !self.take_ciphertext(core, &ciphertext[..count], buffers) || is_all {
                        return;
                    }
                }
            }
        }
    }

    /// Decrypts and delivers, a piece at a time. Returns whether to go on reading.
    fn take_ciphertext(&self, core: &Rc<Core>, mut data: &[u8], buffers: &mut Buffers) -> bool {
        let link = &self.link;
        while !data.is_empty() {
            if !self.deliver_plaintext(core, buffers) {
                link.leave_ciphertext(data);
                return false;
            }
            let count = link.decrypt(core, data);
            if count == 0 {
                // It is over, or the peer has said within TLS that it has finished.
                break;
            }
            data = &data[count..];
            self.follow_handshake(core);
        }
        self.deliver_plaintext(core, buffers)
    }

    /// Delivers what has been decrypted. Returns whether to go on reading.
    fn deliver_plaintext(&self, core: &Rc<Core>, buffers: &mut Buffers) -> bool {
        let link = &self.link;
        loop {
            if link.state.has(NOT_READING) {
                return false;
            }
            let result = match &mut *link.extras().session.borrow_mut() {
                Some(session) => session.tls.reader().read(&mut buffers.scratch),
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
                // The stream is at its end. Without a note inside TLS that this is meant, bytes may
                // be missing.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && !link.state.has(flag::HANDSHAKING) =>
                {
                    link.close(core, ConnectionLost::Truncated);
                    return false;
                }
                Err(error) => {
                    link.close_with(core, error);
                    return false;
                }
            }
        }
    }

    /// The stream is at its end, which reading on reports.
    fn finish_ciphertext(&self, core: &Rc<Core>, buffers: &mut Buffers) {
        self.link.state.clear(flag::MAYBE_READABLE);
        self.link.decrypt(core, &[]);
        if self.deliver_plaintext(core, buffers) {
            self.link.close_with(core, io::ErrorKind::UnexpectedEof.into());
        }
    }

    /// Answers the peer, and tells the protocol once the handshake is done.
    fn follow_handshake(&self, core: &Rc<Core>) {
        let link = &self.link;
        let (is_handshaking, wants_write) = match &*link.extras().session.borrow() {
            Some(session) => (session.tls.is_handshaking(), session.tls.wants_write()),
            None => return,
        };
        if wants_write {
            link.flush_later();
        }
        if link.state.has(flag::HANDSHAKING) && !is_handshaking {
            link.state.clear(flag::HANDSHAKING);
            if let Some(stream) = &*link.stream.borrow() {
                stream.end_handshake(wants_write);
            }
            let timer = core.timers.borrow_mut().remove(link.extras().timer.get());
            drop(timer);
            if !link.state.has(flag::MADE) {
                return link.make(core);
            }
            if link.state.has(flag::HAS_BACKLOG) {
                link.flush_later();
            }
            let started = match &mut *link.extras().session.borrow_mut() {
                Some(session) => session.started.take(),
                None => None,
            };
            if let Some(started) = started {
                // A panic has been logged; nobody else needs to know.
                let _ = core.call("what follows a handshake", &link.context, || {
                    started.callback(());
                });
            }
        }
    }
}

impl Transport {
    /// Returns what was agreed on with the peer; `None` without TLS, before the end of the handshake,
    /// and once the connection has ended.
    #[must_use]
    pub fn tls(&self) -> Option<TlsInfo> {
        if self.link.state.has(flag::HANDSHAKING) {
            return None;
        }
        self.link.extras_if_any()?.session.borrow().as_ref()?.info()
    }

    /// Speaks TLS as the server from now on: what was written before goes out as it is, what is written
    /// from now on is encrypted, and so is what is delivered. In the tradition of `STARTTLS`.
    ///
    /// The deferred fires when the handshake is done. Until then nothing is delivered, and
    /// [`is_connected`](Transport::is_connected) is false.
    ///
    /// A peer that follows the protocol sends nothing between its wish for TLS and the handshake.
    /// Whatever `data_received` has got behind the wish was *not* protected: drop it, or better the
    /// connection.
    ///
    /// # Errors
    ///
    /// [`StartTlsError`](crate::tls::StartTlsError) at once; [`ConnectionLost`] if the connection ends
    /// before the handshake does.
    #[track_caller]
    pub fn start_tls_server(&self, config: Arc<rustls::ServerConfig>) -> Deferred<()> {
        self.start_tls(|| Session::server(config, HANDSHAKE_TIME_MAX))
    }

    /// Speaks TLS as the client from now on, with whoever proves to be `name`. Otherwise as
    /// [`start_tls_server`](Transport::start_tls_server).
    #[track_caller]
    pub fn start_tls_client(
        &self,
        name: ServerName<'static>,
        config: Arc<rustls::ClientConfig>,
    ) -> Deferred<()> {
        self.start_tls(|| Session::client(config, name))
    }

    #[track_caller]
    fn start_tls(&self, make: impl FnOnce() -> Result<Session, rustls::Error>) -> Deferred<()> {
        match self.link.start_tls(make()) {
            Ok(started) => started,
            Err(error) => Deferred::fail(error),
        }
    }
}

/// A peer that has not come to the end of its handshake by then is cut off, unless a port says
/// otherwise. People on slow links need two or three seconds.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Ciphertext that is read at a time: four records of the largest size.
const CIPHERTEXT_BYTES: usize = 64 * 1024;

/// What one connection may have encrypted in one flush: some 100 microseconds.
const ENCRYPTED_BYTES_PER_TURN: usize = 256 * 1024;
