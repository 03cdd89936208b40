//! Every `Transport` method, called from inside every `Protocol` method; on each kind of connection.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use ropewalk::testing::{Clock, MemoryTransport};
use ropewalk::{
    Address, ConnectionLost, Deferred, LogContext, Producer, Protocol, Reactor, Resolver,
    Streaming, Transport,
};

type Action = fn(&Transport);

/// What is done with the transport; all its methods are among these.
const ACTIONS: [(&str, Action); 20] = [
    ("write", |t| t.write(b"abc")),
    ("write nothing", |t| t.write(b"")),
    ("write much", |t| t.write(&[7; 300_000])),
    ("write_bytes", |t| t.write_bytes(Bytes::from(vec![7; 300_000]))),
    ("lose_connection", Transport::lose_connection),
    ("write and lose", |t| {
        t.write(b"abc");
        t.lose_connection();
    }),
    ("lose_write_connection", Transport::lose_write_connection),
    ("abort_connection", Transport::abort_connection),
    ("write and abort", |t| {
        t.write(b"abc");
        t.abort_connection();
    }),
    ("pause_producing", Transport::pause_producing),
    ("resume_producing", Transport::resume_producing),
    ("pause and resume", |t| {
        t.pause_producing();
        t.resume_producing();
    }),
    ("register a push producer", |t| {
        t.register_producer(Rc::new(Silent(Rc::clone(&DEPTH.with(Rc::clone)))), Streaming::Push);
    }),
    ("register a pull producer", |t| {
        t.register_producer(Rc::new(Silent(Rc::clone(&DEPTH.with(Rc::clone)))), Streaming::Pull);
    }),
    ("unregister_producer", Transport::unregister_producer),
    ("set_watermarks", |t| t.set_watermarks(1, 0)),
    ("lose and abort and lose", |t| {
        t.lose_connection();
        t.abort_connection();
        t.lose_write_connection();
    }),
    ("ask", |t| {
        let _ = (t.peer(), t.local(), t.is_connected(), t.buffered_bytes(), format!("{t:?}"));
        let _ = t.peer_credentials();
    }),
    ("send_file_descriptor", |t| {
        let _ = t.send_file_descriptor(a_descriptor());
    }),
    ("send descriptors and write", |t| {
        let _ = t.send_file_descriptor(a_descriptor());
        let _ = t.send_file_descriptor(a_descriptor());
        t.write(b"abc");
    }),
];

thread_local! {
    /// How many calls by the reactor are under way; one at most, ever.
    static DEPTH: Rc<Cell<usize>> = Rc::default();
}

fn a_descriptor() -> OwnedFd {
    std::io::pipe().unwrap().1.into()
}

fn alone<T>(depth: &Cell<usize>, f: impl FnOnce() -> T) -> T {
    assert_eq!(depth.replace(1), 0, "the reactor's calls do not nest");
    let result = f();
    depth.set(0);
    result
}

struct Silent(Rc<Cell<usize>>);

impl Producer for Silent {
    fn pause_producing(&self) {
        alone(&self.0, || {});
    }

    fn resume_producing(&self) {
        alone(&self.0, || {});
    }

    fn stop_producing(&self) {
        alone(&self.0, || {});
    }
}

/// Does one thing in one of its methods, and counts the calls of each.
struct Prodder {
    method: usize,
    action: Action,
    transport: Option<Transport>,
    counts: Rc<[Cell<usize>; 5]>,
    depth: Rc<Cell<usize>>,
    lost: Option<Resolver<()>>,
}

impl Prodder {
    fn called(&self, method: usize) {
        alone(&self.depth, || {
            self.counts[method].set(self.counts[method].get() + 1);
            if self.method == method
                && let Some(transport) = &self.transport
            {
                (self.action)(transport);
                (self.action)(transport);
            }
        });
    }
}

impl Protocol for Prodder {
    fn connection_made(&mut self, transport: &Transport) {
        self.transport = Some(transport.clone());
        self.called(0);
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) {
        self.called(1);
    }

    fn read_connection_lost(&mut self, _: &Transport) {
        self.called(2);
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.called(3);
        if let Some(lost) = self.lost.take() {
            lost.callback(());
        }
    }

    fn file_descriptor_received(&mut self, _: &Transport, _: OwnedFd) {
        self.called(4);
    }
}

#[test]
fn every_transport_method_works_from_inside_every_protocol_method() {
    for method in 0..4 {
        for (name, action) in ACTIONS {
            let clock = Clock::new();
            let counts: Rc<[Cell<usize>; 5]> = Rc::default();
            let protocol = Prodder {
                method,
                action,
                transport: None,
                counts: Rc::clone(&counts),
                depth: DEPTH.with(Rc::clone),
                lost: None,
            };
            let memory = MemoryTransport::connect(&clock, protocol);
            if !memory.is_closed() && memory.transport().is_connected() {
                memory.deliver(b"some");
                memory.take_written();
            }
            memory.finish();
            memory.take_written();
            memory.reset();
            memory.transport().abort_connection();
            clock.pump();
            let why = format!("{name} from inside method {method}");
            assert_eq!(counts[0].get(), 1, "made: {why}");
            assert_eq!(counts[3].get(), 1, "lost: {why}");
            assert!(counts[2].get() <= 1, "read lost: {why}");
            assert_eq!(clock.open_connections(), 0, "{why}");
            assert!(LogContext::current().is_sentinel(), "{why}");
        }
    }
}

