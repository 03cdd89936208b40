//! The client scenarios in `clients/`: found, started and followed through their phases.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::skip::works;
use crate::terminal::Terminal;
use crate::{target_folder, workspace_root};

/// A script that drives a homeserver with somebody else's Matrix client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Script {
    /// matrix-js-sdk on Node.
    JsSdk,
    /// matrix-nio on Python.
    Nio,
}

impl Script {
    /// Returns how to start the script, up to the server's URL.
    ///
    /// # Errors
    ///
    /// What is missing on this machine, and how to get it.
    pub fn command(self) -> Result<Command, String> {
        let scripts = workspace_root().join("tests/clients");
        let installed = target_folder().join("clients");
        let missing = |what: &str, folder: &Path| {
            Err(format!("{what} is not in {}; `.ci/run clients` puts it there", folder.display()))
        };
        match self {
            Self::JsSdk => {
                let version = "process.exit(+(parseInt(process.versions.node) < 20))";
                if !works("node", &["-e", version]) {
                    return Err("there is no node, or one older than 20".to_owned());
                }
                let folder = installed.join("js");
                if !folder.join("node_modules/matrix-js-sdk/package.json").exists() {
                    return missing("matrix-js-sdk", &folder);
                }
                let mut command = Command::new("node");
                command.arg(scripts.join("jssdk_scenario.mjs")).arg(folder);
                Ok(command)
            }
            Self::Nio => {
                let python: PathBuf = installed.join("venv/bin/python");
                if !works(&python.to_string_lossy(), &["-c", "import nio"]) {
                    return missing("matrix-nio", &installed.join("venv"));
                }
                let mut command = Command::new(python);
                command.arg(scripts.join("nio_scenario.py"));
                Ok(command)
            }
        }
    }
}

/// A script at work.
#[derive(Debug)]
pub struct Scenario {
    terminal: Terminal,
}

impl Scenario {
    /// Starts the script against a server, with what it is told besides.
    #[must_use]
    pub fn start(mut command: Command, base_url: &str, arguments: &[&str]) -> Self {
        command.arg(base_url).args(arguments);
        Self { terminal: Terminal::start(command) }
    }

    /// Waits for a phase and returns what the script says about it.
    ///
    /// # Panics
    ///
    /// If the script fails or ends first; its claims so far are shown.
    #[must_use]
    pub fn wait_for_phase(&self, phase: &str) -> Value {
        let said = self.terminal.wait_for(phase, |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            (said["phase"] == phase || said["phase"] == "failed").then_some(said)
        });
        assert_eq!(said["phase"], phase, "{}", self.terminal.transcript());
        said
    }

    /// Tells the script where the restarted server listens.
    pub fn server_restarted(&mut self, base_url: &str) {
        self.terminal.type_line(&json!({"base_url": base_url}).to_string());
    }

    /// Waits for the last phase and for the script's good end; returns how many claims held.
    ///
    /// # Panics
    ///
    /// If the script does not end well.
    pub fn finish(mut self) -> u64 {
        let done = self.wait_for_phase("done");
        let status = self.terminal.wait_exit(crate::terminal::PATIENCE);
        assert!(status.success(), "{status}: {}", self.terminal.transcript());
        done["claims"].as_u64().unwrap_or_default()
    }
}
