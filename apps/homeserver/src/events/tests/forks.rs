//! Events received from elsewhere: verdicts, forks, and the state that several branches resolve to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use ruma::{EventId, OwnedEventId, RoomId};
use serde_json::{Value, json};

use super::rooms::{Server, at, object, signer, user};
use crate::events::{Received, WriteError};
use crate::model::auth::select_auth_events;
use crate::model::resolve::{self, Fork};
use crate::model::{EventDraft, Pdu, Place, RoomVersion, StateMap};
use crate::storage::controllers::load;
use crate::storage::controllers::persist::{Arrival, Origin, PersistEventsStore, Verdict};
use crate::storage::databases::main::{current_state, events, graph, memberships};
use crate::storage::databases::state::groups;
use crate::storage::engine::params;

impl Server {
    /// The state after an event, by ids.
    fn state_after(&self, event_id: &EventId) -> StateMap {
        let group = self.row(event_id).state_after.expect("not an outlier");
        self.read(|txn| {
            let mut state = StateMap::new();
            for (kind, key, &event) in groups::entries(txn, group)?.iter() {
                state.insert(kind, key, events::event_id(txn, event)?);
            }
            Ok(state)
        })
    }

    fn current_state(&self, room_id: &RoomId) -> StateMap {
        let room = self.find_room(room_id);
        self.read(|txn| {
            let mut state = StateMap::new();
            for (kind, key, &event) in current_state::entries(txn, room.key)?.iter() {
                state.insert(kind, key, events::event_id(txn, event)?);
            }
            Ok(state)
        })
    }

    /// Makes an event as another server would, on top of `prev`, by the state that is known there.
    fn foreign(&self, room_id: &RoomId, draft: EventDraft, prev: &[&EventId]) -> Arc<Pdu> {
        let version = self.find_room(room_id).version;
        let state = self.state_after(prev[0]);
        let auth_events = select_auth_events(
            version,
            &draft.event_type,
            &draft.sender,
            draft.state_key.as_deref(),
            &draft.raw_content().unwrap(),
            |kind, key| state.get(kind, key).cloned(),
        )
        .unwrap();
        let depth = prev.iter().map(|id| self.row(id).depth).max().unwrap() + 1;
        let place = Place {
            room_id: room_id.to_owned(),
            prev_events: prev.iter().map(|&id| id.to_owned()).collect(),
            auth_events,
            depth: depth.try_into().unwrap(),
            origin_server_ts: at(1000 + u32::try_from(depth).unwrap()),
        };
        let signer = signer(draft.sender.server_name().as_str());
        Arc::new(signer.sign(version, draft, place).expect("an event"))
    }

    fn receive(&mut self, pdu: &Arc<Pdu>) -> Result<Received, WriteError> {
        let (writer, pdu) = (self.writer.clone(), pdu.clone());
        self.database.write(move |txn| writer.receive(txn, pdu, at(5)))
    }

    /// Makes and receives an event that must be accepted.
    pub(crate) fn accept(
        &mut self,
        room_id: &RoomId,
        draft: EventDraft,
        prev: &[&EventId],
    ) -> OwnedEventId {
        let pdu = self.foreign(room_id, draft, prev);
        let received = self.receive(&pdu).expect("its references are known");
        assert!(matches!(received, Received::Accepted(_)), "{received:?}");
        pdu.event_id().to_owned()
    }

    pub(crate) fn tip(&self, room_id: &RoomId) -> OwnedEventId {
        let [tip] = &self.tips(room_id)[..] else { panic!("several tips") };
        tip.clone()
    }
}

fn state(sender: &str, kind: &str, key: &str, content: Value) -> EventDraft {
    EventDraft::state(user(sender), kind, key, object(content))
}

fn member(sender: &str, target: &str, membership: &str) -> EventDraft {
    state(sender, "m.room.member", user(target).as_str(), json!({"membership": membership}))
}

pub(crate) fn topic(sender: &str, topic: &str) -> EventDraft {
    state(sender, "m.room.topic", "", json!({"topic": topic}))
}

