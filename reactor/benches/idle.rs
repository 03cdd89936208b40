//! Resident memory of an idle connection: an echo server's, with 10,000 of them open.
//!
//! `cargo bench --bench idle [-- 'OTHER-SERVER {port}' ..]`: each command is another echo server to be
//! measured beside ours.
#![expect(clippy::disallowed_methods, reason = "processes and files of a bench, in no reactor")]

mod rig;

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{Address, Deferred, Failure, Protocol, Reactor, Resolver, Transport};

use rig::Server;

const CONNECTIONS: u64 = 10_000;

/// What a server's backlog is sure to hold.
const AT_A_TIME: u64 = 250;

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

/// Sends one message, counts when it is back, and is idle from then on.
struct Once {
    left: Rc<Cell<u64>>,
    finished: Rc<Cell<Option<Resolver<()>>>>,
}

impl Protocol for Once {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"once");
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) {
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0
            && let Some(finished) = self.finished.take()
        {
            finished.callback(());
        }
    }
}

fn main() -> Result<(), Failure> {
    let words = rig::words();
    if words.first().is_some_and(|word| word == "serve") {
        return serve(words.get(1).and_then(|port| port.parse().ok()).unwrap_or(0));
    }
    measure(Server::of_ours(&[])?)?;
    for line in &words {
        measure(Server::of_peer(line, &[])?)?;
    }
    Ok(())
}

fn serve(port: u16) -> Result<(), Failure> {
    let reactor = Reactor::new()?;
    let factory = |_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Echo)) };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    reactor.listen_tcp(address, Rc::new(factory), Default::default())?;
    Ok(reactor.run()?)
}

fn measure(server: Server) -> Result<(), Failure> {
    let reactor = Reactor::new()?;
    open(&reactor, &server, 10)?;
    let before = resident_bytes(&server);
    for _ in 0..CONNECTIONS / AT_A_TIME {
        open(&reactor, &server, AT_A_TIME)?;
    }
    let (rested, resolver) = Deferred::new();
    reactor.call_later(Duration::from_millis(200), move || resolver.callback(()));
    reactor.run_until(rested)?;
    let each = resident_bytes(&server).saturating_sub(before) / CONNECTIONS;
    println!(
        "idle, {CONNECTIONS} connections after one echo each: {}: {each} bytes each",
        server.name
    );
    reactor.stop();
    Ok(reactor.run()?)
}

fn open(reactor: &Reactor, server: &Server, count: u64) -> Result<(), Failure> {
    let (all, resolver) = Deferred::new();
    let left = Rc::new(Cell::new(count));
    let finished = Rc::new(Cell::new(Some(resolver)));
    for _ in 0..count {
        let protocol = Once { left: Rc::clone(&left), finished: Rc::clone(&finished) };
        reactor.connect_tcp(server.address, Box::new(protocol)).detach();
    }
    reactor.run_until(all)
}

/// Returns the bytes of the server that lie in memory.
fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
