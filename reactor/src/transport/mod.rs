//! [`Transport`], the handle through which a protocol writes to and steers its connection.

mod adopt;
pub(crate) mod backlog;
pub(crate) mod buffer;
pub(crate) mod connect;
pub(crate) mod descriptor;
mod file;
pub(crate) mod file_feed;
mod incoming;
mod linger;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod meter;
pub(crate) mod outbox;
mod outgoing;
pub(crate) mod port;
pub(crate) mod stream;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
pub(crate) mod unix;

use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;

use crate::address::Address;
use crate::deferred::Deferred;
use crate::files::FileRange;
use crate::flow::{Consumer, Producer, Streaming};
use link::Link;
use unix::{PeerCredentials, SendDescriptorError};

/// One end of a connection: a cheap clone, whoever holds it.
///
/// Every method may be called at any time, from inside any [`Protocol`](crate::Protocol) method or
/// from elsewhere on the loop's thread. None of them calls back before it returns. On a connection
/// that has ended they do nothing.
///
/// What is written is gathered and sent at the end of the turn, in one system call where possible.
/// A buffer that passes 64 KiB is sent at once.
#[derive(Clone)]
pub struct Transport {
    link: Rc<Link>,
}

impl Transport {
    pub(crate) fn new(link: Rc<Link>) -> Transport {
        Transport { link }
    }

    #[inline]
    pub(crate) fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// Sends a copy of these bytes.
    ///
    /// They are kept in memory until the peer takes them, however many there are: whoever writes
    /// much registers a [`Producer`] or looks at [`buffered_bytes`](Transport::buffered_bytes).
    pub fn write(&self, data: &[u8]) {
        self.link.write(data);
    }

    /// Sends these bytes without copying them if they are many.
    pub fn write_bytes(&self, data: Bytes) {
        self.link.write_bytes(data);
    }

    /// Passes a file descriptor to the peer, over a Unix socket.
    ///
    /// It goes with the bytes that are sent next, and arrives no later than the first byte that is
    /// written after this call. Without a byte it is not sent; bytes are what the peer is slowed down
    /// by. This end's copy is closed when it is sent, or the connection ends.
    ///
    /// ```no_run
    /// # fn pass(transport: &ropewalk::Transport, file: std::fs::File) -> Result<(), ropewalk::Failure> {
    /// transport.send_file_descriptor(file.into())?;
    /// transport.write(b"a file\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SendDescriptorError`]: this isn't a Unix socket, or 64 wait already. The descriptor is
    /// closed then.
    pub fn send_file_descriptor(&self, descriptor: OwnedFd) -> Result<(), SendDescriptorError> {
        self.link.send_descriptor(descriptor)
    }

    /// Returns who the peer is, by the word of the operating system; of a Unix socket that is still
    /// open.
    ///
    /// In memory both ends belong to this process.
    #[must_use]
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.link.peer_credentials()
    }

    /// Closes the connection once everything that was written has been sent.
    ///
    /// Nothing more is delivered, and what is written from now on is dropped. While a producer is
    /// registered the connection stays open for it until it unregisters. If the peer has sent
    /// something that was not read, what it sends is thrown away for two seconds before the stream
    /// is closed, so that it gets to see the last bytes written; `connection_lost` does not wait for
    /// that. A peer that takes nothing of what is left for thirty seconds is cut off, unless it is at
    /// the other end of a pipe.
    pub fn lose_connection(&self) {
        self.link.lose_connection();
    }

    /// Finishes sending once everything that was written has been sent; receiving goes on.
    pub fn lose_write_connection(&self) {
        self.link.lose_write_connection();
    }

    /// Closes the connection now, and drops what has not been sent.
    ///
    /// The peer learns of it by a reset. Over a Unix socket, which has none, it may see an end like any
    /// other: who must tell them apart says in its own words that it has sent everything.
    pub fn abort_connection(&self) {
        self.link.abort_connection();
    }

    /// Stops reading, so that the peer is slowed down once the system's own buffers are full.
    ///
    /// No `data_received` follows until [`resume_producing`](Transport::resume_producing), and an
    /// end or failure of the connection may be noticed only then.
    pub fn pause_producing(&self) {
        self.link.pause_reading();
    }

    /// Goes on reading. What had arrived meanwhile is delivered in the next turn.
    pub fn resume_producing(&self) {
        self.link.resume_reading();
    }

    /// Whether what arrives is delivered now: the connection stands, and reading is not paused.
    pub(crate) fn is_delivering(&self) -> bool {
        self.link.is_delivering()
    }

    /// Has the protocol's `data_received` called with an empty slice in the next turn, or when reading goes
    /// on: it holds bytes that it was given before.
    pub(crate) fn deliver_again(&self) {
        self.link.deliver_again();
    }

    /// Names the producer whose bytes come next.
    ///
    /// A push producer is paused when more than [`high_water`](Transport::set_watermarks) bytes
    /// are waiting and resumed below the low mark; a pull producer is asked for one piece whenever
    /// everything has been sent. On a connection that has ended it is told to stop. A producer
    /// that is registered already is told to stop and replaced.
    pub fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        self.link.register_producer(producer, streaming);
    }

    /// The producer has written everything it had.
    pub fn unregister_producer(&self) {
        self.link.unregister_producer();
    }

    /// Sets how many unsent bytes pause a push producer, and how few resume it.
    pub fn set_watermarks(&self, high_bytes: usize, low_bytes: usize) {
        self.link.set_watermarks(high_bytes, low_bytes);
    }

    /// Returns the peer's address.
    #[must_use]
    pub fn peer(&self) -> &Address {
        self.link.peer()
    }

    /// Returns this end's address.
    #[must_use]
    pub fn local(&self) -> &Address {
        self.link.local()
    }

    /// Whether the connection stands and nobody on this side has asked to close it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Returns the number of bytes that were written and not yet handed to the system.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.link.buffered_bytes()
    }
}

/// Stopping it closes the connection once what was written to it has been sent.
impl Producer for Transport {
    fn pause_producing(&self) {
        Transport::pause_producing(self);
    }

    fn resume_producing(&self) {
        Transport::resume_producing(self);
    }

    fn stop_producing(&self) {
        self.lose_connection();
    }
}

impl Consumer for Transport {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: Streaming) {
        Transport::register_producer(self, producer, streaming);
    }

    fn unregister_producer(&self) {
        Transport::unregister_producer(self);
    }

    fn write(&self, data: &[u8]) {
        Transport::write(self, data);
    }

    fn write_bytes(&self, data: Bytes) {
        Transport::write_bytes(self, data);
    }

    fn take_file(&self, range: &FileRange) -> Option<Deferred<u64>> {
        self.link.take_file(range)
    }
}

/// Clones of one handle are equal.
impl PartialEq for Transport {
    fn eq(&self, other: &Transport) -> bool {
        Rc::ptr_eq(&self.link, &other.link)
    }
}

impl Eq for Transport {}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("peer", self.peer())
            .field("is_connected", &self.is_connected())
            .field("buffered_bytes", &self.buffered_bytes())
            .finish()
    }
}
