//! One room in one response: joined, left, or known only by an invitation or a knock.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::OwnedUserId;

use super::StateBlock;
use super::body::RoomSection;
use super::ephemeral;
use super::filter::{EventFacts, Members};
use super::lazy_members;
use super::question::Question;
use super::room_state::{MembersWanted, StateEnd, StateEvents, StateReader};
use super::summary::Summary;
use super::timeline::{self, Lens, Timeline};
use crate::handlers::rendered::{RenderedEvent, Renderer};
use crate::handlers::unread::{Counter, Unread};
use crate::handlers::visibility::Sight;
use crate::storage::StorageError;
use crate::storage::databases::main::account_data::{self, AccountDataEntry};
use crate::storage::databases::main::reader_rooms::{self, ReaderRoom};
use crate::storage::databases::main::{receipts, shown_events};
use crate::storage::databases::state::groups;
use crate::storage::engine::Txn;
use crate::storage::keys::{EventKey, RoomKey};
use crate::streams::{RoomPlace, Stream, StreamToken};

/// What people who are not in a room see of its state: what the specification recommends for
/// invitations and knocks.
const STRIPPED_TYPES: [&str; 8] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.name",
    "m.room.topic",
    "m.room.tombstone",
];

/// How much of a joined room the client knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Freshness {
    /// It was in the room already when it asked last.
    Known,
    /// It knows nothing at all.
    Initial,
    /// It was not in the room all the time since it asked last.
    NewlyJoined,
}

/// Reads rooms for one question.
pub(super) struct RoomReader<'a, 't, 'c> {
    pub(super) question: &'a Question,
    pub(super) txn: &'t Txn<'c>,
    /// Renders in the form that the filter asks for.
    pub(super) renderer: Renderer<'t, 'c>,
    /// Renders in the usual form, which push rules look at.
    pub(super) usual_renderer: Renderer<'t, 'c>,
    pub(super) ignored: &'a BTreeSet<OwnedUserId>,
    pub(super) next_batch: &'a StreamToken,
}

