//! Accounts from registration to the end, in-process on a manual clock.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk::testing::{Clock, success_result_of};
use ropewalk::{Deferred, Failure, ThreadPoolOptions};
use ruma::api::IncomingRequestExt as _;
use ruma::api::client::account::register::v3::Request as RegisterRequest;
use ruma::api::client::session::login::v3::LoginInfo;
use ruma::api::client::uiaa::{AuthData, AuthType, UiaaInfo};
use ruma::push::RuleKind;
use ruma::{OwnedUserId, UserId, owned_server_name, owned_user_id, user_id};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::account_data::AccountData;
use super::accounts::{Accounts, Erase, LeaveRooms, OtherDevices, PasswordProtected};
use super::admin_registration::{AdminRegistration, MacParts};
use super::devices::Devices;
use super::logins::{LoggedIn, Logins};
use super::passwords::Passwords;
use super::profiles::{ProfileInRooms, Profiles};
use super::push_rules::PushRules;
use super::rate_limits::RateLimiter;
use super::registration::{Parts, Registered, Registration};
use super::sessions::{Requester, Sessions};
use super::ui_auth::UiAuth;
use super::{Refusal, wall_clock_ms};
use crate::config::rate_limits::RateLimits;
use crate::config::{Secret, registration::Registration as Rules};
use crate::storage::databases::main::registration_tokens;
use crate::storage::engine::Database;

const REGISTER: &str = "/_matrix/client/v3/register";

/// Remembers what the rooms' part of the server was told.
#[derive(Default)]
struct Rooms(RefCell<Vec<String>>);

impl LeaveRooms for Rooms {
    fn leave_all_rooms(&self, user_id: &UserId) -> Deferred<()> {
        self.0.borrow_mut().push(format!("{user_id} leaves"));
        Deferred::succeed(())
    }
}

impl ProfileInRooms for Rooms {
    fn profile_changed(&self, user_id: &UserId) -> Deferred<()> {
        self.0.borrow_mut().push(format!("{user_id} changed"));
        Deferred::succeed(())
    }
}

struct Server {
    clock: Clock,
    database: Database,
    rooms: Rc<Rooms>,
    sessions: Rc<Sessions>,
    logins: Rc<Logins>,
    registration: Rc<Registration>,
    accounts: Rc<Accounts>,
    admin: Rc<AdminRegistration>,
    profiles: Rc<Profiles>,
    _folder: TempDir,
}

fn open() -> Rules {
    Rules { open: true, ..Rules::default() }
}

impl Server {
    fn new(rules: Rules) -> Self {
        Self::with_limits(rules, RateLimits { enabled: false, ..RateLimits::default() })
    }

    fn with_limits(rules: Rules, limits: RateLimits) -> Self {
        let clock = Clock::new();
        let reactor = clock.reactor().clone();
        let folder = tempfile::tempdir().expect("a folder");
        let database = super::testing::open_database(&clock, &folder.path().join("test.db"));
        let server_name = owned_server_name!("hs.example");
        let pool = reactor.thread_pool(ThreadPoolOptions::new("passwords"));
        let passwords = Passwords::new(reactor.clone(), pool, true);
        let limiter = Rc::new(RateLimiter::new(&limits));
        let sessions = Rc::new(Sessions::new(reactor.clone(), database.clone()));
        let ui_auth = UiAuth::new(reactor.clone());
        let rooms = Rc::new(Rooms::default());
        let logins = Rc::new(Logins::new(
            reactor.clone(),
            database.clone(),
            passwords.clone(),
            sessions.clone(),
            limiter.clone(),
            server_name.clone(),
        ));
        let registration = Rc::new(Registration::new(Parts {
            reactor: reactor.clone(),
            database: database.clone(),
            passwords: passwords.clone(),
            sessions: sessions.clone(),
            ui_auth: ui_auth.clone(),
            limiter,
            server_name: server_name.clone(),
            rules,
        }));
        let accounts = Rc::new(Accounts::new(
            database.clone(),
            passwords,
            sessions.clone(),
            logins.clone(),
            ui_auth,
            rooms.clone(),
        ));
        let secret = Secret::new("shared".to_owned());
        let admin = Rc::new(AdminRegistration::new(
            reactor,
            registration.clone(),
            secret,
            server_name.clone(),
        ));
        let profiles = Rc::new(Profiles::new(database.clone(), server_name, rooms.clone()));
        Self {
            clock,
            database,
            rooms,
            sessions,
            logins,
            registration,
            accounts,
            admin,
            profiles,
            _folder: folder,
        }
    }

