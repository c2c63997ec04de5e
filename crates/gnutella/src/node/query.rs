//! Queries and hits: answered, passed on, brought back, and our own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use shoal_base::Time;

use super::dynamic::Asker;
use super::oob;
use super::pings::onward;
use super::{Answer, ConnId, Effect, FoundFile, Load, Mode, Node, Relation, Route, Way};
use crate::guid::Guid;
use crate::http::locations::may_name;
use crate::huge::Urn;
use crate::message::hit::{Answerer, Hit, Status, peek};
use crate::message::query::{self, Flags, MAX_TEXT, Query, Wanted};
use crate::message::vendor::{ENOUGH, Vendor};
use crate::message::{Header, Kind, Packet};
use crate::qrp::{Probe, hash, slot};
use crate::shared::{Shared, SharedFile};
use crate::words::{self, fold};

/// Queries of our own at once.
const SEARCHES: usize = 64;

/// A query of our own.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) guid: Guid,
    words: Vec<String>,
    wanted: Wanted,
    /// Results that matched.
    pub(super) kept: u32,
    /// Nobody wants more.
    over: bool,
}

impl Search {
    /// Whether more results are of use.
    pub(super) fn wants(&self) -> bool {
        !self.over
    }
}

/// One of 64 classes of a query, by what it asks for, for [`super::guard::Answerers`].
fn class(text: &[u8], urns: &[Urn]) -> u8 {
    let hash = match urns {
        [] => hash(text),
        [first, ..] => hash(first.to_string().as_bytes()),
    };
    slot(hash, 6) as u8
}

impl<S: Shared> Node<S> {
    pub(super) fn on_query(
        &mut self,
        now: Time,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        self.stats.queries += 1;
        let query = Query::read(payload).ok()?;
        if query.text.len() > MAX_TEXT || header.ttl == 0 {
            return None;
        }
        let mut header = header;
        if self.config.mode == Mode::Ultrapeer {
            let reach = self.config.query_reach;
            if header.hops >= reach {
                self.stats.far += 1;
                return Some(());
            }
            header.ttl = header.ttl.min(reach - header.hops);
        }
        let (peers, leaves) = self.config.query_rate;
        let link = self.link_mut(id)?;
        let leaf = link.relation == Relation::Leaf;
        let rate = if leaf { leaves } else { peers } as f32;
        if !link.conduct.queries.take(now, rate, rate.max(5.0) * 10.0) {
            link.conduct.too_fast += 1;
            self.stats.too_fast += 1;
            return Some(());
        }
        let mut known = false;
        if let Some(route) = self.routes.get(header.guid, Way::Query) {
            // The same neighbour may ask again with a higher TTL: a dynamic query goes on.
            let further = route.conn == Some(id) && header.ttl > route.ttl && !leaf;
            if !further {
                self.stats.duplicates += 1;
                if route.conn == Some(id) {
                    self.link_mut(id)?.conduct.repeated += 1;
                }
                return Some(());
            }
            known = true;
        }
        let wanted = query.wanted();
        let text = class(query.text, &wanted.urns);
        let route = Route {
            conn: Some(id),
            ttl: header.ttl,
            text,
        };
        self.routes.set(now, header.guid, Way::Query, route);
        if !known {
            self.answerers.on_query(text);
            self.answer(now, id, &header, &query, &wanted, out);
        }
        match self.config.mode {
            Mode::Leaf => {}
            Mode::Flood => {
                if let Some(next) = onward(header) {
                    self.send_to_others(Some(id), &Packet::new(next, payload), out);
                }
            }
            Mode::Ultrapeer => {
                let probe = Probe::of_text(query.text, &wanted.urns);
                if !known {
                    self.query_leaves(Some(id), header, payload, &probe, out);
                }
                if leaf {
                    let asker = Asker {
                        conn: Some(id),
                        guided: query.flags.has(Flags::GUIDED),
                        wanted: self.config.leaf_wanted,
                    };
                    self.start_query(now, header.guid, payload, probe, asker);
                    self.step_queries(now, out);
                } else if let Some(next) = onward(header) {
                    self.query_peers(id, next, payload, &probe, out);
                }
            }
        }
        Some(())
    }

