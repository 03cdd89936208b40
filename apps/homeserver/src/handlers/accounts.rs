//! What an owner does with his account: a new password, and the end of it.

use std::rc::Rc;

use bytes::Bytes;
use ropewalk::{Deferred, Failure};
use ruma::api::client::uiaa::{AuthData, AuthType};
use ruma::api::error::ErrorKind;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use zeroize::Zeroizing;

use super::Refusal;
use super::logins::Logins;
use super::passwords::{self, Password, Passwords};
use super::sessions::{Requester, Sessions};
use super::ui_auth::{Established, Guarded, StageChecker, StageOutcome, UiAuth, password_of};
use crate::storage::databases::main::{account_data, profiles, push_rules, users};
use crate::storage::engine::Database;

/// Takes a user out of his rooms; the rooms' part of the server does it.
pub trait LeaveRooms {
    /// Leaves every room and refuses every invitation of `user_id`.
    fn leave_all_rooms(&self, user_id: &UserId) -> Deferred<()>;
}

/// What owners do with their accounts.
pub struct Accounts {
    database: Database,
    passwords: Passwords,
    sessions: Rc<Sessions>,
    logins: Rc<Logins>,
    ui_auth: UiAuth,
    rooms: Rc<dyn LeaveRooms>,
}

/// A request that needs its sender's password once more.
#[derive(Debug)]
pub struct PasswordProtected<'r> {
    /// Who asks.
    pub requester: &'r Requester,
    /// The request's method.
    pub method: &'r str,
    /// Its path.
    pub path: &'r str,
    /// Its body as it came.
    pub body: &'r Bytes,
    /// What the client sent as `auth`.
    pub auth: Option<&'r AuthData>,
}

impl Accounts {
    /// Works on the accounts in `database`.
    pub fn new(
        database: Database,
        passwords: Passwords,
        sessions: Rc<Sessions>,
        logins: Rc<Logins>,
        ui_auth: UiAuth,
        rooms: Rc<dyn LeaveRooms>,
    ) -> Self {
        Self { database, passwords, sessions, logins, ui_auth, rooms }
    }

    /// Lets a request through once its sender has given the password. Returns the body of the
    /// dialogue's first request if this one came with nothing but `auth`.
    ///
    /// # Errors
    ///
    /// The dialogue's [`Refusal::UserInteractive`] until it is finished.
    pub async fn ask_password(
        &self,
        request: PasswordProtected<'_>,
    ) -> Result<Option<Bytes>, Failure> {
        let guarded = Guarded {
            method: request.method,
            path: request.path,
            body: request.body,
            user_id: Some(&request.requester.user_id),
        };
        let flows = [vec![AuthType::Password]];
        let passed = self.ui_auth.authenticate(guarded, &flows, request.auth, self).await?;
        Ok(passed.body)
    }

    /// Gives the account a new password, and unless `keep_devices` logs all other devices out.
    ///
    /// # Errors
    ///
    /// `M_WEAK_PASSWORD` or `M_INVALID_PARAM` if it cannot be a password.
    pub async fn change_password(
        &self,
        requester: &Requester,
        password: Password,
        others: OtherDevices,
    ) -> Result<(), Failure> {
        passwords::check_new(&password)?;
        let hash = self.passwords.hash(password).await?;
        let user_id = requester.user_id.clone();
        self.database
            .write("change password", move |txn| users::set_password_hash(txn, &user_id, &hash))
            .await?;
        match others {
            OtherDevices::Keep => Ok(()),
            OtherDevices::LogOut => {
                let kept = Some(requester.device_id.clone());
                self.sessions.delete_all_devices(requester.user_id.clone(), kept).await
            }
        }
    }

    /// Closes the account for good: no login, no devices, no profile, no rooms.
    pub async fn deactivate(&self, user_id: OwnedUserId, erase: Erase) -> Result<(), Failure> {
        let user = user_id.clone();
        self.database
            .write("deactivate", move |txn| {
                users::deactivate(txn, &user, erase == Erase::Yes)?;
                profiles::delete_all(txn, &user)?;
                account_data::delete_all(txn, &user)?;
                push_rules::delete(txn, &user)
            })
            .await?;
        self.sessions.delete_all_devices(user_id.clone(), None).await?;
        log::info!("deactivated an account user={user_id}");
        self.rooms.leave_all_rooms(&user_id).await
    }

    /// Removes devices; see [`Sessions::delete_devices`].
    pub async fn delete_devices(
        &self,
        user_id: OwnedUserId,
        device_ids: Vec<OwnedDeviceId>,
    ) -> Result<(), Failure> {
        self.sessions.delete_devices(user_id, device_ids).await
    }
}

/// What a new password means for the devices that were logged in with the old one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OtherDevices {
    /// They stay logged in.
    Keep,
    /// They have to log in again.
    LogOut,
}

/// Whether the owner of a closed account wants to be forgotten.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Erase {
    /// What he wrote stays as it is.
    No,
    /// What he wrote is kept from people who join his rooms later.
    Yes,
}

impl StageChecker for Accounts {
    async fn check(
        &self,
        auth: &AuthData,
        user_id: Option<&UserId>,
    ) -> Result<StageOutcome, Failure> {
        let failed = |message: &str| StageOutcome::Failed(ErrorKind::Forbidden, message.to_owned());
        let (AuthData::Password(stage), Some(password)) = (auth, password_of(auth)) else {
            let message = "this stage cannot be checked".to_owned();
            return Ok(StageOutcome::Failed(ErrorKind::Unrecognized, message));
        };
        let account = self.logins.account(&stage.identifier)?;
        if account.as_deref() != user_id {
            return Ok(failed("this is another user's name"));
        }
        match self.logins.check_password(account, Zeroizing::clone(&password)).await {
            Ok(_) => Ok(StageOutcome::Passed(Established::default())),
            Err(failure) => match failure.downcast_ref::<Refusal>() {
                Some(Refusal::Standard { kind: ErrorKind::Forbidden, .. }) => {
                    Ok(failed("wrong password"))
                }
                _ => Err(failure),
            },
        }
    }
}
