//! Sends back whatever it gets, on the port named on the command line (default: a free one).
//!
//! `cargo run --release --example echo 7777`, then `nc localhost 7777`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use ropewalk::{ListenOptions, ListeningPort, Protocol, Reactor, Transport, factory};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

/// Listens at this address.
pub(crate) fn serve(reactor: &Reactor, address: SocketAddr) -> io::Result<ListeningPort> {
    reactor.listen_tcp(address, factory(|_| Echo), ListenOptions::default())
}

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1).map(|text| text.parse()) {
        None => 0,
        Some(Ok(port)) => port,
        Some(Err(error)) => {
            eprintln!("error: not a port: {error}\nhint: give a number up to 65535");
            std::process::exit(2);
        }
    };
    let reactor = Reactor::new()?;
    reactor.install_signals()?;
    let listening = serve(&reactor, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    eprintln!("listening on {}", listening.local_address());
    reactor.run()
}
