//! The state of one connection, behind every clone of its [`Transport`].
//!
//! A link is a small state machine between a [`Stream`] and a [`Protocol`]. This file holds its
//! state, how it begins and how it ends; `incoming.rs` holds how it is served when the stream is ready,
//! `outgoing.rs` what happens to bytes on their way out.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use super::Transport;
use super::buffer::Backlog;
use super::incoming::NOT_DELIVERING;
use super::meter::Meter;
use super::outbox::Outbox;
use super::outgoing::Feeding;
use super::stream::Stream;
use super::tls::Session;
use super::unix::{PeerCredentials, SendDescriptorError};
use crate::address::{Address, UnixAddress};
use crate::context::LogContext;
use crate::core::{Core, Source};
use crate::protocol::{ConnectionLost, Protocol};
use crate::ready::Job;
use crate::slots::Key;
use crate::teardown::dropping;

pub(crate) struct Link {
    pub(super) outbox: Rc<Outbox>,
    pub(super) key: Cell<Key>,
    pub(super) state: State,
    /// How many of its bytes lie in the outbox, in one piece,
    pub(super) gathered_bytes: Cell<u32>,
    /// and where they begin.
    pub(super) gathered_start: Cell<usize>,
    /// `None` once the connection has ended.
    pub(super) stream: RefCell<Option<Stream>>,
    /// Out of its place while one of its methods runs, and once it has been told of the end.
    pub(super) protocol: Cell<Option<Box<dyn Protocol>>>,
    pub(super) context: LogContext,
    peer: Address,
    extras: OnceCell<Box<Extras>>,
}

/// What not every connection needs, and an idle one least: it costs memory only where it is used.
pub(super) struct Extras {
    /// Bytes that could not be sent yet, or are too many for the outbox.
    pub(super) backlog: RefCell<Backlog>,
    pub(super) session: RefCell<Option<Box<Session>>>,
    pub(super) feeding: RefCell<Option<Feeding>>,
    pub(super) high_water_bytes: Cell<usize>,
    pub(super) low_water_bytes: Cell<usize>,
    /// Policies that hold back reading.
    pub(super) holds: Cell<u32>,
    pub(super) meters: RefCell<Vec<Rc<dyn Meter>>>,
    connecting: Cell<Option<Box<Connecting>>>,
    /// Ends a handshake, or lingering, that takes too long.
    pub(super) timer: Cell<Key>,
    local: OnceCell<Address>,
}

/// What is to be done once the connection stands, or will never stand.
struct Connecting {
    /// Gives the protocol, if that was not there from the start.
    claim: Option<Claim>,
    told: Box<dyn FnOnce(Result<Transport, ConnectionLost>)>,
}

type Claim = Box<dyn FnOnce() -> Option<Box<dyn Protocol>>>;

impl Default for Extras {
    fn default() -> Extras {
        Extras {
            backlog: RefCell::default(),
            session: RefCell::default(),
            feeding: RefCell::default(),
            high_water_bytes: Cell::new(HIGH_WATER_BYTES),
            low_water_bytes: Cell::new(LOW_WATER_BYTES),
            holds: Cell::new(0),
            meters: RefCell::default(),
            connecting: Cell::default(),
            timer: Cell::new(Key::NONE),
            local: OnceCell::new(),
        }
    }
}

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
    /// The backlog holds something.
    pub(crate) const HAS_BACKLOG: u32 = 1 << 15;
    /// What is sent and received is encrypted.
    pub(crate) const TLS: u32 = 1 << 16;
    /// The TLS handshake is not done, so that the protocol has not been told of the connection.
    pub(crate) const HANDSHAKING: u32 = 1 << 17;
    /// The peer has been told, within TLS, that nothing more will be sent.
    pub(crate) const CLOSE_NOTIFIED: u32 = 1 << 18;
    /// It is over for the protocol, but the stream is kept until the peer has had everything.
    pub(crate) const LINGERING: u32 = 1 << 19;
    /// The context was made for this connection, and is finished with it.
    pub(crate) const OWNS_CONTEXT: u32 = 1 << 20;
    /// The protocol holds bytes that it wants to be called for, with an empty slice, once reading goes on.
    pub(crate) const HOLDS_BACK: u32 = 1 << 21;
    /// Descriptors may come with the bytes that are read.
    pub(crate) const CARRIES_DESCRIPTORS: u32 = 1 << 22;
    /// A policy holds back reading.
    pub(crate) const READ_HELD: u32 = 1 << 23;
    /// A policy bounds or watches what is sent.
    pub(crate) const METERED: u32 = 1 << 24;
    /// A thread is having the system send a stretch of a file; what is written goes behind it.
    pub(crate) const SENDING_FILE: u32 = 1 << 25;
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