impl<'a, 't, 'c> RoomReader<'a, 't, 'c>
where
    'a: 't,
{
    /// Finds out how much of a joined room the client knows.
    pub(super) fn freshness(&self, room: &ReaderRoom) -> Result<Freshness, StorageError> {
        let Some(since) = self.since() else { return Ok(Freshness::Initial) };
        if room.position <= since {
            return Ok(Freshness::Known);
        }
        let user_id = &self.question.user_id;
        // Not every change of one's member event is a join: it may be a new display name.
        let was_in = reader_rooms::was_joined_at(self.txn, user_id, room.room, since)?;
        let (_, was_out) =
            reader_rooms::was_in_and_out(self.txn, user_id, room.room, since, self.upto())?;
        Ok(if was_in && !was_out { Freshness::Known } else { Freshness::NewlyJoined })
    }

    /// Reads a room that the reader is in.
    pub(super) fn joined(
        &self,
        room: &ReaderRoom,
        freshness: Freshness,
        changed_account_data: Vec<AccountDataEntry>,
    ) -> Result<RoomSection, StorageError> {
        let Question { user_id, filter, caches, full_state, .. } = self.question;
        let is_known = freshness == Freshness::Known;
        let since = self.since().filter(|_| is_known);
        let mut sight = Sight::knowing(self.txn, &caches.visibility, user_id, room.room, true)?;
        let mut timeline = self.timeline(room, (since, self.upto()), &mut sight)?;
        // Whoever was out of the room has missed something, for all he knows.
        timeline.limited |= freshness == Freshness::NewlyJoined;

        let tells_everything = !is_known || *full_state;
        let moved = timeline.limited || !timeline.is_quiet;
        let states = self.state_reader(room.room, StateEnd::Current, &timeline);
        let mut state = if tells_everything {
            states.everything(&self.members_wanted(&timeline))?
        } else if moved {
            self.what_changed(&states, since.unwrap_or_default(), self.upto())?
        } else {
            Vec::new()
        };
        let has_member_news = moved
            && (timeline.limited
                || timeline.events.iter().any(|placed| placed.event.is_member_event())
                || state.iter().any(|event| event.is_member_event()));
        let summary = if tells_everything || has_member_news {
            let summary = Summary::read(self.txn, room.room, user_id)?;
            self.add_heroes(&states, room.room, &summary, &mut state)?;
            Some(summary)
        } else {
            None
        };
        self.note_members(room.room, &timeline, &state);
        state.retain(|event| filter.state.admits(event.facts(&room.room_id)));

        let mut section = RoomSection {
            state,
            account_data: self.account_data(room, is_known, changed_account_data)?,
            ephemeral: self.ephemeral(room, is_known)?,
            summary,
            unread: None,
            timeline,
        };
        if !section.is_empty() || tells_everything {
            section.unread = Some(self.unread(room)?);
        }
        Ok(section)
    }

    fn unread(&self, room: &ReaderRoom) -> Result<Unread, StorageError> {
        let Question { user_id, caches, .. } = self.question;
        let counter = Counter {
            txn: self.txn,
            cache: &caches.unread,
            reader: user_id,
            upto: self.upto(),
            receipts_at: self.next_batch.position(Stream::Receipts),
            rules_at: self.next_batch.position(Stream::PushRules),
        };
        counter.count(room.room, &room.room_id, room.event, &self.usual_renderer)
    }

    /// Reads a room that the reader has left, up to where he left it.
    pub(super) fn left(
        &self,
        room: &ReaderRoom,
        changed_account_data: Vec<AccountDataEntry>,
    ) -> Result<RoomSection, StorageError> {
        let Question { user_id, filter, caches, .. } = self.question;
        let account_data = self.account_data(room, true, changed_account_data)?;
        let state_at_leave = shown_events::by_key(self.txn, room.event, |row| row.state_after())?;
        let Some(state_at_leave) = state_at_leave else {
            // Declined from afar: we never had the room, only the event that ends the matter.
            return Ok(RoomSection {
                timeline: self.timeline_of_one(room.event)?,
                state: Vec::new(),
                account_data,
                ephemeral: Vec::new(),
                summary: None,
                unread: None,
            });
        };
        let upto = room.event.0;
        let mut sight = Sight::knowing(self.txn, &caches.visibility, user_id, room.room, false)?;
        let timeline = self.timeline(room, (self.since(), upto), &mut sight)?;
        let states = self.state_reader(room.room, StateEnd::Past(state_at_leave), &timeline);
        let mut state = match self.since() {
            // Who was never in the room learns nothing of its state by declining.
            None if reader_rooms::last_join(self.txn, user_id, room.room)?.is_none() => Vec::new(),
            None => states.everything(&self.members_wanted(&timeline))?,
            Some(since) => {
                let (was_in, _) =
                    reader_rooms::was_in_and_out(self.txn, user_id, room.room, since, upto)?;
                if was_in || reader_rooms::was_joined_at(self.txn, user_id, room.room, since)? {
                    self.what_changed(&states, since, upto)?
                } else {
                    Vec::new()
                }
            }
        };
        state.retain(|event| filter.state.admits(event.facts(&room.room_id)));
        Ok(RoomSection {
            timeline,
            state,
            account_data,
            ephemeral: Vec::new(),
            summary: None,
            unread: None,
        })
    }

    /// Reads what an invitation or a knock shows of a room. `None`: the reader ignores who invites.
    pub(super) fn stripped(&self, room: &ReaderRoom) -> Result<Option<StateEvents>, StorageError> {
        let Some(own) = self.renderer.by_key(room.event)? else { return Ok(None) };
        if self.ignored.iter().any(|ignored| ignored.as_str() == &*own.sender) {
            return Ok(None);
        }
        let mut stripped: StateEvents = Vec::new();
        let state = shown_events::by_key(self.txn, room.event, |row| row.state_after())?;
        if let Some(state) = state {
            let others = STRIPPED_TYPES.iter().map(|&event_type| (event_type, ""));
            for (event_type, state_key) in others.chain([("m.room.member", &*own.sender)]) {
                let entry = groups::entry(self.txn, state, event_type, state_key)?;
                if let Some(event) = entry.filter(|&event| event != own.key) {
                    stripped.extend(self.renderer.by_key(event)?);
                }
            }
        }
        stripped.push(own);
        Ok(Some(stripped))
    }

    fn since(&self) -> Option<i64> {
        self.question.since.map(|since| since.position(Stream::Events))
    }

    fn upto(&self) -> i64 {
        self.next_batch.position(Stream::Events)
    }

    fn timeline(
        &self,
        room: &ReaderRoom,
        range: (Option<i64>, i64),
        sight: &mut Sight<'_, '_>,
    ) -> Result<Timeline, StorageError> {
        let filter = &self.question.filter;
        let lens = Lens {
            reader: &self.question.user_id,
            ignored: self.ignored,
            room_id: &room.room_id,
            filter: &filter.timeline,
        };
        let limit = filter.timeline_limit();
        timeline::read(self.txn, room.room, range, limit, &lens, sight, &self.renderer)
    }

    fn timeline_of_one(&self, event: EventKey) -> Result<Timeline, StorageError> {
        let depth = shown_events::by_key(self.txn, event, |row| row.depth())?;
        let rendered = self.renderer.by_key(event)?;
        let placed = rendered.map(|event| timeline::Placed { event, depth, replaces: None });
        Ok(Timeline {
            events: placed.into_iter().collect(),
            limited: false,
            prev_batch: RoomPlace::Live { stream: event.0 - 1 },
            is_quiet: false,
        })
    }

    fn state_reader<'s>(
        &'s self,
        room: RoomKey,
        end: StateEnd,
        timeline: &'s Timeline,
    ) -> StateReader<'s, 't, 'c> {
        StateReader {
            txn: self.txn,
            room,
            end,
            timeline,
            block: self.question.block,
            renderer: &self.renderer,
        }
    }

    /// Reads the changes of a state that the client knew at `since`.
    fn what_changed(
        &self,
        states: &StateReader<'_, '_, '_>,
        since: i64,
        upto: i64,
    ) -> Result<StateEvents, StorageError> {
        let mut state = states.changes(since, upto)?;
        let members = self.question.filter.members;
        if members.is_lazy() {
            let sent = self.question.sent_members.as_ref().map(lazy_members::lock);
            let wanted: Vec<&str> = senders(states.timeline)
                .filter(|&user_id| {
                    members == Members::LazyRedundant
                        || !sent.as_ref().is_some_and(|sent| sent.has(states.room, user_id))
                })
                .collect();
            drop(sent);
            add_missing(&mut state, states.members(wanted.into_iter())?);
        }
        Ok(state)
    }

    fn members_wanted(&self, timeline: &Timeline) -> MembersWanted {
        if !self.question.filter.members.is_lazy() {
            return MembersWanted::All;
        }
        let mut users: BTreeSet<Box<str>> = senders(timeline).map(Box::from).collect();
        users.insert(self.question.user_id.as_str().into());
        if self.question.block == StateBlock::AfterTimeline {
            let members = timeline.events.iter().filter(|placed| placed.event.is_member_event());
            users.extend(members.filter_map(|placed| placed.event.state_key.clone()));
        }
        MembersWanted::These(users)
    }

    /// Adds the members by whom the room is called, if the client loads members lazily.
    fn add_heroes(
        &self,
        states: &StateReader<'_, '_, '_>,
        room: RoomKey,
        summary: &Summary,
        state: &mut StateEvents,
    ) -> Result<(), StorageError> {
        let Some(heroes) = &summary.heroes else { return Ok(()) };
        if !self.question.filter.members.is_lazy() {
            return Ok(());
        }
        let sent = self.question.sent_members.as_ref().map(lazy_members::lock);
        let unknown: Vec<&str> = heroes
            .iter()
            .map(String::as_str)
            .filter(|hero| !sent.as_ref().is_some_and(|sent| sent.has(room, hero)))
            .collect();
        drop(sent);
        add_missing(state, states.members(unknown.into_iter())?);
        Ok(())
    }

    /// Remembers which members the client has after this response.
    fn note_members(&self, room: RoomKey, timeline: &Timeline, state: &[Arc<RenderedEvent>]) {
        if !self.question.filter.members.is_lazy() {
            return;
        }
        let Some(sent) = &self.question.sent_members else { return };
        let mut sent = lazy_members::lock(sent);
        let events = timeline.events.iter().map(|placed| &placed.event).chain(state);
        for event in events.filter(|event| event.is_member_event()) {
            if let Some(user_id) = &event.state_key {
                sent.note(room, user_id, self.upto());
            }
        }
    }

    fn account_data(
        &self,
        room: &ReaderRoom,
        is_known: bool,
        changed: Vec<AccountDataEntry>,
    ) -> Result<Vec<AccountDataEntry>, StorageError> {
        let filter = &self.question.filter.room_account_data;
        let mut entries = if is_known || self.question.since.is_none() {
            changed
        } else {
            account_data::of_room(self.txn, &self.question.user_id, &room.room_id)?
        };
        entries.retain(|entry| {
            filter.admits(EventFacts {
                event_type: &entry.event_type,
                sender: None,
                room_id: Some(&room.room_id),
                has_url: false,
            })
        });
        entries.truncate(filter.list_limit());
        Ok(entries)
    }

    fn ephemeral(&self, room: &ReaderRoom, is_known: bool) -> Result<Vec<Vec<u8>>, StorageError> {
        let Question { user_id, filter, typing, since, .. } = self.question;
        let admits = |event_type| {
            let room_id = Some(&*room.room_id);
            filter.ephemeral.admits(EventFacts {
                event_type,
                sender: None,
                room_id,
                has_url: false,
            })
        };
        let mut events = Vec::new();
        if let Some(users) = typing.rooms.get(&room.room_id)
            && admits("m.typing")
        {
            let mut out = Vec::new();
            ephemeral::write_typing(&mut out, users);
            events.push(out);
        }
        if admits("m.receipt") {
            let since = since.filter(|_| is_known).map_or(0, |at| at.position(Stream::Receipts));
            let upto = self.next_batch.position(Stream::Receipts);
            let news = if since < upto {
                receipts::of_room(self.txn, &room.room_id, user_id, since, upto)?
            } else {
                Vec::new()
            };
            if !news.is_empty() {
                let mut out = Vec::new();
                ephemeral::write_receipts(&mut out, &news);
                events.push(out);
            }
        }
        Ok(events)
    }
}

fn senders(timeline: &Timeline) -> impl Iterator<Item = &str> {
    let senders: BTreeSet<&str> =
        timeline.events.iter().map(|placed| &*placed.event.sender).collect();
    senders.into_iter()
}

/// Adds the events that are not in the list yet.
fn add_missing(state: &mut StateEvents, more: StateEvents) {
    for event in more {
        if state.iter().all(|known| known.key != event.key) {
            state.push(event);
        }
    }
}
