//! Who is typing. Kept in memory only: after a restart nobody types until he types on.
//!
//! Positions of the typing stream begin at the time of day, in ms, at which the server started, so
//! that they are greater than any that clients still hold from before.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{Deferred, DelayedCall, Failure, Instant, Reactor};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::sync::question::TypingNews;
use super::{Refusal, wall_clock_ms};
use crate::storage::StorageError;
use crate::storage::controllers::persist::USER_ROOMS_CACHE;
use crate::storage::databases::main::{current_state, rooms};
use crate::storage::engine::Database;
use crate::streams::{Notifier, Stream, Wake};

/// The longest time that one request counts for, as in Synapse; who types on asks again.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// How long it is remembered that nobody types in a room any more. Clients that have not asked for so
/// long have long since given up showing it.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Who is typing where. A cheap handle.
#[derive(Clone)]
pub struct Typing {
    inner: Rc<Inner>,
}

struct Inner {
    reactor: Reactor,
    database: Database,
    notifier: Notifier,
    board: RefCell<Board>,
}

/// All rooms in which somebody types or has lately stopped.
struct Board {
    position: i64,
    rooms: BTreeMap<OwnedRoomId, RoomBoard>,
    /// Rooms by their last change, oldest first.
    by_change: BTreeMap<i64, OwnedRoomId>,
}

struct RoomBoard {
    typists: BTreeMap<OwnedUserId, DelayedCall>,
    changed: i64,
    changed_at: Instant,
}

impl Typing {
    /// Starts with nobody typing, and moves the typing stream to where it begins.
    pub fn new(reactor: &Reactor, database: Database) -> Self {
        let notifier = database.notifier().clone();
        let position = wall_clock_ms(reactor);
        notifier.advance(&[(Stream::Typing, position)], &[]);
        let board = Board { position, rooms: BTreeMap::new(), by_change: BTreeMap::new() };
        let inner =
            Inner { reactor: reactor.clone(), database, notifier, board: RefCell::new(board) };
        let typing = Self { inner: Rc::new(inner) };
        let weak = Rc::downgrade(&typing.inner);
        typing.inner.database.on_invalidation(USER_ROOMS_CACHE, move |user_id| {
            if let (Some(inner), Ok(user_id)) = (weak.upgrade(), UserId::parse(user_id)) {
                Self { inner }.rooms_changed(user_id);
            }
        });
        typing
    }

    /// Ends the typing of a user in rooms that he is no longer in.
    fn rooms_changed(&self, user_id: OwnedUserId) {
        let board = self.inner.board.borrow();
        let of_user = board.rooms.iter().filter(|(_, room)| room.typists.contains_key(&user_id));
        let types_in: Vec<OwnedRoomId> = of_user.map(|(room_id, _)| room_id.clone()).collect();
        drop(board);
        for room_id in types_in {
            let typing = self.clone();
            let user_id = user_id.clone();
            let checked = self.inner.is_joined(&user_id, &room_id).add_callback(move |is_joined| {
                if !is_joined {
                    typing.stop(&user_id, &room_id);
                }
                Ok(())
            });
            checked.detach();
        }
    }

