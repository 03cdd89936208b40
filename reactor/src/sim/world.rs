//! [`World`]: the hosts, the time they share, and what a test does to them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::agenda::{Agenda, Due};
use super::clock::HostClock;
use super::faults::{Faults, LinkOptions, WorldOptions};
use super::host::{Host, HostState, signed_nanos};
use super::leftovers::{Leftover, Witnessed};
use super::nemesis::Nemesis;
use super::network::{Connection, CutBy, Links};
use super::trace::{Happening, Trace};
use crate::backend::chance::Chance;
use crate::clock::Instant;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::ready;
use crate::resolver::HostTable;
use crate::transport::memory::MemoryStream;

/// Many hosts, one virtual clock, one seed. See the [module](super).
///
/// Dropping it kills all hosts.
pub struct World {
    shared: Rc<Shared>,
}

/// What stands behind a world.
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) options: WorldOptions,
    pub(super) now: Cell<Instant>,
    pub(super) agenda: Agenda,
    pub(super) chance: Chance,
    pub(super) trace: Trace,
    pub(super) hosts: RefCell<Vec<Rc<HostState>>>,
    pub(super) numbers_by_name: RefCell<BTreeMap<Rc<str>, usize>>,
    pub(super) numbers_by_address: RefCell<BTreeMap<IpAddr, usize>>,
    /// The names that all hosts can look up.
    pub(super) names: HostTable,
    pub(super) links: Links,
    pub(super) nemesis: Nemesis,
    /// Set when some host was called from elsewhere.
    pub(super) is_ringing: Arc<AtomicBool>,
    pub(super) witnessed: Witnessed,
    /// The host whose process runs now.
    pub(super) turning: Cell<Option<usize>>,
    /// Kept until the process that was killed in the middle of a callback has returned from it.
    pub(super) silence: RefCell<Option<ready::Silence>>,
    pub(super) is_under_way: Cell<bool>,
    /// How much has happened without time passing.
    pub(super) steps_at_once: Cell<u64>,
}

// Making.

impl World {
    /// Makes an empty world with [default options](WorldOptions::default): nothing goes wrong by itself.
    #[must_use]
    pub fn new(seed: u64) -> World {
        World::with_options(seed, WorldOptions::default())
    }

    /// Makes an empty world.
    #[must_use]
    pub fn with_options(seed: u64, options: WorldOptions) -> World {
        let faults = options.faults.clone();
        let shared = Rc::new(Shared {
            seed,
            options,
            now: Cell::new(Instant::START),
            agenda: Agenda::default(),
            chance: Chance::of(seed, "world", 0),
            trace: Trace::new(),
            hosts: RefCell::default(),
            numbers_by_name: RefCell::default(),
            numbers_by_address: RefCell::default(),
            names: HostTable::new(),
            links: Links::default(),
            nemesis: Nemesis::default(),
            is_ringing: Arc::new(AtomicBool::new(false)),
            witnessed: Witnessed::default(),
            turning: Cell::new(None),
            silence: RefCell::new(None),
            is_under_way: Cell::new(false),
            steps_at_once: Cell::new(0),
        });
        shared.set_faults(faults);
        World { shared }
    }

    /// Returns the host of this name, which is made, and a process started on it, when first asked for.
    ///
    /// Its [`reactor`](Host::reactor) is there at once; [`run`](Host::run) gives it code that also
    /// survives a restart.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        let known = self.shared.numbers_by_name.borrow().get(name).copied();
        let state = match known {
            Some(number) => self.shared.host(number),
            None => self.shared.add_host(name),
        };
        Host { state }
    }

    /// Returns the table in which all hosts look up names. Those of the hosts are in it.
    #[must_use]
    pub fn names(&self) -> &HostTable {
        &self.shared.names
    }

    /// Returns the seed that decides everything.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Returns the world's time; hosts may show another.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.now()
    }

    pub(super) fn of(shared: &Rc<Shared>) -> World {
        World { shared: Rc::clone(shared) }
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }
}

// Letting time pass.

impl World {
    /// Lets this much time pass, with all that happens in it.
    ///
    /// # Panics
    ///
    /// If a callback of some host panicked, unless that is [tolerated](World::tolerate); if hosts keep
    /// each other busy without time passing; if this is called from inside a host's callback.
    #[track_caller]
    pub fn run_for(&self, duration: Duration) {
        let limit = self.now() + duration;
        let _under_way = self.shared.set_off();
        while self.shared.step(limit) {}
        self.shared.arrive_at(limit);
    }

