//! The one-way imports: between the homeserver's layers, and between the workspace's crates.
//!
//! The order itself is explained in ARCHITECTURE.md; this file only holds it as tables.

use std::path::Path;

use super::scan::{Facts, Root};
use super::{Finding, SourceFile};

/// The homeserver's layers from the top down. A layer may name those in later rows.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["wiring"],
    &["api"],
    &["handlers"],
    &["outbound", "replication"],
    &["events", "state"],
    &["storage"],
    &["model"],
    &["config", "streams"],
];

/// The only edges inside a row.
const SAME_ROW: &[(&str, &str)] = &[("state", "events")];

/// Which layers must not name which crate, and where the thing belongs instead.
const FOREIGN_TO: &[(&str, &[&str], &str)] = &[
    (
        "ropewalk_http",
        &["handlers", "events", "state", "storage", "model", "streams"],
        "only api, outbound, replication and what stands above speak HTTP: take or return a plain \
         type and let api translate it",
    ),
    (
        "rusqlite",
        &[
            "cli",
            "wiring",
            "api",
            "handlers",
            "outbound",
            "replication",
            "events",
            "state",
            "model",
            "streams",
            "config",
        ],
        "SQL lives in storage: add a function to the store that owns the table and call that",
    ),
    (
        "ropewalk",
        &["model"],
        "model is pure: hand the rows in and return the answer, the caller does the waiting",
    ),
];

/// What each crate's manifest may name of ours; dev-dependencies included.
const CRATES: &[(&str, &[&str])] = &[
    ("reactor", &[]),
    ("protocols/http", &["ropewalk"]),
    ("protocols/federation", &["ropewalk", "ropewalk-http"]),
    ("protocols/replication", &["ropewalk"]),
    ("protocols/nurl", &["ropewalk", "ropewalk-http"]),
    ("protocols/keygen", &["ropewalk", "ropewalk-http", "ropewalk-nurl"]),
    ("protocols/grid", &["ropewalk", "ropewalk-http", "ropewalk-nurl"]),
];

/// Crates from elsewhere that a folder must do without, and why.
const FOREIGN_CRATES: &[(&str, &[&str], &str)] = &[
    (
        "reactor",
        &["http", "httparse", "ruma", "rusqlite", "tokio"],
        "the reactor knows no protocol",
    ),
    (
        "protocols",
        &["ruma-state-res", "rusqlite", "tokio"],
        "a protocol crate knows no app's storage",
    ),
    ("apps", &["tokio"], "everything waits on the one reactor"),
];

/// Checks a file of `apps/homeserver/src`.
pub(super) fn check_layers(file: &SourceFile, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = file.module.first().map(String::as_str);
    let own_row = own.map_or(Some(0), |name| row(name).map(|row| row + 1));
    let (Some(own_row), own) = (own_row, own.unwrap_or("the crate root")) else {
        let rule = format!("module `{}` stands in no layer", file.module[0]);
        let cure = "move it into the layer whose subject it is; a new layer is a decision for \
                    ARCHITECTURE.md, layout and the table in tests/suite/tidy/layers.rs";
        return vec![file.finding(1, rule, cure)];
    };
    for path in &facts.paths {
        match &path.root {
            Root::Crate => {
                let Some(target) = path.segments.first().map(String::as_str) else { continue };
                if target == own || own_row == 0 {
                    continue;
                }
                match row(target) {
                    None => {
                        let rule = format!("{own} names `crate::{target}`, which is above it");
                        let cure = "an item of the crate root belongs to the top floor: move it to \
                                    the lowest layer that needs it";
                        findings.push(file.finding(path.line, rule, cure));
                    }
                    Some(target_row) if target_row + 1 > own_row => {}
                    Some(target_row) if target_row + 1 == own_row => {
                        if !SAME_ROW.contains(&(own, target)) {
                            let rule = format!("{own} names {target}, its neighbour");
                            let cure = "move what both need into a layer below them, or let the \
                                        layer above hold both and pass values";
                            findings.push(file.finding(path.line, rule, cure));
                        }
                    }
                    Some(_) => {
                        let rule = format!("{own} reaches upwards into {target}");
                        let cure = "declare a small trait or take a closure here and let wiring \
                                    connect it, or move the shared type down";
                        findings.push(file.finding(path.line, rule, cure));
                    }
                }
            }
            Root::Name(name) => {
                for (foreign, layers, cure) in FOREIGN_TO {
                    if name == foreign && layers.contains(&own) {
                        let rule = format!("{own} names the crate {foreign}");
                        findings.push(file.finding(path.line, rule, cure));
                    }
                }
            }
        }
    }
    findings
}

