//! What people do with their accounts, from the HTTP request to the database and back.

use serde_json::{Value, json};

use super::TestServer;
use crate::config::Secret;
use crate::handlers::admin_registration::MacParts;

/// A server that anybody may join, without limits.
fn server() -> TestServer {
    TestServer::with(|config| {
        config.registration.open = true;
        config.passwords.fast_hash = true;
        config.rate_limits.enabled = false;
    })
}

/// Makes an account whose password is its name; returns its token.
fn register(server: &TestServer, name: &str) -> String {
    let body = json!({"username": name, "password": name, "auth": {"type": "m.login.dummy"}});
    text(&server.ok("POST", "register", "", body), "access_token")
}

fn log_in(server: &TestServer, name: &str, password: &str) -> (u16, Value) {
    let body = json!({
        "type": "m.login.password", "password": password,
        "identifier": {"type": "m.id.user", "user": name},
    });
    server.send("POST", "/_matrix/client/v3/login", "", &body.to_string())
}

fn text(answer: &Value, key: &str) -> String {
    answer[key].as_str().unwrap_or_else(|| panic!("no {key} in {answer}")).to_owned()
}

/// Sends `body`, and again with the password in the session that the server asks for.
fn with_password(
    server: &TestServer,
    (method, path): (&str, &str),
    token: &str,
    name: &str,
    mut body: Value,
) -> (u16, Value) {
    let full = format!("/_matrix/client/v3/{path}");
    let (status, asked) = server.send(method, &full, token, &body.to_string());
    assert_eq!(status, 401, "{asked}");
    assert_eq!(asked["flows"], json!([{"stages": ["m.login.password"]}]));
    body["auth"] = json!({
        "type": "m.login.password", "session": asked["session"], "password": name,
        "identifier": {"type": "m.id.user", "user": name},
    });
    server.send(method, &full, token, &body.to_string())
}

#[test]
fn an_account_from_registration_to_its_end() {
    let server = server();
    assert_eq!(
        server.ok("GET", "register/available?username=ann", "", Value::Null),
        json!({"available": true})
    );
    let body = json!({
        "username": "ann", "password": "ann", "device_id": "LAPTOP",
        "initial_device_display_name": "Laptop",
    });
    let (status, asked) = server.send("POST", "/_matrix/client/v3/register", "", &body.to_string());
    assert_eq!(status, 401);
    let session = &asked["session"];
    // js-sdk sends the whole body again, others only `auth`.
    let only_auth = json!({"auth": {"type": "m.login.dummy", "session": session}});
    let registered = server.ok("POST", "register", "", only_auth);
    let token = text(&registered, "access_token");
    assert_eq!(
        (&registered["user_id"], &registered["device_id"]),
        (&json!("@ann:localhost"), &json!("LAPTOP"))
    );
    assert_eq!(
        server.ok("GET", "account/whoami", &token, Value::Null),
        json!({"user_id": "@ann:localhost", "device_id": "LAPTOP"})
    );
    let (status, login) = log_in(&server, "ann", "ann");
    assert_eq!(status, 200);
    let second = text(&login, "access_token");
    let devices = server.ok("GET", "devices", &token, Value::Null);
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2));
    let device = text(&login, "device_id");
    let path = format!("devices/{device}");
    server.ok("PUT", &path, &token, json!({"display_name": "Phone"}));
    assert_eq!(server.ok("GET", &path, &token, Value::Null)["display_name"], "Phone");

    let gone = with_password(&server, ("DELETE", &path), &token, "ann", json!({}));
    assert_eq!(gone, (200, json!({})));
    let refused = server.refused("GET", "account/whoami", &second, Value::Null);
    assert_eq!(refused, (401, "M_UNKNOWN_TOKEN".to_owned()));

    let change = json!({"new_password": "better", "logout_devices": false});
    let changed = with_password(&server, ("POST", "account/password"), &token, "ann", change);
    assert_eq!(changed, (200, json!({})));
    assert_eq!(log_in(&server, "ann", "ann").0, 403);
    assert_eq!(log_in(&server, "ann", "better").0, 200);
    assert_eq!(server.ok("POST", "logout", &token, Value::Null), json!({}));
    assert_eq!(server.refused("POST", "logout", &token, Value::Null).0, 401);
}

