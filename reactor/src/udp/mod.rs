//! Datagrams over UDP: [`DatagramProtocol`] and the [`UdpPort`] it is put on.
//!
//! A datagram arrives whole or not at all, perhaps twice, and in no certain order; nobody slows the
//! sender down. What has to arrive wants another protocol.
//!
//! ```
//! use std::net::SocketAddr;
//! use ropewalk::testing::Clock;
//! use ropewalk::udp::{DatagramProtocol, UdpOptions, UdpPort};
//!
//! struct Echo;
//!
//! impl DatagramProtocol for Echo {
//!     fn datagram_received(&mut self, port: &UdpPort, data: &[u8], from: SocketAddr) {
//!         // Lost for want of memory or lost on the way, it is all the same to the peer.
//!         let _ = port.write(data, from);
//!     }
//! }
//!
//! let clock = Clock::new(); // or Reactor::new()?
//! let any = "127.0.0.1:0".parse().unwrap();
//! let port = clock.reactor().listen_udp(any, Box::new(Echo), &UdpOptions::default())?;
//! assert_ne!(port.local_address().port(), 0);
//! # Ok::<(), std::io::Error>(())
//! ```

pub(crate) mod memory;
mod port;
pub(crate) mod socket;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

pub(crate) use port::Port;
pub use port::UdpPort;

use crate::reactor::Reactor;

/// What to do with the datagrams that arrive on a port.
///
/// The calls never nest. A protocol that panics is called no more except for
/// [`stop_protocol`](DatagramProtocol::stop_protocol), and its port is closed.
pub trait DatagramProtocol {
    /// The port is open. The first call.
    fn start_protocol(&mut self, port: &UdpPort) {
        let _ = port;
    }

    /// A datagram has arrived. The slice lies in a buffer that all sockets share: copy what is to be
    /// kept.
    fn datagram_received(&mut self, port: &UdpPort, data: &[u8], from: SocketAddr);

    /// The [connected](UdpPort::connect) peer's system has said that nobody takes datagrams there.
    /// More may be sent; somebody may come.
    fn connection_refused(&mut self, port: &UdpPort) {
        let _ = port;
    }

    /// The port is closed. Nothing is called on this protocol any more; it is dropped next.
    fn stop_protocol(&mut self) {}
}

/// How a UDP port is made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UdpOptions {
    /// Whether datagrams may be sent to broadcast addresses (`SO_BROADCAST`).
    pub broadcast: bool,
    /// Whether others may have the same address: the datagrams of a multicast group reach all of them
    /// (`SO_REUSEADDR`).
    pub share_address: bool,
    /// Whether other processes may have the same address, each to get a part of the datagrams
    /// (`SO_REUSEPORT`).
    pub share_port: bool,
    /// Whether a port on an IPv6 address takes nothing from IPv4 (`IPV6_V6ONLY`).
    pub v6_only: bool,
    /// The size of the system's buffer for what arrives (`SO_RCVBUF`); what does not fit is lost.
    pub receive_buffer_bytes: Option<usize>,
    /// The size of the system's buffer for what is sent (`SO_SNDBUF`).
    pub send_buffer_bytes: Option<usize>,
}

/// An interface of this machine, for multicast.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Interface {
    /// The one that has this address. IPv4 only.
    Address(Ipv4Addr),
    /// Whichever the system picks.
    #[default]
    Any,
    /// The one with this number, as `ip link` shows it.
    Index(u32),
}

/// Why a datagram was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendDatagramError {
    /// The port is closed.
    #[error("the port is closed")]
    Closed,
    /// The system has refused it.
    #[error("cannot send a datagram")]
    Io(#[source] io::Error),
    /// Too much waits to be sent already.
    #[error("datagrams of {queued_bytes} bytes wait to be sent already; send less, or less often")]
    QueueFull {
        /// How much waits.
        queued_bytes: usize,
    },
    /// It is longer than the system or the network takes.
    #[error(
        "a datagram of {bytes} bytes is too long; one of {DATAGRAM_BYTES_MAX} is the longest over IPv4"
    )]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

/// The longest datagram that UDP over IPv4 can carry: its lengths are of 16 bits, and the two headers
/// take 28 bytes. Beyond some 1,400 bytes, most are cut up on the way, and lost if a piece is.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// What may wait in one port until the system takes more. A datagram that is late is mostly as bad
/// as one that is lost, so that this is a burst and not a store.
pub const QUEUED_BYTES_MAX: usize = 256 * 1024;

impl Reactor {
    /// Opens a UDP port; port 0 picks a free one. Its protocol runs in a log context of its own, and is
    /// told of the port after the current callback has returned.
    ///
    /// Dropping the handle leaves the port open.
    ///
    /// # Errors
    ///
    /// Those of the system: the address is in use, or not one of this machine's.
    pub fn listen_udp(
        &self,
        address: SocketAddr,
        protocol: Box<dyn DatagramProtocol>,
        options: &UdpOptions,
    ) -> io::Result<UdpPort> {
        self.core().check_open()?;
        let socket = self.core().backend.open_udp(address, options)?;
        Port::open(self.core(), socket, protocol)
    }
}

/// Shares a protocol with whoever keeps the other `Rc`, a test for instance.
///
/// Do not hold a borrow of it while the reactor turns.
impl<P: DatagramProtocol> DatagramProtocol for Rc<std::cell::RefCell<P>> {
    fn start_protocol(&mut self, port: &UdpPort) {
        self.borrow_mut().start_protocol(port);
    }

    fn datagram_received(&mut self, port: &UdpPort, data: &[u8], from: SocketAddr) {
        self.borrow_mut().datagram_received(port, data, from);
    }

    fn connection_refused(&mut self, port: &UdpPort) {
        self.borrow_mut().connection_refused(port);
    }

    fn stop_protocol(&mut self) {
        self.borrow_mut().stop_protocol();
    }
}
