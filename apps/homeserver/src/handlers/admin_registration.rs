//! Accounts made with the shared secret: whoever knows it may register anybody, administrators too.
//!
//! The server gives out a nonce; the client sends it back with the account and an HMAC-SHA1 over
//! both (Synapse's `/_synapse/admin/v1/register`, which deployment tools know).

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::hmac;
use ropewalk::cache::LruCache;
use ropewalk::{Failure, Instant, Reactor};
use ruma::OwnedServerName;
use ruma::api::error::ErrorKind;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Refusal;
use super::registration::{Account, FirstDevice, Registered, Registration, local_user_id};
use crate::config::Secret;

/// How long a nonce is good, as in Synapse.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);

/// How many nonces are outstanding at most, each in some 200 bytes. Whoever asks for more makes us
/// forget the oldest.
const NONCES_MAX: usize = 10_000;

/// What a client sends.
#[derive(Deserialize)]
pub struct AdminRegistrationRequest {
    nonce: Option<String>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    displayname: Option<String>,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    mac: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
}

/// Registers whomever the holder of the secret wants.
pub struct AdminRegistration {
    reactor: Reactor,
    registration: Rc<Registration>,
    secret: Secret,
    server_name: OwnedServerName,
    /// When each was given out.
    nonces: LruCache<String, Instant>,
}

impl AdminRegistration {
    /// Believes whoever knows `secret`.
    pub fn new(
        reactor: Reactor,
        registration: Rc<Registration>,
        secret: Secret,
        server_name: OwnedServerName,
    ) -> Self {
        let nonces = LruCache::new(NONCES_MAX);
        Self { reactor, registration, secret, server_name, nonces }
    }

    /// Gives out a nonce.
    pub fn nonce(&self) -> String {
        let mut bytes = [0u8; 32];
        self.reactor.random_bytes(&mut bytes);
        let nonce = hex(&bytes);
        self.nonces.insert(nonce.clone(), self.reactor.now());
        nonce
    }

    /// Makes the account.
    ///
    /// # Errors
    ///
    /// `M_BAD_JSON` if something is missing, `M_UNKNOWN` if the nonce is not good (any more),
    /// `M_FORBIDDEN` if the MAC is wrong; `M_USER_IN_USE` and the like.
    pub async fn register(&self, request: AdminRegistrationRequest) -> Result<Registered, Failure> {
        let missing = |what: &str| Refusal::bad_json(format!("missing `{what}`"));
        let nonce = request.nonce.ok_or_else(|| missing("nonce"))?;
        let now = self.reactor.now();
        // Good once, whatever comes of it.
        let given_out_at = self.nonces.remove(&nonce);
        if given_out_at.is_none_or(|at| now.since(at) >= NONCE_LIFETIME) {
            return Err(Refusal::new(ErrorKind::Unknown, "unrecognised nonce").into());
        }
        let username = request.username.ok_or_else(|| missing("username"))?;
        let password = request.password.ok_or_else(|| missing("password"))?;
        let sent = request.mac.ok_or_else(|| missing("mac"))?;
        if username.contains('\0') || password.contains('\0') {
            // The MAC separates its parts with it.
            return Err(Refusal::invalid_param("a NUL in the user name or password").into());
        }
        let parts = MacParts {
            nonce: &nonce,
            username: &username,
            password: &password,
            admin: request.admin,
            user_type: request.user_type.as_deref(),
        };
        if !parts.matches(&self.secret, &sent) {
            return Err(Refusal::forbidden("the HMAC is wrong; check the shared secret").into());
        }
        let account = Account {
            user_id: local_user_id(&username.to_lowercase(), &self.server_name)?,
            password,
            is_admin: request.admin,
            display_name: request.displayname,
        };
        let device = (!request.inhibit_login).then(FirstDevice::default);
        self.registration.create(account, device, None).await
    }
}

/// What the MAC vouches for.
#[derive(Clone, Copy)]
pub struct MacParts<'p> {
    /// The nonce that the server gave out.
    pub nonce: &'p str,
    /// The localpart of the account.
    pub username: &'p str,
    /// Its password.
    pub password: &'p str,
    /// Whether it administers the server.
    pub admin: bool,
    /// Synapse's kind of account, for its tools.
    pub user_type: Option<&'p str>,
}

impl MacParts<'_> {
    /// Returns the MAC in hexadecimal.
    pub fn sign(self, secret: &Secret) -> String {
        hex(self.tag(secret).as_ref())
    }

    /// Compares in a time that does not depend on where the difference is.
    fn matches(self, secret: &Secret, sent: &str) -> bool {
        let expected = self.sign(secret);
        let sent = sent.to_ascii_lowercase();
        bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), sent.as_bytes()))
    }

    fn tag(self, secret: &Secret) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        let admin = if self.admin { "admin" } else { "notadmin" };
        for (index, part) in [self.nonce, self.username, self.password, admin]
            .into_iter()
            .chain(self.user_type)
            .enumerate()
        {
            if index > 0 {
                context.update(b"\0");
            }
            context.update(part.as_bytes());
        }
        context.sign()
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'p>(admin: bool, user_type: Option<&'p str>) -> MacParts<'p> {
        MacParts {
            nonce: "thisisanonce",
            username: "pepper_roni",
            password: "pizza",
            admin,
            user_type,
        }
    }

    /// Made with Python's `hmac.new(b"shared_secret", message, hashlib.sha1)`.
    #[test]
    fn macs_are_those_of_synapses_tools() {
        let secret = Secret::new("shared_secret".to_owned());
        for (admin, user_type, expected) in [
            (true, None, "48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7"),
            (false, None, "cf2391885316861a8e3871bfdcd223ab3913221d"),
            (false, Some("support"), "b7f4d18c034bc28e97a674cb1be4ab6c1744abc5"),
        ] {
            let parts = parts(admin, user_type);
            assert_eq!(parts.sign(&secret), expected);
            assert!(parts.matches(&secret, expected));
            assert!(parts.matches(&secret, &expected.to_uppercase()));
            assert!(!parts.matches(&secret, &expected[1..]));
            assert!(!parts.matches(&secret, ""));
        }
        let other = Secret::new("other_secret".to_owned());
        assert!(!parts(true, None).matches(&other, &parts(true, None).sign(&secret)));
    }
}
