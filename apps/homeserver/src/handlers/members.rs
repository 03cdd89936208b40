//! Who is in a room: with their events, or just by name.

use std::sync::Arc;

use bytes::Bytes;
use ropewalk::{Deferred, Failure, Reactor};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};

use super::access::{self, Access};
use super::history::Reader;
use super::rendered::{Reading, RenderedEvent, Renderer, write_list};
use super::sync::filter::EventForm;
use super::sync::question::ReadCaches;
use super::visibility::{Sight, Standing};
use super::{Refusal, wall_clock_ms};
use crate::model::Membership;
use crate::storage::databases::main::events::GraphPlace;
use crate::storage::databases::main::memberships;
use crate::storage::databases::main::rooms::Room;
use crate::storage::databases::main::shown_events::{self, StatePart};
use crate::storage::databases::state::groups;
use crate::storage::engine::{Database, Txn};
use crate::storage::keys::{EventKey, StateGroup};
use crate::streams::RoomPlace;

/// Reads the members of rooms. A cheap handle.
#[derive(Clone)]
pub struct RoomMembers {
    reactor: Reactor,
    database: Database,
    caches: Arc<ReadCaches>,
}

/// Which members are asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// As of this place in the room's history; `None`: now, or when the reader left.
    pub at: Option<RoomPlace>,
    /// Only with this membership.
    pub membership: Option<Membership>,
    /// Not with this one.
    pub not_membership: Option<Membership>,
}

impl Wanted {
    fn admits(&self, membership: Option<Membership>) -> bool {
        self.membership.is_none_or(|wanted| membership == Some(wanted))
            && self.not_membership.is_none_or(|unwanted| membership != Some(unwanted))
    }
}

impl RoomMembers {
    /// Reads from `database`, sharing caches with other readers.
    pub(crate) fn new(reactor: &Reactor, database: Database, caches: Arc<ReadCaches>) -> Self {
        Self { reactor: reactor.clone(), database, caches }
    }

    /// Answers with the member events of a room.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` if the reader may not look into the room, now or at the place he asks about;
    /// `M_NOT_FOUND` if there was nothing yet at that place.
    pub fn events(&self, reader: Reader, wanted: Wanted) -> Deferred<Bytes> {
        let caches = Arc::clone(&self.caches);
        let now_ms = wall_clock_ms(&self.reactor);
        self.database.read(move |txn| {
            let events = member_events(txn, &caches, &reader, &wanted)?;
            let reading = Reading {
                user_id: &reader.user_id,
                device_id: Some(&reader.device_id),
                now_ms,
                room_id: Some(&reader.room_id),
            };
            let mut out = b"{\"chunk\":".to_vec();
            write_list(&mut out, &events, |out, event| event.write(out, reading));
            out.push(b'}');
            Ok::<_, Failure>(Bytes::from(out))
        })
    }

    /// Answers with the names and pictures of who is in a room.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` if the reader is not in it himself.
    pub fn joined(&self, user_id: OwnedUserId, room_id: OwnedRoomId) -> Deferred<Bytes> {
        self.database.read(move |txn| {
            let (room, access) = access::of_reader(txn, &user_id, &room_id)?;
            if access != Access::Joined {
                let refusal = Refusal::forbidden("only members may ask for the joined members");
                return Err(Failure::from(refusal));
            }
            let members = memberships::current_members(txn, room.key, "join")?;
            let joined: Map<String, Value> = members
                .into_iter()
                .map(|member| {
                    let names = json!({
                        "display_name": member.displayname,
                        "avatar_url": member.avatar_url,
                    });
                    (member.user_id.into(), names)
                })
                .collect();
            Ok(Bytes::from(json!({ "joined": joined }).to_string()))
        })
    }
}

fn member_events(
    txn: &Txn<'_>,
    caches: &ReadCaches,
    reader: &Reader,
    wanted: &Wanted,
) -> Result<Vec<Arc<RenderedEvent>>, Failure> {
    let (room, access) = access::of_reader(txn, &reader.user_id, &reader.room_id)?;
    let renderer = Renderer::new(txn, &caches.events, &EventForm::default());
    let mut found: Vec<Arc<RenderedEvent>> = Vec::new();
    let past = match (wanted.at, access) {
        (Some(at), _) => Some(state_at(txn, caches, reader, &room, access, at)?),
        (None, Access::Left(event)) => shown_events::by_key(txn, event, |row| row.state_after())?,
        (None, Access::Joined | Access::Peeking) => None,
    };
    match past {
        Some(state) => {
            for event in groups::entries_of_type(txn, state, "m.room.member")?.into_values() {
                found.extend(renderer.by_key(event)?);
            }
        }
        None => shown_events::current_state(txn, room.key, StatePart::Members, |row| {
            found.extend(renderer.render(&row)?);
            Ok(())
        })?,
    }
    if wanted.membership.is_some() || wanted.not_membership.is_some() {
        found.retain(|event| wanted.admits(event.membership()));
    }
    Ok(found)
}

