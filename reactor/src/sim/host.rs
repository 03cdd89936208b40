//! [`Host`]: a machine of a simulated world, and the process that runs on it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::clock::HostClock;
use super::network::time_for;
use super::site::{Site, disk_pace};
use super::trace::Happening;
use super::world::Shared;
use crate::backend::manual::ManualBackend;
use crate::clock::Instant;
use crate::reactor::Reactor;
use crate::signals::Signal;
use crate::testing::MemoryFileSystem;
use crate::transport::backlog::Backlog;

/// A machine of a [`World`](super::World): a name, addresses, clocks, and a process that comes and goes.
///
/// A handle is a cheap clone. It does not keep the world: once that is gone, methods that need it panic.
#[derive(Clone)]
pub struct Host {
    pub(super) state: Rc<HostState>,
}

/// What a host runs, from the first time on and after each restart.
type Start = Rc<dyn Fn(&Reactor, &Host)>;

pub(super) struct HostState {
    pub(super) number: usize,
    name: Rc<str>,
    addresses: Vec<IpAddr>,
    world: Weak<Shared>,
    clock: RefCell<HostClock>,
    start: RefCell<Option<Start>>,
    process: RefCell<Option<Rc<Process>>>,
    incarnations: Cell<u64>,
    voice: Cell<Voice>,
    /// Whether the machine has power.
    is_up: Cell<bool>,
    /// What it keeps when its process dies.
    files: MemoryFileSystem,
    /// How many times slower than usual its disk is.
    disk_slowness: Arc<AtomicU32>,
    /// What its wall clock shows, for the times of files.
    wall_nanos: Arc<AtomicU64>,
    /// Until when the process stands still.
    frozen_until: Cell<Instant>,
    /// Whether random faults leave it alone.
    is_spared: Cell<bool>,
    read_bytes_per_second: Cell<Option<u64>>,
    /// When what it was sent so far will have been received, if it receives slowly.
    receiving_until: Cell<Instant>,
}

/// One life of a host's process.
pub(super) struct Process {
    pub(super) incarnation: u64,
    pub(super) reactor: Reactor,
    pub(super) backend: Rc<ManualBackend>,
    /// The earliest wake-up that the agenda holds for it.
    pub(super) wakes_at: Cell<Option<Instant>>,
}

/// What the network hears of sockets that are closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Voice {
    /// The process dies, and its system resets its connections.
    Dying,
    Living,
    /// The machine is gone, and nobody says anything.
    Silent,
}

impl HostState {
    pub(super) fn new(
        world: &Rc<Shared>,
        number: usize,
        name: &str,
        addresses: Vec<IpAddr>,
        clock: HostClock,
    ) -> HostState {
        let files = MemoryFileSystem::new();
        let wall_nanos = Arc::new(AtomicU64::new(0));
        let shown_nanos = Arc::clone(&wall_nanos);
        files.set_wall_clock(Arc::new(move || {
            SystemTime::UNIX_EPOCH + Duration::from_nanos(shown_nanos.load(Ordering::Relaxed))
        }));
        let disk_slowness = Arc::new(AtomicU32::new(1));
        files.set_pace(disk_pace(&world.options, Arc::clone(&disk_slowness)));
        HostState {
            files,
            disk_slowness,
            wall_nanos,
            number,
            name: name.into(),
            addresses,
            world: Rc::downgrade(world),
            clock: RefCell::new(clock),
            start: RefCell::new(None),
            process: RefCell::new(None),
            incarnations: Cell::new(0),
            voice: Cell::new(Voice::Silent),
            is_up: Cell::new(false),
            frozen_until: Cell::new(Instant::START),
            is_spared: Cell::new(false),
            read_bytes_per_second: Cell::new(None),
            receiving_until: Cell::new(Instant::START),
        }
    }

    pub(super) fn name(&self) -> Rc<str> {
        Rc::clone(&self.name)
    }

    pub(super) fn voice(&self) -> Voice {
        self.voice.get()
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.get()
    }

    pub(super) fn is_spared(&self) -> bool {
        self.is_spared.get()
    }

    pub(super) fn process(&self) -> Option<Rc<Process>> {
        self.process.borrow().clone()
    }

    pub(super) fn frozen_until(&self) -> Instant {
        self.frozen_until.get()
    }

    /// Returns what accepts connections to this address, if the process does.
    pub(super) fn listener(&self, address: SocketAddr) -> Option<Rc<Backlog>> {
        self.process()?.backend.listener(address)
    }

    /// Returns when so many bytes that come now will have been received.
    pub(super) fn received_by(&self, arrive: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.read_bytes_per_second.get() else { return arrive };
        let done = arrive.max(self.receiving_until.get()) + time_for(bytes, rate);
        self.receiving_until.set(done);
        done
    }

