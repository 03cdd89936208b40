//! The program as an operator meets it: started, asked, told to stop, started twice, told nonsense.

use std::net::TcpListener;
use std::time::Duration;

use system_tests::server::{Homeserver, Site};
use system_tests::terminal::Terminal;

use crate::HOMESERVER;

/// How long an ordered stop may take.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(8);

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
