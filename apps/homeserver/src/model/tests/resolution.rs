//! State resolution: known outcomes, and that the order of forks never matters.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use ruma::{EventId, OwnedEventId};
use serde_json::json;

use super::rooms::{Room, user};
use crate::model::resolve::{auth_chain, resolve};
use crate::model::{Fork, Pdu, ResolveError, RoomVersion, StateMap};

#[derive(Debug)]
struct Never;

fn reader<'a>(rooms: &'a [Room]) -> impl Fn(&EventId) -> Result<Option<Arc<Pdu>>, Never> + 'a {
    |id| Ok(rooms.iter().find_map(|room| room.event(id)))
}

fn fork(room: &Room) -> Fork {
    let chain = auth_chain(room.state.values().cloned(), |id| Ok::<_, Never>(room.event(id)));
    Fork { state: room.state.clone(), auth_chain: chain.unwrap() }
}

fn resolved(rooms: &[Room]) -> StateMap {
    let forks: Vec<Fork> = rooms.iter().map(fork).collect();
    resolve(rooms[0].version, &forks, reader(rooms)).expect("resolves")
}

/// `a` made the room; `m` has 50; `b` is joined.
fn base(version: RoomVersion) -> Room {
    let mut room = Room::new(version, "a");
    let mut users = json!({"@m:domain": 50});
    if !version.creators_are_privileged() {
        users["@a:domain"] = 100.into();
    }
    room.send("a", "m.room.power_levels", Some(""), json!({"users": users})).unwrap();
    room.send("a", "m.room.join_rules", Some(""), json!({"join_rule": "public"})).unwrap();
    room.member("m", "m", "join").unwrap();
    room.member("b", "b", "join").unwrap();
    room
}

#[test]
fn a_ban_beats_what_the_banned_did_meanwhile() {
    for version in RoomVersion::ALL {
        let base = base(version);
        let (mut one, mut two) = (base.clone(), base.clone());
        one.member("a", "m", "ban").unwrap();
        two.send("m", "m.room.topic", Some(""), json!({"topic": "mine now"})).unwrap();
        let state = resolved(&[one.clone(), two]);
        let member = state.get("m.room.member", user("m").as_str());
        assert_eq!(member, one.state.get("m.room.member", user("m").as_str()), "{version}");
        assert_eq!(state.get("m.room.topic", ""), None, "{version}");
    }
}

#[test]
fn a_demotion_beats_what_the_demoted_did_meanwhile() {
    for version in RoomVersion::ALL {
        let base = base(version);
        let (mut one, mut two) = (base.clone(), base.clone());
        let mut users = json!({});
        if !version.creators_are_privileged() {
            users["@a:domain"] = 100.into();
        }
        one.send("a", "m.room.power_levels", Some(""), json!({"users": users})).unwrap();
        two.member("m", "b", "ban").unwrap();
        two.send("m", "m.room.name", Some(""), json!({"name": "mine"})).unwrap();
        let state = resolved(&[one, two]);
        let member = state.get("m.room.member", user("b").as_str());
        assert_eq!(member, base.state.get("m.room.member", user("b").as_str()), "{version}");
        assert_eq!(state.get("m.room.name", ""), None, "{version}");
    }
}

#[test]
fn changes_to_different_keys_are_all_kept() {
    for version in RoomVersion::ALL {
        let base = base(version);
        let (mut one, mut two) = (base.clone(), base.clone());
        one.send("a", "m.room.name", Some(""), json!({"name": "x"})).unwrap();
        two.send("a", "m.room.topic", Some(""), json!({"topic": "y"})).unwrap();
        let state = resolved(&[one.clone(), two.clone()]);
        assert_eq!(state.get("m.room.name", ""), one.state.get("m.room.name", ""));
        assert_eq!(state.get("m.room.topic", ""), two.state.get("m.room.topic", ""));
        assert_eq!(state.len(), base.state.len() + 2, "{version}");
    }
}

#[test]
fn equal_forks_need_no_events_and_none_resolve_to_nothing() {
    let room = base(RoomVersion::V12);
    let forks = [fork(&room), fork(&room)];
    let state = resolve(room.version, &forks, |_: &EventId| Err(Never)).expect("nothing is read");
    assert_eq!(state, room.state);
    assert!(resolve(room.version, &[], |_: &EventId| Err(Never)).unwrap().is_empty());
}

