//! Datagrams within one process: bounded boxes, multicast groups, and nobody home.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};

use super::DATAGRAM_BYTES_MAX;
use crate::backend::manual::Surroundings;
use crate::backend::{Event, Readiness};
use crate::slots::Key;
use crate::transport::memory::EventQueue;

/// One socket, as its owner holds it.
pub(crate) struct MemoryDatagrams {
    post_box: Rc<PostBox>,
    post: Rc<MemoryPost>,
}

/// Where datagrams for one socket arrive.
pub(crate) struct PostBox {
    local: SocketAddr,
    peer: Cell<Option<SocketAddr>>,
    groups: RefCell<BTreeSet<IpAddr>>,
    /// Whether it gets what it sends to groups itself.
    hears_itself: Cell<bool>,
    waiting: RefCell<VecDeque<(Vec<u8>, SocketAddr)>>,
    waiting_bytes: Cell<usize>,
    /// Whether nothing is taken to be sent for now, as when an interface's queue is full.
    is_blocked: Cell<bool>,
    /// A datagram to the peer found nobody.
    is_refused: Cell<bool>,
    watcher: RefCell<Option<(EventQueue, Key)>>,
}

/// Carries datagrams between the sockets of one machine, at once and in order.
#[derive(Default)]
pub(crate) struct MemoryPost {
    boxes: RefCell<BTreeMap<SocketAddr, Vec<Weak<PostBox>>>>,
    /// The world, if this is the post of one of its hosts: then only what a host sends to itself goes
    /// without it.
    world: Option<Rc<dyn Surroundings>>,
}

impl MemoryPost {
    /// Makes the post of a host.
    pub(crate) fn abroad(world: Rc<dyn Surroundings>) -> MemoryPost {
        MemoryPost { world: Some(world), ..MemoryPost::default() }
    }

    /// Tells the socket at this port that its peer is not there, if it has this one only.
    pub(crate) fn refuse(&self, port: u16, peer: SocketAddr) {
        let boxes = self.boxes.borrow();
        for post_box in boxes.values().flatten().filter_map(Weak::upgrade) {
            if post_box.local.port() == port && post_box.peer.get() == Some(peer) {
                post_box.is_refused.set(true);
                post_box.tell(Readiness::READABLE);
            }
        }
    }

    /// Opens a socket at this address, whose port is known.
    pub(crate) fn open(
        self: &Rc<MemoryPost>,
        local: SocketAddr,
        is_shared: bool,
    ) -> io::Result<MemoryDatagrams> {
        let mut boxes = self.boxes.borrow_mut();
        let there = boxes.entry(local).or_default();
        there.retain(|post_box| post_box.strong_count() > 0);
        if !there.is_empty() && !is_shared {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let post_box = Rc::new(PostBox {
            local,
            peer: Cell::new(None),
            groups: RefCell::default(),
            hears_itself: Cell::new(true),
            waiting: RefCell::default(),
            waiting_bytes: Cell::new(0),
            is_blocked: Cell::new(false),
            is_refused: Cell::new(false),
            watcher: RefCell::new(None),
        });
        there.push(Rc::downgrade(&post_box));
        Ok(MemoryDatagrams { post_box, post: Rc::clone(self) })
    }

    /// Carries a datagram to whoever is there. Returns whether anybody is.
    pub(crate) fn deliver(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) -> bool {
        let boxes: Vec<Rc<PostBox>> = if to.ip().is_multicast() {
            let boxes = self.boxes.borrow();
            let all = boxes.values().flatten().filter_map(Weak::upgrade);
            all.filter(|post_box| post_box.hears(from, to)).collect()
        } else {
            self.find(to).into_iter().collect()
        };
        for post_box in &boxes {
            post_box.put(from, data);
        }
        // Nobody complains for a group.
        !boxes.is_empty() || to.ip().is_multicast()
    }

    fn find(&self, to: SocketAddr) -> Option<Rc<PostBox>> {
        let boxes = self.boxes.borrow();
        let at = |address| boxes.get(&address)?.iter().find_map(Weak::upgrade);
        let any: IpAddr = match to.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        at(to).or_else(|| at(SocketAddr::new(any, to.port())))
    }
}

impl PostBox {
    fn hears(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.local.port() == to.port()
            && self.groups.borrow().contains(&to.ip())
            && (self.hears_itself.get() || self.sender() != from)
    }

