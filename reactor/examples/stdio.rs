//! Repeats in capitals what it reads.
//!
//! `cargo run --example stdio`, or `cargo run --example stdio < Cargo.toml > shouted`.

use std::io;

use ropewalk::{ConnectionLost, Protocol, Reactor, Transport};

pub(crate) struct Shouter(pub(crate) Reactor);

impl Protocol for Shouter {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(&data.to_ascii_uppercase());
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.0.stop();
    }
}

fn main() -> io::Result<()> {
    let reactor = Reactor::new()?;
    reactor.connect_stdio(Box::new(Shouter(reactor.clone())))?;
    reactor.run()
}
