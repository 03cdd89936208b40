//! A single-threaded event-loop reactor with deferreds.
//!
//! Everything a program does happens on one thread, in callbacks and tasks that never wait: what
//! takes long is done elsewhere and comes back as a [`Deferred`]. There is no lock to forget and no
//! race between two lines of your code, and a test can hold the clock.
//!
//! The [guide] goes from an echo server to a simulated partition in ten short chapters. Those who come from
//! [Twisted](guide::coming_from_twisted) or [tokio](guide::coming_from_tokio) find there what is called how
//! here. This page names everything once.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [this one](#structs) | the paved path: [`Reactor`], [`Protocol`], [`Transport`], [`Deferred`], [`LogContext`], [`Service`] and what belongs to them |
//! | [`adapters`] | connections as `async` streams and sinks |
//! | [`cache`] | results worth keeping |
//! | [`endpoint`], [`resolver`], [`tls`] | where connections lead, who knows the names, whom one believes |
//! | [`files`] | reading and writing files without waiting for a disk |
//! | [`flow`] | producers, consumers, pipes, tees: back-pressure |
//! | [`framing`] | lines and frames |
//! | [`guide`] | how all this is used |
//! | [`inspect`], [`logging`], [`metrics`] | what is pending, what happened, how much of it |
//! | [`policy`] | limits, idle times, throttles, reconnecting clients, pools of connections |
//! | [`process`], [`udp`] | child processes, standard streams, inherited sockets; datagrams |
//! | [`sim`], [`testing`] | a world of many hosts from one seed; one reactor whose time is moved by hand |
//!
//! # A server
//!
//! A [`Protocol`] is the far end of one connection, a [`Factory`] makes one for each, and the
//! [`Transport`] is its wire.
//!
//! ```no_run
//! use ropewalk::{ListenOptions, Protocol, Reactor, Transport, factory};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
//!         transport.write(data);
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let reactor = Reactor::new()?;
//!     reactor.install_signals()?;
//!     let address = "127.0.0.1:7".parse().expect("an address");
//!     reactor.listen_tcp(address, factory(|_| Echo), ListenOptions::default())?;
//!     reactor.run()
//! }
//! ```
//!
//! # Results to come
//!
//! A [`Deferred`] is a result that isn't there yet. Callbacks are chained on it, each gets what the one
//! before gave, and may itself give a deferred, for which the chain waits. A failure passes by the
//! callbacks to the next errback. The other end, the [`Resolver`], fires once, which the compiler checks;
//! one that is dropped fails its deferred instead of leaving it hanging.
//!
//! ```
//! use ropewalk::{Deferred, Failure};
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("no such user: {0}")]
//! struct NoSuchUser(String);
//!
//! fn load_name(user: &str) -> Deferred<String> {
//!     match user {
//!         "@anna:hs.example" => Deferred::succeed("Anna".to_owned()),
//!         _ => Deferred::fail(NoSuchUser(user.to_owned())),
//!     }
//! }
//!
//! let greeting = load_name("@bob:hs.example")
//!     .add_errback(|failure| {
//!         failure.trap::<NoSuchUser>()?; // anything else passes on
//!         Ok("stranger".to_owned())
//!     })
//!     .add_callback(|name| Ok(format!("Hello, {name}!")));
//! assert_eq!(greeting.into_result().unwrap()?, "Hello, stranger!");
//! # Ok::<(), Failure>(())
//! ```
//!
//! Deferreds are futures, and a task is a deferred ([`Reactor::spawn`]): straight-line logic reads best as
//! `async`, seams such as caches, queues and state machines as deferreds.
//!
//! For several at once there are [`gather_results`], [`DeferredList`] and [`race`]; for one result that
//! many wait for, [`ObservableDeferred`]; for taking turns, [`DeferredLock`], [`DeferredSemaphore`],
//! [`Linearizer`] and [`ReadWriteLock`]; for passing things on, [`DeferredQueue`]; for doing much, but not
//! all at once, [`concurrently_execute`], [`BatchingQueue`] and [`BackgroundQueue`]; for results worth
//! keeping, [`cache`]. Every deferred can be [cancelled](Deferred::cancel) and
//! [limited in time](Deferred::with_timeout).
//!
//! # Lines, frames, files
//!
//! [`framing`] cuts a stream into lines or frames, as codecs without any input or output and as protocols
//! on a connection. [`files`] reads and writes files in threads, and sends them at their readers' pace. Who
//! makes bytes and who takes them keep each other from filling memory by the rules in [`flow`].
//!
//! # Where connections lead
//!
//! [`endpoint`] reads descriptions such as `tcp:8008:interface=127.0.0.1` and connects to hosts by name;
//! [`resolver`] says who knows the names, and [`tls`] whom one believes and who one is. [`policy`] limits
//! connections in number, time and pace, brings them back, and pools them. Datagrams are in [`udp`];
//! child processes, the standard streams and inherited sockets in [`process`]; and a connection as an
//! `async` stream, for a protocol that reads best from top to bottom, in [`adapters`].
//!
//! # Whose work is it?
//!
//! A [`LogContext`] names the request or background process that is running, stamps its log lines
//! ([`logging`]) and counts its costs. It follows the work by itself: whatever is registered, callback,
//! timer, task or thread job, runs in the context in which it was registered.
//!
//! [`Reactor::metrics`] tells in numbers how the loop is doing, and [`Reactor::inspect`] what is pending, and
//! for whom. A call that holds the loop too long is named in the log.
//!
//! # Later, again and again
//!
//! [`Reactor::call_later`] and [`Reactor::defer_later`] do something once, a [`LoopingCall`] does it at
//! regular intervals, and [`Reactor::cooperate`] takes long work in small steps, between which everything
//! else has its turn.
//!
//! # Off the loop
//!
//! [`Reactor::defer_to_thread`] and [`ThreadPool`]s run what would hold up the loop; other threads reach
//! the loop by [`ReactorRemote::call_from_thread`], and wait for what it says with
//! [`ReactorRemote::block_on_reactor_thread`].
//!
//! # Starting and stopping
//!
//! A program is a tree of [`Service`]s: started in order, stopped in reverse order, within a time limit.
//! [`MultiService`] makes one of many, [`ServerService`], [`TimerService`] and
//! [`policy::ReconnectingClient`] are the usual ones, and [`run_service`] ties the tree to the process and
//! its signals.
//!
//! # Testing
//!
//! [`testing::Clock`] gives a reactor whose time moves by hand and whose network lies in memory. Code
//! cannot tell the difference.
//!
//! ```
//! use std::time::Duration;
//! use ropewalk::testing::{Clock, assert_no_result, failure_result_of};
//! use ropewalk::{Deferred, TimeoutError};
//!
//! let clock = Clock::new();
//! let (answer, _resolver) = Deferred::<u32>::new();
//! let limited = answer.with_timeout(clock.reactor(), Duration::from_secs(30));
//! clock.advance(Duration::from_secs(29));
//! assert_no_result(&limited);
//! clock.advance(Duration::from_secs(1));
//! assert!(failure_result_of(limited).is::<TimeoutError>());
//! ```
//!
//! [`sim`] goes on from there: whole networks of hosts that fail in every way, decided by a seed.
//!
//! # Examples
//!
//! Each file in the crate's `examples` folder is a whole program of less than 80 lines, and is run by the tests:
//! `echo`, `chat`, `proxy` (back-pressure both ways), `tls_server` and `tls_client`, `udp_echo`, `stdio`,
//! `periodic_job`, `child_process`, `thread_pool`, `file_upload`, `cached_lookups`, `unit_test` and
//! `simulated_partition`.

