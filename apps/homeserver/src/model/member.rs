//! Memberships, and what member events say about a user.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The membership of a user in a room.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Membership {
    /// Banned from the room.
    Ban,
    /// Invited and not answered yet.
    Invite,
    /// In the room.
    Join,
    /// Asked to be let in.
    Knock,
    /// Not in the room (any more).
    Leave,
}

impl Membership {
    /// Returns the word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Invite => "invite",
            Self::Join => "join",
            Self::Knock => "knock",
            Self::Leave => "leave",
        }
    }

    /// Reads the membership out of a member event's content; `None` if it has none that is known.
    pub fn of_content(content: &RawValue) -> Option<Self> {
        MemberContent::read(content).membership
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Membership {
    type Err = UnknownMembership;

    fn from_str(text: &str) -> Result<Self, UnknownMembership> {
        match text {
            "ban" => Ok(Self::Ban),
            "invite" => Ok(Self::Invite),
            "join" => Ok(Self::Join),
            "knock" => Ok(Self::Knock),
            "leave" => Ok(Self::Leave),
            _ => Err(UnknownMembership),
        }
    }
}

impl TryFrom<&str> for Membership {
    type Error = UnknownMembership;

    fn try_from(text: &str) -> Result<Self, UnknownMembership> {
        text.parse()
    }
}

/// The text is none of the five memberships.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a membership: one of ban, invite, join, knock, leave was expected")]
pub struct UnknownMembership;

/// The fields of a member event that servers read; each is `None` if absent or of a wrong type.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MemberContent {
    /// The membership.
    pub membership: Option<Membership>,
    /// The name shown in this room.
    pub displayname: Option<String>,
    /// The picture shown in this room.
    pub avatar_url: Option<String>,
    /// Whether an invite is to a direct chat.
    pub is_direct: bool,
}

impl MemberContent {
    /// Reads the content of a member event, whatever is in it.
    pub fn read(content: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            membership: Option<&'a RawValue>,
            #[serde(borrow, default)]
            displayname: Option<&'a RawValue>,
            #[serde(borrow, default)]
            avatar_url: Option<&'a RawValue>,
            #[serde(borrow, default)]
            is_direct: Option<&'a RawValue>,
        }
        fn text(value: Option<&RawValue>) -> Option<String> {
            serde_json::from_str(value?.get()).ok()
        }
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(content.get()) else {
            return Self::default();
        };
        Self {
            membership: text(fields.membership).and_then(|word| word.parse().ok()),
            displayname: text(fields.displayname),
            avatar_url: text(fields.avatar_url),
            is_direct: fields.is_direct.is_some_and(|value| value.get() == "true"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_types_read_as_absent() {
        for (text, expected) in [
            (r#"{"membership":"join"}"#, Some(Membership::Join)),
            (r#"{"membership":"joined"}"#, None),
            (r#"{"membership":7}"#, None),
            (r#"{"membership":null}"#, None),
            ("{}", None),
        ] {
            let content: &RawValue = serde_json::from_str(text).unwrap();
            assert_eq!(Membership::of_content(content), expected, "{text}");
        }
        let odd =
            r#"{"membership":"invite","displayname":["a"],"avatar_url":"mxc://a/b","is_direct":1}"#;
        let read = MemberContent::read(serde_json::from_str(odd).unwrap());
        assert_eq!(read.membership, Some(Membership::Invite));
        assert_eq!(read.displayname, None);
        assert_eq!(read.avatar_url.as_deref(), Some("mxc://a/b"));
        assert!(!read.is_direct);
        for membership in ["ban", "invite", "join", "knock", "leave"] {
            assert_eq!(membership.parse::<Membership>().unwrap().as_str(), membership);
        }
    }
}
