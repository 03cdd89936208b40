//! Registration tokens, as administrators make and see them.

use ropewalk::{Failure, Reactor};
use ruma::UserId;

use super::{Refusal, wall_clock_ms};
use crate::config::secrets::random_letters;
use crate::storage::StorageError;
use crate::storage::databases::main::registration_tokens::{self, RegistrationToken};
use crate::storage::databases::main::users;
use crate::storage::engine::{Database, Txn};

/// The specification's limit for tokens, in characters.
const TOKEN_CHARS_MAX: usize = 64;

/// How long a token is that nobody has chosen; 91 bits.
const TOKEN_CHARS: usize = 16;

/// A token to be made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NewToken {
    /// What people type in; `None`: something random.
    pub token: Option<String>,
    /// How many accounts can be made with it; `None`: any number.
    pub uses_allowed: Option<u32>,
    /// From when on it is good for nothing, in ms since 1970; `None`: never.
    pub expiry_ts: Option<i64>,
}

/// Which tokens are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that somebody could register with now.
    Usable,
    /// The others.
    Useless,
}

/// Makes, shows and removes tokens, for administrators only.
#[derive(Clone)]
pub struct RegistrationTokens {
    reactor: Reactor,
    database: Database,
}

impl RegistrationTokens {
    /// Keeps them in `database`.
    pub fn new(reactor: Reactor, database: Database) -> Self {
        Self { reactor, database }
    }

    /// Makes a token.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for users who do not administer the server, `M_INVALID_PARAM` if there is such a
    /// token already, or can be none.
    pub async fn make(&self, who: &UserId, new: NewToken) -> Result<RegistrationToken, Failure> {
        let token = match new.token {
            Some(token) => token,
            None => {
                let mut random = |buffer: &mut [u8]| self.reactor.random_bytes(buffer);
                random_letters(TOKEN_CHARS, &mut random).to_string()
            }
        };
        check(&token)?;
        let now_ts = wall_clock_ms(&self.reactor);
        if new.expiry_ts.is_some_and(|expiry_ts| expiry_ts <= now_ts) {
            return Err(Refusal::invalid_param("the time of expiry has passed already").into());
        }
        let (who, uses_allowed, expiry_ts) = (who.to_owned(), new.uses_allowed, new.expiry_ts);
        self.database
            .write("make registration token", move |txn| -> Result<_, StorageError> {
                if !is_admin(txn, &who)? {
                    return Ok(Err(not_admin()));
                }
                if !registration_tokens::insert(txn, &token, uses_allowed, expiry_ts)? {
                    return Ok(Err(Refusal::invalid_param("there is such a token already")));
                }
                Ok(Ok(RegistrationToken { token, uses_allowed, used: 0, expiry_ts }))
            })
            .await?
            .map_err(Failure::from)
    }

    /// Returns tokens, in the order of the alphabet.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for users who do not administer the server.
    pub async fn list(
        &self,
        who: &UserId,
        which: Which,
    ) -> Result<Vec<RegistrationToken>, Failure> {
        let who = who.to_owned();
        let found = self
            .database
            .read(move |txn| -> Result<_, StorageError> {
                match is_admin(txn, &who)? {
                    true => registration_tokens::all(txn).map(Ok),
                    false => Ok(Err(not_admin())),
                }
            })
            .await?;
        let mut tokens = found?;
        let now_ts = wall_clock_ms(&self.reactor);
        match which {
            Which::All => {}
            Which::Usable => tokens.retain(|token| token.is_usable(now_ts)),
            Which::Useless => tokens.retain(|token| !token.is_usable(now_ts)),
        }
        Ok(tokens)
    }

    /// Returns one token.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for users who do not administer the server, `M_NOT_FOUND`.
    pub async fn get(&self, who: &UserId, token: String) -> Result<RegistrationToken, Failure> {
        let who = who.to_owned();
        let found = self
            .database
            .read(move |txn| -> Result<_, StorageError> {
                match is_admin(txn, &who)? {
                    true => registration_tokens::find(txn, &token).map(Ok),
                    false => Ok(Err(not_admin())),
                }
            })
            .await?;
        found?.ok_or_else(|| no_such_token().into())
    }

    /// Removes a token. Accounts that were made with it stay.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for users who do not administer the server, `M_NOT_FOUND`.
    pub async fn delete(&self, who: &UserId, token: String) -> Result<(), Failure> {
        let who = who.to_owned();
        self.database
            .write("delete registration token", move |txn| -> Result<_, StorageError> {
                if !is_admin(txn, &who)? {
                    return Ok(Err(not_admin()));
                }
                let found = registration_tokens::delete(txn, &token)?;
                Ok(if found { Ok(()) } else { Err(no_such_token()) })
            })
            .await?
            .map_err(Failure::from)
    }
}

fn is_admin(txn: &Txn<'_>, user_id: &UserId) -> Result<bool, StorageError> {
    Ok(users::find(txn, user_id)?.is_some_and(|user| user.is_admin))
}

fn check(token: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if token.is_empty() || token.len() > TOKEN_CHARS_MAX || !token.bytes().all(allowed) {
        let message =
            format!("tokens are made of 1 to {TOKEN_CHARS_MAX} of A-Z, a-z, 0-9 and . _ ~ -");
        return Err(Refusal::invalid_param(message));
    }
    Ok(())
}

fn not_admin() -> Refusal {
    Refusal::forbidden("this is for administrators of the server")
}

fn no_such_token() -> Refusal {
    Refusal::not_found("there is no such registration token")
}
