//! The proxy, on the clock: both directions, each kind of end, and a slow reader behind it.

#[path = "../../../examples/proxy.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use ropewalk::testing::{Clock, success_result_of};
use ropewalk::{Address, ListenOptions, ListeningPort, Protocol, Transport};

use crate::support::{Counter, Diary, Echo, Recorder, read};

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn listen<P: Protocol + 'static>(clock: &Clock, make: impl Fn() -> P + 'static) -> ListeningPort {
    let factory = move |_: &Address| Some(Box::new(make()) as Box<dyn Protocol>);
    let options = ListenOptions::default();
    clock.reactor().listen_tcp(address(80), Rc::new(factory), options).unwrap()
}

fn connect(clock: &Clock, protocol: impl Protocol + 'static) -> Transport {
    let connected = clock.reactor().connect_tcp(address(8080), Box::new(protocol));
    clock.pump();
    success_result_of(connected)
}

#[test]
fn what_is_sent_through_it_comes_back_through_it() {
    let clock = Clock::new();
    let _upstream = listen(&clock, || Echo);
    let _proxy = example::serve(clock.reactor(), address(8080), address(80)).unwrap();
    let diary = Diary::default();
    let client = connect(&clock, Recorder::new(&diary));
    client.write(b"hello");
    clock.pump();
    assert_eq!(read(&diary), ["made", "data hello"]);
    client.lose_write_connection();
    clock.pump();
    assert_eq!(read(&diary), ["lost: the connection was closed cleanly"]);
    assert_eq!(clock.open_connections(), 2, "the two that listen");
}

#[test]
fn nobody_behind_it_ends_the_connection() {
    let clock = Clock::new();
    let _proxy = example::serve(clock.reactor(), address(8080), address(80)).unwrap();
    let diary = Diary::default();
    connect(&clock, Recorder::new(&diary));
    clock.pump();
    let expected = ["made", "read lost", "lost: the connection was closed cleanly"];
    assert_eq!(read(&diary), expected);
    assert_eq!(clock.open_connections(), 1);
}

/// Reads nothing until it is let.
struct Slow(Rc<RefCell<Option<Transport>>>, Counter);

impl Protocol for Slow {
    fn connection_made(&mut self, transport: &Transport) {
        transport.pause_producing();
        self.0.replace(Some(transport.clone()));
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.1.data_received(transport, data);
        if self.1.bytes == 5_000_000 {
            transport.write(b"all there");
        }
    }
}

#[test]
fn a_slow_reader_behind_it_holds_up_the_writer_before_it() {
    let clock = Clock::new();
    let slow = Rc::<RefCell<Option<Transport>>>::default();
    let kept = Rc::clone(&slow);
    let _upstream = listen(&clock, move || Slow(Rc::clone(&kept), Counter::default()));
    let _proxy = example::serve(clock.reactor(), address(8080), address(80)).unwrap();
    let diary = Diary::default();
    let client = connect(&clock, Recorder::new(&diary));
    client.write(&[b'x'; 5_000_000]);
    clock.pump();
    let left = client.buffered_bytes();
    assert!(left > 4_000_000, "the proxy has taken all but {left} bytes");
    slow.borrow().as_ref().unwrap().resume_producing();
    clock.pump();
    assert_eq!(client.buffered_bytes(), 0);
    assert_eq!(read(&diary), ["made", "data all there"]);
    client.abort_connection();
    clock.pump();
    assert!(!slow.borrow().as_ref().unwrap().is_connected(), "a reset is passed on");
    assert_eq!(clock.open_connections(), 2);
}