    /// Passes a query on to the leaves whose tables have its words; whatever its TTL, for leaves are
    /// a part of their ultrapeer (Ultrapeer Query Routing §2.4).
    pub(super) fn query_leaves(
        &mut self,
        not: Option<ConnId>,
        header: Header,
        payload: &[u8],
        probe: &Probe,
        out: &mut Vec<Effect>,
    ) {
        self.slots.clear();
        let mut shielded = 0;
        for link in self.links.iter().flatten() {
            if link.relation != Relation::Leaf || Some(link.id) == not {
                continue;
            }
            let table = link.table.table();
            let hit = table.is_some_and(|t| t.may_answer(probe)) && header.hops < link.hops_flow;
            if hit {
                self.slots.push(link.id.slot());
            } else {
                shielded += 1;
            }
        }
        self.stats.shielded += shielded;
        let next = Header {
            ttl: 1,
            hops: header.hops + 1,
            ..header
        };
        self.send_to_slots(next, payload, out);
    }

    /// Passes a query on to ultrapeers: to all, or on its last hop to those whose tables have its
    /// words.
    fn query_peers(
        &mut self,
        from: ConnId,
        next: Header,
        payload: &[u8],
        probe: &Probe,
        out: &mut Vec<Effect>,
    ) {
        self.slots.clear();
        let mut shielded = 0;
        for link in self.links.iter().flatten() {
            if link.relation != Relation::Peer || link.id == from {
                continue;
            }
            let vain = next.ttl == 1 && link.table.table().is_some_and(|t| !t.may_answer(probe));
            if vain || next.hops >= link.hops_flow {
                shielded += 1;
            } else {
                self.slots.push(link.id.slot());
            }
        }
        self.stats.shielded += shielded;
        self.send_to_slots(next, payload, out);
    }

    /// Sends one message to the neighbours in `self.slots`.
    fn send_to_slots(&mut self, header: Header, payload: &[u8], out: &mut Vec<Effect>) {
        if self.slots.is_empty() {
            return;
        }
        let packet = Packet::new(header, payload);
        let slots = std::mem::take(&mut self.slots);
        for slot in &slots {
            let id = self.links.get(*slot).and_then(|l| l.as_ref()).map(|l| l.id);
            if let Some(id) = id {
                self.send(id, packet.clone(), out);
            }
        }
        self.slots = slots;
    }

    /// Answers a query from what we share.
    fn answer(
        &mut self,
        now: Time,
        id: ConnId,
        header: &Header,
        query: &Query<'_>,
        wanted: &Wanted,
        out: &mut Vec<Effect>,
    ) {
        let Some(answerer) = self.answerer() else {
            return;
        };
        let mut files = std::mem::take(&mut self.files);
        files.clear();
        for urn in &wanted.urns {
            files.extend(self.shared.find(urn));
        }
        if wanted.urns.is_empty() {
            let words = fold(query.text);
            if !words.is_empty() {
                self.shared.search(&words, self.config.answers, &mut files);
                files.truncate(self.config.answers);
            }
        }
        // A neighbour's own query is answered on the connection that is there (OOB 2 §G).
        let oob = query.flags.has(Flags::OUT_OF_BAND) && header.hops > 0;
        let offered = oob
            && !files.is_empty()
            && self.offer(now, header.guid, &files, query.wants_token(), out);
        if !files.is_empty() && !offered {
            let mut hits = Vec::new();
            let ttl = (header.hops + 2).min(self.config.max_ttl);
            answerer.write(&files, |payload| {
                hits.push(Packet::ours(Kind::Hit, header.guid, ttl, payload));
            });
            for hit in hits {
                self.stats.answered += 1;
                self.send(id, hit, out);
            }
        }
        self.files = files;
        self.answer_for_others(id, header, query, wanted, out);
    }

    /// Answers a query for hosts for whom we do: a hit names one host, so that each has its own.
    fn answer_for_others(
        &mut self,
        id: ConnId,
        header: &Header,
        query: &Query<'_>,
        wanted: &Wanted,
        out: &mut Vec<Effect>,
    ) {
        let words = match wanted.urns.is_empty() {
            true => fold(query.text),
            false => Vec::new(),
        };
        if words.is_empty() && wanted.urns.is_empty() {
            return;
        }
        let most = self.config.answers;
        let found = self.shared.elsewhere(&words, &wanted.urns, most);
        let mut by_host: BTreeMap<SocketAddrV4, Vec<SharedFile>> = BTreeMap::new();
        for (host, file) in found.into_iter().take(most) {
            by_host.entry(host).or_default().push(file);
        }
        for (host, files) in by_host {
            let Some(answerer) = self.answerer_of(host) else {
                return;
            };
            let mut hits = Vec::new();
            let ttl = (header.hops + 2).min(self.config.max_ttl);
            answerer.write(&files, |payload| {
                hits.push(Packet::ours(Kind::Hit, header.guid, ttl, payload));
            });
            for hit in hits {
                self.stats.answered += 1;
                self.send(id, hit, out);
            }
        }
    }