    pub(super) fn reads_slowly(&self) -> bool {
        self.read_bytes_per_second.get().is_some()
    }

    /// Returns the address that it sends from to an address of this kind.
    pub(super) fn source_address(&self, to: IpAddr) -> IpAddr {
        if to.is_loopback() {
            return to;
        }
        let same_kind = self.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4());
        same_kind.copied().unwrap_or(self.addresses[0])
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    pub(super) fn wall_time(&self, now: Instant) -> SystemTime {
        self.clock.borrow().wall(now)
    }

    pub(super) fn local_time(&self, now: Instant) -> Instant {
        self.clock.borrow().local(now)
    }

    /// Returns the world's time at which the host's monotonic clock shows this.
    pub(super) fn world_time(&self, local: Instant) -> Instant {
        self.clock.borrow().world(local)
    }

    fn world(&self) -> Rc<Shared> {
        self.world.upgrade().expect("the host's world is still there")
    }

    /// Brings the process's time up to the world's.
    pub(super) fn synchronize(&self, world: &Shared) {
        if let Some(process) = self.process() {
            process.backend.time().move_to(self.local_time(world.now()));
            let wall = self.wall_time(world.now());
            let nanos = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
            self.wall_nanos.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Starts a process without anything in it.
    pub(super) fn boot(self: &Rc<HostState>, world: &Rc<Shared>) -> Rc<Process> {
        let now = world.now();
        self.clock.borrow_mut().restart(now);
        let incarnation = self.incarnations.get() + 1;
        self.incarnations.set(incarnation);
        let surroundings = Site { world: self.world.clone(), host: Rc::downgrade(self) };
        let chance = world.chance_of(&self.name, incarnation);
        let backend = ManualBackend::in_world(chance, Rc::new(surroundings));
        let backend = Rc::new(backend.with_file_system(self.files.clone()));
        let reactor = Reactor::with_backend(Rc::clone(&backend) as _);
        let process = Rc::new(Process { incarnation, reactor, backend, wakes_at: Cell::new(None) });
        self.process.replace(Some(Rc::clone(&process)));
        self.voice.set(Voice::Living);
        self.frozen_until.set(now);
        world.record(Happening::Started { host: self.name(), incarnation });
        if !self.is_up.replace(true) {
            world.resume_all_to(self.number);
        }
        process
    }

    /// Ends the process without letting it do anything more.
    fn kill(&self, voice: Voice) {
        let Some(process) = self.process.take() else { return };
        self.voice.set(voice);
        process.reactor.kill();
        if let Some(world) = self.world.upgrade()
            && world.is_turning(self)
        {
            // It was its own code that ended it. What is left of the callback runs, and comes to nothing.
            world.keep_silence();
        }
        if voice == Voice::Dying {
            self.voice.set(Voice::Living);
        }
    }

    /// Forgets everything, at the end of the world.
    pub(super) fn dismantle(&self) {
        self.kill(Voice::Silent);
        drop(self.start.take());
    }

    /// Ends the process in order, once it has asked for that.
    pub(super) fn finish(&self, world: &Shared, process: &Process) {
        // It fails only if it has been run to its end before.
        let _ = process.reactor.run();
        if self.process().is_some_and(|current| current.incarnation == process.incarnation) {
            self.process.take();
            world.record(Happening::Stopped { host: self.name() });
        }
    }
}

// Running.

impl Host {
    /// Returns the name, under which other hosts can find it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Returns the address that others reach it at.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.state.addresses[0]
    }

    /// Returns the same with a port.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(), port)
    }

    /// Returns all its addresses, of both kinds, but those that mean each host itself.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.state.addresses
    }

    /// Returns the reactor of the process that runs now.
    ///
    /// # Panics
    ///
    /// If none does: the host has crashed or stopped and was not started again.
    #[must_use]
    #[track_caller]
    pub fn reactor(&self) -> Reactor {
        let process = self.state.process();
        let process = process.unwrap_or_else(|| panic!("nothing runs on {}", self.name()));
        self.state.synchronize(&self.state.world());
        process.reactor.clone()
    }

    /// Runs `start` on the host now, and again whenever it is [restarted](Host::restart).
    ///
    /// This is where an app's own code begins: what it listens to, whom it connects to, which files it
    /// reads. A host that has crashed or stopped is started for it.
    pub fn run(&self, start: impl Fn(&Reactor, &Host) + 'static) {
        self.state.start.replace(Some(Rc::new(start)));
        let world = self.state.world();
        if self.state.process().is_none() {
            self.state.boot(&world);
        }
        self.call_start(&world);
    }

    fn call_start(&self, world: &Rc<Shared>) {
        let start = self.state.start.borrow().clone();
        let (Some(start), Some(process)) = (start, self.state.process()) else { return };
        self.state.synchronize(world);
        world.in_process(&self.state, &process, || start(&process.reactor, self));
        world.wake_soon(&self.state, &process);
    }

    /// Whether a process runs on it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.process().is_some()
    }

    /// Returns how often a process was started on it.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.state.incarnations.get()
    }

    /// Returns its files, which it keeps when its process dies.
    #[must_use]
    pub fn file_system(&self) -> &MemoryFileSystem {
        &self.state.files
    }

    /// Stops the reactor in order, as by [`Reactor::stop`].
    pub fn stop(&self) {
        let world = self.state.world();
        if let Some(process) = self.state.process() {
            process.reactor.stop();
            world.wake_soon(&self.state, &process);
        }
    }

    /// Lets the process receive a signal.
    pub fn signal(&self, signal: Signal) {
        let world = self.state.world();
        if let Some(process) = self.state.process() {
            process.backend.raise(signal);
            world.wake_soon(&self.state, &process);
        }
    }

    /// Writes a line into the world's trace.
    pub fn note(&self, text: impl Into<String>) {
        let happening = Happening::Said { host: self.state.name(), text: text.into() };
        self.state.world().record(happening);
    }
}

