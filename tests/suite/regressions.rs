//! One test a fixed bug, with the story above it.

use serde_json::json;
use system_tests::http::Connection;
use system_tests::matrix::Person;
use system_tests::server::Site;

use crate::HOMESERVER;

/// A new device asks several things at once, as matrix-js-sdk does when it starts. All of these
/// requests looked the token up, and the second answer took the first one's place among the
/// remembered tokens; the callback of the one that went removed the device from the list by which a
/// logout finds its token. The token of the logged-out device went on working, from memory.
#[test]
fn a_token_that_began_with_many_requests_at_once_ends_with_its_logout() {
    let site = Site::new(HOMESERVER);
    let server = site.start();
    let _ = server.register("alice");
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "a long password for alice",
    });
    let device = Person::of(&server.post("login", None, &login).json());
    let mut connections: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        let target = "/_matrix/client/v3/account/whoami";
        connection.request("GET", target, Some(&device.token), b"");
    }
    for connection in &mut connections {
        assert_eq!(connection.answer().outcome(), "200");
    }
    assert_eq!(server.post("logout", Some(&device), &json!({})).outcome(), "200");
    assert_eq!(server.get("account/whoami", Some(&device)).outcome(), "401 M_UNKNOWN_TOKEN");
}

/// matrix-nio begins a registration by token with an `auth` that has neither a stage nor a session.
/// The body's reader wanted a session in it and refused with 400, where the stages are asked for.
#[test]
fn an_auth_that_says_nothing_is_asked_which_stages_there_are() {
    let site = Site::new(HOMESERVER);
    let server = site.start();
    for auth in [json!({}), json!({"initial_device_display_name": "nio"})] {
        let body = json!({"username": "alice", "password": "long enough", "auth": auth});
        let answer = server.post("register", None, &body);
        assert_eq!(answer.status, 401, "{answer}");
        assert!(answer.json()["flows"].is_array(), "{answer}");
    }
}
