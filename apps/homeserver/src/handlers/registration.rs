//! Making accounts.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use ropewalk::{Failure, Reactor};
use ruma::api::client::account::register::{RegistrationKind, v3::Request};
use ruma::api::client::uiaa::{AuthData, AuthType};
use ruma::api::error::ErrorKind;
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, UserId};
use zeroize::Zeroizing;

use super::passwords::{self, Password, Passwords};
use super::rate_limits::{Action, RateLimiter, address_key};
use super::sessions::Sessions;
use super::ui_auth::{Established, Guarded, StageChecker, StageOutcome, UiAuth};
use super::{Refusal, wall_clock_ms};
use crate::config::Secret;
use crate::config::registration::Registration as Rules;
use crate::config::secrets::random_letters;
use crate::storage::StorageError;
use crate::storage::databases::main::users::NewUser;
use crate::storage::databases::main::{profiles, registration_tokens, users};
use crate::storage::engine::Database;

/// An account that was made.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its name.
    pub user_id: OwnedUserId,
    /// The device that was logged in with it, unless the client did not want that.
    pub session: Option<(OwnedDeviceId, Secret)>,
}

/// An account to be made.
#[derive(Debug)]
pub struct Account {
    /// Its name.
    pub user_id: OwnedUserId,
    /// Its password.
    pub password: Password,
    /// Whether its owner administers the server.
    pub is_admin: bool,
    /// What its owner is shown as at first; `None`: the localpart.
    pub display_name: Option<String>,
}

/// The device to log in with a new account.
#[derive(Debug, Default)]
pub struct FirstDevice {
    /// What the client wants it to be called inside.
    pub device_id: Option<OwnedDeviceId>,
    /// What it is shown as.
    pub display_name: Option<String>,
}

/// Makes accounts.
pub struct Registration {
    reactor: Reactor,
    database: Database,
    passwords: Passwords,
    sessions: Rc<Sessions>,
    ui_auth: UiAuth,
    limiter: Rc<RateLimiter>,
    server_name: OwnedServerName,
    rules: Rules,
}

/// What [`Registration`] works with.
pub struct Parts {
    /// Time and randomness.
    pub reactor: Reactor,
    /// Where accounts are.
    pub database: Database,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Logs the first device in.
    pub sessions: Rc<Sessions>,
    /// Asks for whatever is needed.
    pub ui_auth: UiAuth,
    /// Slows down those who try often.
    pub limiter: Rc<RateLimiter>,
    /// Behind the colon of each name.
    pub server_name: OwnedServerName,
    /// Who may make an account.
    pub rules: Rules,
}

impl Registration {
    /// Makes accounts by `parts.rules`.
    pub fn new(parts: Parts) -> Self {
        let Parts { reactor, database, passwords, sessions, ui_auth, limiter, server_name, rules } =
            parts;
        Self { reactor, database, passwords, sessions, ui_auth, limiter, server_name, rules }
    }

    /// Goes one step towards an account for somebody who asks for one. `replay` reads the body of
    /// an authentication session's first request.
    ///
    /// # Errors
    ///
    /// The dialogue's [`Refusal::UserInteractive`] until it is finished; `M_FORBIDDEN` if
    /// registration is closed, `M_USER_IN_USE`, `M_INVALID_USERNAME`, `M_WEAK_PASSWORD` and so on.
    pub async fn register(
        &self,
        request: Request,
        path: &str,
        body: &Bytes,
        address: Option<IpAddr>,
        replay: impl FnOnce(&[u8]) -> Result<Request, Failure>,
    ) -> Result<Registered, Failure> {
        if request.kind == RegistrationKind::Guest {
            let message = "this server has no guests";
            return Err(Refusal::new(ErrorKind::GuestAccessForbidden, message).into());
        }
        if request.login_type.is_some() {
            return Err(Refusal::forbidden("application services are not supported").into());
        }
        if !self.rules.open {
            return Err(Refusal::forbidden("registration is closed on this server").into());
        }
        // Asking what is needed costs next to nothing; an attempt costs a password hash.
        if let (Some(address), Some(_)) = (address, &request.auth) {
            self.limiter.admit(Action::Registration, &address_key(address), self.reactor.now())?;
        }
        // Before the dialogue, so that nobody goes through it in vain.
        self.check_request(&request).await?;
        let guarded = Guarded { method: "POST", path, body, user_id: None };
        let flows = [self.stages()];
        let passed =
            self.ui_auth.authenticate(guarded, &flows, request.auth.as_ref(), self).await?;
        let request = match passed.body {
            Some(first_body) => {
                let first = replay(&first_body)?;
                self.check_request(&first).await?;
                first
            }
            None => request,
        };
        let Some(password) = request.password.map(Zeroizing::new) else {
            return Err(Refusal::missing_param("missing `password`").into());
        };
        let user_id = match &request.username {
            Some(name) => local_user_id(name, &self.server_name)?,
            None => self.random_user_id()?,
        };
        let account = Account { user_id, password, is_admin: false, display_name: None };
        let device = (!request.inhibit_login).then_some(FirstDevice {
            device_id: request.device_id,
            display_name: request.initial_device_display_name,
        });
        self.create(account, device, passed.established.registration_token).await
    }

