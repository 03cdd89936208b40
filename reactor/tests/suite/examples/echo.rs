//! The echo server, on the clock.

#[path = "../../../examples/echo.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use ropewalk::testing::{Clock, success_result_of};

use crate::support::{Diary, Recorder, read};

#[test]
fn what_is_sent_to_it_comes_back() {
    let clock = Clock::new();
    let port = example::serve(clock.reactor(), ([127, 0, 0, 1], 7).into()).unwrap();
    let diary = Diary::default();
    let recorder = Box::new(Recorder::new(&diary));
    let connected = clock.reactor().connect_tcp(port.local_address(), recorder);
    clock.pump();
    let transport = success_result_of(connected);
    transport.write(b"hello");
    clock.pump();
    assert_eq!(read(&diary), ["made", "data hello"]);
    transport.lose_write_connection();
    clock.pump();
    assert_eq!(read(&diary), ["lost: the connection was closed cleanly"]);
}