    /// Runs `work` to its end; nothing in these tests waits for time.
    fn run<T: 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + 'static,
    ) -> Result<T, Refusal> {
        let result = self.clock.reactor().spawn(async move { Ok(work.await) });
        self.clock.pump();
        success_result_of(result).map_err(|failure| match failure.downcast_ref::<Refusal>() {
            Some(refusal) => refusal.clone(),
            None => panic!("not a refusal: {failure}"),
        })
    }

    fn register_at(&self, path: &'static str, body: &Value) -> Result<Registered, Refusal> {
        let body = Bytes::from(body.to_string());
        let registration = self.registration.clone();
        let request = read_register(&body).expect("a registration");
        let address: IpAddr = [192, 0, 2, 1].into();
        self.run(async move {
            registration.register(request, path, &body, Some(address), read_register).await
        })
    }

    fn register(&self, body: &Value) -> Result<Registered, Refusal> {
        self.register_at(REGISTER, body)
    }

    fn make(&self, name: &str) -> Requester {
        let body = json!({
            "username": name, "password": "secret", "auth": {"type": "m.login.dummy"}
        });
        let made = self.register(&body).expect("registered");
        let (device_id, _) = made.session.expect("logged in");
        Requester { user_id: made.user_id, device_id }
    }

    fn log_in(
        &self,
        user: &str,
        password: &str,
        device: Option<&str>,
    ) -> Result<LoggedIn, Refusal> {
        let info = login_info(user, password);
        let (logins, device) = (self.logins.clone(), device.map(Into::into));
        self.run(async move {
            logins.log_in(info, device, Some("Phone".to_owned()), Some([192, 0, 2, 2].into())).await
        })
    }

    fn who(&self, token: &Secret) -> Result<Requester, Refusal> {
        let (sessions, token) = (self.sessions.clone(), token.clone());
        self.run(async move { sessions.requester(token.expose()).await })
    }

    fn ask_password(
        &self,
        requester: &Requester,
        path: &'static str,
        auth: Option<Value>,
    ) -> Result<Option<Bytes>, Refusal> {
        let (accounts, requester) = (self.accounts.clone(), requester.clone());
        let auth: Option<AuthData> =
            auth.map(|auth| serde_json::from_value(auth).expect("auth data"));
        self.run(async move {
            let request = PasswordProtected {
                requester: &requester,
                method: "POST",
                path,
                body: &Bytes::from_static(b"{\"x\":1}"),
                auth: auth.as_ref(),
            };
            accounts.ask_password(request).await
        })
    }
}

fn read_register(body: &[u8]) -> Result<RegisterRequest, Failure> {
    let request = http::Request::post(REGISTER).body(body).expect("a request");
    Ok(RegisterRequest::try_from_http_request(request, &[])?)
}

fn login_info(user: &str, password: &str) -> LoginInfo {
    serde_json::from_value(json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    }))
    .expect("a login")
}

fn errcode(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Standard { kind, .. } => kind.errcode().to_string(),
        Refusal::Taken { .. } => "taken".to_owned(),
        Refusal::ServerControlled { .. } => "M_BAD_JSON".to_owned(),
        Refusal::UserInteractive(info) => {
            let error = info.auth_error.as_ref();
            error.map_or("UIA".to_owned(), |error| format!("UIA {}", error.kind.errcode()))
        }
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    errcode(&result.expect_err("refused"))
}

fn dialogue<T: std::fmt::Debug>(result: Result<T, Refusal>) -> UiaaInfo {
    match result.expect_err("a dialogue") {
        Refusal::UserInteractive(info) => *info,
        other => panic!("no dialogue: {other}"),
    }
}

