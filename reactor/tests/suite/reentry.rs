//! Every `Transport` method, called from inside every `Protocol` method.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use ropewalk::testing::{Clock, MemoryTransport};
use ropewalk::{ConnectionLost, LogContext, Producer, Protocol, Streaming, Transport};

type Action = fn(&Transport);

/// What is done with the transport; all its methods are among these.
const ACTIONS: [(&str, Action); 18] = [
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
    }),
];

thread_local! {
    /// How many calls by the reactor are under way; one at most, ever.
    static DEPTH: Rc<Cell<usize>> = Rc::default();
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
    counts: Rc<[Cell<usize>; 4]>,
    depth: Rc<Cell<usize>>,
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
    }
}

#[test]
fn every_transport_method_works_from_inside_every_protocol_method() {
    for method in 0..4 {
        for (name, action) in ACTIONS {
            let clock = Clock::new();
            let counts: Rc<[Cell<usize>; 4]> = Rc::default();
            let protocol = Prodder {
                method,
                action,
                transport: None,
                counts: Rc::clone(&counts),
                depth: DEPTH.with(Rc::clone),
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
