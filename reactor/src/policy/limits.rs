//! [`LimitedFactory`]: how many connections a server has at a time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use crate::address::Address;
use crate::protocol::{ConnectionLost, Factory, Protocol};
use crate::reactor::Reactor;
use crate::transport::Transport;

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionLimits {
    total: usize,
    per_peer: usize,
    waiting: usize,
    v6_prefix_bits: u8,
}

impl Default for ConnectionLimits {
    /// No limits; nobody waits. IPv6 peers are told apart by the first 64 bits of their addresses.
    fn default() -> ConnectionLimits {
        let (total, per_peer) = (usize::MAX, usize::MAX);
        ConnectionLimits { total, per_peer, waiting: 0, v6_prefix_bits: 64 }
    }
}

impl ConnectionLimits {
    /// Sets how many there may be in all.
    #[must_use]
    pub fn total(mut self, connections_max: usize) -> ConnectionLimits {
        self.total = connections_max;
        self
    }

    /// Sets how many there may be from one peer, those that wait included.
    ///
    /// A peer is an IPv4 address, or the network of an IPv6 address. Unix sockets are not counted for any
    /// peer: who may connect is what their permissions say.
    #[must_use]
    pub fn per_peer(mut self, connections_max: usize) -> ConnectionLimits {
        self.per_peer = connections_max;
        self
    }

    /// Sets how many connections beyond the total may stand and wait, unread, until another one ends.
    #[must_use]
    pub fn waiting(mut self, connections_max: usize) -> ConnectionLimits {
        self.waiting = connections_max;
        self
    }

    /// Sets how many bits of an IPv6 address say whose it is. A household has 64 or fewer to itself.
    #[must_use]
    pub fn v6_prefix_bits(mut self, bits: u8) -> ConnectionLimits {
        self.v6_prefix_bits = bits.min(128);
        self
    }

    fn peer(&self, address: &Address) -> Option<IpAddr> {
        match address.socket_address()?.ip().to_canonical() {
            IpAddr::V4(address) => Some(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let shift = u32::from(128 - self.v6_prefix_bits);
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                Some(IpAddr::V6(Ipv6Addr::from(address.to_bits() & mask)))
            }
        }
    }
}

/// Passes on connections to another factory while there are not too many.
///
/// What is beyond the limits is closed without a byte, and counted; or waits, if that is
/// [allowed](ConnectionLimits::waiting): such a connection stands, but nothing is read from it, and its
/// protocol is told of it once its turn has come.
pub struct LimitedFactory {
    shared: Rc<Shared>,
    inner: Rc<dyn Factory>,
}

struct Shared {
    reactor: Reactor,
    limits: ConnectionLimits,
    open: Cell<usize>,
    by_peer: RefCell<BTreeMap<IpAddr, usize>>,
    line: RefCell<VecDeque<Rc<Ticket>>>,
    refused: Cell<u64>,
}

/// A connection that waits, or has waited.
struct Ticket {
    /// Known once the connection is made.
    transport: RefCell<Option<Transport>>,
    is_admitted: Cell<bool>,
}

impl LimitedFactory {
    /// Puts limits around a factory.
    pub fn new(
        reactor: &Reactor,
        inner: Rc<dyn Factory>,
        limits: ConnectionLimits,
    ) -> LimitedFactory {
        let shared = Shared {
            reactor: reactor.clone(),
            limits,
            open: Cell::new(0),
            by_peer: RefCell::default(),
            line: RefCell::default(),
            refused: Cell::new(0),
        };
        LimitedFactory { shared: Rc::new(shared), inner }
    }

    /// Returns how many connections there are, without those that wait.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.shared.open.get()
    }

    /// Returns how many wait.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.shared.line.borrow().len()
    }

    /// Returns how many have been refused.
    #[must_use]
    pub fn refused_count(&self) -> u64 {
        self.shared.refused.get()
    }
}

impl fmt::Debug for LimitedFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedFactory")
            .field("limits", &self.shared.limits)
            .field("open", &self.open_count())
            .field("waiting", &self.waiting_count())
            .field("refused", &self.refused_count())
            .finish()
    }
}

