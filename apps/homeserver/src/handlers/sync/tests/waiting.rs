//! Long polls: who is woken, when, and who is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{CancelledError, Deferred, LogContext};
use ruma::{OwnedRoomId, user_id};
use serde_json::{Value, json};

use super::world::{bodies, filter, joined};
use crate::events::RoomWriter;
use crate::events::tests::rooms::{Server, at, message, object, user};
use crate::handlers::sync::{ClientSync, RepeatedRequests, StateBlock, SyncRequest};
use crate::handlers::testing::open_database;
use crate::handlers::typing::Typing;
use crate::model::{EventDraft, RoomVersion};
use crate::storage::databases::main::{account_data, receipts};
use crate::storage::engine::Database;
use crate::streams::StreamToken;

const LONG: Duration = Duration::from_secs(30);

struct World {
    clock: Clock,
    database: Database,
    writer: RoomWriter,
    sync: ClientSync,
    typing: Typing,
    room: OwnedRoomId,
    _folder: tempfile::TempDir,
}

impl World {
    /// A room with alice and bob.
    fn new() -> Self {
        let clock = Clock::new();
        let folder = tempfile::tempdir().unwrap();
        let database = open_database(&clock, &folder.path().join("main.db"));
        let server = Server::new();
        let (writer, new) = (server.writer.clone(), server.new_room(RoomVersion::DEFAULT));
        let made = database.write("room", {
            let writer = writer.clone();
            move |txn| writer.create_room(txn, new, at(1))
        });
        clock.pump();
        let room = success_result_of(made).room_id;
        let typing = Typing::new(clock.reactor(), database.clone());
        let sync = ClientSync::new(
            clock.reactor(),
            database.clone(),
            typing.clone(),
            RepeatedRequests::Join,
        );
        let world = Self { clock, database, writer, sync, typing, room, _folder: folder };
        world.send(member("bob", "join"));
        world
    }

    fn send(&self, draft: EventDraft) {
        let (writer, room) = (self.writer.clone(), self.room.clone());
        let sent =
            self.database.write("send", move |txn| writer.send(txn, &room, draft, None, at(5)));
        self.clock.pump();
        success_result_of(sent);
    }

    fn say(&self, body: &str) {
        self.send(message("alice", body));
    }

    fn request(&self, name: &str, since: Option<StreamToken>, timeout: Duration) -> SyncRequest {
        SyncRequest {
            user_id: user(name),
            device_id: Some("DEVICE".into()),
            since,
            filter: Arc::default(),
            full_state: false,
            block: StateBlock::default(),
            timeout,
        }
    }

    fn start(&self, request: SyncRequest) -> Deferred<Bytes> {
        let sync = self.sync.clone();
        let started = self.clock.reactor().spawn(async move { sync.sync(request).await });
        self.clock.pump();
        started
    }

    fn poll(&self, name: &str, since: StreamToken) -> Deferred<Bytes> {
        self.start(self.request(name, Some(since), LONG))
    }

    /// Asks without waiting.
    fn now(&self, name: &str, since: Option<StreamToken>) -> (Value, StreamToken) {
        read(self.start(self.request(name, since, Duration::ZERO)))
    }
}

fn member(name: &str, membership: &str) -> EventDraft {
    let content = object(json!({"membership": membership}));
    EventDraft::state(user(name), "m.room.member", user(name), content)
}

fn read(answer: Deferred<Bytes>) -> (Value, StreamToken) {
    let body: Value = serde_json::from_slice(&success_result_of(answer)).unwrap();
    let next = body["next_batch"].as_str().unwrap().parse().unwrap();
    (body, next)
}

#[test]
fn a_message_wakes_who_waits_in_its_room_and_nobody_else() {
    let world = World::new();
    let (_, bob) = world.now("bob", None);
    let (_, carol) = world.now("carol", None);
    let waiting = world.poll("bob", bob);
    let outside = world.poll("carol", carol);
    assert_no_result(&waiting);
    world.say("hello");
    let (body, next) = read(waiting);
    assert_eq!(bodies(&joined(&body, &world.room)["timeline"]["events"]), ["hello"]);
    assert_no_result(&outside);
    let waiting = world.poll("bob", next);
    assert_no_result(&waiting);
    world.clock.advance(LONG);
    read(waiting);
    read(outside);
}

