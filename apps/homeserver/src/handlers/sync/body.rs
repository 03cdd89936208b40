//! The JSON of a `/sync` response, written piece by piece as the pieces are found.

use std::io::Write;
use std::sync::Arc;

use super::StateBlock;
use super::filter::EventForm;
use super::summary::Summary;
use super::timeline::Timeline;
use crate::handlers::rendered::{Reading, RenderedEvent, write_list, write_text};
use crate::handlers::unread::Unread;
use crate::storage::databases::main::account_data::AccountDataEntry;
use crate::streams::StreamToken;

/// Parts that every response has: what end-to-end encryption and presence will fill. A client that
/// gets no key counts thinks that the server lost its keys.
const ALWAYS: &[u8] = b"\"device_lists\":{\"changed\":[],\"left\":[]},\
    \"device_one_time_keys_count\":{\"signed_curve25519\":0},\
    \"device_unused_fallback_key_types\":[],\
    \"presence\":{\"events\":[]},\"to_device\":{\"events\":[]}";

/// Writes the response in which nothing is new.
pub(super) fn nothing_new(next_batch: &StreamToken) -> Vec<u8> {
    let mut out = Vec::with_capacity(ALWAYS.len() + 100);
    begin(&mut out, next_batch);
    out.push(b'}');
    out
}

/// Writes what every response has, up to the brace that ends it.
pub(super) fn begin(out: &mut Vec<u8>, next_batch: &StreamToken) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{{\"next_batch\":\"{next_batch}\",");
    out.extend_from_slice(ALWAYS);
}

/// Writes a list of events as an object's member: `,"name":{"events":[..]}`.
pub(super) fn write_events<T>(
    out: &mut Vec<u8>,
    name: &str,
    events: impl IntoIterator<Item = T>,
    write: impl FnMut(&mut Vec<u8>, T),
) {
    begin_member(out, name);
    out.extend_from_slice(b"{\"events\":");
    write_list(out, events, write);
    out.push(b'}');
}

/// Writes the name of an object's member, behind a comma unless it is the first.
pub(super) fn begin_member(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_text(out, name);
    out.push(b':');
}

/// Writes an entry of account data as an event.
pub(super) fn write_account_data(out: &mut Vec<u8>, entry: &AccountDataEntry) {
    out.extend_from_slice(b"{\"type\":");
    write_text(out, &entry.event_type);
    out.extend_from_slice(b",\"content\":");
    out.extend_from_slice(entry.content.as_bytes());
    out.push(b'}');
}

/// A room that the reader is in, or was in.
pub(super) struct RoomSection {
    pub(super) timeline: Timeline,
    pub(super) state: Vec<Arc<RenderedEvent>>,
    pub(super) account_data: Vec<AccountDataEntry>,
    /// Finished JSON of ephemeral events.
    pub(super) ephemeral: Vec<Vec<u8>>,
    pub(super) summary: Option<Summary>,
    pub(super) unread: Option<Unread>,
}

impl RoomSection {
    /// Whether there is nothing in it that the client does not know.
    pub(super) fn is_empty(&self) -> bool {
        self.timeline.events.is_empty()
            && !self.timeline.limited
            && self.state.is_empty()
            && self.account_data.is_empty()
            && self.ephemeral.is_empty()
            && self.summary.is_none()
    }

    /// Writes the section's JSON object.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        kind: SectionKind,
        form: &EventForm,
        reading: Reading<'_>,
    ) {
        out.extend_from_slice(b"{\"timeline\":{\"events\":");
        write_list(out, &self.timeline.events, |out, placed| {
            placed.event.write_as(out, form, reading);
        });
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            ",\"limited\":{},\"prev_batch\":\"{}\"}}",
            self.timeline.limited, self.timeline.prev_batch
        );
        let SectionKind { block, is_joined } = kind;
        let name = match block {
            StateBlock::AfterTimeline => "state_after",
            StateBlock::BeforeTimeline => "state",
        };
        write_events(out, name, &self.state, |out, event| event.write_as(out, form, reading));
        write_events(out, "account_data", &self.account_data, write_account_data);
        if is_joined {
            write_events(out, "ephemeral", &self.ephemeral, |out, event| {
                out.extend_from_slice(event);
            });
            if let Some(summary) = &self.summary {
                begin_member(out, "summary");
                summary.write(out);
            }
            if let Some(unread) = self.unread {
                let _ = write!(
                    out,
                    ",\"unread_notifications\":\
                     {{\"highlight_count\":{},\"notification_count\":{}}}",
                    unread.highlight_count, unread.notify_count
                );
            }
        }
        out.push(b'}');
    }
}

/// Which sort of room section is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct SectionKind {
    pub(super) block: StateBlock,
    pub(super) is_joined: bool,
}

/// Writes the name of a room's entry, behind a comma unless it is the first.
pub(super) fn begin_entry(out: &mut Vec<u8>, room_id: &ruma::RoomId) {
    if !out.is_empty() {
        out.push(b',');
    }
    write_text(out, room_id.as_str());
    out.push(b':');
}
