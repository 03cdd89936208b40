//! A simulated world: many hosts, one virtual clock, one seed.
//!
//! A [`World`] runs a whole network of programs in one thread, faster than the real one and with every
//! misfortune that a real one has: slow links, partitions, resets in mid-write, crashes, losses of power,
//! clocks that disagree. The programs are the very same that run in earnest: they see a
//! [`Reactor`](crate::Reactor) and cannot tell the difference. One number, the seed, decides everything
//! that happens by chance, so that whatever goes wrong once can be made to go wrong again.
//!
//! # A first world
//!
//! A [`Host`] has a name, an address, a reactor and files. What it runs is a function, which is called
//! again when the host is restarted. Time passes only when the test says so, and as fast as it can: a
//! million seconds in which nothing happens take none.
//!
//! ```
//! use std::cell::RefCell;
//! use std::rc::Rc;
//! use std::time::Duration;
//! use ropewalk::sim::{self, Leftover};
//! use ropewalk::{ListenOptions, Protocol, Transport, factory};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
//!         transport.write(data);
//!     }
//! }
//!
//! #[derive(Clone, Default)]
//! struct Asker(Rc<RefCell<Vec<u8>>>);
//!
//! impl Protocol for Asker {
//!     fn connection_made(&mut self, transport: &Transport) {
//!         transport.write(b"anybody there?");
//!     }
//!
//!     fn data_received(&mut self, _: &Transport, data: &[u8]) {
//!         self.0.borrow_mut().extend_from_slice(data);
//!     }
//! }
//!
//! sim::check("an echo through a partition", |world| {
//!     let (client, server) = (world.host("client"), world.host("server"));
//!     server.run(|reactor, host| {
//!         reactor.listen_tcp(host.at(7), factory(|_| Echo), ListenOptions::default()).unwrap();
//!     });
//!     let asker = Asker::default();
//!     world.partition(&client, &server);
//!     let connected = client.reactor().connect_tcp(server.at(7), Box::new(asker.clone()));
//!     world.run_for(Duration::from_secs(60));
//!     assert!(!connected.is_fired());
//!
//!     world.heal(&client, &server);
//!     world.run_until(|| *asker.0.borrow() == b"anybody there?", Duration::from_secs(10));
//!     world.tolerate(Leftover::Connections);
//! });
//! ```
//!
//! # Seeds
//!
//! [`check`](check()) runs a scenario for several seeds; the environment variable `ROPEWALK_SIM_SEEDS` says how many
//! (`100`), from which to before which (`500..600`), or which one (`seed=17`). If one fails, the report
//! names it, shows what happened last, and gives the command that replays it. Keep such a seed as a test:
//!
//! ```
//! # use ropewalk::sim::{self, WorldOptions};
//! # fn scenario(_: &sim::World) {}
//! // Two answers crossed on the wire.
//! sim::run_seed(17, &WorldOptions::default(), scenario);
//! ```
//!
//! At the end of a scenario nothing may be [left](Leftover) that it has not said it would leave: no
//! connection, timer, task or deferred, no panic, no failure that nobody handled.
//!
//! # What can go wrong
//!
//! The test does it by hand, at a certain place:
//!
//! - to the network: [`partition`](World::partition) and [`partition_one_way`](World::partition_one_way),
//!   [`isolate`](World::isolate), [`heal`](World::heal), and what a link is like
//!   ([`set_link`](World::set_link));
//! - to a host: [`crash`](Host::crash), [`power_off`](Host::power_off), [`restart`](Host::restart),
//!   [`freeze`](Host::freeze), a slow [disk](Host::set_disk_slowness) or
//!   [network card](Host::set_read_rate), and its [clocks](Host::set_clock_gain).
//!
//! Or chance does it at a rate: [`Faults`] lists every fault with its rate, and
//! [`calm`](World::calm) ends them all. The usual scenario lets a system run under
//! [harsh](Faults::harsh) faults, calms the world, waits, and then asks whether the system has come
//! to agree with itself:
//!
//! ```
//! use std::time::Duration;
//! use ropewalk::sim::{self, Faults, WorldOptions};
//!
//! let options = WorldOptions { faults: Faults::harsh(), ..WorldOptions::default() };
//! sim::check_with("three hosts come to agree", &options, |world| {
//!     let hosts = ["one", "two", "three"].map(|name| world.host(name));
//!     world.run_for(Duration::from_secs(300));
//!     world.calm();
//!     world.run_for(Duration::from_secs(30));
//!     assert!(hosts.iter().all(|host| host.is_running()));
//! });
//! ```
//!
//! # How it is made
//!
//! - **Time** jumps to whatever is next: an arrival, a host's timer, a fault. What happens at the same
//!   instant on different hosts happens in an order that the seed decides. A callback takes no time.
//! - **Connections** keep their order whatever the jitter, hold 64 KiB each way, and stall while the
//!   network is cut, as TCP does: what was sent arrives after the cut, or the sender gives up. What a
//!   crash leaves behind is reset; what a loss of power leaves behind is silent. Latency and bandwidth
//!   count for each link, from one host to another; what a host sends to itself takes next to no time.
//! - **Datagrams** get lost in a cut, and may come twice or late.
//! - **TLS** is spoken for real. Its bytes differ from run to run, so they are not in the trace, and
//!   handshakes count as if they were all of the same length.
//! - **Thread jobs** run on the loop, at times and for as long as the seed decides, as many at a time as
//!   their pool has threads. What a job does happens at its beginning, its result comes at its end; a crash in
//!   between leaves something done that nobody knows of, as it may in earnest.
//! - **Files** lie in memory ([`file_system`](Host::file_system)) and outlive the process; bytes that
//!   were not synced may be lost with the power.
//! - **Names** of hosts can be looked up; others can be [added](World::names).
//! - **A process that dies** is gone at once: its timers, tasks, connections and memory. Nothing of its
//!   code runs any more, no errback of a dropped resolver either, except the `Drop` of its own types,
//!   which finds a reactor that does nothing.
//!
//! # Rules for programs
//!
//! A program can be simulated if everything it has to do with the world goes through the reactor:
//!
//! - time from [`now`](crate::Reactor::now) and [`wall_clock`](crate::Reactor::wall_clock), chance from
//!   [`random_bytes`](crate::Reactor::random_bytes), files from [`files`](crate::Reactor::files), threads
//!   from its pools;
//! - no order that comes from addresses or hashes: iterate `BTreeMap`, not `HashMap`;
//! - nothing that outlives a process but its files: no statics, no thread-locals, nothing shared between
//!   hosts but by the test that looks at it;
//! - what [`Host::run`] is given returns: the world turns the reactor, nobody calls its
//!   [`run`](crate::Reactor::run);
//! - jobs of threads are self-contained: they wait neither for the loop nor for each other.
//!
//! A scenario shows that a program keeps to them when two runs of a seed have the same
//! [`trace_hash`](World::trace_hash).

mod agenda;
mod check;
mod clock;
mod course;
mod datagrams;
mod faults;
mod host;
mod leftovers;
mod nemesis;
mod network;
mod site;
mod trace;
mod world;

pub use check::{check, check_with, run_seed};
pub use faults::{Faults, LinkOptions, Recurrence, WorldOptions};
pub use host::Host;
pub use leftovers::Leftover;
pub use world::World;
