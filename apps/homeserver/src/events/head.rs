//! Room heads: what the next event of a room builds on, remembered by the writer.
//!
//! A head is taken out of the memory, worked on, and put back when everything went well. What a job put
//! back and then failed over is forgotten by [`WriterCache::job_taken_back`], so a head always equals
//! what the transaction would read.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedEventId, OwnedRoomId, RoomId};

use crate::storage::controllers::load::StoredEvent;
use crate::storage::controllers::resolution;
use crate::storage::databases::main::rooms::{self, Room};
use crate::storage::databases::main::{events, extremities};
use crate::storage::databases::state::groups;
use crate::storage::engine::{StorageError, Txn, WriteTxn, WriterCache};
use crate::storage::keys::{EventKey, StateGroup};

use super::WriteError;
use super::view::{StateSource, StateView};

/// Heads kept at most: the rooms in which something is going on.
const HEADS_MAX: usize = 1000;

/// State events remembered by all heads together: at a kilobyte or two each, 100 MiB at most.
const REMEMBERED_MAX: usize = 50_000;

/// An end of the room's graph.
#[derive(Clone, Debug)]
pub(super) struct Tip {
    pub(super) key: EventKey,
    pub(super) event_id: OwnedEventId,
    pub(super) depth: u64,
    /// The state after it.
    pub(super) state: StateGroup,
}

/// What the next event of a room builds on.
pub(super) struct RoomHead {
    pub(super) room: Room,
    /// In order of keys. Empty only before the first event.
    pub(super) tips: Vec<Tip>,
    /// The current state: that of the tips, resolved. None before the first event.
    pub(super) state: Option<StateGroup>,
    /// The same state, entry by entry.
    pub(super) view: StateView,
}

impl RoomHead {
    /// The head of a room without events.
    pub(super) fn empty(room: Room) -> Self {
        let view = StateView::new(StateSource::Current(room.key));
        Self { room, tips: Vec::new(), state: None, view }
    }

    /// Reads the head of a room.
    pub(super) fn load(txn: &mut WriteTxn<'_>, room: Room) -> Result<Self, WriteError> {
        let tips = tips(txn, &room)?;
        let states = tips.iter().map(|tip| tip.state).collect();
        let state = resolved_group(txn, &room, &states)?;
        let view = StateView::new(StateSource::Current(room.key));
        Ok(Self { room, tips, state, view })
    }

    /// The same room with some of its ends only, and the state at these.
    pub(super) fn narrowed(
        &self,
        txn: &mut WriteTxn<'_>,
        tips: Vec<Tip>,
    ) -> Result<Self, WriteError> {
        let states = tips.iter().map(|tip| tip.state).collect();
        let state = resolved_group(txn, &self.room, &states)?;
        let current = StateSource::Current(self.room.key);
        let view = StateView::new(state.map_or(current, StateSource::Group));
        Ok(Self { room: self.room.clone(), tips, state, view })
    }

    /// Moves the head onto an accepted event that followed all its tips.
    pub(super) fn advance(&mut self, event: StoredEvent, state: StateGroup) {
        self.tips.clear();
        self.tips.push(Tip {
            key: event.key,
            event_id: event.pdu.event_id().to_owned(),
            depth: event.pdu.depth(),
            state,
        });
        self.state = Some(state);
        self.view.put(event);
    }
}

/// Reads the ends of a room's graph, in order of their keys.
pub(super) fn tips(txn: &Txn<'_>, room: &Room) -> Result<Vec<Tip>, StorageError> {
    let mut tips = Vec::new();
    for key in extremities::forward(txn, room.key)? {
        let row = events::by_key(txn, key)?;
        let depth = row.depth.try_into().unwrap_or_default();
        let state = row.state_after.ok_or_else(|| {
            StorageError::damaged(format!("extremity {} has no state", row.event_id))
        })?;
        tips.push(Tip { key, event_id: row.event_id, depth, state });
    }
    Ok(tips)
}

/// Returns the group of the state that several states resolve to, making it if need be; `None` for no
/// states at all.
pub(super) fn resolved_group(
    txn: &mut WriteTxn<'_>,
    room: &Room,
    states: &BTreeSet<StateGroup>,
) -> Result<Option<StateGroup>, WriteError> {
    if states.len() < 2 {
        return Ok(states.first().copied());
    }
    if let Some(&known) = txn.cache::<RoomHeads>().resolved.get(states) {
        return Ok(Some(known));
    }
    let resolved = resolution::resolve(txn, room.version, states)?;
    // Often a fork changes nothing: then the state has a group already.
    let mut group = None;
    for &candidate in states {
        if groups::entries(txn, candidate)? == resolved {
            group = Some(candidate);
            break;
        }
    }
    let group = match group {
        Some(group) => group,
        None => {
            let entries: Vec<_> =
                resolved.iter().map(|(kind, key, &event)| (kind, key, event)).collect();
            groups::create(txn, room.key, None, &entries)?
        }
    };
    let heads = txn.cache::<RoomHeads>();
    if heads.resolved.len() >= HEADS_MAX {
        heads.resolved.clear();
    }
    heads.resolved.insert(states.clone(), group);
    heads.new_resolutions.push(states.clone());
    Ok(Some(group))
}

