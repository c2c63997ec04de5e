//! Messages between nodes and to the servers, and their bytes: a 32-bit little-endian length, then
//! the message in postcard's encoding.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Address;
use crate::list::Entry;
use crate::names::{NameAnswer, NameAsk};
use crate::place::Place;
use crate::token::{Invalid, Key, Presence, Sealed, Token};

/// Of the wire; another is refused.
pub const VERSION: u8 = 3;
/// Bytes of one message at most.
pub const MAX_MESSAGE: usize = 128 << 10;
/// Bytes before a message.
pub const HEADER: usize = 4;
/// Bytes of a file's name at most.
pub const MAX_PATH: usize = 512;
/// Bytes of a query's words at most.
pub const MAX_WORDS: usize = 256;
/// Files of one [`Message::Share`] and hits of one [`Message::Hits`] at most.
pub const MAX_BATCH: usize = 100;
/// Entries of one list at most.
pub const MAX_LIST: usize = 200;
/// Bytes of a letter at most.
pub const MAX_LETTER: usize = shoal_reach::sealed::MAX_LETTER;
/// Relays of one [`Message::Relays`] at most, and addresses of each.
pub const MAX_RELAYS: usize = 4;

/// The port of its overlay address ([`shoal_reach::overlay`]) at which a sharer serves its files whom
/// nobody can connect to.
pub const OVERLAY_FILES: u16 = 6346;
/// The port of an overlay address at which its node takes links.
pub const OVERLAY_LINKS: u16 = 6347;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Who dials is to be a child.
    Child,
    /// Two supernodes.
    Neighbour,
    /// Who dials measures whether and how fast the other can be reached.
    Probe,
    /// A supernode has letters for children of another.
    Letters,
}

/// Why a link is refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Why {
    /// Another version of the wire.
    #[error("it speaks another version")]
    Version,
    /// The token or presence does not hold.
    #[error("{0}")]
    Invalid(Invalid),
    /// The other does not prove its key.
    #[error("it does not prove its key")]
    Unproven,
    /// No room.
    #[error("it is full")]
    Full,
    /// It is no supernode.
    #[error("it is no supernode")]
    Ordinary,
    /// It was banned for what it did.
    #[error("banned")]
    Banned,
    /// It is no supernode any more, or ends.
    #[error("it leaves")]
    Leaving,
    /// Files are said to be at another host than the link comes from.
    #[error("it tells of another host's address")]
    Elsewhere,
    /// Too many links of its host, or too soon after the last.
    #[error("too many links of one host")]
    Crowded,
}

/// What a file of sound or film is like, as its sharer reads it from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sound {
    /// Kilobits a second; the mean if it varies.
    pub bitrate: u16,
    /// Samples a second.
    pub frequency: u32,
    /// Length in seconds.
    pub seconds: u32,
}

/// How a sharer stands with those who fetch. Nobody vouches for it: it is for putting sharers in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Uploads that could begin now; none if it did not say.
    pub free: Option<u16>,
    /// Downloaders that wait.
    pub waiting: u16,
    /// Bytes a second that it sends, by its own word; no more than its supernode measured, if it did.
    pub rate: Option<u64>,
}

/// A file as its sharer tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path as told to others, with `/`.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-1 of it all.
    pub sha1: [u8; 20],
    /// The root of its Tiger tree; none: it is not known, of files of other networks.
    pub tiger: Option<[u8; 24]>,
    /// What it sounds like, if that is known.
    pub sound: Option<Sound>,
}

/// A file found, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Hit<A> {
    /// What.
    pub file: File,
    /// Whose, in their own signed words.
    pub sharer: Presence<A>,
    /// Where it is fetched, if it is not the sharer's own: a host of another network, of which
    /// a supernode that is in both tells in its own name.
    pub elsewhere: Option<A>,
    /// How the sharer stands; none if it did not say, and of hosts of another network.
    pub standing: Option<Standing>,
}

