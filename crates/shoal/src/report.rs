//! The JSON contract: one object a line on stdout, told apart by `event`.
//!
//! Programs rely on these names; add fields and events freely, never rename. Sizes are bytes,
//! rates bytes per second, durations seconds, hashes lower-case hexadecimal digits.

mod call;
mod files;
mod hub;
mod overlay;
mod people;
mod reach;
mod turn;

pub(crate) use call::{CallReport, CardFigures, SoundFigures, leg, via, whose};
pub(crate) use files::{FileReport, SourceReport};
pub(crate) use hub::HubReport;
pub(crate) use overlay::OverlayReport;
pub(crate) use people::PeopleReport;
pub(crate) use reach::{ReachReport, RouterReport};
pub(crate) use turn::RelayReport;

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use serde::Serialize;

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report<'a> {
    /// Peers can connect here.
    Listening {
        /// The bound address, with the port the system chose.
        addr: SocketAddr,
        /// `tcp`, or `http` and `udp` for a tracker; `napster` for a hub; `turn` for a relay; `gnutella` for
        /// a node of it; `supernode` for one of that overlay, `login` and `supernodes` for its
        /// servers; `udp` for a node of the DHT; `ring` for the
        /// datagrams of a ring that a transfer takes part in; `router` where the router of this network lets
        /// peers through to a transfer.
        proto: &'static str,
    },
    /// A master takes strangers as workers.
    TakesStrangers {
        /// Where, with the key that it proves to them.
        master: &'a str,
    },
    /// A worker is a stranger to its master.
    WorkerKey {
        /// Its public key, in hexadecimal digits.
        key: &'a str,
    },
    /// What a worker received and sent of the content that jobs read.
    Content {
        /// Payload bytes received from peers.
        downloaded: u64,
        /// Payload bytes sent to peers.
        uploaded: u64,
    },
    /// Files are being hashed, to share or to verify them.
    Hashing {
        /// Bytes hashed.
        bytes_done: u64,
        /// Bytes to hash.
        bytes_total: u64,
    },
    /// A link to what is shared.
    Magnet {
        /// The link.
        magnet: &'a str,
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// What it is called.
        name: &'a str,
        /// The file or folder shared.
        path: &'a str,
        /// Bytes in all.
        bytes: u64,
    },
    /// A .torrent file was written.
    Written {
        /// Where.
        path: &'a str,
    },
    /// What is being fetched is now known.
    Metadata {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// What it is called.
        name: &'a str,
        /// Bytes in all.
        bytes: u64,
        /// How many files.
        files: usize,
        /// How many pieces.
        pieces: u32,
        /// Bytes in a piece.
        piece_length: u32,
        /// Whether only the torrent's own trackers may name peers (BEP 27).
        private: bool,
    },
    /// Data found on disk is being checked.
    Checking {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Pieces checked.
        pieces_done: u32,
        /// Pieces to check.
        pieces_total: u32,
    },
    /// Where a transfer stands; at most four a second, and one last before `complete`.
    Progress {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Bytes verified and on disk.
        bytes_done: u64,
        /// Bytes wanted; zero until the metadata is known.
        bytes_total: u64,
        /// Payload received in this run.
        downloaded: u64,
        /// Payload sent in this run.
        uploaded: u64,
        /// Payload received per second.
        rate_down: u64,
        /// Payload sent per second.
        rate_up: u64,
        /// Peers connected.
        peers: usize,
        /// Those of them that have everything.
        seeds: usize,
        /// Seconds to go at this rate; null while nothing moves.
        eta_s: Option<u64>,
        /// What each kind of source does.
        by_kind: Vec<SourceReport>,
    },
    /// A transfer stopped for a reason that may pass.
    Paused {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// It goes on.
    Resumed {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
    },
    /// Everything wanted is on disk and verified.
    Complete {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Bytes wanted.
        bytes: u64,
        /// From the start of the command.
        seconds: f64,
        /// The file or folder.
        path: &'a str,
        /// Payload received in this run.
        downloaded: u64,
    },
    /// A peer was shut out.
    Banned {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Its address.
        addr: SocketAddr,
        /// What it did.
        reason: &'a str,
    },
    /// A tracker answered, or did not.
    Tracker {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Which.
        url: &'a str,
        /// Peers it named; null if it failed.
        peers: Option<usize>,
        /// Why it failed.
        error: Option<&'a str>,
    },
    /// A peer's handshake was exchanged.
    PeerConnected {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Its address.
        addr: SocketAddr,
    },
    /// The DHT named peers of a transfer.
    DhtPeers {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// How many.
        peers: usize,
        /// `mainline`, or `ring`.
        via: &'a str,
    },
    /// How a node of the DHT is.
    DhtStatus {
        /// `starting`, `online`, `offline` (nodes are known and none answers) or `empty`.
        health: &'a str,
        /// Other nodes known and verified.
        contacts: usize,
        /// Keys for which it holds peers.
        keys: usize,
        /// Peers it holds.
        peers: usize,
        /// Values it holds.
        items: usize,
        /// Keyword records it holds.
        records: usize,
        /// Bytes its tables and stores take.
        memory: usize,
        /// Since its start.
        datagrams_sent: u64,
        /// Since its start.
        bytes_sent: u64,
        /// Since its start.
        datagrams_received: u64,
        /// Since its start.
        bytes_received: u64,
    },
    /// A value was stored in the DHT.
    Stored {
        /// Where.
        target: &'a str,
        /// The public key; null for an immutable value.
        key: Option<&'a str>,
        /// The salt, if any.
        salt: Option<&'a str>,
        /// The sequence number; null for an immutable value.
        seq: Option<i64>,
        /// Nodes that said they stored it.
        nodes: u32,
    },
    /// A value was found in the DHT.
    Value {
        /// Where.
        target: &'a str,
        /// The public key; null for an immutable value.
        key: Option<&'a str>,
        /// The salt, if any.
        salt: Option<&'a str>,
        /// The sequence number; null for an immutable value.
        seq: Option<i64>,
        /// The value, if it is a string of text.
        text: Option<&'a str>,
        /// The value, bencoded, in hexadecimal digits.
        bencode: &'a str,
    },
    /// A shared torrent was named in the DHT as the newest version (BEP 46).
    Published {
        /// The link of the newest version, whichever it is.
        magnet: &'a str,
        /// The v1 info-hash of this version.
        info_hash_v1: &'a str,
        /// The public key.
        key: &'a str,
        /// The sequence number.
        seq: i64,
        /// Nodes that said they stored it.
        nodes: u32,
    },
    /// The newest version that such a link stands for was found.
    Resolved {
        /// The link.
        magnet: &'a str,
        /// The v1 info-hash of the version.
        info_hash_v1: &'a str,
        /// Its sequence number.
        seq: i64,
    },
    /// Something was announced to the DHT.
    Announced {
        /// What.
        key: &'a str,
        /// Nodes that took note.
        nodes: u32,
    },
    /// Peers found in the DHT, each told once.
    Peers {
        /// Of what.
        key: &'a str,
        /// Their addresses.
        peers: &'a [SocketAddr],
    },
    /// A record was published under the words of its title.
    Indexed {
        /// The content, an info-hash.
        content: &'a str,
        /// The public key of who says so.
        publisher: &'a str,
        /// The title.
        title: &'a str,
        /// Words under which it is kept.
        words: u32,
    },
    /// A record with all the words looked for.
    Record {
        /// The content, an info-hash.
        content: &'a str,
        /// The public key of who says so.
        publisher: &'a str,
        /// The title.
        title: &'a str,
        /// Length of the content in bytes.
        size: u64,
    },
    /// An estimate of how many have something (BEP 33).
    Scraped {
        /// What.
        key: &'a str,
        /// Peers with all of it.
        seeds: u32,
        /// Peers without.
        leechers: u32,
    },
    /// A served tracker's counters since its start.
    TrackerStats {
        /// Swarms known, IPv4 and IPv6 counted apart.
        swarms: u64,
        /// Peers known.
        peers: u64,
        /// Those of them that have everything.
        seeders: u64,
        /// Announces answered.
        announces: u64,
        /// Scrapes answered.
        scrapes: u64,
        /// Requests refused by the lists.
        refused: u64,
        /// Requests refused by a limit per address.
        limited: u64,
        /// Requests that made no sense.
        malformed: u64,
        /// Bytes received.
        bytes_in: u64,
        /// Bytes sent.
        bytes_out: u64,
        /// Answers in the last second.
        rate: u64,
    },
    /// A file does not hold what the torrent says.
    BadFile {
        /// The file, relative to the folder checked.
        path: &'a str,
        /// `missing`, `size` or `content`.
        problem: &'a str,
        /// Its bytes that lie in pieces that failed.
        bytes_bad: u64,
    },
    /// The sum of `torrent verify`.
    Verified {
        /// The v1 info-hash.
        info_hash_v1: &'a str,
        /// Whether everything matched.
        ok: bool,
        /// Pieces that matched.
        pieces_ok: u32,
        /// Pieces in all.
        pieces: u32,
        /// Files with a problem.
        files_bad: usize,
    },
    /// What is shared is something else now: the library changed.
    Sharing {
        /// Files in all.
        files: usize,
    },
    /// A file that somebody on Gnutella shares.
    GnutellaHit {
        /// Its number in the list, from 1.
        n: usize,
        /// Its name, as its sharer tells it.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// The name of its content, `urn:sha1:…` or `urn:bitprint:…`, if the sharer tells it.
        urn: Option<&'a str>,
        /// Where its sharer listens.
        addr: SocketAddrV4,
        /// Where the overlay reaches it, if it is there.
        overlay: Option<SocketAddrV6>,
        /// Names its sharer, in hexadecimal digits.
        servent: &'a str,
        /// Its number there.
        index: u32,
        /// The sharer's program, in four letters.
        vendor: &'a str,
        /// Kilobits a second that the sharer tells.
        speed: u32,
        /// Whether nobody can connect to the sharer, if it says.
        firewalled: Option<bool>,
        /// Whether all its slots are taken, if it says.
        busy: Option<bool>,
        /// Hops that the answer took.
        hops: u8,
    },
    /// What a node of Gnutella holds and did.
    GnutellaStats {
        /// Neighbours that are ultrapeers, or equals.
        ultrapeers: usize,
        /// Leaves.
        leaves: usize,
        /// Hosts known.
        hosts: usize,
        /// Messages that came.
        received: u64,
        /// Messages sent.
        sent: u64,
        /// Messages dropped because too much waited.
        dropped: u64,
        /// Queries that came.
        queries: u64,
        /// Queries that had come before.
        duplicates: u64,
        /// Queries that tables of words kept from a neighbour.
        shielded: u64,
        /// Hits that came.
        hits: u64,
        /// Hits of its own files that it sent.
        answered: u64,
        /// Messages that could not be read, and answers to what was not asked.
        refused: u64,
    },
    /// A file that is served by its hash.
    Serving {
        /// Its name by hash.
        urn: &'a str,
        /// What it is called.
        name: &'a str,
        /// Its length.
        bytes: u64,
    },
    /// Bytes of a file that is served were sent.
    Sent {
        /// The file's name by hash.
        urn: &'a str,
        /// To whom.
        to: SocketAddr,
        /// Bytes sent.
        bytes: u64,
        /// Whether that is all that was promised.
        whole: bool,
    },
    /// A MapReduce job runs.
    JobStarted {
        /// Its name with the master.
        job: &'a str,
        /// Its name for people.
        name: &'a str,
        /// Map tasks.
        maps: u32,
        /// Reduce tasks.
        reduces: u32,
        /// Whether it goes on from an earlier run.
        resumed: bool,
    },
    /// Where a job stands; at most four a second.
    JobProgress {
        /// Which.
        job: &'a str,
        /// Share of the input that was mapped, 0 to 1.
        map: f64,
        /// Share of the map output that was fetched.
        shuffle: f64,
        /// Share of the reduce work that is done.
        reduce: f64,
        /// Map tasks done.
        maps_done: u32,
        /// Map tasks running.
        maps_running: u32,
        /// Map tasks in all.
        maps: u32,
        /// Reduce tasks done.
        reduces_done: u32,
        /// Reduce tasks running.
        reduces_running: u32,
        /// Reduce tasks in all.
        reduces: u32,
        /// Seconds to go, as it looks.
        eta_s: Option<f64>,
        /// Why nothing goes on, if nothing does.
        waiting_for: Option<&'a str>,
    },
    /// Something happened in a job.
    JobNotice {
        /// Which.
        job: &'a str,
        /// What, for people.
        text: &'a str,
    },
    /// A job is over and its output complete.
    JobDone {
        /// Which.
        job: &'a str,
        /// The folder.
        output: &'a str,
        /// From the start of the command.
        seconds: f64,
        /// Counters of committed attempts by group and name; the engine's own are in `shoal`.
        counters: &'a BTreeMap<String, BTreeMap<String, u64>>,
        /// Records that were left out.
        skipped: usize,
        /// Attempts that failed on the way.
        failed_attempts: usize,
    },
    /// A job of a standing master is over.
    JobEnded {
        /// Which.
        job: &'a str,
        /// `succeeded`, `failed` or `cancelled`.
        outcome: &'a str,
    },
    /// A worker is known to its master.
    WorkerConnected {
        /// By this name.
        worker: &'a str,
    },
    /// A worker's connection to its master ended or could not be made; it tries again.
    WorkerLost {
        /// Why.
        why: &'a str,
    },
    /// A worker began with an attempt.
    AttemptStarted {
        /// Which.
        attempt: &'a str,
    },
    /// An attempt is over at its worker.
    AttemptEnded {
        /// Which.
        attempt: &'a str,
        /// Why it failed, if it did.
        error: Option<&'a str>,
    },
    /// A job was interrupted; the same command goes on.
    JobInterrupted {
        /// Which.
        job: &'a str,
    },
    /// Something the user should know, which stops nothing.
    Warning {
        /// What.
        what: &'a str,
    },
    /// Stopped by a signal; the same command goes on.
    Interrupted {
        /// Bytes verified and on disk.
        bytes_done: u64,
        /// Bytes wanted.
        bytes_total: u64,
    },
    /// The command failed.
    Error {
        /// What failed.
        what: &'a str,
        /// Why, from the nearest cause to the root.
        because: &'a [String],
        /// What to do.
        hint: Option<&'a str>,
        /// The exit code.
        code: u8,
    },
}

/// What can be a line of `--json`.
pub(crate) trait Line: Serialize {
    /// The line, without its line feed.
    fn to_line(&self) -> String {
        serde_json::to_string(self).expect("plain data always serialises")
    }
}

impl Line for Report<'_> {}
impl Line for CallReport {}
impl Line for FileReport<'_> {}
impl Line for HubReport<'_> {}
impl Line for OverlayReport<'_> {}
impl Line for PeopleReport<'_> {}
impl Line for ReachReport<'_> {}
impl Line for RelayReport {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_starts_with_its_event() {
        let line = Report::Progress {
            info_hash_v1: "ab",
            bytes_done: 1,
            bytes_total: 2,
            downloaded: 1,
            uploaded: 0,
            rate_down: 3,
            rate_up: 0,
            peers: 4,
            seeds: 1,
            eta_s: None,
            by_kind: Vec::new(),
        }
        .to_line();
        assert_eq!(
            line,
            r#"{"event":"progress","info_hash_v1":"ab","bytes_done":1,"bytes_total":2,"downloaded":1,"uploaded":0,"rate_down":3,"rate_up":0,"peers":4,"seeds":1,"eta_s":null,"by_kind":[]}"#
        );
    }
}
