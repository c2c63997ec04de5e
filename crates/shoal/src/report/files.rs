//! Events of the library, and of searches of every network.

use serde::Serialize;

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum FileReport<'a> {
    /// A folder of the library.
    LibraryFolder {
        /// Where it is.
        path: &'a str,
        /// With whom: `everyone`, `nobody`, or keys.
        with: &'a [String],
        /// Whether files whose names begin with a dot are shared.
        hidden: bool,
        /// Files in it.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// When it was last scanned to its end, in seconds since 1970; null if never.
        scanned: Option<u64>,
        /// Whether it was not there then.
        away: bool,
    },
    /// Whether a stranger finds a file that the library shares.
    Checked {
        /// Where it is, within its folder.
        path: &'a str,
        /// The network that was asked.
        via: &'static str,
        /// Whether it was found.
        found: bool,
        /// How long that took.
        seconds: f64,
    },
    /// How far a scan of the library is; at most four a second.
    Scanning {
        /// Whether all files have been seen.
        walked: bool,
        /// Files seen.
        files: u64,
        /// Files to hash, as far as they were seen.
        files_to_hash: u64,
        /// Files hashed.
        files_hashed: u64,
        /// Bytes to hash, as far as they were seen.
        bytes_to_hash: u64,
        /// Bytes hashed.
        bytes_hashed: u64,
        /// Bytes hashed per second.
        rate: u64,
        /// Seconds to go at this rate; null while files are still being seen.
        eta_s: Option<u64>,
    },
    /// Something in a folder of the library that is not shared.
    NotShared {
        /// Where it is.
        path: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A scan of the library is over.
    Scanned {
        /// Files seen.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Files as they were.
        unchanged: u64,
        /// Files that were elsewhere, and were not hashed again.
        moved: u64,
        /// Files hashed.
        hashed: u64,
        /// Their bytes.
        bytes_hashed: u64,
        /// Files that are gone.
        removed: u64,
        /// What is not shared.
        not_shared: u64,
        /// How long it took.
        seconds: f64,
        /// Whether it came to its end.
        complete: bool,
    },
    /// A file of the library.
    LibraryFile {
        /// Where it is.
        path: &'a str,
        /// Its length.
        bytes: u64,
        /// What it is called by SHA-1 and Tiger tree.
        urn: &'a str,
        /// The v2 root of BitTorrent; null if empty, or not asked for.
        pieces_root: Option<&'a str>,
    },
    /// A search of every network hears that somebody has a file; as it comes.
    Heard {
        /// The number of the result that it belongs to, in the order of coming, from 0.
        result: usize,
        /// The network.
        via: &'a str,
        /// The name or path as its sharer tells it.
        file: &'a str,
        /// Its length as its sharer tells it.
        bytes: u64,
        /// Who.
        sharer: &'a str,
        /// What names its content, if its sharer said.
        urn: Option<&'a str>,
    },
    /// A content that a search of every network found; the best first.
    Found {
        /// Its number in the list, from 1.
        n: usize,
        /// Its number in `heard`.
        result: usize,
        /// What most of its sharers call it, without folders.
        name: &'a str,
        /// The path as the nearest of its sharers tells it.
        file: &'a str,
        /// Its length as most of its sharers tell it.
        bytes: u64,
        /// Kilobits a second; zero if unknown.
        bitrate: u32,
        /// The networks that it was found by.
        via: &'a [&'a str],
        /// How many different sharers have it.
        sharers: usize,
        /// The nearest of them.
        sharer: &'a str,
        /// What names its content; null if no sharer told a hash.
        urn: Option<&'a str>,
        /// How long the nearest sharer took to answer; null if that was not measured.
        ping_ms: Option<f64>,
        /// What the order follows: higher is better.
        score: f64,
        /// What its sharers disagree about.
        doubts: &'a [String],
        /// What `shoal fetch` takes: a magnet link that names its hashes and who has it.
        link: &'a str,
    },
}
