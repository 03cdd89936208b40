//! How links share the loop: budgets, round-robin, edges. Inside the crate, because the tests turn
//! the loop one turn at a time and make streams with more room than a socket's.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Transport;
use super::link::{Link, Setup};
use super::memory::MemoryStream;
use super::stream::Stream;
use crate::address::Address;
use crate::context::LogContext;
use crate::protocol::{ConnectionLost, Protocol};
use crate::testing::Clock;
use crate::turn::{Patience, Turner};

const SCRATCH_BYTES: usize = 64 * 1024;

/// Notes its name for each piece of data, and may stop reading.
struct Reader {
    name: &'static str,
    log: Rc<RefCell<Vec<(&'static str, usize)>>>,
    pauses: bool,
}

impl Protocol for Reader {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.log.borrow_mut().push((self.name, data.len()));
        if self.pauses {
            transport.pause_producing();
        }
    }

    fn connection_lost(&mut self, _: ConnectionLost) {
        self.log.borrow_mut().push((self.name, 0));
    }
}

struct Fixture {
    clock: Clock,
    log: Rc<RefCell<Vec<(&'static str, usize)>>>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { clock: Clock::new(), log: Rc::default() }
    }

    /// Makes a link over a roomy stream, and returns it with the far end.
    fn link(&self, name: &'static str, pauses: bool) -> (Transport, MemoryStream) {
        let address = |port| Address::Tcp(([127, 0, 0, 1], port).into());
        let (near, far) = MemoryStream::pair(address(1), address(2), 16 * 1024 * 1024);
        let setup = Setup {
            stream: Stream::Memory(near),
            peer: address(2),
            protocol: Box::new(Reader { name, log: Rc::clone(&self.log), pauses }),
            context: LogContext::new(name),
            session: None,
        };
        let link = Link::establish(self.clock.reactor().core(), setup).unwrap();
        (Transport::new(link), far)
    }

    /// Makes one turn, and returns what was read in it.
    fn turn(&self) -> Vec<(&'static str, usize)> {
        let mut turner = Turner::new(self.clock.reactor()).unwrap();
        turner.turn(Patience::None).unwrap();
        self.log.take()
    }

    fn has_work(&self) -> bool {
        Turner::new(self.clock.reactor()).unwrap().has_work()
    }
}

#[test]
fn a_flood_on_one_connection_leaves_the_others_their_turn() {
    let fixture = Fixture::new();
    let (_flooded, flood) = fixture.link("flood", false);
    let (_calm, drip) = fixture.link("drip", false);
    flood.write(&vec![0; 10 * SCRATCH_BYTES]).unwrap();
    for turn in 0..2 {
        drip.write(b"x").unwrap();
        let read = fixture.turn();
        assert!(read.contains(&("drip", 1)), "turn {turn}: {read:?}");
        let flooded = read.iter().filter(|(name, _)| *name == "flood").count();
        assert_eq!(flooded, 4, "the budget of one connection in turn {turn}");
        assert!(fixture.has_work(), "the rest is not forgotten, though no edge will announce it");
    }
    assert_eq!(fixture.turn().len(), 2);
    assert_eq!(fixture.turn(), []);
    assert!(!fixture.has_work());
}

#[test]
fn those_left_unread_are_served_round_robin() {
    let fixture = Fixture::new();
    let (_one, first) = fixture.link("first", false);
    let (_other, second) = fixture.link("second", false);
    first.write(&vec![0; 9 * SCRATCH_BYTES]).unwrap();
    second.write(&vec![0; 9 * SCRATCH_BYTES]).unwrap();
    for turn in 0..2 {
        let names: Vec<_> = fixture.turn().into_iter().map(|(name, _)| name).collect();
        let expected = [["first"; 4], ["second"; 4]].concat();
        assert_eq!(names, expected, "turn {turn}");
    }
    assert_eq!(fixture.turn(), [("first", SCRATCH_BYTES), ("second", SCRATCH_BYTES)]);
}

#[test]
fn a_short_read_counts_as_drained_unless_the_peer_is_closing() {
    let fixture = Fixture::new();
    let (_transport, far) = fixture.link("reader", false);
    far.write(b"abc").unwrap();
    assert_eq!(fixture.turn(), [("reader", 3)]);
    assert!(!fixture.has_work());
    // The last bytes and the end come with one edge: the end must be found by reading on.
    far.write(b"last").unwrap();
    far.shutdown_write();
    assert_eq!(fixture.turn(), [("reader", 4)]);
    assert_eq!(fixture.turn(), [("reader", 0)]);
}

#[test]
fn resuming_reads_in_the_next_turn_what_came_before_without_a_new_edge() {
    let fixture = Fixture::new();
    let (transport, far) = fixture.link("reader", true);
    far.write(&vec![0; 2 * SCRATCH_BYTES]).unwrap();
    assert_eq!(fixture.turn(), [("reader", SCRATCH_BYTES)], "paused after the first piece");
    assert!(!fixture.has_work(), "a paused connection is not work");
    assert_eq!(fixture.turn(), []);
    transport.resume_producing();
    assert!(fixture.has_work());
    assert_eq!(fixture.turn(), [("reader", SCRATCH_BYTES)]);
    transport.resume_producing();
    assert_eq!(fixture.turn(), []);
    far.write(b"new").unwrap();
    assert_eq!(fixture.turn(), [("reader", 3)]);
}

#[test]
fn one_flush_sends_a_bounded_amount_and_goes_on_in_the_next_turn() {
    let fixture = Fixture::new();
    let (transport, far) = fixture.link("writer", false);
    let total = 5 * 1024 * 1024;
    transport.write_bytes(vec![0; total].into());
    assert!(transport.buffered_bytes() < total, "so much is sent at once");
    let mut turns = 0;
    while transport.buffered_bytes() > 0 {
        assert!(fixture.has_work());
        fixture.turn();
        turns += 1;
    }
    assert!(turns <= 5, "{turns}");
    let mut buffer = vec![0; total];
    assert_eq!(far.read(&mut buffer).unwrap(), total);
}

#[test]
fn events_of_a_connection_that_is_gone_go_nowhere() {
    let fixture = Fixture::new();
    let (transport, far) = fixture.link("gone", false);
    far.write(b"never read").unwrap();
    transport.abort_connection();
    let (_successor, _far) = fixture.link("successor", false);
    assert_eq!(fixture.turn(), [("gone", 0)]);
}

#[test]
fn callbacks_that_queue_each_other_for_ever_do_not_hold_the_loop() {
    let fixture = Fixture::new();
    let count = Rc::new(Cell::new(0));
    fn again(reactor: &crate::Reactor, count: &Rc<Cell<u32>>) {
        count.set(count.get() + 1);
        let (handle, count) = (reactor.clone(), Rc::clone(count));
        reactor.call_soon(move || again(&handle, &count));
    }
    again(fixture.clock.reactor(), &count);
    fixture.turn();
    assert!((2..5_000).contains(&count.get()), "{}", count.get());
    assert!(fixture.has_work());
}