/// Sends a descriptor, some bytes and its end; listens to whatever comes.
struct Visitor(Option<Resolver<()>>);

impl Protocol for Visitor {
    fn connection_made(&mut self, transport: &Transport) {
        transport.send_file_descriptor(a_descriptor()).unwrap();
        transport.write(b"some");
        transport.lose_write_connection();
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) {}

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.0.take().unwrap().callback(());
    }
}

/// Has a visitor come to a prodder, and ends what is not over then. `settle` lets the reactor do
/// what it can.
fn visit(
    reactor: &Reactor,
    path: &str,
    method: usize,
    action: Action,
    settle: impl Fn(),
) -> [usize; 5] {
    let counts: Rc<[Cell<usize>; 5]> = Rc::default();
    let (prodded, lost) = Deferred::new();
    let prodder = Prodder {
        method,
        action,
        transport: None,
        counts: Rc::clone(&counts),
        depth: DEPTH.with(Rc::clone),
        lost: Some(lost),
    };
    let prodder = Rc::new(RefCell::new(prodder));
    let served = Rc::clone(&prodder);
    let factory = move |_: &Address| Some(Box::new(Rc::clone(&served)) as Box<dyn Protocol>);
    let port = reactor.listen_unix(path, Rc::new(factory), Default::default()).unwrap();
    let (visited, resolver) = Deferred::new();
    let connected = reactor.connect_unix(path, Box::new(Visitor(Some(resolver))));
    settle();
    // It fails if the prodder was gone before its visitor had heard of the connection.
    let visitor = connected.into_result().unwrap();
    let transport = prodder.borrow().transport.clone().unwrap();
    transport.abort_connection();
    settle();
    if let Ok(visitor) = visitor {
        visitor.abort_connection();
    }
    settle();
    assert!(prodded.into_result().is_ok_and(|lost| lost.is_ok()));
    assert!(visited.into_result().is_ok(), "lost, or never made");
    port.stop_listening();
    [0, 1, 2, 3, 4].map(|method| counts[method].get())
}

#[test]
fn on_unix_sockets_in_memory_too() {
    for method in 0..5 {
        for (name, action) in ACTIONS {
            let clock = Clock::new();
            let counts = visit(clock.reactor(), "/run/prodder", method, action, || clock.pump());
            let why = format!("{name} from inside method {method}");
            assert_eq!((counts[0], counts[3]), (1, 1), "made and lost: {why}");
            assert!(counts[2] <= 1 && counts[4] <= 1, "{why}");
            assert_eq!(clock.open_connections(), 0, "{why}");
        }
    }
}

#[test]
fn on_real_unix_sockets_too() {
    let folder = tempfile::tempdir().unwrap();
    let reactor = Reactor::new().unwrap();
    // Both ends are on this reactor and the system passes bytes on at once, so that turns are all it
    // takes; what needs more of them than this is too slow.
    let settle = || {
        for _ in 0..20 {
            let (turned, resolver) = Deferred::new();
            reactor.call_later(std::time::Duration::ZERO, || resolver.callback(()));
            reactor.run_until(turned).unwrap();
        }
    };
    for method in 0..5 {
        for (number, (name, action)) in ACTIONS.into_iter().enumerate() {
            let path = folder.path().join(format!("{method}-{number}"));
            let counts = visit(&reactor, path.to_str().unwrap(), method, action, settle);
            let why = format!("{name} from inside method {method}");
            assert_eq!((counts[0], counts[3]), (1, 1), "made and lost: {why}");
            assert!(counts[2] <= 1 && counts[4] <= 1, "{why}");
        }
    }
}

thread_local! {
    /// The connection that an [`Owner`] writes to; it cannot have it, because it must be `Send`.
    static OWNERS_TRANSPORT: RefCell<Option<Transport>> = const { RefCell::new(None) };
}

/// Bytes whose owner uses the connection when they have been sent, and panics then.
struct Owner(Vec<u8>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let transport = OWNERS_TRANSPORT.with_borrow(Option::clone).expect("a connection");
        transport.write_bytes(Bytes::from(vec![b'.'; 20_000]));
        panic!("the owner of bytes that were sent");
    }
}

#[test]
fn the_owner_of_bytes_may_write_when_they_have_been_sent() {
    // Sent within `write_bytes`, and at the end of a turn.
    for length in [100_000, 30_000] {
        let clock = Clock::new();
        let memory = MemoryTransport::connect(&clock, Ignoring);
        OWNERS_TRANSPORT.set(Some(memory.transport().clone()));
        for _ in 0..3 {
            memory.transport().write_bytes(Bytes::from_owner(Owner(vec![b'x'; length])));
        }
        let mut written = memory.take_written();
        while memory.transport().buffered_bytes() > 0 {
            written.extend(memory.take_written());
        }
        let dots = written.iter().filter(|&&byte| byte == b'.').count();
        assert_eq!((written.len(), dots), (3 * (length + 20_000), 3 * 20_000), "of {length}");
        assert!(memory.transport().is_connected());
        OWNERS_TRANSPORT.set(None);
    }
}

struct Ignoring;

impl Protocol for Ignoring {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {}
}
