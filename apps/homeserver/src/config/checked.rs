//! The configuration as the server runs on it: keys looked at together, paths resolved, what is
//! missing refused.

use std::path::{Path, PathBuf};

use ruma::{OwnedServerName, RoomVersionId, server_name};

use super::appservices::AppServices;
use super::cas::Cas;
use super::database::{Database, Engine};
use super::document::{ConfigErrors, Reading, read_file};
use super::federation::Federation;
use super::listen::{Listen, is_loopback};
use super::media::Media;
use super::messages::Messages;
use super::outgoing::Outgoing;
use super::passwords::Passwords;
use super::presence::Presence;
use super::rate_limits::RateLimits;
use super::raw::RawConfig;
use super::recaptcha::Recaptcha;
use super::registration::Registration;
use super::replication::Replication;
use super::room_directory::RoomDirectory;
use super::smtp::Smtp;
use super::sync::Sync;
use super::url_previews::UrlPreviews;
use super::values::WebAddress;
use super::workers::Workers;

/// What the server runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file this was read from; `None` if the server runs without one.
    pub file: Option<PathBuf>,
    /// The name behind the colon of every user id.
    pub server_name: OwnedServerName,
    /// Where clients reach the server, if that was said.
    pub public_base_url: Option<WebAddress>,
    /// The version of rooms that are made without naming one.
    pub default_room_version: RoomVersionId,
    /// How much is logged.
    pub log_level: log::LevelFilter,
    /// Where files are, resolved.
    pub paths: Paths,
    /// Listeners.
    pub listen: Listen,
    /// The database; its path is in [`Paths`].
    pub database: Database,
    /// Talking to other homeservers.
    pub federation: Federation,
    /// Connections to anything but homeservers.
    pub outgoing: Outgoing,
    /// Who may make an account.
    pub registration: Registration,
    /// How passwords are kept.
    pub passwords: Passwords,
    /// How often somebody may do something.
    pub rate_limits: RateLimits,
    /// How news reach clients.
    pub sync: Sync,
    /// Pictures and files.
    pub media: Media,
    /// Previews of pages.
    pub url_previews: UrlPreviews,
    /// The list of public rooms.
    pub room_directory: RoomDirectory,
    /// Bridges.
    pub appservices: AppServices,
    /// Mail, if configured.
    pub smtp: Option<Smtp>,
    /// Pictures to click on, if configured.
    pub recaptcha: Option<Recaptcha>,
    /// CAS, if configured.
    pub cas: Option<Cas>,
    /// What may happen to messages.
    pub messages: Messages,
    /// Who is online.
    pub presence: Presence,
    /// Several processes, if configured.
    pub workers: Option<Workers>,
    /// The line between them, if configured.
    pub replication: Option<Replication>,
    /// Sentences for the log: keys that have no effect in this version.
    pub warnings: Vec<String>,
}

/// Where the server's files are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paths {
    /// Everything that belongs to the server.
    pub data_dir: PathBuf,
    /// The SQLite database.
    pub database: PathBuf,
    /// Uploaded and downloaded files.
    pub media: PathBuf,
    /// The key that signs events.
    pub signing_key: PathBuf,
    /// The registration secret, where the configuration has none.
    pub shared_secret: PathBuf,
}

/// The data folder of a server without a configuration file, and of `homeserver init` without a
/// folder.
pub const DEFAULT_DATA_DIR: &str = "./homeserver-data";

/// What the configuration file is called in a data folder that the server made.
pub const CONFIG_FILE_NAME: &str = "homeserver.toml";

