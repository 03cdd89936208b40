//! Tokens that are missing, wrong or spent; names that cannot be had; other people's belongings.

use serde_json::{Value, json};
use system_tests::matrix::{Person, escape};

use super::{Stage, row};

#[test]
fn every_way_of_not_being_logged_in_has_its_code() {
    let stage = Stage::set();
    let server = &stage.server;
    let nobody = Person { token: "syt_nobody_nonsense".to_owned(), ..stage.alice.clone() };
    let strange = Person { token: "\u{e4}\u{f6}/?%".to_owned(), ..stage.alice.clone() };

    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "a long password for alice",
    });
    let leaver = Person::of(&server.post("login", None, &login).json());
    assert_eq!(server.post("logout", Some(&leaver), &json!({})).outcome(), "200");
    let swept = server.register("swept");
    assert_eq!(server.post("logout/all", Some(&swept), &json!({})).outcome(), "200");
    let gone = server.register("gone");
    let goodbye = json!({
        "auth": {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": gone.id},
            "password": "a long password for gone",
        }
    });
    assert_eq!(server.post("account/deactivate", Some(&gone), &goodbye).outcome(), "200");

    let send = format!("{}/send/m.room.message/a", stage.path);
    let text = json!({"msgtype": "m.text", "body": "x"});
    stage.check(&[
        row("no token", "GET", "account/whoami", None, "", "401 M_MISSING_TOKEN"),
        row("no token, sync", "GET", "sync", None, "", "401 M_MISSING_TOKEN"),
        row("no token, send", "PUT", &send, None, &text, "401 M_MISSING_TOKEN"),
        row("no token beats no JSON", "PUT", &send, None, "{", "401 M_MISSING_TOKEN"),
        row("unknown", "GET", "account/whoami", &nobody, "", "401 M_UNKNOWN_TOKEN"),
        row("unknown, send", "PUT", &send, &nobody, &text, "401 M_UNKNOWN_TOKEN"),
        row("strange", "GET", "account/whoami", &strange, "", "401 M_UNKNOWN_TOKEN"),
        row("logged out", "GET", "account/whoami", &leaver, "", "401 M_UNKNOWN_TOKEN"),
        row("logged out, sync", "GET", "sync", &leaver, "", "401 M_UNKNOWN_TOKEN"),
        row("logged out everywhere", "GET", "account/whoami", &swept, "", "401 M_UNKNOWN_TOKEN"),
        row("deactivated", "GET", "account/whoami", &gone, "", "401 M_UNKNOWN_TOKEN"),
        row(
            "deactivated, login",
            "POST",
            "login",
            None,
            json!({
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "gone"},
                "password": "a long password for gone",
            }),
            "403 M_USER_DEACTIVATED or 403 M_FORBIDDEN",
        ),
    ]);
    let answer = server.get("account/whoami", Some(&nobody)).json();
    assert_ne!(answer["soft_logout"], true, "an unknown token is gone for good");

    for (why, headers, query, expected) in [
        (
            "another scheme",
            "Authorization: Basic YWxpY2U6eA==\r\n".to_owned(),
            String::new(),
            "401 M_MISSING_TOKEN",
        ),
        (
            "an empty token",
            "Authorization: Bearer \r\n".to_owned(),
            String::new(),
            "401 M_MISSING_TOKEN",
        ),
        (
            "a token in the query",
            String::new(),
            format!("?access_token={}", stage.alice.token),
            "200",
        ),
        (
            "a token in both places",
            format!("Authorization: Bearer {}\r\n", stage.alice.token),
            format!("?access_token={}", stage.alice.token),
            "401 M_MISSING_TOKEN",
        ),
    ] {
        let mut connection = server.connect();
        let head = format!(
            "GET /_matrix/client/v3/account/whoami{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
        );
        connection.send(head.as_bytes());
        assert_eq!(connection.answer().outcome(), expected, "{why}");
    }
}

