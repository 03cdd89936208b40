//! A backend whose time moves by hand and whose network lies in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Alarm, Backend, Event, Readiness, SignalWatch, Stopwatch};
use crate::clock::{Instant, SystemClock};
use crate::signals::Signal;
use crate::slots::Key;
use crate::transport::memory::{Backlog, EventQueue, MemoryListener};
use crate::transport::stream::{Listener, Stream};
use crate::transport::tcp::ListenOptions;

pub(crate) struct ManualBackend {
    time: Rc<ManualTime>,
    events: EventQueue,
    listeners: RefCell<BTreeMap<SocketAddr, Weak<Backlog>>>,
    next_port: Cell<u16>,
    random_state: Cell<u64>,
    watched_signals: RefCell<Vec<(Signal, Key)>>,
}

/// The time that a manual backend shows.
pub(crate) struct ManualTime {
    now: Cell<Instant>,
}

impl ManualTime {
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Moves on to `instant`; never back.
    pub(crate) fn move_to(&self, instant: Instant) {
        self.now.set(self.now.get().max(instant));
    }
}

impl ManualBackend {
    pub(crate) fn new(seed: u64) -> ManualBackend {
        ManualBackend {
            time: Rc::new(ManualTime { now: Cell::new(Instant::START) }),
            events: EventQueue::default(),
            listeners: RefCell::default(),
            next_port: Cell::new(FIRST_PORT),
            random_state: Cell::new(seed),
            watched_signals: RefCell::default(),
        }
    }

    pub(crate) fn time(&self) -> Rc<ManualTime> {
        Rc::clone(&self.time)
    }

    /// Reports a signal to those who watch it.
    pub(crate) fn raise(&self, signal: Signal) {
        for &(watched, key) in &*self.watched_signals.borrow() {
            if watched == signal {
                self.events.borrow_mut().push(Event { key, readiness: Readiness::READABLE });
            }
        }
    }

    /// Whether the next `wait` will return something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.borrow().is_empty()
    }

    fn free_port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(port.checked_add(1).unwrap_or(FIRST_PORT));
        port
    }

    /// SplitMix64: one addition and a few shifts a number, full period, fixed by its seed.
    fn next_random(&self) -> u64 {
        let state = self.random_state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random_state.set(state);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

impl Backend for ManualBackend {
    /// Takes what has happened. If that is nothing and time may pass, it passes.
    fn wait(&self, timeout: Option<Duration>, out: &mut Vec<Event>) -> io::Result<()> {
        out.append(&mut self.events.borrow_mut());
        if out.is_empty() {
            let Some(timeout) = timeout else {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "nothing is left that could happen on this simulated reactor; \
                     it would wait forever",
                ));
            };
            self.time.move_to(self.now() + timeout);
        }
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
        SystemTime::UNIX_EPOCH + WALL_CLOCK_START + self.now().since(Instant::START)
    }

    fn random_bytes(&self, destination: &mut [u8]) {
        for chunk in destination.chunks_mut(8) {
            let bytes = self.next_random().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    fn alarm(&self) -> Alarm {
        Alarm::Manual
    }

    /// Stands still: a job, for which no time passes, is all that could watch it.
    fn stopwatch(&self) -> Stopwatch {
        let now = self.now().since(Instant::START);
        Arc::new(move || now)
    }

    fn runs_thread_jobs_inline(&self) -> bool {
        true
    }

    fn listen(&self, mut address: SocketAddr, _options: &ListenOptions) -> io::Result<Listener> {
        if address.port() == 0 {
            address.set_port(self.free_port());
        }
        let mut listeners = self.listeners.borrow_mut();
        if listeners.get(&address).is_some_and(|backlog| backlog.strong_count() > 0) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listener = MemoryListener::new(address);
        listeners.insert(address, listener.backlog());
        Ok(Listener::Memory(listener))
    }

    fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let backlog = self.listeners.borrow().get(&address).and_then(Weak::upgrade);
        let backlog = backlog.ok_or(io::ErrorKind::ConnectionRefused)?;
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.free_port());
        Ok(Stream::Memory(backlog.connect(local)))
    }

    fn register_stream(&self, stream: &mut Stream, key: Key) -> io::Result<()> {
        match stream {
            Stream::Memory(stream) => {
                stream.watch(&self.events, key);
                Ok(())
            }
            Stream::Tcp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn register_listener(&self, listener: &mut Listener, key: Key) -> io::Result<()> {
        match listener {
            Listener::Memory(listener) => {
                listener.watch(&self.events, key);
                Ok(())
            }
            Listener::Tcp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn watch_signal(&self, signal: Signal, key: Key) -> io::Result<SignalWatch> {
        self.watched_signals.borrow_mut().push((signal, key));
        Ok(SignalWatch::Manual)
    }
}

/// Ports for listeners and connectors that do not name one.
const FIRST_PORT: u16 = 49_152;

/// The time of day at which a simulated reactor starts: 2025-01-01, a Wednesday.
const WALL_CLOCK_START: Duration = Duration::from_secs(1_735_689_600);
