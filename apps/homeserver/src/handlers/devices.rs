//! A user's devices, as he sees and names them. Removing them is the sessions' business.

use ropewalk::Failure;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::Refusal;
use crate::storage::databases::main::devices::{self, Device};
use crate::storage::engine::Database;

/// The longest name of a device, in characters, as in Synapse.
const DISPLAY_NAME_CHARS_MAX: usize = 100;

/// Lists and names devices.
#[derive(Clone)]
pub struct Devices {
    database: Database,
}

impl Devices {
    /// Reads them from `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Returns all devices of a user.
    pub async fn all(&self, user_id: &UserId) -> Result<Vec<Device>, Failure> {
        let user_id = user_id.to_owned();
        self.database.read(move |txn| devices::of_user(txn, &user_id)).await
    }

    /// Returns one device.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND`.
    pub async fn get(&self, user_id: &UserId, device_id: &DeviceId) -> Result<Device, Failure> {
        let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
        let found = self.database.read(move |txn| devices::find(txn, &user_id, &device_id)).await?;
        found.ok_or_else(|| no_such_device().into())
    }

    /// Names a device; `None` leaves the name as it is.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND`, or `M_TOO_LARGE` if the name is over a hundred characters.
    pub async fn rename(
        &self,
        user_id: OwnedUserId,
        device_id: OwnedDeviceId,
        display_name: Option<String>,
    ) -> Result<(), Failure> {
        let Some(name) = display_name else {
            return self.get(&user_id, &device_id).await.map(|_| ());
        };
        if name.chars().count() > DISPLAY_NAME_CHARS_MAX {
            let message = format!("the name is over {DISPLAY_NAME_CHARS_MAX} characters");
            return Err(Refusal::too_large(message).into());
        }
        let found = self
            .database
            .write("rename device", move |txn| {
                devices::rename(txn, &user_id, &device_id, Some(&name))
            })
            .await?;
        if found { Ok(()) } else { Err(no_such_device().into()) }
    }
}

fn no_such_device() -> Refusal {
    Refusal::not_found("there is no such device")
}