#[test]
fn names_and_passwords_are_checked() {
    let stage = Stage::set();
    let register = |name: &str| json!({"username": name, "password": "long enough", "auth": {"type": "m.login.dummy"}});
    let login = |user: &str, password: &str| {
        json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": password,
        })
    };
    stage.check(&[
        row("a space", "POST", "register", None, register("a b"), "400 M_INVALID_USERNAME"),
        row("odd characters", "POST", "register", None, register("eve!"), "400 M_INVALID_USERNAME"),
        row(
            "a colon",
            "POST",
            "register",
            None,
            register("eve:elsewhere"),
            "400 M_INVALID_USERNAME",
        ),
        row("not ASCII", "POST", "register", None, register("\u{e9}ve"), "400 M_INVALID_USERNAME"),
        row("empty", "POST", "register", None, register(""), "400 M_INVALID_USERNAME"),
        row(
            "too long",
            "POST",
            "register",
            None,
            register(&"e".repeat(256)),
            "400 M_INVALID_USERNAME",
        ),
        row("taken", "POST", "register", None, register("alice"), "400 M_USER_IN_USE"),
        row(
            "taken, in capitals",
            "POST",
            "register",
            None,
            register("ALICE"),
            "400 M_INVALID_USERNAME",
        ),
        row(
            "available: taken",
            "GET",
            "register/available?username=alice",
            None,
            "",
            "400 M_USER_IN_USE",
        ),
        row(
            "available: odd",
            "GET",
            "register/available?username=a%20b",
            None,
            "",
            "400 M_INVALID_USERNAME",
        ),
        row("available: free", "GET", "register/available?username=eve", None, "", "200"),
        row("wrong password", "POST", "login", None, login("alice", "x"), "403 M_FORBIDDEN"),
        row("no such user", "POST", "login", None, login("nobody", "x"), "403 M_FORBIDDEN"),
        row(
            "another server's user",
            "POST",
            "login",
            None,
            login("@alice:elsewhere.test", "x"),
            "403 M_FORBIDDEN",
        ),
        row("a user of no grammar", "POST", "login", None, login("@", "x"), "403 M_FORBIDDEN"),
    ]);
    // Whether the name or the password was wrong is nobody's business.
    let [wrong, nobody] =
        ["alice", "nobody"].map(|user| stage.server.post("login", None, &login(user, "x")).json());
    assert_eq!(wrong, nobody);
}

#[test]
fn interactive_authentication_asks_again_and_cannot_be_talked_past() {
    let stage = Stage::set();
    let attempt = |body: Value| {
        let answer = stage.server.post("register", None, &body);
        (answer.status, answer.json())
    };
    let (status, challenge) = attempt(json!({"username": "eve", "password": "long enough"}));
    assert_eq!(status, 401);
    assert!(challenge["flows"].as_array().is_some_and(|flows| !flows.is_empty()), "{challenge}");
    assert!(challenge["errcode"].is_null(), "a first challenge is no error: {challenge}");
    let session = challenge["session"].as_str().expect("a session").to_owned();
    assert_ne!(session, "");

    for (why, auth) in [
        ("only the session", json!({"session": session})),
        ("no stage", json!({})),
        ("a stage that is not offered", json!({"type": "m.login.magic", "session": session})),
        (
            "a token where none is asked for",
            json!({"type": "m.login.registration_token", "token": "x", "session": session}),
        ),
    ] {
        let body = json!({"username": "eve", "password": "long enough", "auth": auth});
        let (status, answer) = attempt(body);
        assert!(matches!(status, 400 | 401), "{why}: {status} {answer}");
        assert!(answer["access_token"].is_null(), "{why}: {answer}");
    }
    let unknown = json!({
        "username": "eve", "password": "long enough",
        "auth": {"type": "m.login.dummy", "session": "no such session"},
    });
    let (status, answer) = attempt(unknown);
    assert!(matches!(status, 400 | 401 | 403), "an unknown session: {status} {answer}");
    assert!(answer["access_token"].is_null(), "{answer}");

    // A session is for the request it was made for.
    let elsewhere = json!({
        "new_password": "another long one",
        "auth": {"type": "m.login.dummy", "session": session},
    });
    let answer = stage.server.post("account/password", Some(&stage.alice), &elsewhere);
    assert!(matches!(answer.status, 401 | 403), "a session of another request: {answer}");

    let good = json!({
        "username": "eve", "password": "long enough",
        "auth": {"type": "m.login.dummy", "session": session},
    });
    let (status, answer) = attempt(good);
    assert_eq!(status, 200, "{answer}");
    stage.assert_well();
}

