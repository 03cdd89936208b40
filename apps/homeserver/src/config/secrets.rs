//! The files that only the server may read: the signing key and the registration secret.
//!
//! A file that is made here is complete, synced (file and folder) and of mode 0600 before it has
//! its name, and never replaces another: of two processes that start at once, both end up with the
//! same key.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::{Paths, Registration, Secret};

/// Fills a buffer with random bytes; `Reactor::random_bytes` is one.
pub type FillRandom<'r> = &'r mut dyn FnMut(&mut [u8]);

/// Why a secret file could not be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// The registration secret file is there, but empty.
    #[error("{} is empty; write the secret into it, or remove it to have a new one made", path.display())]
    EmptySecret {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The signing key file does not hold a signing key.
    #[error(
        "{}:{line}: not a signing key; a line reads `ed25519 a_abcd` and 43 letters of base64; restore the file from \
         a backup, because other servers know this one by its key", path.display()
    )]
    NotASigningKey {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

/// The key that signs this server's events, in Synapse's format: `ed25519 <version> <seed in
/// base64>`.
#[derive(Clone)]
pub struct SigningKey {
    version: String,
    seed: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Other software pads its base64 or not; both are read.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl SigningKey {
    /// Makes a new key.
    pub fn generate(random: FillRandom<'_>) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        random(seed.as_mut());
        Self { version: format!("a_{}", random_letters(4, random).as_str()), seed }
    }

    /// Reads one line of a key file; `None` if it is not a key.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (algorithm, version, seed) = (words.next()?, words.next()?, words.next()?);
        let is_version = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if algorithm != "ed25519" || words.next().is_some() || !version.bytes().all(is_version) {
            return None;
        }
        let decoded = Zeroizing::new(LENIENT.decode(seed).ok()?);
        let seed = Zeroizing::new(<[u8; 32]>::try_from(decoded.as_slice()).ok()?);
        Some(Self { version: version.to_owned(), seed })
    }

    /// Returns the line of the key file, with its line break.
    pub fn to_line(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(STANDARD_NO_PAD.encode(*self.seed));
        Zeroizing::new(format!("ed25519 {} {}\n", self.version, *seed))
    }

    /// Returns what stands behind `ed25519:` in the key's id.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the secret half of the key. It does not leave the process.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

/// Reads the signing key, or makes it if there is none yet. A file can hold several; the first one
/// signs.
///
/// # Errors
///
/// If the file cannot be read or made, or holds something else: it is never replaced.
pub fn signing_key(path: &Path, random: FillRandom<'_>) -> Result<SigningKey, SecretFileError> {
    let text = read_or_make(path, || SigningKey::generate(random).to_line())?;
    let wrong = |line| SecretFileError::NotASigningKey { path: path.to_owned(), line };
    let mut first = None;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let key = SigningKey::parse(line).ok_or_else(|| wrong(index + 1))?;
        first.get_or_insert(key);
    }
    first.ok_or_else(|| wrong(1))
}

/// Returns the registration secret: from the configuration, from the file it names, or from
/// `data_dir`, where it is made if there is none yet.
///
/// # Errors
///
/// If a file cannot be read or made, or is empty.
pub fn registration_secret(
    registration: &Registration,
    paths: &Paths,
    random: FillRandom<'_>,
) -> Result<Secret, SecretFileError> {
    if let Some(secret) = existing_registration_secret(registration, paths)? {
        return Ok(secret);
    }
    let make = || {
        let mut line = random_letters(48, random);
        line.push('\n');
        line
    };
    let path = &paths.shared_secret;
    secret_in(path, &read_or_make(path, make)?)
}

/// Returns the registration secret if there is one, without making it: for tools beside the server.
///
/// # Errors
///
/// If a file cannot be read, or is empty.
pub fn existing_registration_secret(
    registration: &Registration,
    paths: &Paths,
) -> Result<Option<Secret>, SecretFileError> {
    if let Some(secret) = &registration.shared_secret {
        return Ok(Some(secret.clone()));
    }
    let named = registration.shared_secret_file.as_ref();
    let path = named.unwrap_or(&paths.shared_secret);
    match fs::read_to_string(path) {
        Ok(text) => secret_in(path, &Zeroizing::new(text)).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn secret_in(path: &Path, text: &str) -> Result<Secret, SecretFileError> {
    match text.trim() {
        "" => Err(SecretFileError::EmptySecret { path: path.to_owned() }),
        secret => Ok(Secret::new(secret.to_owned())),
    }
}

/// Makes the folder for the server's data, readable by nobody else, and syncs the folder it is in.
///
/// # Errors
///
/// If the system refuses, for example because a file is in the way.
pub fn make_data_dir(path: &Path) -> Result<(), SecretFileError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))?;
    sync_folder_of(path)
}

