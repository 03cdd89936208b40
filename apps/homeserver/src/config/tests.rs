//! Whole files: what is accepted, what is refused and in which words.

use std::path::Path;

use insta::assert_snapshot;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("homeserver.toml"))
}

fn errors(text: &str) -> String {
    parse(text).expect_err("the file is wrong").to_string()
}

#[test]
fn a_server_name_is_enough() {
    let config = parse("server_name = \"hs.example\"").expect("fine");
    assert_eq!(config.server_name, "hs.example");
    assert_eq!((config.listen.http.host.as_str(), config.listen.http.port), ("127.0.0.1", 8008));
    assert_eq!(config.listen.https, None);
    assert!(!config.registration.open);
    assert_eq!(config.warnings, Vec::<String>::new());
    let same_without_file = Config {
        file: config.file.clone(),
        server_name: config.server_name.clone(),
        paths: config.paths.clone(),
        ..Config::without_file(Path::new("./homeserver-data"))
    };
    assert_eq!(config, same_without_file);
}

#[test]
fn every_key_of_the_contract_is_accepted() {
    let text = include_str!("testdata/every_key.toml");
    // The contract shows the other engine's address beside the default engine.
    let config = parse(text).expect("fine");
    assert_eq!(config.public_base_url.expect("set").as_str(), "https://matrix.example.org/");
    assert_eq!(config.paths.data_dir, Path::new("/var/lib/ropewalk"));
    assert_eq!(config.paths.signing_key, Path::new("/var/lib/ropewalk/signing.key"));
    assert_eq!(config.listen.https.expect("set").port, 8448);
    assert_eq!(config.media.upload_bytes_max, ByteSize(50 << 20));
    assert_eq!(config.appservices.files, [Path::new("bridge.yaml")]);
    assert_eq!(config.replication.expect("set").listen.expect("set").to_string(), "127.0.0.1:9092");
}

#[test]
fn the_values_that_the_contract_gives_as_defaults_are_the_defaults() {
    // Its paths, addresses and lists are examples.
    let examples = [
        "public_base_url",
        "data_dir",
        "trusted_ca = [\"ca",
        "files",
        "url = ",
        "instances",
        "certificate",
        "private_key",
        "stream_writers",
        "listen = ",
        "main = ",
    ];
    let text: String = include_str!("testdata/every_key.toml")
        .lines()
        .filter(|line| !examples.iter().any(|example| line.starts_with(example)))
        .map(|line| format!("{line}\n"))
        .collect();
    let (raw, reading) = raw::RawConfig::read(&text);
    assert_eq!(reading.into_problems(), []);
    let off_by_default = raw::RawConfig {
        listen: listen::Listen {
            https: Some(listen::HttpsListener::default()),
            metrics: Some(listen::MetricsListener::default()),
            ..listen::Listen::default()
        },
        smtp: Some(smtp::Smtp::default()),
        recaptcha: Some(recaptcha::Recaptcha::default()),
        cas: Some(cas::Cas::default()),
        workers: Some(workers::Workers::default()),
        replication: Some(replication::Replication::default()),
        ..raw::RawConfig::default()
    };
    let server =
        server::Server { server_name: raw.server.server_name.clone(), ..server::Server::default() };
    assert_eq!(raw, raw::RawConfig { server, ..off_by_default });
}

#[test]
fn files_are_found_from_the_folder_of_the_file() {
    let text = "server_name = \"a\"\ndata_dir = \"data\"\n[listen.https]\ncertificate = \"c.pem\"\nprivate_key = \"/k.pem\"";
    let config = Config::parse(text, Path::new("/etc/ropewalk/homeserver.toml")).expect("fine");
    assert_eq!(config.paths.database, Path::new("/etc/ropewalk/data/homeserver.db"));
    assert_eq!(config.paths.media, Path::new("/etc/ropewalk/data/media"));
    let https = config.listen.https.expect("set");
    assert_eq!(https.certificate, Path::new("/etc/ropewalk/c.pem"));
    assert_eq!(https.private_key, Path::new("/k.pem"));
}

