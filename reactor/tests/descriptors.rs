//! Running out of descriptors. In a process of its own, because the limit holds for all its threads.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use ropewalk::{
    Address, ConnectionLost, Deferred, Protocol, Reactor, Resolver, Transport, logging,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Greets, if it is a server's; resolves with the first bytes, if it is a client's.
struct Greeter(Option<Resolver<Vec<u8>>>);

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &Transport) {
        if self.0.is_none() {
            transport.write(b"welcome");
        }
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        if let Some(resolver) = self.0.take() {
            resolver.callback(data.to_vec());
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if let Some(resolver) = self.0.take() {
            resolver.errback(reason);
        }
    }
}

fn set_soft_limit(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), ..limit }).unwrap();
}

/// Returns the limit that leaves room for one descriptor more. New ones get the lowest free number,
/// and the limit bounds the numbers, not how many there are.
fn limit_with_room_for_one() -> u64 {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let open: Vec<u64> = entries
        // But not the folder that is being read.
        .filter(|entry| !std::fs::read_link(entry.path()).unwrap().ends_with("fd"))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let lowest_free = (0..).find(|number| !open.contains(number)).unwrap();
    lowest_free + 1
}

#[test]
#[cfg(target_os = "linux")]
fn the_limit_is_raised_and_a_port_survives_reaching_it() {
    let hard_limit = getrlimit(Resource::Nofile).maximum;
    set_soft_limit(64);
    let reactor = Reactor::new().unwrap();
    assert_eq!(getrlimit(Resource::Nofile).current, hard_limit, "raised at the start");

    let factory = |_: &Address| -> Option<Box<dyn Protocol>> { Some(Box::new(Greeter(None))) };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let port = reactor.listen_tcp(any, Rc::new(factory), Default::default()).unwrap();
    let lines = logging::capture(10);

    // Room for the client's end, not for the server's.
    set_soft_limit(limit_with_room_for_one());
    let (greeting, resolver) = Deferred::new();
    let connected = reactor.connect_tcp(port.local_address(), Box::new(Greeter(Some(resolver))));
    reactor.run_until(connected).unwrap();
    let is_greeted = Rc::new(Cell::new(false));
    let greeted = Rc::clone(&is_greeted);
    let greeting = greeting.add_callback(move |bytes| {
        greeted.set(true);
        Ok(bytes)
    });
    // Time for the port to try, and to try again if it were foolish enough.
    let (turned, resolver) = Deferred::new();
    reactor.call_later(std::time::Duration::from_millis(20), || resolver.callback(()));
    reactor.run_until(turned).unwrap();
    assert!(!is_greeted.get());
    let complaints: Vec<_> =
        lines.take().into_iter().filter(|line| line.contains("cannot accept")).collect();
    assert_eq!(complaints.len(), 1, "once, not in a loop: {complaints:?}");

    set_soft_limit(hard_limit.unwrap_or(1024).min(1024));
    assert_eq!(reactor.run_until(greeting).unwrap(), b"welcome");
}
