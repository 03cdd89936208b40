//! One `/sync` question, answered from one snapshot of the database.
//!
//! Runs on a database thread and returns finished JSON. The positions in the answer's token are those
//! of the snapshot itself, so that nothing between two answers is missed or told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, UserId};

use super::StateBlock;
use super::body::{self, SectionKind};
use super::filter::{EventFacts, EventForm, SyncFilter};
use super::lazy_members::SharedSentMembers;
use super::rooms::{Freshness, RoomReader};
use crate::handlers::push_rules;
use crate::handlers::rendered::{Reading, RenderCache, Renderer};
use crate::handlers::unread::UnreadCache;
use crate::handlers::visibility::VisibilityCache;
use crate::model::Membership;
use crate::storage::StorageError;
use crate::storage::databases::main::account_data::{self, AccountDataEntry};
use crate::storage::databases::main::push_rules as push_rule_rows;
use crate::storage::databases::main::reader_rooms::{self, ReaderRoom};
use crate::storage::engine::Txn;
use crate::streams::{Stream, StreamToken};

/// What all readers share: things that never go stale.
#[derive(Debug, Default)]
pub(crate) struct ReadCaches {
    /// Rendered events.
    pub(crate) events: RenderCache,
    /// What states say about the visibility of history.
    pub(crate) visibility: VisibilityCache,
    /// Counts of what readers have not read.
    pub(crate) unread: UnreadCache,
}

/// Who types where, as far as that is news.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypingNews {
    /// The position of the typing stream.
    pub(crate) position: i64,
    /// For each room with news, everybody who types in it.
    pub(crate) rooms: BTreeMap<OwnedRoomId, Vec<OwnedUserId>>,
}

/// A question of one device.
#[derive(Clone)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) user_id: OwnedUserId,
    /// On which device.
    pub(crate) device_id: Option<OwnedDeviceId>,
    /// How far the client has read; `None`: it knows nothing.
    pub(crate) since: Option<StreamToken>,
    /// What it wants.
    pub(crate) filter: Arc<SyncFilter>,
    /// Whether it wants the state of all rooms although it has a token.
    pub(crate) full_state: bool,
    /// Which of the two state blocks it wants.
    pub(crate) block: StateBlock,
    /// Who types.
    pub(crate) typing: TypingNews,
    /// The time of day, in ms since 1970.
    pub(crate) now_ms: i64,
    /// Shared caches.
    pub(crate) caches: Arc<ReadCaches>,
    /// Which members the device has, with lazy loading.
    pub(crate) sent_members: Option<SharedSentMembers>,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The JSON body.
    pub(crate) body: Vec<u8>,
    /// Whether there is nothing new in it.
    pub(crate) is_empty: bool,
    /// How far it reaches.
    pub(crate) next_batch: StreamToken,
    /// The rooms that the reader is in.
    pub(crate) joined: Vec<OwnedRoomId>,
    /// Whose messages the reader does not want to see.
    pub(crate) ignored: BTreeSet<OwnedUserId>,
}

/// Account data of rooms.
type AccountDataByRoom = BTreeMap<OwnedRoomId, Vec<AccountDataEntry>>;

/// Finished JSON of rooms, by kind.
#[derive(Default)]
struct RoomSections {
    join: Vec<u8>,
    invite: Vec<u8>,
    knock: Vec<u8>,
    leave: Vec<u8>,
}

impl Question {
    /// Answers from one snapshot.
    ///
    /// # Errors
    ///
    /// If the database fails or holds something that cannot be.
    pub(crate) fn answer(&self, txn: &Txn<'_>) -> Result<Answer, StorageError> {
        let next_batch = reader_rooms::positions(txn)?
            .into_iter()
            .fold(StreamToken::new(), |token, (stream, position)| token.with(stream, position))
            .with(Stream::Typing, self.typing.position);
        let (global, by_room) = self.account_data(txn, &next_batch)?;
        let rooms = reader_rooms::all(txn, &self.user_id)?;
        let ignored = ignored_users(txn, &self.user_id)?;
        let sections = self.rooms(txn, &rooms, by_room, &ignored, &next_batch)?;

        let mut body = Vec::with_capacity(1024);
        body::begin(&mut body, &next_batch);
        let is_empty = global.is_empty() && sections.is_empty();
        body::write_events(&mut body, "account_data", &global, body::write_account_data);
        sections.write(&mut body);
        body.push(b'}');
        let joined = rooms
            .into_iter()
            .filter(|room| room.membership == Membership::Join)
            .map(|room| room.room_id)
            .collect();
        Ok(Answer { body, is_empty, next_batch, joined, ignored })
    }

    /// Reads the account data that is new: outside rooms, and by room.
    fn account_data(
        &self,
        txn: &Txn<'_>,
        next_batch: &StreamToken,
    ) -> Result<(Vec<AccountDataEntry>, AccountDataByRoom), StorageError> {
        let upto = next_batch.position(Stream::AccountData);
        let entries = match self.since {
            None => account_data::of_user(txn, &self.user_id)?,
            Some(since) => {
                let since = since.position(Stream::AccountData);
                account_data::changed(txn, &self.user_id, since, upto)?
            }
        };
        let mut global = Vec::new();
        let mut by_room = AccountDataByRoom::new();
        for entry in entries {
            match entry.room_id.clone() {
                None => global.push(entry),
                Some(room_id) => by_room.entry(room_id).or_default().push(entry),
            }
        }
        global.extend(self.push_rules(txn, next_batch)?);
        let filter = &self.filter.account_data;
        global.retain(|entry| {
            filter.admits(EventFacts {
                event_type: &entry.event_type,
                sender: None,
                room_id: None,
                has_url: false,
            })
        });
        global.truncate(filter.list_limit());
        Ok((global, by_room))
    }