#[test]
fn errors_say_where_what_and_what_would_do() {
    assert_snapshot!(errors(r#"
server_name = "not a name"
data-dir = "/var/lib/ropewalk"
per_second = 3
surver_name = "x"
default_room_version = "13"
log_level = "loud"

[listen.http]
port = 80080
adress = "127.0.0.1"

[registraton]
open = true

[registration]
open = "yes"
shared_secret = 42

[rate_limits.login]
per_second = -1
burst = 0

[rate_limits.logins]
burst = 1

[media]
upload_bytes_max = 50
remote_retention = "90"

[federation]
allow_servers = ["good.example", "bad name"]
backoff = "sometimes"

[url_previews]
deny_addresses = ["10.0.0.0/99"]

[workers]
instances.sync1.uri = "http://127.0.0.1:8081"

[replication]
listen = "9092"

[cas]
server_url = "cas.example"
"#), @r#"
    homeserver.toml:2: server_name: found the string "not a name", expected a server name such as "example.org" or "example.org:8448"; for example `server_name = "example.org"`
    homeserver.toml:3: data-dir: unknown key; did you mean `data_dir`?
    homeserver.toml:4: per_second: unknown key; `per_second` belongs below a line `[rate_limits.message]`
    homeserver.toml:5: surver_name: unknown key; did you mean `server_name`?
    homeserver.toml:6: default_room_version: found the string "13", expected a room version from "6" to "12", in quotes; for example `default_room_version = "12"`
    homeserver.toml:7: log_level: found the string "loud", expected one of "off", "error", "warn", "info", "debug", "trace"; for example `log_level = "info"`
    homeserver.toml:10: listen.http.port: found the number 80080, expected a port number from 0 to 65535 (0 takes a free one); for example `port = 8008`
    homeserver.toml:11: listen.http.adress: unknown key; [listen.http] knows host, port
    homeserver.toml:13: registraton: unknown key; did you mean `registration`?
    homeserver.toml:17: registration.open: found the string "yes", expected true or false; for example `open = false`
    homeserver.toml:18: registration.shared_secret: expected a string in quotes; for example `shared_secret = "a long random string"`
    homeserver.toml:21: rate_limits.login.per_second: found the number -1, expected a number above 0, at most 1000000; for example `per_second = 0.2`
    homeserver.toml:22: rate_limits.login.burst: found the number 0, expected a whole number from 1; for example `burst = 20`
    homeserver.toml:24: rate_limits.logins: unknown key; did you mean `login`?
    homeserver.toml:28: media.upload_bytes_max: found the number 50, expected a size with its unit: "512B", "64KiB", "50MiB", "2GiB"; for example `upload_bytes_max = "50MiB"`
    homeserver.toml:29: media.remote_retention: found the string "90", expected a duration with its unit: "500ms", "30s", "5m", "2h", "90d"; for example `remote_retention = "90d"`
    homeserver.toml:32: federation.allow_servers: found the string "bad name", expected a server name such as "example.org" or "example.org:8448"; for example `allow_servers = ["friends.example"]`
    homeserver.toml:33: federation.backoff: found the string "sometimes", expected one of "off", "on"; for example `backoff = "on"`
    homeserver.toml:36: url_previews.deny_addresses: found the string "10.0.0.0/99", expected an address or range such as "10.0.0.0/8"; for example `deny_addresses = ["203.0.113.0/24"]`
    homeserver.toml:39: workers.instances: sync1: found the key `uri`, expected `url = "http://127.0.0.1:8081"` and nothing else; for example `instances = { sync1 = { url = "http://127.0.0.1:8081" } }`
    homeserver.toml:42: replication.listen: found the string "9092", expected host and port, such as "127.0.0.1:9092"; for example `listen = "127.0.0.1:9092"`
    homeserver.toml:45: cas.server_url: found the string "cas.example", expected an address that starts with "https://" or "http://"; for example `server_url = "https://cas.example.org/"`
    "#);
}

#[test]
fn errors_across_keys_say_so_too() {
    assert_snapshot!(errors(""), @r#"homeserver.toml: server_name: missing; write for example `server_name = "example.org"` at the top"#);
    assert_snapshot!(errors("server_name = \"\""), @r#"homeserver.toml:1: server_name: found the empty string; for example `server_name = "example.org"`"#);
    assert_snapshot!(errors(r#"
server_name = "a"
[database]
engine = "postgres"
[listen.https]
port = 8448
[registration]
shared_secret = "s3cret"
shared_secret_file = "secret"
"#), @r#"
    homeserver.toml:4: database.engine: found "postgres", but this version keeps its data in SQLite only; write `engine = "sqlite"`
    homeserver.toml:9: registration.shared_secret_file: registration.shared_secret is set too; take out one of the two
    homeserver.toml: listen.https.certificate: missing; write for example `certificate = "fullchain.pem"` below `[listen.https]`
    homeserver.toml: listen.https.private_key: missing; write for example `private_key = "privkey.pem"` below `[listen.https]`
    "#);
}

#[test]
fn broken_toml_names_the_line() {
    assert_snapshot!(errors("server_name = \"a\"\n[listen\nport = = 3\n"), @r#"
    homeserver.toml:2: not TOML: unclosed table, expected `]`
    homeserver.toml:3: not TOML: extra `=`, expected nothing
    homeserver.toml:3: not TOML: unexpected key or value, expected newline, `#`
    "#);
}

#[test]
fn a_section_where_a_value_belongs_and_the_other_way_round() {
    assert_snapshot!(errors("server_name = \"a\"\nlisten = 8008\n[data_dir]\nx = 1\n"), @r#"
    homeserver.toml:2: listen: found the number 8008, expected a section; write its keys below a line `[listen]`
    homeserver.toml:3: data_dir: found a section, expected a path in quotes; for example `data_dir = "./homeserver-data"`
    "#);
}

#[test]
fn open_registration_beyond_loopback_has_to_be_meant() {
    let with = |registration: &str, host: &str| {
        format!(
            "server_name = \"a\"\n[listen.http]\nhost = \"{host}\"\n[registration]\n{registration}"
        )
    };
    for (why, registration, host, fine) in [
        ("closed", "open = false", "0.0.0.0", true),
        ("on loopback", "open = true", "127.0.0.1", true),
        ("on loopback by name", "open = true", "localhost", true),
        ("to everybody", "open = true", "0.0.0.0", false),
        ("to everybody over IPv6", "open = true", "::", false),
        ("to a name", "open = true", "matrix.example.org", false),
        ("with tokens", "open = true\ntokens = true", "0.0.0.0", true),
        ("meant", "open = true\nopen_without_verification = true", "0.0.0.0", true),
    ] {
        assert_eq!(parse(&with(registration, host)).is_ok(), fine, "{why}");
    }
    let over_tls = "server_name = \"a\"\n[listen.https]\ncertificate = \"c\"\nprivate_key = \"k\"\n\
                    [registration]\nopen = true";
    assert_snapshot!(errors(over_tls), @r#"homeserver.toml:6: registration.open: anybody who reaches 0.0.0.0 could make accounts without being asked for anything; set `tokens = true`, listen on 127.0.0.1, or write `open_without_verification = true` if this is meant"#);
}

#[test]
fn what_has_no_effect_is_said() {
    let text =
        "server_name = \"a\"\n[smtp]\n[registration]\nguests = true\n[passwords]\nfast_hash = true";
    assert_snapshot!(parse(text).expect("fine").warnings.join("\n"), @r#"
    homeserver.toml:4: registration.guests has no effect in this version
    homeserver.toml:2: smtp has no effect in this version
    passwords.fast_hash is on: passwords are hashed cheaply, use it in test rigs only
    "#);
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let text = "server_name = \"a\"\n[registration]\nshared_secret = \"s3cret\"\n[replication]\nsecret = \"s3cret\"";
    assert!(!format!("{:?}", parse(text).expect("fine")).contains("s3cret"));
}
