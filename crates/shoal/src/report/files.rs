//! Events of the library, of searches of every network, and of files fetched by their own hash.

use std::net::SocketAddr;

use serde::Serialize;

/// What the sources of one kind do for a transfer.
#[derive(Debug, Serialize)]
pub(crate) struct SourceReport {
    /// `bittorrent`, `web`, `gnutella` or `napster`.
    pub(crate) kind: &'static str,
    /// Those known.
    pub(crate) known: usize,
    /// Those connected, or asked.
    pub(crate) at_work: usize,
    /// Those that let us wait.
    pub(crate) queued: usize,
    /// Those that sent wrong bytes.
    pub(crate) banned: usize,
    /// Payload received from them in this run.
    pub(crate) bytes: u64,
    /// Payload received per second.
    pub(crate) rate: u64,
}

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
    /// What a file that is fetched by its hash is.
    FileKnown {
        /// Its name by hash.
        urn: &'a str,
        /// What it will be called.
        name: &'a str,
        /// Its length.
        bytes: u64,
        /// How many pieces.
        pieces: u32,
        /// Bytes in a piece.
        piece_length: u32,
        /// The root of the hash tree by which pieces are checked; null: there is none.
        tree: Option<&'a str>,
    },
    /// Where such a fetch stands; at most four a second, and one last.
    FileProgress {
        /// The file's name by hash.
        urn: &'a str,
        /// Bytes there, and checked as far as they can be.
        bytes_done: u64,
        /// Bytes of the file; zero until it is known.
        bytes_total: u64,
        /// Payload received in this run.
        downloaded: u64,
        /// Received in vain.
        wasted: u64,
        /// Payload received per second.
        rate_down: u64,
        /// Hosts connected.
        sources: usize,
        /// Hosts that made us wait.
        queued: usize,
        /// Hosts known.
        known: usize,
        /// Hosts that sent wrong bytes.
        banned: usize,
        /// Seconds to go at this rate; null while nothing moves.
        eta_s: Option<u64>,
        /// What each kind of source does.
        by_kind: Vec<SourceReport>,
    },
    /// A host has no slot for us yet.
    SourceQueued {
        /// Who.
        addr: SocketAddr,
        /// Our place; null if it does not say.
        position: Option<u32>,
        /// Seconds until it is asked again.
        retry_s: u64,
    },
    /// A host cannot be used, for now or for good.
    SourceFailed {
        /// Who.
        addr: SocketAddr,
        /// Why.
        reason: &'a str,
    },
    /// A host sent wrong bytes, and is asked no more.
    SourceBanned {
        /// Who.
        addr: SocketAddr,
    },
    /// A file that was fetched by its hash is there.
    FileComplete {
        /// Its name by hash.
        urn: &'a str,
        /// Where.
        path: &'a str,
        /// Its length.
        bytes: u64,
        /// From the start of the command.
        seconds: f64,
        /// Payload received in this run.
        downloaded: u64,
    },
    /// Something happened to a source that is asked for ranges: a web seed, a Gnutella host, a Napster
    /// user.
    Source {
        /// Who: a URL, an address, a nick and its hub.
        source: &'a str,
        /// `web`, `gnutella` or `napster`.
        kind: &'static str,
        /// `known`, `queued`, `failed` (it is tried again), `lost` (it is not), `banned` or `gave`
        /// (all is there).
        state: &'static str,
        /// Why; null if nothing went wrong.
        reason: Option<&'a str>,
        /// Our place in its queue; null if it does not say.
        position: Option<u32>,
        /// Seconds until it is asked again; null if it does not make us wait.
        retry_s: Option<u64>,
        /// Bytes a second that came from it of late; null but with `gave`.
        rate_down: Option<u64>,
    },
}