/// Checks a crate's manifest; `folder` is the crate's place below the workspace's root.
pub(super) fn check_manifest(folder: &Path, manifest: &toml::Table) -> Vec<Finding> {
    let folder_text = folder.to_string_lossy();
    let finding = |rule: String, cure: &str| Finding::new(folder.join("Cargo.toml"), 1, rule, cure);
    let top = folder_text.split('/').next().unwrap_or_default();
    let allowed = CRATES.iter().find(|(name, _)| *name == folder_text).map(|(_, allowed)| *allowed);
    let mut findings = Vec::new();
    if top == "protocols" && allowed.is_none() && !folder.ends_with("fuzz") {
        let cure = "give it its row in tests/suite/tidy/layers.rs and say why in ARCHITECTURE.md";
        findings.push(finding(format!("{folder_text} has no row of allowed imports"), cure));
    }
    for name in dependencies(manifest) {
        let ours = name == "ropewalk" || name.starts_with("ropewalk-");
        let an_app = ["homeserver", "keygen", "grid"].contains(&name.as_str());
        if name == "system-tests" || (an_app && top != "tests") {
            let rule = format!("{folder_text} depends on {name}, which stands above it");
            let cure = "imports only go down: reactor, protocols, apps, tests; move what is \
                        needed down a floor or hand it in through a trait";
            findings.push(finding(rule, cure));
        } else if let Some(allowed) = allowed
            && ours
            && !allowed.contains(&name.as_str())
        {
            let rule = format!("{folder_text} depends on {name}");
            let cure = "protocols import each other only along keygen, grid → nurl → http and \
                        federation → http; the reactor imports none of ours";
            findings.push(finding(rule, cure));
        }
        for (floor, foreign, why) in FOREIGN_CRATES {
            if *floor == top && foreign.contains(&name.as_str()) {
                let cure = "leave it out: the floor above may use it, or hand its result down";
                findings.push(finding(format!("{folder_text} depends on {name}: {why}"), cure));
            }
        }
    }
    findings
}