    /// Reads the push rules, if they are new, as the account data that clients see them as.
    fn push_rules(
        &self,
        txn: &Txn<'_>,
        next_batch: &StreamToken,
    ) -> Result<Option<AccountDataEntry>, StorageError> {
        let stream_id = next_batch.position(Stream::PushRules);
        let since = self.since.map(|since| since.position(Stream::PushRules));
        let are_news = match since {
            None => true,
            Some(since) => push_rule_rows::changed(txn, &self.user_id, since, stream_id)?.is_some(),
        };
        if !are_news {
            return Ok(None);
        }
        let rules = serde_json::to_string(&push_rules::of_user(txn, &self.user_id)?)
            .map_err(|_| StorageError::damaged("push rules cannot be written as JSON"))?;
        Ok(Some(AccountDataEntry {
            room_id: None,
            event_type: "m.push_rules".to_owned(),
            stream_id,
            content: format!("{{\"global\":{rules}}}"),
        }))
    }

    fn rooms(
        &self,
        txn: &Txn<'_>,
        rooms: &[ReaderRoom],
        mut account_data: AccountDataByRoom,
        ignored: &BTreeSet<OwnedUserId>,
        next_batch: &StreamToken,
    ) -> Result<RoomSections, StorageError> {
        let renderer = Renderer::new(txn, &self.caches.events, &self.filter.form);
        let usual_renderer = Renderer::new(txn, &self.caches.events, &EventForm::default());
        let reader =
            RoomReader { question: self, txn, renderer, usual_renderer, ignored, next_batch };
        if let Some(sent) = &self.sent_members {
            let since = self.since.map(|since| since.position(Stream::Events));
            super::lazy_members::lock(sent).begin(since);
        }
        let mut sections = RoomSections::default();
        for room in rooms {
            if !self.filter.admits_room(&room.room_id) {
                continue;
            }
            let account_data = account_data.remove(&room.room_id).unwrap_or_default();
            self.room(&reader, room, account_data, &mut sections)?;
        }
        Ok(sections)
    }

    fn room(
        &self,
        reader: &RoomReader<'_, '_, '_>,
        room: &ReaderRoom,
        account_data: Vec<AccountDataEntry>,
        sections: &mut RoomSections,
    ) -> Result<(), StorageError> {
        let since = self.since.map(|since| since.position(Stream::Events));
        let has_changed = since.is_none_or(|since| room.position > since);
        let reading = Reading {
            user_id: &self.user_id,
            device_id: self.device_id.as_deref(),
            now_ms: self.now_ms,
            room_id: None,
        };
        match room.membership {
            Membership::Join => {
                let freshness = reader.freshness(room)?;
                let section = reader.joined(room, freshness, account_data)?;
                if !section.is_empty() || freshness != Freshness::Known || self.full_state {
                    body::begin_entry(&mut sections.join, &room.room_id);
                    let kind = SectionKind { block: self.block, is_joined: true };
                    section.write(&mut sections.join, kind, &self.filter.form, reading);
                }
            }
            Membership::Invite | Membership::Knock if has_changed => {
                let Some(stripped) = reader.stripped(room)? else { return Ok(()) };
                let (out, name) = if room.membership == Membership::Invite {
                    (&mut sections.invite, "invite_state")
                } else {
                    (&mut sections.knock, "knock_state")
                };
                body::begin_entry(out, &room.room_id);
                out.push(b'{');
                body::write_events(out, name, stripped, |out, event| event.write_stripped(out));
                out.push(b'}');
            }
            Membership::Leave | Membership::Ban
                if has_changed
                    && !room.forgotten
                    && (since.is_some() || self.filter.include_leave) =>
            {
                let section = reader.left(room, account_data)?;
                body::begin_entry(&mut sections.leave, &room.room_id);
                let kind = SectionKind { block: self.block, is_joined: false };
                section.write(&mut sections.leave, kind, &self.filter.form, reading);
            }
            _ => {}
        }
        Ok(())
    }
}

impl RoomSections {
    fn is_empty(&self) -> bool {
        [&self.join, &self.invite, &self.knock, &self.leave].iter().all(|part| part.is_empty())
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        body::begin_member(out, "rooms");
        out.push(b'{');
        for (name, part) in [
            ("join", &self.join),
            ("invite", &self.invite),
            ("knock", &self.knock),
            ("leave", &self.leave),
        ] {
            if !part.is_empty() {
                body::begin_member(out, name);
                out.push(b'{');
                out.extend_from_slice(part);
                out.push(b'}');
            }
        }
        out.push(b'}');
    }
}

/// Reads whose messages the reader does not want to see.
pub(crate) fn ignored_users(
    txn: &Txn<'_>,
    reader: &UserId,
) -> Result<BTreeSet<OwnedUserId>, StorageError> {
    let list = account_data::find(txn, reader, None, "m.ignored_user_list")?;
    Ok(list.map(|content| ignored_in(&content, reader)).unwrap_or_default())
}

/// Returns the users that an `m.ignored_user_list` names. Nobody ignores himself; what is no user id
/// is passed over.
fn ignored_in(content: &str, reader: &UserId) -> BTreeSet<OwnedUserId> {
    let content: serde_json::Value = serde_json::from_str(content).unwrap_or_default();
    let Some(users) = content.get("ignored_users").and_then(|users| users.as_object()) else {
        return BTreeSet::new();
    };
    users
        .keys()
        .filter_map(|user_id| OwnedUserId::try_from(user_id.as_str()).ok())
        .filter(|user_id| user_id != reader)
        .collect()
}
