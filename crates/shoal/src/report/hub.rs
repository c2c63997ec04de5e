//! Events of a Napster hub and its users.

use serde::Serialize;

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum HubReport<'a> {
    /// A file that a search of a hub found; the best first.
    Hit {
        /// Its number in the list, from 1.
        n: usize,
        /// The path as its sharer tells it.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// Kilobits a second; zero if unknown.
        bitrate: u32,
        /// Samples a second; zero if unknown.
        frequency: u32,
        /// How long it plays; zero if unknown.
        seconds: u32,
        /// Who shares it.
        nick: &'a str,
        /// The sharer's kind of link, 0 to 10.
        link: u8,
        /// How long the sharer took to answer, by way of the hub; null if it did not.
        ping_ms: Option<f64>,
    },
    /// The connection to a hub was made, or lost.
    Hub {
        /// Which.
        connected: bool,
        /// Why it was lost.
        why: Option<&'a str>,
    },
    /// How far a download from a hub's user is; at most four a second.
    HubProgress {
        /// From whom.
        nick: &'a str,
        /// Bytes that are there.
        bytes_done: u64,
        /// Bytes of the file.
        bytes_total: u64,
    },
    /// A file of a hub's user is there.
    Fetched {
        /// Where.
        path: &'a str,
        /// Its length.
        bytes: u64,
        /// From whom.
        nick: &'a str,
    },
    /// A hub's user took a file, or part of one.
    Uploaded {
        /// The path as we share it.
        file: &'a str,
        /// Who.
        nick: &'a str,
        /// Bytes sent.
        bytes: u64,
        /// Whether they reached the file's end.
        whole: bool,
    },
    /// Who a user of a hub is.
    NapsterWhois {
        /// Under which nick.
        nick: &'a str,
        /// `User`, `Moderator`, `Admin` or `Elite`.
        level: &'a str,
        /// How long it has been there.
        online_s: u64,
        /// The rooms it is in.
        rooms: &'a [String],
        /// `Active`, or `Remote` on a linked hub.
        status: &'a str,
        /// How many files it shares.
        shared: u64,
        /// Its downloads now.
        downloads: u64,
        /// Its uploads now.
        uploads: u64,
        /// Its kind of link, 0 (unknown) to 10 (T3 or better).
        link: u8,
        /// Its program.
        client: &'a str,
    },
    /// A user who is registered but not there.
    NapsterWhowas {
        /// Under which nick.
        nick: &'a str,
        /// As in `napster_whois`.
        level: &'a str,
        /// When it was last there, in seconds since 1970.
        last_seen: u64,
    },
    /// A room of a hub.
    NapsterRoom {
        /// Its name.
        room: &'a str,
        /// How many are there.
        members: u64,
        /// What it is about.
        topic: &'a str,
    },
    /// What happened in a room, or between users.
    NapsterChat {
        /// `joined`, `topic`, `member`, `came`, `left`, `said`, `did` or `private`.
        what: &'a str,
        /// The room, if it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// Who; empty for a topic.
        nick: &'a str,
        /// What was said; empty for coming and going.
        text: &'a str,
    },
    /// What a Napster hub holds, and did since it started.
    NapsterStats {
        /// Users logged in here.
        users: u64,
        /// Users of linked hubs.
        remote_users: u64,
        /// Hubs linked with this one.
        links: u64,
        /// Files shared here.
        files: u64,
        /// Bytes of those files.
        bytes: u64,
        /// Rooms.
        rooms: u64,
        /// Registered nicks.
        accounts: u64,
        /// Messages taken.
        messages: u64,
        /// Searches answered.
        searches: u64,
        /// Hits told.
        hits: u64,
        /// Downloads brokered.
        brokered: u64,
        /// Connections and logins refused.
        refused: u64,
        /// Requests that a limit turned down.
        limited: u64,
        /// Messages that were not understood.
        malformed: u64,
        /// Clients cut off because they did not take what was sent to them.
        cut_off: u64,
    },
}