/// Returns a sentence for the log if others than the owner can read the file.
pub fn permission_warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "{} can be read by others (mode {:03o}); take that away with `chmod 600 {0}`",
            path.display(),
            mode & 0o777
        )
    })
}

/// Writes a new file that only its owner can read: complete and on disk before it has its name.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] inside [`SecretFileError::Io`] if `path` is there already: it
/// is left alone.
pub fn write_private_file(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    write_new_file(path, content).map_err(failed("write", path))?;
    sync_folder_of(path)
}

fn write_new_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // One of an earlier process of this number that did not get to its end.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike a rename, a link does not replace what another process made meanwhile.
        fs::hard_link(&temporary, path)
    })();
    let removed = fs::remove_file(&temporary);
    written.and(removed)
}

fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Zeroizing<String>,
) -> Result<Zeroizing<String>, SecretFileError> {
    let read = || fs::read_to_string(path).map(Zeroizing::new);
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result.map_err(failed("read", path)),
    }
    match write_private_file(path, make().as_bytes()) {
        Err(SecretFileError::Io { source, .. })
            if source.kind() == io::ErrorKind::AlreadyExists =>
        {
            // Another process was faster; it may not have synced the folder yet.
            sync_folder_of(path)?;
        }
        result => result?,
    }
    read().map_err(failed("read", path))
}

fn sync_folder_of(path: &Path) -> Result<(), SecretFileError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

fn failed<'p>(
    action: &'static str,
    path: &'p Path,
) -> impl FnOnce(io::Error) -> SecretFileError + use<'p> {
    move |source| SecretFileError::Io { action, path: path.to_owned(), source }
}

