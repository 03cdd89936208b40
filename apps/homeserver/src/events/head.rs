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
    /// Counts uses, to tell which head has not been used for longest.
    use_count: u64,
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
}

impl WriterCache for RoomHeads {
    fn job_kept(&mut self) {
        self.touched.clear();
        self.new_resolutions.clear();
    }

    fn job_taken_back(&mut self) {
        for room_id in self.touched.drain(..) {
            self.heads.remove(&room_id);
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
    if let Some(remembered) = txn.cache::<RoomHeads>().heads.remove(room_id) {
        return Ok(remembered.head);
    }
    let Some(room) = rooms::find(txn, room_id)? else {
        return Err(WriteError::UnknownRoom { room_id: room_id.to_owned() });
    };
    RoomHead::load(txn, room).map(Box::new)
}

/// Puts a head back after everything it stands for has been written.
pub(super) fn put_back(txn: &mut WriteTxn<'_>, mut head: Box<RoomHead>) {
    head.view.trim();
    let heads = txn.cache::<RoomHeads>();
    if heads.heads.len() >= HEADS_MAX {
        let oldest = heads.heads.iter().min_by_key(|(_, remembered)| remembered.last_use);
        if let Some(oldest) = oldest.map(|(room_id, _)| room_id.clone()) {
            heads.heads.remove(&oldest);
        }
    }
    heads.use_count += 1;
    let last_use = heads.use_count;
    let room_id = head.room.room_id.clone();
    heads.touched.push(room_id.clone());
    heads.heads.insert(room_id, RememberedHead { head, last_use });
}
