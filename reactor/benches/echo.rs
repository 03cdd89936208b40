//! Echo throughput over loopback TCP, both ends on one loop: COUNT round trips of 64 bytes on each of
//! 64 connections.
//!
//! `cargo bench --bench echo [-- COUNT]`. Both ends' work and the system's is in the figure; what the
//! server alone costs is counted with `examples/echo.rs` under callgrind.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{
    Address, Deferred, Failure, Protocol, Reactor, Resolver, Transport, gather_results,
};

const CONNECTIONS: u32 = 64;
const MESSAGE: [u8; 64] = [7; 64];

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

/// Sends the message again each time it comes back whole.
struct Pinger {
    left: u32,
    bytes: usize,
    finished: Option<Resolver<()>>,
}

impl Protocol for Pinger {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&MESSAGE);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.bytes += data.len();
        if self.bytes < MESSAGE.len() {
            return;
        }
        self.bytes = 0;
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            transport.write(&MESSAGE);
        } else if let Some(finished) = self.finished.take() {
            finished.callback(());
        }
    }
}

fn main() -> Result<(), Failure> {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(2_000);
    let reactor = Reactor::new()?;
    let factory = |_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Echo)) };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let port = reactor.listen_tcp(any, Rc::new(factory), Default::default())?;
    let started = reactor.now();
    let finished = (0..CONNECTIONS)
        .map(|_| {
            let (deferred, resolver) = Deferred::new();
            let pinger = Pinger { left: count, bytes: 0, finished: Some(resolver) };
            reactor.connect_tcp(port.local_address(), Box::new(pinger)).detach();
            deferred
        })
        .collect();
    reactor.run_until(gather_results(finished))?;
    report(reactor.now() - started, CONNECTIONS * count);
    reactor.stop();
    Ok(reactor.run()?)
}

fn report(elapsed: Duration, messages: u32) {
    let nanos = elapsed.as_nanos() / u128::from(messages.max(1));
    println!("echo, {CONNECTIONS} connections: {nanos} ns a round trip, both ends");
}