    /// Makes an account without asking whether it may be made; uses up the registration token.
    ///
    /// # Errors
    ///
    /// `M_USER_IN_USE`; `M_FORBIDDEN` if the token was used up meanwhile.
    pub async fn create(
        &self,
        account: Account,
        device: Option<FirstDevice>,
        registration_token: Option<String>,
    ) -> Result<Registered, Failure> {
        passwords::check_new(&account.password)?;
        let session = match device {
            Some(device) => {
                Some(self.sessions.prepare(device.device_id, device.display_name.as_deref())?)
            }
            None => None,
        };
        let password_hash = Some(self.passwords.hash(account.password).await?);
        let created_ts = wall_clock_ms(&self.reactor);
        let user_id = account.user_id.clone();
        let user = NewUser { user_id, password_hash, created_ts, is_admin: account.is_admin };
        let name = account.display_name.unwrap_or_else(|| user.user_id.localpart().to_owned());
        let stored = session.clone();
        self.database
            .write("register", move |txn| -> Result<_, StorageError> {
                if users::exists(txn, &user.user_id)? {
                    return Ok(Err(in_use()));
                }
                if let Some(token) = registration_token
                    && !registration_tokens::consume(txn, &token, created_ts)?
                {
                    return Ok(Err(Refusal::forbidden("the registration token was used up")));
                }
                users::insert(txn, &user)?;
                profiles::set(txn, &user.user_id, "displayname", &name.into())?;
                if let Some(session) = stored {
                    session.store(txn, &user.user_id)?;
                }
                Ok(Ok(()))
            })
            .await??;
        log::info!("made an account user={}", account.user_id);
        Ok(Registered {
            user_id: account.user_id,
            session: session.map(|session| (session.device_id, session.token)),
        })
    }

    /// Says whether an account of that name could be made.
    ///
    /// # Errors
    ///
    /// `M_INVALID_USERNAME`, `M_USER_IN_USE`, `M_LIMIT_EXCEEDED`; `M_FORBIDDEN` if registration is
    /// closed, so that nobody can look for names.
    pub async fn check_available(
        &self,
        name: &str,
        address: Option<IpAddr>,
    ) -> Result<(), Failure> {
        if !self.rules.open {
            return Err(Refusal::forbidden("registration is closed on this server").into());
        }
        if let Some(address) = address {
            self.limiter.admit(Action::Registration, &address_key(address), self.reactor.now())?;
        }
        self.check_name(name).await
    }

    /// Says whether somebody could register with the token now.
    ///
    /// # Errors
    ///
    /// `M_LIMIT_EXCEEDED`.
    pub async fn is_token_usable(
        &self,
        token: String,
        address: Option<IpAddr>,
    ) -> Result<bool, Failure> {
        if let Some(address) = address {
            self.limiter.admit(Action::Registration, &address_key(address), self.reactor.now())?;
        }
        let now_ts = wall_clock_ms(&self.reactor);
        self.database.read(move |txn| registration_tokens::is_usable(txn, &token, now_ts)).await
    }

    async fn check_request(&self, request: &Request) -> Result<(), Failure> {
        if let Some(password) = &request.password {
            passwords::check_new(password)?;
        }
        match &request.username {
            Some(name) => self.check_name(name).await,
            None => Ok(()),
        }
    }

