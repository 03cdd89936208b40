//! Power levels of a room at one point: what users have, and what actions need.
//!
//! Read with ruma's lenient readers, because rooms may hold power levels that the strict types
//! refuse, and with the creators, of whom those readers know nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::events::TimelineEventType;
use ruma::events::room::power_levels::UserPowerLevel;
use ruma::state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField};
use ruma::{Int, OwnedUserId, UserId};

use super::auth::Forbidden;
use super::event::Pdu;
use super::room_version::RoomVersion;

/// A creator's level in versions before 12, while there is no power-levels event.
const CREATOR_LEVEL: i32 = 100;

/// What can be done in a room that has a level of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Ban a user of lower level, and unban.
    Ban,
    /// Invite.
    Invite,
    /// Kick a user of lower level.
    Kick,
    /// Redact what others wrote.
    Redact,
}

/// The power levels that hold at one point of a room.
#[derive(Clone, Debug)]
pub struct PowerLevels {
    version: RoomVersion,
    creators: BTreeSet<OwnedUserId>,
    event: Option<RoomPowerLevelsEvent<Arc<Pdu>>>,
}

impl PowerLevels {
    /// Reads them from the room's create event and its power-levels event, if it has one.
    ///
    /// # Errors
    ///
    /// [`Forbidden`] if the create event does not say who the creators are.
    pub fn new(
        version: RoomVersion,
        create: &Arc<Pdu>,
        power_levels: Option<Arc<Pdu>>,
    ) -> Result<Self, Forbidden> {
        let creators = RoomCreateEvent::new(create.clone())
            .creators(&version.rules().authorization)
            .map_err(Forbidden::new)?;
        let creators = creators.into_iter().collect();
        Ok(Self { version, creators, event: power_levels.map(RoomPowerLevelsEvent::new) })
    }

    /// Returns the room's creators: one before version 12.
    pub fn creators(&self) -> &BTreeSet<OwnedUserId> {
        &self.creators
    }

    /// Returns the level of a user.
    ///
    /// # Errors
    ///
    /// [`Forbidden`] if the power-levels event cannot be read.
    pub fn of_user(&self, user_id: &UserId) -> Result<UserPowerLevel, Forbidden> {
        let is_creator = self.creators.contains(user_id);
        if is_creator && self.version.creators_are_privileged() {
            return Ok(UserPowerLevel::Infinite);
        }
        let level = match &self.event {
            Some(event) => event
                .user_power_level(user_id, &self.version.rules().authorization)
                .map_err(Forbidden::new)?,
            None if is_creator => Int::from(CREATOR_LEVEL),
            None => Int::from(0),
        };
        Ok(level.into())
    }

    /// Returns the level that an action needs.
    ///
    /// # Errors
    ///
    /// [`Forbidden`] if the power-levels event cannot be read.
    pub fn for_action(&self, action: Action) -> Result<Int, Forbidden> {
        let field = match action {
            Action::Ban => RoomPowerLevelsIntField::Ban,
            Action::Invite => RoomPowerLevelsIntField::Invite,
            Action::Kick => RoomPowerLevelsIntField::Kick,
            Action::Redact => RoomPowerLevelsIntField::Redact,
        };
        match &self.event {
            Some(event) => event
                .get_as_int_or_default(field, &self.version.rules().authorization)
                .map_err(Forbidden::new),
            None => Ok(field.default_value()),
        }
    }

    /// Returns the level that sending an event needs.
    ///
    /// # Errors
    ///
    /// [`Forbidden`] if the power-levels event cannot be read.
    pub fn for_event(&self, event_type: &str, state_key: Option<&str>) -> Result<Int, Forbidden> {
        match &self.event {
            Some(event) => event
                .event_power_level(
                    &TimelineEventType::from(event_type),
                    state_key,
                    &self.version.rules().authorization,
                )
                .map_err(Forbidden::new),
            None if state_key.is_some() => {
                Ok(RoomPowerLevelsIntField::StateDefault.default_value())
            }
            None => Ok(RoomPowerLevelsIntField::EventsDefault.default_value()),
        }
    }

    /// Returns whether a user's level suffices for an action, whoever it is aimed at.
    ///
    /// # Errors
    ///
    /// [`Forbidden`] if the power-levels event cannot be read.
    pub fn allow(&self, user_id: &UserId, action: Action) -> Result<bool, Forbidden> {
        Ok(self.of_user(user_id)? >= self.for_action(action)?)
    }

    /// Returns whether a user's level suffices for sending an event. Membership is not looked at.
    ///
    /// # Errors
    ///
    /// [`Forbidden`] if the power-levels event cannot be read.
    pub fn allow_event(
        &self,
        user_id: &UserId,
        event_type: &str,
        state_key: Option<&str>,
    ) -> Result<bool, Forbidden> {
        Ok(self.of_user(user_id)? >= self.for_event(event_type, state_key)?)
    }
}
