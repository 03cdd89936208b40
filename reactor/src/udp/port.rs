//! An open UDP port: receiving within a budget, sending at once or as soon as the system takes more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use super::socket::DatagramSocket;
use super::{DatagramProtocol, Interface, QUEUED_BYTES_MAX, SendDatagramError};
use crate::backend::Readiness;
use crate::context::LogContext;
use crate::core::{Core, Source};
use crate::ready::Job;
use crate::slots::Key;

/// A UDP port that is open until it is told to stop, or the reactor stops: a cheap clone.
///
/// Every method may be called at any time, from inside any [`DatagramProtocol`] method or from
/// elsewhere on the loop's thread. None of them calls back before it returns.
#[derive(Clone)]
pub struct UdpPort {
    port: Rc<Port>,
}

pub(crate) struct Port {
    core: Weak<Core>,
    key: Cell<Key>,
    address: SocketAddr,
    context: LogContext,
    /// `None` once the port is closed.
    socket: RefCell<Option<DatagramSocket>>,
    /// Out of its place while one of its methods runs, and once it has been told of the end.
    protocol: Cell<Option<Box<dyn DatagramProtocol>>>,
    queue: RefCell<VecDeque<(Vec<u8>, Option<SocketAddr>)>>,
    queued_bytes: Cell<usize>,
    is_refused: Cell<bool>,
}

impl UdpPort {
    /// Sends a datagram to this address.
    ///
    /// It goes at once, or waits in a queue until the system takes more.
    ///
    /// # Errors
    ///
    /// [`SendDatagramError`]. That it was sent does not mean that it arrives.
    pub fn write(&self, data: &[u8], to: SocketAddr) -> Result<(), SendDatagramError> {
        self.port.write(data, Some(to))
    }

    /// Sends a datagram to the [connected](UdpPort::connect) peer.
    ///
    /// # Errors
    ///
    /// As [`write`](UdpPort::write); and if there is no such peer.
    pub fn write_to_peer(&self, data: &[u8]) -> Result<(), SendDatagramError> {
        self.port.write(data, None)
    }

    /// Fixes the peer: datagrams from others are not delivered, and the protocol hears
    /// of it when nobody takes datagrams there. Nothing is sent by this.
    ///
    /// # Errors
    ///
    /// Those of the system; and if the port is closed.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        self.port.with_socket(|socket| socket.connect(peer))
    }

    /// Receives what is sent to a multicast group, on this interface.
    ///
    /// # Errors
    ///
    /// Those of the system; and if the group is no multicast address, or the interface is named by
    /// the address of another family.
    pub fn join_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        self.port.with_socket(|socket| socket.join_group(group, interface))
    }

    /// Receives no more of what is sent to a multicast group.
    ///
    /// # Errors
    ///
    /// As [`join_group`](UdpPort::join_group).
    pub fn leave_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        self.port.with_socket(|socket| socket.leave_group(group, interface))
    }

    /// Sets how many routers may pass on what is sent to multicast groups; 1, the default, means that
    /// it stays on the local network.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn set_multicast_ttl(&self, ttl: u8) -> io::Result<()> {
        self.port.with_socket(|socket| socket.set_multicast_ttl(ttl))
    }

    /// Sets whether what is sent to multicast groups is received on this machine, too; it is by
    /// default.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn set_multicast_loopback(&self, is_on: bool) -> io::Result<()> {
        self.port.with_socket(|socket| socket.set_multicast_loopback(is_on))
    }

    /// Sets the interface by which datagrams to multicast groups leave.
    ///
    /// # Errors
    ///
    /// Those of the system; and if the interface is named by the address of another family.
    pub fn set_multicast_interface(&self, interface: Interface) -> io::Result<()> {
        self.port.with_socket(|socket| socket.set_multicast_interface(interface))
    }

    /// Returns the address of this end, with the port that the system picked for port 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.port.address
    }

    /// Returns how many bytes wait until the system takes more.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.port.queued_bytes.get()
    }

    /// Closes the port. What waits to be sent is dropped. The protocol hears of it after the current
    /// callback has returned.
    pub fn stop_listening(&self) {
        if let Some(core) = self.port.core.upgrade() {
            self.port.stop(&core);
        }
    }

    /// Whether the port is open.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.port.socket.borrow().is_some()
    }
}

impl fmt::Debug for UdpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpPort")
            .field("address", &self.local_address())
            .field("is_listening", &self.is_listening())
            .field("queued_bytes", &self.queued_bytes())
            .finish()
    }
}

