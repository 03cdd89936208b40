//! The state of one connection, behind every clone of its [`Transport`].
//!
//! A link is a small state machine between a [`Stream`] and a [`Protocol`]. This file holds its
//! state, how it is served when the stream is ready, and how it ends; `outgoing.rs` holds what
//! happens to bytes on their way out.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::Transport;
use super::buffer::Outbound;
use super::outgoing::Feeding;
use super::stream::Stream;
use crate::backend::Readiness;
use crate::context::LogContext;
use crate::core::{Core, Source};
use crate::protocol::{Address, ConnectionLost, Protocol};
use crate::ready::Job;
use crate::slots::Key;
use crate::turn::Buffers;

pub(crate) struct Link {
    pub(super) core: Weak<Core>,
    pub(super) key: Cell<Key>,
    pub(super) state: State,
    /// `None` once the connection has ended.
    pub(super) stream: RefCell<Option<Stream>>,
    pub(super) out: RefCell<Outbound>,
    /// Out of its place while one of its methods runs, and once it has been told of the end.
    protocol: Cell<Option<Box<dyn Protocol>>>,
    context: LogContext,
    pub(super) feeding: RefCell<Option<Feeding>>,
    pub(super) high_water_bytes: Cell<usize>,
    pub(super) low_water_bytes: Cell<usize>,
    connecting: Cell<Option<Connected>>,
    peer: Address,
    local: OnceCell<Address>,
}

/// What is told how connecting went.
type Connected = Box<dyn FnOnce(Result<Transport, ConnectionLost>)>;

/// Facts about a link; see [`flag`].
pub(super) struct State(Cell<u32>);

/// The facts, one bit each.
pub(super) mod flag {
    /// The stream isn't connected yet.
    pub(crate) const CONNECTING: u32 = 1;
    /// `connection_made` was called, so that `connection_lost` will be.
    pub(crate) const MADE: u32 = 1 << 1;
    /// It is over; the stream is dropped.
    pub(crate) const LOST: u32 = 1 << 2;
    /// Somebody on this side has asked not to read for now.
    pub(crate) const READ_PAUSED: u32 = 1 << 3;
    /// The stream may hold bytes that no edge will announce again.
    pub(crate) const MAYBE_READABLE: u32 = 1 << 4;
    /// The peer has finished or the stream failed, so that a short read does not mean drained.
    pub(crate) const PEER_CLOSING: u32 = 1 << 5;
    /// Reading came to the peer's end.
    pub(crate) const READ_FINISHED: u32 = 1 << 6;
    /// It stands on the core's list of unread sources.
    pub(crate) const ON_UNREAD_LIST: u32 = 1 << 7;
    /// It stands on the core's list of unsent connections.
    pub(crate) const ON_UNSENT_LIST: u32 = 1 << 8;
    /// The stream takes nothing until it reports that it is writable.
    pub(crate) const WRITE_BLOCKED: u32 = 1 << 9;
    /// The connection is to be closed once everything is sent.
    pub(crate) const LOSING: u32 = 1 << 10;
    /// Writing is to be finished once everything is sent.
    pub(crate) const LOSING_WRITE: u32 = 1 << 11;
    /// Writing is finished, and the peer has been told.
    pub(crate) const WRITE_FINISHED: u32 = 1 << 12;
    /// A producer is registered.
    pub(crate) const HAS_PRODUCER: u32 = 1 << 13;
    /// The push producer was told to pause, or the pull producer has been asked.
    pub(crate) const PRODUCER_WAITS: u32 = 1 << 14;
}

impl State {
    fn new(flags: u32) -> State {
        State(Cell::new(flags))
    }

    #[inline]
    pub(super) fn has(&self, flags: u32) -> bool {
        self.0.get() & flags != 0
    }

    #[inline]
    pub(super) fn set(&self, flags: u32) {
        self.0.set(self.0.get() | flags);
    }

    #[inline]
    pub(super) fn clear(&self, flags: u32) {
        self.0.set(self.0.get() & !flags);
    }
}

// Beginning.

impl Link {
    /// Puts a protocol on a stream that is connected, and tells it so.
    pub(crate) fn establish(
        core: &Rc<Core>,
        stream: Stream,
        peer: SocketAddr,
        protocol: Box<dyn Protocol>,
        context: LogContext,
    ) -> io::Result<Rc<Link>> {
        let link = Link::insert(core, stream, peer, protocol, context, 0)?;
        link.make(core);
        Ok(link)
    }

    /// Puts a protocol on a stream that is being connected. `told` hears how that went, after the
    /// protocol has.
    pub(crate) fn establish_later(
        core: &Rc<Core>,
        stream: Stream,
        peer: SocketAddr,
        protocol: Box<dyn Protocol>,
        context: LogContext,
        told: impl FnOnce(Result<Transport, ConnectionLost>) + 'static,
    ) -> io::Result<Rc<Link>> {
        let flags = flag::CONNECTING | flag::WRITE_BLOCKED;
        let link = Link::insert(core, stream, peer, protocol, context, flags)?;
        link.connecting.set(Some(Box::new(told)));
        Ok(link)
    }

