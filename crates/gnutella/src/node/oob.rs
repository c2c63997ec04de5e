//! Answers out of band (OOB 2 and 3): who has results offers them to the searcher by a datagram, the
//! searcher takes as many as it wants, and the results come by datagrams too. Nothing of it goes
//! through the ultrapeers in between.
//!
//! A searcher draws a token for each address that offers something; the results must repeat it, so
//! that nobody answers under an address that is not his.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use shoal_base::Time;

use super::{Effect, Node};
use crate::guid::Guid;
use crate::http::locations::may_name;
use crate::message::hit::Hit;
use crate::message::vendor::Vendor;
use crate::message::{Header, Kind, Packet};
use crate::shared::{Shared, SharedFile};

/// Offers of ours that wait to be taken, at most.
const OFFERS: usize = 64;
/// How long they wait.
const OFFERED: Duration = Duration::from_secs(30);
/// Hosts whose results we took, at most.
const TAKEN: usize = 512;
/// How long their results may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of results in one datagram, about: less than what travels in one piece.
const FULL: usize = 900;
/// Bytes of a token.
const TOKEN: usize = 8;

/// What we have for somebody's query.
#[derive(Debug)]
struct Offer {
    guid: Guid,
    to: SocketAddrV4,
    files: Vec<SharedFile>,
    until: Time,
}

/// Whose results we took.
#[derive(Debug)]
struct Taken {
    guid: Guid,
    from: SocketAddrV4,
    /// What they must repeat; none of who speaks version 2.
    token: Option<[u8; TOKEN]>,
    until: Time,
}

/// Offers made and taken.
#[derive(Debug, Default)]
pub(super) struct OutOfBand {
    offers: VecDeque<Offer>,
    taken: VecDeque<Taken>,
}

/// Where a query's GUID says that it was asked (OOB 2 §B): bytes 0 to 3, and 13 and 14.
pub(super) fn asker(guid: Guid) -> SocketAddrV4 {
    let [a, b, c, d, _, _, _, _, _, _, _, _, _, low, high, _] = guid.0;
    SocketAddrV4::new([a, b, c, d].into(), u16::from_le_bytes([low, high]))
}

/// A GUID that says so.
pub(super) fn name(mut guid: Guid, asker: SocketAddrV4) -> Guid {
    let [a, b, c, d] = asker.ip().octets();
    let [low, high] = asker.port().to_le_bytes();
    let [_, _, _, _, e, f, g, h, i, j, k, l, m, _, _, last] = guid.0;
    guid.0 = [a, b, c, d, e, f, g, h, i, j, k, l, m, low, high, last];
    guid
}

impl<S: Shared> Node<S> {
    /// Whether searches ask for answers out of band: datagrams must be known to reach us.
    pub(super) fn takes_oob(&self) -> Option<SocketAddrV4> {
        let open = self.config.oob && !self.config.firewalled && self.openness.datagrams;
        self.config.listen.filter(|_| open)
    }

    /// Offers files to who asked; false if they must go back the way the query came.
    pub(super) fn offer(
        &mut self,
        now: Time,
        guid: Guid,
        files: &[SharedFile],
        secure: bool,
        out: &mut Vec<Effect>,
    ) -> bool {
        let to = asker(guid);
        let Some(listen) = self.config.listen.filter(|_| self.config.oob) else {
            return false;
        };
        // Nobody makes us speak to machines of our own network, nor to ourselves.
        if to == listen || !may_name(IpAddr::V4(*listen.ip()), SocketAddr::V4(to)) {
            return false;
        }
        if !self.may_answer_datagram(now) {
            return false;
        }
        let offers = &mut self.oob.offers;
        offers.retain(|o| o.until > now);
        if offers.len() >= OFFERS {
            return false;
        }
        offers.push_back(Offer {
            guid,
            to,
            files: files.to_vec(),
            until: now + OFFERED,
        });
        let message = Vendor::OobReplies {
            count: u8::try_from(files.len()).unwrap_or(u8::MAX),
            reachable: self.openness.datagrams,
            secure,
        };
        self.tell(to, guid, &message, out);
        true
    }

    /// Sends a vendor message by a datagram.
    pub(super) fn tell(
        &mut self,
        to: SocketAddrV4,
        guid: Guid,
        message: &Vendor,
        out: &mut Vec<Effect>,
    ) {
        let packet = Packet::ours(Kind::Vendor, guid, 1, &message.write());
        self.openness.told(to);
        out.push(Effect::Datagram(to, packet));
    }

    /// Somebody takes what we offered.
    pub(super) fn on_oob_ack(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        guid: Guid,
        wanted: u8,
        token: &[u8],
        out: &mut Vec<Effect>,
    ) {
        let offers = &mut self.oob.offers;
        let found = offers
            .iter()
            .position(|o| o.guid == guid && o.to == from && o.until > now);
        let Some(offer) = found.and_then(|at| offers.remove(at)) else {
            return;
        };
        let Some(answerer) = self.answerer() else {
            return;
        };
        let wanted = if wanted == u8::MAX {
            usize::MAX
        } else {
            usize::from(wanted)
        };
        let files = offer.files.get(..wanted).unwrap_or(&offer.files);
        answerer.write_parts(files, FULL, token, |payload| {
            let packet = Packet::ours(Kind::Hit, guid, 1, payload);
            out.push(Effect::Datagram(from, packet));
        });
        self.stats.answered += 1;
    }

    /// Somebody has results for a query of ours.
    pub(super) fn on_oob_replies(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        guid: Guid,
        (count, secure): (u8, bool),
        out: &mut Vec<Effect>,
    ) {
        let wanted = self.searches.iter().any(|s| s.guid == guid && s.wants());
        if count == 0 || !wanted {
            return;
        }
        let taken = &mut self.oob.taken;
        taken.retain(|t| t.until > now);
        let known = taken.iter().any(|t| t.guid == guid && t.from == from);
        if known || taken.len() >= TAKEN || !self.may_answer_datagram(now) {
            return;
        }
        let mut token = [0; TOKEN];
        self.rng.fill(&mut token);
        let token = secure.then_some(token);
        self.oob.taken.push_back(Taken {
            guid,
            from,
            token,
            until: now + PATIENCE,
        });
        let message = Vendor::OobAck {
            wanted: count,
            token: token.map_or_else(Vec::new, |t| t.to_vec()),
        };
        self.tell(from, guid, &message, out);
    }

    /// Results came by a datagram: only from whom they were taken.
    pub(super) fn on_oob_hit(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        let hit = Hit::read(payload).ok()?;
        let expected = self.oob.taken.iter().any(|t| {
            let named = t.guid == header.guid && t.from == from && t.until > now;
            named && t.token.is_none_or(|token| hit.token == token)
        });
        if !expected {
            self.stats.unasked += 1;
            return None;
        }
        self.stats.hits += 1;
        self.count_results(header.guid, hit.results.len() as u32);
        self.deliver(*from.ip(), Header { hops: 0, ..header }, payload, out)
    }
}
