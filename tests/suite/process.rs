//! The program as an operator meets it: started, asked, told to stop, started twice, told nonsense.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use system_tests::http::Connection;
use system_tests::matrix::{Person, text};
use system_tests::server::{Homeserver, Site};
use system_tests::terminal::{Stream, Terminal};

use crate::HOMESERVER;

/// How long an ordered stop may take.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(8);

/// Where a server without configuration listens.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8008";

#[test]
fn it_starts_with_no_configuration_and_says_how_to_go_on() {
    let site = Site::new(HOMESERVER);
    let folder = site.folder().join("empty");
    std::fs::create_dir(&folder).unwrap();
    let mut command = site.command(&[]);
    command.current_dir(&folder);
    let mut terminal = Terminal::start(command);
    let Some(first_line) = terminal.next_line_of(Stream::Out) else {
        // The one test of a fixed port: somebody else may have it.
        let (status, said) = (terminal.wait_exit(STOP_MAX), terminal.transcript());
        assert!(said.contains(&format!("cannot listen on {DEFAULT_ADDRESS}")), "{status}: {said}");
        println!("{DEFAULT_ADDRESS} is taken on this machine: only the refusal was tested");
        return;
    };
    assert!(first_line.contains(DEFAULT_ADDRESS), "{first_line}");
    terminal.wait_for("saying how to make an account", |line| {
        line.contains("register-user").then_some(())
    });
    let server = Homeserver::at(DEFAULT_ADDRESS.parse().unwrap(), terminal);
    let data = folder.join("homeserver-data");
    for file in ["homeserver.toml", "homeserver.db", "signing.key"] {
        assert!(data.join(file).exists(), "no {file}");
    }
    let secrets = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    for path in secrets.filter(|path| path.to_string_lossy().ends_with("key")) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read {}", path.display());
    }
    // Nobody can just walk in.
    let register =
        json!({"username": "eve", "password": "long enough", "auth": {"type": "m.login.dummy"}});
    assert_eq!(server.post("register", None, &register).outcome(), "403 M_FORBIDDEN");

    let (status, said) = server.terminate(STOP_MAX);
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn register_user_makes_an_account_on_the_running_server() {
    let site = Site::new(HOMESERVER);
    let server = site.start();
    let url = server.base_url();
    let run = |arguments: &[&str], password: &str| {
        let mut all = vec!["register-user", "--config", "open.toml"];
        all.extend(["--url", &url, "--password-file", "-"]);
        all.extend(arguments);
        let mut terminal = Terminal::start(site.command(&all));
        terminal.type_line(password);
        (terminal.wait_exit(system_tests::terminal::PATIENCE), terminal.transcript())
    };
    let (status, said) = run(&["alice"], "a long password for alice");
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("@alice:ropewalk.test"), "{said}");
    assert!(!said.contains("a long password"), "the password is on the terminal:\n{said}");

    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "a long password for alice",
    });
    let answer = server.post("login", None, &login);
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(Person::of(&answer.json()).id, "@alice:ropewalk.test");

    let (status, said) = run(&["alice"], "another password");
    assert_eq!(status.code(), Some(1), "a taken name: {said}");
    assert!(said.contains("error: "), "{said}");
    server.kill();
    let (status, said) = run(&["bob"], "a long password for bob");
    assert_eq!(status.code(), Some(1), "no server: {said}");
    assert!(said.contains("error: ") && said.contains("hint: "), "{said}");
}

#[test]
fn sigterm_answers_long_polls_at_once_and_ends_well() {
    stop_politely(Terminal::terminate);
}

#[test]
fn sigint_does_the_same() {
    stop_politely(Terminal::interrupt);
}

fn stop_politely(signal: fn(&Terminal)) {
    let site = Site::new(HOMESERVER);
    let server = site.start();
    let alice = server.register("alice");
    let since = text(&server.get("sync?timeout=0", Some(&alice)).json(), "next_batch");
    let target = format!("/_matrix/client/v3/sync?timeout=600000&since={since}");
    let mut polls: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    for poll in &mut polls {
        poll.request("GET", &target, Some(&alice.token), b"");
    }
    // Idle and half-open connections must not hold up the end either.
    let mut idle = server.connect();
    idle.request("GET", "/_matrix/client/versions", None, b"");
    assert_eq!(idle.answer().status, 200);
    let mut half = server.connect();
    half.send(b"GET /_matrix/client/versions HTTP/1.1\r\nHo");
    // The polls were sent before this request was; once it is answered, they are waiting.
    assert_eq!(server.outcome("GET", "/_matrix/client/versions", None, ""), "200");

    signal(server.terminal());
    for mut poll in polls {
        let answer = poll.answer();
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.json()["next_batch"].is_string(), "{answer}");
    }
    let (status, said) = server.wait_exit(STOP_MAX);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");

    // The token that the interrupted poll gave is good after the restart.
    let server = site.start();
    let answer = server.get(&format!("sync?timeout=0&since={since}"), Some(&alice));
    assert_eq!(answer.status, 200, "{answer}");
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let site = Site::new(HOMESERVER);
    let server = site.start();
    let (status, said) = site.run(&["--config", "open.toml"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("data"), "{said}");
    assert_eq!(server.outcome("GET", "/_matrix/client/versions", None, ""), "200");
    // A crash does not leave the door locked.
    server.kill();
    let server = site.start();
    assert_eq!(server.outcome("GET", "/_matrix/client/versions", None, ""), "200");
}