fn row(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

/// Every crate that a manifest asks for, for whatever purpose and target.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        match key.as_str() {
            "dependencies" | "dev-dependencies" | "build-dependencies" => {
                for (name, value) in table {
                    let renamed = value.get("package").and_then(toml::Value::as_str);
                    names.push(renamed.unwrap_or(name).to_owned());
                }
            }
            "target" => {
                for inner in table.values().filter_map(toml::Value::as_table) {
                    names.extend(dependencies(inner));
                }
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_broken(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile::new(Path::new("apps/homeserver/src"), Path::new(path), text);
        let module: Vec<&str> = file.module.iter().map(String::as_str).collect();
        let facts = super::super::scan::scan(text, &module).unwrap();
        check_layers(&file, &facts).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn the_layer_rule_tells_down_from_up() {
        for (why, path, text, broken) in [
            ("one down", "handlers/rooms.rs", "use crate::state::Groups;", ""),
            ("many down", "api/client/sync.rs", "use crate::streams::Position;", ""),
            ("own layer", "storage/engine/mod.rs", "use crate::storage::Row;", ""),
            ("the allowed neighbour", "state/mod.rs", "use crate::events::Event;", ""),
            ("wiring sees all", "wiring.rs", "use crate::{api, streams, storage};", ""),
            ("main sees all", "main.rs", "use homeserver::cli; fn f() { crate::cli::run() }", ""),
            (
                "one up",
                "storage/rooms.rs",
                "use crate::events::X;",
                "storage reaches upwards into events",
            ),
            (
                "far up",
                "streams.rs",
                "fn f() { crate::api::x() }",
                "streams reaches upwards into api",
            ),
            (
                "up by super",
                "model/event.rs",
                "use super::super::storage::Row;",
                "model reaches upwards into storage",
            ),
            (
                "up in a nested tree",
                "model/event.rs",
                "use crate::{streams, storage::Row};",
                "model reaches upwards into storage",
            ),
            (
                "up in a test",
                "model/event.rs",
                "#[cfg(test)] mod tests { use crate::api::X; }",
                "model reaches upwards into api",
            ),
            (
                "the neighbour, backwards",
                "events/mod.rs",
                "use crate::state::S;",
                "events names state, its neighbour",
            ),
            (
                "neighbours",
                "outbound/mod.rs",
                "use crate::replication::Feed;",
                "outbound names replication, its neighbour",
            ),
            (
                "low neighbours",
                "streams.rs",
                "use crate::config::C;",
                "streams names config, its neighbour",
            ),
            (
                "the root's items",
                "storage/mod.rs",
                "use crate::VERSION;",
                "storage names `crate::VERSION`, which is above it",
            ),
            (
                "a glob of the root",
                "storage/mod.rs",
                "use crate::*;",
                "storage names `crate::*`, which is above it",
            ),
            (
                "wiring from below",
                "api/mod.rs",
                "use crate::wiring;",
                "api reaches upwards into wiring",
            ),
            ("no layer", "util.rs", "", "module `util` stands in no layer"),
            (
                "HTTP below api",
                "storage/mod.rs",
                "use ropewalk_http::Request;",
                "storage names the crate ropewalk_http",
            ),
            (
                "SQL above storage",
                "api/mod.rs",
                "fn f() { rusqlite::open() }",
                "api names the crate rusqlite",
            ),
            (
                "a model that waits",
                "model/mod.rs",
                "use ropewalk::Deferred;",
                "model names the crate ropewalk",
            ),
        ] {
            let expected: Vec<&str> =
                Some(broken).filter(|rule| !rule.is_empty()).into_iter().collect();
            assert_eq!(rules_broken(path, text), expected, "{why}: {path}: {text}");
        }
    }

    #[test]
    fn manifests_only_point_down() {
        for (why, folder, text, broken) in [
            ("a leaf", "reactor", "[dependencies]\nmio = \"1\"", ""),
            ("a protocol on the reactor", "protocols/http", "[dependencies]\nropewalk = {}", ""),
            ("an app", "apps/homeserver", "[dependencies]\nropewalk-http = {}\nruma = {}", ""),
            ("tests see all", "tests", "[dependencies]\nhomeserver = {}\nropewalk = {}", ""),
            (
                "reactor on a protocol",
                "reactor",
                "[dev-dependencies]\nropewalk-http = {}",
                "reactor depends on ropewalk-http",
            ),
            (
                "reactor on HTTP",
                "reactor",
                "[dependencies]\nhttparse = \"1\"",
                "reactor depends on httparse: the reactor knows no protocol",
            ),
            (
                "protocol on app",
                "protocols/http",
                "[dependencies]\nhomeserver = {}",
                "protocols/http depends on homeserver, which stands above it",
            ),
            (
                "wrong neighbour",
                "protocols/http",
                "[dependencies]\nropewalk-federation = {}",
                "protocols/http depends on ropewalk-federation",
            ),
            (
                "renamed",
                "protocols/http",
                "[dependencies]\nx = { package = \"ropewalk-nurl\" }",
                "protocols/http depends on ropewalk-nurl",
            ),
            (
                "by target",
                "protocols/http",
                "[target.'cfg(unix)'.dependencies]\nropewalk-nurl = {}",
                "protocols/http depends on ropewalk-nurl",
            ),
            (
                "app on app",
                "apps/homeserver",
                "[dependencies]\nkeygen = {}",
                "apps/homeserver depends on keygen, which stands above it",
            ),
            (
                "on the tests",
                "apps/homeserver",
                "[dev-dependencies]\nsystem-tests = {}",
                "apps/homeserver depends on system-tests, which stands above it",
            ),
            (
                "a second runtime",
                "apps/homeserver",
                "[dependencies]\ntokio = \"1\"",
                "apps/homeserver depends on tokio: everything waits on the one reactor",
            ),
            (
                "an unknown protocol",
                "protocols/smtp",
                "",
                "protocols/smtp has no row of allowed imports",
            ),
        ] {
            let findings = check_manifest(Path::new(folder), &text.parse().unwrap());
            let found: Vec<String> = findings.into_iter().map(|finding| finding.rule).collect();
            let expected: Vec<&str> =
                Some(broken).filter(|rule| !rule.is_empty()).into_iter().collect();
            assert_eq!(found, expected, "{why}: {folder}: {text}");
        }
    }
}