#[test]
fn silence_is_answered_at_the_deadline_and_not_before() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    let waiting = world.poll("bob", since);
    world.clock.advance(LONG - Duration::from_millis(1));
    assert_no_result(&waiting);
    world.clock.advance(Duration::from_millis(1));
    let (body, next) = read(waiting);
    assert_eq!(body["rooms"], Value::Null);
    assert!(next.covers(&since));
    assert_eq!(world.clock.pending_calls(), 0, "no timer is left");
    assert_eq!(world.clock.pending_tasks(), 0);
}

#[test]
fn news_between_two_polls_is_there_at_once() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    world.say("missed");
    let (body, _) = read(world.poll("bob", since));
    assert_eq!(bodies(&joined(&body, &world.room)["timeline"]["events"]), ["missed"]);
}

#[test]
fn news_that_comes_while_the_database_is_asked_is_not_lost() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    // News that turns out empty for bob makes his poll look; a message comes during the look.
    let sync = world.sync.clone();
    let mut request = world.request("bob", Some(since), LONG);
    request.filter = filter(json!({"room": {"timeline": {"not_types": ["m.room.topic"]},
        "state": {"types": []}}}));
    let waiting = world.clock.reactor().spawn(async move { sync.sync(request).await });
    let topic = |topic: &str| {
        EventDraft::state(user("alice"), "m.room.topic", "", object(json!({"topic": topic})))
    };
    // Both are under way at once: the write of the message is announced while the read runs.
    let (writer, room) = (world.writer.clone(), world.room.clone());
    let first = world.database.write("send", {
        let (writer, room) = (writer.clone(), room.clone());
        let topic = topic("hidden");
        move |txn| writer.send(txn, &room, topic, None, at(6))
    });
    world.clock.pump();
    let second = world
        .database
        .write("send", move |txn| writer.send(txn, &room, message("alice", "seen"), None, at(7)));
    world.clock.pump();
    success_result_of(first);
    success_result_of(second);
    let (body, _) = read(waiting);
    assert_eq!(bodies(&joined(&body, &world.room)["timeline"]["events"]), ["seen"]);
}

#[test]
fn what_the_filter_hides_wakes_nobody_for_good() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    let mut request = world.request("bob", Some(since), LONG);
    request.filter = filter(json!({"room": {"timeline": {"types": ["m.room.name"]}}}));
    let waiting = world.start(request);
    world.say("hidden");
    assert_no_result(&waiting);
    world.clock.advance(LONG);
    let (body, next) = read(waiting);
    assert_eq!(body["rooms"], Value::Null);
    assert!(next != since, "it need not be looked at again");
}

#[test]
fn joining_typing_receipts_and_account_data_wake_too() {
    let world = World::new();
    let (_, mut since) = world.now("carol", None);
    let waiting = world.poll("carol", since);
    world.send(member("carol", "join"));
    let (body, next) = read(waiting);
    assert!(joined(&body, &world.room).is_object());
    since = next;

    let waiting = world.poll("carol", since);
    let (typing, room) = (world.typing.clone(), world.room.clone());
    let typed = world.clock.reactor().spawn(async move {
        let alice = user_id!("@alice:domain");
        typing.set(alice, alice, &room, Some(LONG)).await
    });
    world.clock.pump();
    success_result_of(typed);
    let (body, next) = read(waiting);
    let event = &joined(&body, &world.room)["ephemeral"]["events"][0];
    assert_eq!(event["content"]["user_ids"], json!(["@alice:domain"]));
    since = next;

    let waiting = world.poll("carol", since);
    let room = world.room.clone();
    let read_event = world.database.write("receipt", move |txn| {
        let event = ruma::event_id!("$e");
        receipts::set(txn, &room, "m.read", user_id!("@alice:domain"), "", event, 1)
    });
    world.clock.pump();
    success_result_of(read_event);
    let (body, next) = read(waiting);
    assert_eq!(joined(&body, &world.room)["ephemeral"]["events"][0]["type"], "m.receipt");
    since = next;

    let waiting = world.poll("carol", since);
    let set = world.database.write("account data", |txn| {
        account_data::set(txn, user_id!("@carol:domain"), None, "m.direct", "{}")
    });
    world.clock.pump();
    success_result_of(set);
    let (body, _) = read(waiting);
    assert_eq!(body["account_data"]["events"][0]["type"], "m.direct");
}

