//! For tests of what handlers do to rooms: a database, a clock that is moved, people with short names.
//!
//! Everything runs on the test's own thread, as jobs of a [`LocalDatabase`]; there is no loop.

use std::sync::Arc;

use ropewalk::Failure;
use ruma::api::IncomingRequestExt as _;
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
};
use serde_json::{Value, json};

use super::Refusal;
use super::membership::{self, Change, Step};
use super::room_error::RoomError;
use super::room_work::Tools;
use super::rooms::{self, Order, Publication};
use crate::events::RoomWriter;
use crate::model::{EventDraft, EventSigner, RoomVersion, SigningKeyPair};
use crate::storage::databases::main::rooms as room_rows;
use crate::storage::databases::main::{current_state, events, profiles};
use crate::storage::engine::{Durability, LocalDatabase, Txn, WriteTxn};

/// A homeserver called `hs` without its network.
pub(crate) struct TestRooms {
    database: LocalDatabase,
    writer: RoomWriter,
    now_ms: u32,
    _folder: tempfile::TempDir,
}

/// Returns `@name:hs`; a name with a server of its own keeps it.
pub(crate) fn user(name: &str) -> OwnedUserId {
    let id = if name.contains(':') { format!("@{name}") } else { format!("@{name}:hs") };
    UserId::parse(id).expect("a user id")
}

/// Returns the errcode of a refusal, without its `M_`.
pub(crate) fn errcode<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    match result.expect_err("a refusal") {
        Refusal::Standard { kind, .. } => {
            kind.errcode().as_str().trim_start_matches("M_").to_owned()
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn object(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).expect("canonical JSON")
}

impl TestRooms {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("test.db");
        let database = LocalDatabase::open(&path, Durability::Process).expect("a database");
        let key_pair = SigningKeyPair::new("1", &[7; 32]).expect("a key");
        let signer = EventSigner::new("hs".try_into().expect("a name"), key_pair);
        let writer = RoomWriter::new(Arc::new(signer));
        Self { database, writer, now_ms: 1_000_000, _folder: folder }
    }

    /// Runs a write. Anything but a refusal fails the test.
    pub(crate) fn write<T: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut WriteTxn<'_>, &Tools) -> Result<T, RoomError> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.now_ms += 1000;
        let now = MilliSecondsSinceUnixEpoch(UInt::from(self.now_ms));
        let tools = Tools { writer: self.writer.clone(), now };
        refusal_of(self.database.write(move |txn| f(txn, &tools)))
    }

    /// Runs a read. Anything but a refusal fails the test.
    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&Txn<'_>) -> Result<T, Failure>,
    ) -> Result<T, Refusal> {
        refusal_of(self.database.read(f))
    }

    /// Runs a `createRoom` request with this body, in which `$b` stands for `@b:hs`.
    pub(crate) fn try_create(&mut self, who: &str, body: Value) -> Result<OwnedRoomId, Refusal> {
        let body = body.to_string().into_bytes();
        let request =
            http::Request::post("/_matrix/client/v3/createRoom").body(&*body).expect("a request");
        let request =
            ruma::api::client::room::create_room::v3::Request::try_from_http_request(request, &[])
                .expect("a createRoom request");
        let order = Order {
            who: user(who),
            request,
            default_version: RoomVersion::DEFAULT,
            publication: Publication::Allowed,
            random: [u8::try_from(self.now_ms / 1000 % 256).expect("a byte"); 18],
        };
        self.write(move |txn, tools| rooms::create(txn, tools, &order))
    }

    pub(crate) fn create(&mut self, who: &str, body: Value) -> OwnedRoomId {
        self.try_create(who, body).expect("a room")
    }

    /// A public room of `who` in which the others are joined.
    pub(crate) fn create_with(&mut self, who: &str, others: &[&str], body: Value) -> OwnedRoomId {
        let mut whole = json!({"preset": "public_chat"});
        for (field, value) in body.as_object().expect("an object") {
            whole[field] = value.clone();
        }
        let room_id = self.create(who, whole);
        for other in others {
            self.step(&room_id, other, other, Change::Join).expect("joins");
        }
        room_id
    }

    pub(crate) fn step(
        &mut self,
        room_id: &RoomId,
        sender: &str,
        target: &str,
        change: Change,
    ) -> Result<(), Refusal> {
        let step = Step {
            room_id: room_id.to_owned(),
            sender: user(sender),
            target: user(target),
            change,
            reason: None,
        };
        self.write(move |txn, tools| membership::apply(txn, tools, step))
    }

    /// Sets state, with nothing but the room's rules in between.
    pub(crate) fn set_state(
        &mut self,
        room_id: &RoomId,
        sender: &str,
        event_type: &str,
        state_key: &str,
        content: Value,
    ) -> Result<(), Refusal> {
        let draft = EventDraft::state(user(sender), event_type, state_key, object(content));
        let room_id = room_id.to_owned();
        self.write(move |txn, tools| {
            tools.writer.send(txn, &room_id, draft, None, tools.now)?;
            Ok(())
        })
    }

    pub(crate) fn set_profile(&mut self, who: &str, displayname: &str) {
        let (who, name) = (user(who), Value::from(displayname));
        self.write(move |txn, _| Ok(profiles::set(txn, &who, "displayname", &name)?)).expect("set");
    }

    /// Returns the content of a current state event; null if there is none.
    pub(crate) fn content(&self, room_id: &RoomId, event_type: &str, state_key: &str) -> Value {
        self.read(|txn| {
            let room = room_rows::find(txn, room_id)?.expect("a room");
            let Some(event) = current_state::entry(txn, room.key, event_type, state_key)? else {
                return Ok(Value::Null);
            };
            let json = events::by_key(txn, event)?.json;
            let event: Value = serde_json::from_str(&json).expect("JSON");
            Ok(event["content"].clone())
        })
        .expect("no refusal")
    }

    pub(crate) fn membership(&self, room_id: &RoomId, who: &str) -> Value {
        self.content(room_id, "m.room.member", user(who).as_str())["membership"].clone()
    }

    /// Returns type and state key of all events of the room, in order.
    pub(crate) fn history(&self, room_id: &RoomId) -> Vec<(String, Option<String>)> {
        self.read(|txn| {
            let room = room_rows::find(txn, room_id)?.expect("a room");
            Ok(txn.query(
                "SELECT type, state_key FROM events WHERE room = ?1 ORDER BY stream_ordering",
                crate::storage::engine::params![room.key],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?)
        })
        .expect("no refusal")
    }
}

fn refusal_of<T, E: Into<Failure>>(result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|error| {
        let failure = error.into();
        let refusal = failure.downcast_ref::<Refusal>().cloned();
        refusal.unwrap_or_else(|| panic!("our own fault: {failure:?}"))
    })
}
