//! A backend whose time moves by hand and whose network lies in memory.
//!
//! By itself it is all there is: the test kit's clock moves its time, and connections lead from it to
//! itself. With [`Surroundings`] it is one host in a simulated world, which has the time and the
//! network.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::chance::Chance;
use super::{Alarm, Backend, Event, Events, Readiness, SignalWatch, Stopwatch};
use crate::address::{Address, UnixAddress};
use crate::clock::{Instant, SystemClock};
use crate::files::FileSystem;
use crate::files::memory::MemoryFileSystem;
use crate::process::Command;
use crate::process::scripted::{Pipes, ScriptedProcess, ScriptedProcesses};
use crate::resolver::{HostResolver, HostTable};
use crate::signals::Signal;
use crate::slots::Key;
use crate::transport::backlog::{Backlog, MemoryListener};
use crate::transport::memory::{EventQueue, MemoryStream, Socket};
use crate::transport::stream::{Listener, Stream};
use crate::transport::tcp::{ConnectOptions, ListenOptions};
use crate::transport::unix::UnixListenOptions;
use crate::udp::UdpOptions;
use crate::udp::memory::MemoryPost;
use crate::udp::socket::DatagramSocket;

pub(crate) struct ManualBackend {
    time: Rc<ManualTime>,
    events: EventQueue,
    listeners: RefCell<BTreeMap<Address, Weak<Backlog>>>,
    post: Rc<MemoryPost>,
    processes: ScriptedProcesses,
    next_port: Cell<u16>,
    chance: Chance,
    watched_signals: RefCell<Vec<(Signal, Key)>>,
    exit_status: Cell<Option<i32>>,
    /// The time of day at the clock's start.
    wall_clock_at_start: Cell<SystemTime>,
    surroundings: Option<Rc<dyn Surroundings>>,
    hosts: HostTable,
    /// Connections there get no answer.
    silent_hosts: RefCell<BTreeSet<IpAddr>>,
    /// It outlives a host that crashes, in its world.
    file_system: MemoryFileSystem,
}

/// The world around a backend that is one of its hosts.
pub(crate) trait Surroundings {
    /// Reads the time of day by this host's clock.
    fn wall_clock(&self) -> SystemTime;

    /// Returns what tells the world that this host has something to do.
    fn alarm(&self) -> Alarm;

    /// Whether this is an address of the host. Those that mean each host itself are not asked for.
    fn has_address(&self, address: IpAddr) -> bool;

    /// Returns how long the next thread job waits for a thread.
    fn job_wait(&self) -> Duration;

    /// Returns how long a thread job has taken, besides what its files took.
    fn job_time(&self) -> Duration;

    /// Returns what looks up names in the world.
    fn host_resolver(&self) -> Rc<dyn HostResolver>;

    /// Begins to connect from this port of the host.
    fn connect(&self, local_port: u16, address: SocketAddr) -> io::Result<MemoryStream>;

    /// Sends a datagram from this port of the host.
    fn send_datagram(&self, local_port: u16, to: SocketAddr, data: &[u8]);
}

/// The time that a manual backend shows.
#[derive(Default)]
pub(crate) struct ManualTime {
    /// Atomic only for the stopwatches, which may go to other threads.
    now_nanos: Arc<AtomicU64>,
}

/// The time of day for the checking of certificates, which may happen on any thread.
#[derive(Debug)]
struct CertificateClock {
    /// The time of day at which the backend's time began.
    start: Duration,
    nanos: Arc<AtomicU64>,
}

impl TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_start = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(self.start + since_start))
    }
}

impl ManualTime {
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.now_nanos.load(Ordering::Relaxed))
    }

    /// Moves on to `instant`; never back.
    pub(crate) fn move_to(&self, instant: Instant) {
        self.now_nanos.fetch_max(instant.as_nanos(), Ordering::Relaxed);
    }
}

impl ManualBackend {
    pub(crate) fn new(seed: u64) -> ManualBackend {
        let time = Rc::<ManualTime>::default();
        let file_system = MemoryFileSystem::new();
        let now_nanos = Arc::clone(&time.now_nanos);
        file_system.set_wall_clock(Arc::new(move || {
            let nanos = now_nanos.load(Ordering::Relaxed);
            SystemTime::UNIX_EPOCH + WALL_CLOCK_START + Duration::from_nanos(nanos)
        }));
        ManualBackend {
            time,
            events: EventQueue::default(),
            listeners: RefCell::default(),
            post: Rc::default(),
            processes: ScriptedProcesses::default(),
            next_port: Cell::new(FIRST_PORT),
            chance: Chance::new(seed),
            watched_signals: RefCell::default(),
            exit_status: Cell::new(None),
            wall_clock_at_start: Cell::new(SystemTime::UNIX_EPOCH + WALL_CLOCK_START),
            surroundings: None,
            hosts: HostTable::new(),
            silent_hosts: RefCell::default(),
            file_system,
        }
    }

