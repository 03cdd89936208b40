//! What a server needs on disk before it can run, and what its first start says on the terminal.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::secrets::{self, FillRandom, SecretFileError, SigningKey};
use super::{CONFIG_FILE_NAME, Config, Secret, sample};

/// What [`prepare`] found or made.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The key that signs events.
    pub signing_key: SigningKey,
    /// The secret that `homeserver register-user` shares with the server.
    pub registration_secret: Secret,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// Makes whatever is missing: the data folder, the signing key, the registration secret and, for a
/// server without a configuration file, a commented sample of one. All of it is on disk when this
/// returns. Blocks: call it before the loop runs.
///
/// # Errors
///
/// If a file cannot be read or made, or is not what it should be.
pub fn prepare(config: &Config, random: FillRandom<'_>) -> Result<Prepared, SecretFileError> {
    secrets::make_data_dir(&config.paths.data_dir)?;
    let signing_key = secrets::signing_key(&config.paths.signing_key, random)?;
    let registration_secret =
        secrets::registration_secret(&config.registration, &config.paths, random)?;
    if config.file.is_none() {
        let path = config.paths.data_dir.join(CONFIG_FILE_NAME);
        if !path.exists() {
            write_sample(&path, config.server_name.as_str())?;
        }
    }
    let files = [&config.paths.signing_key, &config.paths.shared_secret];
    let warnings = files.into_iter().filter_map(|path| secrets::permission_warning(path)).collect();
    Ok(Prepared { signing_key, registration_secret, warnings })
}

/// Writes a sample configuration into a data folder.
///
/// # Errors
///
/// If it cannot be written, or is there already: it is never replaced.
pub fn write_sample(path: &Path, server_name: &str) -> Result<(), SecretFileError> {
    let server_name = toml::Value::String(server_name.to_owned()).to_string();
    let text = sample(&[("server_name", &server_name), ("data_dir", "\".\"")]);
    secrets::write_private_file(path, text.as_bytes())
}

/// Returns the configuration file that a server started without one reads, if it is there.
pub fn file_in(data_dir: &Path) -> Option<PathBuf> {
    let path = data_dir.join(CONFIG_FILE_NAME);
    path.is_file().then_some(path)
}

/// Returns what a start says on the terminal: where clients reach the server, and how to make the
/// first account. `url` is where plain HTTP listens, `program` is what this program was started as.
pub fn welcome(config: &Config, url: &str, program: &str) -> String {
    let option = config.file.as_ref().map_or_else(String::new, |file| {
        match file.parent() == Some(Path::new(super::DEFAULT_DATA_DIR)) {
            // Found without being named; register-user finds it too.
            true => String::new(),
            false => format!(" --config {}", file.display()),
        }
    });
    let mut text = format!("The Matrix homeserver of {} answers at {url}\n", config.server_name);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Its data is in {}", config.paths.data_dir.display());
    let _ = writeln!(
        text,
        "Make an account, in another terminal: {program} register-user{option} --admin alice"
    );
    let _ = writeln!(text, "Then point a Matrix client at {url}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_file_gets_one_to_start_from_that_says_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("homeserver-data");
        let config = Config::without_file(&data_dir);
        let mut random = |buffer: &mut [u8]| buffer.fill(7);
        let first = prepare(&config, &mut random).expect("prepared");
        assert_eq!(first.warnings, Vec::<String>::new());

        let file = file_in(&data_dir).expect("a sample was written");
        let read = Config::load(&file).expect("the sample is fine");
        assert_eq!(read.server_name, config.server_name);
        assert_eq!(read.listen, config.listen);
        assert_eq!(read.registration, config.registration);
        assert_eq!(read.paths.database.canonicalize().ok(), None, "nobody made a database yet");
        let second = prepare(&read, &mut |_| panic!("everything is there")).expect("prepared");
        assert_eq!(first.signing_key.to_line(), second.signing_key.to_line());
        assert_eq!(first.registration_secret, second.registration_secret);
    }

    #[test]
    fn a_configuration_that_is_there_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(CONFIG_FILE_NAME);
        std::fs::write(&path, "mine").expect("written");
        prepare(&Config::without_file(folder.path()), &mut |b| b.fill(7)).expect("prepared");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
        assert!(write_sample(&path, "a").is_err());
    }

    #[test]
    fn the_welcome_says_url_and_next_step() {
        let without = Config::without_file(Path::new(super::super::DEFAULT_DATA_DIR));
        insta::assert_snapshot!(welcome(&without, "http://127.0.0.1:8008", "homeserver"), @r#"
    The Matrix homeserver of localhost answers at http://127.0.0.1:8008
    Its data is in ./homeserver-data
    Make an account, in another terminal: homeserver register-user --admin alice
    Then point a Matrix client at http://127.0.0.1:8008
    "#);
        let with = Config::parse("server_name = \"hs.example\"", Path::new("/etc/hs.toml"));
        insta::assert_snapshot!(welcome(&with.expect("fine"), "http://127.0.0.1:8008", "homeserver"), @r#"
    The Matrix homeserver of hs.example answers at http://127.0.0.1:8008
    Its data is in /etc/homeserver-data
    Make an account, in another terminal: homeserver register-user --config /etc/hs.toml --admin alice
    Then point a Matrix client at http://127.0.0.1:8008
    "#);
    }
}
