//! Events of the overlay of supernodes and its servers.

use std::net::SocketAddr;

use serde::Serialize;

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum OverlayReport<'a> {
    /// A login server signs with this key: whoever takes part trusts it.
    LoginKey {
        /// In hexadecimal digits.
        key: &'a str,
    },
    /// What a login server and a list of supernodes hold and did.
    LoginStats {
        /// Names that are somebody's.
        names: u64,
        /// Supernodes on the list.
        supernodes: u64,
        /// Tokens given.
        tokens: u64,
        /// Times that the list was asked for.
        asked: u64,
        /// Registrations of supernodes taken.
        registered: u64,
        /// Questions refused.
        refused: u64,
    },
    /// A name is ours, until then.
    LoggedIn {
        /// The name.
        name: &'a str,
        /// The key that has it, in hexadecimal digits.
        key: &'a str,
        /// In Unix seconds.
        expires: u64,
    },
    /// The node's supernode is another now.
    Home {
        /// Where it is; null: there is none.
        addr: Option<SocketAddr>,
    },
    /// What the node is now.
    Role {
        /// `peer` or `supernode`.
        role: &'static str,
    },
    /// A supernode refused or ended a link.
    LinkRefused {
        /// Who.
        addr: SocketAddr,
        /// Why.
        why: &'a str,
    },
    /// A child was measured.
    Measured {
        /// Where it is.
        addr: SocketAddr,
        /// Bytes a second that it sends; zero: it cannot be reached.
        rate: u64,
    },
    /// A peer that cannot connect here wants a file, and is connected to.
    Pushing {
        /// The file's name by hash.
        urn: &'a str,
        /// To whom.
        to: SocketAddr,
    },
    /// The overlay can fetch a file of an OpenNap client from now on.
    Mirrored {
        /// Who shares it.
        nick: &'a str,
        /// Its path as the overlay is told.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// Its name by hash.
        urn: &'a str,
    },
    /// A file of an OpenNap client that the overlay asked for is left out.
    LeftOut {
        /// Who shares it.
        nick: &'a str,
        /// Its path as the hub is told.
        file: &'a str,
        /// Why.
        why: &'a str,
    },
    /// An OpenNap client fetches a file of the overlay.
    Lent {
        /// Who.
        nick: &'a str,
        /// Its path as the hub's users are told.
        file: &'a str,
    },
    /// What a node holds and did.
    SupernodeStats {
        /// `peer` or `supernode`.
        role: &'static str,
        /// Where its supernode is.
        home: Option<SocketAddr>,
        /// Children.
        children: u64,
        /// Links to other supernodes.
        neighbours: u64,
        /// Files of its children and its own.
        files: u64,
        /// Supernodes known.
        known: u64,
        /// Queries taken.
        queries: u64,
        /// Queries that came again.
        duplicates: u64,
        /// Queries and pushes that a limit turned down.
        limited: u64,
        /// Hits passed on.
        hits: u64,
        /// Hits and pushes dropped: forged, late, or not asked for.
        forged: u64,
        /// Links refused.
        refused: u64,
        /// Boxes of letters that it keeps for people.
        boxes: u64,
        /// Letters in them.
        letters: u64,
        /// Letters between nodes that it carried.
        carried: u64,
        /// Letters, of its children and its own, that it flooded, because nobody knew where to go.
        flooded: u64,
        /// Records of people that it keeps.
        records: u64,
    },
    /// A line of stdin is searched for.
    Asked {
        /// The line.
        words: &'a str,
        /// Whether there was a supernode to ask.
        sent: bool,
    },
    /// A file that a peer shares.
    SupernodeHit {
        /// Its number among the answers to the last question, from 1.
        n: usize,
        /// Its path, as its sharer tells it.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// The name of its content.
        urn: &'a str,
        /// Who shares it.
        sharer: &'a str,
        /// Where it is fetched; null: nobody can connect to its sharer.
        addr: Option<SocketAddr>,
        /// Whether that is a host of another network, of which `sharer` tells.
        elsewhere: bool,
        /// Uploads that its sharer could begin now, by its own word; null: it did not say.
        free: Option<u16>,
        /// Downloaders that wait there; null: it did not say.
        waiting: Option<u16>,
        /// Bytes a second that it sends, as it says and its supernode measured; null: unknown.
        rate_up: Option<u64>,
        /// Kilobits a second, of sound; null: unknown.
        bitrate: Option<u16>,
        /// Length in seconds, of sound; null: unknown.
        duration_s: Option<u32>,
    },
    /// A result of a search that can be fetched.
    SupernodeResult {
        /// Its number, from 1.
        n: usize,
        /// Its path, as one of its sharers tells it.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// The name of its content.
        urn: &'a str,
        /// How many share it.
        sharers: usize,
    },
    /// A supernode on the list.
    Supernode {
        /// Where it is.
        addr: SocketAddr,
        /// Percent of its places taken.
        load: u8,
        /// Seconds since it was heard of.
        age: u32,
    },
}
