//! [`SpkiPin`]: one key, whoever vouches for it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{self, SHA256};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

use super::TlsError;

/// The SHA-256 hash of a certificate's public key (its `SubjectPublicKeyInfo`), by which a peer is
/// known whatever its certificate says besides.
///
/// It is written as `sha256//` and base64, as curl does; reading takes the hash alone, in either
/// alphabet of base64, with or without padding, or in hexadecimal, too.
///
/// ```
/// use ropewalk::tls::SpkiPin;
///
/// let pin: SpkiPin = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU".parse()?;
/// assert_eq!(pin.to_string(), "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
/// # Ok::<(), ropewalk::tls::PinError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SpkiPin([u8; HASH_BYTES]);

impl SpkiPin {
    /// Makes a pin of a hash.
    #[must_use]
    pub const fn new(hash: [u8; HASH_BYTES]) -> SpkiPin {
        SpkiPin(hash)
    }

    /// Makes the pin of a certificate's key.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`] if that is no certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<SpkiPin, TlsError> {
        let parsed = ParsedCertificate::try_from(certificate).map_err(TlsError::Unusable)?;
        Ok(SpkiPin::of_key(&parsed.subject_public_key_info()))
    }

    /// Makes the pin of a public key, given as the DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of_key(subject_public_key_info: &[u8]) -> SpkiPin {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(digest::digest(&SHA256, subject_public_key_info).as_ref());
        SpkiPin(hash)
    }

    /// Returns the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// Compares in a time that tells nothing of where they differ.
    #[must_use]
    pub fn matches(&self, other: &SpkiPin) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// The text is no pin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{text:?} is no pin; it should be the SHA-256 of a public key in base64 or hexadecimal, such as \
     \"sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\""
)]
pub struct PinError {
    /// What was to be read, or its beginning.
    pub text: String,
}

impl FromStr for SpkiPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<SpkiPin, PinError> {
        let hash = text.strip_prefix(PREFIX).unwrap_or(text);
        let hash = if hash.len() == 2 * HASH_BYTES { from_hex(hash) } else { from_base64(hash) };
        let shortened = || text.chars().take(TEXT_CHARS_MAX).collect();
        hash.map(SpkiPin).ok_or_else(|| PinError { text: shortened() })
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(44);
        for group in self.0.chunks(3) {
            let mut bits = 0u32;
            for index in 0..3 {
                bits = bits << 8 | u32::from(group.get(index).copied().unwrap_or(0));
            }
            for index in 0..=group.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]));
            }
        }
        write!(f, "{PREFIX}{text}=")
    }
}

fn from_hex(text: &str) -> Option<[u8; HASH_BYTES]> {
    let mut hash = [0; HASH_BYTES];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        // The parser would take a sign, too.
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
    }
    Some(hash)
}

/// Thirty-two bytes are 43 letters, the last of which carries four bits, and one of padding.
fn from_base64(text: &str) -> Option<[u8; HASH_BYTES]> {
    let letters = text.strip_suffix('=').unwrap_or(text).as_bytes();
    if letters.len() != 43 {
        return None;
    }
    let mut hash = [0; HASH_BYTES];
    let mut filled = 0;
    let (mut bits, mut bit_count) = (0u32, 0);
    for &letter in letters {
        let letter = match letter {
            b'-' => b'+',
            b'_' => b'/',
            letter => letter,
        };
        let value = ALPHABET.iter().position(|&known| known == letter)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            *hash.get_mut(filled)? = (bits >> bit_count) as u8;
            filled += 1;
            bits &= (1 << bit_count) - 1;
        }
    }
    // One text for each hash: the bits that carry nothing have to be zero.
    (bits == 0).then_some(hash)
}

const HASH_BYTES: usize = 32;
const PREFIX: &str = "sha256//";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What an error shows of a text that may be anything: a little more than the longest pin.
const TEXT_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn the_hash_of_nothing_has_its_well_known_forms() {
        let pin = SpkiPin::of_key(b"");
        assert_eq!(pin.to_string(), format!("sha256//{EMPTY}"));
        for text in [
            EMPTY,
            "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        ] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
    }

    #[test]
    fn what_is_no_pin_says_what_one_is() {
        for (why, text) in [
            ("nothing", ""),
            ("too short", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF"),
            ("bits beyond the hash", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV="),
            ("another letter", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSu*U="),
            ("a sign", "+3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("beyond ASCII", "é3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85"),
        ] {
            let error = text.parse::<SpkiPin>().expect_err(why);
            assert!(error.to_string().contains("in base64 or hexadecimal"), "{why}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(hash: [u8; 32]) {
            let pin = SpkiPin::new(hash);
            prop_assert_eq!(pin.to_string().parse(), Ok(pin));
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(hex.parse(), Ok(pin));
        }

        #[test]
        fn anything_can_be_read(text in "\\PC{40,70}") {
            let _ = text.parse::<SpkiPin>();
        }
    }
}
