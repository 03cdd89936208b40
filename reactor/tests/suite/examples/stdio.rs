//! The example that shouts: its protocol in memory.

#[path = "../../../examples/stdio.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use ropewalk::testing::{Clock, MemoryTransport};

#[test]
fn what_is_read_is_repeated_in_capitals() {
    let clock = Clock::new();
    let memory = MemoryTransport::connect(&clock, example::Shouter(clock.reactor().clone()));
    memory.deliver(b"hello\n");
    memory.finish();
    assert_eq!(memory.take_written(), b"HELLO\n");
}