    /// Gives it another file system, which a host of a world had before it crashed.
    pub(crate) fn with_file_system(self, file_system: MemoryFileSystem) -> ManualBackend {
        ManualBackend { file_system, ..self }
    }

    pub(crate) fn files(&self) -> &MemoryFileSystem {
        &self.file_system
    }

    /// Makes a host of a world, which moves its time.
    pub(crate) fn in_world(chance: Chance, surroundings: Rc<dyn Surroundings>) -> ManualBackend {
        let post = MemoryPost::abroad(Rc::clone(&surroundings));
        ManualBackend {
            chance,
            post: Rc::new(post),
            surroundings: Some(surroundings),
            ..ManualBackend::new(0)
        }
    }

    pub(crate) fn post(&self) -> &MemoryPost {
        &self.post
    }

    pub(crate) fn time(&self) -> Rc<ManualTime> {
        Rc::clone(&self.time)
    }

    pub(crate) fn hosts(&self) -> &HostTable {
        &self.hosts
    }

    /// Lets connections to this address get no answer.
    pub(crate) fn silence(&self, address: IpAddr) {
        self.silent_hosts.borrow_mut().insert(address);
    }

    pub(crate) fn processes(&self) -> &ScriptedProcesses {
        &self.processes
    }

    /// Reports a signal to those who watch it.
    pub(crate) fn raise(&self, signal: Signal) {
        for &(watched, key) in &*self.watched_signals.borrow() {
            if watched == signal {
                self.events.borrow_mut().push(Event { key, readiness: Readiness::READABLE });
            }
        }
    }

    /// Returns the exit status with which the process would have been ended.
    pub(crate) fn exit_status(&self) -> Option<i32> {
        self.exit_status.get()
    }

    /// Sets the time of day, and leaves the monotonic clock alone.
    pub(crate) fn set_wall_clock(&self, time: SystemTime) {
        self.wall_clock_at_start.set(time - self.now().since(Instant::START));
    }

    /// Whether the next `wait` will return something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.borrow().is_empty()
    }

    /// Returns what waits for connections to this address.
    pub(crate) fn listener(&self, address: SocketAddr) -> Option<Rc<Backlog>> {
        let listeners = self.listeners.borrow();
        let at = |address| listeners.get(&Address::Tcp(address)).and_then(Weak::upgrade);
        let any: IpAddr = match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        at(address).or_else(|| at(SocketAddr::new(any, address.port())))
    }

    fn listen_at(&self, address: Address, backlog: u32) -> io::Result<Listener> {
        let mut listeners = self.listeners.borrow_mut();
        if listeners.get(&address).is_some_and(|backlog| backlog.strong_count() > 0) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listener = MemoryListener::new(address.clone(), backlog as usize);
        listeners.insert(address, listener.backlog());
        Ok(Listener::Memory(listener))
    }

    fn free_port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(port.checked_add(1).unwrap_or(FIRST_PORT));
        port
    }

    fn check_is_local(&self, address: IpAddr) -> io::Result<()> {
        let is_local = address.is_loopback()
            || address.is_unspecified()
            || self.surroundings.as_ref().is_none_or(|world| world.has_address(address));
        if is_local { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
    }
}

