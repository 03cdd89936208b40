//! [`ThrottledFactory`]: how fast bytes come and go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::bucket::Bucket;
use crate::address::Address;
use crate::context::LogContext;
use crate::protocol::{ConnectionLost, Factory, Protocol};
use crate::reactor::Reactor;
use crate::timers::DelayedCall;
use crate::transport::Transport;
use crate::transport::link::Link;
use crate::transport::meter::Meter;

/// A pace, and how much may come at once after a quiet time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bandwidth {
    /// The pace, one at least.
    pub bytes_per_second: u64,
    /// What may pass at once.
    pub burst_bytes: u64,
}

impl Bandwidth {
    /// Makes a pace with bursts of what passes in a second.
    #[must_use]
    pub const fn new(bytes_per_second: u64) -> Bandwidth {
        Bandwidth { bytes_per_second, burst_bytes: bytes_per_second }
    }

    fn bucket(self, reactor: &Reactor) -> Bucket {
        Bucket::new(self.bytes_per_second, self.burst_bytes, reactor.now())
    }
}

/// How fast bytes may come and go; where nothing is said, as fast as they can.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Throttle {
    /// What each connection may receive.
    pub receive_per_connection: Option<Bandwidth>,
    /// What all connections of the factory may receive together.
    pub receive_in_all: Option<Bandwidth>,
    /// What each connection may send.
    pub send_per_connection: Option<Bandwidth>,
    /// What all connections of the factory may send together.
    pub send_in_all: Option<Bandwidth>,
}

/// Slows connections down to a pace.
///
/// What is received too fast is delivered, and then nothing is read for as long as it should have taken:
/// the peer is slowed down once the system's buffers are full. What is sent too fast waits in memory, as
/// with any connection that does not take it, so that producers are paused. With TLS, bytes are counted
/// before they are encrypted.
pub struct ThrottledFactory {
    reactor: Reactor,
    inner: Rc<dyn Factory>,
    throttle: Throttle,
    receive_in_all: Option<Rc<Bucket>>,
    send_in_all: Option<Rc<SharedPace>>,
}

impl ThrottledFactory {
    /// Puts a pace around a factory.
    pub fn new(reactor: &Reactor, inner: Rc<dyn Factory>, throttle: Throttle) -> ThrottledFactory {
        let receive_in_all = throttle.receive_in_all;
        let send_in_all = throttle.send_in_all;
        ThrottledFactory {
            receive_in_all: receive_in_all.map(|bandwidth| Rc::new(bandwidth.bucket(reactor))),
            send_in_all: send_in_all.map(|bandwidth| SharedPace::new(reactor, bandwidth)),
            reactor: reactor.clone(),
            inner,
            throttle,
        }
    }
}

impl fmt::Debug for ThrottledFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottledFactory").field("throttle", &self.throttle).finish_non_exhaustive()
    }
}

impl Factory for ThrottledFactory {
    fn build_protocol(&self, peer: &Address) -> Option<Box<dyn Protocol>> {
        let inner = self.inner.build_protocol(peer)?;
        let throttle = &self.throttle;
        let own = throttle.receive_per_connection;
        let own = own.map(|bandwidth| Rc::new(bandwidth.bucket(&self.reactor)));
        let sending = SendingPace {
            reactor: self.reactor.clone(),
            own: throttle.send_per_connection.map(|bandwidth| bandwidth.bucket(&self.reactor)),
            timer: Cell::new(None),
            number: self.send_in_all.as_ref().map_or(0, |shared| shared.next_number()),
            shared: self.send_in_all.clone(),
        };
        Some(Box::new(ThrottledProtocol {
            inner,
            reactor: self.reactor.clone(),
            receiving: own.into_iter().chain(self.receive_in_all.clone()).collect(),
            is_held: Rc::new(Cell::new(false)),
            timer: None,
            sending: Rc::new(sending),
        }))
    }
}

struct ThrottledProtocol {
    inner: Box<dyn Protocol>,
    reactor: Reactor,
    receiving: Vec<Rc<Bucket>>,
    is_held: Rc<Cell<bool>>,
    timer: Option<DelayedCall>,
    sending: Rc<SendingPace>,
}

impl ThrottledProtocol {
    /// Stops reading for as long as these bytes should have taken.
    fn pay(&mut self, transport: &Transport, bytes: usize) {
        let now = self.reactor.now();
        let mut wait = Duration::ZERO;
        for bucket in &self.receiving {
            // The bytes of the time since are put in first.
            let _ = bucket.bytes(now);
            bucket.take(bytes);
            // What overdraws it is owed; an empty one lets the next piece pass.
            wait = wait.max(bucket.time_until(0, now));
        }
        if wait.is_zero() || self.is_held.replace(true) {
            return;
        }
        transport.link().hold_reading();
        let (held, link) = (Rc::clone(&self.is_held), Rc::downgrade(transport.link()));
        self.timer = Some(self.reactor.call_later(wait, move || {
            held.set(false);
            if let Some(link) = link.upgrade() {
                link.release_reading();
            }
        }));
    }
}