    /// Lets time pass until this is true, `limit` at most.
    ///
    /// # Panics
    ///
    /// If it is still not true then; and as [`run_for`](World::run_for).
    #[track_caller]
    pub fn run_until(&self, mut condition: impl FnMut() -> bool, limit: Duration) {
        let is_true = self.passes_until(&mut condition, limit);
        assert!(is_true, "what was waited for has not come true within {limit:?}");
    }

    /// Lets time pass until the deferred has its result, and returns that.
    ///
    /// # Errors
    ///
    /// The deferred's failure.
    ///
    /// # Panics
    ///
    /// As [`run_until`](World::run_until).
    #[track_caller]
    pub fn run_until_result<T: 'static>(
        &self,
        deferred: Deferred<T>,
        limit: Duration,
    ) -> Result<T, Failure> {
        let is_fired = self.passes_until(&mut || deferred.is_fired(), limit);
        match deferred.into_result() {
            Ok(result) => result,
            Err(pending) => {
                pending.detach();
                debug_assert!(!is_fired);
                panic!("the deferred has no result within {limit:?}")
            }
        }
    }

    #[track_caller]
    fn passes_until(&self, condition: &mut dyn FnMut() -> bool, limit: Duration) -> bool {
        let limit = self.now() + limit;
        let _under_way = self.shared.set_off();
        loop {
            if condition() {
                self.shared.synchronize();
                return true;
            }
            if !self.shared.step(limit) {
                self.shared.arrive_at(limit);
                return condition();
            }
        }
    }

    /// Calls `f` when this much time has passed: for the test's own doings on the way.
    pub fn call_later(&self, delay: Duration, f: impl FnOnce(&World) + 'static) {
        self.shared.schedule(delay, Due::Call(Box::new(f)));
    }
}

// Chance.

impl World {
    /// Whether something of this probability happens, as the seed decides.
    #[must_use]
    pub fn happens(&self, probability: f64) -> bool {
        self.shared.chance.happens(probability)
    }

    /// Returns a number below `limit` that the seed decides.
    #[must_use]
    pub fn random_below(&self, limit: u64) -> u64 {
        self.shared.chance.below(limit)
    }

    /// Returns a duration between these two that the seed decides.
    #[must_use]
    pub fn random_duration(&self, least: Duration, most: Duration) -> Duration {
        self.shared.chance.between(least, most)
    }
}

// The network and its faults.

impl World {
    /// Says what the network is like between two hosts, both ways.
    pub fn set_link(&self, one: &Host, other: &Host, options: LinkOptions) {
        let (one, other) = (one.state.number, other.state.number);
        self.shared.set_link(one, other, options.clone());
        self.shared.set_link(other, one, options);
    }

    /// Cuts the network between two hosts. What they send waits until it is [healed](World::heal) or
    /// they give up.
    pub fn partition(&self, one: &Host, other: &Host) {
        self.partition_one_way(one, other);
        self.partition_one_way(other, one);
    }

    /// Cuts the way from one host to another; the way back stays.
    pub fn partition_one_way(&self, from: &Host, to: &Host) {
        self.shared.cut(from.state.number, to.state.number, CutBy::Test);
    }

    /// Cuts a host off from all others that there are now.
    pub fn isolate(&self, host: &Host) {
        for other in self.shared.all_hosts() {
            self.partition(host, &Host { state: other });
        }
    }

    /// Makes the network between two hosts whole, whoever has cut it.
    pub fn heal(&self, one: &Host, other: &Host) {
        let (one, other) = (one.state.number, other.state.number);
        for by in [CutBy::Fault, CutBy::Test] {
            self.shared.mend(one, other, by);
            self.shared.mend(other, one, by);
        }
    }

    /// Makes the whole network whole.
    pub fn heal_all(&self) {
        self.shared.mend_all();
    }

    /// Has these faults happen from now on, in place of others.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.set_faults(faults);
    }

    /// Ends all faults: the network is whole, hosts that faults have felled are started again, and
    /// nobody is slow any more. What tests end with that want to see the hosts recover.
    pub fn calm(&self) {
        self.shared.calm();
    }
}