#[test]
fn a_name_shows_in_rooms_and_a_closed_account_leaves_them() {
    let server = server();
    let (ann, bob) = (register(&server, "ann"), register(&server, "bob"));
    let room = server.ok("POST", "createRoom", &ann, json!({"invite": ["@bob:localhost"]}));
    let room = text(&room, "room_id");
    server.ok("POST", &format!("join/{room}"), &bob, json!({}));
    let member = format!("rooms/{room}/state/m.room.member/@bob:localhost");
    let name = json!({"displayname": "Bob the Builder"});
    server.ok("PUT", "profile/@bob:localhost/displayname", &bob, name);
    assert_eq!(server.ok("GET", &member, &ann, Value::Null)["displayname"], "Bob the Builder");
    let picture = json!({"avatar_url": "mxc://localhost/bob"});
    server.ok("PUT", "profile/@bob:localhost/avatar_url", &bob, picture);
    assert_eq!(server.ok("GET", &member, &ann, Value::Null)["avatar_url"], "mxc://localhost/bob");
    server.ok("DELETE", "profile/@bob:localhost/avatar_url", &bob, Value::Null);
    assert_eq!(
        server.ok("GET", "profile/@bob:localhost", "", Value::Null),
        json!({"displayname": "Bob the Builder"})
    );

    let closed =
        with_password(&server, ("POST", "account/deactivate"), &bob, "bob", json!({"erase": true}));
    assert_eq!(closed, (200, json!({"id_server_unbind_result": "success"})));
    assert_eq!(server.ok("GET", &member, &ann, Value::Null)["membership"], "leave");
    assert_eq!(log_in(&server, "bob", "bob").1["errcode"], "M_USER_DEACTIVATED");
    assert_eq!(server.refused("GET", "profile/@bob:localhost", "", Value::Null).0, 404);
}

#[test]
fn settings_tags_filters_and_push_rules_come_back_as_they_went() {
    let server = server();
    let ann = register(&server, "ann");
    let own = "user/@ann:localhost";
    for (path, content) in [
        (format!("{own}/account_data/m.direct"), json!({"@bob:localhost": ["!r:localhost"]})),
        (format!("{own}/account_data/org.example.x%2Fy"), json!({"deep": {"list": [1.5, null]}})),
        (format!("{own}/rooms/!r:localhost/account_data/org.example"), json!({"a": "ä"})),
    ] {
        server.ok("PUT", &path, &ann, content.clone());
        assert_eq!(server.ok("GET", &path, &ann, Value::Null), content, "{path}");
    }
    let tags = format!("{own}/rooms/!r:localhost/tags");
    server.ok("PUT", &format!("{tags}/m.favourite"), &ann, json!({"order": 0.25, "x": "kept"}));
    server.ok("PUT", &format!("{tags}/u.work"), &ann, json!({}));
    server.ok("DELETE", &format!("{tags}/u.work"), &ann, Value::Null);
    assert_eq!(
        server.ok("GET", &tags, &ann, Value::Null),
        json!({"tags": {"m.favourite": {"order": 0.25, "x": "kept"}}})
    );

    let filter = json!({"room": {"timeline": {"limit": 7}}});
    let kept = server.ok("POST", &format!("{own}/filter"), &ann, filter.clone());
    let path = format!("{own}/filter/{}", text(&kept, "filter_id"));
    assert_eq!(server.ok("GET", &path, &ann, Value::Null), filter);

    let all = server.ok("GET", "pushrules/", &ann, Value::Null);
    assert_eq!(all["global"]["override"][0]["rule_id"], ".m.rule.master");
    assert_eq!(server.ok("GET", "pushrules/global/", &ann, Value::Null), all["global"]);
    let rule = "pushrules/global/content/cake";
    server.ok("PUT", rule, &ann, json!({"actions": ["notify"], "pattern": "cake*"}));
    assert_eq!(
        server.ok("GET", rule, &ann, Value::Null),
        json!({
            "rule_id": "cake", "default": false, "enabled": true, "actions": ["notify"],
            "pattern": "cake*",
        })
    );
    let enabled = format!("{rule}/enabled");
    server.ok("PUT", &enabled, &ann, json!({"enabled": false}));
    assert_eq!(server.ok("GET", &enabled, &ann, Value::Null), json!({"enabled": false}));
    let actions = format!("{rule}/actions");
    server.ok("PUT", &actions, &ann, json!({"actions": []}));
    assert_eq!(server.ok("GET", &actions, &ann, Value::Null), json!({"actions": []}));
    server.ok("DELETE", rule, &ann, Value::Null);
    assert_eq!(server.refused("GET", rule, &ann, Value::Null), (404, "M_NOT_FOUND".to_owned()));
}

#[test]
fn what_a_client_learns_before_and_after_it_logs_in() {
    let server = server();
    assert_eq!(
        server.ok("GET", "login", "", Value::Null),
        json!({"flows": [{"type": "m.login.password"}]})
    );
    let ann = register(&server, "ann");
    let capabilities = &server.ok("GET", "capabilities", &ann, Value::Null)["capabilities"];
    assert_eq!(capabilities["m.room_versions"]["default"], "12");
    assert_eq!(capabilities["m.room_versions"]["available"]["6"], "stable");
    assert_eq!(capabilities["m.change_password"]["enabled"], true);
    assert_eq!(server.refused("GET", "capabilities", "", Value::Null).0, 401);
}

