//! Logging in with a password.

use std::net::IpAddr;
use std::rc::Rc;

use ropewalk::{Failure, Reactor};
use ruma::api::client::session::login::v3::{LoginInfo, Password as PasswordLogin};
use ruma::api::client::uiaa::UserIdentifier;
use ruma::api::error::ErrorKind;
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, UserId};
use zeroize::Zeroizing;

use super::Refusal;
use super::passwords::{PASSWORD_BYTES_MAX, Password, Passwords};
use super::rate_limits::{Action, RateLimiter, address_key};
use super::sessions::Sessions;
use crate::config::Secret;
use crate::storage::StorageError;
use crate::storage::databases::main::users;
use crate::storage::engine::Database;

/// A login that succeeded.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// Who.
    pub user_id: OwnedUserId,
    /// On which device.
    pub device_id: OwnedDeviceId,
    /// The access token.
    pub access_token: Secret,
}

/// Lets users in.
pub struct Logins {
    reactor: Reactor,
    database: Database,
    passwords: Passwords,
    sessions: Rc<Sessions>,
    limiter: Rc<RateLimiter>,
    server_name: OwnedServerName,
}

impl Logins {
    /// Lets users of `server_name` in.
    pub fn new(
        reactor: Reactor,
        database: Database,
        passwords: Passwords,
        sessions: Rc<Sessions>,
        limiter: Rc<RateLimiter>,
        server_name: OwnedServerName,
    ) -> Self {
        Self { reactor, database, passwords, sessions, limiter, server_name }
    }

    /// Logs in, on a new device or on one that the user has.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` if user or password is wrong, and no word on which; `M_USER_DEACTIVATED`,
    /// `M_LIMIT_EXCEEDED`, `M_UNKNOWN` for another kind of login.
    pub async fn log_in(
        &self,
        info: LoginInfo,
        device_id: Option<OwnedDeviceId>,
        display_name: Option<String>,
        address: Option<IpAddr>,
    ) -> Result<LoggedIn, Failure> {
        if let Some(address) = address {
            self.limiter.admit(Action::Login, &address_key(address), self.reactor.now())?;
        }
        let LoginInfo::Password(login) = info else {
            let message = format!("logging in with {} is not supported", info.login_type());
            return Err(Refusal::new(ErrorKind::Unknown, message).into());
        };
        let user_id = self.user_of(&login)?;
        let password = Zeroizing::new(login.password);
        let user_id = self.check_password(user_id, password).await?;

        let session = self.sessions.prepare(device_id, display_name.as_deref())?;
        let (stored, user) = (session.clone(), user_id.clone());
        self.database
            .write("log in", move |txn| -> Result<_, StorageError> {
                // The account may have been closed while the password was hashed.
                if users::find(txn, &user)?.is_none_or(|user| user.is_deactivated) {
                    return Ok(Err(deactivated()));
                }
                stored.store(txn, &user).map(Ok)
            })
            .await??;
        // A device that was there before has lost its old token.
        self.sessions.forget(&user_id, |device_id| device_id == session.device_id);
        Ok(LoggedIn { user_id, device_id: session.device_id, access_token: session.token })
    }

    /// Checks the password of a user; `None` stands for one who cannot exist. Takes as long whether
    /// or not the user exists.
    ///
    /// # Errors
    ///
    /// As for [`log_in`](Self::log_in).
    pub async fn check_password(
        &self,
        user_id: Option<OwnedUserId>,
        password: Password,
    ) -> Result<OwnedUserId, Failure> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(wrong().into());
        }
        if let Some(user_id) = &user_id {
            self.limiter.admit(Action::Login, user_id.as_str(), self.reactor.now())?;
        }
        let user = match user_id {
            Some(id) => self.database.read(move |txn| users::find(txn, &id)).await?,
            None => None,
        };
        let stored = user.as_ref().and_then(|user| user.password_hash.clone());
        let right = self.passwords.verify(password, stored).await?;
        match user {
            Some(user) if user.is_deactivated => Err(deactivated().into()),
            Some(user) if right => Ok(user.user_id),
            _ => Err(wrong().into()),
        }
    }

    /// Returns the account that an identifier stands for: a user id of this server, or its
    /// localpart.
    pub fn account(&self, identifier: &UserIdentifier) -> Result<Option<OwnedUserId>, Refusal> {
        match identifier {
            UserIdentifier::Matrix(matrix) => Ok(self.account_named(&matrix.user)),
            // Nobody has told us an address, so nobody has this one.
            UserIdentifier::Email(_) | UserIdentifier::Msisdn(_) => Ok(None),
            UserIdentifier::PhoneNumber(_) => Ok(None),
            other => {
                let message = format!("unknown identifier type {}", other.identifier_type());
                Err(Refusal::new(ErrorKind::Unknown, message))
            }
        }
    }

    #[expect(deprecated, reason = "old clients send `user` instead of `identifier`")]
    fn user_of(&self, login: &PasswordLogin) -> Result<Option<OwnedUserId>, Refusal> {
        match (&login.identifier, &login.user) {
            (Some(identifier), _) => self.account(identifier),
            (None, Some(user)) => Ok(self.account_named(user)),
            (None, None) => Err(Refusal::missing_param("missing `identifier`")),
        }
    }

    fn account_named(&self, user: &str) -> Option<OwnedUserId> {
        // Accounts of this server have lower-case names; people write them as they like.
        if user.starts_with('@') {
            let user_id = UserId::parse(user.to_lowercase()).ok()?;
            return (user_id.server_name() == self.server_name).then_some(user_id);
        }
        UserId::parse(format!("@{}:{}", user.to_lowercase(), self.server_name)).ok()
    }
}

fn wrong() -> Refusal {
    Refusal::forbidden("wrong user name or password")
}

fn deactivated() -> Refusal {
    Refusal::new(ErrorKind::UserDeactivated, "this account has been deactivated")
}
