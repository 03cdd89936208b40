//! `homeserver init`: a data folder, ready to be configured.

use std::path::PathBuf;

use clap::Args;
use ropewalk::Reactor;
use ruma::ServerName;

use super::{CliError, print, with_causes};
use crate::config::secrets::SecretFileError;
use crate::config::{CONFIG_FILE_NAME, Config, DEFAULT_DATA_DIR, first_start};

/// What `init` is told.
#[derive(Args, Debug)]
pub(super) struct InitArguments {
    /// The name behind the colon of every user id; it can never be changed.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_name: String,
    /// The folder to make.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

impl From<SecretFileError> for CliError {
    fn from(error: SecretFileError) -> Self {
        Self::could_not(with_causes(&error))
    }
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), CliError> {
    let server_name = ServerName::parse(&arguments.server_name).map_err(|_| {
        let message = format!("{:?} is not a server name", arguments.server_name);
        CliError::asked_wrongly(message).with_hint("for example `--server-name example.org`")
    })?;
    let file = arguments.data_dir.join(CONFIG_FILE_NAME);
    if file.exists() {
        let message = format!("{} is there already", file.display());
        return Err(CliError::could_not(message).with_hint("edit it, or name another folder"));
    }
    let reactor = Reactor::new()
        .map_err(|error| CliError::could_not(format!("cannot set up the event loop: {error}")))?;
    let mut config = Config::without_file(&arguments.data_dir);
    config.server_name = server_name;
    first_start::prepare(&config, &mut |buffer| reactor.random_bytes(buffer))?;
    print(&format!("Made {}\nEdit it, then run: homeserver --config {0}\n", file.display()))
}