/// Returns `count` random letters of both cases, each equally likely.
pub fn random_letters(count: usize, random: FillRandom<'_>) -> Zeroizing<String> {
    const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // The largest multiple of 52 in a byte: bytes from there on would favour the first letters.
    const FAIR_BELOW: u8 = 208;
    let mut text = Zeroizing::new(String::with_capacity(count));
    let mut bytes = Zeroizing::new([0u8; 64]);
    while text.len() < count {
        random(bytes.as_mut());
        let missing = count - text.len();
        let letters = bytes.iter().filter(|byte| **byte < FAIR_BELOW).take(missing);
        text.extend(letters.map(|byte| char::from(LETTERS[usize::from(byte % 52)])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn counting() -> impl FnMut(&mut [u8]) {
        let mut next = 0u8;
        move |buffer| {
            for byte in buffer {
                *byte = next;
                next = next.wrapping_add(1);
            }
        }
    }

    #[test]
    fn synapse_key_lines_are_read_and_written() {
        let seed = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        for (why, line, version) in [
            ("as Synapse writes it", format!("ed25519 a_RXGa {seed}"), Some("a_RXGa")),
            ("padded", format!("ed25519 a_RXGa {seed}="), Some("a_RXGa")),
            ("old plain version", format!("ed25519 auto {seed}"), Some("auto")),
            ("another algorithm", format!("curve25519 a_RXGa {seed}"), None),
            ("a colon in the version", format!("ed25519 a:b {seed}"), None),
            ("a short seed", "ed25519 a_RXGa AAEC".to_owned(), None),
            ("not base64", format!("ed25519 a_RXGa {}", seed.replace('A', "!")), None),
            ("a word too many", format!("ed25519 a_RXGa {seed} {seed}"), None),
            ("no seed", "ed25519 a_RXGa".to_owned(), None),
            ("nothing", String::new(), None),
        ] {
            let key = SigningKey::parse(&line);
            assert_eq!(key.as_ref().map(SigningKey::version), version, "{why}: {line}");
            if let Some(key) = key {
                let written = key.to_line();
                assert_eq!(written.trim_end().trim_end_matches('='), line.trim_end_matches('='));
                assert!(!format!("{key:?}").contains(seed), "the seed shows in Debug");
            }
        }
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_only_and_read_from_then_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("signing.key");
        let made = signing_key(&path, &mut counting()).expect("made");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = signing_key(&path, &mut |_| panic!("must not make another")).expect("read");
        assert_eq!(made.to_line(), read.to_line());
        let names: Vec<_> = fs::read_dir(folder.path()).expect("readable").collect();
        assert_eq!(names.len(), 1, "no temporary file is left");
        assert_eq!(permission_warning(&path), None);
    }

    #[test]
    fn a_broken_key_file_is_an_error_and_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("signing.key");
        for (content, line) in [("", 1), ("\n\ned25519 a", 3), ("rubbish", 1)] {
            fs::write(&path, content).expect("written");
            let error = signing_key(&path, &mut counting()).expect_err("broken");
            assert!(
                matches!(error, SecretFileError::NotASigningKey { line: got, .. } if got == line),
                "{content:?}: {error}"
            );
            assert_eq!(fs::read_to_string(&path).expect("there"), content);
        }
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        write_private_file(&path, b"first").expect("new");
        let error = write_private_file(&path, b"second").expect_err("there already");
        assert!(
            matches!(&error, SecretFileError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(fs::read(&path).expect("there"), b"first");
    }

    #[test]
    fn a_temporary_file_of_a_crashed_process_is_in_nobodys_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let left_over = folder.path().join(format!("secret.{}.tmp", std::process::id()));
        fs::write(&left_over, "half").expect("written");
        write_private_file(&path, b"whole").expect("new");
        assert_eq!(fs::read(&path).expect("there"), b"whole");
        assert!(!left_over.exists());
    }

    #[test]
    fn the_registration_secret_comes_from_the_configuration_a_named_file_or_the_data_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::without_file(folder.path());
        let read = |config: &Config| {
            registration_secret(&config.registration, &config.paths, &mut counting())
        };
        assert_eq!(
            existing_registration_secret(&config.registration, &config.paths).expect("none yet"),
            None
        );
        let made = read(&config).expect("made");
        assert_eq!(made.expose().len(), 48);
        assert_eq!(read(&config).expect("read"), made);

        config.registration.shared_secret_file = Some(folder.path().join("named"));
        assert!(read(&config).is_err(), "a named file that is missing is not made");
        fs::write(folder.path().join("named"), " from a file \n").expect("written");
        assert_eq!(read(&config).expect("read").expose(), "from a file");
        fs::write(folder.path().join("named"), "\n").expect("written");
        assert!(matches!(read(&config), Err(SecretFileError::EmptySecret { .. })));

        config.registration.shared_secret = Some(Secret::new("inline".to_owned()));
        assert_eq!(read(&config).expect("inline").expose(), "inline");
    }

    #[test]
    fn random_letters_are_letters_and_fair() {
        let mut constant = 0u8;
        let mut random = |buffer: &mut [u8]| {
            for byte in buffer {
                *byte = constant;
                constant = constant.wrapping_add(1);
            }
        };
        let text = random_letters(208 * 4, &mut random);
        for letter in ('a'..='z').chain('A'..='Z') {
            assert_eq!(text.matches(letter).count(), 16, "{letter}");
        }
    }

    #[test]
    fn the_data_folder_is_for_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b");
        make_data_dir(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        make_data_dir(&path).expect("there already");
        fs::write(folder.path().join("file"), "").expect("written");
        assert!(make_data_dir(&folder.path().join("file")).is_err());
    }
}
