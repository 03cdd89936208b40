//! The chat, on the clock: three guests, one of whom talks too much. With a partition in it, it is in
//! [`simulated_partition`](super::simulated_partition).

#[path = "../../../examples/chat.rs"]
#[expect(dead_code, reason = "its main is not called")]
#[expect(clippy::duplicate_mod, reason = "the simulated partition has a chat in it, too")]
mod example;

use std::net::SocketAddr;

use ropewalk::Transport;
use ropewalk::testing::{Clock, success_result_of};

use crate::support::{Diary, Recorder, read};

fn enter(clock: &Clock, address: SocketAddr) -> (Transport, Diary) {
    let diary = Diary::default();
    let connected = clock.reactor().connect_tcp(address, Box::new(Recorder::new(&diary)));
    clock.pump();
    (success_result_of(connected), diary)
}

#[test]
fn what_one_guest_writes_all_others_read() {
    let clock = Clock::new();
    let port = example::open_room(clock.reactor(), ([127, 0, 0, 1], 7).into()).unwrap();
    let (anna, annas) = enter(&clock, port.local_address());
    let (bert, berts) = enter(&clock, port.local_address());
    let name = bert.local();
    assert_eq!(read(&annas), ["made".to_owned(), format!("data {name}: hello\n")]);
    bert.write(b"how are ");
    clock.pump();
    assert_eq!(read(&annas), Vec::<String>::new(), "that is no line yet");
    bert.write(b"you?\n");
    clock.pump();
    assert_eq!(read(&annas), [format!("data {name}: how are you?\n")]);
    assert_eq!(read(&berts), ["made"], "nobody hears himself");

    bert.write(&[b'x'; 2000]);
    clock.pump();
    let last_words = read(&berts);
    assert_eq!(last_words[..2], ["data that line is too long\n", "read lost"]);
    assert!(!bert.is_connected());
    assert_eq!(read(&annas), [format!("data {name}: goodbye\n")]);
    assert!(anna.is_connected());
}