impl<A: Address> Hit<A> {
    /// Where it is fetched; none if nobody can connect to its sharer.
    pub fn place(&self) -> Option<A> {
        self.elsewhere.or(self.sharer.files)
    }
}

/// The name of a query.
pub type QueryId = [u8; 16];

/// What a query asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Files whose paths hold these words.
    Words(String),
    /// The file with this SHA-1, whatever it is called.
    Sha1([u8; 20]),
}

/// What nodes say to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub enum Message<A> {
    /// The first of both sides.
    Hello {
        /// [`VERSION`].
        version: u8,
        /// What the dialler wants; the other repeats it.
        purpose: Purpose,
        /// Who speaks, and where it is.
        presence: Presence<A>,
        /// To be signed by the other.
        nonce: [u8; 32],
    },
    /// The other's nonce, signed: the second of both sides.
    Proof(Sealed),
    /// The dialler is let in; other supernodes to remember.
    Welcome(Vec<Entry<A>>),
    /// The link ends; other supernodes to try.
    Refuse(Why, Vec<Entry<A>>),
    /// Is anybody there?
    Ping,
    /// Yes.
    Pong,
    /// Other supernodes to remember.
    Spares(Vec<Entry<A>>),
    /// A child shares these too.
    Share(Vec<File>),
    /// A child shares these paths no more.
    Unshare(Vec<String>),
    /// Who has files like this?
    Query {
        /// Its name.
        id: QueryId,
        /// What they are like.
        wanted: Wanted,
        /// How many supernodes it may go on to pass.
        ttl: u8,
    },
    /// These.
    Hits(QueryId, Vec<Hit<A>>),
    /// A supernode asks a child to become one too.
    Promote,
    /// Send so many bytes.
    Probe(u32),
    /// Some of them.
    Chunk(Vec<u8>),
    /// To a sharer that nobody can connect to, by the way its hit came: connect to who asks.
    Push {
        /// The query that its hit answered.
        query: QueryId,
        /// The sharer.
        sharer: Key,
        /// Which file is wanted.
        sha1: [u8; 20],
        /// Who wants it, and where that is ([`Presence::links`]), in its own signed words.
        from: Box<Presence<A>>,
    },
    /// How a supernode stands, for its neighbours.
    State {
        /// Percent of its places for children taken.
        load: u8,
        /// For how long it has been a supernode, in seconds.
        uptime: u32,
        /// Whether it stands in the ring of supernodes, and so finds whoever letters are for.
        finds: bool,
    },
    /// A supernode asks a child to go to another, which has more room.
    Move(Vec<Entry<A>>),
    /// A neighbour measured how many bytes a second the other sends where it says it can be
    /// reached; zero: it cannot.
    Measured(u64),
    /// The speaker's token was renewed; hits of its files carry this from now on.
    Renewed(Box<Presence<A>>),
    /// A letter for whoever has this key, wherever it is in the overlay.
    Letter(Box<Letter<A>>),
    /// Relays that the listener may use: the speaker's, and some of its neighbours'.
    Relays(Vec<Relay>),
    /// How a child stands with those who fetch from it, for its hits.
    Standing(Standing),
    /// To a child: where its supernode takes letters for it, for its place; three at most.
    Doors(Vec<A>),
    /// The place of the speaker, or of a child of the speaker, is to be kept in the ring.
    Place(Box<Place<A>>),
    /// The letter of this name is for nobody who is here.
    NotHere(QueryId),
}

/// Where a letter is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Course {
    /// To its recipient, whom whoever gets the letter is to find.
    Find,
    /// To its recipient by the supernode that has this key, and no farther.
    To(Key),
    /// To all supernodes near, so many farther from each: nobody knows where its recipient is.
    Flood(u8),
}

/// A sealed letter on its way. Supernodes see who writes to whom, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Letter<A> {
    /// Its name, so that it passes nowhere twice.
    pub id: QueryId,
    /// Who sends it: the key of a child, which its supernode sees to.
    pub from: Key,
    /// Whom it is for.
    pub to: Key,
    /// How it goes.
    pub course: Course,
    /// The place of its sender, if that is known, so that the answer need not look for it.
    pub place: Option<Box<Place<A>>>,
    /// [`shoal_reach::sealed`].
    pub sealed: Vec<u8>,
}

