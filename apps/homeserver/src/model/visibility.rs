//! Who may see an event: history visibility as a function of state, without any state at hand.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::member::Membership;

/// The setting of `m.room.history_visibility` at an event.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HistoryVisibility {
    /// From one's invitation on.
    Invited,
    /// From one's joining on.
    Joined,
    /// Everything, for everybody who joins; also when nothing or nothing sensible is set.
    #[default]
    Shared,
    /// Everything, for everybody.
    WorldReadable,
}

impl HistoryVisibility {
    /// Reads the setting out of the event's content; unknown values mean shared.
    pub fn of_content(content: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            history_visibility: Option<&'a RawValue>,
        }
        let word = serde_json::from_str::<Fields<'_>>(content.get())
            .ok()
            .and_then(|fields| fields.history_visibility);
        match word.map(RawValue::get) {
            Some(r#""invited""#) => Self::Invited,
            Some(r#""joined""#) => Self::Joined,
            Some(r#""world_readable""#) => Self::WorldReadable,
            _ => Self::Shared,
        }
    }
}

/// Returns whether a user may see an event.
///
/// `visibility` is the setting at the event and `membership` the user's there (`None`: never had
/// one); `joined_since` says whether the user has been joined at any time from then on.
pub fn may_see(
    visibility: HistoryVisibility,
    membership: Option<Membership>,
    joined_since: bool,
) -> bool {
    match (visibility, membership) {
        (HistoryVisibility::WorldReadable, _) | (_, Some(Membership::Join)) => true,
        (HistoryVisibility::Shared, _) => joined_since,
        (HistoryVisibility::Invited, Some(Membership::Invite)) => true,
        (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use Membership::{Ban, Invite, Join, Knock, Leave};

    #[test]
    fn the_table_of_the_specification() {
        let rows: &[(HistoryVisibility, Option<Membership>, bool, bool)] = &[
            // visibility, membership then, joined since, may see
            (WorldReadable, None, false, true),
            (WorldReadable, Some(Ban), false, true),
            (Shared, Some(Join), false, true),
            (Shared, Some(Leave), true, true),
            (Shared, None, true, true),
            (Shared, Some(Invite), false, false),
            (Shared, None, false, false),
            (Invited, Some(Invite), false, true),
            (Invited, Some(Join), false, true),
            (Invited, Some(Knock), true, false),
            (Invited, None, true, false),
            (Joined, Some(Join), false, true),
            (Joined, Some(Invite), true, false),
            (Joined, Some(Leave), true, false),
            (Joined, None, true, false),
        ];
        for (visibility, membership, joined_since, expected) in rows {
            let seen = may_see(*visibility, *membership, *joined_since);
            assert_eq!(seen, *expected, "{visibility:?} {membership:?} {joined_since}");
        }
    }

    #[test]
    fn what_is_not_known_is_shared() {
        for (text, expected) in [
            (r#"{"history_visibility":"joined"}"#, Joined),
            (r#"{"history_visibility":"invited"}"#, Invited),
            (r#"{"history_visibility":"world_readable"}"#, WorldReadable),
            (r#"{"history_visibility":"shared"}"#, Shared),
            (r#"{"history_visibility":"secret"}"#, Shared),
            (r#"{"history_visibility":1}"#, Shared),
            ("{}", Shared),
        ] {
            let content: &RawValue = serde_json::from_str(text).unwrap();
            assert_eq!(HistoryVisibility::of_content(content), expected, "{text}");
        }
    }
}