    fn insert(
        core: &Rc<Core>,
        stream: Stream,
        peer: SocketAddr,
        protocol: Box<dyn Protocol>,
        context: LogContext,
        flags: u32,
    ) -> io::Result<Rc<Link>> {
        let link = Rc::new(Link {
            core: Rc::downgrade(core),
            key: Cell::new(Key::NONE),
            state: State::new(flags),
            stream: RefCell::new(Some(stream)),
            out: RefCell::new(Outbound::new()),
            protocol: Cell::new(Some(protocol)),
            context,
            feeding: RefCell::new(None),
            high_water_bytes: Cell::new(HIGH_WATER_BYTES),
            low_water_bytes: Cell::new(LOW_WATER_BYTES),
            connecting: Cell::new(None),
            peer: Address::Tcp(peer),
            local: OnceCell::new(),
        });
        let key = core.sources.borrow_mut().insert(Source::Link(Rc::clone(&link)));
        link.key.set(key);
        let registered = match &mut *link.stream.borrow_mut() {
            Some(stream) => core.backend.register_stream(stream, key),
            None => Ok(()),
        };
        if let Err(error) = registered {
            core.sources.borrow_mut().remove(key);
            return Err(error);
        }
        Ok(link)
    }

    fn make(self: &Rc<Link>, core: &Core) {
        self.state.clear(flag::CONNECTING | flag::WRITE_BLOCKED);
        self.state.set(flag::MADE);
        self.call(core, "connection_made", |protocol, transport| {
            protocol.connection_made(transport);
        });
    }

    fn finish_connecting(self: &Rc<Link>, core: &Rc<Core>) {
        let error = match &*self.stream.borrow() {
            Some(stream) => match stream.take_error() {
                Ok(None) => stream.peer_address().err(),
                Ok(Some(error)) | Err(error) => Some(error),
            },
            None => return,
        };
        match error {
            None => {
                let told = self.connecting.take();
                self.make(core);
                if let Some(told) = told {
                    let transport = Transport::new(Rc::clone(self));
                    let _ =
                        core.call("a connected callback", &self.context, || told(Ok(transport)));
                }
            }
            // An edge that came early, as spurious ones may.
            Some(error) if is_still_connecting(&error) => {}
            Some(error) => self.close(core, ConnectionLost::Failed(Arc::new(error))),
        }
    }
}

// Being served by the loop.

impl Link {
    /// Does what the stream is ready for.
    #[inline]
    pub(crate) fn serve(
        self: &Rc<Link>,
        core: &Rc<Core>,
        readiness: Readiness,
        buffers: &mut Buffers,
    ) {
        if self.state.has(flag::CONNECTING) {
            if !readiness.has(Readiness::WRITABLE.and(Readiness::CLOSING)) {
                return;
            }
            self.finish_connecting(core);
        }
        if readiness.has(Readiness::WRITABLE) && self.state.has(flag::WRITE_BLOCKED) {
            self.state.clear(flag::WRITE_BLOCKED);
            self.flush(core);
        }
        if readiness.has(Readiness::UNREAD) {
            self.state.clear(flag::ON_UNREAD_LIST);
        }
        if readiness.has(Readiness::CLOSING) {
            self.state.set(flag::PEER_CLOSING);
        }
        if readiness.has(Readiness::READABLE) {
            self.state.set(flag::MAYBE_READABLE);
            self.read(core, buffers);
        }
        if readiness.has(Readiness::FAILED) && self.state.has(NOT_READING) {
            self.close_failed(core);
        }
    }