/// A TURN relay and a credential for it that expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Where it listens, by UDP and TCP at each.
    pub at: Vec<SocketAddr>,
    /// USERNAME.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({:?}, {})", self.at, self.name)
    }
}

/// What is said to the login server and the list of supernodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub enum Ask<A> {
    /// Is this name mine?
    Claim(String, Key),
    /// The challenge of the last [`Answer::Challenge`], signed.
    Prove(Sealed),
    /// Which supernodes are there?
    List,
    /// Here is a supernode.
    Register(Box<crate::list::Registration<A>>),
    /// About names that people keep.
    Name(Box<NameAsk>),
}

/// What the servers answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub enum Answer<A> {
    /// Sign this, to prove the key; the server's own key is told too.
    Challenge([u8; 32], Key),
    /// The name is yours until the token expires.
    Granted(Token),
    /// The supernodes.
    List(Vec<Entry<A>>),
    /// Taken.
    Registered,
    /// No.
    Refused(Refusal),
    /// About names that people keep.
    Name(Box<NameAnswer>),
}

/// Why a server says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Somebody else's key has the name.
    #[error("the name is another's")]
    Taken,
    /// Names have 1 to 32 letters, digits, `-`, `_`, `.`.
    #[error("the name is not allowed")]
    Name,
    /// The challenge was not signed by the key.
    #[error("the key is not proven")]
    Unproven,
    /// Too many of this address.
    #[error("too many requests of this address")]
    Often,
    /// No more names, or no more supernodes of this address.
    #[error("no room")]
    Full,
    /// The token or signature does not hold.
    #[error("{0}")]
    Invalid(Invalid),
    /// Signed too long ago, or before the last.
    #[error("the registration is old")]
    Stale,
    /// It registers another host than it comes from.
    #[error("another host's address")]
    Elsewhere,
    /// This server does not do that.
    #[error("this server does not do that")]
    Unsupported,
    /// Nobody has that name.
    #[error("nobody has the name")]
    Unknown,
    /// A name's recovery key is changed by itself alone.
    #[error("only the recovery key may name another")]
    Recovery,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Longer than any.
    #[error("a message of {0} bytes, the most is {MAX_MESSAGE}")]
    TooLong(usize),
    /// Not understood, or with something left over.
    #[error("not a message")]
    Nonsense,
}