/// What a link is made of.
pub(crate) struct Setup {
    pub(crate) stream: Stream,
    pub(crate) peer: Address,
    pub(crate) protocol: Box<dyn Protocol>,
    pub(crate) context: LogContext,
    /// The TLS session to be put on the stream, if any.
    pub(crate) session: Option<Session>,
}

impl Link {
    /// Puts a protocol on a stream that is connected. The protocol is told so now, or once the TLS
    /// handshake is done.
    ///
    /// The context is taken to be this connection's own.
    pub(crate) fn establish(core: &Rc<Core>, setup: Setup) -> io::Result<Rc<Link>> {
        let link = Link::insert(core, setup, flag::OWNS_CONTEXT)?;
        link.stream_connected(core);
        Ok(link)
    }

    /// As [`establish`](Link::establish), in a context that is not this connection's own.
    pub(crate) fn establish_in_shared_context(
        core: &Rc<Core>,
        setup: Setup,
    ) -> io::Result<Rc<Link>> {
        let link = Link::insert(core, setup, 0)?;
        link.stream_connected(core);
        Ok(link)
    }

    /// Puts a protocol on a stream that is connected, at the word of somebody else's code: the protocol is
    /// told so after that has returned.
    pub(crate) fn establish_soon(
        core: &Rc<Core>,
        setup: Setup,
        owns_context: bool,
    ) -> io::Result<Rc<Link>> {
        let flags = if owns_context { flag::OWNS_CONTEXT } else { 0 };
        let link = Link::insert(core, setup, flags | flag::CONNECTING | flag::WRITE_BLOCKED)?;
        let soon = Rc::clone(&link);
        core.ready.push(Job::in_context(link.context.clone(), move || {
            let Some(core) = soon.core().filter(|_| !soon.state.has(flag::LOST)) else { return };
            // An event may have come first.
            if soon.state.has(flag::CONNECTING) {
                soon.stream_connected(&core);
            }
            // What was written meanwhile, and what no edge will announce.
            soon.flush_later();
            if soon.state.has(flag::MAYBE_READABLE) {
                soon.read_later(&core);
            }
        }));
        Ok(link)
    }

    /// Puts a protocol on a stream that is being connected: that of the setup, or what `claim` gives
    /// when it is due. `told` hears how that went, after the protocol has.
    pub(crate) fn establish_later(
        core: &Rc<Core>,
        setup: Setup,
        claim: Option<Claim>,
        told: impl FnOnce(Result<Transport, ConnectionLost>) + 'static,
    ) -> io::Result<Rc<Link>> {
        let link = Link::insert(core, setup, flag::CONNECTING | flag::WRITE_BLOCKED)?;
        link.extras().connecting.set(Some(Box::new(Connecting { claim, told: Box::new(told) })));
        Ok(link)
    }

    fn insert(core: &Rc<Core>, setup: Setup, mut flags: u32) -> io::Result<Rc<Link>> {
        let Setup { stream, peer, protocol, context, session } = setup;
        if session.is_some() {
            flags |= flag::TLS | flag::HANDSHAKING;
        } else if stream.carries_descriptors() {
            flags |= flag::CARRIES_DESCRIPTORS;
        }
        if !stream.is_drained_by_short_read() {
            // Which is what this says.
            flags |= flag::PEER_CLOSING;
        }
        let link = Rc::new(Link {
            outbox: Rc::clone(&core.outbox),
            key: Cell::new(Key::NONE),
            state: State::new(flags),
            gathered_bytes: Cell::new(0),
            gathered_start: Cell::new(0),
            stream: RefCell::new(Some(stream)),
            protocol: Cell::new(Some(protocol)),
            context,
            peer,
            extras: OnceCell::new(),
        });
        if let Some(session) = session {
            link.extras().session.replace(Some(Box::new(session)));
        }
        let transport = Transport::new(Rc::clone(&link));
        let key = core.sources.borrow_mut().insert(Source::Link(transport));
        link.key.set(key);
        let registered = match &mut *link.stream.borrow_mut() {
            Some(stream) => core.backend.register_stream(stream, key),
            None => Ok(()),
        };
        if let Err(error) = registered {
            link.state.set(flag::LOST);
            core.sources.borrow_mut().remove(key);
            return Err(error);
        }
        core.counters.connections_opened.add(1);
        Ok(link)
    }

    pub(super) fn core(&self) -> Option<Rc<Core>> {
        self.outbox.core()
    }

    fn take_connecting(&self) -> Option<Box<Connecting>> {
        self.extras_if_any()?.connecting.take()
    }

