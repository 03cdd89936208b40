//! Which member events a device has been sent, so that lazy loading need not repeat them.
//!
//! What was sent counts only once the client has shown that it got it, by asking with a later token:
//! a response that was lost on the way is asked for again with the old one, and must hold the same
//! members again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::storage::keys::RoomKey;

/// How many members are remembered for one device. Past that it is sent some a second time.
const MEMBERS_PER_DEVICE_MAX: usize = 2_000;

/// How many devices are remembered. One that was forgotten is sent its members a second time.
const DEVICES_MAX: usize = 5_000;

/// What one device has been sent.
#[derive(Debug, Default)]
pub(crate) struct SentMembers {
    /// By room and user: the events position of the `next_batch` of the response that had it.
    sent: BTreeMap<(RoomKey, Box<str>), i64>,
}

impl SentMembers {
    /// Begins a response to a request that asks from `since`: what was sent later did not arrive.
    pub(crate) fn begin(&mut self, since: Option<i64>) {
        match since {
            Some(since) => self.sent.retain(|_, at| *at <= since),
            None => self.sent.clear(),
        }
    }

    /// Whether the device has a member event of this user in this room. A later one reaches it by the
    /// timeline or, over a gap, among the state that changed.
    pub(crate) fn has(&self, room: RoomKey, user_id: &str) -> bool {
        self.sent.contains_key(&(room, Box::from(user_id)))
    }

    /// As [`has`](Self::has), for a request that asks from `since`.
    pub(crate) fn had(&self, room: RoomKey, user_id: &str, since: i64) -> bool {
        self.sent.get(&(room, Box::from(user_id))).is_some_and(|&at| at <= since)
    }

    /// Notes that a response up to position `at` holds this member event.
    pub(crate) fn note(&mut self, room: RoomKey, user_id: &str, at: i64) {
        if self.sent.len() >= MEMBERS_PER_DEVICE_MAX {
            self.sent.clear();
        }
        self.sent.insert((room, user_id.into()), at);
    }
}

/// One device's memory, shared with the database job that answers it.
pub(crate) type SharedSentMembers = Arc<Mutex<SentMembers>>;

/// Locks a device's memory. A panic elsewhere leaves at worst a member too many in it.
pub(crate) fn lock(shared: &SharedSentMembers) -> std::sync::MutexGuard<'_, SentMembers> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every device has been sent.
#[derive(Debug, Default)]
pub(crate) struct LazyMembers {
    devices: BTreeMap<(OwnedUserId, OwnedDeviceId), (u64, SharedSentMembers)>,
    /// When each device was asked for last, oldest first.
    by_use: BTreeMap<u64, (OwnedUserId, OwnedDeviceId)>,
    uses: u64,
}

impl LazyMembers {
    /// Returns the memory of one device, empty if there was none.
    pub(crate) fn of(&mut self, user_id: &UserId, device_id: &DeviceId) -> SharedSentMembers {
        self.uses += 1;
        let device = (user_id.to_owned(), device_id.to_owned());
        let (used, sent) = self.devices.entry(device.clone()).or_default();
        self.by_use.remove(used);
        *used = self.uses;
        self.by_use.insert(self.uses, device);
        let sent = Arc::clone(sent);
        while self.devices.len() > DEVICES_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.devices.remove(&oldest);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;

    const ROOM: RoomKey = RoomKey(1);

    #[test]
    fn a_member_is_known_only_when_the_client_has_come_back() {
        let mut sent = SentMembers::default();
        sent.begin(None);
        sent.note(ROOM, "@anna:hs", 10);
        // The same question again: the answer got lost.
        sent.begin(None);
        assert!(!sent.has(ROOM, "@anna:hs"));
        sent.note(ROOM, "@anna:hs", 10);
        sent.begin(Some(9));
        assert!(!sent.has(ROOM, "@anna:hs"), "asks from before the answer");
        sent.note(ROOM, "@anna:hs", 10);
        sent.begin(Some(10));
        assert!(sent.has(ROOM, "@anna:hs"));
        assert!(!sent.has(RoomKey(2), "@anna:hs"), "another room");
    }

    #[test]
    fn neither_members_nor_devices_are_remembered_without_end() {
        let mut sent = SentMembers::default();
        for number in 0..3 * MEMBERS_PER_DEVICE_MAX {
            sent.note(ROOM, &format!("@u{number}:hs"), 1);
            assert!(sent.sent.len() <= MEMBERS_PER_DEVICE_MAX);
        }
        let mut lazy = LazyMembers::default();
        let kept = lazy.of(user_id!("@anna:hs"), device_id!("KEPT"));
        for number in 0..2 * DEVICES_MAX {
            lazy.of(user_id!("@anna:hs"), <&DeviceId>::from(format!("D{number}").as_str()));
            let again = lazy.of(user_id!("@anna:hs"), device_id!("KEPT"));
            assert!(Arc::ptr_eq(&kept, &again), "the one in use stays");
        }
        assert_eq!(lazy.devices.len(), DEVICES_MAX);
        assert_eq!(lazy.by_use.len(), DEVICES_MAX);
    }
}
