//! The command line: what can be asked of the program, and how it answers on the terminal.
//!
//! Results go to stdout, talk to stderr. Exit status 0: done; 1: could not; 2: asked wrongly, by the
//! command line or by the configuration.

mod check_config;
mod init;
mod register_user;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, DEFAULT_DATA_DIR, first_start};

const EXAMPLES: &str = "\
Examples:
  Try it out, with data in ./homeserver-data, reachable from this machine only:
    homeserver
  Make an account on the server that runs:
    homeserver register-user alice
  Set up a server to stay, and run it:
    homeserver init --server-name example.org --data-dir /var/lib/ropewalk
    homeserver check-config --config /var/lib/ropewalk/homeserver.toml
    homeserver --config /var/lib/ropewalk/homeserver.toml

Exit status: 0 done, 1 could not, 2 asked wrongly (by the command line or the configuration).";

/// A Matrix homeserver. Without a command it runs until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "homeserver", version, after_long_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with a configuration, or what will run.
    CheckConfig(ConfigArgument),
    /// Make a data folder with signing key and commented configuration.
    Init(init::InitArguments),
    /// Make an account on the server that runs.
    RegisterUser(register_user::RegisterUserArguments),
}

#[derive(Args, Debug)]
struct ConfigArgument {
    /// The configuration file.
    ///
    /// Without it, ./homeserver-data/homeserver.toml is read if it is there; if not, the server is
    /// called localhost, listens on 127.0.0.1:8008 and keeps its data in ./homeserver-data.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn load(&self) -> Result<Config, CliError> {
        let data_dir = Path::new(DEFAULT_DATA_DIR);
        match self.config.clone().or_else(|| first_start::file_in(data_dir)) {
            Some(file) => Ok(Config::load(&file)?),
            None => Ok(Config::without_file(data_dir)),
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct CliError {
    /// What went wrong; several lines if several things did.
    message: String,
    hint: Option<String>,
    status: u8,
}

impl CliError {
    /// The request was fine, but could not be fulfilled.
    fn could_not(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, status: 1 }
    }

    /// The request makes no sense.
    fn asked_wrongly(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, status: 2 }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        let file = errors.file.as_ref().map(|file| format!(" --config {}", file.display()));
        Self::asked_wrongly(errors.to_string()).with_hint(format!(
            "`homeserver check-config{}` tells when it is right",
            file.unwrap_or_default()
        ))
    }
}

/// Says an error with all its causes in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Does what `arguments` ask for. `serve` runs the server until it is stopped.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(Config) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A terminal that went away does not make the answer wrong.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(cli, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = io::stderr().lock();
            let _ = report(&mut stderr, &error);
            ExitCode::from(error.status)
        }
    }
}

fn dispatch(
    cli: Cli,
    serve: impl FnOnce(Config) -> Result<(), Box<dyn Error>>,
) -> Result<(), CliError> {
    match cli.command {
        None => {
            let config = cli.config.load()?;
            serve(config).map_err(|error| CliError::could_not(with_causes(&*error)))
        }
        Some(Command::CheckConfig(argument)) => check_config::run(&argument.load()?),
        Some(Command::Init(arguments)) => init::run(&arguments),
        Some(Command::RegisterUser(arguments)) => register_user::run(&arguments),
    }
}

fn report(out: &mut impl Write, error: &CliError) -> io::Result<()> {
    for line in error.message.lines() {
        writeln!(out, "error: {line}")?;
    }
    if let Some(hint) = &error.hint {
        writeln!(out, "hint: {hint}")?;
    }
    Ok(())
}

/// Writes a result to stdout. A reader that went away, as `head` does, is no error.
fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::could_not(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes talk to stderr.
fn tell(text: &str) {
    // There is nobody left to tell that nobody listens.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
