//! The summary of a room: how many are in it, and by whom to call it if it has no name.

use std::io::Write;

use ruma::UserId;
use serde_json::Value;

use crate::handlers::rendered::write_text;
use crate::storage::StorageError;
use crate::storage::databases::main::{current_state, shown_events};
use crate::storage::engine::{Txn, params};
use crate::storage::keys::RoomKey;

/// How many people a room without a name is called by.
const HEROES_MAX: usize = 5;

/// The summary of a room for one reader.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Summary {
    /// User ids; `None` if the room has a name or an alias.
    pub(super) heroes: Option<Vec<String>>,
    pub(super) joined_count: usize,
    pub(super) invited_count: usize,
}

impl Summary {
    /// Reads the summary of a room as it is now.
    pub(super) fn read(
        txn: &Txn<'_>,
        room: RoomKey,
        reader: &UserId,
    ) -> Result<Self, StorageError> {
        let mut summary = Self::default();
        let mut present = Vec::new();
        let mut gone = Vec::new();
        txn.query_each(
            "SELECT state_key, membership, event FROM current_state
             WHERE room = ?1 AND type = 'm.room.member'",
            params![room],
            |row| {
                let membership: Option<&str> = row.get(1)?;
                let list = match membership {
                    Some("join") => {
                        summary.joined_count += 1;
                        &mut present
                    }
                    Some("invite") => {
                        summary.invited_count += 1;
                        &mut present
                    }
                    Some("leave" | "ban") => &mut gone,
                    _ => return Ok(()),
                };
                let user_id: &str = row.get(0)?;
                if user_id != reader.as_str() {
                    let event: i64 = row.get(2)?;
                    keep_first(list, (event, user_id));
                }
                Ok(())
            },
        )?;
        if !has_name(txn, room)? {
            let heroes = if present.is_empty() { gone } else { present };
            summary.heroes = Some(heroes.into_iter().map(|(_, user_id)| user_id).collect());
        }
        Ok(summary)
    }

    /// Writes it as a JSON object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        if let Some(heroes) = &self.heroes {
            out.extend_from_slice(b"\"m.heroes\":[");
            for (index, hero) in heroes.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(out, hero);
            }
            out.extend_from_slice(b"],");
        }
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            "\"m.joined_member_count\":{},\"m.invited_member_count\":{}}}",
            self.joined_count, self.invited_count
        );
    }
}

/// Keeps the [`HEROES_MAX`] members whose membership is oldest, in that order.
fn keep_first(list: &mut Vec<(i64, String)>, (event, user_id): (i64, &str)) {
    let at = list.partition_point(|(kept, _)| *kept < event);
    if at < HEROES_MAX {
        list.truncate(HEROES_MAX - 1);
        list.insert(at, (event, user_id.to_owned()));
    }
}

/// Whether clients call the room by a name or an alias that it has.
fn has_name(txn: &Txn<'_>, room: RoomKey) -> Result<bool, StorageError> {
    for (event_type, field) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
        let Some(event) = current_state::entry(txn, room, event_type, "")? else { continue };
        let event: Value = shown_events::by_key(txn, event, |row| {
            serde_json::from_str(row.json()?)
                .map_err(|_| StorageError::damaged("the JSON of an event cannot be read"))
        })?;
        if event["content"][field].as_str().is_some_and(|name| !name.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_oldest_memberships_are_kept_in_order() {
        let mut list = Vec::new();
        for event in [5, 3, 9, 1, 7, 2, 8] {
            keep_first(&mut list, (event, &format!("@{event}:hs")));
        }
        let events: Vec<i64> = list.iter().map(|(event, _)| *event).collect();
        assert_eq!(events, [1, 2, 3, 5, 7]);
    }

    #[test]
    fn the_summary_is_json() {
        let mut out = Vec::new();
        let heroes = Some(vec!["@a:hs".to_owned(), "@b:hs".to_owned()]);
        Summary { heroes, joined_count: 3, invited_count: 1 }.write(&mut out);
        let summary: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            summary,
            serde_json::json!({
                "m.heroes": ["@a:hs", "@b:hs"],
                "m.joined_member_count": 3,
                "m.invited_member_count": 1,
            })
        );
    }
}
