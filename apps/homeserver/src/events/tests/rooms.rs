//! A server with a database of its own, for tests of the write path.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::events::{ClientTransaction, NewRoom, RoomWriter, SentEvent, WriteError};
pub(crate) use crate::model::tests::rooms::{at, object, signer, user};
use crate::model::{EventDraft, RoomVersion};
use crate::storage::StorageError;
use crate::storage::databases::main::events::{self, EventRow};
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{current_state, extremities};
use crate::storage::engine::{Durability, LocalDatabase};

/// A server named `domain`.
pub(crate) struct Server {
    pub(crate) database: LocalDatabase,
    pub(crate) writer: RoomWriter,
    pub(crate) now: u32,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.db");
        let database = LocalDatabase::open(&path, Durability::Process).unwrap();
        let writer = RoomWriter::new(Arc::new(signer("domain")));
        Self { database, writer, now: 1, _folder: folder }
    }

    /// Opens the same file again, as after a restart.
    pub(crate) fn restart(&mut self) {
        let path = self.database.path().to_owned();
        self.database = LocalDatabase::open(&path, Durability::Process).unwrap();
    }

    /// What a public room of alice's is made of.
    pub(crate) fn new_room(&self, version: RoomVersion) -> NewRoom {
        let levels = match version.creators_are_privileged() {
            true => json!({"events": {"m.room.tombstone": 150}}),
            false => json!({"users": {"@alice:domain": 100}}),
        };
        let state = |kind: &str, key: &str, content: Value| {
            EventDraft::state(user("alice"), kind, key, object(content))
        };
        NewRoom {
            version,
            creator: user("alice"),
            creation_content: object(json!({})),
            random: [7; 18],
            events: vec![
                state("m.room.member", "@alice:domain", json!({"membership": "join"})),
                state("m.room.power_levels", "", levels),
                state("m.room.join_rules", "", json!({"join_rule": "public"})),
                state("m.room.history_visibility", "", json!({"history_visibility": "shared"})),
            ],
            is_public: true,
        }
    }

    pub(crate) fn room(&mut self, version: RoomVersion) -> OwnedRoomId {
        let new = self.new_room(version);
        let writer = self.writer.clone();
        self.database.write(move |txn| writer.create_room(txn, new, at(1))).expect("a room").room_id
    }

    pub(crate) fn send(
        &mut self,
        room_id: &RoomId,
        draft: EventDraft,
    ) -> Result<SentEvent, WriteError> {
        self.send_as(room_id, draft, None)
    }

    pub(crate) fn send_as(
        &mut self,
        room_id: &RoomId,
        draft: EventDraft,
        transaction: Option<ClientTransaction>,
    ) -> Result<SentEvent, WriteError> {
        self.now += 1;
        let (writer, room_id, now) = (self.writer.clone(), room_id.to_owned(), at(self.now));
        self.database.write(move |txn| writer.send(txn, &room_id, draft, transaction.as_ref(), now))
    }

    pub(crate) fn say(
        &mut self,
        room_id: &RoomId,
        sender: &str,
        body: &str,
    ) -> Result<SentEvent, WriteError> {
        self.send(room_id, message(sender, body))
    }

    pub(crate) fn member(
        &mut self,
        room_id: &RoomId,
        sender: &str,
        target: &str,
        membership: &str,
    ) -> Result<SentEvent, WriteError> {
        let content = object(json!({"membership": membership}));
        let draft = EventDraft::state(user(sender), "m.room.member", user(target), content);
        self.send(room_id, draft)
    }

    pub(crate) fn state(
        &mut self,
        room_id: &RoomId,
        sender: &str,
        kind: &str,
        content: Value,
    ) -> Result<SentEvent, WriteError> {
        self.send(room_id, EventDraft::state(user(sender), kind, "", object(content)))
    }

    pub(crate) fn row(&self, event_id: &EventId) -> EventRow {
        self.read(|txn| events::find(txn, event_id)).expect("the event is there")
    }

    pub(crate) fn find_room(&self, room_id: &RoomId) -> Room {
        self.read(|txn| rooms::find(txn, room_id)).expect("the room is there")
    }

    /// Ids of what the room shows, oldest first.
    pub(crate) fn timeline(&self, room_id: &RoomId) -> Vec<OwnedEventId> {
        let room = self.find_room(room_id);
        let rows = self.read(|txn| events::oldest_by_arrival(txn, room.key, 0, i64::MAX, 10_000));
        rows.into_iter().map(|row| row.event_id).collect()
    }

    pub(crate) fn tips(&self, room_id: &RoomId) -> Vec<OwnedEventId> {
        let room = self.find_room(room_id);
        self.read(|txn| {
            let tips = extremities::forward(txn, room.key)?;
            tips.into_iter().map(|tip| events::event_id(txn, tip)).collect()
        })
    }

    pub(crate) fn current(&self, room_id: &RoomId, kind: &str, key: &str) -> Option<OwnedEventId> {
        let room = self.find_room(room_id);
        self.read(|txn| {
            let found = current_state::entry(txn, room.key, kind, key)?;
            found.map(|event| events::event_id(txn, event)).transpose()
        })
    }

    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&crate::storage::engine::Txn<'_>) -> Result<T, StorageError>,
    ) -> T {
        self.database.read(f).expect("the database works")
    }
}

pub(crate) fn message(sender: &str, body: &str) -> EventDraft {
    let content = object(json!({"msgtype": "m.text", "body": body}));
    EventDraft::message(user(sender), "m.room.message", content)
}

pub(crate) fn transaction(device_id: &str, txn_id: &str) -> Option<ClientTransaction> {
    Some(ClientTransaction { device_id: device_id.to_owned(), txn_id: txn_id.to_owned() })
}