    /// Returns where its datagrams come from, as others see it.
    fn sender(&self) -> SocketAddr {
        let ip: IpAddr = match self.local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.local.port())
    }

    fn put(&self, from: SocketAddr, data: &[u8]) {
        let is_expected = self.peer.get().is_none_or(|peer| peer == from);
        let waiting_bytes = self.waiting_bytes.get() + data.len() + WAITING_DATAGRAM_BYTES;
        if !is_expected || waiting_bytes > WAITING_BYTES_MAX {
            return;
        }
        self.waiting_bytes.set(waiting_bytes);
        self.waiting.borrow_mut().push_back((data.to_vec(), from));
        self.tell(Readiness::READABLE);
    }

    fn tell(&self, readiness: Readiness) {
        if let Some((events, key)) = &*self.watcher.borrow() {
            events.borrow_mut().push(Event { key: *key, readiness });
        }
    }
}

impl MemoryDatagrams {
    /// Reports readiness from now on; what it is now, at once.
    pub(crate) fn watch(&self, events: &EventQueue, key: Key) {
        self.post_box.watcher.replace(Some((Rc::clone(events), key)));
        let is_readable = !self.post_box.waiting.borrow().is_empty();
        let readable = if is_readable { Readiness::READABLE } else { Readiness::NONE };
        self.post_box.tell(Readiness::WRITABLE.and(readable));
    }

    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        if self.post_box.is_refused.take() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let next = self.post_box.waiting.borrow_mut().pop_front();
        let (data, from) = next.ok_or(io::ErrorKind::WouldBlock)?;
        let cost = data.len() + WAITING_DATAGRAM_BYTES;
        self.post_box.waiting_bytes.set(self.post_box.waiting_bytes.get() - cost);
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        Ok((count, from))
    }

    pub(crate) fn send(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<()> {
        let peer = self.post_box.peer.get();
        let to = to.or(peer).ok_or(io::ErrorKind::NotConnected)?;
        if self.post_box.is_blocked.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if data.len() > DATAGRAM_BYTES_MAX {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        if let Some(world) = &self.post.world
            && !to.ip().is_loopback()
        {
            world.send_datagram(self.post_box.local.port(), to, data);
            return Ok(());
        }
        let is_there = self.post.deliver(self.post_box.sender(), to, data);
        if !is_there && peer == Some(to) {
            self.post_box.is_refused.set(true);
            self.post_box.tell(Readiness::READABLE);
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the other kind of socket can fail here")]
    pub(crate) fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        self.post_box.peer.set(Some(peer));
        Ok(())
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.post_box.local
    }

    pub(crate) fn join_group(&self, group: IpAddr) -> io::Result<()> {
        match self.post_box.groups.borrow_mut().insert(group) {
            true => Ok(()),
            false => Err(io::ErrorKind::AddrInUse.into()),
        }
    }

    pub(crate) fn leave_group(&self, group: IpAddr) -> io::Result<()> {
        match self.post_box.groups.borrow_mut().remove(&group) {
            true => Ok(()),
            false => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    #[cfg(test)]
    pub(crate) fn set_blocked(&self, is_blocked: bool) {
        self.post_box.is_blocked.set(is_blocked);
        if !is_blocked {
            self.post_box.tell(Readiness::WRITABLE);
        }
    }

    pub(crate) fn set_multicast_loopback(&self, is_on: bool) {
        self.post_box.hears_itself.set(is_on);
    }
}

/// What waits for one socket at most, about as in Linux; the rest is lost.
const WAITING_BYTES_MAX: usize = 208 * 1024;

/// What each datagram that waits counts besides its bytes.
const WAITING_DATAGRAM_BYTES: usize = 64;