/// The writer's memory of room heads.
#[derive(Default)]
pub(super) struct RoomHeads {
    heads: BTreeMap<OwnedRoomId, RememberedHead>,
    /// Rooms by their heads' last use, which is unique.
    by_use: BTreeMap<u64, OwnedRoomId>,
    use_count: u64,
    /// State events that the heads remember together.
    remembered_count: usize,
    /// Put back by the running job.
    touched: Vec<OwnedRoomId>,
    /// States that were resolved, by what they were resolved from.
    resolved: BTreeMap<BTreeSet<StateGroup>, StateGroup>,
    /// Keys of `resolved` that came with the running job.
    new_resolutions: Vec<BTreeSet<StateGroup>>,
}

struct RememberedHead {
    head: Box<RoomHead>,
    last_use: u64,
    remembered_count: usize,
}

impl RoomHeads {
    fn insert(&mut self, head: Box<RoomHead>) {
        let room_id = head.room.room_id.clone();
        self.remove(&room_id);
        self.use_count += 1;
        let (last_use, remembered_count) = (self.use_count, head.view.remembered_count());
        self.by_use.insert(last_use, room_id.clone());
        self.remembered_count += remembered_count;
        self.touched.push(room_id.clone());
        self.heads.insert(room_id, RememberedHead { head, last_use, remembered_count });
        while self.heads.len() > HEADS_MAX || self.remembered_count > REMEMBERED_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, room_id: &RoomId) -> Option<Box<RoomHead>> {
        let remembered = self.heads.remove(room_id)?;
        self.by_use.remove(&remembered.last_use);
        self.remembered_count -= remembered.remembered_count;
        Some(remembered.head)
    }
}

impl WriterCache for RoomHeads {
    fn job_kept(&mut self) {
        self.touched.clear();
        self.new_resolutions.clear();
    }

    fn job_taken_back(&mut self) {
        for room_id in std::mem::take(&mut self.touched) {
            self.remove(&room_id);
        }
        for states in self.new_resolutions.drain(..) {
            self.resolved.remove(&states);
        }
    }

    fn transaction_lost(&mut self) {
        *self = Self::default();
    }
}

/// Takes the head of a room out of the writer's memory, loading it if it is not there.
///
/// A head that is not [put back](put_back) is loaded anew next time: errors need no clean-up.
pub(super) fn take(txn: &mut WriteTxn<'_>, room_id: &RoomId) -> Result<Box<RoomHead>, WriteError> {
    if let Some(head) = txn.cache::<RoomHeads>().remove(room_id) {
        return Ok(head);
    }
    let Some(room) = rooms::find(txn, room_id)? else {
        return Err(WriteError::UnknownRoom { room_id: room_id.to_owned() });
    };
    RoomHead::load(txn, room).map(Box::new)
}

/// Puts a head back after everything it stands for has been written.
pub(super) fn put_back(txn: &mut WriteTxn<'_>, mut head: Box<RoomHead>) {
    head.view.trim();
    txn.cache::<RoomHeads>().insert(head);
}

#[cfg(test)]
mod tests {
    use ruma::{RoomId, user_id};

    use super::*;
    use crate::model::RoomVersion;
    use crate::storage::RoomKey;

    fn head(number: i64) -> Box<RoomHead> {
        Box::new(RoomHead::empty(Room {
            key: RoomKey(number),
            room_id: RoomId::parse(format!("!{number}:d")).unwrap(),
            version: RoomVersion::V12,
            creator: user_id!("@a:d").to_owned(),
        }))
    }

    #[test]
    fn the_head_that_was_not_used_for_longest_goes_first() {
        let mut heads = RoomHeads::default();
        let max = HEADS_MAX as i64;
        for number in 0..max {
            heads.insert(head(number));
        }
        let used = heads.remove(&head(0).room.room_id).expect("remembered");
        heads.insert(used);
        heads.insert(head(max));
        assert_eq!(heads.heads.len(), HEADS_MAX);
        assert_eq!(heads.by_use.len(), HEADS_MAX);
        assert!(heads.remove(&head(0).room.room_id).is_some(), "used lately");
        assert!(heads.remove(&head(1).room.room_id).is_none(), "the oldest");
        heads.job_taken_back();
        assert!(heads.heads.is_empty() && heads.by_use.is_empty());
    }
}