#[test]
fn bad_requests_get_their_errcode() {
    let server = server();
    let ann = register(&server, "ann");
    register(&server, "bob");
    let dummy = json!({"type": "m.login.dummy"});
    let login = |kind: &str| json!({"type": kind, "password": "x", "user": "ann"});
    for (why, (method, path), who, body, expected) in [
        ("taken", ("POST", "register"), "", json!({"username": "ann"}), (400, "M_USER_IN_USE")),
        (
            "no user name",
            ("POST", "register"),
            "",
            json!({"username": "ä", "password": "x", "auth": dummy}),
            (400, "M_INVALID_USERNAME"),
        ),
        (
            "a name of the wrong type",
            ("POST", "register"),
            "",
            json!({"username": 7}),
            (400, "M_BAD_JSON"),
        ),
        (
            "a guest",
            ("POST", "register?kind=guest"),
            "",
            json!({}),
            (403, "M_GUEST_ACCESS_FORBIDDEN"),
        ),
        (
            "taken, asked for",
            ("GET", "register/available?username=ann"),
            "",
            Value::Null,
            (400, "M_USER_IN_USE"),
        ),
        ("no name", ("GET", "register/available"), "", Value::Null, (400, "M_MISSING_PARAM")),
        ("no type", ("POST", "login"), "", json!({}), (400, "M_MISSING_PARAM")),
        ("no such type", ("POST", "login"), "", login("m.login.magic"), (400, "M_UNKNOWN")),
        (
            "a wrong password",
            ("POST", "login"),
            "",
            login("m.login.password"),
            (403, "M_FORBIDDEN"),
        ),
        (
            "nobody named",
            ("POST", "login"),
            "",
            json!({"type": "m.login.password", "password": "x"}),
            (400, "M_MISSING_PARAM"),
        ),
        ("no token", ("GET", "account/whoami"), "", Value::Null, (401, "M_MISSING_TOKEN")),
        (
            "no token",
            ("POST", "account/password"),
            "",
            json!({"new_password": "x"}),
            (401, "M_MISSING_TOKEN"),
        ),
        ("no such device", ("GET", "devices/X"), &ann, Value::Null, (404, "M_NOT_FOUND")),
        ("no such device", ("PUT", "devices/X"), &ann, json!({}), (404, "M_NOT_FOUND")),
        (
            "another's name",
            ("PUT", "profile/@bob:localhost/displayname"),
            &ann,
            json!({"displayname": "x"}),
            (403, "M_FORBIDDEN"),
        ),
        (
            "a name that is no text",
            ("PUT", "profile/@ann:localhost/displayname"),
            &ann,
            json!({"displayname": 7}),
            (400, "M_BAD_JSON"),
        ),
        ("nobody", ("GET", "profile/@nobody:localhost"), "", Value::Null, (404, "M_NOT_FOUND")),
        ("no user id", ("GET", "profile/nobody"), "", Value::Null, (400, "M_INVALID_PARAM")),
        (
            "another's settings",
            ("GET", "user/@bob:localhost/account_data/m.direct"),
            &ann,
            Value::Null,
            (403, "M_FORBIDDEN"),
        ),
        (
            "settings that are none",
            ("PUT", "user/@ann:localhost/account_data/m.direct"),
            &ann,
            json!([]),
            (400, "M_BAD_JSON"),
        ),
        (
            "settings that the server writes",
            ("PUT", "user/@ann:localhost/rooms/!r:localhost/account_data/m.fully_read"),
            &ann,
            json!({}),
            (405, "M_BAD_JSON"),
        ),
        (
            "another's filter",
            ("POST", "user/@bob:localhost/filter"),
            &ann,
            json!({}),
            (403, "M_FORBIDDEN"),
        ),
        (
            "no such filter",
            ("GET", "user/@ann:localhost/filter/99"),
            &ann,
            Value::Null,
            (404, "M_NOT_FOUND"),
        ),
        (
            "a filter that is none",
            ("POST", "user/@ann:localhost/filter"),
            &ann,
            json!({"room": 7}),
            (400, "M_BAD_JSON"),
        ),
        (
            "another's tags",
            ("GET", "user/@bob:localhost/rooms/!r:localhost/tags"),
            &ann,
            Value::Null,
            (403, "M_FORBIDDEN"),
        ),
        (
            "a default rule",
            ("DELETE", "pushrules/global/override/.m.rule.master"),
            &ann,
            Value::Null,
            (400, "M_INVALID_PARAM"),
        ),
    ] {
        let refused = server.refused(method, path, who, body);
        assert_eq!((refused.0, &*refused.1), expected, "{why}: {method} {path}");
    }
}