    /// Returns what is kept apart, and makes it if it isn't there.
    pub(super) fn extras(&self) -> &Extras {
        self.extras.get_or_init(Box::default)
    }

    /// Returns what is kept apart, if anything is.
    #[inline]
    pub(super) fn extras_if_any(&self) -> Option<&Extras> {
        self.extras.get().map(|extras| &**extras)
    }

    pub(super) fn finish_connecting(self: &Rc<Link>, core: &Rc<Core>) {
        let error = match &*self.stream.borrow() {
            Some(stream) => match stream.take_error() {
                Ok(None) => stream.check_connected().err(),
                Ok(Some(error)) | Err(error) => Some(error),
            },
            None => return,
        };
        match error {
            None => self.stream_connected(core),
            // An edge that came early, as spurious ones may.
            Some(error) if is_still_connecting(&error) => {}
            Some(error) => self.close(core, ConnectionLost::Failed(Arc::new(error))),
        }
    }

    fn stream_connected(self: &Rc<Link>, core: &Rc<Core>) {
        self.state.clear(flag::CONNECTING | flag::WRITE_BLOCKED);
        if self.state.has(flag::TLS) {
            self.start_handshake(core);
        } else {
            self.make(core);
        }
    }

    /// Bytes can flow: tells the protocol, and then whoever waits for the connection.
    pub(super) fn make(self: &Rc<Link>, core: &Rc<Core>) {
        let mut connecting = self.take_connecting();
        if let Some(claim) = connecting.as_mut().and_then(|connecting| connecting.claim.take()) {
            let mut protocol = None;
            let claimed = core.call("the supplier of a protocol", &self.context, || {
                protocol = claim();
            });
            if claimed.is_err() || protocol.is_none() {
                self.extras().connecting.set(connecting);
                self.reset_on_close();
                return self.close(core, ConnectionLost::Aborted);
            }
            self.protocol.set(protocol);
        }
        self.state.set(flag::MADE);
        let transport = Transport::new(Rc::clone(self));
        transport.call(core, "connection_made", |protocol, transport| {
            protocol.connection_made(transport);
        });
        if let Some(connecting) = connecting {
            // A panic has been logged; nobody else needs to know.
            let _ = core.call("a connected callback", &self.context, || {
                (connecting.told)(Ok(transport));
            });
        }
    }
}

// Steered from this side.

impl Link {
    pub(crate) fn pause_reading(&self) {
        self.state.set(flag::READ_PAUSED);
    }

    pub(crate) fn resume_reading(&self) {
        self.state.clear(flag::READ_PAUSED);
        self.read_on();
    }

    /// Has what came while nothing was read be read in the next turn.
    pub(super) fn read_on(&self) {
        if self.state.has(flag::MAYBE_READABLE | flag::HOLDS_BACK)
            && let Some(core) = self.core()
        {
            self.read_later(&core);
        }
    }

    pub(crate) fn is_delivering(&self) -> bool {
        !self.state.has(NOT_DELIVERING)
    }

    pub(crate) fn deliver_again(&self) {
        self.state.set(flag::HOLDS_BACK);
        if let Some(core) = self.core() {
            self.read_later(&core);
        }
    }

    pub(crate) fn abort_connection(self: &Rc<Link>) {
        if let Some(core) = self.core() {
            self.reset_on_close();
            self.close(&core, ConnectionLost::Aborted);
        }
    }

    /// Ends the connection because the reactor ends.
    pub(crate) fn shut_down(self: &Rc<Link>, core: &Core) {
        self.close(core, ConnectionLost::ReactorStopped);
        self.drop_stream(core);
    }

    pub(crate) fn peer(&self) -> &Address {
        &self.peer
    }

    pub(crate) fn local(&self) -> &Address {
        self.extras().local.get_or_init(|| {
            let address =
                self.stream.borrow().as_ref().and_then(|stream| stream.local_address().ok());
            address.unwrap_or_else(|| match self.peer {
                Address::Tcp(_) => Address::Tcp((Ipv4Addr::UNSPECIFIED, 0).into()),
                Address::Unix(_) => Address::Unix(UnixAddress::Unnamed),
                Address::Pipe => Address::Pipe,
            })
        })
    }

    /// A descriptor that is not taken is closed.
    pub(crate) fn send_descriptor(&self, descriptor: OwnedFd) -> Result<(), SendDescriptorError> {
        if self.state.has(flag::TLS) {
            return Err(SendDescriptorError::NotUnix);
        }
        match &*self.stream.borrow() {
            Some(stream) => stream.push_descriptor(descriptor),
            None => Ok(()),
        }
    }

