//! TCP sockets: their options, listening, connecting.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::port::AcceptOptions;
use super::tls::HANDSHAKE_TIME_MAX;

/// How a TCP port listens and what its connections start with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenOptions {
    /// Connections that the system may hold until they are accepted.
    pub backlog: u32,
    /// Whether small writes are sent at once (`TCP_NODELAY`).
    pub no_delay: bool,
    /// Whether other processes may listen on the same address and share its connections
    /// (`SO_REUSEPORT`).
    pub share_port: bool,
    /// Whether a port on an IPv6 address takes no connections from IPv4 (`IPV6_V6ONLY`). If not,
    /// listening on `[::]` serves both.
    pub v6_only: bool,
    /// After how much silence the system asks the peer whether it is still there (`SO_KEEPALIVE`),
    /// and how often it asks again; in whole seconds. A peer that does not answer several times ends
    /// the connection.
    pub keepalive: Option<Duration>,
    /// The size of the system's buffer for what arrives on a connection (`SO_RCVBUF`). Without it the
    /// system finds a size by itself, which is commonly best.
    pub receive_buffer_bytes: Option<usize>,
    /// The size of the system's buffer for what is sent on a connection (`SO_SNDBUF`).
    pub send_buffer_bytes: Option<usize>,
    /// How long a client may take for its TLS handshake before it is cut off.
    pub handshake_limit: Duration,
}

impl Default for ListenOptions {
    /// A backlog of 1,024, small writes sent at once, the port not shared, ten seconds for a TLS
    /// handshake; the rest as the system does it.
    fn default() -> ListenOptions {
        ListenOptions {
            backlog: 1024,
            no_delay: true,
            share_port: false,
            v6_only: false,
            keepalive: None,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
            handshake_limit: HANDSHAKE_TIME_MAX,
        }
    }
}

impl ListenOptions {
    pub(crate) fn on_accept(&self) -> AcceptOptions {
        AcceptOptions {
            no_delay: self.no_delay,
            keepalive: self.keepalive,
            handshake_limit: self.handshake_limit,
        }
    }
}

/// How a TCP connection is made and what it starts with.
///
/// There is no option for `SO_LINGER`: closing such a socket can hold up the loop, and
/// [`abort_connection`](crate::Transport::abort_connection) does what a linger time of zero is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectOptions {
    /// The address of this end; port 0 picks a free one. `None`: the system picks both.
    pub bind_address: Option<SocketAddr>,
    /// As [`ListenOptions::no_delay`].
    pub no_delay: bool,
    /// As [`ListenOptions::keepalive`].
    pub keepalive: Option<Duration>,
    /// As [`ListenOptions::receive_buffer_bytes`].
    pub receive_buffer_bytes: Option<usize>,
    /// As [`ListenOptions::send_buffer_bytes`].
    pub send_buffer_bytes: Option<usize>,
}

impl Default for ConnectOptions {
    /// Any address of this machine, small writes sent at once; the rest as the system does it.
    fn default() -> ConnectOptions {
        ConnectOptions {
            bind_address: None,
            no_delay: true,
            keepalive: None,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
        }
    }
}

/// Opens a listening socket.
pub(crate) fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = open(address)?;
    // So that a restarted server gets its port back while old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.share_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    // Accepted sockets inherit these; the first must be known before the window is agreed on.
    set_buffers(&socket, options.receive_buffer_bytes, options.send_buffer_bytes)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Begins to connect. The stream becomes writable when it is known how that went.
pub(crate) fn connect(address: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let socket = open(address)?;
    if options.no_delay {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(idle_time) = options.keepalive {
        set_keepalive(&SockRef::from(&socket), idle_time)?;
    }
    set_buffers(&socket, options.receive_buffer_bytes, options.send_buffer_bytes)?;
    if let Some(bind_address) = options.bind_address {
        // With a port that is named, as after a restart; a free one is not looked for among those
        // that linger in TIME_WAIT.
        socket.set_reuse_address(bind_address.port() != 0)?;
        socket.bind(&bind_address.into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

pub(crate) fn set_keepalive(socket: &SockRef<'_>, idle_time: Duration) -> io::Result<()> {
    // The system counts in seconds, and refuses none.
    let time = idle_time.max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(time))
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
}

fn set_buffers(socket: &Socket, receive: Option<usize>, send: Option<usize>) -> io::Result<()> {
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = send {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn options_reach_the_sockets() {
        let keepalive = Some(Duration::from_secs(77));
        let listen_options = ListenOptions {
            share_port: true,
            receive_buffer_bytes: Some(8 * 1024),
            ..ListenOptions::default()
        };
        let listener = listen(ANY, &listen_options).unwrap();
        let socket = SockRef::from(&listener);
        assert!(socket.reuse_address().unwrap() && socket.reuse_port().unwrap());
        // Linux doubles what is asked for.
        assert!(socket.recv_buffer_size().unwrap() <= 16 * 1024);
        let bind_address = Some((Ipv4Addr::LOCALHOST, 0).into());
        let options = ConnectOptions {
            bind_address,
            keepalive,
            send_buffer_bytes: Some(8 * 1024),
            ..ConnectOptions::default()
        };
        let stream = connect(listener.local_addr().unwrap(), &options).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert!(socket.send_buffer_size().unwrap() <= 16 * 1024);
        let options = ConnectOptions { no_delay: false, ..ConnectOptions::default() };
        let stream = connect(listener.local_addr().unwrap(), &options).unwrap();
        assert!(!SockRef::from(&stream).tcp_nodelay().unwrap());
    }

    #[test]
    fn a_port_is_shared_by_those_who_ask_for_it() {
        let shared = ListenOptions { share_port: true, ..ListenOptions::default() };
        let first = listen(ANY, &shared).unwrap();
        let address = first.local_addr().unwrap();
        let _second = listen(address, &shared).unwrap();
        let error = listen(address, &ListenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_ipv6_port_serves_ipv4_unless_told_otherwise() {
        let any: SocketAddr = "[::]:0".parse().unwrap();
        for v6_only in [false, true] {
            let Ok(listener) = listen(any, &ListenOptions { v6_only, ..ListenOptions::default() })
            else {
                return eprintln!("skipped: this machine has no IPv6");
            };
            assert_eq!(SockRef::from(&listener).only_v6().unwrap(), v6_only);
        }
    }
}