pub(crate) fn message(sender: &str) -> EventDraft {
    EventDraft::message(user(sender), "m.room.message", object(json!({"body": "x"})))
}

/// A room of alice's in which bob, of another server, may do as much as she.
pub(crate) fn shared_room(server: &mut Server, version: RoomVersion) -> ruma::OwnedRoomId {
    let room = server.room(version);
    let tip = server.tip(&room);
    server.accept(&room, member("bob:other", "bob:other", "join"), &[&tip]);
    let mut levels = json!({"users": {"@bob:other": 90}});
    if !version.creators_are_privileged() {
        levels["users"]["@alice:domain"] = 100.into();
    }
    server.state(&room, "alice", "m.room.power_levels", levels).unwrap();
    room
}

#[test]
fn the_next_event_moves_the_head() {
    for version in RoomVersion::ALL {
        let mut server = Server::new();
        let room = shared_room(&mut server, version);
        let tip = server.tip(&room);
        let pdu = server.foreign(&room, topic("bob:other", "hello"), &[&tip]);
        let received = server.receive(&pdu).unwrap();
        let Received::Accepted(key) = received else { panic!("{received:?}") };
        assert_eq!(server.tips(&room), [pdu.event_id()]);
        assert_eq!(server.current(&room, "m.room.topic", "").as_deref(), Some(pdu.event_id()));
        assert_eq!(server.receive(&pdu).unwrap(), Received::Known(key));
        let answer = server.say(&room, "alice", "hello bob").unwrap();
        assert!(server.row(&answer.event_id).json.contains(pdu.event_id().as_str()));
    }
}

#[test]
fn branches_resolve_as_the_model_says_and_the_next_event_joins_them() {
    for version in [RoomVersion::V6, RoomVersion::V10, RoomVersion::V11, RoomVersion::V12] {
        let mut server = Server::new();
        let room = shared_room(&mut server, version);
        let fork = server.tip(&room);
        let one = server.accept(&room, topic("alice", "hers"), &[&fork]);
        let one = server.accept(&room, state("alice", "m.room.name", "", json!({})), &[&one]);
        let two = server.accept(&room, topic("bob:other", "his"), &[&fork]);
        let two = server.accept(&room, member("carol:third", "carol:third", "join"), &[&two]);
        assert_eq!(server.tips(&room).len(), 2, "{version}");

        let event_by_id = |id: &EventId| -> Result<_, crate::storage::StorageError> {
            Ok(server.read(|txn| load::find(txn, id)).map(|event| event.pdu))
        };
        let forks = [&one, &two].map(|tip| {
            let state = server.state_after(tip);
            let auth_chain =
                resolve::auth_chain(state.values().cloned(), event_by_id).expect("all are there");
            Fork { state, auth_chain }
        });
        let expected = resolve::resolve(version, &forks, event_by_id).expect("a state");
        assert_eq!(server.current_state(&room), expected, "{version}");
        let carol = user("carol:third");
        assert!(expected.get("m.room.member", carol.as_str()).is_some(), "{version}");

        let joined = server.say(&room, "alice", "again").unwrap();
        assert_eq!(server.tips(&room), std::slice::from_ref(&joined.event_id));
        assert_eq!(server.state_after(&joined.event_id), expected, "{version}");
        let json = server.row(&joined.event_id).json;
        assert!(json.contains(one.as_str()) && json.contains(two.as_str()), "{json}");
    }
}

#[test]
fn what_the_past_allows_and_the_present_does_not_is_soft_failed() {
    let mut server = Server::new();
    let room = shared_room(&mut server, RoomVersion::V11);
    let before = server.tip(&room);
    server.member(&room, "alice", "bob:other", "ban").unwrap();
    let late = server.foreign(&room, topic("bob:other", "late"), &[&before]);
    let received = server.receive(&late).unwrap();
    assert!(matches!(received, Received::SoftFailed(..)), "{received:?}");
    assert!(!server.timeline(&room).iter().any(|id| id == late.event_id()));
    assert!(!server.tips(&room).iter().any(|id| id == late.event_id()));
    assert_eq!(server.current(&room, "m.room.topic", ""), None);
    let row = server.row(late.event_id());
    assert!(row.soft_failed);
    assert_ne!(row.state_before, row.state_after, "it counts on its own branch");

    // Others may build on it; what it followed is then passed by, too.
    let tip = server.tip(&room);
    let onward = server.accept(&room, message("alice"), &[&tip, late.event_id()]);
    assert_eq!(server.tips(&room), [onward]);
}

