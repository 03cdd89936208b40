//! Receipts and read markers: how far a user has read a room.
//!
//! A receipt never goes back: one for an event that is not newer than the last is accepted and
//! dropped.

use ropewalk::{Failure, Reactor};
use ruma::api::client::receipt::create_receipt::v3::ReceiptType;
use ruma::events::receipt::ReceiptThread;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::Value;

use super::{Refusal, wall_clock_ms};
use crate::storage::StorageError;
use crate::storage::databases::main::{
    account_data, current_state, events, receipts, relations, rooms,
};
use crate::storage::engine::{Database, Txn, WriteTxn};
use crate::storage::keys::RoomKey;

/// The account data in which a room's read marker is kept.
const FULLY_READ: &str = "m.fully_read";

/// How many relations are followed from an event to the thread that it is in: a reaction to an edit of
/// a message in a thread takes three.
const RELATIONS_FOLLOWED_MAX: usize = 3;

/// Takes receipts and read markers. A cheap handle.
#[derive(Clone)]
pub struct Receipts {
    reactor: Reactor,
    database: Database,
}

/// One thing that a user says he has read.
#[derive(Clone, Debug)]
pub struct Mark {
    /// In which way.
    pub receipt_type: ReceiptType,
    /// Up to which event.
    pub event_id: OwnedEventId,
    /// In which thread.
    pub thread: ReceiptThread,
}

impl Receipts {
    /// Keeps them in `database`.
    pub fn new(reactor: &Reactor, database: Database) -> Self {
        Self { reactor: reactor.clone(), database }
    }

    /// Notes what a user has read in a room; all of it or, if something is refused, nothing.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` if he is not in the room; `M_INVALID_PARAM` for a type or thread that cannot be.
    pub async fn mark(
        &self,
        user_id: OwnedUserId,
        room_id: OwnedRoomId,
        marks: Vec<Mark>,
    ) -> Result<(), Failure> {
        for mark in &marks {
            check_form(mark)?;
        }
        let now_ms = wall_clock_ms(&self.reactor);
        self.database
            .write("receipts", move |txn| {
                let room = room_of_member(txn, &room_id, &user_id)?;
                for mark in &marks {
                    note(txn, (room, &room_id), &user_id, mark, now_ms)?;
                }
                Ok::<_, Failure>(())
            })
            .await
    }
}

/// Refuses what no room could make good.
fn check_form(mark: &Mark) -> Result<(), Refusal> {
    match (&mark.receipt_type, &mark.thread) {
        (ReceiptType::FullyRead, ReceiptThread::Unthreaded) => Ok(()),
        (ReceiptType::FullyRead, _) => {
            Err(Refusal::invalid_param("an m.fully_read marker cannot have a thread_id"))
        }
        (ReceiptType::Read | ReceiptType::ReadPrivate, thread) => match thread.as_str() {
            Some("") => Err(Refusal::invalid_param("thread_id must not be empty")),
            _ => Ok(()),
        },
        (other, _) => Err(Refusal::invalid_param(format!(
            "there are no receipts of type {:?}; use m.read, m.read.private or m.fully_read",
            other.as_str()
        ))),
    }
}

/// Returns the room, if the user is in it.
fn room_of_member(txn: &Txn<'_>, room_id: &RoomId, user_id: &UserId) -> Result<RoomKey, Failure> {
    let room = rooms::find(txn, room_id)?;
    let membership = match &room {
        Some(room) => current_state::membership(txn, room.key, user_id)?,
        None => None,
    };
    match room {
        Some(room) if membership.as_deref() == Some("join") => Ok(room.key),
        _ => Err(Refusal::forbidden(format!("{user_id} is not in room {room_id}")).into()),
    }
}