    /// Reads until there is nothing more, the protocol has had enough, or others must have theirs.
    fn read(self: &Rc<Link>, core: &Rc<Core>, buffers: &mut Buffers) {
        for _ in 0..READS_PER_TURN {
            if self.state.has(NOT_READING) {
                return;
            }
            let result = match &*self.stream.borrow() {
                Some(stream) => stream.read(&mut buffers.scratch),
                None => return,
            };
            match result {
                Ok(0) => return self.finish_reading(core),
                Ok(count) => {
                    let is_drained =
                        count < buffers.scratch.len() && !self.state.has(flag::PEER_CLOSING);
                    if is_drained {
                        self.state.clear(flag::MAYBE_READABLE);
                    }
                    let data = &buffers.scratch[..count];
                    self.call(core, "data_received", |protocol, transport| {
                        protocol.data_received(transport, data);
                    });
                    if is_drained {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.state.clear(flag::MAYBE_READABLE);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.close(core, ConnectionLost::Failed(Arc::new(error)));
                }
            }
        }
        self.read_later(core);
    }

    /// The peer will send no more.
    fn finish_reading(self: &Rc<Link>, core: &Rc<Core>) {
        self.state.set(flag::READ_FINISHED);
        self.state.clear(flag::MAYBE_READABLE);
        if self.state.has(flag::WRITE_FINISHED) {
            return self.close(core, ConnectionLost::Done);
        }
        self.call(core, "read_connection_lost", |protocol, transport| {
            protocol.read_connection_lost(transport);
        });
    }

    /// Puts the link on the list of those to be read in the next turn.
    fn read_later(&self, core: &Core) {
        if !self.state.has(NOT_READING | flag::ON_UNREAD_LIST) {
            self.state.set(flag::ON_UNREAD_LIST);
            core.unread.borrow_mut().push_back(self.key.get());
        }
    }

    /// Calls the protocol. Should it panic, it is told of the end and nothing else.
    #[inline]
    fn call(
        self: &Rc<Link>,
        core: &Core,
        what: &'static str,
        f: impl FnOnce(&mut dyn Protocol, &Transport),
    ) {
        let Some(mut protocol) = self.protocol.take() else { return };
        let transport = Transport::new(Rc::clone(self));
        let result = core.call(what, &self.context, || f(&mut *protocol, &transport));
        self.protocol.set(Some(protocol));
        if result.is_err() {
            self.reset_on_close();
            self.close(core, ConnectionLost::ProtocolPanicked);
        }
    }
}

/// Why a link does not read.
const NOT_READING: u32 =
    flag::LOST | flag::READ_PAUSED | flag::READ_FINISHED | flag::LOSING | flag::CONNECTING;

// Steered from this side.

impl Link {
    pub(crate) fn pause_reading(&self) {
        self.state.set(flag::READ_PAUSED);
    }

    pub(crate) fn resume_reading(&self) {
        self.state.clear(flag::READ_PAUSED);
        if self.state.has(flag::MAYBE_READABLE)
            && let Some(core) = self.core.upgrade()
        {
            self.read_later(&core);
        }
    }

    pub(crate) fn abort_connection(self: &Rc<Link>) {
        if let Some(core) = self.core.upgrade() {
            self.reset_on_close();
            self.close(&core, ConnectionLost::Aborted);
        }
    }

    /// Ends the connection because the reactor ends.
    pub(crate) fn shut_down(self: &Rc<Link>, core: &Core) {
        self.close(core, ConnectionLost::ReactorStopped);
    }

    pub(crate) fn peer(&self) -> &Address {
        &self.peer
    }

    pub(crate) fn local(&self) -> &Address {
        self.local.get_or_init(|| {
            let address =
                self.stream.borrow().as_ref().and_then(|stream| stream.local_address().ok());
            Address::Tcp(address.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into()))
        })
    }

    pub(crate) fn is_connected(&self) -> bool {
        !self.state.has(flag::LOST | flag::LOSING | flag::CONNECTING)
    }
}

// Ending.

impl Link {
    /// Ends the connection now. The protocol and the producer hear of it after the current callback.
    pub(super) fn close(self: &Rc<Link>, core: &Core, reason: ConnectionLost) {
        if self.state.has(flag::LOST) {
            return;
        }
        self.state.set(flag::LOST);
        // Closing the descriptor also ends its registration; an event that the system has reported
        // already finds its key gone.
        drop(self.stream.take());
        core.sources.borrow_mut().remove(self.key.get());
        // What was written may be owned by anything; it goes with no borrow held.
        drop(self.out.replace(Outbound::new()));
        self.dismiss_producer(core);
        let link = Rc::clone(self);
        core.ready.push(Job::in_context(self.context.clone(), move || link.tell_lost(reason)));
    }

    fn close_failed(self: &Rc<Link>, core: &Core) {
        let error = match &*self.stream.borrow() {
            Some(stream) => stream.take_error().and_then(|error| match error {
                Some(error) => Err(error),
                None => Ok(()),
            }),
            None => return,
        };
        let error = error.err().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        self.close(core, ConnectionLost::Failed(Arc::new(error)));
    }

    fn tell_lost(&self, reason: ConnectionLost) {
        if let Some(told) = self.connecting.take() {
            told(Err(reason.clone()));
        }
        let Some(mut protocol) = self.protocol.take() else { return };
        if self.state.has(flag::MADE) {
            protocol.connection_lost(reason);
        }
    }

    fn reset_on_close(&self) {
        if let Some(stream) = &*self.stream.borrow() {
            stream.reset_on_close();
        }
    }
}

fn is_still_connecting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected || error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Reads of one connection in one turn; together 256 KiB, some 50 microseconds of copying.
const READS_PER_TURN: usize = 4;

/// More unsent bytes than this pause a push producer.
const HIGH_WATER_BYTES: usize = 64 * 1024;

/// Fewer resume it: enough to keep the network busy until it has written again.
const LOW_WATER_BYTES: usize = 16 * 1024;
