//! What a reactor needs from below: time, chance, readiness of streams, and a way to be woken.
//!
//! The real backend is [`mio`](self::mio); the [`manual`] one stands behind the test kit's clock.
//! Both give streams that never block and report readiness by *edges*: once when something becomes
//! ready, not again until it has been found not ready.

pub(crate) mod chance;
pub(crate) mod manual;
pub(crate) mod mio;
mod signal_pipe;
mod system_events;

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustls::time_provider::TimeProvider;

use system_events::SystemEvents;

use crate::address::UnixAddress;
use crate::clock::{Instant, SystemClock};
use crate::files::FileSystem;
use crate::process::Command;
use crate::process::scripted::{Pipes, ScriptedProcess};
use crate::resolver::HostResolver;
use crate::signals::Signal;
use crate::slots::Key;
use crate::transport::stream::{Listener, Stream};
use crate::transport::tcp::{ConnectOptions, ListenOptions};
use crate::transport::unix::UnixListenOptions;
use crate::udp::UdpOptions;
use crate::udp::socket::DatagramSocket;

/// Tells the time since some fixed moment, on any thread; see
/// [`Reactor::stopwatch`](crate::Reactor::stopwatch).
pub type Stopwatch = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The world below a reactor.
pub(crate) trait Backend {
    /// Waits until something happens or the time is over (`None`: as long as it takes), and
    /// notes what happened in `events`, behind what is listed there.
    fn wait(&self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()>;

    /// Reads the monotonic clock.
    fn now(&self) -> Instant;

    /// Returns the clock behind `now`, if that is the machine's.
    fn system_clock(&self) -> Option<SystemClock>;

    /// Reads the monotonic clock, cheaply: it may lag some milliseconds behind `now`.
    fn coarse_now(&self) -> Instant;

    /// Reads the time of day.
    fn wall_clock(&self) -> SystemTime;

    /// Fills the slice with random bytes.
    fn random_bytes(&self, destination: &mut [u8]);

    /// Returns what interrupts `wait` from another thread.
    fn alarm(&self) -> Alarm;

    /// Lets time pass as if something had taken this long. The machine's time passes by itself.
    fn pass_time(&self, duration: Duration) {
        let _ = duration;
    }

    /// Returns the monotonic clock for other threads.
    fn stopwatch(&self) -> Stopwatch;

    /// Whether jobs for threads run on the loop's thread, at times that the backend picks.
    fn runs_thread_jobs_inline(&self) -> bool;

    /// Returns the file system. Its calls wait for disks: they are made in thread jobs only.
    fn file_system(&self) -> Arc<dyn FileSystem>;

    /// Returns how long it takes until a thread begins with its next job, where jobs run inline at times
    /// that the backend picks; `None` where they run at once.
    fn job_wait(&self) -> Option<Duration> {
        None
    }

    /// Returns how much virtual time thread jobs that ran inline have taken since the last time this was
    /// asked. Their results come back that much later.
    fn take_job_time(&self) -> Duration {
        Duration::ZERO
    }

    fn listen(&self, address: SocketAddr, options: &ListenOptions) -> io::Result<Listener>;

    fn listen_unix(
        &self,
        address: &UnixAddress,
        options: &UnixListenOptions,
    ) -> io::Result<Listener>;

    /// Begins to connect. The stream becomes writable when it is known how that went.
    fn connect(&self, address: SocketAddr, options: &ConnectOptions) -> io::Result<Stream>;

    fn connect_unix(&self, address: &UnixAddress) -> io::Result<Stream>;

    fn open_udp(&self, address: SocketAddr, options: &UdpOptions) -> io::Result<DatagramSocket>;

    /// Returns what looks up the names of hosts, unless a program sets another.
    fn host_resolver(&self) -> Rc<dyn HostResolver>;

    /// Returns the time of day for the checking of certificates.
    fn certificate_clock(&self) -> Arc<dyn TimeProvider>;

    /// Reports the stream's readiness, both ways, under this key, until it is dropped.
    fn register_stream(&self, stream: &mut Stream, key: Key) -> io::Result<()>;

    fn register_listener(&self, listener: &mut Listener, key: Key) -> io::Result<()>;

    fn register_datagrams(&self, socket: &mut DatagramSocket, key: Key) -> io::Result<()>;

    /// Whether there is a system below that has processes, terminals and files.
    fn has_processes(&self) -> bool;

    /// Starts what stands for a process where there is no system, with the ends of its pipes.
    fn start_scripted(&self, command: &Command) -> io::Result<(ScriptedProcess, Pipes)>;

    /// Reports the end of a child process as readability, under this key.
    fn register_child(&self, process: BorrowedFd<'_>, key: Key) -> io::Result<()>;

    /// Ends the process at once, with this exit status.
    fn end_process(&self, status: i32);

    /// Reports the arrival of a signal under this key as readability of what is returned.
    fn watch_signal(&self, signal: Signal, key: Key) -> io::Result<SignalWatch>;
}

/// What one `wait` has brought.
pub(crate) struct Events {
    pub(crate) system: SystemEvents,
    /// Those of a backend that isn't the system.
    pub(crate) listed: Vec<Event>,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events { system: SystemEvents::new(), listed: Vec::new() }
    }

    /// Returns one that can hold nothing from the system.
    pub(crate) fn none() -> Events {
        Events { system: SystemEvents::none(), listed: Vec::new() }
    }
}

/// Something that became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) key: Key,
    pub(crate) readiness: Readiness,
}

/// In which ways something became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness(u8);

impl Readiness {
    pub(crate) const NONE: Readiness = Readiness(0);
    pub(crate) const READABLE: Readiness = Readiness(1);
    pub(crate) const WRITABLE: Readiness = Readiness(2);
    /// The peer has finished or the stream has failed: reading on will show it, and no further
    /// edge announces it.
    pub(crate) const CLOSING: Readiness = Readiness(4);
    /// The stream has failed, in both directions.
    pub(crate) const FAILED: Readiness = Readiness(8);

    /// Not an event: the source stands on the list of those that were not read to the end.
    pub(crate) const UNREAD: Readiness = Readiness(16);

    /// Whether it is one of the usual two and nothing else.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & !(Readiness::READABLE.0 | Readiness::WRITABLE.0) == 0
    }

    #[inline]
    pub(crate) const fn and(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    /// Whether any of the other's ways is among this one's.
    #[inline]
    pub(crate) const fn has(self, other: Readiness) -> bool {
        self.0 & other.0 != 0
    }
}

/// Interrupts a backend's `wait`.
#[derive(Clone, Debug)]
pub(crate) enum Alarm {
    /// Nobody waits: the turns are made by hand.
    Manual,
    /// The world that turns the reactor looks at this.
    World(Arc<AtomicBool>),
    Mio(std::sync::Arc<::mio::Waker>),
}

impl Alarm {
    pub(crate) fn ring(&self) {
        match self {
            Alarm::Manual => {}
            Alarm::World(is_ringing) => is_ringing.store(true, Ordering::Relaxed),
            // It fails only if the counter behind it would overflow, and then it has been rung.
            Alarm::Mio(waker) => drop(waker.wake()),
        }
    }
}

/// Keeps a signal watched as long as it lives.
pub(crate) enum SignalWatch {
    Manual,
    Pipe(signal_pipe::SignalPipe),
}

impl SignalWatch {
    /// Forgets the arrivals so far and returns whether there were any.
    pub(crate) fn take_arrivals(&self) -> bool {
        match self {
            SignalWatch::Manual => true,
            SignalWatch::Pipe(pipe) => pipe.take_arrivals(),
        }
    }
}
