//! Unmodified Matrix clients on the real server, which is killed in the middle of their sending.
//!
//! What is claimed stands in the scripts in `clients/`; they hold against Synapse too.

use serde_json::json;
use system_tests::matrix::Person;
use system_tests::scenario::{Scenario, Script};
use system_tests::server::{Homeserver, Site};
use system_tests::skip::skip;
use system_tests::terminal::{PATIENCE, Terminal};

use crate::HOMESERVER;

fn chat_through_a_crash(test: &str, script: Script) {
    let site = Site::new(HOMESERVER);
    let server = site.start();
    chat_through_a_crash_on(&site, server, test, script, &[]);
}

fn chat_through_a_crash_on(
    site: &Site,
    server: Homeserver,
    test: &str,
    script: Script,
    arguments: &[&str],
) {
    let command = match script.command() {
        Ok(command) => command,
        Err(because) => return skip(test, &because),
    };
    let mut scenario = Scenario::start(command, &server.base_url(), arguments);
    let _ = scenario.wait_for_phase("sending");
    server.kill();
    let broken = scenario.wait_for_phase("broken");
    let restarted = site.start();
    scenario.server_restarted(&restarted.base_url());
    let claims = scenario.finish();
    println!("{test}: {claims} claims hold; at the kill: {broken}");
    assert!(claims >= 40, "only {claims} claims were made");
    let (status, said) = restarted.terminate(crate::process::STOP_MAX);
    assert!(status.success(), "{status}: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn two_people_chat_by_matrix_nio() {
    chat_through_a_crash("two_people_chat_by_matrix_nio", Script::Nio);
}

#[test]
fn two_people_chat_by_matrix_js_sdk() {
    chat_through_a_crash("two_people_chat_by_matrix_js_sdk", Script::JsSdk);
}

/// People who were given a token by an administrator, on a server that asks for one.
#[test]
fn two_people_with_registration_tokens_chat_by_matrix_nio() {
    let site = Site::new(HOMESERVER);
    let config = std::fs::read_to_string(site.folder().join("open.toml")).unwrap();
    site.write("open.toml", &config.replace("open = true", "open = true\ntokens = true"));
    let server = site.start();

    let url = server.base_url();
    let mut make = Terminal::start(site.command(&[
        "register-user",
        "--config",
        "open.toml",
        "--url",
        &url,
        "--password-file",
        "-",
        "--admin",
        "root",
    ]));
    make.type_line("a long password for root");
    let status = make.wait_exit(PATIENCE);
    assert!(status.success(), "{}", make.transcript());
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "root"},
        "password": "a long password for root",
    });
    let admin = Person::of(&server.post("login", None, &login).json());
    let path = "/_synapse/admin/v1/registration_tokens/new";
    let wanted = json!({"token": "rope", "uses_allowed": 3}).to_string();
    let made = server.request("POST", path, Some(&admin.token), wanted.as_bytes());
    assert_eq!(made.json()["token"], "rope", "{made}");

    let uninvited =
        json!({"username": "eve", "password": "long enough", "auth": {"type": "m.login.dummy"}});
    assert_eq!(server.post("register", None, &uninvited).status, 401);
    let test = "two_people_with_registration_tokens_chat_by_matrix_nio";
    chat_through_a_crash_on(&site, server, test, Script::Nio, &["rope"]);
}
