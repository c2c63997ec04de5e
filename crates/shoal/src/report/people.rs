//! Events of names, presence and chat.

use std::net::SocketAddr;

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
    /// Where letters to a name are kept, as the ring of supernodes says, signed by its key.
    Record {
        /// The name.
        name: &'a str,
        /// Its key, in hexadecimal digits.
        key: &'a str,
        /// Changes of its keys before.
        generation: u32,
        /// Its number: of two the higher one of the later key holds.
        seq: u64,
        /// In Unix seconds.
        expires: u64,
        /// Supernodes.
        homes: Vec<SocketAddr>,
        /// Whether the public log says the same; null: it cannot be asked.
        in_log: Option<bool>,
    },
    /// Whose a name is of which the ring has no record, as the public log proves.
    Owner {
        /// The name.
        name: &'a str,
        /// Its key, in hexadecimal digits.
        key: &'a str,
        /// Changes of its keys before.
        generation: u32,
        /// The number of the entry in the log.
        entry: u64,
        /// When it was made, in Unix seconds.
        unix: u64,
        /// Why there is no record.
        why: &'a str,
    },
    /// These supernodes keep our letters.
    Homes {
        /// Where they are.
        homes: &'a [SocketAddr],
    },
    /// This supernode did not bring letters that two others brought: another is taken for it.
    HomeLeft {
        /// Where it is.
        addr: SocketAddr,
    },
    /// Letters to and from somebody go straight over a connection from now on, or no more.
    Straight {
        /// Whose key, in hexadecimal digits.
        key: &'a str,
        /// Whether they do.
        up: bool,
    },
    /// Our record is in the ring.
    Published {
        /// Nodes that keep it.
        nodes: u32,
    },
    /// A text of ours was taken; it is kept until it is delivered.
    Written {
        /// To whom.
        to: &'a str,
        /// Its number.
        seq: u64,
    },
    /// A text of ours lies in boxes of its recipient.
    Stored {
        /// To whom.
        to: &'a str,
        /// Its number.
        seq: u64,
        /// In how many.
        boxes: usize,
    },
    /// Texts of ours up to this number were told to their recipient.
    Delivered {
        /// To whom.
        to: &'a str,
        /// The last number.
        seq: u64,
    },
    /// Texts cannot be brought to somebody now.
    Waiting {
        /// To whom.
        to: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A text came.
    Text {
        /// Whose.
        from: &'a str,
        /// Its number.
        seq: u64,
        /// When it was written, in Unix seconds, as its writer says.
        unix: u64,
        /// What it says.
        text: &'a str,
        /// Whether it was given up for lost before.
        late: bool,
        /// Links in it that `shoal fetch` takes.
        links: &'a [&'a str],
    },
    /// Texts of somebody are lost, or late.
    Missing {
        /// Whose.
        from: &'a str,
        /// How many.
        count: u64,
    },
    /// How a buddy is.
    Presence {
        /// Who.
        name: &'a str,
        /// `online`, `away` or `offline`.
        status: &'a str,
    },
    /// Somebody who is no buddy asks how we are, and was told nothing.
    Asks {
        /// Who.
        name: &'a str,
    },
    /// A name has another key than before.
    KeyChanged {
        /// Whose.
        name: &'a str,
        /// The new one, in hexadecimal digits.
        key: &'a str,
    },
    /// The login server signed another log of names for somebody than for us.
    Forked {
        /// For whom.
        name: &'a str,
        /// Entries of that log.
        size: u64,
        /// Its root, in hexadecimal digits.
        root: &'a str,
        /// When it was signed, in Unix seconds.
        unix: u64,
        /// Entries of the log that was shown to us.
        our_size: u64,
        /// Its root.
        our_root: &'a str,
        /// When it was signed.
        our_unix: u64,
        /// Whether the two heads alone prove that there are two logs; else the login server did not prove that
        /// they are of one.
        proof: bool,
    },
    /// A letter that cannot be read was dropped.
    Unreadable {
        /// Why.
        why: &'a str,
    },
}