impl Backend for ManualBackend {
    /// Takes what has happened. If that is nothing and time may pass, it passes.
    fn wait(&self, timeout: Option<Duration>, out: &mut Events) -> io::Result<()> {
        out.listed.append(&mut self.events.borrow_mut());
        if !out.listed.is_empty() || timeout == Some(Duration::ZERO) {
            return Ok(());
        }
        if self.surroundings.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this reactor belongs to a simulated world, which turns it; call World::run_for",
            ));
        }
        let Some(timeout) = timeout else {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "nothing is left that could happen on this simulated reactor; \
                 it would wait forever",
            ));
        };
        self.time.move_to(self.now() + timeout);
        Ok(())
    }

    fn now(&self) -> Instant {
        self.time.now()
    }

    fn system_clock(&self) -> Option<SystemClock> {
        None
    }

    fn coarse_now(&self) -> Instant {
        self.time.now()
    }

    fn wall_clock(&self) -> SystemTime {
        match &self.surroundings {
            Some(world) => world.wall_clock(),
            None => self.wall_clock_at_start.get() + self.now().since(Instant::START),
        }
    }

    fn random_bytes(&self, destination: &mut [u8]) {
        self.chance.fill(destination);
    }

    fn alarm(&self) -> Alarm {
        self.surroundings.as_ref().map_or(Alarm::Manual, |world| world.alarm())
    }

    fn stopwatch(&self) -> Stopwatch {
        let now_nanos = Arc::clone(&self.time.now_nanos);
        Arc::new(move || Duration::from_nanos(now_nanos.load(Ordering::Relaxed)))
    }

    fn pass_time(&self, duration: Duration) {
        self.time.move_to(self.now() + duration);
    }

    fn runs_thread_jobs_inline(&self) -> bool {
        true
    }

    fn file_system(&self) -> Arc<dyn FileSystem> {
        Arc::new(self.file_system.clone())
    }

    fn take_job_time(&self) -> Duration {
        let spent = self.file_system.take_time_spent();
        self.surroundings.as_ref().map_or(spent, |world| spent + world.job_time())
    }

    fn job_wait(&self) -> Option<Duration> {
        self.surroundings.as_ref().map(|world| world.job_wait())
    }

    fn listen(&self, mut address: SocketAddr, options: &ListenOptions) -> io::Result<Listener> {
        self.check_is_local(address.ip())?;
        if address.port() == 0 {
            address.set_port(self.free_port());
        }
        self.listen_at(Address::Tcp(address), options.backlog)
    }

    fn listen_unix(
        &self,
        address: &UnixAddress,
        options: &UnixListenOptions,
    ) -> io::Result<Listener> {
        // What the system would not take is not taken here either.
        address.to_socket_address()?;
        self.listen_at(Address::Unix(address.clone()), options.backlog)
    }

    fn connect(&self, address: SocketAddr, options: &ConnectOptions) -> io::Result<Stream> {
        let mut local = options.bind_address.unwrap_or_else(|| match address {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        });
        self.check_is_local(local.ip())?;
        if local.port() == 0 {
            local.set_port(self.free_port());
        }
        if let Some(world) = &self.surroundings {
            return world.connect(local.port(), address).map(Stream::Memory);
        }
        if self.silent_hosts.borrow().contains(&address.ip()) {
            let socket = Socket::connecting(local, address, 0);
            return Ok(Stream::Memory(MemoryStream::new(Rc::new(socket))));
        }
        let backlog = self.listener(address).ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok(Stream::Memory(backlog.connect(Address::Tcp(local))))
    }

    fn connect_unix(&self, address: &UnixAddress) -> io::Result<Stream> {
        let key = Address::Unix(address.clone());
        let backlog = self.listeners.borrow().get(&key).and_then(Weak::upgrade);
        let backlog = backlog.ok_or(match address {
            UnixAddress::Path(_) => io::ErrorKind::NotFound,
            _ => io::ErrorKind::ConnectionRefused,
        })?;
        Ok(Stream::Memory(backlog.connect(Address::Unix(UnixAddress::Unnamed))))
    }

    fn open_udp(
        &self,
        mut address: SocketAddr,
        options: &UdpOptions,
    ) -> io::Result<DatagramSocket> {
        self.check_is_local(address.ip())?;
        if address.port() == 0 {
            address.set_port(self.free_port());
        }
        let is_shared = options.share_address || options.share_port;
        self.post.open(address, is_shared).map(DatagramSocket::Memory)
    }

    fn host_resolver(&self) -> Rc<dyn HostResolver> {
        match &self.surroundings {
            Some(world) => world.host_resolver(),
            None => Rc::new(self.hosts.clone()),
        }
    }

    fn certificate_clock(&self) -> Arc<dyn TimeProvider> {
        let since_start = self.now().since(Instant::START);
        let since_epoch = self.wall_clock().duration_since(SystemTime::UNIX_EPOCH);
        Arc::new(CertificateClock {
            start: since_epoch.unwrap_or_default().saturating_sub(since_start),
            nanos: Arc::clone(&self.time.now_nanos),
        })
    }

    fn register_stream(&self, stream: &mut Stream, key: Key) -> io::Result<()> {
        match stream {
            Stream::Memory(stream) => {
                stream.watch(&self.events, key);
                Ok(())
            }
            Stream::Descriptor(_) | Stream::Tcp(_) | Stream::Unix(_) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    fn register_listener(&self, listener: &mut Listener, key: Key) -> io::Result<()> {
        match listener {
            Listener::Memory(listener) => {
                listener.watch(&self.events, key);
                Ok(())
            }
            Listener::Tcp(_) | Listener::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn register_datagrams(&self, socket: &mut DatagramSocket, key: Key) -> io::Result<()> {
        match socket {
            DatagramSocket::Memory(socket) => {
                socket.watch(&self.events, key);
                Ok(())
            }
            DatagramSocket::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn has_processes(&self) -> bool {
        false
    }

    fn start_scripted(&self, command: &Command) -> io::Result<(ScriptedProcess, Pipes)> {
        self.processes.start(command, &self.events)
    }

    fn register_child(&self, _process: BorrowedFd<'_>, _key: Key) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn watch_signal(&self, signal: Signal, key: Key) -> io::Result<SignalWatch> {
        self.watched_signals.borrow_mut().push((signal, key));
        Ok(SignalWatch::Manual)
    }

    /// Notes it only: the process is that of the test.
    fn end_process(&self, status: i32) {
        self.exit_status.set(Some(status));
    }
}

/// Ports for listeners and connectors that do not name one.
const FIRST_PORT: u16 = 49_152;

/// The time of day at which a simulated reactor starts: 2025-01-01, a Wednesday.
pub(crate) const WALL_CLOCK_START: Duration = Duration::from_secs(1_735_689_600);
