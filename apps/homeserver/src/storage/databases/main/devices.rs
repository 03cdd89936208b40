//! Devices: one a login, named by its owner. Access tokens hang on them.

use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};

/// A device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Its id, unique among its owner's devices.
    pub device_id: OwnedDeviceId,
    /// What its owner calls it.
    pub display_name: Option<String>,
    /// When it was last used, in ms since 1970, to within some minutes.
    pub last_seen_ts: Option<i64>,
}

/// Makes a device if there is none of that id; one that is there keeps its name.
pub fn insert_if_missing(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: Option<&str>,
    now_ts: i64,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO devices (user_id, device_id, display_name, created_ts)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT (user_id, device_id) DO NOTHING",
        params![user_id, device_id, display_name, now_ts],
    )?;
    Ok(())
}

/// Returns the user's devices, in the order of their ids.
pub fn of_user(txn: &Txn<'_>, user_id: &UserId) -> Result<Vec<Device>, StorageError> {
    txn.query(
        "SELECT device_id, display_name, last_seen_ts
         FROM devices WHERE user_id = ?1 ORDER BY device_id",
        params![user_id],
        read_device,
    )
}

/// Returns one device.
pub fn find(
    txn: &Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<Option<Device>, StorageError> {
    txn.query_opt(
        "SELECT device_id, display_name, last_seen_ts
         FROM devices WHERE user_id = ?1 AND device_id = ?2",
        params![user_id, device_id],
        read_device,
    )
}

/// Names a device; returns `false` if there is none of that id.
pub fn rename(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: Option<&str>,
) -> Result<bool, StorageError> {
    let changed = txn.execute(
        "UPDATE devices SET display_name = ?3 WHERE user_id = ?1 AND device_id = ?2",
        params![user_id, device_id, display_name],
    )?;
    Ok(changed == 1)
}

/// Notes that a device was used. Nothing happens if it is gone meanwhile.
pub fn note_use(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    ts: i64,
) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE devices SET last_seen_ts = ?3 WHERE user_id = ?1 AND device_id = ?2",
        params![user_id, device_id, ts],
    )?;
    Ok(())
}

/// Removes a device with its access tokens; returns whether it was there.
pub fn delete(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<bool, StorageError> {
    let removed = txn.execute(
        "DELETE FROM devices WHERE user_id = ?1 AND device_id = ?2",
        params![user_id, device_id],
    )?;
    super::access_tokens::delete_of_device(txn, user_id, device_id)?;
    Ok(removed == 1)
}

/// Removes all devices of a user with their access tokens, except one; returns the removed ones.
pub fn delete_all_except(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    kept: Option<&DeviceId>,
) -> Result<Vec<OwnedDeviceId>, StorageError> {
    let devices = of_user(txn, user_id)?;
    let mut removed = Vec::new();
    for device in devices {
        if Some(&*device.device_id) != kept {
            delete(txn, user_id, &device.device_id)?;
            removed.push(device.device_id);
        }
    }
    Ok(removed)
}

fn read_device(row: &Row<'_>) -> Result<Device, StorageError> {
    Ok(Device {
        device_id: row.get::<&str>(0)?.into(),
        display_name: row.get(1)?,
        last_seen_ts: row.get(2)?,
    })
}
