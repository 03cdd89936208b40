//! Answers put together on the loop, from the tails of rooms, without asking the database.
//!
//! Only for what most polls bring: a few new messages or receipts, or somebody typing, in rooms that
//! the reader has been in all the time. Whatever is out of the ordinary is left to a [`Question`].
//!
//! [`Question`]: super::question::Question

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use ruma::OwnedUserId;

use super::body::{self, RoomSection, SectionKind};
use super::client_sync::SyncRequest;
use super::filter::{EventFacts, EventForm, Members};
use super::lazy_members::{self, SharedSentMembers};
use super::question::TypingNews;
use super::tails::Tail;
use super::timeline::Timeline;
use super::{StateBlock, ephemeral};
use crate::handlers::rendered::{Reading, RenderedEvent};
use crate::handlers::unread::UnreadCache;
use crate::storage::databases::main::receipts::Receipt;
use crate::streams::{RoomPlace, Stream, StreamToken};

/// The most rooms with news, and the most events, that one answer is put together from on the loop:
/// more takes too long there.
pub(super) const ROOMS_MAX: usize = 20;
const EVENTS_MAX: usize = 100;

/// What an answer from memory is made of.
pub(super) struct FromMemory<'a> {
    pub(super) request: &'a SyncRequest,
    pub(super) since: StreamToken,
    pub(super) upto: StreamToken,
    pub(super) typing: &'a TypingNews,
    pub(super) ignored: &'a BTreeSet<OwnedUserId>,
    pub(super) sent_members: Option<&'a SharedSentMembers>,
    pub(super) unread: &'a UnreadCache,
    pub(super) now_ms: i64,
}

/// Whether a request is of the kind that can be answered from memory.
pub(super) fn is_ordinary(request: &SyncRequest) -> bool {
    !request.full_state
        && request.filter.form == EventForm::default()
        && request.filter.members != Members::LazyRedundant
}

