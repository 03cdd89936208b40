//! Sockets that somebody else has opened: a service manager, a parent, another process that passed them.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use socket2::{Domain, Socket, Type};

use super::Transport;
use super::link::{Link, Setup};
use super::port::{ListeningPort, Port, Security};
use super::stream::{Listener, Stream};
use super::tcp::ListenOptions;
use super::unix;
use crate::address::{Address, UnixAddress};
use crate::context::LogContext;
use crate::protocol::{Factory, Protocol};
use crate::reactor::Reactor;
use crate::udp::socket::DatagramSocket;
use crate::udp::{self, DatagramProtocol, UdpPort};

impl Reactor {
    /// Accepts connections on a TCP or Unix socket that listens already: a listener of `std`, or one
    /// that was [inherited](crate::process::InheritedSockets) or passed.
    ///
    /// It works as with the default [`ListenOptions`], and is set not to block, which those who share it
    /// notice. The file of a Unix socket is its
    /// maker's, and stays.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ropewalk::{Address, Protocol, Reactor};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let reactor = Reactor::new()?;
    /// let nobody = |_: &Address| None::<Box<dyn Protocol>>;
    /// let port = reactor.adopt_listener(socket, Rc::new(nobody))?;
    /// assert!(port.is_listening());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the system; and if it is another kind of socket, or does not listen. On a reactor of the
    /// test kit there are no descriptors.
    pub fn adopt_listener(
        &self,
        socket: impl Into<OwnedFd>,
        factory: Rc<dyn Factory>,
    ) -> io::Result<ListeningPort> {
        self.adopt_port(socket.into(), factory, Security::Plain)
    }

    /// As [`adopt_listener`](Reactor::adopt_listener), and speaks TLS on what it accepts.
    ///
    /// # Errors
    ///
    /// As [`adopt_listener`](Reactor::adopt_listener).
    pub fn adopt_tls_listener(
        &self,
        socket: impl Into<OwnedFd>,
        factory: Rc<dyn Factory>,
        config: Arc<rustls::ServerConfig>,
    ) -> io::Result<ListeningPort> {
        self.adopt_port(socket.into(), factory, Security::Tls(config))
    }

    fn adopt_port(
        &self,
        descriptor: OwnedFd,
        factory: Rc<dyn Factory>,
        security: Security,
    ) -> io::Result<ListeningPort> {
        let (socket, domain) = self.prepare(descriptor, Type::STREAM)?;
        if !socket.is_listener()? {
            return Err(unsuitable("it does not listen"));
        }
        let listener = if domain == Domain::UNIX {
            let listener = UnixListener::from_std(socket.into());
            Listener::Unix(Box::new(unix::UnixListener::adopt(listener)))
        } else {
            Listener::Tcp(TcpListener::from_std(socket.into()))
        };
        let on_accept = ListenOptions::default().on_accept();
        Port::open(self.core(), listener, factory, security, on_accept)
    }

    /// Puts a protocol on a TCP or Unix stream socket that is connected already, and tells it so after
    /// the current callback has returned.
    ///
    /// It is set not to block, which those who share it notice.
    ///
    /// # Errors
    ///
    /// Those of the system; and if it is another kind of socket, or not connected. On a reactor of the
    /// test kit there are no descriptors.
    pub fn adopt_stream(
        &self,
        socket: impl Into<OwnedFd>,
        protocol: Box<dyn Protocol>,
    ) -> io::Result<Transport> {
        let (socket, domain) = self.prepare(socket.into(), Type::STREAM)?;
        let (stream, peer) = if domain == Domain::UNIX {
            let stream = UnixStream::from_std(socket.into());
            let peer = UnixAddress::from_system(&stream.peer_addr()?);
            (Stream::Unix(Box::new(unix::UnixStream::new(stream))), Address::Unix(peer))
        } else {
            let stream = TcpStream::from_std(socket.into());
            let peer = stream.peer_addr()?;
            stream.set_nodelay(true)?;
            (Stream::Tcp(stream), Address::Tcp(peer))
        };
        let context = LogContext::current();
        let setup = Setup { stream, peer, protocol, context, session: None };
        Ok(Transport::new(Link::establish_soon(self.core(), setup, false)?))
    }

    /// Receives datagrams on a UDP socket that is bound already. It is set not to block, which those who
    /// share it notice.
    ///
    /// # Errors
    ///
    /// Those of the system; and if it is another kind of socket. On a reactor of the test kit there are no
    /// descriptors.
    pub fn adopt_udp(
        &self,
        socket: impl Into<OwnedFd>,
        protocol: Box<dyn DatagramProtocol>,
    ) -> io::Result<UdpPort> {
        let (socket, domain) = self.prepare(socket.into(), Type::DGRAM)?;
        if domain == Domain::UNIX {
            return Err(unsuitable("it is a Unix datagram socket, not one of UDP"));
        }
        let socket = DatagramSocket::Udp(UdpSocket::from_std(socket.into()));
        udp::Port::open(self.core(), socket, protocol)
    }

    fn prepare(&self, descriptor: OwnedFd, kind: Type) -> io::Result<(Socket, Domain)> {
        self.check_has_descriptors()?;
        self.core().check_open()?;
        let socket = Socket::from(descriptor);
        if socket.r#type()? != kind {
            return Err(unsuitable(match kind {
                Type::STREAM => "it is no stream socket",
                _ => "it is no datagram socket",
            }));
        }
        let domain = socket.local_addr()?.domain();
        if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain) {
            return Err(unsuitable("it belongs to neither the internet nor Unix sockets"));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        Ok((socket, domain))
    }
}

#[cold]
fn unsuitable(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("cannot take over the socket: {why}"))
}
