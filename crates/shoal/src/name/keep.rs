//! What is kept of a name of ours: its key, the recovery key until it is moved away, its certificate.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use shoal_base::id::from_hex;
use shoal_store::snapshot;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::fold::fold;
use shoal_supernode::token::Key;

use crate::cli::JoinFlags;
use crate::failure::{Failure, Outcome};
use crate::supernode::{own_key, trust};
use crate::{key, state};

/// Bytes of a kept certificate at most.
const MAX_CERTIFICATE: u64 = 4096;

/// A name of ours. Nobody else uses its key while this is there.
pub(crate) struct Own {
    dir: PathBuf,
    name: String,
    key: SigningKey,
    _lock: File,
}

/// The key of a login server, as it was named or believed before.
pub(super) fn known(dir: &Path, join: &JoinFlags) -> Outcome<Key> {
    if let Some(by) = join.trust {
        return Ok(by);
    }
    let text = fs::read_to_string(trusted(dir)).unwrap_or_default();
    let login = join.login.clone().unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let (server, key) = line.split_once(' ')?;
        (server == login).then(|| from_hex(key).ok())?
    });
    found.ok_or_else(|| {
        Failure::usage("the key of the login server is not known")
            .hint("name it with --trust; shoal serve login prints it, and a claim remembers it")
    })
}

/// The folder of all names.
pub(super) fn folder(state_dir: Option<&Path>) -> PathBuf {
    state::base(state_dir, Path::new(".")).join("names")
}

/// Where the keys of login servers are kept.
pub(super) fn trusted(folder: &Path) -> PathBuf {
    folder.join("trusted")
}

impl Own {
    /// What is kept of `name`; its key is made if need be.
    pub(crate) fn of(name: &str, state_dir: Option<&Path>) -> Outcome<Self> {
        // Spellings of one name share a folder, and none is a path of its own kind.
        let dir = folder(state_dir).join(format!("of-{}", fold(name)));
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir);
        made.map_err(|e| Failure::io("create the folder", &dir, &e))?;
        let path = dir.join("key");
        let (key, lock) = own_key(&path)?.ok_or_else(|| {
            Failure::failed(format!("{} is in use", path.display()))
                .reason("another command runs under this name")
                .hint("shoal answer and shoal phone take calls and texts, and write: --chat")
        })?;
        Ok(Self {
            dir,
            name: name.to_owned(),
            key,
            _lock: lock,
        })
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its key.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The folder of what is kept.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The last certificate.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        let kept = snapshot::load(&self.dir.join("certificate"), MAX_CERTIFICATE);
        Certificate::from_bytes(&kept.ok()??)
    }

    /// The login server's key, as it was named or believed before.
    pub(super) fn known(&self, join: &JoinFlags) -> Outcome<Key> {
        known(self.dir.parent().unwrap_or(&self.dir), join)
    }

    /// Where the recovery key is made.
    pub(super) fn recovery_path(&self) -> PathBuf {
        self.dir.join("recovery")
    }

    /// The key that shall have the name next; the same until it has it.
    pub(super) fn next_key(&self) -> Outcome<SigningKey> {
        key::load_or_make(&self.dir.join("next"))
    }

    /// The next key has the name: it is the key from now on.
    pub(super) fn take_next(&self, certificate: &Certificate) -> Outcome {
        let (from, to) = (self.dir.join("next"), self.dir.join("key"));
        fs::rename(&from, &to).map_err(|e| Failure::io("rename", &from, &e))?;
        self.keep(certificate)
    }

    /// Keeps a certificate, for who looks.
    pub(super) fn keep(&self, certificate: &Certificate) -> Outcome {
        let path = self.dir.join("certificate");
        snapshot::save(&path, &certificate.to_bytes()).map_err(|e| Failure::io("write", &path, &e))
    }

    /// Believes a login server's key if it is the one named, or the one that it had before.
    pub(super) fn trust(&self, join: &JoinFlags, login: SocketAddr, by: Key) -> Outcome {
        let folder = self.dir.parent().unwrap_or(&self.dir);
        trust(join, login, by, &trusted(folder)).map(drop)
    }
}

/// The folders of all names of ours.
pub(super) fn folders(state_dir: Option<&Path>) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(state_dir));
    let entries = entries.into_iter().flatten().flatten();
    let of_names = entries.filter(|e| e.file_name().to_string_lossy().starts_with("of-"));
    let mut found: Vec<_> = of_names.map(|e| e.path()).collect();
    found.sort();
    found
}

/// The keys of all names of ours.
pub(super) fn own_keys(state_dir: Option<&Path>) -> Vec<(String, Key)> {
    let mut found = Vec::new();
    for dir in folders(state_dir) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let path = dir.join("key");
        if let Some(name) = name.strip_prefix("of-")
            && path.exists()
            && let Ok(key) = key::load_or_make(&path)
        {
            found.push((name.to_owned(), key.verifying_key().to_bytes()));
        }
    }
    found
}