/// Returns the state after the last event before a place, if the reader may see that event.
fn state_at(
    txn: &Txn<'_>,
    caches: &ReadCaches,
    reader: &Reader,
    room: &Room,
    access: Access,
    at: RoomPlace,
) -> Result<StateGroup, Failure> {
    let mut last: Option<(EventKey, Option<StateGroup>, Standing)> = None;
    let note = |row: shown_events::ShownRow<'_, '_>| {
        last = Some((row.key()?, row.state_after()?, Standing::of(&row, &reader.user_id)?));
        Ok(())
    };
    let upto = access.clamp(i64::MAX);
    match at {
        RoomPlace::Live { stream } => {
            let upto = upto.min(stream);
            shown_events::newest_by_arrival(txn, room.key, i64::MIN, upto, 1, note)?;
        }
        RoomPlace::Graph { depth, stream } => {
            let place = GraphPlace { depth, stream };
            shown_events::page_backwards(txn, room.key, place, upto, 1, note)?;
        }
    }
    let Some((_, Some(state), standing)) = last else {
        return Err(Refusal::not_found("there is no event before that token").into());
    };
    let is_joined = access == Access::Joined;
    let user_id = &reader.user_id;
    let mut sight = Sight::knowing(txn, &caches.visibility, user_id, room.key, is_joined)?;
    if sight.sees(standing)? {
        Ok(state)
    } else {
        Err(Refusal::forbidden("you may not see the room as it was at that token").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::rooms::{Server, user};
    use crate::model::RoomVersion;

    fn ask(server: &Server, room_id: &OwnedRoomId, name: &str, wanted: Wanted) -> Vec<String> {
        let reader =
            Reader { user_id: user(name), device_id: "D".into(), room_id: room_id.clone() };
        let caches = ReadCaches::default();
        let found = server.database.read(|txn| member_events(txn, &caches, &reader, &wanted));
        match found {
            Ok(events) => {
                events.iter().map(|event| event.state_key.clone().unwrap().into()).collect()
            }
            Err(failure) => {
                let text = failure.to_string();
                vec![text.split(':').next().unwrap_or_default().to_owned()]
            }
        }
    }

    #[test]
    fn members_are_listed_as_they_are_and_as_they_were() {
        let mut server = Server::new();
        let room_id = server.room(RoomVersion::DEFAULT);
        server.member(&room_id, "bob", "bob", "join").unwrap();
        let then = server.say(&room_id, "alice", "then").unwrap();
        server.member(&room_id, "bob", "bob", "leave").unwrap();
        server.member(&room_id, "alice", "carol", "invite").unwrap();
        let (alice, bob, carol) = ("@alice:domain", "@bob:domain", "@carol:domain");
        let depth = server.row(&then.event_id).depth;
        let graph = Some(RoomPlace::Graph { depth, stream: then.key.0 });
        let live = Some(RoomPlace::Live { stream: then.key.0 });
        let nothing = Some(RoomPlace::Live { stream: 0 });
        let join = Some(Membership::Join);
        for (why, name, wanted, expected) in [
            ("all", "alice", Wanted::default(), vec![alice, bob, carol]),
            ("joined", "alice", Wanted { membership: join, ..Wanted::default() }, vec![alice]),
            (
                "others",
                "alice",
                Wanted { not_membership: join, ..Wanted::default() },
                vec![bob, carol],
            ),
            ("as of arrival", "alice", Wanted { at: live, ..Wanted::default() }, vec![alice, bob]),
            ("as of a page", "alice", Wanted { at: graph, ..Wanted::default() }, vec![alice, bob]),
            (
                "before all",
                "alice",
                Wanted { at: nothing, ..Wanted::default() },
                vec!["M_NOT_FOUND"],
            ),
            ("who left sees what was", "bob", Wanted::default(), vec![alice, bob]),
            ("who is only invited", "carol", Wanted::default(), vec!["M_FORBIDDEN"]),
            ("a stranger", "dave", Wanted::default(), vec!["M_FORBIDDEN"]),
        ] {
            assert_eq!(ask(&server, &room_id, name, wanted), expected, "{why}");
        }
    }
}
