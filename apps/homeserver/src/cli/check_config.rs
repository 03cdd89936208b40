//! `homeserver check-config`: what will run.

use std::fmt::Write as _;

use super::{CliError, print, tell, with_causes};
use crate::config::{Config, secrets};
use crate::wiring;

pub(super) fn run(config: &Config) -> Result<(), CliError> {
    check_files(config)?;
    for warning in &config.warnings {
        tell(&format!("warning: {warning}\n"));
    }
    print(&summary(config))
}

/// Looks at the files that the configuration names and that the server does not make by itself.
fn check_files(config: &Config) -> Result<(), CliError> {
    let wrong = |error: &dyn std::error::Error| CliError::asked_wrongly(with_causes(error));
    secrets::existing_registration_secret(&config.registration, &config.paths)
        .map_err(|error| wrong(&error))?;
    match &config.listen.https {
        Some(https) => wiring::check_certificate(https)
            .map_err(|error| CliError::asked_wrongly(with_causes(&*error))),
        None => Ok(()),
    }
}

pub(super) fn summary(config: &Config) -> String {
    let mut text = match &config.file {
        Some(file) => format!("{} is fine. This will run:\n", file.display()),
        None => "There is no configuration file. This will run:\n".to_owned(),
    };
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<14}{value}");
    };
    let http = &config.listen.http;
    line("server name", config.server_name.to_string());
    line("HTTP", format!("{} port {}", http.host, http.port));
    if let Some(https) = &config.listen.https {
        line("HTTPS", format!("{} port {}", https.host, https.port));
    }
    if let Some(url) = &config.public_base_url {
        line("public address", url.as_str().to_owned());
    }
    line("data", config.paths.data_dir.display().to_string());
    line("signing key", config.paths.signing_key.display().to_string());
    line("database", format!("SQLite, {}", config.paths.database.display()));
    line("registration", registration(config).to_owned());
    line("room version", config.default_room_version.to_string());
    line("rate limits", if config.rate_limits.enabled { "on" } else { "off" }.to_owned());
    text
}

fn registration(config: &Config) -> &'static str {
    match (config.registration.open, config.registration.tokens) {
        (false, _) => "closed; `homeserver register-user` makes accounts",
        (true, true) => "open to whoever has a registration token",
        (true, false) => "open to everybody",
    }
}
