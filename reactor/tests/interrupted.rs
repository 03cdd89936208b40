//! A storm of signals interrupts whatever the loop is at, and nothing is lost or ends for it.
//!
//! Without the test runner, so that the loop runs on the main thread: that is the one the system picks for
//! a signal to the process.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ropewalk::process::Command;
use ropewalk::udp::{DatagramProtocol, UdpOptions, UdpPort};
use ropewalk::{
    Address, ConnectionLost, Deferred, Factory, Failure, Protocol, Reactor, Resolver, Signal,
    Transport, UnixListenOptions, gather_results,
};
use rustix::process::{getpid, kill_process};

/// Signals that must have reached the program before it is enough.
const SIGNALS: usize = 300;

/// Rounds of work that they have for it; one or two do.
const ROUNDS: usize = 500;

/// What goes to an echo and back in a round: more than sockets and pipes hold.
const BYTES: usize = 2_000_000;

const DATAGRAMS: usize = 50;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn main() {
    let reactor = Reactor::new().unwrap();
    let signals = Rc::new(Cell::new(0));
    let counted = Rc::clone(&signals);
    reactor.on_signal(Signal::User1, move || counted.set(counted.get() + 1)).unwrap();

    let is_over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_over);
    let storm = thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            kill_process(getpid(), rustix::process::Signal::USR1).unwrap();
            thread::yield_now();
        }
    });
    let mut rounds = 0;
    while signals.get() < SIGNALS && rounds < ROUNDS {
        round(&reactor);
        rounds += 1;
    }
    is_over.store(true, Ordering::Relaxed);
    storm.join().unwrap();
    assert!(signals.get() >= SIGNALS, "{} signals in {rounds} rounds", signals.get());
    reactor.stop();
    reactor.run().unwrap();
    println!("{} signals in {rounds} rounds of work did no harm", signals.get());
}

/// Has every kind of stream and socket at work at once, and compares what comes back.
fn round(reactor: &Reactor) {
    let folder = tempfile::tempdir().unwrap();
    let echo: Rc<dyn Factory> = Rc::new(|_: &Address| Some(Box::new(Echo) as Box<dyn Protocol>));
    let tcp = reactor.listen_tcp(ANY, Rc::clone(&echo), Default::default()).unwrap();
    let path = folder.path().join("echo.sock");
    let unix = reactor.listen_unix(&*path, echo, UnixListenOptions::default()).unwrap();
    let message: Vec<u8> = (0..BYTES).map(|place| (place % 251) as u8).collect();

    let (over_tcp, answer_tcp) = Asker::new(&message);
    let (over_unix, answer_unix) = Asker::new(&message);
    reactor.connect_tcp(tcp.local_address(), over_tcp).detach();
    reactor.connect_unix(&*path, over_unix).detach();
    let cat = Command::new("cat").input(message.clone());
    let answer_cat = reactor.process_output(cat, BYTES).add_callback(|output| Ok(output.stdout));
    let in_thread = message.clone();
    let answer_thread = reactor.defer_to_thread(move || Ok::<_, Failure>(in_thread));
    let answers = vec![answer_tcp, answer_unix, answer_cat, answer_thread];

    let (datagrams, resolver) = Deferred::new();
    let far = reactor.listen_udp(ANY, Box::new(DatagramEcho), &UdpOptions::default()).unwrap();
    let asker = DatagramAsker { left: DATAGRAMS, done: Some(resolver) };
    let near = reactor.listen_udp(ANY, Box::new(asker), &UdpOptions::default()).unwrap();
    near.write(b"ping", far.local_address()).unwrap();

    let answers = reactor.run_until(gather_results(answers)).unwrap();
    assert!(answers.iter().all(|answer| *answer == message), "all bytes, unchanged");
    reactor.run_until(datagrams).unwrap();
    for port in [&near, &far] {
        port.stop_listening();
    }
    for port in [tcp, unix] {
        port.stop_listening();
    }
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

/// Sends a question, fires with an answer of the same length.
struct Asker {
    question: Vec<u8>,
    answer: Vec<u8>,
    done: Option<Resolver<Vec<u8>>>,
}

impl Asker {
    fn new(question: &[u8]) -> (Box<Asker>, Deferred<Vec<u8>>) {
        let (deferred, resolver) = Deferred::new();
        let question = question.to_vec();
        (Box::new(Asker { question, answer: Vec::new(), done: Some(resolver) }), deferred)
    }
}

impl Protocol for Asker {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&self.question);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.answer.extend_from_slice(data);
        if self.answer.len() >= self.question.len()
            && let Some(done) = self.done.take()
        {
            transport.lose_connection();
            done.callback(std::mem::take(&mut self.answer));
        }
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        if let Some(done) = self.done.take() {
            done.errback(reason);
        }
    }
}

struct DatagramEcho;

impl DatagramProtocol for DatagramEcho {
    fn datagram_received(&mut self, port: &UdpPort, data: &[u8], from: SocketAddr) {
        port.write(data, from).unwrap();
    }
}

/// Asks again when it is answered, so many times.
struct DatagramAsker {
    left: usize,
    done: Option<Resolver<()>>,
}

impl DatagramProtocol for DatagramAsker {
    fn datagram_received(&mut self, port: &UdpPort, data: &[u8], from: SocketAddr) {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            port.write(data, from).unwrap();
        } else if let Some(done) = self.done.take() {
            done.callback(());
        }
    }
}
