//! Evidence of two logs of names by one login server, as it is kept beside a name's key.

use std::io;
use std::path::{Path, PathBuf};

use shoal_call::chat::Fork;
use shoal_store::snapshot;
use shoal_supernode::token::Key;
use shoal_supernode::wire;

/// Forks kept at most: one is enough to convict, and others come of the same lie.
const MAX_FORKS: usize = 16;
/// Bytes of the file at most.
const MAX_BYTES: u64 = 16 << 10;

/// Where they are kept, in the folder of a name.
pub fn forks_path(dir: &Path) -> PathBuf {
    dir.join("forks")
}

/// What is kept in the folder of a name against `server`: heads that it signed.
///
/// # Errors
/// The file cannot be read.
pub fn kept_forks(dir: &Path, server: &Key) -> io::Result<Vec<Fork>> {
    let bytes = snapshot::load(&forks_path(dir), MAX_BYTES)?.unwrap_or_default();
    let (mut rest, mut forks) = (bytes.as_slice(), Vec::new());
    while let Ok(Some((fork, used))) = wire::decode::<Fork>(rest) {
        forks.push(fork);
        rest = rest.get(used..).unwrap_or_default();
    }
    forks.retain(|fork| fork.is_by(server));
    Ok(forks)
}

/// Keeps one more, if that says anything new.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn keep(dir: &Path, server: &Key, fork: &Fork) -> io::Result<()> {
    let mut forks = kept_forks(dir, server)?;
    let heads = |f: &Fork| (f.theirs.root, f.theirs.size);
    let known = forks.iter().any(|f| heads(f) == heads(fork));
    if known || forks.len() >= MAX_FORKS || !fork.is_by(server) {
        return Ok(());
    }
    forks.push(fork.clone());
    let mut bytes = Vec::new();
    forks.iter().for_each(|fork| wire::encode(fork, &mut bytes));
    snapshot::save(&forks_path(dir), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use shoal_supernode::names::log::Head;

    #[test]
    fn what_the_login_server_signed_is_kept_once_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let key = SigningKey::from_bytes(&[1; 32]);
        let server = key.verifying_key().to_bytes();
        let fork = |by: &SigningKey, root| Fork {
            with: "bob".into(),
            theirs: Head::sign(by, 5, [root; 32], 9),
            ours: Head::sign(&key, 5, [0; 32], 9),
        };
        assert_eq!(kept_forks(dir.path(), &server).expect("read"), []);
        let forged = fork(&SigningKey::from_bytes(&[2; 32]), 1);
        for one in [&fork(&key, 1), &fork(&key, 1), &forged, &fork(&key, 0)] {
            keep(dir.path(), &server, one).expect("kept");
        }
        assert_eq!(
            kept_forks(dir.path(), &server).expect("read"),
            [fork(&key, 1)]
        );
        for root in 0..40 {
            keep(dir.path(), &server, &fork(&key, root)).expect("kept");
        }
        let kept = kept_forks(dir.path(), &server).expect("read");
        assert_eq!(kept.len(), MAX_FORKS);
        // Of another login server none is told.
        assert_eq!(kept_forks(dir.path(), &[3; 32]).expect("read"), []);
        let path = forks_path(dir.path());
        std::fs::write(&path, [7; 99]).expect("written");
        assert_eq!(kept_forks(dir.path(), &server).expect("read"), []);
    }
}
