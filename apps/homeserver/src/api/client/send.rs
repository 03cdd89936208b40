//! `send` and `redact`.

use ruma::api::client::message::send_message_event;
use ruma::api::client::redact::redact_event;

use crate::api::router::{Call, Router};
use crate::handlers::Refusal;
use crate::handlers::messages_send::{Messages, Sending};
use crate::handlers::sessions::Requester;

/// The place of the event's type among the arguments of `send`'s path.
const EVENT_TYPE: usize = 1;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, messages: &Messages) {
    let sender = messages.clone();
    router.add(move |call: Call<Requester>, request: send_message_event::v3::Request| {
        let messages = sender.clone();
        async move {
            let sending =
                Sending { who: &call.who, room_id: &request.room_id, txn_id: &request.txn_id };
            check_content(&call.body)?;
            // The type as the path spells it: ruma's would take it for another one's alias.
            let event_type = call.argument(EVENT_TYPE);
            let event_id = messages.send(sending, event_type, request.body.json().get()).await?;
            Ok(send_message_event::v3::Response::new(event_id))
        }
    });
    let redactor = messages.clone();
    router.add(move |call: Call<Requester>, request: redact_event::v3::Request| {
        let messages = redactor.clone();
        async move {
            let sending =
                Sending { who: &call.who, room_id: &request.room_id, txn_id: &request.txn_id };
            let event_id = messages.redact(sending, &request.event_id, request.reason).await?;
            Ok(redact_event::v3::Response::new(event_id))
        }
    });
}

/// Refuses a request without a body, which ruma would take for an empty object: an event's content is
/// for the client to say.
pub(super) fn check_content(body: &[u8]) -> Result<(), Refusal> {
    match body {
        [] => Err(Refusal::not_json("the body must be the event's content, a JSON object")),
        _ => Ok(()),
    }
}
