//! `[rate_limits.*]`: how often somebody may do something.

use std::num::NonZeroU32;

use super::section::section;
use super::values::PerSecond;

section! {
    /// How often somebody may do something.
    RateLimit {
        /// How often it may be done for any length of time.
        per_second: PerSecond = PerSecond(10.0);
        /// How often it may be done in one go by somebody who was quiet before.
        burst: NonZeroU32 = count(50);
    }
}

section! {
    /// Too many requests are answered 429 M_LIMIT_EXCEEDED, with the time to wait.
    RateLimitSwitch {
        /// Whether anything is limited at all.
        enabled: bool = true;
    }
}

/// All limits.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimits {
    /// Whether anything is limited at all.
    pub enabled: bool,
    /// Events that a user sends.
    pub message: RateLimit,
    /// Attempts to log in, by address and by account.
    pub login: RateLimit,
    /// Attempts to make an account, by address.
    pub registration: RateLimit,
    /// Joins of a user.
    pub join: RateLimit,
    /// Invitations that a user sends.
    pub invite: RateLimit,
    /// Requests for tokens by mail or text message, by address.
    pub third_party: RateLimit,
    /// Uploads and downloads of a user.
    pub media: RateLimit,
    /// Requests of another server.
    pub federation: RateLimit,
}

impl Default for RateLimits {
    fn default() -> Self {
        let limit = |per_second: f64, burst: u32| RateLimit {
            per_second: PerSecond(per_second),
            burst: count(burst),
        };
        Self {
            enabled: true,
            message: RateLimit::default(),
            // A person mistypes a few times; a guesser gets twelve passwords a minute.
            login: limit(0.2, 20),
            // A household or a class behind one address can register in one go.
            registration: limit(0.2, 20),
            join: limit(1.0, 20),
            invite: limit(1.0, 20),
            // Each of these makes us send a mail.
            third_party: limit(0.05, 5),
            media: limit(10.0, 50),
            // A busy server sends up to fifty events a transaction, a transaction at a time.
            federation: limit(50.0, 200),
        }
    }
}

impl RateLimits {
    /// The names of the limits, in the order of the sample.
    pub(crate) const NAMES: [&'static str; 8] = [
        "message",
        "login",
        "registration",
        "join",
        "invite",
        "third_party",
        "media",
        "federation",
    ];

    /// Returns the limit called `name`.
    pub(crate) fn by_name_mut(&mut self, name: &str) -> Option<&mut RateLimit> {
        Some(match name {
            "message" => &mut self.message,
            "login" => &mut self.login,
            "registration" => &mut self.registration,
            "join" => &mut self.join,
            "invite" => &mut self.invite,
            "third_party" => &mut self.third_party,
            "media" => &mut self.media,
            "federation" => &mut self.federation,
            _ => return None,
        })
    }
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}
