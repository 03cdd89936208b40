//! The room versions that this server speaks, and the rules of each.

use std::fmt;
use std::str::FromStr;

use ruma::RoomVersionId;
use ruma::room_version_rules::RoomVersionRules;

/// A room version that this server can create, join and serve.
///
/// Versions 1 to 5 are not among them: ruma makes no promise for their signatures, and version 1
/// resolves state in a way of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RoomVersion {
    /// Strict canonical JSON.
    V6,
    /// Knocking.
    V7,
    /// Restricted joins.
    V8,
    /// Keeps the authorising user of a join on redaction.
    V9,
    /// `knock_restricted`, integer power levels only.
    V10,
    /// Cleaned-up redaction; the creator is the sender of the create event.
    V11,
    /// The room id comes from the create event; creators have infinite power.
    V12,
}

/// Not a room version that this server speaks.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("room version {found:?} is not supported; this server speaks 6 to 12")]
pub struct UnsupportedRoomVersion {
    /// What was asked for.
    pub found: String,
}

impl RoomVersion {
    /// Every supported version, oldest first. All of them are stable in the specification.
    pub const ALL: [Self; 7] =
        [Self::V6, Self::V7, Self::V8, Self::V9, Self::V10, Self::V11, Self::V12];

    /// The version of new rooms unless the configuration or the request says otherwise.
    pub const DEFAULT: Self = Self::V12;

    /// Returns the version as events and capabilities spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V6 => "6",
            Self::V7 => "7",
            Self::V8 => "8",
            Self::V9 => "9",
            Self::V10 => "10",
            Self::V11 => "11",
            Self::V12 => "12",
        }
    }

    /// Returns ruma's name for the version.
    pub fn id(self) -> RoomVersionId {
        match self {
            Self::V6 => RoomVersionId::V6,
            Self::V7 => RoomVersionId::V7,
            Self::V8 => RoomVersionId::V8,
            Self::V9 => RoomVersionId::V9,
            Self::V10 => RoomVersionId::V10,
            Self::V11 => RoomVersionId::V11,
            Self::V12 => RoomVersionId::V12,
        }
    }

    /// Returns the version's rules.
    pub fn rules(self) -> &'static RoomVersionRules {
        match self {
            Self::V6 => &RoomVersionRules::V6,
            Self::V7 => &RoomVersionRules::V7,
            Self::V8 => &RoomVersionRules::V8,
            Self::V9 => &RoomVersionRules::V9,
            Self::V10 => &RoomVersionRules::V10,
            Self::V11 => &RoomVersionRules::V11,
            Self::V12 => &RoomVersionRules::V12,
        }
    }

    /// Returns whether the room's id is the hash of its create event.
    pub fn room_id_is_create_hash(self) -> bool {
        self.rules().authorization.room_create_event_id_as_room_id
    }

    /// Returns whether creators stand above all power levels.
    pub fn creators_are_privileged(self) -> bool {
        self.rules().authorization.explicitly_privilege_room_creators
    }

    /// Returns whether `redacts` of a redaction lives in its content rather than beside it.
    pub fn redacts_in_content(self) -> bool {
        self.rules().redaction.content_field_redacts
    }
}

impl fmt::Display for RoomVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RoomVersion {
    type Err = UnsupportedRoomVersion;

    fn from_str(text: &str) -> Result<Self, UnsupportedRoomVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| UnsupportedRoomVersion { found: text.to_owned() })
    }
}

impl TryFrom<&str> for RoomVersion {
    type Error = UnsupportedRoomVersion;

    fn try_from(text: &str) -> Result<Self, UnsupportedRoomVersion> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_agrees_with_ruma() {
        for version in RoomVersion::ALL {
            assert_eq!(version.id().as_str(), version.as_str());
            assert_eq!(version.as_str().parse(), Ok(version));
            let rules = version.id().rules().expect("known to ruma");
            assert_eq!(format!("{rules:?}"), format!("{:?}", version.rules()), "{version}");
        }
        for unknown in ["", "1", "5", "13", "06", "org.matrix.msc2870"] {
            assert!(unknown.parse::<RoomVersion>().is_err(), "{unknown}");
        }
    }
}
