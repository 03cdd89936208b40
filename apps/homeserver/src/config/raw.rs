//! The configuration as it was written: every section read and typed, each key by itself.
//!
//! Nothing here looks at two keys at once; that is `checked.rs`.

use super::appservices::AppServices;
use super::cas::Cas;
use super::database::Database;
use super::document::{Reading, Table};
use super::federation::Federation;
use super::listen::{HttpListener, HttpsListener, Listen, MetricsListener};
use super::media::Media;
use super::messages::Messages;
use super::outgoing::Outgoing;
use super::passwords::Passwords;
use super::presence::Presence;
use super::rate_limits::{RateLimit, RateLimitSwitch, RateLimits};
use super::recaptcha::Recaptcha;
use super::registration::Registration;
use super::replication::Replication;
use super::room_directory::RoomDirectory;
use super::section::Section;
use super::server::Server;
use super::smtp::Smtp;
use super::sync::Sync;
use super::url_previews::UrlPreviews;
use super::workers::Workers;

/// All sections as written, with defaults for what was not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RawConfig {
    pub(crate) server: Server,
    pub(crate) listen: Listen,
    pub(crate) database: Database,
    pub(crate) federation: Federation,
    pub(crate) outgoing: Outgoing,
    pub(crate) registration: Registration,
    pub(crate) passwords: Passwords,
    pub(crate) rate_limits: RateLimits,
    pub(crate) sync: Sync,
    pub(crate) media: Media,
    pub(crate) url_previews: UrlPreviews,
    pub(crate) room_directory: RoomDirectory,
    pub(crate) appservices: AppServices,
    pub(crate) smtp: Option<Smtp>,
    pub(crate) recaptcha: Option<Recaptcha>,
    pub(crate) cas: Option<Cas>,
    pub(crate) messages: Messages,
    pub(crate) presence: Presence,
    pub(crate) workers: Option<Workers>,
    pub(crate) replication: Option<Replication>,
}

/// The sections directly below the top.
pub(crate) const SECTIONS: [&str; 19] = [
    "listen",
    "database",
    "federation",
    "outgoing",
    "registration",
    "passwords",
    "rate_limits",
    "sync",
    "media",
    "url_previews",
    "room_directory",
    "appservices",
    "smtp",
    "recaptcha",
    "cas",
    "messages",
    "presence",
    "workers",
    "replication",
];

impl RawConfig {
    /// Reads a file's text. Problems are in the returned [`Reading`]; keys with problems have their
    /// default.
    pub(crate) fn read(text: &str) -> (Self, Reading<'_>) {
        let (mut reading, document) = Reading::parse(text);
        if reading.is_broken() {
            // What a broken line did to its neighbours would only confuse.
            return (Self::default(), reading);
        }
        let top = Table::top(document.get_ref());
        let raw = Self::read_sections(&top, &mut reading);
        (raw, reading)
    }

    fn read_sections<'t>(top: &Table<'_, 't>, reading: &mut Reading<'t>) -> Self {
        Self {
            server: Server::read(top, Server::default(), &SECTIONS, reading),
            listen: read_listen(top, reading),
            database: plain(top, "database", reading),
            federation: plain(top, "federation", reading),
            outgoing: plain(top, "outgoing", reading),
            registration: plain(top, "registration", reading),
            passwords: plain(top, "passwords", reading),
            rate_limits: read_rate_limits(top, reading),
            sync: plain(top, "sync", reading),
            media: plain(top, "media", reading),
            url_previews: plain(top, "url_previews", reading),
            room_directory: plain(top, "room_directory", reading),
            appservices: plain(top, "appservices", reading),
            smtp: optional(top, "smtp", "smtp", reading),
            recaptcha: optional(top, "recaptcha", "recaptcha", reading),
            cas: optional(top, "cas", "cas", reading),
            messages: plain(top, "messages", reading),
            presence: plain(top, "presence", reading),
            workers: optional(top, "workers", "workers", reading),
            replication: optional(top, "replication", "replication", reading),
        }
    }
}

/// Reads a section that is in force whether it is written or not.
fn plain<'t, S: Section>(top: &Table<'_, 't>, name: &str, reading: &mut Reading<'t>) -> S {
    optional(top, name, name, reading).unwrap_or_default()
}

/// Reads a section that is off unless it is written.
fn optional<'t, S: Section>(
    above: &Table<'_, 't>,
    key: &str,
    full_name: &str,
    reading: &mut Reading<'t>,
) -> Option<S> {
    let table = above.section(key, full_name, reading)?;
    Some(S::read(&table, S::default(), &[], reading))
}

fn read_listen<'t>(top: &Table<'_, 't>, reading: &mut Reading<'t>) -> Listen {
    let Some(table) = top.section("listen", "listen", reading) else { return Listen::default() };
    table.refuse_unknown(&["http", "https", "metrics"], reading);
    Listen {
        http: optional::<HttpListener>(&table, "http", "listen.http", reading).unwrap_or_default(),
        https: optional::<HttpsListener>(&table, "https", "listen.https", reading),
        metrics: optional::<MetricsListener>(&table, "metrics", "listen.metrics", reading),
    }
}

fn read_rate_limits<'t>(top: &Table<'_, 't>, reading: &mut Reading<'t>) -> RateLimits {
    let mut limits = RateLimits::default();
    let Some(table) = top.section("rate_limits", "rate_limits", reading) else { return limits };
    let switch =
        RateLimitSwitch::read(&table, RateLimitSwitch::default(), &RateLimits::NAMES, reading);
    limits.enabled = switch.enabled;
    for name in RateLimits::NAMES {
        let full_name = format!("rate_limits.{name}");
        let Some(below) = table.section(name, &full_name, reading) else { continue };
        if let Some(limit) = limits.by_name_mut(name) {
            *limit = RateLimit::read(&below, limit.clone(), &[], reading);
        }
    }
    limits
}