#[test]
fn what_is_against_the_rules_is_rejected_and_can_be_built_on() {
    let mut server = Server::new();
    let room = shared_room(&mut server, RoomVersion::V12);
    let tip = server.tip(&room);
    for (why, draft) in [
        (
            "escalation",
            state("bob:other", "m.room.power_levels", "", json!({"users": {"@bob:other": 91}})),
        ),
        ("a stranger", message("mallory:other")),
        ("a forged membership", member("bob:other", "dave:domain", "join")),
        ("a ban of the creator", member("bob:other", "alice", "ban")),
        ("somebody else's state key", state("bob:other", "m.x", "@alice:domain", json!({}))),
    ] {
        let pdu = server.foreign(&room, draft, &[&tip]);
        let received = server.receive(&pdu).unwrap();
        assert!(matches!(received, Received::Rejected(..)), "{why}: {received:?}");
        let row = server.row(pdu.event_id());
        assert!(row.rejected.is_some(), "{why}");
        assert_eq!(row.state_before, row.state_after, "{why}");
        assert_eq!(server.tips(&room), std::slice::from_ref(&tip), "{why}");
        assert!(matches!(server.receive(&pdu).unwrap(), Received::Known(_)), "{why}");
    }
    let rejected = server.foreign(&room, message("mallory:other"), &[&tip]);
    let on_top = server.accept(&room, message("bob:other"), &[rejected.event_id()]);
    assert_eq!(server.tips(&room), [on_top], "the tip was passed by through the rejected event");
    assert_eq!(server.timeline(&room).len(), 8);
}

#[test]
fn an_event_that_leans_on_a_rejected_one_is_rejected() {
    let mut server = Server::new();
    let room = shared_room(&mut server, RoomVersion::V11);
    let tip = server.tip(&room);
    let levels = json!({"users": {"@bob:other": 100}});
    let bad = server.foreign(&room, state("bob:other", "m.room.power_levels", "", levels), &[&tip]);
    assert!(matches!(server.receive(&bad).unwrap(), Received::Rejected(..)));
    let good = server.foreign(&room, topic("bob:other", "x"), &[&tip]);
    let text = good.json().replace(
        server.current(&room, "m.room.power_levels", "").unwrap().as_str(),
        bad.event_id().as_str(),
    );
    let leaning = Arc::new(Pdu::from_foreign(RoomVersion::V11, &text).unwrap());
    let received = server.receive(&leaning).unwrap();
    assert!(matches!(received, Received::Rejected(..)), "{received:?}");
}

#[test]
fn unknown_references_are_named_and_nothing_is_kept() {
    let mut server = Server::new();
    let room = shared_room(&mut server, RoomVersion::V12);
    let tip = server.tip(&room);
    let mut elsewhere = Server::new();
    let same = shared_room(&mut elsewhere, RoomVersion::V12);
    assert_eq!(same, room, "made of the same events");
    let unseen = elsewhere.accept(&room, message("bob:other"), &[&tip]);
    let next = elsewhere.foreign(&room, message("bob:other"), &[&unseen]);
    let refused = server.receive(&next);
    let Err(WriteError::MissingEvents { event_ids }) = refused else { panic!("{refused:?}") };
    assert_eq!(event_ids, [unseen]);
    assert!(server.read(|txn| events::find(txn, next.event_id())).is_none());
    server.say(&room, "alice", "goes on").unwrap();
}

