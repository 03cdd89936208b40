//! Making a room: its create event and all that belongs to it, in one job.

use std::sync::Arc;

use ruma::{CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId};

use crate::model::build::room_id_with_domain;
use crate::model::{EventDraft, Place, RoomVersion};
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::engine::WriteTxn;

use super::admit::Candidate;
use super::head::{self, RoomHead};
use super::send::SentEvent;
use super::view::check_auth_event_list;
use super::{RoomWriter, WriteError};

/// A room to be made.
#[derive(Clone, Debug)]
pub struct NewRoom {
    /// Its version.
    pub version: RoomVersion,
    /// Who makes it.
    pub creator: OwnedUserId,
    /// Content of the create event. The version, and for versions before 11 the creator, are added.
    pub creation_content: CanonicalJsonObject,
    /// Makes the room's id unique in versions before 12; later ones hash the create event.
    pub random: [u8; 18],
    /// The events that follow, in order: the creator's join, power levels, and so on. Those of the same
    /// type and state key need not be merged.
    pub events: Vec<EventDraft>,
    /// Whether the room directory lists it.
    pub is_public: bool,
}

/// A room that has been made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreatedRoom {
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its events, the create event first.
    pub events: Vec<SentEvent>,
}

impl RoomWriter {
    /// Makes a room. All of its events are written, or none.
    ///
    /// # Errors
    ///
    /// [`WriteError::Forbidden`] or [`WriteError::Build`] for the first event that is not allowed,
    /// [`WriteError::RoomExists`] in the unlikely case that the id is taken; else if the database fails.
    pub fn create_room(
        &self,
        txn: &mut WriteTxn<'_>,
        new: NewRoom,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<CreatedRoom, WriteError> {
        let NewRoom { version, creator, creation_content, random, events, is_public } = new;
        let mut content = creation_content;
        content.insert("room_version".to_owned(), version.as_str().to_owned().into());
        if !version.rules().authorization.use_room_create_sender {
            content.insert("creator".to_owned(), creator.as_str().to_owned().into());
        }
        let draft = EventDraft::state(creator.clone(), "m.room.create", "", content);
        let place = Place::first(room_id_with_domain(random, self.server_name())?, now);
        let pdu = Arc::new(self.signer.sign(version, draft, place)?);
        check_auth_event_list(version, &pdu, None, &[])?;

        let room_id = pdu.room_id().to_owned();
        if rooms::find(txn, &room_id)?.is_some() {
            return Err(WriteError::RoomExists { room_id });
        }
        let key = rooms::insert(txn, &room_id, version, &creator)?;
        rooms::lower_min_depth(txn, key, 1)?;
        if is_public {
            rooms::set_public(txn, key, true)?;
        }
        let room = Room { key, room_id: room_id.clone(), version, creator };
        let mut head = Box::new(RoomHead::empty(room));
        let event_id = pdu.event_id().to_owned();
        let candidate = Candidate { pdu, auth_events: &[], transaction: None, now };
        let key = self.admit(txn, &mut head, &candidate)?;
        let mut sent = vec![SentEvent { event_id, key, is_repeated: false }];
        for draft in events {
            sent.push(self.append(txn, &mut head, draft, None, now)?);
        }
        head::put_back(txn, head);
        Ok(CreatedRoom { room_id, events: sent })
    }
}