#[test]
fn registration_asks_for_its_stage_and_then_lets_in() {
    let server = Server::new(open());
    let asked = dialogue(server.register(&json!({"username": "alice", "password": "secret"})));
    let shown = serde_json::to_value(&asked).expect("JSON");
    assert_eq!(shown["flows"], json!([{"stages": ["m.login.dummy"]}]));
    assert_eq!(shown["params"], json!({}));
    assert_eq!(shown.get("completed"), None);
    let session = asked.session.expect("a session");

    // A client that only asks how far it has come is told so.
    let again = dialogue(server.register(&json!({"auth": {"session": session}})));
    assert_eq!(again.session.as_ref(), Some(&session));

    let made = server
        .register(&json!({"auth": {"type": "m.login.dummy", "session": session}}))
        .expect("the first body counts where this one has only auth");
    assert_eq!(made.user_id, "@alice:hs.example");
    let (device_id, token) = made.session.expect("logged in");
    let who = server.who(&token).expect("the token works");
    assert_eq!((who.user_id, who.device_id), (made.user_id, device_id));

    let reused = server.register(
        &json!({"username": "bob", "auth": {"type": "m.login.dummy", "session": session}}),
    );
    assert_eq!(refused(reused), "M_UNKNOWN", "a session opens one request");
}

#[test]
fn an_eager_client_registers_in_one_step() {
    let server = Server::new(open());
    let made = server.register(&json!({
        "password": "secret", "inhibit_login": true, "auth": {"type": "m.login.dummy"}
    }));
    let made = made.expect("registered");
    assert!(made.session.is_none());
    assert_eq!(made.user_id.localpart().len(), 12, "a name was made up");
}

#[test]
fn sessions_are_bound_to_their_request_and_run_out() {
    let server = Server::new(open());
    let body = json!({"username": "alice", "password": "secret"});
    let session = dialogue(server.register(&body)).session.expect("a session");
    let with_session = json!({
        "username": "alice", "password": "secret",
        "auth": {"type": "m.login.dummy", "session": session}
    });
    let elsewhere = server.register_at("/_matrix/client/v3/account/password", &with_session);
    assert_eq!(refused(elsewhere), "M_FORBIDDEN");
    let unknown = json!({"auth": {"type": "m.login.dummy", "session": "no such"}});
    assert_eq!(refused(server.register(&unknown)), "M_UNKNOWN");
    server.clock.advance(Duration::from_secs(3600));
    assert_eq!(refused(server.register(&with_session)), "M_UNKNOWN");
}

#[test]
fn what_registration_refuses() {
    let server = Server::new(open());
    server.make("alice");
    for (why, body, expected) in [
        (
            "taken, before the dialogue",
            json!({"username": "alice", "password": "x"}),
            "M_USER_IN_USE",
        ),
        ("no name", json!({"username": "Alice!", "password": "x"}), "M_INVALID_USERNAME"),
        ("an empty password", json!({"username": "bob", "password": ""}), "M_WEAK_PASSWORD"),
        (
            "no password",
            json!({"username": "bob", "auth": {"type": "m.login.dummy"}}),
            "M_MISSING_PARAM",
        ),
        ("a stage of no flow", json!({"auth": {"type": "m.login.terms"}}), "UIA M_UNRECOGNIZED"),
        ("an application service", json!({"type": "m.login.application_service"}), "M_FORBIDDEN"),
        (
            "a device id without end",
            json!({"password": "x", "device_id": "x".repeat(300), "auth": {"type": "m.login.dummy"}}),
            "M_INVALID_PARAM",
        ),
    ] {
        assert_eq!(refused(server.register(&body)), expected, "{why}");
    }
    let closed = Server::new(Rules::default());
    assert_eq!(refused(closed.register(&json!({}))), "M_FORBIDDEN");
    let registration = closed.registration.clone();
    let available = closed.run(async move { registration.check_available("x", None).await });
    assert_eq!(refused(available), "M_FORBIDDEN");
}

