//! The homeserver's entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The failure is told with all its causes.
    homeserver::cli::run(std::env::args_os(), |config| {
        homeserver::serve(config).map_err(|failure| format!("{failure:#}").into())
    })
}