// There is none, so that no sanitizer has anything to look for. Whoever lifts this gives `sys.rs` a test
// that runs under one.
#![forbid(unsafe_code)]

pub mod adapters;
mod address;
mod agenda;
mod allowance;
mod backend;
mod background;
pub mod cache;
mod census;
mod clock;
mod context;
mod cooperator;
mod core;
mod counters;
mod deferred;
pub mod endpoint;
mod failure;
pub mod files;
pub mod flow;
pub mod framing;
pub mod guide;
pub mod inspect;
pub mod logging;
mod looping;
pub mod metrics;
pub mod policy;
pub mod process;
mod protocol;
mod reactor;
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
mod ready;
mod remote;
pub mod resolver;
mod service;
mod signals;
pub mod sim;
mod slots;
mod sys;
mod teardown;
pub mod testing;
mod threads;
mod timers;
pub mod tls;
mod transport;
mod turn;
pub mod udp;
mod wheel;

// The loop.
pub use backend::Stopwatch;
pub use clock::Instant;
pub use reactor::Reactor;
pub use remote::{BlockingCallError, CallRefused, ReactorRemote};
pub use signals::Signal;
pub use timers::DelayedCall;

// Connections.
pub use address::{Address, UnixAddress};
pub use flow::{Consumer, Producer, Streaming};
pub use protocol::{ConnectError, ConnectionLost, Factory, Protocol, factory};
pub use transport::Transport;
pub use transport::port::ListeningPort;
pub use transport::tcp::{ConnectOptions, ListenOptions};
pub use transport::unix::{PeerCredentials, SendDescriptorError, UnixListenOptions};

// Results to come, alone and together.
pub use deferred::{
    CancelHandle, Deferred, DeferredList, IntoDeferred, ObservableDeferred, RaceFailed, Resolver,
    ResultTaken, UnhandledFailure, WaitsForItself, gather_results, maybe_deferred, race,
};
pub use failure::{CancelledError, Failure, Panicked, ResolverDropped, TimeoutError};

// Taking turns, and passing things on.
pub use deferred::{
    BackgroundQueue, BatchingQueue, DeferredEvent, DeferredLock, DeferredQueue, DeferredSemaphore,
    Guard, Linearizer, QueueOverflow, QueueUnderflow, ReadGuard, ReadWriteLock, WriteGuard,
    concurrently_execute,
};

// Again and again, or in small steps.
pub use cooperator::{CooperativeTask, Cooperator, IntoStep, NotPaused, TaskFinished, TaskStopped};
pub use looping::{FirstCall, LoopingCall};

// Off the loop.
pub use threads::{
    QueuePlace, ThreadPool, ThreadPoolError, ThreadPoolOptions, ThreadPoolStatistics,
};

// Whose work it is.
pub use background::run_as_background_process;
pub use context::{LogContext, Usage};

// What starts and stops.
pub use service::{
    AlreadyStarted, MultiService, NoSuchService, ServerService, Service, StartError, TimerService,
    run_service, serve,
};
