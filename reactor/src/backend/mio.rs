//! The real backend: mio over the operating system's poll mechanism.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use super::signal_pipe::SignalPipe;
use super::system_events::Poller;
use super::{Alarm, Backend, Events, SignalWatch, Stopwatch};
use crate::address::UnixAddress;
use crate::clock::{Instant, SystemClock};
use crate::files::{FileSystem, RealFileSystem};
use crate::process::Command;
use crate::process::scripted::{Pipes, ScriptedProcess};
use crate::resolver::{HostResolver, SystemResolver};
use crate::signals::Signal;
use crate::slots::Key;
use crate::transport::stream::{Listener, Stream};
use crate::transport::tcp::{self, ConnectOptions, ListenOptions};
use crate::transport::unix::{self, UnixListenOptions, UnixListener};
use crate::udp::UdpOptions;
use crate::udp::socket::{self, DatagramSocket};

pub(crate) struct MioBackend {
    poller: Poller,
    registry: Rc<Registry>,
    waker: Arc<Waker>,
    clock: SystemClock,
}

impl MioBackend {
    pub(crate) fn new() -> io::Result<MioBackend> {
        let poller = Poller::new()?;
        let registry = Rc::new(poller.registry()?);
        let waker = Arc::new(Waker::new(&registry, WAKER)?);
        Ok(MioBackend { poller, registry, waker, clock: SystemClock::new() })
    }
}

impl Backend for MioBackend {
    #[inline]
    fn wait(&self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        self.poller.wait(timeout, &mut events.system)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn system_clock(&self) -> Option<SystemClock> {
        Some(self.clock)
    }

    fn coarse_now(&self) -> Instant {
        self.clock.coarse_now()
    }

    fn wall_clock(&self) -> SystemTime {
        SystemClock::wall_clock()
    }

    fn random_bytes(&self, destination: &mut [u8]) {
        // The library documents that it fails only if the operating system has no randomness at
        // all; going on with guessable keys would be worse than ending here.
        aws_lc_rs::rand::fill(destination).expect("the operating system gives random bytes");
    }

    fn alarm(&self) -> Alarm {
        Alarm::Mio(Arc::clone(&self.waker))
    }

    fn stopwatch(&self) -> Stopwatch {
        let clock = self.clock;
        Arc::new(move || clock.now().since(Instant::START))
    }

    fn runs_thread_jobs_inline(&self) -> bool {
        false
    }

    fn file_system(&self) -> Arc<dyn FileSystem> {
        Arc::new(RealFileSystem)
    }

    fn listen(&self, address: SocketAddr, options: &ListenOptions) -> io::Result<Listener> {
        tcp::listen(address, options).map(Listener::Tcp)
    }

    fn listen_unix(
        &self,
        address: &UnixAddress,
        options: &UnixListenOptions,
    ) -> io::Result<Listener> {
        let listener = UnixListener::listen(address, options)?;
        Ok(Listener::Unix(Box::new(listener)))
    }

    fn connect(&self, address: SocketAddr, options: &ConnectOptions) -> io::Result<Stream> {
        tcp::connect(address, options).map(Stream::Tcp)
    }

    fn connect_unix(&self, address: &UnixAddress) -> io::Result<Stream> {
        unix::connect(address).map(|stream| Stream::Unix(Box::new(stream)))
    }

    fn open_udp(&self, address: SocketAddr, options: &UdpOptions) -> io::Result<DatagramSocket> {
        socket::open(address, options).map(DatagramSocket::Udp)
    }

    fn host_resolver(&self) -> Rc<dyn HostResolver> {
        Rc::new(SystemResolver::new())
    }

    fn certificate_clock(&self) -> Arc<dyn TimeProvider> {
        Arc::new(DefaultTimeProvider)
    }

    fn register_stream(&self, stream: &mut Stream, key: Key) -> io::Result<()> {
        // Both ways from the start: edges cost nothing while nothing changes, and changing
        // what one is interested in would be a system call each time.
        let both_ways = Interest::READABLE | Interest::WRITABLE;
        match stream {
            Stream::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
            Stream::Tcp(stream) => self.registry.register(stream, token(key), both_ways),
            Stream::Descriptor(stream) => stream.register(&self.registry, token(key), key),
            Stream::Unix(stream) => self.registry.register(stream.source(), token(key), both_ways),
        }
    }

    fn register_listener(&self, listener: &mut Listener, key: Key) -> io::Result<()> {
        match listener {
            Listener::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
            Listener::Tcp(listener) => {
                self.registry.register(listener, token(key), Interest::READABLE)
            }
            Listener::Unix(listener) => {
                self.registry.register(listener.source(), token(key), Interest::READABLE)
            }
        }
    }

    fn register_datagrams(&self, socket: &mut DatagramSocket, key: Key) -> io::Result<()> {
        match socket {
            DatagramSocket::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
            DatagramSocket::Udp(socket) => {
                let both_ways = Interest::READABLE | Interest::WRITABLE;
                self.registry.register(socket, token(key), both_ways)
            }
        }
    }

    fn has_processes(&self) -> bool {
        true
    }

    fn start_scripted(&self, _command: &Command) -> io::Result<(ScriptedProcess, Pipes)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn register_child(&self, process: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        let descriptor = process.as_raw_fd();
        self.registry.register(&mut SourceFd(&descriptor), token(key), Interest::READABLE)
    }

    fn watch_signal(&self, signal: Signal, key: Key) -> io::Result<SignalWatch> {
        let mut pipe = SignalPipe::open(signal)?;
        self.registry.register(&mut pipe.receiver, token(key), Interest::READABLE)?;
        Ok(SignalWatch::Pipe(pipe))
    }

    fn end_process(&self, status: i32) {
        std::process::exit(status);
    }
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("keys of 64 bits travel in poll tokens, which have the size of a pointer");

fn token(key: Key) -> Token {
    Token(key.to_bits() as usize)
}

/// The key that never finds anything: being woken is all there is to it.
const WAKER: Token = Token(Key::NONE.to_bits() as usize);
