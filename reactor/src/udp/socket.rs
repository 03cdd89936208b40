//! The datagram sockets that backends give: non-blocking, edge-triggered.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::UdpSocket;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};

use super::memory::MemoryDatagrams;
use super::{Interface, UdpOptions};

pub(crate) enum DatagramSocket {
    Memory(MemoryDatagrams),
    Udp(UdpSocket),
}

impl DatagramSocket {
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            DatagramSocket::Memory(socket) => socket.receive(buffer),
            DatagramSocket::Udp(socket) => socket.recv_from(buffer),
        }
    }

    /// Sends to this address, or to the connected peer.
    pub(crate) fn send(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<()> {
        match (self, to) {
            (DatagramSocket::Memory(socket), to) => socket.send(data, to),
            (DatagramSocket::Udp(socket), Some(to)) => socket.send_to(data, to).map(drop),
            (DatagramSocket::Udp(socket), None) => socket.send(data).map(drop),
        }
    }

    pub(crate) fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        match self {
            DatagramSocket::Memory(socket) => socket.connect(peer),
            DatagramSocket::Udp(socket) => socket.connect(peer),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            DatagramSocket::Memory(socket) => Ok(socket.local_address()),
            DatagramSocket::Udp(socket) => socket.local_addr(),
        }
    }

    pub(crate) fn join_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        check_group(group, interface)?;
        match self {
            DatagramSocket::Memory(socket) => socket.join_group(group),
            DatagramSocket::Udp(socket) => match group {
                IpAddr::V4(group) => {
                    SockRef::from(socket).join_multicast_v4_n(&group, &v4_interface(interface))
                }
                IpAddr::V6(group) => {
                    SockRef::from(socket).join_multicast_v6(&group, v6_interface(interface)?)
                }
            },
        }
    }

    pub(crate) fn leave_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        check_group(group, interface)?;
        match self {
            DatagramSocket::Memory(socket) => socket.leave_group(group),
            DatagramSocket::Udp(socket) => match group {
                IpAddr::V4(group) => {
                    SockRef::from(socket).leave_multicast_v4_n(&group, &v4_interface(interface))
                }
                IpAddr::V6(group) => {
                    SockRef::from(socket).leave_multicast_v6(&group, v6_interface(interface)?)
                }
            },
        }
    }

    pub(crate) fn set_multicast_ttl(&self, ttl: u8) -> io::Result<()> {
        match self {
            DatagramSocket::Memory(_) => Ok(()),
            DatagramSocket::Udp(socket) if is_v6(socket)? => {
                SockRef::from(socket).set_multicast_hops_v6(ttl.into())
            }
            DatagramSocket::Udp(socket) => SockRef::from(socket).set_multicast_ttl_v4(ttl.into()),
        }
    }

    pub(crate) fn set_multicast_loopback(&self, is_on: bool) -> io::Result<()> {
        match self {
            DatagramSocket::Memory(socket) => {
                socket.set_multicast_loopback(is_on);
                Ok(())
            }
            DatagramSocket::Udp(socket) if is_v6(socket)? => {
                SockRef::from(socket).set_multicast_loop_v6(is_on)
            }
            DatagramSocket::Udp(socket) => SockRef::from(socket).set_multicast_loop_v4(is_on),
        }
    }

    pub(crate) fn set_multicast_interface(&self, interface: Interface) -> io::Result<()> {
        let is_v6 = match self {
            DatagramSocket::Memory(socket) => socket.local_address().is_ipv6(),
            DatagramSocket::Udp(socket) => is_v6(socket)?,
        };
        let index = if is_v6 { v6_interface(interface)? } else { 0 };
        match self {
            DatagramSocket::Memory(_) => Ok(()),
            DatagramSocket::Udp(socket) if is_v6 => {
                SockRef::from(socket).set_multicast_if_v6(index)
            }
            DatagramSocket::Udp(socket) => set_v4_interface(socket, interface),
        }
    }
}

/// Opens a socket of the system.
pub(crate) fn open(address: SocketAddr, options: &UdpOptions) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(options.share_address)?;
    socket.set_reuse_port(options.share_port)?;
    socket.set_broadcast(options.broadcast)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

fn is_v6(socket: &UdpSocket) -> io::Result<bool> {
    socket.local_addr().map(|address| address.is_ipv6())
}

fn check_group(group: IpAddr, interface: Interface) -> io::Result<()> {
    if !group.is_multicast() {
        let text = format!("{group} is not the address of a multicast group");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if group.is_ipv6() {
        v6_interface(interface)?;
    }
    Ok(())
}

fn v4_interface(interface: Interface) -> InterfaceIndexOrAddress {
    match interface {
        Interface::Address(address) => InterfaceIndexOrAddress::Address(address),
        Interface::Any => InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
        Interface::Index(index) => InterfaceIndexOrAddress::Index(index),
    }
}

fn v6_interface(interface: Interface) -> io::Result<u32> {
    match interface {
        Interface::Address(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "IPv6 knows interfaces by their number; use Interface::Index",
        )),
        Interface::Any => Ok(0),
        Interface::Index(index) => Ok(index),
    }
}

fn set_v4_interface(socket: &UdpSocket, interface: Interface) -> io::Result<()> {
    let address = match interface {
        Interface::Address(address) => address,
        Interface::Any => Ipv4Addr::UNSPECIFIED,
        Interface::Index(_) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "over IPv4, datagrams leave by the interface that has an address; use \
                 Interface::Address",
            ));
        }
    };
    SockRef::from(socket).set_multicast_if_v4(&address)
}