#[test]
fn after_joining_the_rooms_messages_wake() {
    let world = World::new();
    let (_, since) = world.now("carol", None);
    world.send(member("carol", "join"));
    let (_, since) = world.now("carol", Some(since));
    let waiting = world.poll("carol", since);
    assert_no_result(&waiting);
    world.say("welcome");
    read(waiting);
    world.send(member("carol", "leave"));
    let (body, since) = world.now("carol", Some(since));
    assert!(body["rooms"]["leave"].is_object());
    let waiting = world.poll("carol", since);
    world.say("gone");
    assert_no_result(&waiting);
    world.clock.advance(LONG);
    read(waiting);
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    let waiting = world.poll("bob", since);
    waiting.cancel();
    world.clock.pump();
    assert!(failure_result_of(waiting).is::<CancelledError>());
    world.clock.pump();
    assert_eq!(world.clock.pending_calls(), 0, "its timer is gone");
    assert_eq!(world.clock.pending_tasks(), 0, "its task is gone");
    world.say("nobody hears");
    assert!(LogContext::current().name() == LogContext::sentinel().name());
}

#[test]
fn the_same_question_twice_is_answered_once() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    let first = world.poll("bob", since);
    let second = world.poll("bob", since);
    assert_eq!(world.clock.pending_calls(), 1, "they wait together");
    // One of them going away does not disturb the other.
    first.cancel();
    world.clock.pump();
    assert!(failure_result_of(first).is::<CancelledError>());
    world.say("hello");
    let (body, _) = read(second);
    assert_eq!(bodies(&joined(&body, &world.room)["timeline"]["events"]), ["hello"]);
}

#[test]
fn shutdown_answers_everybody_at_once() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    let waiting = world.poll("bob", since);
    world.sync.stop_waiting();
    world.clock.pump();
    let (body, next) = read(waiting);
    assert_eq!(body["rooms"], Value::Null);
    assert!(next.covers(&since));
    // And nobody waits from then on.
    read(world.poll("bob", next));
}

#[test]
fn an_empty_sync_does_not_ask_the_database() {
    let world = World::new();
    let (_, since) = world.now("bob", None);
    world.say("x");
    let (_, since) = world.now("bob", Some(since));
    let context = LogContext::new("test");
    let answer = context.run(|| world.start(world.request("bob", Some(since), Duration::ZERO)));
    let (body, next) = read(answer);
    assert_eq!(body["rooms"], Value::Null);
    assert!(next.covers(&since));
    assert_eq!(context.usage().db_transactions, 0);
    let context = LogContext::new("test");
    let waiting = context.run(|| world.poll("bob", next));
    world.clock.advance(LONG);
    read(waiting);
    assert_eq!(context.usage().db_transactions, 0, "nor does a long poll");
}

#[test]
fn a_stored_filter_is_found_and_an_unknown_one_refused() {
    use ruma::api::client::sync::sync_events::v3::Filter;
    let world = World::new();
    let stored = world.database.write("filter", |txn| {
        let filter = r#"{"room":{"timeline":{"limit":7}}}"#;
        crate::storage::databases::main::filters::insert(txn, user_id!("@bob:domain"), filter)
    });
    world.clock.pump();
    let number = success_result_of(stored).unwrap();
    let find = |name: &str, filter: String| {
        let (sync, user_id) = (world.sync.clone(), user(name));
        let found = world
            .clock
            .reactor()
            .spawn(async move { sync.filter(&user_id, Some(Filter::FilterId(filter))).await });
        world.clock.pump();
        found
    };
    let found = success_result_of(find("bob", number.to_string()));
    assert_eq!(found.timeline_limit(), 7);
    for (name, id) in [("bob", "99"), ("bob", "x"), ("alice", "0")] {
        let refused = failure_result_of(find(name, id.to_owned()));
        assert!(refused.to_string().contains("M_INVALID_PARAM"), "{name} {id}: {refused}");
    }
}

/// Everything in an answer but the ages of events, which are those of the moment.
fn without_ages(body: &Value) -> Value {
    let text = body.to_string();
    let mut parts = text.split("\"age\":");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    Value::String(kept)
}

