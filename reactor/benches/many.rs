//! Latency of an echo server with 10,000 connections of which one in a hundred is active at a time,
//! server and client in two processes.
//!
//! `cargo bench --bench many [-- 'OTHER-SERVER {port}' ..]`: each command is another echo server to be
//! measured in the same run, by turns with ours.
#![expect(clippy::disallowed_methods, reason = "processes and files of a bench, in no reactor")]

mod rig;

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{Address, Deferred, Failure, Instant, Protocol, Reactor, Resolver, Transport};

use rig::Server;

const CONNECTIONS: usize = 10_000;
const ACTIVE: usize = CONNECTIONS / 100;
const MESSAGES_PER_ROUND: usize = 50_000;
const ROUNDS: usize = 5;

/// What a server's backlog is sure to hold.
const AT_A_TIME: usize = 250;

const MESSAGE: [u8; 64] = [7; 64];

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

/// The client: who is connected, and what the messages took.
struct Load {
    reactor: Reactor,
    idle: RefCell<Vec<Pinged>>,
    random: Cell<u64>,
    connecting: Cell<usize>,
    left: Cell<usize>,
    latencies: RefCell<Vec<Duration>>,
    finished: Cell<Option<Resolver<()>>>,
}

impl Load {
    /// Sends a message on some connection that is idle.
    fn send(&self) {
        let mut idle = self.idle.borrow_mut();
        // Marsaglia's xorshift: the same order in each run.
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        let place = random as usize % idle.len();
        let (transport, sent) = idle.swap_remove(place);
        sent.set(self.reactor.now());
        transport.write(&MESSAGE);
    }

    fn finish(&self) {
        if let Some(finished) = self.finished.take() {
            finished.callback(());
        }
    }

    fn wait(&self) -> Deferred<()> {
        let (deferred, resolver) = Deferred::new();
        self.finished.set(Some(resolver));
        deferred
    }
}

/// A connection, and when it sent its last message.
type Pinged = (Transport, Rc<Cell<Instant>>);

/// One of the client's connections.
struct Pinger {
    load: Rc<Load>,
    bytes: usize,
    sent: Rc<Cell<Instant>>,
}

impl Protocol for Pinger {
    fn connection_made(&mut self, transport: &Transport) {
        self.load.idle.borrow_mut().push((transport.clone(), Rc::clone(&self.sent)));
        self.load.connecting.set(self.load.connecting.get() - 1);
        if self.load.connecting.get() == 0 {
            self.load.finish();
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.bytes += data.len();
        if self.bytes < MESSAGE.len() {
            return;
        }
        self.bytes = 0;
        let load = &self.load;
        load.latencies.borrow_mut().push(load.reactor.now() - self.sent.get());
        load.idle.borrow_mut().push((transport.clone(), Rc::clone(&self.sent)));
        load.left.set(load.left.get().saturating_sub(1));
        if load.left.get() >= ACTIVE {
            load.send();
        } else if load.left.get() == 0 {
            load.finish();
        }
    }
}

fn main() -> Result<(), Failure> {
    let words = rig::words();
    if words.first().is_some_and(|word| word == "serve") {
        return serve(words.get(1).and_then(|port| port.parse().ok()).unwrap_or(0));
    }
    let mut servers = vec![Server::of_ours(&[])?];
    for line in &words {
        servers.push(Server::of_peer(line, &[])?);
    }
    let mut figures = vec![(Vec::new(), 0.0); servers.len()];
    for _ in 0..ROUNDS {
        for (server, (latencies, cpu_micros)) in servers.iter().zip(&mut figures) {
            let before = rig::cpu::micros(server.process_id());
            latencies.append(&mut round(server)?);
            *cpu_micros += rig::cpu::micros(server.process_id()) - before;
        }
    }
    println!("echo, {CONNECTIONS} connections, {ACTIVE} active");
    for (server, (latencies, cpu_micros)) in servers.iter().zip(&mut figures) {
        latencies.sort_unstable();
        let quantile =
            |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_micros();
        println!(
            "{}: p50 {} us, p99 {} us, p99.9 {} us; {:.2} us of the server's CPU a message, \
             connecting included",
            server.name,
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            *cpu_micros / latencies.len() as f64,
        );
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

/// Opens all connections, sends the messages of a round, and returns what each took.
fn round(server: &Server) -> Result<Vec<Duration>, Failure> {
    let reactor = Reactor::new()?;
    let load = Rc::new(Load {
        reactor: reactor.clone(),
        idle: RefCell::default(),
        random: Cell::new(88_172_645_463_325_252),
        connecting: Cell::new(0),
        left: Cell::new(MESSAGES_PER_ROUND),
        latencies: RefCell::default(),
        finished: Cell::new(None),
    });
    for _ in 0..CONNECTIONS / AT_A_TIME {
        let connected = load.wait();
        load.connecting.set(AT_A_TIME);
        for _ in 0..AT_A_TIME {
            let sent = Rc::new(Cell::new(Instant::START));
            let pinger = Pinger { load: Rc::clone(&load), bytes: 0, sent };
            reactor.connect_tcp(server.address, Box::new(pinger)).detach();
        }
        reactor.run_until(connected)?;
    }
    let answered = load.wait();
    (0..ACTIVE).for_each(|_| load.send());
    reactor.run_until(answered)?;
    load.idle.take();
    let latencies = load.latencies.take();
    reactor.stop();
    reactor.run()?;
    Ok(latencies)
}
