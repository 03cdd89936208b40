//! Unmodified Matrix clients on the real server, which is killed in the middle of their sending.
//!
//! What is claimed stands in the scripts in `clients/`; they hold against Synapse too.

use system_tests::scenario::{Scenario, Script};
use system_tests::server::Site;
use system_tests::skip::skip;

use crate::HOMESERVER;

fn chat_through_a_crash(test: &str, script: Script) {
    let command = match script.command() {
        Ok(command) => command,
        Err(because) => return skip(test, &because),
    };
    let site = Site::new(HOMESERVER);
    let server = site.start();
    let mut scenario = Scenario::start(command, &server.base_url());
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
