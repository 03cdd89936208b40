//! Sends each datagram back to where it came from.
//!
//! `cargo run --example udp_echo 7777`, then `nc -u localhost 7777`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use ropewalk::Reactor;
use ropewalk::udp::{DatagramProtocol, UdpOptions, UdpPort};

struct Echo;

impl DatagramProtocol for Echo {
    fn datagram_received(&mut self, port: &UdpPort, data: &[u8], from: SocketAddr) {
        if let Err(error) = port.write(data, from) {
            eprintln!("no answer for {from}: {error}");
        }
    }
}

pub(crate) fn serve(reactor: &Reactor, number: u16) -> io::Result<UdpPort> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
    reactor.listen_udp(address, Box::new(Echo), &UdpOptions::default())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let reactor = Reactor::new()?;
    reactor.install_signals()?;
    let port = serve(&reactor, number)?;
    eprintln!("listening on {}", port.local_address());
    Ok(reactor.run()?)
}