impl Factory for LimitedFactory {
    fn build_protocol(&self, peer: &Address) -> Option<Box<dyn Protocol>> {
        let shared = &self.shared;
        let Some(of_peer) = shared.count_peer(peer) else {
            shared.refused.set(shared.refused.get() + 1);
            log::debug!("refusing a connection: as many as may be are there from {peer}");
            return None;
        };
        let is_full = shared.open.get() >= shared.limits.total;
        if is_full && shared.line.borrow().len() >= shared.limits.waiting {
            shared.refused.set(shared.refused.get() + 1);
            log::debug!("refusing a connection from {peer}: as many as may be are there");
            return None;
        }
        let ticket =
            Rc::new(Ticket { transport: RefCell::new(None), is_admitted: Cell::new(!is_full) });
        if is_full {
            shared.line.borrow_mut().push_back(Rc::clone(&ticket));
        } else {
            shared.open.set(shared.open.get() + 1);
        }
        // From here on, dropping it gives the place back.
        let place = Place { shared: Rc::clone(shared), ticket, _of_peer: of_peer };
        let inner = self.inner.build_protocol(peer)?;
        Some(Box::new(LimitedProtocol { inner, place, is_told: false }))
    }
}

impl Shared {
    /// Counts one more connection from a peer, if there may be one more.
    fn count_peer(self: &Rc<Shared>, address: &Address) -> Option<OfPeer> {
        let Some(peer) = self.limits.peer(address) else {
            return Some(OfPeer { shared: Weak::new(), peer: Ipv6Addr::UNSPECIFIED.into() });
        };
        let mut by_peer = self.by_peer.borrow_mut();
        let count = by_peer.get(&peer).copied().unwrap_or(0);
        if count >= self.limits.per_peer {
            return None;
        }
        by_peer.insert(peer, count + 1);
        Some(OfPeer { shared: Rc::downgrade(self), peer })
    }

    /// Lets those in who have waited longest.
    fn admit(&self) {
        while self.open.get() < self.limits.total {
            let next = self.line.borrow_mut().pop_front();
            let Some(ticket) = next else { return };
            ticket.is_admitted.set(true);
            self.open.set(self.open.get() + 1);
            // One whose connection is not made yet will see it then.
            let transport = ticket.transport.take();
            if let Some(transport) = transport {
                transport.link().deliver_again();
                transport.link().release_reading();
            }
        }
    }
}

/// One place among those of a peer.
struct OfPeer {
    shared: Weak<Shared>,
    peer: IpAddr,
}

impl Drop for OfPeer {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut by_peer = shared.by_peer.borrow_mut();
        match by_peer.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(by_peer.remove(&self.peer)),
        }
    }
}

/// One place among all, or in the line.
struct Place {
    shared: Rc<Shared>,
    ticket: Rc<Ticket>,
    _of_peer: OfPeer,
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.shared;
        if !self.ticket.is_admitted.get() {
            let mut line = shared.line.borrow_mut();
            line.retain(|waiting| !Rc::ptr_eq(waiting, &self.ticket));
            return;
        }
        shared.open.set(shared.open.get().saturating_sub(1));
        if !shared.line.borrow().is_empty() {
            // Not from within whatever is dropping this.
            let shared = Rc::clone(shared);
            self.shared.reactor.call_soon(move || shared.admit());
        }
    }
}

struct LimitedProtocol {
    inner: Box<dyn Protocol>,
    place: Place,
    /// Whether the inner protocol knows of its connection.
    is_told: bool,
}

impl LimitedProtocol {
    /// Tells the inner protocol of its connection if it may know by now. Returns whether it does.
    fn tell(&mut self, transport: &Transport) -> bool {
        if !self.is_told && self.place.ticket.is_admitted.get() {
            self.is_told = true;
            self.inner.connection_made(transport);
        }
        self.is_told
    }
}

impl Protocol for LimitedProtocol {
    fn connection_made(&mut self, transport: &Transport) {
        if !self.tell(transport) {
            transport.link().hold_reading();
            self.place.ticket.transport.replace(Some(transport.clone()));
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let was_told = self.is_told;
        // An empty slice is the call to begin.
        if self.tell(transport) && (was_told || !data.is_empty()) {
            self.inner.data_received(transport, data);
        }
    }

    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) {
        self.inner.file_descriptor_received(transport, descriptor);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        if self.tell(transport) {
            self.inner.read_connection_lost(transport);
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if self.is_told {
            self.inner.connection_lost(reason);
        }
    }
}
