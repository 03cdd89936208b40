//! `rooms/{roomId}/receipt` and `rooms/{roomId}/read_markers`: saying how far one has read.

use ruma::api::client::read_marker::set_read_marker;
use ruma::api::client::receipt::create_receipt::v3::{self, ReceiptType};
use ruma::events::receipt::ReceiptThread;

use crate::api::router::{Call, Router};
use crate::handlers::receipts::{Mark, Receipts};
use crate::handlers::sessions::Requester;

/// Adds the routes.
pub(crate) fn routes(router: &mut Router, receipts: &Receipts) {
    let one = receipts.clone();
    router.add(move |call: Call<Requester>, request: v3::Request| {
        let receipts = one.clone();
        async move {
            let v3::Request { room_id, receipt_type, event_id, thread, .. } = request;
            let mark = Mark { receipt_type, event_id, thread };
            receipts.mark(call.who.user_id, room_id, vec![mark]).await?;
            Ok(v3::Response::new())
        }
    });

    let several = receipts.clone();
    router.add(move |call: Call<Requester>, request: set_read_marker::v3::Request| {
        let receipts = several.clone();
        async move {
            let marks = [
                (ReceiptType::FullyRead, request.fully_read),
                (ReceiptType::Read, request.read_receipt),
                (ReceiptType::ReadPrivate, request.private_read_receipt),
            ];
            let marks = marks
                .into_iter()
                .filter_map(|(receipt_type, event_id)| {
                    let thread = ReceiptThread::Unthreaded;
                    Some(Mark { receipt_type, event_id: event_id?, thread })
                })
                .collect();
            receipts.mark(call.who.user_id, request.room_id, marks).await?;
            Ok(set_read_marker::v3::Response::new())
        }
    });
}