impl Protocol for ThrottledProtocol {
    fn connection_made(&mut self, transport: &Transport) {
        if self.sending.own.is_some() || self.sending.shared.is_some() {
            transport.link().add_meter(Rc::clone(&self.sending) as Rc<dyn Meter>);
        }
        self.inner.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        if !data.is_empty() {
            self.pay(transport, data.len());
        }
        self.inner.data_received(transport, data);
    }

    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) {
        self.inner.file_descriptor_received(transport, descriptor);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.inner.read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if let Some(timer) = self.timer.take() {
            timer.cancel();
        }
        self.sending.stop();
        self.inner.connection_lost(reason);
    }
}

/// Bounds what one connection sends.
struct SendingPace {
    reactor: Reactor,
    own: Option<Bucket>,
    timer: Cell<Option<DelayedCall>>,
    shared: Option<Rc<SharedPace>>,
    /// Its number among those that share.
    number: u64,
}

impl SendingPace {
    fn stop(&self) {
        if let Some(timer) = self.timer.take() {
            timer.cancel();
        }
        if let Some(shared) = &self.shared {
            shared.leave(self.number);
        }
    }

    fn wait(&self, link: &Rc<Link>, wait: Duration) {
        let waiting = self.timer.take().filter(DelayedCall::is_active);
        self.timer.set(Some(waiting.unwrap_or_else(|| {
            let link = Rc::downgrade(link);
            self.reactor.call_later(wait, move || {
                if let Some(link) = link.upgrade() {
                    link.send_again();
                }
            })
        })));
    }
}

impl Meter for SendingPace {
    fn room(&self, link: &Rc<Link>) -> usize {
        let mut room = usize::MAX;
        if let Some(own) = &self.own {
            room = match own.room(self.reactor.now()) {
                Ok(room) => room,
                Err(wait) => {
                    self.wait(link, wait);
                    return 0;
                }
            };
        }
        match &self.shared {
            Some(shared) => room.min(shared.room(self.number, link)),
            None => room,
        }
    }

    fn sent(&self, bytes: usize) {
        if let Some(own) = &self.own {
            own.take(bytes);
        }
        if let Some(shared) = &self.shared {
            shared.sent(bytes);
        }
    }
}

/// Bounds what several connections send together. Those that have to wait take turns, a piece each.
struct SharedPace {
    reactor: Reactor,
    bucket: Bucket,
    line: RefCell<VecDeque<(u64, Weak<Link>)>>,
    /// Whose turn it is now, and how many bytes are left of it.
    turn: Cell<Option<(u64, usize)>>,
    timer: Cell<Option<DelayedCall>>,
    next_number: Cell<u64>,
}

impl SharedPace {
    fn new(reactor: &Reactor, bandwidth: Bandwidth) -> Rc<SharedPace> {
        Rc::new(SharedPace {
            reactor: reactor.clone(),
            bucket: bandwidth.bucket(reactor),
            line: RefCell::default(),
            turn: Cell::new(None),
            timer: Cell::new(None),
            next_number: Cell::new(0),
        })
    }

    fn next_number(&self) -> u64 {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        number
    }

    fn room(self: &Rc<SharedPace>, number: u64, link: &Rc<Link>) -> usize {
        if let Some((whose, bytes)) = self.turn.get()
            && whose == number
            && bytes > 0
        {
            return bytes;
        }
        let mut line = self.line.borrow_mut();
        if line.is_empty()
            && let Ok(room) = self.bucket.room(self.reactor.now())
        {
            return room;
        }
        if !line.iter().any(|(waiting, _)| *waiting == number) {
            line.push_back((number, Rc::downgrade(link)));
        }
        drop(line);
        self.wait();
        0
    }

    fn sent(&self, bytes: usize) {
        self.bucket.take(bytes);
        if let Some((whose, left)) = self.turn.get() {
            self.turn.set(Some((whose, left.saturating_sub(bytes))));
        }
    }

    /// Has the first in the line send a piece once that is there.
    fn wait(self: &Rc<SharedPace>) {
        let waiting = self.timer.take().filter(DelayedCall::is_active);
        self.timer.set(Some(waiting.unwrap_or_else(|| {
            let wait = self.bucket.time_until(self.bucket.piece_bytes(), self.reactor.now());
            let shared = Rc::downgrade(self);
            LogContext::sentinel().run(|| {
                self.reactor.call_later(wait, move || {
                    if let Some(shared) = shared.upgrade() {
                        shared.serve();
                    }
                })
            })
        })));
    }

    fn serve(self: &Rc<SharedPace>) {
        let first = self.line.borrow_mut().pop_front();
        let Some((number, link)) = first else { return };
        if let Some(link) = link.upgrade() {
            let piece = usize::try_from(self.bucket.piece_bytes()).unwrap_or(1);
            self.turn.set(Some((number, piece)));
            link.send_again();
            self.turn.set(None);
        }
        if !self.line.borrow().is_empty() {
            self.wait();
        }
    }

    fn leave(&self, number: u64) {
        let mut line = self.line.borrow_mut();
        line.retain(|(waiting, _)| *waiting != number);
        if line.is_empty()
            && let Some(timer) = self.timer.take()
        {
            timer.cancel();
        }
    }
}
