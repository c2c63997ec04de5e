//! Events of names, presence and chat.

use serde::Serialize;

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum PeopleReport<'a> {
    /// A name is a key's, until then.
    Certified {
        /// The name, as it was first spelled.
        name: &'a str,
        /// In hexadecimal digits.
        key: &'a str,
        /// Changes of its keys before.
        generation: u32,
        /// The entry of the public log.
        entry: u64,
        /// In Unix seconds.
        expires: u64,
    },
    /// An entry of the public log of names.
    LogEntry {
        /// Its number, from 0.
        entry: u64,
        /// The name.
        name: &'a str,
        /// The key that had it from then on.
        key: &'a str,
        /// The recovery key; null: none.
        recovery: Option<&'a str>,
        /// Changes of its keys before.
        generation: u32,
        /// In Unix seconds.
        unix: u64,
        /// `claimed`, or by which key: `key` or `recovery`.
        how: &'a str,
    },
    /// The log holds together, with the root that the login server signed.
    LogHead {
        /// Entries.
        size: u64,
        /// The tree's root, in hexadecimal digits.
        root: &'a str,
        /// When it was signed, in Unix seconds.
        unix: u64,
        /// Names that are somebody's.
        names: u64,
        /// Whether all names of ours are ours.
        ours: bool,
    },
}