impl Port {
    pub(crate) fn open(
        core: &Rc<Core>,
        socket: DatagramSocket,
        protocol: Box<dyn DatagramProtocol>,
    ) -> io::Result<UdpPort> {
        let address = socket.local_address()?;
        let port = Rc::new(Port {
            core: Rc::downgrade(core),
            key: Cell::new(Key::NONE),
            address,
            context: LogContext::new(format!("udp-{}", address.port())),
            socket: RefCell::new(Some(socket)),
            protocol: Cell::new(Some(protocol)),
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            is_refused: Cell::new(false),
        });
        let key = core.sources.borrow_mut().insert(Source::Datagrams(Rc::clone(&port)));
        port.key.set(key);
        let registered = match &mut *port.socket.borrow_mut() {
            Some(socket) => core.backend.register_datagrams(socket, key),
            None => Ok(()),
        };
        if let Err(error) = registered {
            core.sources.borrow_mut().remove(key);
            return Err(error);
        }
        let started = Rc::clone(&port);
        core.ready.push(Job::in_context(port.context.clone(), move || {
            if let Some(core) = started.core.upgrade()
                && started.socket.borrow().is_some()
            {
                started.call(&core, "start_protocol", |protocol, port| {
                    protocol.start_protocol(port);
                });
            }
        }));
        Ok(UdpPort { port })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does what the socket is ready for. Receives within the budget of one turn.
    #[inline(never)]
    pub(crate) fn serve(
        self: &Rc<Port>,
        core: &Rc<Core>,
        readiness: Readiness,
        scratch: &mut [u8],
    ) {
        if readiness.has(Readiness::WRITABLE) {
            self.flush();
        }
        if !readiness.has(Readiness::READABLE) {
            return;
        }
        for _ in 0..DATAGRAMS_PER_TURN {
            let received = match &*self.socket.borrow() {
                Some(socket) => socket.receive(scratch),
                None => return,
            };
            match received {
                Ok((count, from)) => {
                    core.counters.reads.add(1);
                    core.counters.bytes_in.add(count);
                    let data = &scratch[..count];
                    self.call(core, "datagram_received", |protocol, port| {
                        protocol.datagram_received(port, data, from);
                    });
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionRefused => self.tell_refused(core),
                    // What the network says about a datagram that was sent earlier, for instance that
                    // its host cannot be reached.
                    _ => log::debug!("error on UDP port {}: {error}", self.address),
                },
            }
        }
        core.read_later(self.key.get());
    }

    fn write(
        self: &Rc<Port>,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<(), SendDatagramError> {
        let socket = self.socket.borrow();
        let (Some(socket), Some(core)) = (&*socket, self.core.upgrade()) else {
            return Err(SendDatagramError::Closed);
        };
        let mut queue = self.queue.borrow_mut();
        let error = match queue.is_empty() {
            true => self.send(&core, socket, data, to),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        match error {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let queued_bytes = self.queued_bytes.get();
                // Empty datagrams are datagrams, and cost memory.
                let cost = data.len() + QUEUED_DATAGRAM_BYTES;
                if queued_bytes + cost > QUEUED_BYTES_MAX {
                    return Err(SendDatagramError::QueueFull { queued_bytes });
                }
                self.queued_bytes.set(queued_bytes + cost);
                queue.push_back((data.to_vec(), to));
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                Err(SendDatagramError::TooLong { bytes: data.len() })
            }
            Err(error) => Err(SendDatagramError::Io(error)),
        }
    }

    /// Hands a datagram to the system. What it says first may be about one that was sent earlier.
    fn send(
        self: &Rc<Port>,
        core: &Rc<Core>,
        socket: &DatagramSocket,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<()> {
        for _ in 0..SEND_TRIES {
            match socket.send(data, to) {
                Ok(()) => {
                    core.counters.bytes_out.add(data.len());
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.tell_refused_later(core);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Lost, as datagrams may be.
        Ok(())
    }

    fn flush(self: &Rc<Port>) {
        let socket = self.socket.borrow();
        let (Some(socket), Some(core)) = (&*socket, self.core.upgrade()) else { return };
        loop {
            let next = self.queue.borrow_mut().pop_front();
            let Some((data, to)) = next else { break };
            match self.send(&core, socket, &data, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.queue.borrow_mut().push_front((data, to));
                }
                result => {
                    let cost = data.len() + QUEUED_DATAGRAM_BYTES;
                    self.queued_bytes.set(self.queued_bytes.get() - cost);
                    if let Err(error) = result {
                        log::debug!("a datagram of {} bytes is not sent: {error}", data.len());
                    }
                }
            }
        }
        // An idle port owns no memory for it.
        self.queue.take();
    }

    fn with_socket(&self, f: impl FnOnce(&DatagramSocket) -> io::Result<()>) -> io::Result<()> {
        match &*self.socket.borrow() {
            Some(socket) => f(socket),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "the port is closed")),
        }
    }

    fn tell_refused(self: &Rc<Port>, core: &Core) {
        self.call(core, "connection_refused", |protocol, port| protocol.connection_refused(port));
    }

    /// Tells the protocol after the current callback, once however often.
    fn tell_refused_later(self: &Rc<Port>, core: &Core) {
        if self.is_refused.replace(true) {
            return;
        }
        let port = Rc::clone(self);
        core.ready.push(Job::in_context(self.context.clone(), move || {
            port.is_refused.set(false);
            if let Some(core) = port.core.upgrade()
                && port.socket.borrow().is_some()
            {
                port.tell_refused(&core);
            }
        }));
    }

    /// Closes the port, and tells the protocol after the current callback.
    pub(crate) fn stop(self: &Rc<Port>, core: &Core) {
        let Some(socket) = self.socket.take() else { return };
        drop(socket);
        let source = core.sources.borrow_mut().remove(self.key.get());
        drop(source);
        self.queue.take();
        self.queued_bytes.set(0);
        let port = Rc::clone(self);
        core.ready.push(Job::in_context(self.context.clone(), move || {
            if let Some(mut protocol) = port.protocol.take() {
                protocol.stop_protocol();
            }
            port.context.finish();
        }));
    }

    /// Calls the protocol. Should it panic, the port is closed.
    fn call(
        self: &Rc<Port>,
        core: &Core,
        what: &'static str,
        f: impl FnOnce(&mut dyn DatagramProtocol, &UdpPort),
    ) {
        let Some(mut protocol) = self.protocol.take() else { return };
        let handle = UdpPort { port: Rc::clone(self) };
        let result = core.call(what, &self.context, || f(&mut *protocol, &handle));
        self.protocol.set(Some(protocol));
        if result.is_err() {
            self.stop(core);
        }
    }
}

/// Datagrams received on one port in one turn: some 200 microseconds of calls to the system.
const DATAGRAMS_PER_TURN: usize = 128;

/// What each datagram that waits counts besides its bytes.
const QUEUED_DATAGRAM_BYTES: usize = 64;

/// One report of an earlier datagram, and the datagram itself; an interruption in between.
const SEND_TRIES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Clock;
    use crate::udp::UdpOptions;

    struct Collector(Rc<RefCell<Vec<u8>>>);

    impl DatagramProtocol for Collector {
        fn datagram_received(&mut self, _: &UdpPort, data: &[u8], _: SocketAddr) {
            self.0.borrow_mut().push(data[0]);
        }
    }

    #[test]
    fn what_the_system_does_not_take_waits_in_order_and_within_bounds() {
        let clock = Clock::new();
        let received = Rc::default();
        let protocol = Box::new(Collector(Rc::clone(&received)));
        let any = ([127, 0, 0, 1], 0).into();
        let handle = clock.reactor().listen_udp(any, protocol, &UdpOptions::default()).unwrap();
        let block = |is_blocked| match &*handle.port.socket.borrow() {
            Some(DatagramSocket::Memory(socket)) => socket.set_blocked(is_blocked),
            _ => panic!("an open socket in memory"),
        };
        clock.pump();
        block(true);
        let mut sent = 0;
        while handle.write(&[sent; 4096], handle.local_address()).is_ok() {
            sent += 1;
        }
        assert!(matches!(
            handle.write(&[sent; 4096], handle.local_address()),
            Err(SendDatagramError::QueueFull { queued_bytes }) if queued_bytes <= QUEUED_BYTES_MAX
        ));
        assert_eq!(usize::from(sent), QUEUED_BYTES_MAX / (4096 + QUEUED_DATAGRAM_BYTES));
        clock.pump();
        assert!(received.borrow().is_empty());
        block(false);
        clock.pump();
        assert_eq!(handle.queued_bytes(), 0);
        let there_was_room_for = received.borrow().len();
        assert_eq!(*received.borrow(), (0..there_was_room_for as u8).collect::<Vec<_>>());
        assert!(there_was_room_for > 40, "{there_was_room_for}");
    }
}
