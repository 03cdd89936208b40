//! State groups: immutable states, stored whole or as the difference to one other group.

use std::collections::BTreeMap;

use crate::model::StateMap;
use crate::storage::engine::{StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey, StateGroup};

/// Groups that are differences in a row, at most: a lookup walks them. After so many the state is
/// stored whole, so that on average a group has a hundredth of the state more than its difference.
pub const CHAIN_LENGTH_MAX: i64 = 100;

/// One entry of a state that is new or different.
pub type StateChange<'a> = (&'a str, &'a str, EventKey);

/// Makes a group that is `predecessor` with some entries added or replaced. Without a predecessor the
/// entries are the whole state.
///
/// # Errors
///
/// If the database fails.
pub fn create(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    predecessor: Option<StateGroup>,
    changes: &[StateChange<'_>],
) -> Result<StateGroup, StorageError> {
    let Some(predecessor) = predecessor else { return create_whole(txn, room, changes) };
    let chain_length: i64 = txn.query_one(
        "SELECT chain_length FROM state_groups WHERE state_group = ?1",
        params![predecessor],
        |row| row.get(0),
    )?;
    if chain_length >= CHAIN_LENGTH_MAX {
        let mut whole = entries(txn, predecessor)?;
        for &(event_type, state_key, event) in changes {
            whole.insert(event_type, state_key, event);
        }
        let whole: Vec<StateChange<'_>> =
            whole.iter().map(|(kind, key, &event)| (kind, key, event)).collect();
        return create_whole(txn, room, &whole);
    }
    let group = insert_group(txn, room, Some(predecessor), chain_length + 1)?;
    insert_entries(txn, group, changes)?;
    Ok(group)
}

fn create_whole(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    entries: &[StateChange<'_>],
) -> Result<StateGroup, StorageError> {
    let group = insert_group(txn, room, None, 0)?;
    insert_entries(txn, group, entries)?;
    Ok(group)
}

fn insert_group(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    predecessor: Option<StateGroup>,
    chain_length: i64,
) -> Result<StateGroup, StorageError> {
    txn.insert(
        "INSERT INTO state_groups (room, predecessor, chain_length) VALUES (?1, ?2, ?3)",
        params![room, predecessor, chain_length],
    )
    .map(StateGroup)
}

fn insert_entries(
    txn: &WriteTxn<'_>,
    group: StateGroup,
    entries: &[StateChange<'_>],
) -> Result<(), StorageError> {
    for &(event_type, state_key, event) in entries {
        txn.execute(
            "INSERT INTO state_group_entries (state_group, type, state_key, event)
             VALUES (?1, ?2, ?3, ?4)",
            params![group, event_type, state_key, event],
        )?;
    }
    Ok(())
}

/// Returns the whole state of a group.
///
/// # Errors
///
/// If the database fails.
pub fn entries(txn: &Txn<'_>, group: StateGroup) -> Result<StateMap<EventKey>, StorageError> {
    let mut found = StateMap::new();
    // Newest first: what is there already is newer.
    txn.query_each(
        "WITH RECURSIVE chain (state_group, distance) AS (
             VALUES (?1, 0)
             UNION ALL
             SELECT state_groups.predecessor, distance + 1
             FROM chain JOIN state_groups ON state_groups.state_group = chain.state_group
             WHERE state_groups.predecessor IS NOT NULL
         )
         SELECT type, state_key, event
         FROM chain JOIN state_group_entries AS entries
             ON entries.state_group = chain.state_group
         ORDER BY distance",
        params![group],
        |row| {
            let (event_type, state_key) = (row.get(0)?, row.get(1)?);
            if found.get(event_type, state_key).is_none() {
                found.insert(event_type, state_key, row.get(2)?);
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Returns the entries of one type in a group, by state key.
///
/// # Errors
///
/// If the database fails.
pub fn entries_of_type(
    txn: &Txn<'_>,
    group: StateGroup,
    event_type: &str,
) -> Result<BTreeMap<String, EventKey>, StorageError> {
    let mut found = BTreeMap::new();
    txn.query_each(
        "WITH RECURSIVE chain (state_group, distance) AS (
             VALUES (?1, 0)
             UNION ALL
             SELECT state_groups.predecessor, distance + 1
             FROM chain JOIN state_groups ON state_groups.state_group = chain.state_group
             WHERE state_groups.predecessor IS NOT NULL
         )
         SELECT state_key, event
         FROM chain JOIN state_group_entries AS entries
             ON entries.state_group = chain.state_group
         WHERE entries.type = ?2
         ORDER BY distance",
        params![group, event_type],
        |row| {
            found.entry(row.get(0)?).or_insert(row.get(1)?);
            Ok(())
        },
    )?;
    Ok(found)
}

/// Returns one entry of a group.
///
/// # Errors
///
/// If the database fails.
pub fn entry(
    txn: &Txn<'_>,
    group: StateGroup,
    event_type: &str,
    state_key: &str,
) -> Result<Option<EventKey>, StorageError> {
    let mut group = Some(group);
    // Step by step and not as one recursive query: the newest groups are asked first and mostly know,
    // and both statements stay prepared.
    while let Some(current) = group {
        let found = txn.query_opt(
            "SELECT event FROM state_group_entries
             WHERE state_group = ?1 AND type = ?2 AND state_key = ?3",
            params![current, event_type, state_key],
            |row| row.get(0),
        )?;
        if found.is_some() {
            return Ok(found);
        }
        group = predecessor(txn, current)?;
    }
    Ok(None)
}

/// Returns the group that a group is stored as the difference to.
///
/// # Errors
///
/// [`StorageError::Damaged`] if there is no such group.
pub fn predecessor(txn: &Txn<'_>, group: StateGroup) -> Result<Option<StateGroup>, StorageError> {
    txn.query_one(
        "SELECT predecessor FROM state_groups WHERE state_group = ?1",
        params![group],
        |row| row.get(0),
    )
}
