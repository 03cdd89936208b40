//! Sending and redacting: the hot path of a chat server.
//!
//! One job of the writer for each event, shared with whatever else waits: the event is built on the
//! room's head, signed, checked and stored there, and the answer comes with the commit.

use ropewalk::Failure;
use ruma::{EventId, OwnedEventId, RoomId, TransactionId};

use super::Refusal;
use super::rate_limits::Action as Limited;
use super::room_work::RoomWork;
use super::sessions::Requester;
use crate::events::ClientTransaction;
use crate::model::EventDraft;

#[cfg(test)]
mod tests;

/// Sends events that are not state.
#[derive(Clone)]
pub struct Messages {
    work: RoomWork,
}

/// One request to send something.
#[derive(Clone, Copy)]
pub(crate) struct Sending<'a> {
    pub(crate) who: &'a Requester,
    pub(crate) room_id: &'a RoomId,
    /// The client's name for the request: the same one again gets the same answer.
    pub(crate) txn_id: &'a TransactionId,
}

impl Messages {
    /// Works with `work`.
    pub fn new(work: RoomWork) -> Self {
        Self { work }
    }

    /// Sends an event with the content that the client wrote; returns its id.
    pub(crate) async fn send(
        &self,
        sending: Sending<'_>,
        event_type: &str,
        content: &str,
    ) -> Result<OwnedEventId, Failure> {
        let content = self.work.parse_content(content).await?;
        let who = sending.who.user_id.clone();
        let mut draft = EventDraft::message(who, event_type, content);
        if event_type == "m.room.redaction" {
            draft.redacts = Some(take_target(&mut draft)?);
        }
        self.write(sending, draft).await
    }

    /// Redacts an event; returns the id of the redaction.
    pub(crate) async fn redact(
        &self,
        sending: Sending<'_>,
        target: &EventId,
        reason: Option<String>,
    ) -> Result<OwnedEventId, Failure> {
        let who = sending.who.user_id.clone();
        self.write(sending, EventDraft::redaction(who, target.to_owned(), reason)).await
    }

    async fn write(
        &self,
        sending: Sending<'_>,
        draft: EventDraft,
    ) -> Result<OwnedEventId, Failure> {
        self.work.admit(Limited::Message, &sending.who.user_id)?;
        let room_id = sending.room_id.to_owned();
        let transaction = ClientTransaction {
            device_id: sending.who.device_id.to_string(),
            txn_id: sending.txn_id.to_string(),
        };
        self.work
            .write("send", move |txn, tools| {
                let sent =
                    tools.writer.send(txn, &room_id, draft, Some(&transaction), tools.now)?;
                Ok(sent.event_id)
            })
            .await
    }
}

/// Takes the target out of the content of a redaction that came as an ordinary event: where it goes is
/// for the room version to say.
fn take_target(draft: &mut EventDraft) -> Result<OwnedEventId, Refusal> {
    let target = draft.content.remove("redacts");
    target
        .as_ref()
        .and_then(|target| target.as_str())
        .and_then(|target| EventId::parse(target).ok())
        .ok_or_else(|| Refusal::bad_json("a redaction must name an event in `redacts`"))
}
