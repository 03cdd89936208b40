//! A homeserver process in a folder of its own, on a port of the system's choosing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use crate::http::{Answer, Connection};
use crate::terminal::Terminal;

/// What every test's server is run with: open registration on loopback, no limits on how often
/// something may be asked, cheap password hashing. Relative paths are in the test's folder.
const OPEN_SERVER: &str = r#"
server_name = "ropewalk.test"
data_dir = "data"

[listen.http]
host = "127.0.0.1"
port = 0

[registration]
open = true

[rate_limits]
enabled = false

[passwords]
fast_hash = true
"#;

/// A folder to run homeservers in; it outlives them, so that they can be restarted on their data.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    program: PathBuf,
}

impl Site {
    /// Makes a folder with an `open.toml` in it, for the given program or the one that the
    /// environment variable `ROPEWALK_HOMESERVER` names (a release build, an older one).
    ///
    /// # Panics
    ///
    /// If the folder cannot be made.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let named = std::env::var_os("ROPEWALK_HOMESERVER");
        let site = Self { folder, program: named.map_or_else(|| program.into(), PathBuf::from) };
        site.write("open.toml", OPEN_SERVER);
        site
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Writes a file into the folder.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder().join(name), text).expect("a test's file can be written");
    }

    /// Writes `open.toml` anew with more in it; keys of the top level come first.
    pub fn configure(&self, top_level: &str, sections: &str) {
        self.write("open.toml", &format!("{top_level}\n{OPEN_SERVER}\n{sections}"));
    }

    /// Returns the program with these arguments, to be run in the folder.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.folder()).env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the program to its end and returns how it ended and what it said.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let mut terminal = Terminal::start(self.command(arguments));
        let status = terminal.wait_exit(crate::terminal::PATIENCE);
        (status, terminal.transcript())
    }

    /// Starts the homeserver on `open.toml` and waits until it says where it listens.
    #[must_use]
    pub fn start(&self) -> Homeserver {
        Homeserver::await_ready(Terminal::start(self.command(&["--config", "open.toml"])))
    }
}

/// A running homeserver.
#[derive(Debug)]
pub struct Homeserver {
    terminal: Terminal,
    address: SocketAddr,
}

impl Homeserver {
    /// Waits until a started homeserver says where it listens. It does so on standard output when it
    /// is ready for requests and for signals; what it logs before that is not looked at.
    ///
    /// # Panics
    ///
    /// If it ends instead, or says nothing in time.
    #[must_use]
    pub fn await_ready(terminal: Terminal) -> Self {
        let address = terminal.wait_for("saying where it listens", listening_address);
        Self::at(address, terminal)
    }

    /// A homeserver that is known to be ready.
    #[must_use]
    pub fn at(address: SocketAddr, terminal: Terminal) -> Self {
        Self { terminal, address }
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL that clients are given.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the process, for its output, number and signals.
    #[must_use]
    pub fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// Opens a connection.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Makes one request on a connection of its own.
    #[must_use]
    pub fn request(&self, method: &str, target: &str, token: Option<&str>, body: &[u8]) -> Answer {
        let mut connection = self.connect();
        connection.request(method, target, token, body);
        let answer = connection.try_answer(method);
        answer.unwrap_or_else(|error| {
            panic!("{method} {target}: {error:?}; the server said:\n{}", self.terminal.transcript())
        })
    }

    /// Makes one request and returns the outcome, such as `200` or `403 M_FORBIDDEN`.
    #[must_use]
    pub fn outcome(&self, method: &str, target: &str, token: Option<&str>, body: &str) -> String {
        self.request(method, target, token, body.as_bytes()).outcome()
    }

    /// Ends it with SIGKILL, as a crash would.
    pub fn kill(mut self) {
        self.terminal.kill();
    }

    /// Waits until it has ended after a signal, at most `limit`, and returns how it ended and what
    /// it said in its life.
    #[must_use]
    pub fn wait_exit(mut self, limit: Duration) -> (ExitStatus, String) {
        let status = self.terminal.wait_exit(limit);
        (status, self.terminal.transcript())
    }

    /// Asks it to end with SIGTERM, waits at most `limit`, and returns how it ended and what it
    /// said in its life.
    #[must_use]
    pub fn terminate(self, limit: Duration) -> (ExitStatus, String) {
        self.terminal.terminate();
        self.wait_exit(limit)
    }
}

/// The first address with a port in a line such as `listening on http://127.0.0.1:8008/`.
fn listening_address(line: &str) -> Option<SocketAddr> {
    line.split("http://").skip(1).find_map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
        let address = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
        address.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_people_read() {
        for (line, expected) in [
            ("homeserver is at http://127.0.0.1:34567/", Some("127.0.0.1:34567")),
            ("open http://[::1]:8008.", Some("[::1]:8008")),
            ("INFO main wiring: listening url=http://127.0.0.1:1 threads=4", Some("127.0.0.1:1")),
            ("will listen on http://127.0.0.1:0", None),
            ("see http://example.org/docs", None),
            ("nothing yet", None),
        ] {
            let found = listening_address(line).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
