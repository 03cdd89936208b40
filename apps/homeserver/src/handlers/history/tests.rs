//! Pages, contexts and members of real rooms.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedRoomId, RoomId, event_id, room_id};
use serde_json::{Value, json};

use super::*;
use crate::events::tests::forks;
use crate::events::tests::rooms::{Server, user};
use crate::model::RoomVersion;

struct World {
    server: Server,
    caches: ReadCaches,
    room: OwnedRoomId,
}

impl World {
    fn new() -> Self {
        let mut server = Server::new();
        let room = server.room(RoomVersion::DEFAULT);
        Self { server, caches: ReadCaches::default(), room }
    }

    fn say_many(&mut self, count: usize) {
        for number in 1..=count {
            self.say(&number.to_string());
        }
    }

    fn say(&mut self, body: &str) -> OwnedEventId {
        self.server.say(&self.room, "alice", body).unwrap().event_id
    }

    fn join(&mut self, name: &str) {
        self.server.member(&self.room, name, name, "join").unwrap();
    }

    fn hide_history(&mut self) {
        let content = json!({"history_visibility": "joined"});
        self.server.state(&self.room, "alice", "m.room.history_visibility", content).unwrap();
    }

    fn view(
        &self,
        name: &str,
        room_id: &RoomId,
        f: impl FnOnce(&View<'_, '_>) -> Result<Vec<u8>, Failure>,
    ) -> Result<Value, String> {
        let reader =
            Reader { user_id: user(name), device_id: "D".into(), room_id: room_id.to_owned() };
        let answer =
            self.server.database.read(|txn| f(&View::new(txn, &self.caches, &reader, 1_000_000)?));
        match answer {
            Ok(body) => Ok(serde_json::from_slice(&body).expect("JSON")),
            Err(failure) => {
                let refusal = failure.downcast_ref::<Refusal>().expect("a refusal").to_string();
                Err(refusal.split(':').next().unwrap_or_default().to_owned())
            }
        }
    }

    fn page(&self, name: &str, request: &PageRequest) -> Result<Value, String> {
        self.view(name, &self.room, |view| view.page(request))
    }

    /// Walks from one end to the other; returns the ids in the order of the walk.
    fn walk(&self, name: &str, mut request: PageRequest) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let page = self.page(name, &request).unwrap();
            let chunk = page["chunk"].as_array().unwrap();
            assert!(chunk.len() <= request.limit, "no more than was asked for");
            seen.extend(chunk.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()));
            let Some(end) = page["end"].as_str() else { return seen };
            let end = Some(end.parse().expect("a token"));
            assert_ne!(end, request.from, "the walk moves on");
            request.from = end;
        }
    }
}

fn request(direction: Direction, limit: usize) -> PageRequest {
    PageRequest {
        direction,
        from: None,
        to: None,
        limit,
        filter: EventFilter::default(),
        members: Members::All,
    }
}

fn filter(definition: Value) -> EventFilter {
    let definition: ruma::api::client::filter::RoomEventFilter =
        serde_json::from_value(definition).unwrap();
    (&definition).into()
}

fn bodies(events: &Value) -> Vec<&str> {
    events
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["content"]["body"].as_str())
        .collect()
}

#[test]
fn a_walk_meets_every_event_once_both_ways_in_steps_of_any_size() {
    let mut world = World::new();
    world.say_many(20);
    let forwards: Vec<String> =
        world.server.timeline(&world.room).iter().map(ToString::to_string).collect();
    let backwards: Vec<String> = forwards.iter().rev().cloned().collect();
    for limit in [1, 2, 3, 7, 24, 25, 26, 100] {
        let walked = world.walk("alice", request(Direction::Backward, limit));
        assert_eq!(walked, backwards, "backwards, {limit} at once");
        let walked = world.walk("alice", request(Direction::Forward, limit));
        assert_eq!(walked, forwards, "forwards, {limit} at once");
    }
}

#[test]
fn a_page_turns_around_at_its_own_tokens() {
    let mut world = World::new();
    world.say_many(10);
    let back = world.page("alice", &request(Direction::Backward, 4)).unwrap();
    assert_eq!(bodies(&back["chunk"]), ["10", "9", "8", "7"]);
    let token = |page: &Value, name: &str| Some(page[name].as_str().unwrap().parse().unwrap());
    let forth = PageRequest { from: token(&back, "end"), ..request(Direction::Forward, 100) };
    let page = world.page("alice", &forth).unwrap();
    assert_eq!(bodies(&page["chunk"]), ["7", "8", "9", "10"]);
    assert_eq!(page["start"], back["end"]);
    assert_eq!(page["end"], Value::Null, "there is no more");

    // A token of /sync is a place in the order of arrival.
    let eleventh = world.say("11");
    let live = Some(RoomPlace::Live { stream: world.server.row(&eleventh).key.0 - 1 });
    let page = world.page("alice", &PageRequest { from: live, ..request(Direction::Forward, 5) });
    assert_eq!(bodies(&page.unwrap()["chunk"]), ["11"]);
    let page = world.page("alice", &PageRequest { from: live, ..request(Direction::Backward, 2) });
    assert_eq!(bodies(&page.unwrap()["chunk"]), ["10", "9"]);
}

