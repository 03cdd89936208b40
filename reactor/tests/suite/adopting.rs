//! Sockets that somebody else has opened.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::thread;

use ropewalk::testing::Clock;
use ropewalk::udp::{DatagramProtocol, UdpPort};
use ropewalk::{
    Address, ConnectionLost, Deferred, Factory, ListenOptions, Protocol, Reactor, Resolver,
    Transport,
};

use crate::support::{Diary, Recorder, read};

/// Sends back what it gets; fires when it is over.
struct Echo(Option<Resolver<()>>);

impl Echo {
    fn new() -> (Box<Echo>, Deferred<()>) {
        let (deferred, resolver) = Deferred::new();
        (Box::new(Echo(Some(resolver))), deferred)
    }
}

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.0.take().unwrap().callback(());
    }
}

fn once(protocol: Box<dyn Protocol>) -> Rc<dyn Factory> {
    let protocol = RefCell::new(Some(protocol));
    Rc::new(move |_: &Address| protocol.take())
}

fn listener() -> std::net::TcpListener {
    #[expect(clippy::disallowed_methods, reason = "it stands for a socket from elsewhere")]
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Says hello and waits for it to come back, in a thread.
fn visit(mut stream: impl Read + Write + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    })
}

#[test]
fn listeners_of_both_kinds_serve() {
    let reactor = Reactor::new().unwrap();
    let tcp = listener();
    let address = tcp.local_addr().unwrap();
    let (echo, over) = Echo::new();
    let port = reactor.adopt_listener(tcp, once(echo)).unwrap();
    assert_eq!(port.local_address(), address);
    #[expect(clippy::disallowed_methods, reason = "it stands for a program elsewhere")]
    let visitor = visit(TcpStream::connect(address).unwrap());
    reactor.run_until(over).unwrap();
    assert_eq!(visitor.join().unwrap(), "hello");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (echo, over) = Echo::new();
    let port = reactor.adopt_listener(UnixListener::bind(&path).unwrap(), once(echo)).unwrap();
    let visitor = visit(UnixStream::connect(&path).unwrap());
    reactor.run_until(over).unwrap();
    assert_eq!(visitor.join().unwrap(), "hello");
    port.stop_listening();
    assert!(path.exists(), "the file is its maker's");
}

#[test]
fn a_connected_stream_is_made_after_the_caller_has_returned() {
    let reactor = Reactor::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let diary = Diary::default();
    let transport = reactor.adopt_stream(near, Box::new(Recorder::new(&diary))).unwrap();
    assert_eq!(read(&diary), [""; 0]);
    transport.write(b"written early");
    let (near_too, over) = UnixStream::pair()
        .map(|(near, far)| {
            let (echo, over) = Echo::new();
            reactor.adopt_stream(near, echo).unwrap();
            (visit(far), over)
        })
        .unwrap();
    reactor.run_until(over).unwrap();
    assert_eq!(near_too.join().unwrap(), "hello");
    assert_eq!(read(&diary), ["made"]);
    let mut text = [0; 13];
    (&far).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"written early");
}

#[test]
fn a_udp_socket_receives() {
    struct First(Option<Resolver<Vec<u8>>>);

    impl DatagramProtocol for First {
        fn datagram_received(&mut self, _: &UdpPort, data: &[u8], _: std::net::SocketAddr) {
            if let Some(resolver) = self.0.take() {
                resolver.callback(data.to_vec());
            }
        }
    }

    let reactor = Reactor::new().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (received, resolver) = Deferred::new();
    reactor.adopt_udp(socket, Box::new(First(Some(resolver)))).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", address).unwrap();
    assert_eq!(reactor.run_until(received).unwrap(), b"hello");
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let reactor = Reactor::new().unwrap();
    let nobody = || once(Echo::new().0);
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let stream = || OwnedFd::from(UnixStream::pair().unwrap().0);
    for (why, result) in [
        ("it is no stream socket", reactor.adopt_listener(udp(), nobody()).map(drop)),
        ("it does not listen", reactor.adopt_listener(stream(), nobody()).map(drop)),
        ("it is no stream socket", reactor.adopt_stream(udp(), Echo::new().0).map(drop)),
        ("", reactor.adopt_stream(listener(), Echo::new().0).map(drop)),
        ("", reactor.adopt_stream(file(), Echo::new().0).map(drop)),
    ] {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let clock = Clock::new();
    let error = clock.reactor().adopt_stream(stream(), Echo::new().0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(clock.reactor().inherited_sockets().is_empty());
}

#[test]
fn two_reactors_share_a_port() {
    let (one, other) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    let options = ListenOptions { share_port: true, ..ListenOptions::default() };
    let (echo, over) = Echo::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let first = one.listen_tcp(any, once(echo), options.clone()).unwrap();
    let (other_echo, _over) = Echo::new();
    let second = other.listen_tcp(first.local_address(), once(other_echo), options).unwrap();
    assert_eq!(first.local_address(), second.local_address());
    second.stop_listening();
    // The one that is left gets everything.
    #[expect(clippy::disallowed_methods, reason = "it stands for a program elsewhere")]
    let visitor = visit(TcpStream::connect(first.local_address()).unwrap());
    one.run_until(over).unwrap();
    assert_eq!(visitor.join().unwrap(), "hello");
}