#[test]
fn an_address_in_use_is_named() {
    let site = Site::new(HOMESERVER);
    #[expect(clippy::disallowed_methods, reason = "stands for somebody else's server")]
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    site.write(
        "taken.toml",
        &format!(
            "server_name = \"ropewalk.test\"\ndata_dir = \"data\"\n\
             [listen.http]\nhost = \"127.0.0.1\"\nport = {}\n",
            address.port()
        ),
    );
    let (status, said) = site.run(&["--config", "taken.toml"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn check_config_tells_right_from_wrong() {
    let site = Site::new(HOMESERVER);
    site.write("good.toml", "server_name = \"ropewalk.test\"\n");
    site.write("typo.toml", "server_name = \"ropewalk.test\"\n\n[listen.http]\nprot = 8008\n");
    site.write(
        "type.toml",
        "server_name = \"ropewalk.test\"\n[sync]\nresponse_cache = \"maybe\"\n",
    );
    site.write("cut.toml", "server_name = \"ropewalk");
    for (why, arguments, code, wanted) in [
        ("a good file", vec!["check-config", "--config", "good.toml"], 0, vec!["ropewalk.test"]),
        (
            "an unknown key",
            vec!["check-config", "--config", "typo.toml"],
            2,
            vec!["error: ", "typo.toml", "prot", "port"],
        ),
        (
            "a wrong type",
            vec!["check-config", "--config", "type.toml"],
            2,
            vec!["error: ", "type.toml", "response_cache"],
        ),
        ("no TOML", vec!["check-config", "--config", "cut.toml"], 2, vec!["error: ", "cut.toml"]),
        ("no file", vec!["check-config", "--config", "none.toml"], 2, vec!["error: ", "none.toml"]),
        ("an unknown flag", vec!["check-config", "--fast"], 2, vec!["--fast"]),
        ("an unknown command", vec!["dance"], 2, vec!["dance"]),
        ("running a wrong file", vec!["--config", "typo.toml"], 2, vec!["error: ", "prot"]),
        ("help", vec!["--help"], 0, vec!["register-user", "check-config", "init"]),
        ("version", vec!["--version"], 0, vec!["homeserver"]),
    ] {
        let (status, said) = site.run(&arguments);
        assert_eq!(status.code(), Some(code), "{why}: {said}");
        for word in wanted {
            assert!(said.contains(word), "{why}: no {word:?} in {said}");
        }
    }
    // Looking leaves nothing behind.
    assert!(!site.folder().join("homeserver-data").exists());
}

#[test]
fn open_registration_beyond_loopback_must_be_meant() {
    let site = Site::new(HOMESERVER);
    let config = |extra: &str| {
        format!(
            "server_name = \"ropewalk.test\"\ndata_dir = \"data\"\n\
             [listen.http]\nhost = \"0.0.0.0\"\nport = 0\n[registration]\nopen = true\n{extra}\n"
        )
    };
    site.write("careless.toml", &config(""));
    site.write("meant.toml", &config("open_without_verification = true"));
    for arguments in
        [["--config", "careless.toml"].as_slice(), &["check-config", "--config", "careless.toml"]]
    {
        let (status, said) = site.run(arguments);
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("open_without_verification") && said.contains("hint: "), "{said}");
    }
    let server =
        Homeserver::await_ready(Terminal::start(site.command(&["--config", "meant.toml"])));
    let (status, said) = server.terminate(STOP_MAX);
    assert!(status.success(), "{said}");
}

#[test]
fn init_makes_a_folder_that_runs() {
    let site = Site::new(HOMESERVER);
    let (status, said) =
        site.run(&["init", "--server-name", "ropewalk.test", "--data-dir", "place"]);
    assert!(status.success(), "{said}");
    let (status, said) = site.run(&["check-config", "--config", "place/homeserver.toml"]);
    assert!(status.success(), "{said}");
    let before = std::fs::read(site.folder().join("place/signing.key")).unwrap();
    let (status, said) =
        site.run(&["init", "--server-name", "ropewalk.test", "--data-dir", "place"]);
    let after = std::fs::read(site.folder().join("place/signing.key")).unwrap();
    assert_eq!(before, after, "the signing key was replaced; {status}: {said}");
}