#[test]
fn an_outlier_that_comes_in_full_keeps_its_place() {
    let mut server = Server::new();
    let room = shared_room(&mut server, RoomVersion::V12);
    let tip = server.tip(&room);
    let pdu = server.foreign(&room, message("bob:other"), &[&tip]);
    let key = server.find_room(&room).key;
    let outlier = pdu.clone();
    let outlier_key = server
        .database
        .write(move |txn| {
            let server_name = ruma::owned_server_name!("domain");
            let mut store = PersistEventsStore::new(txn, &server_name);
            let event = store.next_key(Origin::Live);
            let arrival = Arrival {
                pdu: &outlier,
                room: key,
                version: RoomVersion::V12,
                verdict: Verdict::Outlier(None),
                prev_events: &[],
                auth_events: &[],
                replaces: None,
                may_redact_others: false,
                received_ts: 1,
                transaction: None,
            };
            store.insert(event, &arrival)?;
            Ok::<_, WriteError>(event)
        })
        .unwrap();
    assert_eq!(server.tips(&room), [tip]);
    assert!(server.row(pdu.event_id()).outlier);
    assert_eq!(server.receive(&pdu).unwrap(), Received::Accepted(outlier_key));
    assert!(!server.row(pdu.event_id()).outlier);
    assert_eq!(server.tips(&room), [pdu.event_id()]);
    server.say(&room, "alice", "goes on").unwrap();
}

#[test]
fn a_room_that_others_go_on_in_without_us_is_no_longer_known() {
    let mut server = Server::new();
    let room = shared_room(&mut server, RoomVersion::V11);
    let key = server.find_room(&room).key;
    server.member(&room, "alice", "alice", "leave").unwrap();
    assert!(server.current_state(&room).is_empty());
    let kept = server.read(|txn| memberships::local(txn, &user("alice"), key)).unwrap();
    assert_eq!(kept.membership, "leave");
    assert_eq!(server.tips(&room).len(), 1, "where it ended stays known");
    let refused = server.say(&room, "alice", "hello?");
    assert!(matches!(refused, Err(WriteError::UnknownRoom { .. })), "{refused:?}");
    let gone: i64 = server.read(|txn| {
        txn.query_one(
            "SELECT count(*) FROM current_state_deltas WHERE event IS NULL",
            params![],
            |row| row.get(0),
        )
    });
    assert!(gone >= 6, "{gone}");
}

#[test]
fn a_room_that_all_have_left_stays_as_it_was() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    server.member(&room, "alice", "alice", "leave").unwrap();
    assert!(!server.current_state(&room).is_empty());
    server.member(&room, "alice", "alice", "join").expect("nothing can have changed meanwhile");
}

#[test]
fn more_ends_than_one_event_can_follow_are_joined_in_steps() {
    let mut server = Server::new();
    let room = shared_room(&mut server, RoomVersion::V12);
    let fork = server.tip(&room);
    for index in 0..25 {
        let draft = state("bob:other", "m.x", &format!("{index}"), json!({}));
        server.accept(&room, draft, &[&fork]);
    }
    assert_eq!(server.tips(&room).len(), 25);
    for expected in [16, 7, 1] {
        server.say(&room, "alice", "x").unwrap();
        assert_eq!(server.tips(&room).len(), expected);
    }
    assert_eq!(server.current_state(&room).len(), 6 + 25);
}

#[test]
fn events_that_we_lack_are_backward_extremities_until_they_come() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let key = server.find_room(&room).key;
    let said = server.say(&room, "alice", "x").unwrap();
    let missing = ruma::owned_event_id!("$missing");
    let lacked = server
        .database
        .write(move |txn| {
            graph::insert_missing_edge(txn, key, &missing, said.key)?;
            let lacked = graph::backward_extremities(txn, key)?;
            graph::prev_event_arrived(txn, &missing, crate::storage::EventKey(-1))?;
            assert!(graph::backward_extremities(txn, key)?.is_empty());
            assert_eq!(graph::followers(txn, crate::storage::EventKey(-1))?, [said.key]);
            Ok::<_, WriteError>(lacked)
        })
        .unwrap();
    assert_eq!(lacked, ["$missing"]);
}

