//! What is shown in a room and not kept in it: who is typing, who has read how far.

use std::collections::BTreeMap;
use std::io::Write;

use ruma::OwnedUserId;

use crate::handlers::rendered::write_text;
use crate::storage::databases::main::receipts::Receipt;

/// Writes an `m.typing` event.
pub(crate) fn write_typing(out: &mut Vec<u8>, users: &[OwnedUserId]) {
    out.extend_from_slice(b"{\"type\":\"m.typing\",\"content\":{\"user_ids\":[");
    for (index, user_id) in users.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, user_id.as_str());
    }
    out.extend_from_slice(b"]}}");
}

/// Writes receipts of one room as one `m.receipt` event: by event, type and user.
///
/// Where somebody has read an event both in a thread and in the room as a whole, the later receipt
/// is shown: the event's form has one place for both.
pub(crate) fn write_receipts(out: &mut Vec<u8>, receipts: &[Receipt]) {
    type ByUser<'a> = BTreeMap<&'a str, &'a Receipt>;
    let mut by_event: BTreeMap<&str, BTreeMap<&str, ByUser<'_>>> = BTreeMap::new();
    for receipt in receipts {
        by_event
            .entry(receipt.event_id.as_str())
            .or_default()
            .entry(&receipt.receipt_type)
            .or_default()
            .insert(receipt.user_id.as_str(), receipt);
    }
    out.extend_from_slice(b"{\"type\":\"m.receipt\",\"content\":");
    write_map(out, by_event, |out, by_type| {
        write_map(out, by_type, |out, by_user| {
            write_map(out, by_user, |out, receipt| {
                // Writing to memory cannot fail.
                let _ = write!(out, "{{\"ts\":{}", receipt.ts);
                if !receipt.thread_id.is_empty() {
                    out.extend_from_slice(b",\"thread_id\":");
                    write_text(out, &receipt.thread_id);
                }
                out.push(b'}');
            });
        });
    });
    out.push(b'}');
}

fn write_map<V>(
    out: &mut Vec<u8>,
    map: BTreeMap<&str, V>,
    mut write_value: impl FnMut(&mut Vec<u8>, V),
) {
    for (index, (key, value)) in map.into_iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        write_text(out, key);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, user_id};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn typing_is_one_event() {
        let mut out = Vec::new();
        write_typing(&mut out, &[user_id!("@a:hs").to_owned(), user_id!("@b:hs").to_owned()]);
        let event: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({"type": "m.typing", "content": {"user_ids": ["@a:hs", "@b:hs"]}});
        assert_eq!(event, expected);
    }

    #[test]
    fn receipts_of_a_room_are_one_event() {
        let receipt =
            |receipt_type: &str, user_id: &ruma::UserId, thread_id: &str, event_id, ts| Receipt {
                receipt_type: receipt_type.to_owned(),
                user_id: user_id.to_owned(),
                thread_id: thread_id.to_owned(),
                event_id: ruma::EventId::to_owned(event_id),
                ts,
                stream_id: ts,
            };
        let receipts = [
            receipt("m.read", user_id!("@a:hs"), "", event_id!("$1"), 10),
            receipt("m.read", user_id!("@b:hs"), "main", event_id!("$1"), 11),
            receipt("m.read.private", user_id!("@a:hs"), "", event_id!("$1"), 12),
            receipt("m.read", user_id!("@a:hs"), "$root", event_id!("$2"), 13),
        ];
        let mut out = Vec::new();
        write_receipts(&mut out, &receipts);
        let event: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({"type": "m.receipt", "content": {
            "$1": {
                "m.read": {"@a:hs": {"ts": 10}, "@b:hs": {"ts": 11, "thread_id": "main"}},
                "m.read.private": {"@a:hs": {"ts": 12}},
            },
            "$2": {"m.read": {"@a:hs": {"ts": 13, "thread_id": "$root"}}},
        }});
        assert_eq!(event, expected);
    }
}