#[test]
fn a_page_stops_where_it_is_told_to() {
    let mut world = World::new();
    world.say_many(10);
    let end_of = |count: usize| {
        let page = world.page("alice", &request(Direction::Backward, count)).unwrap();
        page["end"].as_str().unwrap().parse::<RoomPlace>().unwrap()
    };
    let (seventh, fourth) = (end_of(3), end_of(6));
    let back =
        PageRequest { from: Some(seventh), to: Some(fourth), ..request(Direction::Backward, 100) };
    let page = world.page("alice", &back).unwrap();
    assert_eq!(bodies(&page["chunk"]), ["7", "6", "5"]);
    assert_eq!(page["end"], Value::Null);
    let forth =
        PageRequest { from: Some(fourth), to: Some(seventh), ..request(Direction::Forward, 100) };
    assert_eq!(bodies(&world.page("alice", &forth).unwrap()["chunk"]), ["5", "6", "7"]);
}

#[test]
fn filters_hold_in_pages_and_a_sparse_walk_ends() {
    let mut world = World::new();
    world.join("bob");
    world.say_many(40);
    world.server.say(&world.room, "bob", "bob's").unwrap();
    world.say_many(40);
    let sparse = PageRequest {
        filter: filter(json!({"senders": ["@bob:domain"], "types": ["m.room.message"]})),
        ..request(Direction::Backward, 1)
    };
    assert_eq!(world.walk("alice", sparse.clone()).len(), 1);
    let none = PageRequest { filter: filter(json!({"types": ["nothing"]})), ..sparse };
    let page = world.page("alice", &none).unwrap();
    assert_eq!(page["chunk"], json!([]));
    assert_eq!(page["end"], Value::Null);
    let nothing = world.page("alice", &request(Direction::Backward, 0)).unwrap();
    assert_eq!(nothing["chunk"], json!([]));
    assert!(nothing["end"].is_string(), "a page of nothing is not the end");
}

#[test]
fn members_come_along_when_loaded_lazily() {
    let mut world = World::new();
    world.join("bob");
    world.join("carol");
    world.say_many(3);
    let lazy = PageRequest { members: Members::Lazy, ..request(Direction::Backward, 2) };
    let page = world.page("alice", &lazy).unwrap();
    let state = page["state"].as_array().unwrap();
    assert_eq!(state.len(), 1);
    assert_eq!(state[0]["state_key"], "@alice:domain");
    assert_eq!(state[0]["room_id"], world.room.as_str());
    let page = world.page("alice", &request(Direction::Backward, 2)).unwrap();
    assert_eq!(page["state"], Value::Null);
}

#[test]
fn who_may_look_into_a_room() {
    let mut world = World::new();
    world.say("before");
    world.join("bob");
    world.say("with bob");
    world.server.member(&world.room, "bob", "bob", "leave").unwrap();
    world.say("after");
    world.server.member(&world.room, "alice", "carol", "invite").unwrap();
    world.server.member(&world.room, "alice", "dave", "ban").unwrap();

    let back = request(Direction::Backward, 100);
    let page = world.page("bob", &back).unwrap();
    assert_eq!(bodies(&page["chunk"]), ["with bob", "before"], "up to where he left");
    assert_eq!(page["chunk"][0]["type"], "m.room.member", "his leaving");
    for name in ["carol", "dave", "erin"] {
        assert_eq!(world.page(name, &back).unwrap_err(), "M_FORBIDDEN", "{name}");
    }
    let elsewhere = world.view("alice", room_id!("!none:domain"), |view| view.page(&back));
    assert_eq!(elsewhere.unwrap_err(), "M_FORBIDDEN", "no such room");

    let content = json!({"history_visibility": "world_readable"});
    world.server.state(&world.room, "alice", "m.room.history_visibility", content).unwrap();
    world.say("open");
    let page = world.page("erin", &back).unwrap();
    assert_eq!(bodies(&page["chunk"]), ["open"], "only from then on");
}

#[test]
fn hidden_history_is_walked_over() {
    let mut world = World::new();
    world.hide_history();
    world.say_many(60);
    world.join("bob");
    world.say("seen");
    let walked = world.walk("bob", request(Direction::Backward, 10));
    // His joining, the message, and everything before the history was hidden.
    let all: BTreeSet<&String> = walked.iter().collect();
    assert_eq!(all.len(), walked.len());
    assert_eq!(walked.len(), 2 + 6, "the change of the setting may be seen, too");
}