/// What somebody does somewhere in a random graph.
#[derive(Clone, Debug)]
struct Deed {
    who: usize,
    what: usize,
    prev: Vec<prop::sample::Index>,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let prev = prop::collection::vec(any::<prop::sample::Index>(), 1..3);
    let deed =
        (0..3_usize, 0..7_usize, prev).prop_map(|(who, what, prev)| Deed { who, what, prev });
    prop::collection::vec(deed, 1..12)
}

const PEOPLE: [&str; 3] = ["alice", "bob:other", "carol:third"];

fn draft(deed: &Deed, index: usize, version: RoomVersion) -> EventDraft {
    let who = PEOPLE[deed.who];
    let other = PEOPLE[(deed.who + 1) % 3];
    let levels = |bob: i64| {
        let mut levels = json!({"users": {"@bob:other": bob, "@carol:third": 50}});
        if !version.creators_are_privileged() {
            levels["users"]["@alice:domain"] = 100.into();
        }
        levels
    };
    match deed.what {
        0 => topic(who, &format!("{index}")),
        1 => member(who, other, "ban"),
        2 => member(who, who, "leave"),
        3 => member(who, who, "join"),
        4 => state(who, "m.room.power_levels", "", levels(90 - index as i64)),
        5 => state(who, "m.room.join_rules", "", json!({"join_rule": "invite"})),
        _ => message(who),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// The state at an event is a matter of the graph alone: not of the order in which its branches came.
    #[test]
    fn the_state_at_an_event_does_not_depend_on_the_order_of_arrival(
        deeds in deeds(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 12),
        version in prop::sample::select(vec![RoomVersion::V6, RoomVersion::V11, RoomVersion::V12]),
    ) {
        let make = || {
            let mut server = Server::new();
            let room = shared_room(&mut server, version);
            // Somebody of ours stays, else we would stop listening.
            server.member(&room, "dave", "dave", "join").unwrap();
            let tip = server.tip(&room);
            let tip = server.accept(&room, member("carol:third", "carol:third", "join"), &[&tip]);
            (server, room, tip)
        };
        let (mut server, room, tip) = make();
        let mut made: Vec<Arc<Pdu>> = Vec::new();
        for (index, deed) in deeds.iter().enumerate() {
            let ids: Vec<OwnedEventId> = std::iter::once(tip.clone())
                .chain(made.iter().map(|pdu| pdu.event_id().to_owned()))
                .collect();
            let prev: BTreeSet<&EventId> =
                deed.prev.iter().map(|pick| &*ids[pick.index(ids.len())]).collect();
            let prev: Vec<&EventId> = prev.into_iter().collect();
            let pdu = server.foreign(&room, draft(deed, index, version), &prev);
            server.receive(&pdu).expect("its references are known");
            if !ids.iter().any(|id| id == pdu.event_id()) {
                made.push(pdu);
            }
        }

        let (mut other, same_room, _) = make();
        prop_assert_eq!(&same_room, &room);
        // Another order in which everything comes after what it refers to.
        let mut waiting = made.clone();
        let mut picks = order.iter().cycle();
        while !waiting.is_empty() {
            let index = picks.next().expect("endless").index(waiting.len());
            match other.receive(&waiting[index]) {
                Ok(_) => {
                    waiting.remove(index);
                }
                Err(WriteError::MissingEvents { .. }) => {
                    // The oldest that waits can always come.
                    let oldest = waiting.remove(0);
                    other.receive(&oldest).expect("its references are known");
                }
                Err(error) => panic!("{error}"),
            }
        }
        let verdicts = |server: &Server| -> BTreeMap<OwnedEventId, (bool, StateMap)> {
            made.iter()
                .map(|pdu| {
                    let row = server.row(pdu.event_id());
                    let state = server.state_after(pdu.event_id());
                    (pdu.event_id().to_owned(), (row.rejected.is_some(), state))
                })
                .collect()
        };
        prop_assert_eq!(verdicts(&server), verdicts(&other));
    }
}