#[test]
fn a_registration_token_lets_in_as_often_as_it_says() {
    let server = Server::new(Rules { open: true, tokens: true, ..Rules::default() });
    let (database, now) = (server.database.clone(), wall_clock_ms(server.clock.reactor()));
    server
        .run(async move {
            database
                .write("test", move |txn| {
                    registration_tokens::insert(txn, "once", Some(1), Some(now + 1000))
                })
                .await
        })
        .expect("a token");
    let body = |name: &str, token: &str| {
        json!({
            "username": name, "password": "secret",
            "auth": {"type": "m.login.registration_token", "token": token}
        })
    };
    // The dummy stage alone does not do, before or after.
    let dummy = |session: Option<String>| {
        json!({
            "username": "alice", "password": "secret",
            "auth": {"type": "m.login.dummy", "session": session}
        })
    };
    let asked = dialogue(server.register(&dummy(None)));
    assert_eq!(asked.completed, [AuthType::Dummy]);
    assert_eq!(refused(server.register(&body("alice", "wrong"))), "UIA M_UNAUTHORIZED");
    let asked = dialogue(server.register(&body("alice", "once")));
    assert_eq!(asked.completed, [AuthType::RegistrationToken]);
    server.register(&dummy(asked.session)).expect("registered");
    assert_eq!(refused(server.register(&body("bob", "once"))), "UIA M_UNAUTHORIZED");
}

#[test]
fn logging_in_by_any_spelling_of_the_name() {
    let server = Server::new(open());
    server.make("alice");
    for user in ["alice", "Alice", "@alice:hs.example", "@ALICE:hs.example"] {
        let login = server.log_in(user, "secret", None).expect(user);
        assert_eq!(login.user_id, "@alice:hs.example");
        assert_eq!(login.device_id.as_str().len(), 10);
        assert!(server.who(&login.access_token).is_ok());
    }
}

#[test]
fn nobody_learns_whether_a_user_exists() {
    let server = Server::new(open());
    server.make("alice");
    let message = |user: &str, password: &str| {
        server.log_in(user, password, None).expect_err("refused").to_string()
    };
    let wrong_password = message("alice", "wrong");
    assert!(wrong_password.starts_with("M_FORBIDDEN"));
    for (user, password) in [
        ("bob", "secret"),
        ("@alice:other.example", "secret"),
        ("@@@", "secret"),
        ("", "secret"),
        ("alice", &"x".repeat(600)),
        ("bob", &"x".repeat(600)),
    ] {
        assert_eq!(message(user, password), wrong_password, "{user}");
    }
}

#[test]
fn other_kinds_of_login_are_refused() {
    let server = Server::new(open());
    let token: LoginInfo =
        serde_json::from_value(json!({"type": "m.login.token", "token": "x"})).expect("a login");
    let logins = server.logins.clone();
    let result = server.run(async move { logins.log_in(token, None, None, None).await });
    assert_eq!(refused(result), "M_UNKNOWN");
}

#[test]
fn a_device_that_logs_in_again_keeps_its_name_and_loses_its_token() {
    let server = Server::new(open());
    let alice = server.make("alice");
    let first = server.log_in("alice", "secret", Some("PHONE")).expect("in");
    assert!(server.who(&first.access_token).is_ok(), "and the token is remembered");
    let devices = Devices::new(server.database.clone());
    let renamed = devices.clone();
    let user_id = alice.user_id.clone();
    server
        .run(async move {
            renamed.rename(user_id, "PHONE".into(), Some("My phone".to_owned())).await
        })
        .expect("renamed");
    let second = server.log_in("alice", "secret", Some("PHONE")).expect("in");
    assert_eq!(refused(server.who(&first.access_token)), "M_UNKNOWN_TOKEN");
    assert!(server.who(&second.access_token).is_ok());
    let user_id = alice.user_id.clone();
    let phone =
        server.run(async move { devices.get(&user_id, "PHONE".into()).await }).expect("there");
    assert_eq!(phone.display_name.as_deref(), Some("My phone"));
    assert!(phone.last_seen_ts.is_some());
}