/// Sections and keys whose feature is not in this version: written, they are checked and have no
/// effect.
const WITHOUT_EFFECT: [&str; 12] = [
    "appservices",
    "cas",
    "federation",
    "listen.metrics",
    "media",
    "messages.self_destruct",
    "presence",
    "recaptcha",
    "registration.guests",
    "replication",
    "smtp",
    "workers",
];

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it at once, in the order of its lines.
    pub fn load(file: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&read_file(file)?, file)
    }

    /// Checks the text of a file; relative paths count from the folder of `file`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it at once, in the order of its lines.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        let (raw, mut reading) = RawConfig::read(text);
        if !reading.is_broken() {
            check(&raw, &mut reading);
        }
        let warnings = warnings(&raw, &reading, file);
        let problems = reading.into_problems();
        match raw.server.server_name.clone() {
            Some(server_name) if problems.is_empty() => {
                Ok(Self::assemble(raw, server_name, Some(file), warnings))
            }
            _ => Err(ConfigErrors { file: Some(file.to_owned()), problems }),
        }
    }

    /// Returns the configuration of a server that was started without a file: `localhost`,
    /// reachable from this machine only, registration closed, data in `data_dir`.
    pub fn without_file(data_dir: &Path) -> Self {
        let mut raw = RawConfig::default();
        raw.server.data_dir = data_dir.to_owned();
        Self::assemble(raw, server_name!("localhost").to_owned(), None, Vec::new())
    }

    fn assemble(
        raw: RawConfig,
        server_name: OwnedServerName,
        file: Option<&Path>,
        warnings: Vec<String>,
    ) -> Self {
        let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
        let paths = Paths::resolve(&raw, folder);
        let mut config = Self {
            file: file.map(Path::to_owned),
            server_name,
            public_base_url: raw.server.public_base_url,
            default_room_version: raw.server.default_room_version,
            log_level: raw.server.log_level,
            paths,
            listen: raw.listen,
            database: raw.database,
            federation: raw.federation,
            outgoing: raw.outgoing,
            registration: raw.registration,
            passwords: raw.passwords,
            rate_limits: raw.rate_limits,
            sync: raw.sync,
            media: raw.media,
            url_previews: raw.url_previews,
            room_directory: raw.room_directory,
            appservices: raw.appservices,
            smtp: raw.smtp,
            recaptcha: raw.recaptcha,
            cas: raw.cas,
            messages: raw.messages,
            presence: raw.presence,
            workers: raw.workers,
            replication: raw.replication,
            warnings,
        };
        config.resolve_paths_in_sections(folder);
        config
    }

    fn resolve_paths_in_sections(&mut self, folder: &Path) {
        let from_folder = |path: &mut PathBuf| *path = folder.join(&*path);
        if let Some(https) = &mut self.listen.https {
            from_folder(&mut https.certificate);
            from_folder(&mut https.private_key);
        }
        self.federation.trusted_ca.iter_mut().for_each(from_folder);
        self.outgoing.trusted_ca.iter_mut().for_each(from_folder);
        self.appservices.files.iter_mut().for_each(from_folder);
        self.registration.shared_secret_file.iter_mut().for_each(from_folder);
        if let Some(replication) = &mut self.replication {
            let optional = [
                &mut replication.secret_file,
                &mut replication.tls_certificate,
                &mut replication.tls_private_key,
                &mut replication.tls_ca,
            ];
            optional.into_iter().flatten().for_each(from_folder);
        }
    }
}

impl Paths {
    fn resolve(raw: &RawConfig, folder: &Path) -> Self {
        // Through its components, a `.` in the middle goes away.
        let data_dir: PathBuf = folder.join(&raw.server.data_dir).components().collect();
        Self {
            database: data_dir.join(&raw.database.path),
            media: data_dir.join(&raw.media.path),
            signing_key: data_dir.join(&raw.server.signing_key),
            shared_secret: data_dir.join("registration_shared_secret"),
            data_dir,
        }
    }
}