/// Appends a message with its length.
pub fn encode(message: &impl Serialize, out: &mut Vec<u8>) {
    // Plain data: its encoding cannot fail.
    let bytes = postcard::to_allocvec(message).unwrap_or_default();
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// The first message of `buf` and how many bytes it takes; none if it is not whole yet.
///
/// # Errors
/// It never will be one.
pub fn decode<M: DeserializeOwned>(buf: &[u8]) -> Result<Option<(M, usize)>, BadMessage> {
    let Some((head, rest)) = buf.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(BadMessage::TooLong(len));
    }
    let Some(body) = rest.get(..len) else {
        return Ok(None);
    };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(Some((message, HEADER + len))),
        _ => Err(BadMessage::Nonsense),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    fn presence(n: u8, files: Option<u32>) -> Presence<u32> {
        let key = SigningKey::from_bytes(&[n; 32]);
        let public = key.verifying_key().to_bytes();
        let token = Token::issue(&key, "alice", public, 5);
        Presence::new(&key, token, 7, files)
    }

    fn place(n: u8) -> Place<u32> {
        let key = SigningKey::from_bytes(&[n; 32]);
        let token = Token::issue(&key, "alice", key.verifying_key().to_bytes(), 5);
        Place::new(&key, token, 7, [4; 32], vec![u32::from(n)])
    }

    fn standing(n: u16) -> Standing {
        Standing {
            free: Some(n),
            waiting: 3,
            rate: Some(1 << 20),
        }
    }

    fn message() -> impl Strategy<Value = Message<u32>> {
        let file = || {
            ("[a-zé /]{0,40}", any::<u64>(), any::<[u8; 20]>()).prop_map(|(path, size, sha1)| {
                File {
                    path,
                    size,
                    sha1,
                    tiger: Some([3; 24]),
                    sound: (size % 2 == 0).then_some(Sound {
                        bitrate: 320,
                        frequency: 44_100,
                        seconds: 300,
                    }),
                }
            })
        };
        let hit = (file(), any::<u8>(), any::<Option<u32>>()).prop_map(|(file, n, files)| Hit {
            file,
            sharer: presence(n, files),
            elsewhere: files,
            standing: files.map(|n| standing(n as u16)),
        });
        let hits = proptest::collection::vec(hit, 0..4);
        prop_oneof![
            (any::<u8>(), any::<[u8; 32]>()).prop_map(|(version, nonce)| Message::Hello {
                version,
                purpose: Purpose::Child,
                presence: presence(version, None),
                nonce,
            }),
            Just(Message::Ping),
            Just(Message::Refuse(Why::Invalid(Invalid::Expired), Vec::new())),
            proptest::collection::vec(file(), 0..5).prop_map(Message::Share),
            proptest::collection::vec("[a-z/]{0,9}", 0..5).prop_map(Message::Unshare),
            (any::<QueryId>(), "[a-z ]{0,20}", any::<u8>()).prop_map(|(id, words, ttl)| {
                let wanted = match ttl % 2 {
                    0 => Wanted::Words(words),
                    _ => Wanted::Sha1([ttl; 20]),
                };
                Message::Query { id, wanted, ttl }
            }),
            (any::<QueryId>(), any::<[u8; 20]>()).prop_map(|(query, sha1)| Message::Push {
                query,
                sharer: [7; 32],
                sha1,
                from: Box::new(presence(3, None)),
            }),
            (any::<u8>(), any::<u32>()).prop_map(|(load, uptime)| Message::State {
                load,
                uptime,
                finds: load % 2 == 0,
            }),
            any::<u64>().prop_map(Message::Measured),
            any::<u16>().prop_map(|n| Message::Standing(standing(n))),
            any::<u8>().prop_map(|n| Message::Renewed(Box::new(presence(n, Some(1))))),
            (any::<QueryId>(), any::<u8>(), any::<Vec<u8>>()).prop_map(|(id, ttl, sealed)| {
                let (from, to) = ([1; 32], [2; 32]);
                let (course, place) = match ttl % 3 {
                    0 => (Course::Find, None),
                    1 => (Course::To([3; 32]), Some(Box::new(place(ttl)))),
                    _ => (Course::Flood(ttl), None),
                };
                Message::Letter(Box::new(Letter {
                    id,
                    from,
                    to,
                    course,
                    place,
                    sealed,
                }))
            }),
            any::<Vec<u32>>().prop_map(Message::Doors),
            any::<u8>().prop_map(|n| Message::Place(Box::new(place(n)))),
            any::<QueryId>().prop_map(Message::NotHere),
            any::<Vec<([u8; 4], u16)>>().prop_map(|at| {
                let at = at.into_iter().map(SocketAddr::from).collect();
                let (name, password) = ("5:a".into(), "b".into());
                Message::Relays(vec![Relay { at, name, password }])
            }),
            (any::<QueryId>(), hits).prop_map(|(id, hits)| Message::Hits(id, hits)),
            any::<Vec<u8>>().prop_map(Message::Chunk),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in message(), tail: Vec<u8>) {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            let len = bytes.len();
            prop_assert_eq!(decode::<Message<u32>>(&bytes[..len - 1]), Ok(None));
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes), Ok(Some((message, len))));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
            framed.extend(&bytes);
            for buf in [&bytes, &framed] {
                let _ = decode::<Message<u32>>(buf);
                let _ = decode::<Ask<u32>>(buf);
                let _ = decode::<Answer<SocketAddr>>(buf);
            }
        }
    }
}