#[test]
fn logging_out_ends_a_token_that_was_just_used() {
    let server = Server::new(open());
    server.make("alice");
    let (one, two) = (
        server.log_in("alice", "secret", None).expect("in"),
        server.log_in("alice", "secret", None).expect("in"),
    );
    let requester = server.who(&one.access_token).expect("works");
    let sessions = server.sessions.clone();
    server.run(async move { sessions.log_out(requester).await }).expect("out");
    assert_eq!(refused(server.who(&one.access_token)), "M_UNKNOWN_TOKEN");
    assert!(server.who(&two.access_token).is_ok());
    let sessions = server.sessions.clone();
    let alice = owned_user_id!("@alice:hs.example");
    server.run(async move { sessions.delete_all_devices(alice, None).await }).expect("out");
    assert_eq!(refused(server.who(&two.access_token)), "M_UNKNOWN_TOKEN");
    assert_eq!(refused(server.who(&Secret::new("rwt_never".to_owned()))), "M_UNKNOWN_TOKEN");
}

#[test]
fn guessing_is_slowed_down_by_account_and_by_address() {
    let server = Server::with_limits(open(), RateLimits::default());
    server.make("alice");
    for _ in 0..20 {
        assert_eq!(refused(server.log_in("alice", "wrong", None)), "M_FORBIDDEN");
    }
    let limited = server.log_in("alice", "secret", None);
    assert_eq!(refused(limited), "M_LIMIT_EXCEEDED");
    server.clock.advance(Duration::from_secs(5));
    assert!(server.log_in("alice", "secret", None).is_ok());
    // The address is limited too, whomever it tries next.
    assert_eq!(refused(server.log_in("bob", "x", None)), "M_LIMIT_EXCEEDED");
}

#[test]
fn a_new_password_asks_for_the_old_one_and_logs_others_out() {
    let server = Server::new(open());
    server.make("alice");
    let mine = server.log_in("alice", "secret", None).expect("in");
    let other = server.log_in("alice", "secret", None).expect("in");
    let me = server.who(&mine.access_token).expect("me");
    server.who(&other.access_token).expect("other");
    let auth = |password: &str, session: &str, user: &str| {
        Some(json!({
            "type": "m.login.password", "password": password, "session": session,
            "identifier": {"type": "m.id.user", "user": user}
        }))
    };
    let path = "/_matrix/client/v3/account/password";
    let asked = dialogue(server.ask_password(&me, path, None));
    assert_eq!(
        serde_json::to_value(&asked.flows).expect("JSON"),
        json!([{"stages": ["m.login.password"]}])
    );
    let session = asked.session.expect("a session");
    let wrong = server.ask_password(&me, path, auth("wrong", &session, "alice"));
    assert_eq!(refused(wrong), "UIA M_FORBIDDEN");
    server.make("bob");
    let other_user = server.ask_password(&me, path, auth("secret", &session, "bob"));
    assert_eq!(refused(other_user), "UIA M_FORBIDDEN", "somebody else's password opens nothing");
    let bob = Requester { user_id: owned_user_id!("@bob:hs.example"), device_id: "X".into() };
    let stolen = server.ask_password(&bob, path, auth("secret", &session, "bob"));
    assert_eq!(refused(stolen), "M_FORBIDDEN", "sessions belong to their user");
    server.ask_password(&me, path, auth("secret", &session, "alice")).expect("passed");

    let accounts = server.accounts.clone();
    server
        .run(async move {
            accounts.change_password(&me, "better".to_owned().into(), OtherDevices::LogOut).await
        })
        .expect("changed");
    assert!(server.who(&mine.access_token).is_ok());
    assert_eq!(refused(server.who(&other.access_token)), "M_UNKNOWN_TOKEN");
    assert_eq!(refused(server.log_in("alice", "secret", None)), "M_FORBIDDEN");
    assert!(server.log_in("alice", "better", None).is_ok());
}

