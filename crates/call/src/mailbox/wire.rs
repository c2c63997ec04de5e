//! What is said to a supernode's boxes: [`MAGIC`] first, then messages as the overlay's other links have
//! them, a 32-bit little-endian length and postcard's encoding ([`shoal_supernode::wire`]).

use serde::{Deserialize, Serialize};
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::token::{Invalid, Key, Sealed};

use super::{Envelope, LetterId};

/// The first bytes of whoever connects: no link begins so, nor a request for a file.
pub const MAGIC: [u8; 4] = *b"BOX1";
/// Letters acknowledged at once at most.
pub const MAX_ACKS: usize = 256;
/// Bytes of a record that is handed in for the ring of names at most.
pub const MAX_RECORD: usize = 4096;

/// Said to a supernode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Say {
    /// Who speaks, and what the other is to sign.
    Hello(Box<Certificate>, [u8; 32]),
    /// The other's nonce and key, signed by the certificate's key.
    Proof(Sealed),
    /// Hand over what is in my box, and what comes.
    Open,
    /// Keep this for its recipient.
    Put(Envelope),
    /// I have these: forget them. Signed with the link's nonce.
    Ack(Vec<LetterId>, Sealed),
    /// Is anybody there?
    Ping,
    /// Keep this record of my name in the ring of names: I have no UDP to ask it myself.
    Publish(Vec<u8>),
    /// What has the ring of names of this name?
    Look(String),
}

/// Said by a supernode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Its key, what the other is to sign, and the other's nonce and key signed.
    Hello(Key, [u8; 32], Sealed),
    /// Go on.
    Welcome,
    /// This is kept, and for its recipient alone.
    Stored(LetterId),
    /// This is not kept; or with no letter, the link ends.
    Refused(Option<LetterId>, Why),
    /// A letter for you.
    Mail(Envelope),
    /// Yes.
    Pong,
    /// Your record is kept by so many nodes of the ring, or why not.
    Published(Result<u32, Unkept>),
    /// What the ring has of a name.
    Looked(String, Found),
}

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unkept {
    /// The ring has one of this rank, which is higher.
    Older(i64),
    /// Too many are asked in a minute.
    Often,
    /// The record does not hold, or is another's.
    Unfit,
    /// The ring cannot be asked, or does not answer.
    NoAnswer,
}

/// What was found of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// This record, which whoever asked checks.
    Record(Vec<u8>),
    /// The ring was asked, and has none.
    Nothing,
    /// Too many are asked in a minute.
    Often,
    /// The ring cannot be asked, or does not answer.
    NoAnswer,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Why {
    /// The certificate does not hold.
    #[error("the certificate does not hold: {0}")]
    Certificate(Invalid),
    /// The key is not proven.
    #[error("the key is not proven")]
    Unproven,
    /// The recipient has no box here.
    #[error("the recipient has no box here")]
    NoBox,
    /// The recipient's box is full.
    #[error("the recipient's box is full")]
    Full,
    /// The sender has enough there already.
    #[error("too much of one sender waits there")]
    Enough,
    /// Too many letters in a minute.
    #[error("too many letters in a minute")]
    Often,
    /// Too long, or to be kept for too long.
    #[error("no letter that a box takes")]
    Unfit,
    /// No room for more boxes or links.
    #[error("no room")]
    Crowded,
    /// It was said out of turn.
    #[error("said out of turn")]
    Turn,
}

const SERVER: &str = "box supernode";
const CLIENT: &str = "box owner";
const ACK: &str = "box ack";

/// What both ends of a link sign: nonce, own key and the other's.
fn seal(key: &ed25519_dalek::SigningKey, about: &str, nonce: &[u8; 32], other: &Key) -> Sealed {
    Sealed::new(key, about, &(nonce, other))
}

/// The supernode's proof, for who sent `nonce` and has the key `client`.
pub fn server_proof(key: &ed25519_dalek::SigningKey, nonce: &[u8; 32], client: &Key) -> Sealed {
    seal(key, SERVER, nonce, client)
}

/// Whether the supernode with key `server` proved it.
pub fn is_server(server: &Key, nonce: &[u8; 32], client: &Key, proof: &Sealed) -> bool {
    proof.is_by(server, SERVER, &(nonce, client))
}

/// A client's proof, for the supernode that sent `nonce`.
pub fn client_proof(key: &ed25519_dalek::SigningKey, nonce: &[u8; 32], server: &Key) -> Sealed {
    seal(key, CLIENT, nonce, server)
}

/// Whether the client with key `client` proved it.
pub fn is_client(client: &Key, nonce: &[u8; 32], server: &Key, proof: &Sealed) -> bool {
    proof.is_by(client, CLIENT, &(nonce, server))
}

/// Acknowledges letters on the link on which the supernode sent `nonce`.
pub fn ack(key: &ed25519_dalek::SigningKey, nonce: &[u8; 32], ids: &[LetterId]) -> Sealed {
    Sealed::new(key, ACK, &(nonce, ids))
}

/// Whether the box's owner acknowledged them.
pub fn is_ack(owner: &Key, nonce: &[u8; 32], ids: &[LetterId], seal: &Sealed) -> bool {
    seal.is_by(owner, ACK, &(nonce, ids))
}