// Looking at it.

impl World {
    /// Writes a line into the trace.
    pub fn note(&self, text: impl Into<String>) {
        self.shared.record(Happening::Note { text: text.into() });
    }

    /// Returns a number for all that has happened so far: two runs that took the same course have the
    /// same one.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.shared.trace.hash()
    }

    /// Returns the last things that happened, one a line, for people.
    #[must_use]
    pub fn trace_tail(&self) -> String {
        self.shared.trace.tail()
    }

    /// Declares that something may be left at the end, or happen, which [`check`](super::check()) would
    /// otherwise take for an error.
    pub fn tolerate(&self, leftover: Leftover) {
        self.shared.witnessed.tolerate(leftover);
    }

    /// Checks that nothing is left on the hosts that run: no connection, timer or task, and that
    /// somebody handled each failure. [`check`](super::check()) does this at the end.
    ///
    /// # Panics
    ///
    /// With a list of what is left and not [tolerated](World::tolerate).
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = self.shared.leftovers();
        assert!(
            left.is_empty(),
            "something is left at the end; end it, or say World::tolerate:\n{}",
            left.join("\n")
        );
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed())
            .field("now", &self.now())
            .field("hosts", &self.shared.numbers_by_name.borrow().keys())
            .finish()
    }
}

// Hosts.

impl Shared {
    fn add_host(self: &Rc<Shared>, name: &str) -> Rc<HostState> {
        let number = self.hosts.borrow().len();
        let chance = self.chance_of(name, 0);
        let offset_max = signed_nanos(self.options.clock_offset_max);
        let gain_max = i64::from(self.options.clock_gain_ppm_max);
        let clock = HostClock::new(
            self.now(),
            symmetric(&chance, gain_max) as i32,
            symmetric(&chance, offset_max),
        );
        let addresses = addresses_of(number);
        for address in &addresses {
            self.numbers_by_address.borrow_mut().insert(*address, number);
        }
        let delay = chance.between(self.options.link.latency_min, self.options.link.latency_max);
        self.names.add_slow(name, delay, addresses[..1].iter().copied());
        let state = Rc::new(HostState::new(self, number, name, addresses, clock));
        self.numbers_by_name.borrow_mut().insert(state.name(), number);
        self.hosts.borrow_mut().push(Rc::clone(&state));
        state.boot(self);
        state
    }

    pub(super) fn names(&self) -> &HostTable {
        &self.names
    }

    pub(super) fn host(&self, number: usize) -> Rc<HostState> {
        Rc::clone(&self.hosts.borrow()[number])
    }

    pub(super) fn all_hosts(&self) -> Vec<Rc<HostState>> {
        self.hosts.borrow().clone()
    }

    /// Makes the source of chance of a host's process.
    pub(super) fn chance_of(&self, host: &str, incarnation: u64) -> Chance {
        Chance::of(self.seed, host, incarnation)
    }

    /// Returns who has this address.
    pub(super) fn number_at(&self, address: IpAddr) -> Option<usize> {
        self.numbers_by_address.borrow().get(&address).copied()
    }

    pub(super) fn connect(
        self: &Rc<Shared>,
        from: &HostState,
        local_port: u16,
        address: SocketAddr,
    ) -> io::Result<MemoryStream> {
        let is_own = address.ip().is_loopback() || address.ip().is_unspecified();
        let to = match is_own {
            true => Some(from.number),
            false => self.number_at(address.ip()),
        };
        let to = to.ok_or(io::ErrorKind::HostUnreachable)?;
        let local = SocketAddr::new(from.source_address(address.ip()), local_port);
        Ok(Connection::open(self, (from.number, local), (to, address)))
    }
}

/// Returns a number between `-most` and `most`.
fn symmetric(chance: &Chance, most: i64) -> i64 {
    let span = most.unsigned_abs().saturating_mul(2).saturating_add(1);
    i64::try_from(chance.below(span)).unwrap_or(i64::MAX) - most
}

/// Returns a host's addresses: one of each kind, both from ranges for private networks.
fn addresses_of(number: usize) -> Vec<IpAddr> {
    let number = u32::try_from(number + 1).expect("a world with fewer hosts than addresses");
    let four = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
    let six = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, (number >> 16) as u16, number as u16);
    vec![four.into(), six.into()]
}