fn note(
    txn: &mut WriteTxn<'_>,
    (room, room_id): (RoomKey, &RoomId),
    user_id: &UserId,
    mark: &Mark,
    now_ms: i64,
) -> Result<(), Failure> {
    let event_id = &*mark.event_id;
    if mark.receipt_type == ReceiptType::FullyRead {
        let stored = account_data::find(txn, user_id, Some(room_id), FULLY_READ)?;
        let stored = stored.as_deref().and_then(marker_in);
        if is_news(txn, stored.as_deref(), event_id)? {
            let content = serde_json::json!({ "event_id": event_id }).to_string();
            account_data::set(txn, user_id, Some(room_id), FULLY_READ, &content)?;
        }
        return Ok(());
    }
    let receipt_type = mark.receipt_type.as_str();
    let thread_id = mark.thread.as_str().unwrap_or_default();
    if !thread_id.is_empty() && !is_in_thread(txn, room, event_id, thread_id)? {
        return Err(Refusal::invalid_param(format!(
            "event {event_id} is not in thread {thread_id:?}"
        ))
        .into());
    }
    let stored = receipts::find(txn, room_id, receipt_type, user_id, thread_id)?;
    if is_news(txn, stored.as_deref(), event_id)? {
        receipts::set(txn, room_id, receipt_type, user_id, thread_id, event_id, now_ms)?;
    }
    Ok(())
}

fn marker_in(content: &str) -> Option<OwnedEventId> {
    let content: Value = serde_json::from_str(content).ok()?;
    OwnedEventId::try_from(content.get("event_id")?.as_str()?).ok()
}

/// Whether an event comes after the one that was read last. What we do not know cannot be compared,
/// and counts as news.
fn is_news(
    txn: &Txn<'_>,
    stored: Option<&EventId>,
    event_id: &EventId,
) -> Result<bool, StorageError> {
    let Some(stored) = stored else { return Ok(true) };
    if stored == event_id {
        return Ok(false);
    }
    let (Some(stored), Some(new)) =
        (events::find_key(txn, stored)?, events::find_key(txn, event_id)?)
    else {
        return Ok(true);
    };
    Ok(new > stored)
}

