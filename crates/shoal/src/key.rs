//! Files that hold a secret key: 64 hexadecimal digits, readable by their owner alone.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use shoal_base::id::{from_hex, to_hex};

use crate::failure::{Failure, Outcome};

/// Fills `bytes` from the system's generator.
pub(crate) fn random(bytes: &mut [u8]) -> Outcome {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Failure::failed("the system gives no random numbers").because(&e))?;
    }
    Ok(())
}

/// The key in the file at `path`; a fresh one, stored there, if there is no such file.
pub(crate) fn load_or_make(path: &Path) -> Outcome<SigningKey> {
    let mut secret = [0; 32];
    random(&mut secret)?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(mut file) => {
            let line = to_hex(&secret) + "\n";
            file.write_all(line.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|e| Failure::io("write", path, &e))?;
            Ok(SigningKey::from_bytes(&secret))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => load(path),
        Err(e) => Err(Failure::io("make", path, &e)),
    }
}

fn load(path: &Path) -> Outcome<SigningKey> {
    let mut text = String::new();
    let file = OpenOptions::new().read(true).open(path);
    file.and_then(|file| file.take(1024).read_to_string(&mut text))
        .map_err(|e| Failure::io("read", path, &e))?;
    match from_hex(text.trim()) {
        Ok(secret) => Ok(SigningKey::from_bytes(&secret)),
        Err(_) => Err(Failure::failed(format!("{} holds no key", path.display()))
            .hint("64 hexadecimal digits; a missing file is made")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("me.key");
        let made = load_or_make(&path).expect("made");
        assert_eq!(
            load_or_make(&path).expect("read").to_bytes(),
            made.to_bytes()
        );
        let mode = path.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "junk").expect("written");
        assert!(load_or_make(&path).is_err());
    }
}
