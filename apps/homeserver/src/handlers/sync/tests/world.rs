//! A server with rooms, and devices that ask it what is new.

use std::collections::BTreeMap;
use std::sync::Arc;

use ruma::api::client::filter::FilterDefinition;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::events::tests::rooms::{Server, user};
use crate::handlers::sync::StateBlock;
use crate::handlers::sync::filter::SyncFilter;
use crate::handlers::sync::lazy_members::SharedSentMembers;
use crate::handlers::sync::question::{Answer, Question, ReadCaches, TypingNews};
use crate::model::RoomVersion;
use crate::streams::StreamToken;

/// A device that asks again and again, each time from where it was.
pub(crate) struct Device {
    pub(crate) question: Question,
}

impl Device {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            question: Question {
                user_id: user(name),
                device_id: Some("DEVICE".into()),
                since: None,
                filter: Arc::default(),
                full_state: false,
                block: StateBlock::default(),
                typing: TypingNews::default(),
                now_ms: 1_000_000,
                caches: Arc::new(ReadCaches::default()),
                sent_members: Some(SharedSentMembers::default()),
            },
        }
    }

    pub(crate) fn with_filter(mut self, definition: Value) -> Self {
        self.question.filter = filter(definition);
        self
    }

    pub(crate) fn with_block(mut self, block: StateBlock) -> Self {
        self.question.block = block;
        self
    }

    pub(crate) fn typing(&mut self, room_id: &OwnedRoomId, users: &[OwnedUserId]) {
        let rooms = BTreeMap::from([(room_id.clone(), users.to_vec())]);
        let position = self.question.typing.position + 1;
        self.question.typing = TypingNews { position, rooms };
    }

    /// Asks, without moving on.
    pub(crate) fn ask(&self, server: &Server) -> (Value, Answer) {
        let answer = server.database.read(|txn| self.question.answer(txn)).expect("an answer");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(body["next_batch"], answer.next_batch.to_string());
        (body, answer)
    }

    /// Asks, and asks from the answer's end the next time.
    pub(crate) fn sync(&mut self, server: &Server) -> Value {
        let (body, answer) = self.ask(server);
        self.question.since = Some(answer.next_batch);
        self.question.typing.rooms.clear();
        body
    }

    pub(crate) fn since(&self) -> Option<StreamToken> {
        self.question.since
    }
}

pub(crate) fn filter(definition: Value) -> Arc<SyncFilter> {
    let definition: FilterDefinition = serde_json::from_value(definition).expect("a filter");
    Arc::new((&definition).into())
}

/// A room of alice's in which bob is, too.
pub(crate) fn room_of_two(server: &mut Server) -> OwnedRoomId {
    let room_id = server.room(RoomVersion::DEFAULT);
    server.member(&room_id, "bob", "bob", "join").expect("public");
    room_id
}

/// Bodies of the messages in a list of events, in order.
pub(crate) fn bodies(events: &Value) -> Vec<&str> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

/// Types and state keys of the events in a list, in order.
pub(crate) fn entries(events: &Value) -> Vec<(String, String)> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or("-").to_owned();
    events.iter().map(|event| (text(event, "type"), text(event, "state_key"))).collect()
}

/// State keys of the member events in a list, sorted.
pub(crate) fn members(events: &Value) -> Vec<String> {
    let mut members: Vec<String> = entries(events)
        .into_iter()
        .filter(|(event_type, _)| event_type == "m.room.member")
        .map(|(_, state_key)| state_key)
        .collect();
    members.sort();
    members
}

pub(crate) fn say_many(server: &mut Server, room_id: &OwnedRoomId, sender: &str, count: usize) {
    for number in 1..=count {
        server.say(room_id, sender, &format!("{number}")).expect("said");
    }
}

pub(crate) fn set(server: &mut Server, room_id: &OwnedRoomId, event_type: &str, content: Value) {
    server.state(room_id, "alice", event_type, content).expect("set");
}

/// The sections of one joined room.
pub(crate) fn joined<'a>(body: &'a Value, room_id: &OwnedRoomId) -> &'a Value {
    &body["rooms"]["join"][room_id.as_str()]
}