#[test]
fn a_context_has_both_sides_and_the_state() {
    let mut world = World::new();
    world.join("bob");
    for number in 1..=4 {
        world.say(&number.to_string());
    }
    let event = world.say("here");
    for number in 5..=9 {
        world.say(&number.to_string());
    }
    let context = |name: &str, limit, members| {
        world.view(name, &world.room, |view| {
            view.context(&event, limit, &EventFilter::default(), members)
        })
    };
    let found = context("bob", 5, Members::All).unwrap();
    assert_eq!(found["event"]["content"]["body"], "here");
    assert_eq!(found["event"]["room_id"], world.room.as_str());
    assert_eq!(bodies(&found["events_before"]), ["4", "3"], "newest first");
    assert_eq!(bodies(&found["events_after"]), ["5", "6", "7"]);
    assert_eq!(found["state"].as_array().unwrap().len(), 6);
    for (token, direction, expected) in
        [("start", Direction::Backward, "2"), ("end", Direction::Forward, "8")]
    {
        let from = Some(found[token].as_str().unwrap().parse().unwrap());
        let page = world.page("bob", &PageRequest { from, ..request(direction, 1) }).unwrap();
        assert_eq!(bodies(&page["chunk"]), [expected], "{token} goes on");
    }
    let lazy = context("bob", 5, Members::Lazy).unwrap();
    assert_eq!(lazy["state"].as_array().unwrap().len(), 5, "only alice's member event");
    let alone = context("bob", 0, Members::All).unwrap();
    assert_eq!(alone["events_before"], json!([]));
    assert_eq!(alone["events_after"], json!([]));
    assert!(alone["start"].is_string() && alone["end"].is_string());
}

#[test]
fn an_event_is_shown_only_to_who_may_see_it_and_only_in_its_room() {
    let mut world = World::new();
    world.hide_history();
    let hidden = world.say("hidden");
    world.join("bob");
    let shown = world.say("shown");
    let other = world.server.room(RoomVersion::V11);
    let event = |name: &str, room_id: &RoomId, event_id: &OwnedEventId| {
        world.view(name, room_id, |view| view.event(event_id))
    };
    assert_eq!(event("bob", &world.room, &shown).unwrap()["content"]["body"], "shown");
    assert_eq!(event("alice", &world.room, &hidden).unwrap()["content"]["body"], "hidden");
    assert_eq!(event("bob", &world.room, &hidden).unwrap_err(), "M_FORBIDDEN");
    assert_eq!(event("alice", &other, &shown).unwrap_err(), "M_NOT_FOUND", "another room's");
    let unknown = event_id!("$unknown").to_owned();
    assert_eq!(event("alice", &world.room, &unknown).unwrap_err(), "M_NOT_FOUND");
    assert_eq!(event("erin", &world.room, &shown).unwrap_err(), "M_FORBIDDEN");
}

/// Two branches from one event, grown by turns and joined by alice.
fn forked() -> World {
    let mut server = Server::new();
    let room = forks::shared_room(&mut server, RoomVersion::V11);
    let fork = server.tip(&room);
    let (mut one, mut two) = (fork.clone(), fork);
    for _ in 0..4 {
        one = server.accept(&room, forks::message("alice"), &[&one]);
        two = server.accept(&room, forks::topic("bob:other", "his"), &[&two]);
        two = server.accept(&room, forks::message("bob:other"), &[&two]);
    }
    server.say(&room, "alice", "joined").unwrap();
    World { server, caches: ReadCaches::default(), room }
}

#[test]
fn forks_are_walked_once_and_in_one_order() {
    let world = forked();
    let all: BTreeSet<String> =
        world.server.timeline(&world.room).iter().map(ToString::to_string).collect();
    let mut orders = BTreeSet::new();
    for limit in [1, 2, 5, 100] {
        let mut backwards = world.walk("alice", request(Direction::Backward, limit));
        backwards.reverse();
        orders.insert(backwards);
        orders.insert(world.walk("alice", request(Direction::Forward, limit)));
    }
    assert_eq!(orders.len(), 1, "whichever way and in whatever steps");
    let order = orders.pop_first().unwrap();
    assert_eq!(order.len(), all.len());
    assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn paging_goes_on_where_a_first_sync_began() {
    use crate::handlers::sync::tests::world::Device;
    for limit in [1, 3, 6, 11] {
        let world = forked();
        let filter = json!({"room": {"timeline": {"limit": limit}}});
        let (body, _) = Device::new("alice").with_filter(filter).ask(&world.server);
        let timeline = &body["rooms"]["join"][world.room.as_str()]["timeline"];
        let ids = timeline["events"].as_array().unwrap().iter();
        let mut seen: Vec<String> =
            ids.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(seen.len(), limit);
        let from = Some(timeline["prev_batch"].as_str().unwrap().parse().unwrap());
        let back = PageRequest { from, ..request(Direction::Backward, 4) };
        seen.extend(world.walk("alice", back));
        let all: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(all.len(), seen.len(), "none twice");
        assert_eq!(seen.len(), world.server.timeline(&world.room).len(), "none missing");
    }
}