    /// What is the same in all hits that we tell for another host. Its name is made of ours and its
    /// address: nobody can push to it by us, and each host is another.
    fn answerer_of(&self, host: SocketAddrV4) -> Option<Answerer> {
        let Guid(mut name) = self.servent;
        let own = host
            .ip()
            .octets()
            .into_iter()
            .chain(host.port().to_be_bytes());
        name.iter_mut().zip(own).for_each(|(to, byte)| *to ^= byte);
        Some(Answerer {
            addr: host,
            proxies: Vec::new(),
            browsable: false,
            overlay: None,
            servent: Guid(name),
            status: Status {
                firewalled: Some(false),
                busy: Some(false),
                ..Status::default()
            },
            ..self.answerer()?
        })
    }

    /// What is the same in all our hits; none while we do not know where we are.
    pub(super) fn answerer(&self) -> Option<Answerer> {
        // Who is on the overlay is reached there, even if it does not know its own address.
        let nowhere = self
            .config
            .overlay
            .map(|o| (Ipv4Addr::UNSPECIFIED, o.port()));
        let nowhere = nowhere.map(|(ip, port)| SocketAddrV4::new(ip, port));
        Some(Answerer {
            addr: self.config.listen.or(nowhere)?,
            speed: self.config.speed,
            vendor: self.config.vendor,
            status: Status {
                firewalled: Some(self.is_firewalled()),
                busy: Some(self.load != Load::Free),
                ..Status::default()
            },
            proxies: self.links().filter_map(|l| l.proxy).collect(),
            browsable: true,
            tls: self.config.tls,
            overlay: self.config.overlay,
            servent: self.servent,
        })
    }

    pub(super) fn on_hit(
        &mut self,
        now: Time,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        self.stats.hits += 1;
        let (count, servent) = peek(payload)?;
        let route = self.routes.get(header.guid, Way::Query);
        // What was never asked, and an answer from the one who asked.
        let Some(route) = route.filter(|r| r.conn != Some(id)) else {
            self.stats.unasked += 1;
            self.link_mut(id)?.conduct.unasked += 1;
            return Some(());
        };
        if !self.answerers.on_answer(servent, route.text) {
            self.stats.liars += 1;
            return Some(());
        }
        // A servent stays where it was first heard of while that neighbour is there: nobody can draw
        // its Pushes to himself.
        let known = self.routes.get(servent, Way::Servent);
        let there = known
            .and_then(|r| r.conn)
            .filter(|c| self.link(*c).is_some());
        if there.is_none_or(|there| there == id) && !servent.is_blank() {
            let way = Route::to(Some(id));
            self.routes.set(now, servent, Way::Servent, way);
        }
        self.count_results(header.guid, u32::from(count));
        let Some(to) = route.conn else {
            let teller = *self.link(id)?.addr.ip();
            return self.deliver(teller, header, payload, out);
        };
        // The last hop to a leaf is made even when the TTL ends.
        let leaf = self.link(to).is_some_and(|l| l.relation == Relation::Leaf);
        let ttl = header.ttl.max(if leaf { 2 } else { 0 });
        if let Some(next) = onward(Header { ttl, ..header }) {
            self.send(to, Packet::new(next, payload), out);
        }
        Some(())
    }