    async fn check_name(&self, name: &str) -> Result<(), Failure> {
        let user_id = local_user_id(name, &self.server_name)?;
        let taken = self.database.read(move |txn| users::exists(txn, &user_id)).await?;
        if taken { Err(in_use().into()) } else { Ok(()) }
    }

    /// The dummy comes last even where there is a token: matrix-nio always ends with it, and other
    /// clients pass whatever stages they are told.
    fn stages(&self) -> Vec<AuthType> {
        let token = self.rules.tokens.then_some(AuthType::RegistrationToken);
        token.into_iter().chain([AuthType::Dummy]).collect()
    }

    /// For clients that leave the name to us.
    fn random_user_id(&self) -> Result<OwnedUserId, Refusal> {
        let name = random_letters(12, &mut |buffer| self.reactor.random_bytes(buffer));
        local_user_id(&name.to_ascii_lowercase(), &self.server_name)
    }
}

impl StageChecker for Registration {
    async fn check(&self, auth: &AuthData, _: Option<&UserId>) -> Result<StageOutcome, Failure> {
        let AuthData::RegistrationToken(stage) = auth else {
            let message = "this stage cannot be checked".to_owned();
            return Ok(StageOutcome::Failed(ErrorKind::Unrecognized, message));
        };
        if !self.is_token_usable(stage.token.clone(), None).await? {
            let message = "the registration token is unknown, used up or expired".to_owned();
            return Ok(StageOutcome::Failed(ErrorKind::Unauthorized, message));
        }
        let registration_token = Some(stage.token.clone());
        Ok(StageOutcome::Passed(Established { registration_token }))
    }
}

/// Makes the user id of a new account; `name` is its localpart, or all of it.
///
/// # Errors
///
/// `M_INVALID_USERNAME` if new accounts cannot be called that.
pub fn local_user_id(name: &str, server_name: &OwnedServerName) -> Result<OwnedUserId, Refusal> {
    let refuse = |message: &str| Refusal::new(ErrorKind::InvalidUsername, message);
    let whole = name.strip_prefix('@').and_then(|rest| rest.strip_suffix(server_name.as_str()));
    let localpart = match whole.and_then(|rest| rest.strip_suffix(':')) {
        Some(localpart) => localpart,
        None => name,
    };
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+');
    if localpart.is_empty() {
        return Err(refuse("the user name is empty"));
    }
    if !localpart.bytes().all(allowed) {
        return Err(refuse("user names are made of a-z, 0-9 and . _ = - / +"));
    }
    if localpart.starts_with('_') {
        return Err(refuse("user names that begin with _ are kept for application services"));
    }
    let user_id = format!("@{localpart}:{server_name}");
    if user_id.len() > 255 {
        return Err(refuse("the user name is too long"));
    }
    UserId::parse(user_id).map_err(|_| refuse("the user name cannot be part of a user id"))
}

fn in_use() -> Refusal {
    Refusal::new(ErrorKind::UserInUse, "the user name is taken")
}

#[cfg(test)]
mod tests {
    use ruma::owned_server_name;

    use super::*;

    #[test]
    fn names_of_new_accounts_are_strict() {
        let server = owned_server_name!("hs.example");
        for (why, name, expected) in [
            ("plain", "alice", Some("@alice:hs.example")),
            ("every kind of sign", "a.b_c=d-e/f+0", Some("@a.b_c=d-e/f+0:hs.example")),
            ("a whole user id", "@alice:hs.example", Some("@alice:hs.example")),
            ("digits only", "12345", Some("@12345:hs.example")),
            ("another server", "@alice:other.example", None),
            ("upper case", "Alice", None),
            ("a space", "al ice", None),
            ("beyond ASCII", "älice", None),
            ("a colon", "a:b", None),
            ("a NUL", "a\0b", None),
            ("empty", "", None),
            ("empty in a user id", "@:hs.example", None),
            ("of application services", "_bridge", None),
            ("too long", &"a".repeat(250), None),
        ] {
            let got = local_user_id(name, &server);
            assert_eq!(got.as_ref().ok().map(|id| id.as_str()), expected, "{why}: {name:?}");
            if let Err(Refusal::Standard { kind, .. }) = got {
                assert_eq!(kind, ErrorKind::InvalidUsername, "{why}");
            }
        }
        let longest = "a".repeat(255 - "@:hs.example".len());
        assert!(local_user_id(&longest, &server).is_ok());
    }
}
