//! The file of info-hashes to allow or deny, read again when it changes.

use super::{Config, ServerError};
use shoal_bittorrent::tracker::AccessList;
use shoal_bittorrent::tracker::access::{ListError, parse_list};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// Why a list could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the list of torrents {path}")]
pub struct ListFileError {
    path: PathBuf,
    source: ListFileCause,
}

#[derive(Debug, thiserror::Error)]
enum ListFileCause {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Content(#[from] ListError),
}

/// What tells one version of a file from the next.
type Version = (Option<SystemTime>, u64);

#[derive(Debug)]
struct Source {
    path: PathBuf,
    allow: bool,
    seen: Mutex<Option<Version>>,
}

/// The list in force.
#[derive(Debug, Default)]
pub(super) struct Lists {
    source: Option<Source>,
    current: RwLock<Arc<AccessList>>,
}

impl Lists {
    pub(super) fn open(config: &Config) -> Result<Self, ServerError> {
        let (path, allow) = match (&config.allow, &config.deny) {
            (Some(_), Some(_)) => return Err(ServerError::TwoLists),
            (Some(path), None) => (path, true),
            (None, Some(path)) => (path, false),
            (None, None) => return Ok(Self::default()),
        };
        let lists = Self {
            source: Some(Source {
                path: path.clone(),
                allow,
                seen: Mutex::default(),
            }),
            current: RwLock::default(),
        };
        lists.reload()?;
        Ok(lists)
    }

    /// Whether there is a list at all.
    pub(super) fn is_open(&self) -> bool {
        self.source.is_none()
    }

    pub(super) fn current(&self) -> Arc<AccessList> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn reload(&self) -> Result<(), ListFileError> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let wrap = |cause| ListFileError {
            path: source.path.clone(),
            source: cause,
        };
        // Noted before reading: a change in between is then seen next time.
        *source.seen.lock().unwrap_or_else(PoisonError::into_inner) = source.version();
        let text = fs::read_to_string(&source.path).map_err(|e| wrap(e.into()))?;
        let list = parse_list(&text).map_err(|e| wrap(e.into()))?;
        let list = if source.allow {
            AccessList::Allow(list)
        } else {
            AccessList::Deny(list)
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
        Ok(())
    }

    /// Reads the file again if it is not the one seen last.
    pub(super) fn reload_if_changed(&self) {
        let Some(source) = &self.source else { return };
        let seen = *source.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if source.version() == seen {
            return;
        }
        match self.reload() {
            Ok(()) => tracing::info!(path = %source.path.display(), "list of torrents reloaded"),
            Err(error) => tracing::error!(
                path = %source.path.display(),
                error = &error as &dyn std::error::Error,
                "the old list of torrents stays in force"
            ),
        }
    }
}

impl Source {
    fn version(&self) -> Option<Version> {
        let meta = fs::metadata(&self.path).ok()?;
        Some((meta.modified().ok(), meta.len()))
    }
}
