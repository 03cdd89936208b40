//! Protocols on connections in memory: one against a script, or two against each other.

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::io;
use std::rc::Rc;

use super::Clock;
use crate::address::Address;
use crate::context::LogContext;
use crate::protocol::Protocol;
use crate::ready;
use crate::transport::Transport;
use crate::transport::link::{Link, Setup};
use crate::transport::memory::{MemoryStream, PIPE_BYTES};
use crate::transport::stream::Stream;

/// A connection with a protocol under test at one end and the test itself at the other.
///
/// Between them lie 64 KiB each way, as in a socket: a protocol that writes more is held up until
/// the test takes it.
pub struct MemoryTransport<'a> {
    clock: &'a Clock,
    transport: Transport,
    far_end: RefCell<Option<MemoryStream>>,
}

impl<'a> MemoryTransport<'a> {
    /// Puts a protocol on a new connection, and tells it so before this returns.
    ///
    /// # Panics
    ///
    /// If the clock's reactor has stopped, or is turning now.
    pub fn connect(clock: &'a Clock, protocol: impl Protocol + 'static) -> MemoryTransport<'a> {
        let (near, far_end) = MemoryStream::pair(address(1), address(2), PIPE_BYTES);
        let transport = establish(clock, near, address(2), Box::new(protocol));
        clock.pump();
        MemoryTransport { clock, transport, far_end: RefCell::new(Some(far_end)) }
    }

    /// Returns the protocol's transport.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Sends these bytes to the protocol and lets the reactor deliver them.
    ///
    /// # Panics
    ///
    /// If the connection has ended, or the protocol pauses and leaves more than 64 KiB unread.
    #[track_caller]
    pub fn deliver(&self, mut data: &[u8]) {
        while !data.is_empty() {
            let result = match &*self.far_end.borrow() {
                Some(far_end) => far_end.write(data),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            match result {
                Ok(count) => data = &data[count..],
                Err(error) => panic!("cannot deliver {} bytes more: {error}", data.len()),
            }
            self.clock.pump();
        }
    }

    /// Returns what the protocol has written and the test has not taken yet.
    pub fn take_written(&self) -> Vec<u8> {
        let mut written = Vec::new();
        let mut buffer = vec![0; PIPE_BYTES];
        loop {
            self.clock.pump();
            let result = match &*self.far_end.borrow() {
                Some(far_end) => far_end.read(&mut buffer),
                None => return written,
            };
            match result {
                Ok(0) | Err(_) => return written,
                Ok(count) => written.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Returns the first so many bytes of that, or as many as have come, as a peer that reads slowly.
    pub fn take_some_written(&self, bytes_max: usize) -> Vec<u8> {
        self.clock.pump();
        let mut written = vec![0; bytes_max];
        let result = match &*self.far_end.borrow() {
            Some(far_end) => far_end.read(&mut written),
            None => Ok(0),
        };
        written.truncate(result.unwrap_or(0));
        self.clock.pump();
        written
    }

    /// Sends nothing any more, as a peer that has asked for everything it wants.
    pub fn finish(&self) {
        if let Some(far_end) = &*self.far_end.borrow() {
            far_end.shutdown_write();
        }
        self.clock.pump();
    }

    /// Closes the far end.
    pub fn close(&self) {
        drop(self.far_end.take());
        self.clock.pump();
    }

    /// Breaks the connection, as a peer that crashes.
    pub fn reset(&self) {
        if let Some(far_end) = self.far_end.take() {
            far_end.reset_on_close();
        }
        self.clock.pump();
    }

    /// Whether the protocol's end has sent everything that it will ever send, and the test has taken
    /// it.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.far_end.borrow().as_ref().is_none_or(MemoryStream::is_at_end)
    }

    /// Whether the protocol's end is closed, by whomever.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.far_end.borrow().as_ref().is_none_or(MemoryStream::is_abandoned)
    }
}

impl fmt::Debug for MemoryTransport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport").field("transport", &self.transport).finish()
    }
}

/// Two protocols, connected to each other.
pub struct MemoryPair<'a, A, B> {
    clock: &'a Clock,
    first: Rc<RefCell<A>>,
    second: Rc<RefCell<B>>,
    first_transport: Transport,
    second_transport: Transport,
}

impl<'a, A: Protocol + 'static, B: Protocol + 'static> MemoryPair<'a, A, B> {
    /// Connects two protocols, and lets them talk until both wait for something.
    ///
    /// # Panics
    ///
    /// If the clock's reactor has stopped, or is turning now.
    pub fn connect(clock: &'a Clock, first: A, second: B) -> MemoryPair<'a, A, B> {
        let (near, far) = MemoryStream::pair(address(1), address(2), PIPE_BYTES);
        let first = Rc::new(RefCell::new(first));
        let second = Rc::new(RefCell::new(second));
        let first_transport = establish(clock, near, address(2), Box::new(Rc::clone(&first)));
        let second_transport = establish(clock, far, address(1), Box::new(Rc::clone(&second)));
        clock.pump();
        MemoryPair { clock, first, second, first_transport, second_transport }
    }

    /// Lets them talk until both wait for something.
    pub fn pump(&self) {
        self.clock.pump();
    }

    /// Returns the first protocol, to look at. Give it back before the reactor turns.
    #[must_use]
    pub fn first(&self) -> Ref<'_, A> {
        self.first.borrow()
    }

    /// Returns the second protocol, to look at. Give it back before the reactor turns.
    #[must_use]
    pub fn second(&self) -> Ref<'_, B> {
        self.second.borrow()
    }

    /// Returns the first protocol, to make it do something. Give it back before the reactor turns.
    #[must_use]
    pub fn first_mut(&self) -> RefMut<'_, A> {
        self.first.borrow_mut()
    }

    /// Returns the second protocol, to make it do something. Give it back before the reactor turns.
    #[must_use]
    pub fn second_mut(&self) -> RefMut<'_, B> {
        self.second.borrow_mut()
    }

    /// Returns the first protocol's transport.
    #[must_use]
    pub fn first_transport(&self) -> &Transport {
        &self.first_transport
    }

    /// Returns the second protocol's transport.
    #[must_use]
    pub fn second_transport(&self) -> &Transport {
        &self.second_transport
    }
}

impl<A, B> fmt::Debug for MemoryPair<'_, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPair")
            .field("first", &self.first_transport)
            .field("second", &self.second_transport)
            .finish()
    }
}

fn establish(
    clock: &Clock,
    stream: MemoryStream,
    peer: Address,
    protocol: Box<dyn Protocol>,
) -> Transport {
    let core = clock.reactor().core();
    core.check_open().expect("the clock's reactor still runs");
    let context = LogContext::new(format!("memory-{peer}"));
    let _queue = ready::install(Rc::clone(&core.ready));
    let stream = Stream::Memory(stream);
    let setup = Setup { stream, peer, protocol, context, session: None };
    let link = Link::establish(core, setup).expect("a manual backend takes every memory stream");
    Transport::new(link)
}

fn address(number: u16) -> Address {
    Address::Tcp(([127, 0, 0, 1], number).into())
}
