//! The echo of datagrams, on the clock.

#[path = "../../../examples/udp_echo.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use std::net::SocketAddr;

use ropewalk::testing::{Clock, success_result_of};
use ropewalk::udp::{DatagramProtocol, UdpOptions, UdpPort};
use ropewalk::{Deferred, Resolver};

struct Asker(Option<Resolver<(Vec<u8>, SocketAddr)>>);

impl DatagramProtocol for Asker {
    fn datagram_received(&mut self, _: &UdpPort, data: &[u8], from: SocketAddr) {
        self.0.take().unwrap().callback((data.to_vec(), from));
    }
}

#[test]
fn what_is_sent_comes_back() {
    let clock = Clock::new();
    let served = example::serve(clock.reactor(), 7777).unwrap().local_address();
    let (answer, resolver) = Deferred::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let asker = Box::new(Asker(Some(resolver)));
    let port = clock.reactor().listen_udp(any, asker, &UdpOptions::default()).unwrap();
    port.write(b"hello", served).unwrap();
    clock.pump();
    assert_eq!(success_result_of(answer), (b"hello".to_vec(), served));
}