#[test]
fn a_closed_account_is_closed_for_good() {
    let server = Server::new(open());
    server.make("alice");
    let login = server.log_in("alice", "secret", None).expect("in");
    server.who(&login.access_token).expect("works");
    let (accounts, user_id) = (server.accounts.clone(), login.user_id.clone());
    server.run(async move { accounts.deactivate(user_id, Erase::Yes).await }).expect("closed");
    assert_eq!(refused(server.who(&login.access_token)), "M_UNKNOWN_TOKEN");
    assert_eq!(refused(server.log_in("alice", "secret", None)), "M_USER_DEACTIVATED");
    let again = server.register(&json!({
        "username": "alice", "password": "x", "auth": {"type": "m.login.dummy"}
    }));
    assert_eq!(refused(again), "M_USER_IN_USE");
    assert_eq!(*server.rooms.0.borrow(), ["@alice:hs.example leaves"]);
    let profiles = server.profiles.clone();
    assert_eq!(
        refused(server.run(async move { profiles.all(login.user_id).await })),
        "M_NOT_FOUND"
    );
}

#[test]
fn the_shared_secret_makes_administrators() {
    let server = Server::new(Rules::default());
    let register = |nonce: &str, secret: &str, password: &str| {
        let secret = Secret::new(secret.to_owned());
        let (username, admin) = ("alice", true);
        let mac = MacParts { nonce, username, password, admin, user_type: None }.sign(&secret);
        let request = serde_json::from_value(json!({
            "nonce": nonce, "username": username, "password": password, "admin": true, "mac": mac
        }))
        .expect("a request");
        let admin = server.admin.clone();
        server.run(async move { admin.register(request).await })
    };
    let nonce = server.admin.nonce();
    assert_eq!(refused(register(&nonce, "guessed", "secret")), "M_FORBIDDEN");
    assert_eq!(refused(register(&nonce, "shared", "secret")), "M_UNKNOWN", "a nonce is good once");
    let nonce = server.admin.nonce();
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(refused(register(&nonce, "shared", "secret")), "M_UNKNOWN", "and for a minute");
    let nonce = server.admin.nonce();
    assert_eq!(refused(register(&nonce, "shared", "sec\0ret")), "M_INVALID_PARAM");
    let nonce = server.admin.nonce();
    let made = register(&nonce, "shared", "secret").expect("made");
    assert_eq!(made.user_id, "@alice:hs.example");
    assert!(server.log_in("alice", "secret", None).is_ok());
    let nonce = server.admin.nonce();
    assert_eq!(refused(register(&nonce, "shared", "secret")), "M_USER_IN_USE");
}

#[test]
fn rooms_hear_of_names_and_pictures_only() {
    let server = Server::new(open());
    let alice = server.make("alice");
    let set = |name: &str, value: Value| {
        let (profiles, alice, name) = (server.profiles.clone(), alice.clone(), name.to_owned());
        let user_id = alice.user_id.clone();
        server.run(async move { profiles.set(&alice, user_id, name, value).await })
    };
    let all = || {
        let (profiles, user_id) = (server.profiles.clone(), alice.user_id.clone());
        serde_json::to_value(server.run(async move { profiles.all(user_id).await }).expect("shown"))
            .expect("JSON")
    };
    assert_eq!(all(), json!({"displayname": "alice"}));
    set("displayname", json!("Alice")).expect("set");
    set("org.example.tz", json!({"zone": "Europe/London"})).expect("set");
    assert_eq!(*server.rooms.0.borrow(), ["@alice:hs.example changed"]);
    set("displayname", json!("")).expect("removed");
    assert_eq!(all(), json!({"org.example.tz": {"zone": "Europe/London"}}));
    assert_eq!(refused(set("org.example.big", json!("x".repeat(70_000)))), "M_PROFILE_TOO_LARGE");
    assert_eq!(refused(set(&"k".repeat(256), json!(1))), "M_KEY_TOO_LARGE");

    let (profiles, mallory) = (server.profiles.clone(), alice.clone());
    let foreign = server.run(async move {
        let victim = owned_user_id!("@bob:hs.example");
        profiles.set(&mallory, victim, "displayname".to_owned(), json!("x")).await
    });
    assert_eq!(refused(foreign), "M_FORBIDDEN");
    for nobody in [owned_user_id!("@nobody:hs.example"), owned_user_id!("@x:other.example")] {
        let profiles = server.profiles.clone();
        let shown = server.run(async move { profiles.all(nobody).await });
        assert_eq!(refused(shown), "M_NOT_FOUND");
    }
}