impl FromMemory<'_> {
    /// Puts the answer together. Gives its body, or nothing at all if nothing in it is new; `None` if it
    /// takes the database.
    pub(super) fn answer(
        &self,
        tails: &BTreeMap<&ruma::RoomId, Rc<Tail>>,
    ) -> Option<Option<Vec<u8>>> {
        let mut joined = Vec::new();
        let mut event_count = 0;
        let reading = Reading {
            user_id: &self.request.user_id,
            device_id: self.request.device_id.as_deref(),
            now_ms: self.now_ms,
            room_id: None,
        };
        for (room_id, tail) in tails {
            let section = self.room(room_id, tail)?;
            event_count += section.timeline.events.len();
            if event_count > EVENTS_MAX {
                return None;
            }
            if !section.is_empty() {
                body::begin_entry(&mut joined, room_id);
                let kind = SectionKind { block: self.request.block, is_joined: true };
                section.write(&mut joined, kind, &self.request.filter.form, reading);
            }
        }
        if joined.is_empty() {
            return Some(None);
        }
        let mut out = Vec::with_capacity(joined.len() + 400);
        body::begin(&mut out, &self.upto);
        out.extend_from_slice(b",\"account_data\":{\"events\":[]},\"rooms\":{\"join\":{");
        out.extend_from_slice(&joined);
        out.extend_from_slice(b"}}}");
        Some(Some(out))
    }

    fn room(&self, room_id: &ruma::RoomId, tail: &Tail) -> Option<RoomSection> {
        let filter = &self.request.filter;
        let mut events = Vec::new();
        for placed in tail.events(&self.since, &self.upto) {
            let event = &placed.event;
            // Who comes and goes changes the summary, and whom a device must know.
            if event.is_member_event() {
                return None;
            }
            let is_state = event.state_key.is_some();
            let is_wanted = filter.timeline.admits(event.facts(room_id));
            if is_state && !is_wanted {
                // It would have to be told beside the timeline.
                return None;
            }
            let is_ignored = !is_state && self.is_ignored(&event.sender);
            if is_wanted && !is_ignored {
                if !self.knows_sender(tail, &event.sender) {
                    return None;
                }
                events.push(placed.clone());
            }
        }
        if events.len() > filter.timeline_limit() {
            return None;
        }
        let state = match self.request.block {
            StateBlock::AfterTimeline => self.last_states(room_id, tail),
            StateBlock::BeforeTimeline => Vec::new(),
        };
        let prev_batch = match events.first() {
            Some(first) => first.place_before(),
            None => RoomPlace::Live { stream: self.upto.position(Stream::Events) },
        };
        let reader = &self.request.user_id;
        let has_read =
            tail.receipts(&self.since, &self.upto).any(|receipt| receipt.user_id == *reader);
        if has_read {
            return None;
        }
        let is_quiet = events.is_empty();
        let unread = if is_quiet {
            None
        } else {
            let upto = self.upto.position(Stream::Events);
            let reach = (tail.complete_from(), upto);
            let news = tail.events_upto(&self.upto);
            Some(self.unread.count_on(reader, tail.room, reach, news)?)
        };
        Some(RoomSection {
            timeline: Timeline { events, limited: false, prev_batch, is_quiet },
            state,
            account_data: Vec::new(),
            ephemeral: self.ephemeral(room_id, tail),
            summary: None,
            unread,
        })
    }

    fn is_ignored(&self, sender: &str) -> bool {
        !self.ignored.is_empty() && self.ignored.iter().any(|ignored| ignored.as_str() == sender)
    }

    /// Whether the device has, or does not need, the sender's member event.
    fn knows_sender(&self, tail: &Tail, sender: &str) -> bool {
        !self.request.filter.members.is_lazy()
            || self.sent_members.is_some_and(|sent| {
                let since = self.since.position(Stream::Events);
                lazy_members::lock(sent).had(tail.room, sender, since)
            })
    }

    /// Returns the last event of each entry of the state that has changed.
    fn last_states(&self, room_id: &ruma::RoomId, tail: &Tail) -> Vec<Arc<RenderedEvent>> {
        let mut last: BTreeMap<(&str, &str), &Arc<RenderedEvent>> = BTreeMap::new();
        for placed in tail.events(&self.since, &self.upto) {
            if let Some(state_key) = &placed.event.state_key {
                last.insert((&placed.event.event_type, state_key), &placed.event);
            }
        }
        last.into_values()
            .filter(|event| self.request.filter.state.admits(event.facts(room_id)))
            .map(Arc::clone)
            .collect()
    }

    fn ephemeral(&self, room_id: &ruma::RoomId, tail: &Tail) -> Vec<Vec<u8>> {
        let admits = |event_type| {
            let facts =
                EventFacts { event_type, sender: None, room_id: Some(room_id), has_url: false };
            self.request.filter.ephemeral.admits(facts)
        };
        let mut events = Vec::new();
        if let Some(users) = self.typing.rooms.get(room_id)
            && admits("m.typing")
        {
            let mut out = Vec::new();
            ephemeral::write_typing(&mut out, users);
            events.push(out);
        }
        let reader = &*self.request.user_id;
        // Of several receipts for one thing the last counts.
        let mut last: BTreeMap<(&str, &str, &str), &Receipt> = BTreeMap::new();
        for receipt in tail.receipts(&self.since, &self.upto) {
            if receipt.receipt_type != "m.read.private" || receipt.user_id == reader {
                let Receipt { receipt_type, user_id, thread_id, .. } = receipt;
                last.insert((receipt_type, user_id.as_str(), thread_id), receipt);
            }
        }
        let news: Vec<Receipt> = last.into_values().cloned().collect();
        if !news.is_empty() && admits("m.receipt") {
            let mut out = Vec::new();
            ephemeral::write_receipts(&mut out, &news);
            events.push(out);
        }
        events
    }
}
