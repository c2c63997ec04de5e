//! Hashing of passwords: Argon2id with the parameters that its authors recommend.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};

/// A hash of a password with a salt of its own, in the usual text form; none if the salt is bad.
pub(super) fn hash(password: &[u8], salt: &[u8; 16]) -> Option<Vec<u8>> {
    let salt = SaltString::encode_b64(salt).ok()?;
    let hash = Argon2::default().hash_password(password, &salt).ok()?;
    Some(hash.to_string().into_bytes())
}

/// Whether a password is the one that was hashed.
pub(super) fn verify(password: &[u8], hash: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(hash) else {
        return false;
    };
    let parsed = PasswordHash::new(text);
    parsed.is_ok_and(|h| Argon2::default().verify_password(password, &h).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash() {
        let text = hash(b"secret", &[7; 16]).expect("hashed");
        assert!(text.starts_with(b"$argon2id$"));
        assert!(verify(b"secret", &text));
        assert!(!verify(b"Secret", &text));
        assert!(!verify(b"secret", b"secret"));
        assert_ne!(hash(b"secret", &[8; 16]), Some(text));
    }
}