    /// Takes a hit for a query of our own, which came from `teller`; results that do not match are left out.
    ///
    /// A servent that tells an address of our own network, which a stranger cannot mean, is one that nobody
    /// can connect to: so does one behind a router that knows no better.
    pub(super) fn deliver(
        &mut self,
        teller: Ipv4Addr,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        let hit = Hit::read(payload).ok()?;
        // Late, for a search that others took the place of: nobody's fault.
        let Some(search) = self.searches.iter_mut().find(|s| s.guid == header.guid) else {
            return Some(());
        };
        let mut files = Vec::new();
        for found in &hit.results {
            let file = FoundFile::of(found);
            let has = |urn: &Urn| {
                urn.sha1().is_some_and(|s| found.sha1 == Some(s))
                    || urn.tiger().is_some_and(|t| found.tiger == Some(t))
            };
            let matches = match search.wanted.urns.as_slice() {
                [] => words::has_all(&file.name, &search.words),
                urns => urns.iter().any(has),
            };
            if matches {
                files.push(file);
            } else {
                self.stats.mismatched += 1;
            }
        }
        if files.is_empty() || search.over {
            return Some(());
        }
        search.kept += files.len() as u32;
        let named = |addr: &SocketAddrV4| may_name(teller.into(), (*addr).into());
        files
            .iter_mut()
            .for_each(|file| file.sources.retain(|addr| named(addr)));
        let mut answer = Answer::of(hit, header.hops + 1, files);
        answer.proxies.retain(named);
        if !named(&answer.addr) {
            answer.status.firewalled = Some(true);
        }
        out.push(Effect::Found {
            search: header.guid,
            answer: Box::new(answer),
        });
        Some(())
    }

    /// Asks for files; answers come as [`Effect::Found`] with the name returned here.
    pub fn search(&mut self, now: Time, text: &str, wanted: Wanted, out: &mut Vec<Effect>) -> Guid {
        let mut guid = Guid::random(&mut self.rng);
        let words = fold(text.as_bytes());
        let mut flags = Flags::GGEP_H;
        if let Some(listen) = self.takes_oob() {
            guid = oob::name(guid, listen);
            flags |= Flags::OUT_OF_BAND;
        }
        if self.config.mode == Mode::Leaf {
            flags |= Flags::GUIDED;
        }
        if self.config.listen.is_none() || self.config.firewalled {
            flags |= Flags::FIREWALLED;
        }
        // The words and not the text: what is asked for is what will be looked for in the names.
        let payload = query::write(flags, words.join(" ").as_bytes(), &wanted);
        let probe = Probe::new(&words, &wanted.urns);
        let text = class(words.join(" ").as_bytes(), &wanted.urns);
        self.answerers.on_query(text);
        let ours = Route {
            text,
            ..Route::to(None)
        };
        self.routes.set(now, guid, Way::Query, ours);
        if self.searches.len() >= SEARCHES {
            let oldest = self.searches.remove(0);
            out.push(Effect::Searched(oldest.guid));
        }
        self.searches.push(Search {
            guid,
            words,
            wanted,
            kept: 0,
            over: false,
        });
        if self.config.mode == Mode::Ultrapeer {
            let header = Header {
                guid,
                kind: Kind::Query.byte(),
                ttl: 1,
                hops: 0,
                len: 0,
            };
            self.query_leaves(None, header, &payload, &probe, out);
            let asker = Asker {
                conn: None,
                guided: false,
                wanted: self.config.wanted,
            };
            self.start_query(now, guid, &payload, probe, asker);
            self.step_queries(now, out);
        } else {
            let packet = Packet::ours(Kind::Query, guid, self.config.ttl, &payload);
            self.send_to_others(None, &packet, out);
        }
        guid
    }

    /// No more answers to a query of ours are wanted.
    pub fn end_search(&mut self, guid: Guid, out: &mut Vec<Effect>) {
        self.dynamics.remove(guid);
        let Some(search) = self.searches.iter_mut().find(|s| s.guid == guid) else {
            return;
        };
        search.over = true;
        let shields = self.links().filter(|l| l.relation == Relation::Shield);
        let shields: Vec<ConnId> = shields.map(|l| l.id).collect();
        for id in shields {
            self.send_vendor(id, guid, &Vendor::Status(ENOUGH), out);
        }
    }

    /// Our ultrapeer asks how many results we kept (Leaf Guidance).
    pub(super) fn answer_status(&mut self, id: ConnId, guid: Guid, out: &mut Vec<Effect>) {
        let Some(search) = self.searches.iter().find(|s| s.guid == guid) else {
            return;
        };
        let kept = u16::try_from(search.kept).unwrap_or(ENOUGH - 1);
        let kept = if search.over {
            ENOUGH
        } else {
            kept.min(ENOUGH - 1)
        };
        self.send_vendor(id, guid, &Vendor::Status(kept), out);
    }
}