#[test]
fn too_many_attempts_have_to_wait() {
    let server = TestServer::with(|config| {
        config.registration.open = true;
        config.passwords.fast_hash = true;
    });
    let mut answers = (0..30).map(|_| log_in(&server, "ann", "x"));
    let (status, answer) = answers.find(|(status, _)| *status != 403).expect("limited at last");
    assert_eq!(status, 429);
    assert_eq!(answer["errcode"], "M_LIMIT_EXCEEDED");
    assert!(answer["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0 && ms <= 5000), "{answer}");
}

#[test]
fn the_shared_secret_opens_a_closed_server() {
    let server = TestServer::with(|config| {
        config.registration.shared_secret = Some(Secret::new("shared".to_owned()));
        config.passwords.fast_hash = true;
    });
    assert_eq!(server.refused("POST", "register", "", json!({})).0, 403);
    let path = "/_synapse/admin/v1/register";
    let (_, nonce) = server.send("GET", path, "", "");
    let nonce = text(&nonce, "nonce");
    let (username, password) = ("root", "root");
    let parts = MacParts { nonce: &nonce, username, password, admin: true, user_type: None };
    let mac = parts.sign(&Secret::new("shared".to_owned()));
    let body = json!({
        "nonce": nonce, "username": username, "password": password, "admin": true, "mac": mac
    });
    let (status, made) = server.send("POST", path, "", &body.to_string());
    assert_eq!((status, &made["user_id"]), (200, &json!("@root:localhost")));
    assert_eq!(made["home_server"], "localhost");
    let who = server.ok("GET", "account/whoami", &text(&made, "access_token"), Value::Null);
    assert_eq!(who["device_id"], made["device_id"]);
    let (status, again) = server.send("POST", path, "", &body.to_string());
    assert_eq!((status, &again["errcode"]), (400, &json!("M_UNKNOWN")));
    let (status, broken) = server.send("POST", path, "", "{");
    assert_eq!((status, &broken["errcode"]), (400, &json!("M_NOT_JSON")));
    let (status, empty) = server.send("POST", path, "", "{}");
    assert_eq!((status, &empty["errcode"]), (400, &json!("M_BAD_JSON")));
}

#[test]
fn administrators_make_registration_tokens() {
    let server = TestServer::with(|config| {
        config.registration.open = true;
        config.registration.tokens = true;
        config.passwords.fast_hash = true;
        config.rate_limits.enabled = false;
    });
    server.add_user("user");
    server.add_admin("root");
    let path = "/_synapse/admin/v1/registration_tokens";
    let make = |who: &str, body: Value| {
        let (status, answer) = server.send("POST", &format!("{path}/new"), who, &body.to_string());
        (status, answer)
    };
    let once = json!({"token": "once", "uses_allowed": 1});
    assert_eq!(make("user", once.clone()).1["errcode"], "M_FORBIDDEN");
    assert_eq!(make("", once.clone()).1["errcode"], "M_MISSING_TOKEN");
    let shown = json!({
        "token": "once", "uses_allowed": 1, "pending": 0, "completed": 0, "expiry_time": null
    });
    assert_eq!(make("root", once.clone()), (200, shown));
    assert_eq!(make("root", once).1["errcode"], "M_INVALID_PARAM");
    assert_eq!(make("root", json!({"token": "ä"})).1["errcode"], "M_INVALID_PARAM");
    assert_eq!(make("root", json!({"expiry_time": 1})).1["errcode"], "M_INVALID_PARAM");
    assert_eq!(make("root", json!({})).1["token"].as_str().map(str::len), Some(16));

    let validity = |token: &str| {
        let path = format!(
            "/_matrix/client/v1/register/m.login.registration_token/validity?token={token}"
        );
        server.send("GET", &path, "", "").1
    };
    assert_eq!(validity("once"), json!({"valid": true}));
    let register = |auth: Value| {
        let body = json!({"username": "ann", "password": "ann", "auth": auth});
        server.send("POST", "/_matrix/client/v3/register", "", &body.to_string())
    };
    let (_, asked) = register(json!({"type": "m.login.registration_token", "token": "once"}));
    let session = asked["session"].clone();
    assert_eq!(register(json!({"type": "m.login.dummy", "session": session})).0, 200);
    assert_eq!(validity("once"), json!({"valid": false}));
    let (_, useless) = server.send("GET", &format!("{path}?valid=false"), "root", "");
    assert_eq!(useless["registration_tokens"][0]["completed"], 1);
    let (_, all) = server.send("GET", path, "root", "");
    assert_eq!(all["registration_tokens"].as_array().map(Vec::len), Some(2));

    let one = format!("{path}/once");
    assert_eq!(server.send("GET", &one, "root", "").1["token"], "once");
    assert_eq!(server.send("DELETE", &one, "user", "").0, 403);
    assert_eq!(server.send("DELETE", &one, "root", ""), (200, json!({})));
    assert_eq!(server.send("DELETE", &one, "root", "").0, 404);
}