/// Everything that takes more than one key to see.
fn check(raw: &RawConfig, reading: &mut Reading<'_>) {
    if raw.server.server_name.is_none() && !reading.is_written("server_name") {
        let example = "write for example `server_name = \"example.org\"` at the top".to_owned();
        reading.problem("server_name", "missing", Some(example));
    } else if raw.server.server_name.is_none() && reading.has_no_problem_with("server_name") {
        let example = "for example `server_name = \"example.org\"`".to_owned();
        reading.problem("server_name", "found the empty string", Some(example));
    }
    check_database(raw, reading);
    check_listeners(raw, reading);
    check_registration(raw, reading);
    if raw.replication.as_ref().is_some_and(|r| r.secret.is_some() && r.secret_file.is_some()) {
        let example = "take out one of the two".to_owned();
        reading.problem("replication.secret_file", "replication.secret is set too", Some(example));
    }
}

fn check_database(raw: &RawConfig, reading: &mut Reading<'_>) {
    // A server that keeps its data elsewhere than it was told to is worse than one that does not
    // start.
    if raw.database.engine == Engine::Postgres {
        let trouble = "found \"postgres\", but this version keeps its data in SQLite only";
        let example = "write `engine = \"sqlite\"`".to_owned();
        reading.problem("database.engine", trouble, Some(example));
    }
    if raw.database.path.as_os_str().is_empty() {
        let example = "for example `path = \"homeserver.db\"`".to_owned();
        reading.problem("database.path", "found the empty string", Some(example));
    }
}

fn check_listeners(raw: &RawConfig, reading: &mut Reading<'_>) {
    if raw.listen.http.host.is_empty() {
        let example = "for example `host = \"127.0.0.1\"`".to_owned();
        reading.problem("listen.http.host", "found the empty string", Some(example));
    }
    let Some(https) = &raw.listen.https else { return };
    let files = [
        ("listen.https.certificate", &https.certificate, "certificate = \"fullchain.pem\""),
        ("listen.https.private_key", &https.private_key, "private_key = \"privkey.pem\""),
    ];
    for (key, path, example) in files {
        if path.as_os_str().is_empty() {
            let example = format!("write for example `{example}` below `[listen.https]`");
            reading.problem(key, "missing", Some(example));
        }
    }
}

fn check_registration(raw: &RawConfig, reading: &mut Reading<'_>) {
    let registration = &raw.registration;
    if registration.shared_secret.is_some() && registration.shared_secret_file.is_some() {
        let example = "take out one of the two".to_owned();
        let trouble = "registration.shared_secret is set too";
        reading.problem("registration.shared_secret_file", trouble, Some(example));
    }
    let unverified = registration.open && !registration.tokens;
    if !unverified || registration.open_without_verification {
        return;
    }
    let hosts = [Some(&raw.listen.http.host), raw.listen.https.as_ref().map(|https| &https.host)];
    if let Some(host) = hosts.into_iter().flatten().find(|host| !is_loopback(host)) {
        reading.problem(
            "registration.open",
            format!("anybody who reaches {host} could make accounts without being asked for anything"),
            Some(
                "set `tokens = true`, listen on 127.0.0.1, or write `open_without_verification = true` \
                 if this is meant"
                    .to_owned(),
            ),
        );
    }
}

fn warnings(raw: &RawConfig, reading: &Reading<'_>, file: &Path) -> Vec<String> {
    let mut warnings: Vec<String> = WITHOUT_EFFECT
        .iter()
        .filter(|key| reading.is_written(key))
        .filter(|key| **key != "registration.guests" || raw.registration.guests)
        .filter(|key| **key != "messages.self_destruct" || raw.messages.self_destruct)
        .filter_map(|key| Some((reading.line_of_key(key)?, key)))
        .map(|(line, key)| {
            format!("{}:{line}: {key} has no effect in this version", file.display())
        })
        .collect();
    if raw.url_previews.enabled {
        warnings.push("url_previews.enabled has no effect in this version".to_owned());
    }
    if raw.passwords.fast_hash {
        warnings.push(
            "passwords.fast_hash is on: passwords are hashed cheaply, use it in test rigs only"
                .to_owned(),
        );
    }
    if raw.registration.open && !raw.registration.tokens {
        warnings.push("registration is open: anybody who reaches the server can join".to_owned());
    }
    warnings
}