    pub(crate) fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.stream.borrow().as_ref().and_then(Stream::peer_credentials)
    }

    /// Says, for people, what this connection is doing: peer, context, state, unsent bytes.
    pub(crate) fn inspect(&self) -> Vec<String> {
        let states = [
            (flag::CONNECTING, "connecting"),
            (flag::HANDSHAKING, "handshake"),
            (flag::TLS, "TLS"),
            (flag::READ_PAUSED, "reading is paused"),
            (flag::READ_FINISHED, "peer has finished"),
            (flag::WRITE_BLOCKED, "peer takes nothing"),
            (flag::PRODUCER_WAITS, "producer waits"),
            (flag::LOSING, "closing"),
            (flag::LINGERING, "lingering"),
        ];
        let states = states.iter().filter(|(flag, _)| self.state.has(*flag));
        let states: Vec<&str> = states.map(|(_, name)| *name).collect();
        let state = if states.is_empty() { "open".to_owned() } else { states.join(", ") };
        let unsent = self.buffered_bytes().to_string();
        vec![self.peer.to_string(), self.context.name().to_owned(), state, unsent]
    }

    pub(crate) fn is_connected(&self) -> bool {
        !self.state.has(flag::LOST | flag::LOSING | flag::CONNECTING | flag::HANDSHAKING)
    }
}

// Ending.

impl Link {
    /// Ends the connection now. The protocol and the producer hear of it after the current callback.
    #[inline(never)]
    pub(super) fn close(self: &Rc<Link>, core: &Core, reason: ConnectionLost) {
        if self.state.has(flag::LOST) {
            return;
        }
        self.end(core, reason);
        self.drop_stream(core);
    }

    /// Ends the connection for this side, without yet closing the stream.
    pub(super) fn end(self: &Rc<Link>, core: &Core, reason: ConnectionLost) {
        self.state.set(flag::LOST);
        self.gathered_bytes.set(0);
        // What was written may be owned by anything; it goes after the current callback.
        let unsent =
            self.extras_if_any().map(|extras| (extras.backlog.take(), extras.session.take()));
        self.dismiss_producer(core);
        let link = Rc::clone(self);
        core.ready.push(Job::in_context(self.context.clone(), move || {
            if let Some((_, Some(mut session))) = unsent {
                session.end(&reason);
            }
            link.tell_lost(reason);
        }));
    }

    pub(super) fn drop_stream(&self, core: &Core) {
        self.state.clear(flag::LINGERING);
        // Closing the descriptor also ends its registration; an event that the system has reported
        // already finds its key gone.
        drop(self.stream.take());
        let source = core.sources.borrow_mut().remove(self.key.get());
        if source.is_some() {
            core.counters.connections_closed.add(1);
        }
        drop(source);
        if let Some(extras) = self.extras_if_any() {
            let timer = core.timers.borrow_mut().remove(extras.timer.get());
            drop(timer);
        }
    }

    /// Closes the stream of a process that dies.
    pub(crate) fn drop_stream_unheard(&self) {
        self.state.set(flag::LOST);
        drop(self.stream.take());
    }

    /// Drops all that the connection owns, its protocol too, without telling any of it.
    pub(crate) fn forget(&self) {
        dropping("a protocol", self.protocol.take());
        if let Some(extras) = self.extras_if_any() {
            dropping("a connected callback", extras.connecting.take());
            dropping("a producer", extras.feeding.take());
            dropping("unsent bytes", (extras.backlog.take(), extras.session.take()));
        }
    }

    #[cold]
    pub(super) fn close_with(self: &Rc<Link>, core: &Core, error: io::Error) {
        self.close(core, ConnectionLost::Failed(Arc::new(error)));
    }

    #[cold]
    pub(super) fn close_failed(self: &Rc<Link>, core: &Core) {
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
        if let Some(connecting) = self.take_connecting() {
            (connecting.told)(Err(reason.clone()));
        }
        if let Some(mut protocol) = self.protocol.take()
            && self.state.has(flag::MADE)
        {
            protocol.connection_lost(reason);
        }
        if self.state.has(flag::OWNS_CONTEXT) {
            self.context.finish();
        }
    }

    pub(super) fn reset_on_close(&self) {
        if let Some(stream) = &*self.stream.borrow() {
            stream.reset_on_close();
        }
    }
}

fn is_still_connecting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected || error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// More unsent bytes than this pause a push producer.
const HIGH_WATER_BYTES: usize = 64 * 1024;

/// Fewer resume it: enough to keep the network busy until it has written again.
const LOW_WATER_BYTES: usize = 16 * 1024;
