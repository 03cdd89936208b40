//! What the program says about itself, and what it refuses.

use clap::CommandFactory as _;
use insta::assert_snapshot;

use super::*;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("homeserver").chain(arguments.iter().copied()))
}

fn error_text(error: &CliError) -> String {
    let mut out = Vec::new();
    report(&mut out, error).expect("memory takes everything");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_short_help_fits_a_screen() {
    let help = Cli::command().term_width(80).render_help().to_string();
    assert!(help.lines().count() <= 24);
    assert_snapshot!(help, @r#"
    A Matrix homeserver. Without a command it runs until Ctrl-C

    Usage: homeserver [OPTIONS]
           homeserver <COMMAND>

    Commands:
      check-config   Say what is wrong with a configuration, or what will run
      init           Make a data folder with signing key and commented configuration
      register-user  Make an account on the server that runs

    Options:
          --config <FILE>  The configuration file
      -h, --help           Print help (see more with '--help')
      -V, --version        Print version
    "#);
}

#[test]
fn the_long_help_teaches() {
    assert_snapshot!(Cli::command().term_width(80).render_long_help().to_string(), @r#"
    A Matrix homeserver. Without a command it runs until Ctrl-C

    Usage: homeserver [OPTIONS]
           homeserver <COMMAND>

    Commands:
      check-config   Say what is wrong with a configuration, or what will run
      init           Make a data folder with signing key and commented configuration
      register-user  Make an account on the server that runs

    Options:
          --config <FILE>
              The configuration file.
              
              Without it, ./homeserver-data/homeserver.toml is read if it is there;
              if not, the server is called localhost, listens on 127.0.0.1:8008 and
              keeps its data in ./homeserver-data.

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Examples:
      Try it out, with data in ./homeserver-data, reachable from this machine only:
        homeserver
      Make an account on the server that runs:
        homeserver register-user alice
      Set up a server to stay, and run it:
        homeserver init --server-name example.org --data-dir /var/lib/ropewalk
        homeserver check-config --config /var/lib/ropewalk/homeserver.toml
        homeserver --config /var/lib/ropewalk/homeserver.toml

    Exit status: 0 done, 1 could not, 2 asked wrongly (by the command line or the
    configuration).
    "#);
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&["--confg", "x"][..], &["start"], &["init", "x"], &["--config"]] {
        let error = parse(arguments).expect_err("wrong");
        assert_eq!(error.exit_code(), 2, "{arguments:?}");
    }
}

#[test]
fn no_command_runs_the_server_and_its_failure_exits_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hs.toml");
    std::fs::write(&file, "server_name = \"hs.example\"").expect("written");
    let file = file.to_str().expect("UTF-8");

    let mut served = None;
    dispatch(parse(&["--config", file]).expect("fine"), |config| {
        served = Some(config.server_name);
        Ok(())
    })
    .expect("served");
    assert_eq!(served.expect("called"), "hs.example");

    let error = dispatch(parse(&["--config", file]).expect("fine"), |_| {
        Err(Box::new(io::Error::other("the port is taken")))
    })
    .expect_err("could not");
    assert_eq!((error.status, error_text(&error).as_str()), (1, "error: the port is taken\n"));
}

#[test]
fn a_wrong_configuration_exits_with_2_and_a_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hs.toml");
    std::fs::write(&file, "servername = \"hs.example\"").expect("written");
    let arguments = ["check-config", "--config", file.to_str().expect("UTF-8")];
    let never = |_| -> Result<(), Box<dyn Error>> { panic!("must not run") };
    let error = dispatch(parse(&arguments).expect("fine"), never).expect_err("wrong");
    assert_eq!(error.status, 2);
    let text = error_text(&error).replace(folder.path().to_str().expect("UTF-8"), "DIR");
    assert_snapshot!(text, @r#"
    error: DIR/hs.toml:1: servername: unknown key; did you mean `server_name`?
    error: DIR/hs.toml: server_name: missing; write for example `server_name = "example.org"` at the top
    hint: `homeserver check-config --config DIR/hs.toml` tells when it is right
    "#);
}

#[test]
fn files_that_cannot_be_used_are_said_before_the_server_needs_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hs.toml");
    for (why, sections, expected) in [
        (
            "no certificate",
            "[listen.https]\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"",
            "c.pem; it should hold certificates, in PEM",
        ),
        ("no secret", "[registration]\nshared_secret_file = \"s\"", "cannot read"),
    ] {
        let text = format!("server_name = \"hs.example\"\n{sections}\n");
        std::fs::write(&file, text).expect("written");
        let arguments = ["check-config", "--config", file.to_str().expect("UTF-8")];
        let never = |_| -> Result<(), Box<dyn Error>> { panic!("must not run") };
        let error = dispatch(parse(&arguments).expect("fine"), never).expect_err(why);
        assert_eq!(error.status, 2, "{why}");
        assert!(error.message.contains(expected), "{why}: {}", error.message);
    }
}

#[test]
fn a_right_configuration_says_what_will_run() {
    let text = "server_name = \"hs.example\"\ndata_dir = \"/data\"\n[registration]\nopen = true\n\
                tokens = true\n[listen.https]\ncertificate = \"c\"\nprivate_key = \"k\"";
    let config = Config::parse(text, Path::new("hs.toml")).expect("fine");
    assert_snapshot!(check_config::summary(&config), @r#"
    hs.toml is fine. This will run:
      server name   hs.example
      HTTP          127.0.0.1 port 8008
      HTTPS         0.0.0.0 port 8448
      data          /data
      signing key   /data/signing.key
      database      SQLite, /data/homeserver.db
      registration  open to whoever has a registration token
      room version  12
      rate limits   on
    "#);
    let without = Config::without_file(Path::new(DEFAULT_DATA_DIR));
    assert_snapshot!(check_config::summary(&without), @r#"
    There is no configuration file. This will run:
      server name   localhost
      HTTP          127.0.0.1 port 8008
      data          ./homeserver-data
      signing key   ./homeserver-data/signing.key
      database      SQLite, ./homeserver-data/homeserver.db
      registration  closed; `homeserver register-user` makes accounts
      room version  12
      rate limits   on
    "#);
}

#[test]
fn causes_are_told_with_the_error() {
    let error = crate::config::secrets::make_data_dir(Path::new("/proc/no/such"));
    let text = with_causes(&error.expect_err("nobody makes folders there"));
    assert!(text.starts_with("cannot make /proc/no/such: "), "{text}");
}
