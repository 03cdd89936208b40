//! Passwords: hashed with argon2id, kept as PHC strings. Hashing takes tens of milliseconds and
//! megabytes, so it happens in a thread pool.

use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use ropewalk::{Deferred, Failure, Reactor, ThreadPool, ThreadPoolError, ThreadPoolOptions};
use zeroize::Zeroizing;

use super::Refusal;
use crate::config::Secret;

/// The longest password, in bytes, as in Synapse. Hashing does not get slower with the length, but
/// a megabyte of password is no password.
pub const PASSWORD_BYTES_MAX: usize = 512;

/// How much a hash costs: OWASP's first recommendation for argon2id (46 MiB, 1 pass, 1 lane), some
/// tens of milliseconds. Blocks of more than 32 MiB go back to the system with each hash; of the
/// second one's 19 MiB the allocator kept three in every thread's arena, 400 MiB after fifty
/// registrations. Two threads bound what many logins at once take.
const MEMORY_KIB: u32 = 46 * 1024;
const PASSES: u32 = 1;

/// What `passwords.fast_hash` asks for: the least that argon2 knows. Test rigs make users by
/// hundreds.
const FAST_MEMORY_KIB: u32 = Params::MIN_M_COST;
const FAST_PASSES: u32 = 1;

const SALT_BYTES: usize = 16;

/// Hashes and checks passwords.
#[derive(Clone)]
pub struct Passwords {
    reactor: Reactor,
    pool: ThreadPool,
    argon2: Argon2<'static>,
}

/// A password in the clear, wiped when dropped.
pub type Password = Zeroizing<String>;

/// Why a password could not be hashed: memory ran out.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a password could not be hashed: {0}")]
pub struct HashingFailed(String);

impl Passwords {
    /// Hashes in threads of `pool`; `fast` is for test rigs only.
    pub fn new(reactor: Reactor, pool: ThreadPool, fast: bool) -> Self {
        let (memory, passes) =
            if fast { (FAST_MEMORY_KIB, FAST_PASSES) } else { (MEMORY_KIB, PASSES) };
        // These constants are within argon2's limits; its own defaults are no worse.
        let params = Params::new(memory, passes, 1, None).unwrap_or_default();
        Self { reactor, pool, argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params) }
    }

    /// Hashes a new password into a PHC string.
    pub fn hash(&self, password: Password) -> Deferred<Secret> {
        let salt = self.salt();
        let argon2 = self.argon2.clone();
        self.pool
            .defer(move || hash(&argon2, &password, &salt))
            .add_errback(|failure| Err(later_if_full(failure)))
    }

    /// Checks a password against a PHC string. Without one, for users who do not exist, it takes as
    /// long and is always wrong.
    pub fn verify(&self, password: Password, stored: Option<Secret>) -> Deferred<bool> {
        let salt = self.salt();
        let argon2 = self.argon2.clone();
        self.pool
            .defer(move || match stored {
                Some(stored) => Ok(verify(&argon2, &password, &stored)),
                None => hash(&argon2, &password, &salt).map(|_| false),
            })
            .add_errback(|failure| Err(later_if_full(failure)))
    }

    fn salt(&self) -> [u8; SALT_BYTES] {
        let mut salt = [0; SALT_BYTES];
        self.reactor.random_bytes(&mut salt);
        salt
    }
}

/// Returns how the pool for password hashing is made. More waiting jobs than this would be answered
/// after their clients have given up.
pub fn pool_options() -> ThreadPoolOptions {
    ThreadPoolOptions::new("passwords").threads(2).queue_max(200)
}

/// Too many people log in at once: they shall come again.
fn later_if_full(failure: Failure) -> Failure {
    match failure.downcast_ref::<ThreadPoolError>() {
        Some(ThreadPoolError::QueueFull { .. }) => {
            Refusal::limit_exceeded(Duration::from_secs(2)).into()
        }
        _ => failure,
    }
}

/// Refuses what cannot be a password.
///
/// # Errors
///
/// `M_WEAK_PASSWORD` if it is empty, `M_INVALID_PARAM` if it is too long.
pub fn check_new(password: &str) -> Result<(), Refusal> {
    if password.is_empty() {
        return Err(Refusal::new(
            ruma::api::error::ErrorKind::WeakPassword,
            "the password is empty",
        ));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        let message = format!("the password is over {PASSWORD_BYTES_MAX} bytes");
        return Err(Refusal::invalid_param(message));
    }
    Ok(())
}

fn hash(
    argon2: &Argon2<'static>,
    password: &str,
    salt: &[u8; SALT_BYTES],
) -> Result<Secret, Failure> {
    argon2
        .hash_password_with_salt(password.as_bytes(), salt)
        .map(|hash| Secret::new(hash.to_string()))
        .map_err(|error| HashingFailed(error.to_string()).into())
}

/// The parameters are those of the stored hash, so that they can change without locking anybody
/// out.
fn verify(argon2: &Argon2<'static>, password: &str, stored: &Secret) -> bool {
    PasswordHash::new(stored.expose())
        .is_ok_and(|hash| argon2.verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argon2(memory: u32, passes: u32) -> Argon2<'static> {
        let params = Params::new(memory, passes, 1, None).expect("valid parameters");
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
    }

    #[test]
    fn the_parameters_are_within_argon2s_limits() {
        argon2(MEMORY_KIB, PASSES);
        argon2(FAST_MEMORY_KIB, FAST_PASSES);
    }

    #[test]
    fn hashes_are_phc_strings_that_open_for_their_password_only() {
        let fast = argon2(FAST_MEMORY_KIB, FAST_PASSES);
        let hashed = hash(&fast, "correct horse", &[7; 16]).expect("hashed");
        assert!(hashed.expose().starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
        assert!(verify(&fast, "correct horse", &hashed));
        assert!(!verify(&fast, "Correct horse", &hashed));
        assert!(!verify(&fast, "", &hashed));
        let other_salt = hash(&fast, "correct horse", &[8; 16]).expect("hashed");
        assert_ne!(hashed, other_salt);
    }

    #[test]
    fn old_hashes_open_under_new_parameters() {
        let old = hash(&argon2(16, 1), "secret", &[1; 16]).expect("hashed");
        assert!(verify(&argon2(32, 2), "secret", &old));
    }

    #[test]
    fn what_is_no_hash_opens_for_nobody() {
        let fast = argon2(FAST_MEMORY_KIB, FAST_PASSES);
        for stored in ["", "secret", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv"] {
            assert!(!verify(&fast, "secret", &Secret::new(stored.to_owned())), "{stored}");
        }
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        assert!(check_new("").is_err());
        assert!(check_new("x").is_ok());
        assert!(check_new(&"x".repeat(PASSWORD_BYTES_MAX)).is_ok());
        assert!(check_new(&"x".repeat(PASSWORD_BYTES_MAX + 1)).is_err());
    }
}
