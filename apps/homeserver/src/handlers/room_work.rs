//! What every handler of rooms works with: the database, the writer of events, the time.

use std::rc::Rc;

use ropewalk::{Deferred, Failure, Reactor};
use ruma::{MilliSecondsSinceUnixEpoch, ServerName, UInt, UserId};

use super::rate_limits::{Action, RateLimiter};
use super::room_error::RoomError;
use super::{Refusal, wall_clock_ms};
use crate::events::RoomWriter;
use crate::storage::engine::{Database, Txn, WriteTxn};

/// A cheap handle on what rooms need.
#[derive(Clone)]
pub struct RoomWork {
    reactor: Reactor,
    database: Database,
    writer: RoomWriter,
    limiter: Rc<RateLimiter>,
}

/// What a writing job has at hand besides its transaction.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Writes events.
    pub(crate) writer: RoomWriter,
    /// The time of the request.
    pub(crate) now: MilliSecondsSinceUnixEpoch,
}

impl Tools {
    /// Returns this server's name.
    pub(crate) fn server_name(&self) -> &ServerName {
        self.writer.server_name()
    }
}

impl RoomWork {
    /// Puts the handle together.
    pub fn new(
        reactor: Reactor,
        database: Database,
        writer: RoomWriter,
        limiter: Rc<RateLimiter>,
    ) -> Self {
        Self { reactor, database, writer, limiter }
    }

    /// Returns this server's name.
    pub(crate) fn server_name(&self) -> &ServerName {
        self.writer.server_name()
    }

    /// Lets a user do something once.
    pub(crate) fn admit(&self, action: Action, user_id: &UserId) -> Result<(), Refusal> {
        self.limiter.admit(action, user_id.as_str(), self.reactor.now())
    }

    /// Returns the time of day, as events state it.
    pub(crate) fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let ms = UInt::try_from(wall_clock_ms(&self.reactor)).unwrap_or(UInt::MIN);
        MilliSecondsSinceUnixEpoch(ms)
    }

    /// Returns bytes that nobody can guess.
    pub(crate) fn random<const COUNT: usize>(&self) -> [u8; COUNT] {
        let mut bytes = [0; COUNT];
        self.reactor.random_bytes(&mut bytes);
        bytes
    }

    /// Runs `work` as a task of its own.
    pub(crate) fn spawn(
        &self,
        work: impl Future<Output = Result<(), Failure>> + 'static,
    ) -> Deferred<()> {
        self.reactor.spawn(work)
    }

    /// Runs `f` in a snapshot.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Txn<'_>) -> Result<T, RoomError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.database.read(f).await
    }

    /// Runs `f` as one write; the answer comes when it is safe on disk.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        label: &'static str,
        f: impl FnOnce(&mut WriteTxn<'_>, &Tools) -> Result<T, RoomError> + Send + 'static,
    ) -> Result<T, Failure> {
        let tools = Tools { writer: self.writer.clone(), now: self.now() };
        self.database.write(label, move |txn| f(txn, &tools)).await
    }
}
