//! Member events of our own users: what is in them.

use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, UserId};

use crate::model::{EventDraft, Membership};
use crate::storage::StorageError;
use crate::storage::databases::main::profiles;
use crate::storage::engine::Txn;

/// The part of a profile that rooms show.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Profile {
    pub(crate) displayname: Option<String>,
    pub(crate) avatar_url: Option<String>,
}

impl Profile {
    /// Returns the profile of one of our users.
    pub(crate) fn of(txn: &Txn<'_>, user_id: &UserId) -> Result<Self, StorageError> {
        let (displayname, avatar_url) = profiles::of_member(txn, user_id)?;
        Ok(Self { displayname, avatar_url })
    }
}

/// A member event in the making.
pub(crate) struct MemberDraft {
    sender: OwnedUserId,
    target: OwnedUserId,
    content: CanonicalJsonObject,
}

impl MemberDraft {
    pub(crate) fn new(sender: &UserId, target: &UserId, membership: Membership) -> Self {
        let content = [("membership".to_owned(), text(membership.as_str()))].into();
        Self { sender: sender.to_owned(), target: target.to_owned(), content }
    }

    /// Shows the target's profile.
    pub(crate) fn profile(self, profile: Profile) -> Self {
        self.set("displayname", profile.displayname).set("avatar_url", profile.avatar_url)
    }

    /// Says why.
    pub(crate) fn reason(self, reason: Option<String>) -> Self {
        self.set("reason", reason)
    }

    /// Says, in an invitation, that the room is for talking to one person.
    pub(crate) fn direct(mut self, is_direct: bool) -> Self {
        if is_direct {
            self.content.insert("is_direct".to_owned(), CanonicalJsonValue::Bool(true));
        }
        self
    }

    /// Names the user whose power lets the target into a restricted room.
    pub(crate) fn authorised_by(self, user_id: Option<OwnedUserId>) -> Self {
        self.set("join_authorised_via_users_server", user_id.map(String::from))
    }

    pub(crate) fn finish(self) -> EventDraft {
        EventDraft::state(self.sender, "m.room.member", self.target.as_str(), self.content)
    }

    fn set(mut self, field: &str, value: Option<String>) -> Self {
        if let Some(value) = value {
            self.content.insert(field.to_owned(), CanonicalJsonValue::String(value));
        }
        self
    }
}

fn text(text: &str) -> CanonicalJsonValue {
    CanonicalJsonValue::String(text.to_owned())
}