#[test]
fn a_missing_event_fails_the_resolution() {
    for version in RoomVersion::ALL {
        let base = base(version);
        let (mut one, mut two) = (base.clone(), base.clone());
        one.member("a", "m", "ban").unwrap();
        two.send("m", "m.room.topic", Some(""), json!({"topic": "x"})).unwrap();
        let forks = [fork(&one), fork(&two)];
        let rooms = [one.clone(), two];
        let gone = base.state.get("m.room.power_levels", "").unwrap();
        let partial = |id: &EventId| {
            if id == gone { Ok(None) } else { reader(&rooms)(id) }
        };
        match resolve(version, &forks, partial) {
            Err(ResolveError::Missing { event_id }) => assert_eq!(&event_id, gone, "{version}"),
            other => panic!("{version}: {other:?}"),
        }
        let unreadable = |_: &EventId| Err(Never);
        assert!(matches!(resolve(version, &forks, unreadable), Err(ResolveError::Read(Never))));
        assert!(matches!(
            auth_chain(one.state.values().cloned(), partial),
            Err(ResolveError::Missing { .. })
        ));
    }
}

/// One thing that somebody tries; what is not allowed is left out.
#[derive(Clone, Debug)]
enum Deed {
    Level { who: usize, whose: usize, level: i32 },
    Member { who: usize, whose: usize, membership: usize },
    Name { who: usize, text: u8 },
    Rule { who: usize, rule: usize },
}

const PEOPLE: [&str; 4] = ["a", "m", "b", "c"];

fn attempt(room: &mut Room, deed: &Deed) {
    // Refusals are part of the game.
    let _ = match *deed {
        Deed::Level { who, whose, level } => {
            let mut users = json!({"@m:domain": 50});
            users[user(PEOPLE[whose]).as_str()] = level.into();
            if room.version.creators_are_privileged() {
                users.as_object_mut().unwrap().remove("@a:domain");
            } else {
                users["@a:domain"] = 100.into();
            }
            room.send(PEOPLE[who], "m.room.power_levels", Some(""), json!({"users": users}))
        }
        Deed::Member { who, whose, membership } => {
            let word = ["join", "leave", "ban", "invite"][membership];
            room.member(PEOPLE[who], PEOPLE[whose], word)
        }
        Deed::Name { who, text } => {
            room.send(PEOPLE[who], "m.room.name", Some(""), json!({"name": text.to_string()}))
        }
        Deed::Rule { who, rule } => {
            let rule = ["public", "invite", "knock"][rule];
            room.send(PEOPLE[who], "m.room.join_rules", Some(""), json!({"join_rule": rule}))
        }
    };
}

fn deed() -> impl Strategy<Value = Deed> {
    let people = 0..PEOPLE.len();
    prop_oneof![
        (people.clone(), people.clone(), 0..=100_i32).prop_map(|(who, whose, level)| Deed::Level {
            who,
            whose,
            level
        }),
        (people.clone(), people.clone(), 0..4_usize)
            .prop_map(|(who, whose, membership)| Deed::Member { who, whose, membership }),
        (people.clone(), any::<u8>()).prop_map(|(who, text)| Deed::Name { who, text }),
        (people, 0..3_usize).prop_map(|(who, rule)| Deed::Rule { who, rule }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(12),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_order_of_forks_does_not_matter(
        version in (0..RoomVersion::ALL.len()).prop_map(|n| RoomVersion::ALL[n]),
        before in prop::collection::vec(deed(), 0..4),
        branches in prop::collection::vec(prop::collection::vec(deed(), 1..6), 2..4),
    ) {
        let mut common = base(version);
        for deed in &before {
            attempt(&mut common, deed);
        }
        let mut rooms: Vec<Room> = branches
            .iter()
            .map(|deeds| {
                let mut room = common.clone();
                for deed in deeds {
                    attempt(&mut room, deed);
                }
                room
            })
            .collect();
        let state = resolved(&rooms);
        for _ in 0..rooms.len() {
            rooms.rotate_left(1);
            prop_assert_eq!(&resolved(&rooms), &state);
        }
        rooms.reverse();
        prop_assert_eq!(&resolved(&rooms), &state);

        // Every entry comes from one of the forks, keyed by its own type and state key.
        let known: BTreeSet<&OwnedEventId> =
            rooms.iter().flat_map(|room| room.events.keys()).collect();
        for (event_type, state_key, event_id) in state.iter() {
            prop_assert!(known.contains(event_id));
            let event = rooms.iter().find_map(|room| room.event(event_id)).unwrap();
            prop_assert!(event.is_state(event_type, state_key));
        }
        // The common part of the auth chains may be left out.
        let mut forks: Vec<Fork> = rooms.iter().map(fork).collect();
        let shared: BTreeSet<OwnedEventId> = forks[0]
            .auth_chain
            .iter()
            .filter(|id| forks.iter().all(|fork| fork.auth_chain.contains(*id)))
            .cloned()
            .collect();
        for fork in &mut forks {
            fork.auth_chain.retain(|id| !shared.contains(id));
        }
        prop_assert_eq!(&resolve(version, &forks, reader(&rooms)).unwrap(), &state);
    }
}