#[test]
fn an_answer_from_memory_is_the_one_that_the_database_gives() {
    let state = |event_type: &str, content: Value| {
        EventDraft::state(user("alice"), event_type, "", object(content))
    };
    let steps: Vec<(&str, Vec<EventDraft>)> = vec![
        ("a message", vec![message("alice", "1")]),
        ("two", vec![message("alice", "2"), message("bob", "3")]),
        ("state", vec![state("m.room.topic", json!({"topic": "a"})), message("bob", "4")]),
        (
            "the same entry twice",
            vec![
                state("m.room.topic", json!({"topic": "b"})),
                state("m.room.topic", json!({"topic": "c"})),
            ],
        ),
        ("a member", vec![member("carol", "join"), message("carol", "5")]),
        ("more than fits", (0..12).map(|number| message("alice", &number.to_string())).collect()),
        ("a member goes", vec![member("carol", "leave")]),
        ("a message again", vec![message("alice", "6")]),
    ];
    let filters = [
        json!({}),
        json!({"room": {"state": {"lazy_load_members": true}}}),
        json!({"room": {"timeline": {"types": ["m.room.message"]}}}),
        json!({"room": {"timeline": {"senders": ["@alice:domain"], "limit": 2}}}),
        json!({"room": {"ephemeral": {"types": ["m.typing"]}, "state": {"types": []}}}),
        json!({"event_fields": ["type", "content.body"]}),
    ];
    for definition in filters {
        for block in [StateBlock::BeforeTimeline, StateBlock::AfterTimeline] {
            let world = World::new();
            // A second pair of eyes that remembers nothing: it asks the database each time.
            let asks_anew = || {
                ClientSync::new(
                    world.clock.reactor(),
                    world.database.clone(),
                    world.typing.clone(),
                    RepeatedRequests::Answer,
                )
            };
            let request = |since| SyncRequest {
                filter: filter(definition.clone()),
                block,
                ..world.request("bob", since, Duration::ZERO)
            };
            let (_, mut since) = read(world.start(request(None)));
            for (why, drafts) in &steps {
                for draft in drafts {
                    world.send(draft.clone());
                }
                let room = world.room.clone();
                let receipt = world.database.write("receipt", move |txn| {
                    let event = ruma::event_id!("$e");
                    let alice = user_id!("@alice:domain");
                    receipts::set(txn, &room, "m.read.private", alice, "", event, 1)?;
                    receipts::set(txn, &room, "m.read", alice, "", event, 2)?;
                    receipts::set(txn, &room, "m.read", alice, "", ruma::event_id!("$f"), 3)
                });
                world.clock.pump();
                success_result_of(receipt);
                let answer = world.start(request(Some(since)));
                let (anew, asked) = (asks_anew(), request(Some(since)));
                let expected = world.clock.reactor().spawn(async move { anew.sync(asked).await });
                world.clock.pump();
                let ((body, next), (expected, _)) = (read(answer), read(expected));
                // With lazy loading the one that remembers leaves out what it has sent.
                if definition["room"]["state"]["lazy_load_members"] != true {
                    assert_eq!(without_ages(&body), without_ages(&expected), "{why}: {definition}");
                }
                let timeline = |body: &Value| without_ages(&joined(body, &world.room)["timeline"]);
                assert_eq!(timeline(&body), timeline(&expected), "{why}: {definition}");
                since = next;
            }
        }
    }
}

#[test]
fn many_members_of_a_room_are_answered_by_one_look_into_the_database() {
    let world = World::new();
    let names: Vec<String> = (0..50).map(|number| format!("member{number}")).collect();
    let mut tokens = Vec::new();
    for name in &names {
        world.send(member(name, "join"));
    }
    // Somebody else has spoken since each came, so that all know by which rules to count.
    world.say("welcome");
    for name in &names {
        tokens.push(world.now(name, None).1);
    }
    let contexts: Vec<LogContext> =
        names.iter().map(|name| LogContext::new(name.as_str())).collect();
    for round in 0..3 {
        let polls: Vec<Deferred<Bytes>> = names
            .iter()
            .zip(&tokens)
            .zip(&contexts)
            .map(|((name, since), context)| context.run(|| world.poll(name, *since)))
            .collect();
        world.say(&format!("round {round}"));
        tokens = polls
            .into_iter()
            .map(|poll| {
                let (body, next) = read(poll);
                let events = &joined(&body, &world.room)["timeline"]["events"];
                assert_eq!(bodies(events), [format!("round {round}")]);
                next
            })
            .collect();
    }
    let reads: u64 = contexts.iter().map(|context| context.usage().db_transactions).sum();
    assert_eq!(reads, 3, "one for each message");
}
