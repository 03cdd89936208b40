//! [`IdleFactory`]: how long nothing may happen on a connection.

use std::cell::Cell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::address::Address;
use crate::clock::Instant;
use crate::context::LogContext;
use crate::protocol::{ConnectionLost, Factory, Protocol};
use crate::reactor::Reactor;
use crate::timers::DelayedCall;
use crate::transport::Transport;
use crate::transport::link::Link;
use crate::transport::meter::Meter;

/// Ends connections on which no byte has come or gone for a while, with [`ConnectionLost::Idle`].
///
/// Bytes count when the system gives or takes them. A connection that this side does not read, and on
/// which it sends nothing, is idle, too.
pub struct IdleFactory {
    reactor: Reactor,
    inner: Rc<dyn Factory>,
    limit: Duration,
}

impl IdleFactory {
    /// Puts a limit around a factory.
    pub fn new(reactor: &Reactor, inner: Rc<dyn Factory>, limit: Duration) -> IdleFactory {
        IdleFactory { reactor: reactor.clone(), inner, limit }
    }

    /// Puts the limit around one protocol, that of a connecting client for instance.
    #[must_use]
    pub fn wrap(reactor: &Reactor, inner: Box<dyn Protocol>, limit: Duration) -> Box<dyn Protocol> {
        let watch = Rc::new(Watch {
            reactor: reactor.clone(),
            limit,
            last_traffic: Cell::new(Instant::START),
            timer: Cell::new(None),
        });
        Box::new(IdleProtocol { inner, watch })
    }
}

impl fmt::Debug for IdleFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleFactory").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Factory for IdleFactory {
    fn build_protocol(&self, peer: &Address) -> Option<Box<dyn Protocol>> {
        let inner = self.inner.build_protocol(peer)?;
        Some(IdleFactory::wrap(&self.reactor, inner, self.limit))
    }
}

/// When there was traffic. Bytes only note the time; the timer looks when it is due, and waits for the
/// rest if there is any.
struct Watch {
    reactor: Reactor,
    limit: Duration,
    last_traffic: Cell<Instant>,
    timer: Cell<Option<DelayedCall>>,
}

impl Watch {
    fn note_traffic(&self) {
        self.last_traffic.set(self.reactor.now_or_just_before());
    }

    fn wait(self: &Rc<Watch>, link: Weak<Link>, delay: Duration) {
        let watch = Rc::downgrade(self);
        // The time of looking is no work of the connection's.
        let timer = LogContext::sentinel().run(|| {
            self.reactor.call_later(delay, move || {
                if let (Some(watch), Some(link)) = (watch.upgrade(), link.upgrade()) {
                    watch.look(&link);
                }
            })
        });
        self.timer.set(Some(timer));
    }

    fn look(self: &Rc<Watch>, link: &Rc<Link>) {
        let deadline = self.last_traffic.get() + self.limit;
        let left = deadline.since(self.reactor.now());
        if left.is_zero() {
            let reason = ConnectionLost::Idle { limit: self.limit };
            link.end_because(self.reactor.core(), reason);
        } else {
            self.wait(Rc::downgrade(link), left);
        }
    }
}

impl Meter for Watch {
    fn room(&self, _: &Rc<Link>) -> usize {
        usize::MAX
    }

    fn sent(&self, _: usize) {
        self.note_traffic();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.cancel();
        }
    }
}

struct IdleProtocol {
    inner: Box<dyn Protocol>,
    watch: Rc<Watch>,
}

impl Protocol for IdleProtocol {
    fn connection_made(&mut self, transport: &Transport) {
        let watch = &self.watch;
        watch.last_traffic.set(watch.reactor.now());
        transport.link().add_meter(Rc::clone(watch) as Rc<dyn Meter>);
        watch.wait(Rc::downgrade(transport.link()), watch.limit);
        self.inner.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.watch.note_traffic();
        self.inner.data_received(transport, data);
    }

    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) {
        self.inner.file_descriptor_received(transport, descriptor);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.watch.note_traffic();
        self.inner.read_connection_lost(transport);
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if let Some(timer) = self.watch.timer.take() {
            timer.cancel();
        }
        self.inner.connection_lost(reason);
    }
}
