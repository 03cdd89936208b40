//! The key that signs, in the shape that ruma asks to sign with.
//!
//! ruma's own pair would do; this one signs with aws-lc, which the server has anyway, in half the time
//! (10 us against 20 us, and a signature was half of what an event cost the writer). Ed25519 signatures
//! are a function of key and message, so both make the same; a test holds them against each other.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use ruma::signatures::{KeyPair, Signature};
use ruma::{AnyKeyName, OwnedSigningKeyId, SigningKeyId};

/// A key cannot be used for signing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the signing key ed25519:{version} cannot be used; restore its file from a backup")]
pub struct UnusableKey {
    /// What stands behind `ed25519:` in its id.
    pub version: String,
}

/// An Ed25519 key with the id that its signatures go under.
pub struct SigningKeyPair {
    pair: Ed25519KeyPair,
    key_id: OwnedSigningKeyId<AnyKeyName>,
}

impl SigningKeyPair {
    /// Makes the pair out of the secret seed; `version` is what stands behind `ed25519:` in its id.
    ///
    /// # Errors
    ///
    /// [`UnusableKey`] if there is no such key, or the version cannot be part of an id.
    pub fn new(version: &str, seed: &[u8; 32]) -> Result<Self, UnusableKey> {
        let unusable = || UnusableKey { version: version.to_owned() };
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| unusable())?;
        let key_id = SigningKeyId::parse(format!("ed25519:{version}")).map_err(|_| unusable())?;
        Ok(Self { pair, key_id })
    }

    /// Returns the key's id, such as `ed25519:a_abcd`.
    pub fn key_id(&self) -> &str {
        self.key_id.as_str()
    }

    /// Returns the public half of the key, 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

impl KeyPair for SigningKeyPair {
    fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.key_id.clone(), self.pair.sign(message).as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_ruma_s_own_pair() {
        let ed25519 = pkcs8::ObjectIdentifier::new_unwrap("1.3.101.112");
        let seed = [7; 32];
        let theirs =
            ruma::signatures::Ed25519KeyPair::new(ed25519, &seed, None, "a_1".to_owned()).unwrap();
        let ours = SigningKeyPair::new("a_1", &seed).unwrap();
        assert_eq!(ours.public_key(), theirs.public_key());
        for message in [&b""[..], b"x", &[0xff; 1000]] {
            assert_eq!(ours.sign(message), theirs.sign(message));
        }
    }
}
