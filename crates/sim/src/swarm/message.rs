//! What peers of a simulated swarm send each other: the bytes of the peer wire, but for payload.

use shoal_bittorrent::handshake::Handshake;
use shoal_bittorrent::wire::{self, Limits, Message};
use shoal_content::Block;

/// One part of a connection's stream.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The connection, by the dialler's number and its count of dials: both ends know it by this.
    pub link: u64,
    /// What is sent.
    pub packet: Packet,
}

/// What is sent on a connection.
#[derive(Clone, Debug)]
pub enum Packet {
    /// Opens it; the dialler's handshake, and whether it sends [`Packet::Credit`].
    Hello(Box<Handshake>, bool),
    /// Answers [`Packet::Hello`].
    Welcome(Box<Handshake>, bool),
    /// Whole messages, encoded, none of them a piece message.
    Control(Vec<u8>),
    /// Stands for a piece message. The block's bytes are not carried: all content is genuine.
    Block {
        /// Which block.
        block: Block,
        /// Whether the sender has everything. For the books only, peers do not look at it.
        by_seed: bool,
    },
    /// A block has passed the receiver's downlink: another may be sent. What a full TCP window
    /// does; only receivers whose downlink has a limit need it.
    Credit,
    /// Closes it.
    Bye,
}

/// What a free rider lets out of `bytes`: all but the messages that would serve others.
pub(super) fn without_service(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    // Our own torrent wrote these bytes; were they not valid the rest would be dropped, and the
    // other side would see a free rider that is mute.
    while let Ok(Some((message, used))) = wire::decode(rest, &Limits::default()) {
        let (this, next) = rest.split_at(used);
        if !matches!(message, Message::Unchoke | Message::AllowedFast(_)) {
            kept.extend_from_slice(this);
        }
        rest = next;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_rider_says_all_but_that_it_serves() {
        let mut bytes = Vec::new();
        for message in [
            Message::HaveNone,
            Message::AllowedFast(3),
            Message::Interested,
            Message::Unchoke,
            Message::Have(7),
        ] {
            wire::encode(&message, &mut bytes);
        }
        let mut kept = Vec::new();
        for message in [Message::HaveNone, Message::Interested, Message::Have(7)] {
            wire::encode(&message, &mut kept);
        }
        assert_eq!(without_service(&bytes), kept);
    }
}