/// Whether an event may be read in a thread: it is the root, or relates to it, directly or by
/// something in it. An event that we do not know passes.
fn is_in_thread(
    txn: &Txn<'_>,
    room: RoomKey,
    event_id: &EventId,
    thread_id: &str,
) -> Result<bool, StorageError> {
    let mut at = event_id.to_owned();
    for _ in 0..RELATIONS_FOLLOWED_MAX {
        if at == thread_id {
            return Ok(true);
        }
        let Some(key) = events::find_key(txn, &at)? else { return Ok(true) };
        let Some((target, relation_type)) = relations::of_event(txn, room, key)? else {
            return Ok(thread_id == "main");
        };
        if relation_type == "m.thread" {
            return Ok(target == thread_id);
        }
        let Ok(target) = OwnedEventId::try_from(target) else { break };
        at = target;
    }
    Ok(thread_id == "main" || at == thread_id)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::events::tests::rooms::{Server, object, user};
    use crate::model::{EventDraft, RoomVersion};

    struct World {
        server: Server,
        room_id: OwnedRoomId,
        events: Vec<OwnedEventId>,
    }

    /// A room in which alice has said three things.
    fn world() -> World {
        let mut server = Server::new();
        let room_id = server.room(RoomVersion::DEFAULT);
        let events = ["1", "2", "3"]
            .map(|body| server.say(&room_id, "alice", body).unwrap().event_id)
            .into();
        World { server, room_id, events }
    }

    impl World {
        fn mark(&mut self, name: &str, mark: Mark) -> Result<(), String> {
            let (room_id, user_id) = (self.room_id.clone(), user(name));
            let marked = self.server.database.write(move |txn| {
                check_form(&mark)?;
                let room = room_of_member(txn, &room_id, &user_id)?;
                note(txn, (room, &room_id), &user_id, &mark, 7)
            });
            marked.map_err(|failure: Failure| {
                failure.to_string().split(':').next().unwrap_or_default().to_owned()
            })
        }

        fn read(&mut self, receipt_type: ReceiptType, event: usize) {
            let event_id = self.events[event].clone();
            let thread = ReceiptThread::Unthreaded;
            self.mark("alice", Mark { receipt_type, event_id, thread }).unwrap();
        }

        /// Which event was read last, counted from 0.
        fn stored(&self, receipt_type: &str, thread_id: &str) -> Option<usize> {
            let alice = user_id!("@alice:domain");
            let found = self.server.read(|txn| {
                if receipt_type == FULLY_READ {
                    let stored = account_data::find(txn, alice, Some(&self.room_id), FULLY_READ)?;
                    return Ok(stored.as_deref().and_then(marker_in));
                }
                receipts::find(txn, &self.room_id, receipt_type, alice, thread_id)
            })?;
            self.events.iter().position(|event| *event == found)
        }
    }

    #[test]
    fn a_receipt_never_goes_back() {
        for (receipt_type, name) in [
            (ReceiptType::Read, "m.read"),
            (ReceiptType::ReadPrivate, "m.read.private"),
            (ReceiptType::FullyRead, FULLY_READ),
        ] {
            let mut world = world();
            for (event, expected) in [(1, 1), (0, 1), (1, 1), (2, 2)] {
                world.read(receipt_type.clone(), event);
                assert_eq!(world.stored(name, ""), Some(expected), "{name}, event {event}");
            }
        }
    }

    #[test]
    fn what_is_unknown_cannot_be_compared() {
        let mut world = world();
        let unknown = OwnedEventId::try_from("$unknown").unwrap();
        world.read(ReceiptType::Read, 2);
        let mark = Mark {
            receipt_type: ReceiptType::Read,
            event_id: unknown,
            thread: ReceiptThread::Unthreaded,
        };
        world.mark("alice", mark).unwrap();
        assert_eq!(world.stored("m.read", ""), None, "the unknown event");
        world.read(ReceiptType::Read, 0);
        assert_eq!(world.stored("m.read", ""), Some(0), "and from it to any known one");
    }

    #[test]
    fn threads_are_read_apart() {
        let mut world = world();
        let root = world.events[0].clone();
        let content = serde_json::json!({
            "body": "in the thread", "msgtype": "m.text",
            "m.relates_to": {"rel_type": "m.thread", "event_id": root},
        });
        let draft = EventDraft::message(user("alice"), "m.room.message", object(content));
        let inside = world.server.send(&world.room_id, draft).unwrap().event_id;
        let content = serde_json::json!({
            "m.relates_to": {"rel_type": "m.annotation", "event_id": inside, "key": "x"},
        });
        let draft = EventDraft::message(user("alice"), "m.reaction", object(content));
        let reaction = world.server.send(&world.room_id, draft).unwrap().event_id;
        let second = world.events[1].clone();
        world.events.extend([inside.clone(), reaction.clone()]);
        let in_thread = || ReceiptThread::Thread(root.clone());
        let main = || ReceiptThread::Main;
        for (why, thread, event_id, accepted) in [
            ("the root", in_thread(), root.clone(), true),
            ("an event in the thread", in_thread(), inside.clone(), true),
            ("a reaction to it", in_thread(), reaction.clone(), true),
            ("an event outside", in_thread(), second.clone(), false),
            ("the root is in the main thread, too", main(), root.clone(), true),
            ("an event outside is in the main thread", main(), second.clone(), true),
            ("one in the thread is not", main(), inside.clone(), false),
        ] {
            let mark = Mark { receipt_type: ReceiptType::Read, event_id, thread };
            let expected = if accepted { Ok(()) } else { Err("M_INVALID_PARAM".to_owned()) };
            assert_eq!(world.mark("alice", mark), expected, "{why}");
        }
        assert_eq!(world.stored("m.read", root.as_str()), Some(4));
        assert_eq!(world.stored("m.read", "main"), Some(1));
        assert_eq!(world.stored("m.read", ""), None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut world = world();
        let event_id = world.events[0].clone();
        let unthreaded = ReceiptThread::Unthreaded;
        for (why, name, receipt_type, thread, expected) in [
            ("a stranger", "bob", ReceiptType::Read, unthreaded.clone(), "M_FORBIDDEN"),
            ("an unknown type", "alice", "m.seen".into(), unthreaded, "M_INVALID_PARAM"),
            (
                "a marker of a thread",
                "alice",
                ReceiptType::FullyRead,
                ReceiptThread::Main,
                "M_INVALID_PARAM",
            ),
        ] {
            let mark = Mark { receipt_type, event_id: event_id.clone(), thread };
            assert_eq!(world.mark(name, mark), Err(expected.to_owned()), "{why}");
        }
    }
}