// Faults.

impl Host {
    /// Kills the process: its memory is lost, its files are kept. Its system resets its connections.
    ///
    /// Nothing of its code runs any more, no callback, no errback of a dropped resolver.
    pub fn crash(&self) {
        let world = self.state.world();
        if self.is_running() {
            world.record(Happening::Crashed { host: self.state.name() });
            self.state.kill(Voice::Dying);
        }
    }

    /// Takes the machine's power away, and tells nobody. Of what was not synced to its files, the seed
    /// decides how much is lost; [`MemoryFileSystem::lose_unsynced`] takes the rest.
    ///
    /// What others send to it is not answered until it is [restarted](Host::restart).
    pub fn power_off(&self) {
        let world = self.state.world();
        world.record(Happening::PowerLost { host: self.state.name() });
        self.state.is_up.set(false);
        self.state.kill(Voice::Silent);
        self.state.voice.set(Voice::Silent);
        self.state.files.lose_some_unsynced(|count| world.chance.below(count.saturating_add(1)));
    }

    /// Starts the process again, with what [`run`](Host::run) was given. A process that still runs is
    /// killed first.
    pub fn restart(&self) {
        self.crash();
        let world = self.state.world();
        self.state.boot(&world);
        self.call_start(&world);
    }

    /// Makes the process stand still for this long, as in a suspended virtual machine. Its clocks go on.
    pub fn freeze(&self, duration: Duration) {
        let world = self.state.world();
        world.record(Happening::Froze { host: self.state.name(), duration });
        self.state.frozen_until.set(self.state.frozen_until.get().max(world.now() + duration));
    }

    /// Limits how much it receives in a second, so that whoever sends more is held up; `None` ends that.
    pub fn set_read_rate(&self, bytes_per_second: Option<u64>) {
        if self.state.read_bytes_per_second.replace(bytes_per_second) != bytes_per_second {
            let host = self.state.name();
            self.state.world().record(Happening::Receives { host, bytes_per_second });
        }
    }

    /// Makes its disk so many times slower than the world's [options](super::WorldOptions) say.
    pub fn set_disk_slowness(&self, times: u32) {
        if self.state.disk_slowness.swap(times, Ordering::Relaxed) != times {
            let host = self.state.name();
            self.state.world().record(Happening::DiskPaced { host, times });
        }
    }

    /// Has random faults leave this host alone: it does not crash, freeze or slow down by itself. The
    /// network to it fails all the same.
    pub fn spare(&self) {
        self.state.is_spared.set(true);
    }
}

// Clocks.

impl Host {
    /// Makes both clocks run fast, or slow, by this many millionths from now on; 500,000 at most.
    pub fn set_clock_gain(&self, millionths: i32) {
        let world = self.state.world();
        self.state.clock.borrow_mut().set_gain(world.now(), millionths);
        if let Some(process) = self.state.process() {
            world.wake_soon(&self.state, &process);
        }
    }

    /// Puts the wall clock forward.
    pub fn step_wall_clock_forward(&self, duration: Duration) {
        self.step_wall_clock(signed_nanos(duration));
    }

    /// Puts the wall clock back.
    pub fn step_wall_clock_back(&self, duration: Duration) {
        self.step_wall_clock(-signed_nanos(duration));
    }

    fn step_wall_clock(&self, nanos: i64) {
        let host = self.state.name();
        self.state.world().record(Happening::WallClockStepped { host, millis: nanos / 1_000_000 });
        self.state.clock.borrow_mut().step_wall_clock(nanos);
    }
}

pub(super) fn signed_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.state.name)
            .field("address", &self.address())
            .field("is_running", &self.is_running())
            .finish()
    }
}
