//! Forgetting in time: old client transactions, old ends of graphs, content that was redacted long ago.
//!
//! A round an hour, in portions that are writes of their own: other writes go in between.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{
    Deferred, DelayedCall, Failure, LogContext, Reactor, Service, run_as_background_process,
};

use crate::storage::controllers::housekeeping;
use crate::storage::engine::Database;
use crate::storage::{RoomKey, StorageError};

use super::wall_clock_ms;

/// When the first round begins: not while clients come back after a restart.
const FIRST_ROUND_AFTER: Duration = Duration::from_secs(5 * 60);

/// From one round to the next. What is forgotten is a day old at least, so an hour more is nothing.
const ROUND_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long redacted content is kept for moderators, as in Synapse: seven days.
const REDACTED_KEPT_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// Does the rounds, as a service. Stopping it lets the round under way end after its present portion.
#[derive(Clone)]
pub struct Housekeeping {
    inner: Rc<Inner>,
}

struct Inner {
    reactor: Reactor,
    database: Database,
    /// The next round; none before the start, during a round, and after the stop.
    next: RefCell<Option<DelayedCall>>,
    is_stopping: std::cell::Cell<bool>,
}

impl Housekeeping {
    /// Keeps house in `database`.
    pub fn new(reactor: Reactor, database: Database) -> Self {
        let (next, is_stopping) = Default::default();
        Self { inner: Rc::new(Inner { reactor, database, next, is_stopping }) }
    }

    fn schedule(&self, after: Duration) {
        if self.inner.is_stopping.get() {
            return;
        }
        let this = self.clone();
        let call = LogContext::sentinel().run(|| {
            self.inner.reactor.call_later(after, move || {
                let reactor = this.inner.reactor.clone();
                run_as_background_process(&reactor, "housekeeping", async move {
                    let round = this.round().await;
                    // A failed round is followed by others.
                    this.schedule(ROUND_EVERY);
                    round
                });
            })
        });
        self.inner.next.replace(Some(call));
    }

    async fn round(&self) -> Result<(), Failure> {
        let now_ms = wall_clock_ms(&self.inner.reactor);
        let database = &self.inner.database;
        while !self.inner.is_stopping.get() {
            let portion = database.write::<_, StorageError>("forget transactions", move |txn| {
                housekeeping::forget_transactions(txn, now_ms)
            });
            if !portion.await? {
                break;
            }
        }
        while !self.inner.is_stopping.get() {
            let portion = database.write::<_, StorageError>("erase redacted content", move |txn| {
                housekeeping::erase_redacted(txn, REDACTED_KEPT_MS, now_ms)
            });
            if !portion.await? {
                break;
            }
        }
        let mut after = RoomKey(0);
        while !self.inner.is_stopping.get() {
            let portion = database.write::<_, StorageError>("forget extremities", move |txn| {
                housekeeping::forget_extremities(txn, after, now_ms)
            });
            match portion.await? {
                Some(room) => after = room,
                None => break,
            }
        }
        Ok(())
    }
}

impl Service for Housekeeping {
    fn name(&self) -> &str {
        "housekeeping"
    }

    fn start(&self, _: &Reactor) -> Deferred<()> {
        self.schedule(FIRST_ROUND_AFTER);
        Deferred::succeed(())
    }

    fn stop(&self) -> Deferred<()> {
        self.inner.is_stopping.set(true);
        if let Some(next) = self.inner.next.take() {
            next.cancel();
        }
        Deferred::succeed(())
    }
}

#[cfg(test)]
mod tests {
    use ropewalk::testing::{Clock, success_result_of};

    use super::*;
    use crate::storage::engine::{Durability, params};
    use crate::storage::schema::STEPS;

    #[test]
    fn rounds_come_every_hour_until_the_stop() {
        let (clock, folder) = (Clock::new(), tempfile::tempdir().unwrap());
        let path = folder.path().join("test.db");
        let opened = Database::open(clock.reactor(), &path, Durability::Process, 1, STEPS);
        clock.pump();
        let database = success_result_of(opened);
        let remembered = |database: &Database| {
            let count = database.read::<i64, StorageError>(|txn| {
                txn.query_one(
                    "SELECT count(*) FROM events WHERE txn_id IS NOT NULL",
                    params![],
                    |row| row.get(0),
                )
            });
            clock.pump();
            success_result_of(count)
        };
        // More than one portion of them, all from 1970.
        let written = database.write::<_, StorageError>("events", |txn| {
            txn.execute(
                "INSERT INTO rooms (room, room_id, room_version, creator)
                 VALUES (1, '!r:d', '12', '@a:d')",
                params![],
            )?;
            txn.execute(
                "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 450)
                 INSERT INTO events (stream_ordering, event_id, room, depth, type, sender,
                     origin_server_ts, received_ts, device_id, txn_id, json)
                 SELECT i, '$' || i, 1, i, 'm.x', '@a:d', 0, 0, 'D', i, '{}' FROM n",
                params![],
            )
        });
        clock.pump();
        success_result_of(written);

        // A clock that begins in 1970 is not past the day yet.
        clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
        let keeper = Housekeeping::new(clock.reactor().clone(), database.clone());
        success_result_of(keeper.start(clock.reactor()));
        assert_eq!(remembered(&database), 450);
        clock.advance(FIRST_ROUND_AFTER);
        clock.pump();
        assert_eq!(remembered(&database), 0);
        assert_eq!(clock.pending_calls(), 1, "the next round");
        success_result_of(keeper.stop());
        assert_eq!(clock.pending_calls(), 0);
    }
}