#[test]
fn push_rules_start_with_the_default_set_and_keep_changes() {
    let server = Server::new(open());
    let alice: OwnedUserId = server.make("alice").user_id;
    let rules = PushRules::new(server.database.clone());
    let get = |id: &'static str| {
        let (rules, alice) = (rules.clone(), alice.clone());
        server.run(async move { rules.get(&alice, RuleKind::Override, id).await })
    };
    assert!(!get(".m.rule.master").expect("a default").enabled());
    assert_eq!(refused(get("mine")), "M_NOT_FOUND");

    let put = |id: &str, before: Option<&str>| {
        let body: Value = json!({"actions": ["notify"], "conditions": []});
        let path = format!("/_matrix/client/v3/pushrules/global/override/{id}");
        let request = http::Request::put(path).body(body.to_string()).expect("a request");
        let request = request.map(String::into_bytes);
        let (parts, body) = request.into_parts();
        let parsed = ruma::api::client::push::set_pushrule::v3::Request::try_from_http_request(
            http::Request::from_parts(parts, &body[..]),
            &["override", id],
        )
        .expect("a rule");
        let (rules, alice, before) = (rules.clone(), alice.clone(), before.map(str::to_owned));
        server.run(async move { rules.put(alice, parsed.rule, before, None).await })
    };
    put("mine", None).expect("made");
    put("first", Some("mine")).expect("made");
    assert_eq!(refused(put("x", Some("nobody"))), "M_NOT_FOUND");
    assert_eq!(refused(put(".m.rule.x", None)), "M_INVALID_PARAM");
    assert!(get("mine").is_ok());

    let (changed, user) = (rules.clone(), alice.clone());
    server
        .run(async move {
            let id = ".m.rule.master".to_owned();
            changed.set_enabled(user, RuleKind::Override, id, true).await
        })
        .expect("changed");
    assert!(get(".m.rule.master").expect("a default").enabled());
    let delete = |id: &str| {
        let (rules, alice, id) = (rules.clone(), alice.clone(), id.to_owned());
        server.run(async move { rules.delete(alice, RuleKind::Override, id).await })
    };
    delete("mine").expect("deleted");
    assert_eq!(refused(delete("mine")), "M_NOT_FOUND");
    assert_eq!(refused(delete(".m.rule.master")), "M_INVALID_PARAM");
}

#[test]
fn settings_are_their_owners_and_some_are_the_servers() {
    let server = Server::new(open());
    let alice = server.make("alice");
    let data = AccountData::new(server.database.clone());
    let set = |user: &UserId, event_type: &str, content: &str| {
        let (data, alice) = (data.clone(), alice.clone());
        let (user, event_type) = (user.to_owned(), event_type.to_owned());
        let content = content.to_owned();
        server.run(async move { data.set(&alice, user, None, event_type, content).await })
    };
    let own = user_id!("@alice:hs.example");
    set(own, "m.direct", "{}").expect("set");
    assert_eq!(refused(set(user_id!("@bob:hs.example"), "m.direct", "{}")), "M_FORBIDDEN");
    assert_eq!(refused(set(own, "m.direct", "[]")), "M_BAD_JSON");
    assert_eq!(refused(set(own, "m.push_rules", "{}")), "M_BAD_JSON");
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(refused(set(own, "m.direct", &long)), "M_TOO_LARGE");

    let get = |event_type: &'static str| {
        let (data, alice) = (data.clone(), alice.clone());
        let user_id = alice.user_id.clone();
        server.run(async move { data.get(&alice, user_id, None, event_type.to_owned()).await })
    };
    assert_eq!(get("m.direct").expect("there"), "{}");
    assert_eq!(refused(get("m.other")), "M_NOT_FOUND");

    let filter = |id: &'static str| {
        let (data, alice) = (data.clone(), alice.clone());
        let user_id = alice.user_id.clone();
        server.run(async move { data.filter(&alice, user_id, id).await })
    };
    assert_eq!(refused(filter("0")), "M_NOT_FOUND");
    assert_eq!(refused(filter("x")), "M_INVALID_PARAM");
}