    /// Says that `caller` types in a room for a while, or no longer (`None`).
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` if he speaks for somebody else or is not in the room.
    pub async fn set(
        &self,
        caller: &UserId,
        user_id: &UserId,
        room_id: &RoomId,
        timeout: Option<Duration>,
    ) -> Result<(), Failure> {
        if caller != user_id {
            return Err(Refusal::forbidden("nobody can say that somebody else types").into());
        }
        if !self.inner.is_joined(user_id, room_id).await? {
            return Err(Refusal::forbidden(format!("{user_id} is not in room {room_id}")).into());
        }
        match timeout {
            Some(timeout) => self.start(user_id, room_id, timeout.min(TIMEOUT_MAX)),
            None => self.stop(user_id, room_id),
        }
        Ok(())
    }

    /// Ends a user's typing in a room, as when he leaves it.
    pub fn stop(&self, user_id: &UserId, room_id: &RoomId) {
        let mut board = self.inner.board.borrow_mut();
        let Some(room) = board.rooms.get_mut(room_id) else { return };
        let Some(expiry) = room.typists.remove(user_id) else { return };
        expiry.cancel();
        drop(board);
        self.changed(room_id);
    }

    /// Returns where the stream stands, and who types in the rooms that have changed after `since`; if
    /// that is `None`, in all rooms where somebody does.
    pub(crate) fn news(&self, since: Option<i64>) -> TypingNews {
        let board = self.inner.board.borrow();
        let in_room = |room_id: &OwnedRoomId, room: &RoomBoard| {
            (room_id.clone(), room.typists.keys().cloned().collect())
        };
        let rooms = match since {
            Some(since) => board
                .by_change
                .range(since.saturating_add(1)..)
                .filter_map(|(_, room_id)| Some(in_room(room_id, board.rooms.get(room_id)?)))
                .collect(),
            None => board
                .rooms
                .iter()
                .filter(|(_, room)| !room.typists.is_empty())
                .map(|(room_id, room)| in_room(room_id, room))
                .collect(),
        };
        TypingNews { position: board.position, rooms }
    }

    fn start(&self, user_id: &UserId, room_id: &RoomId, timeout: Duration) {
        let mut board = self.inner.board.borrow_mut();
        let now = self.inner.reactor.now();
        let room = board.rooms.entry(room_id.to_owned()).or_insert_with(|| RoomBoard {
            typists: BTreeMap::new(),
            changed: i64::MIN,
            changed_at: now,
        });
        if let Some(expiry) = room.typists.get(user_id) {
            // He types on: nobody need be told.
            expiry.reset(timeout);
            return;
        }
        let (weak, user, of) = (Rc::downgrade(&self.inner), user_id.to_owned(), room_id.to_owned());
        let expiry = self.inner.reactor.call_later(timeout, move || {
            if let Some(inner) = weak.upgrade() {
                Self { inner }.stop(&user, &of);
            }
        });
        room.typists.insert(user_id.to_owned(), expiry);
        drop(board);
        self.changed(room_id);
    }

    fn changed(&self, room_id: &RoomId) {
        let now = self.inner.reactor.now();
        let position = self.inner.board.borrow_mut().changed(room_id, now);
        let wake = Wake::Room(Stream::Typing, room_id.to_owned());
        self.inner.notifier.advance(&[(Stream::Typing, position)], &[wake]);
    }
}

impl Inner {
    fn is_joined(&self, user_id: &UserId, room_id: &RoomId) -> Deferred<bool> {
        let (user_id, room_id) = (user_id.to_owned(), room_id.to_owned());
        self.database.read(move |txn| {
            let Some(room) = rooms::find(txn, &room_id)? else { return Ok(false) };
            let membership = current_state::membership(txn, room.key, &user_id)?;
            Ok::<_, StorageError>(membership.as_deref() == Some("join"))
        })
    }
}

impl Board {
    /// Moves the stream for a change in a room, and forgets rooms that have long been quiet.
    fn changed(&mut self, room_id: &RoomId, now: Instant) -> i64 {
        self.position += 1;
        if let Some(room) = self.rooms.get_mut(room_id) {
            self.by_change.remove(&room.changed);
            room.changed = self.position;
            room.changed_at = now;
            self.by_change.insert(self.position, room_id.to_owned());
        }
        while let Some(oldest) = self.by_change.first_entry() {
            let quiet = self.rooms.get(oldest.get()).is_none_or(|room| {
                room.typists.is_empty() && now.since(room.changed_at) >= REMEMBERED
            });
            if !quiet {
                break;
            }
            self.rooms.remove(&oldest.remove());
        }
        self.position
    }
}

#[cfg(test)]
mod tests {
    use ropewalk::testing::{Clock, failure_result_of, success_result_of};
    use ruma::{room_id, user_id};

    use super::*;
    use crate::events::tests::rooms::{Server, at};
    use crate::handlers::testing::open_database;
    use crate::model::RoomVersion;

    struct World {
        clock: Clock,
        typing: Typing,
        room_id: OwnedRoomId,
        _folder: tempfile::TempDir,
    }

    /// A room with alice in it, on a manual clock.
    fn world() -> World {
        let clock = Clock::new();
        let folder = tempfile::tempdir().unwrap();
        let database = open_database(&clock, &folder.path().join("main.db"));
        let server = Server::new();
        let (writer, new) = (server.writer.clone(), server.new_room(RoomVersion::DEFAULT));
        let made = database.write("room", move |txn| writer.create_room(txn, new, at(1)));
        clock.pump();
        let room_id = success_result_of(made).room_id;
        let typing = Typing::new(clock.reactor(), database);
        World { clock, typing, room_id, _folder: folder }
    }

    impl World {
        fn set(&self, user_id: &UserId, timeout: Option<Duration>) -> Result<(), Failure> {
            let (typing, user, room) =
                (self.typing.clone(), user_id.to_owned(), self.room_id.clone());
            let set = self
                .clock
                .reactor()
                .spawn(async move { typing.set(&user, &user, &room, timeout).await });
            self.clock.pump();
            set.into_result().expect("answered")
        }

        fn typists(&self) -> Vec<OwnedUserId> {
            self.typing.news(None).rooms.remove(&self.room_id).unwrap_or_default()
        }
    }

    #[test]
    fn typing_ends_at_its_deadline_unless_it_is_renewed() {
        let world = world();
        let alice = user_id!("@alice:domain");
        let before = world.typing.news(None).position;
        world.set(alice, Some(Duration::from_secs(30))).unwrap();
        assert_eq!(world.typists(), [alice]);
        let started = world.typing.news(Some(before));
        assert_eq!(started.rooms.len(), 1);
        world.clock.advance(Duration::from_secs(20));
        world.set(alice, Some(Duration::from_secs(30))).unwrap();
        assert_eq!(world.typing.news(None).position, started.position, "typing on is no news");
        world.clock.advance(Duration::from_millis(29_999));
        assert_eq!(world.typists(), [alice]);
        world.clock.advance(Duration::from_millis(1));
        assert!(world.typists().is_empty());
        let stopped = world.typing.news(Some(started.position));
        assert_eq!(
            stopped.rooms[&world.room_id],
            Vec::<OwnedUserId>::new(),
            "told as an empty list"
        );
        assert!(world.typing.news(Some(stopped.position)).rooms.is_empty());
    }

    #[test]
    fn stopping_and_silly_timeouts() {
        let world = world();
        let alice = user_id!("@alice:domain");
        world.set(alice, None).unwrap();
        assert!(world.typing.news(Some(0)).rooms.is_empty(), "stopping nothing is no news");
        world.set(alice, Some(Duration::from_secs(1 << 40))).unwrap();
        world.clock.advance(TIMEOUT_MAX);
        assert!(world.typists().is_empty());
        world.set(alice, Some(Duration::from_secs(30))).unwrap();
        world.set(alice, None).unwrap();
        assert!(world.typists().is_empty());
        assert_eq!(world.clock.pending_calls(), 0, "no timer is left behind");
    }

    #[test]
    fn only_members_type_and_only_for_themselves() {
        let world = world();
        let refused = world.set(user_id!("@bob:domain"), Some(TIMEOUT_MAX)).unwrap_err();
        assert!(refused.to_string().contains("M_FORBIDDEN"), "{refused}");
        let typing = world.typing.clone();
        let refused = world.clock.reactor().spawn(async move {
            let (alice, bob) = (user_id!("@alice:domain"), user_id!("@bob:domain"));
            typing.set(bob, alice, room_id!("!r:domain"), None).await
        });
        world.clock.pump();
        assert!(failure_result_of(refused).to_string().contains("M_FORBIDDEN"));
    }

    #[test]
    fn who_leaves_a_room_types_in_it_no_more() {
        let world = world();
        let alice = user_id!("@alice:domain");
        world.set(alice, Some(TIMEOUT_MAX)).unwrap();
        let (writer, room_id) = (Server::new().writer, world.room_id.clone());
        let left = world.typing.inner.database.write("leave", move |txn| {
            let content =
                crate::events::tests::rooms::object(serde_json::json!({"membership": "leave"}));
            let draft =
                crate::model::EventDraft::state(alice.to_owned(), "m.room.member", alice, content);
            writer.send(txn, &room_id, draft, None, at(9))
        });
        world.clock.pump();
        success_result_of(left);
        assert!(world.typists().is_empty());
        assert_eq!(world.clock.pending_calls(), 0);
    }

    #[test]
    fn rooms_that_have_long_been_quiet_are_forgotten() {
        let world = world();
        let alice = user_id!("@alice:domain");
        let quiet = room_id!("!quiet:domain");
        world.typing.start(alice, quiet, Duration::from_secs(1));
        world.clock.advance(REMEMBERED + Duration::from_secs(1));
        assert_eq!(world.typing.inner.board.borrow().rooms.len(), 1);
        world.set(alice, Some(TIMEOUT_MAX)).unwrap();
        let board = world.typing.inner.board.borrow();
        assert_eq!(board.rooms.keys().collect::<Vec<_>>(), [&world.room_id]);
        assert_eq!(board.by_change.len(), 1);
    }
}
