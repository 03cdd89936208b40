//! Transports, on connections in memory.

use ropewalk::testing::{Clock, MemoryPair, MemoryTransport};

use crate::support::{Diary, Echo, Recorder};

#[test]
fn a_protocol_gets_bytes_and_answers() {
    let clock = Clock::new();
    let memory = MemoryTransport::connect(&clock, Echo);
    memory.deliver(b"hello");
    assert_eq!(memory.take_written(), b"hello");
    let data = vec![7; 1_000_000];
    let pair = MemoryPair::connect(&clock, Echo, Recorder::new(&Diary::default()));
    pair.first_transport().write(&data);
    pair.pump();
    assert_eq!(pair.first_transport().buffered_bytes(), 0);
}