#[test]
fn other_peoples_belongings_are_theirs() {
    let stage = Stage::set();
    let Stage { alice, mallory, path, .. } = &stage;
    let hers = format!("user/{}", escape(&alice.id));
    let profile = format!("profile/{}", escape(&alice.id));
    stage.check(&[
        row(
            "account data, put",
            "PUT",
            format!("{hers}/account_data/org.x"),
            mallory,
            json!({}),
            "403 M_FORBIDDEN",
        ),
        row(
            "account data, get",
            "GET",
            format!("{hers}/account_data/org.x"),
            mallory,
            "",
            "403 M_FORBIDDEN",
        ),
        row(
            "room account data",
            "PUT",
            format!("{hers}/{path}/account_data/org.x"),
            mallory,
            json!({}),
            "403 M_FORBIDDEN",
        ),
        row("tags", "GET", format!("{hers}/{path}/tags"), mallory, "", "403 M_FORBIDDEN"),
        row(
            "a tag",
            "PUT",
            format!("{hers}/{path}/tags/u.x"),
            mallory,
            json!({}),
            "403 M_FORBIDDEN",
        ),
        row("filters", "POST", format!("{hers}/filter"), mallory, json!({}), "403 M_FORBIDDEN"),
        row("a filter", "GET", format!("{hers}/filter/0"), mallory, "", "403 M_FORBIDDEN"),
        row(
            "the display name",
            "PUT",
            format!("{profile}/displayname"),
            mallory,
            json!({"displayname": "M"}),
            "403 M_FORBIDDEN",
        ),
        row(
            "the picture",
            "PUT",
            format!("{profile}/avatar_url"),
            mallory,
            json!({"avatar_url": "mxc://a/b"}),
            "403 M_FORBIDDEN",
        ),
        row(
            "typing for another",
            "PUT",
            format!("{path}/typing/{}", escape(&alice.id)),
            &stage.bob,
            json!({"typing": true}),
            "403 M_FORBIDDEN",
        ),
        row("a device", "GET", format!("devices/{}", alice.device), mallory, "", "404 M_NOT_FOUND"),
        row(
            "naming a device",
            "PUT",
            format!("devices/{}", alice.device),
            mallory,
            json!({"display_name": "x"}),
            "404 M_NOT_FOUND",
        ),
        row(
            "no such profile",
            "GET",
            "profile/%40nobody%3Aropewalk.test",
            mallory,
            "",
            "404 M_NOT_FOUND",
        ),
        row(
            "no such account data",
            "GET",
            format!("{hers}/account_data/org.none"),
            alice,
            "",
            "404 M_NOT_FOUND",
        ),
        row("no such filter", "GET", format!("{hers}/filter/777"), alice, "", "404 M_NOT_FOUND"),
        row("no such device", "GET", "devices/NOSUCHDEVICE", alice, "", "404 M_NOT_FOUND"),
        row(
            "no such push rule",
            "GET",
            "pushrules/global/override/none",
            alice,
            "",
            "404 M_NOT_FOUND",
        ),
        row(
            "no such kind of push rule",
            "GET",
            "pushrules/global/sideways/none",
            alice,
            "",
            "404 M_NOT_FOUND or 400 M_INVALID_PARAM",
        ),
    ]);
    let devices = stage.server.get("devices", Some(alice)).json();
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1), "{devices}");
}
