//! What every handler of rooms works with: the database, the writer of events, the time.

use std::rc::Rc;

use ropewalk::{Deferred, Failure, Reactor};
use ruma::{CanonicalJsonObject, MilliSecondsSinceUnixEpoch, ServerName, UInt, UserId};

use super::rate_limits::{Action, RateLimiter};
use super::room_error::{RoomError, refuse_json};
use super::{Refusal, wall_clock_ms};
use crate::events::RoomWriter;
use crate::model::canonical::parse_object;
use crate::storage::engine::{Database, Txn, WriteTxn};

/// Contents over this many bytes are parsed in the thread pool, because parsing them would hold the
/// loop. None that is much longer can become an event, but escapes and blanks do not count there.
const CONTENT_BYTES_ON_LOOP_MAX: usize = 64 << 10;

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
        let ms = UInt::try_from(self.now_ms()).unwrap_or(UInt::MIN);
        MilliSecondsSinceUnixEpoch(ms)
    }

    /// The same as a number of ms since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        wall_clock_ms(&self.reactor)
    }

    /// Reads the content of an event that a client wants to send; a long one in the thread pool.
    pub(crate) async fn parse_content(&self, text: &str) -> Result<CanonicalJsonObject, Failure> {
        let parse = |text: &str| parse_object(text).map_err(|error| refuse_json(&error));
        if text.len() <= CONTENT_BYTES_ON_LOOP_MAX {
            return Ok(parse(text)?);
        }
        let text = text.to_owned();
        self.reactor.defer_to_thread(move || parse(&text)).await
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
        f: impl FnOnce(&Txn<'_>) -> Result<T, Failure> + Send + 'static,
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
