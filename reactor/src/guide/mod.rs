//! A guide in ten short chapters, from an echo server to a simulated partition.
//!
//! One program grows from chapter to chapter: a directory, which is asked for a user by name, in a line,
//! and answers with a line about that user. Every piece of code here is compiled and run by the tests; most of it
//! runs on a clock that is moved by hand, so that you can copy a piece, change it, and see at once what it does.
//!
//! 1. [An echo server](ch01_echo_server): protocols, factories, transports, and the loop
//! 2. [Results to come](ch02_deferreds): deferreds, chains, failures
//! 3. [Straight-line code](ch03_async): tasks, cancelling, time limits, several things at once
//! 4. [Lines, frames, and slow readers](ch04_protocols): codecs and back-pressure
//! 5. [Where connections lead](ch05_endpoints): descriptions, names, TLS, limits
//! 6. [Time](ch06_time): delayed calls, looping calls, long work in small steps
//! 7. [Threads and files](ch07_threads): what would hold up the loop
//! 8. [Whose work is it?](ch08_contexts): log contexts, metrics, and what is pending
//! 9. [Services](ch09_services): a program that starts and stops in order
//! 10. [Testing and simulating](ch10_testing): the clock, connections in memory, a world with a partition
//!
//! Those who know another reactor may begin with [Coming from Twisted](coming_from_twisted) or
//! [Coming from tokio](coming_from_tokio), which say what is called how here, and what differs. For whole
//! programs, see the crate's `examples` folder; what each does is in the crate's README.

#[doc = include_str!("01_echo_server.md")]
pub mod ch01_echo_server {}

#[doc = include_str!("02_deferreds.md")]
pub mod ch02_deferreds {}

#[doc = include_str!("03_async.md")]
pub mod ch03_async {}

#[doc = include_str!("04_protocols.md")]
pub mod ch04_protocols {}

#[doc = include_str!("05_endpoints.md")]
pub mod ch05_endpoints {}

#[doc = include_str!("06_time.md")]
pub mod ch06_time {}

#[doc = include_str!("07_threads.md")]
pub mod ch07_threads {}

#[doc = include_str!("08_contexts.md")]
pub mod ch08_contexts {}

#[doc = include_str!("09_services.md")]
pub mod ch09_services {}

#[doc = include_str!("10_testing.md")]
pub mod ch10_testing {}

#[doc = include_str!("coming_from_tokio.md")]
pub mod coming_from_tokio {}

#[doc = include_str!("coming_from_twisted.md")]
pub mod coming_from_twisted {}
