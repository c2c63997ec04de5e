//! Finding the ways between two nodes and keeping the best: connectivity checks as ICE makes them
//! (RFC 8445), for as long as the nodes talk.
//!
//! ```text
//!  ours     socket ─┬─> their host, mapped (or seen) address      no relay
//!                   └─> their relayed address                      one: theirs
//!           relay ──┬─> their mapped (or seen) address             one: ours
//!                   └─> their relayed address                      two
//! ```
//!
//! Checks are Binding requests with the other's name and password. Two things differ from ICE: every
//! side sends on the best way that answers *it*, so that nobody has to be asked before one fails
//! over; and checking never ends, so that a way which comes later (a hole that opens, a relay that
//! was started) is found, and one that dies is left within about half a second. What is sent may
//! arrive by any way that either side has proved.

mod checks;
mod pair;
pub mod signal;

use crate::stun::Key;
use pair::{Pair, State};
use shoal_base::time::earliest;
use shoal_base::{Rng, Time};
use signal::{Candidate, Login, MAX_CANDIDATES, Signal};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One of our relays, numbered by whoever keeps them.
pub type RelayId = u32;

/// From where a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// From our socket.
    Direct,
    /// From our address at this relay.
    Relay(RelayId),
}

/// A way to the other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// From where.
    pub base: Base,
    /// To where.
    pub peer: SocketAddr,
}

/// What an agent wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this.
    Send(Path, Vec<u8>),
    /// Have the relay let this address in.
    Permit(RelayId, SocketAddr),
    /// Tell the other node.
    Signal(Signal),
    /// Data goes by this way from now on; none: there is none.
    Path(Option<Path>),
}

/// The way in use, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse {
    /// The way.
    pub path: Path,
    /// Relays on it.
    pub hops: u8,
    /// Its round trip.
    pub rtt: Duration,
}

/// How often the way in use is checked while data flows, and else.
const CHECK_BUSY: Duration = Duration::from_millis(250);
const CHECK_IDLE: Duration = Duration::from_secs(2);
/// After how long without data nothing flows.
const IDLE: Duration = Duration::from_secs(3);
/// How long a way that had died must work before it is preferred again.
const PROBATION: Duration = Duration::from_secs(3);
/// How often a shorter way of the same kind may be changed to.
const SETTLE: Duration = Duration::from_secs(2);
/// Round trips of direct ways that differ by no more are alike, of which one is by IPv6.
const ALIKE: Duration = Duration::from_millis(10);
/// For how long after a change it is the last way that losses are laid to.
const LAST_WAY: Duration = Duration::from_millis(700);
/// How long a signal is repeated that nobody answers.
const SIGNALLING: Duration = Duration::from_secs(30);
const FIRST_REPEAT: Duration = Duration::from_millis(400);
const LAST_REPEAT: Duration = Duration::from_secs(5);

/// The ways between us and one other node.
#[derive(Debug)]
pub struct Agent {
    rng: Rng,
    born: u64,
    ours: Login,
    our_key: Key,
    seq: u32,
    /// What the other has of ours.
    acked: u32,
    candidates: Vec<Candidate>,
    relays: Vec<(RelayId, IpAddr)>,
    /// What else counts against ways by the relays there.
    busy_relays: Vec<(IpAddr, Duration)>,
    /// Nothing leaves our socket for the other but by relays.
    hidden: bool,
    theirs: Option<Theirs>,
    pairs: Vec<Pair>,
    /// Ways by which a check came before we knew how to check back.
    early: Vec<Path>,
    chosen: Option<Path>,
    chosen_at: Time,
    busy: Time,
    began: Time,
    repeat: Option<(Time, Duration)>,
}

#[derive(Debug)]
struct Theirs {
    born: u64,
    login: Login,
    key: Key,
    seq: u32,
    candidates: Vec<Candidate>,
}

impl Agent {
    /// An agent that was not told anything yet. `fresh`: random bytes that are used for nothing else;
    /// `unix`: microseconds since 1970.
    pub fn new(now: Time, unix: u64, fresh: [u8; 24], rng: &mut Rng) -> Self {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(fresh);
        let (name, password) = text.split_at(8);
        let ours = Login {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        Self {
            rng: rng.fork(),
            born: unix,
            our_key: Key::short_term(ours.password.as_bytes()),
            ours,
            seq: 0,
            acked: 0,
            candidates: Vec::new(),
            relays: Vec::new(),
            busy_relays: Vec::new(),
            hidden: false,
            theirs: None,
            pairs: Vec::new(),
            early: Vec::new(),
            chosen: None,
            chosen_at: Time::ZERO,
            busy: Time::ZERO,
            began: now,
            repeat: None,
        }
    }

    /// From now on only ways by our relays are tried, so that the other does not learn our address.
    /// To be told before anything else.
    pub fn hide(&mut self) {
        self.hidden = true;
    }

    /// The name that checks of the other begin with: ours.
    pub fn name(&self) -> &str {
        &self.ours.name
    }

    /// Whether the other node has answered.
    pub fn is_answered(&self) -> bool {
        self.theirs.is_some()
    }

    /// How many candidates we told, and they did.
    pub fn told(&self) -> (usize, usize) {
        let theirs = self.theirs.as_ref().map_or(0, |t| t.candidates.len());
        (self.candidates.len(), theirs)
    }

    /// The way in use.
    pub fn in_use(&self) -> Option<InUse> {
        let pair = self.pair(self.chosen?)?;
        Some(InUse {
            path: pair.path,
            hops: pair.hops,
            rtt: pair.rtt,
        })
    }

    /// Ways that work, with the relays on them and their round trips.
    pub fn working(&self) -> impl Iterator<Item = InUse> {
        let works = self.pairs.iter().filter(|p| p.works());
        works.map(|p| InUse {
            path: p.path,
            hops: p.hops,
            rtt: p.rtt,
        })
    }

    fn pair(&self, path: Path) -> Option<&Pair> {
        self.pairs.iter().find(|p| p.path == path)
    }

    /// Whether data flowed lately.
    pub fn is_busy(&self, now: Time) -> bool {
        self.busy > Time::ZERO && now.since(self.busy) < IDLE
    }

    /// Data was sent.
    pub fn on_sent(&mut self, now: Time) {
        if now.since(self.busy) >= IDLE
            && let Some(chosen) = self.chosen
            && let Some(pair) = self.pairs.iter_mut().find(|p| p.path == chosen)
        {
            // What is sent after a silence is watched at once.
            pair.next = pair.next.min(now);
        }
        self.busy = now;
    }

    /// Of what somebody above sent so many packets left since the last time, and so many were found to be
    /// lost: a relay that is at its limit, or on a bad line, is left for another.
    pub fn on_carried(&mut self, now: Time, sent: u64, lost: u64, out: &mut Vec<Output>) {
        // What is found to be lost at first went by the last way.
        if now.since(self.chosen_at) < LAST_WAY {
            return;
        }
        let chosen = self.chosen;
        let Some(pair) = self.pairs.iter_mut().find(|p| Some(p.path) == chosen) else {
            return;
        };
        if let Some(loss) = pair.carries(now, sent, lost) {
            let (path, hops) = (pair.path, pair.hops);
            // Most likely the relay's: the other ways by it are no better.
            let relays = self.relays_on(path, hops);
            self.through(&relays).for_each(|p| p.loses(now, loss));
        }
        self.choose(now, out);
    }

    /// Relays that are busy, and what that counts as beside the round trip.
    pub fn set_busy(&mut self, now: Time, busy: &[(IpAddr, Duration)], out: &mut Vec<Output>) {
        if self.busy_relays != busy {
            self.busy_relays = busy.to_vec();
            self.choose(now, out);
        }
    }

    /// What counts against a way: the less the better.
    fn cost(&self, now: Time, pair: &Pair) -> Duration {
        let mut cost = pair.cost(now);
        if pair.is_older() {
            cost += ALIKE;
        }
        if pair.hops > 0 && !self.busy_relays.is_empty() {
            let on = self.relays_on(pair.path, pair.hops);
            let busy = self.busy_relays.iter().filter(|(ip, _)| on.contains(ip));
            cost += busy.map(|(_, cost)| *cost).sum::<Duration>();
        }
        cost
    }

    /// Data came by this way; whether it is one of ours.
    pub fn on_data(&mut self, now: Time, path: Path) -> bool {
        match self.pairs.iter_mut().find(|p| p.path == path) {
            Some(pair) if pair.works() || pair.heard > Time::ZERO => {
                pair.heard = now;
                self.busy = now;
                true
            }
            _ => false,
        }
    }

    /// Our addresses and relays, with where these are; those at relays are among the candidates. Relays that are not named
    /// any more are gone.
    pub fn set_local(
        &mut self,
        now: Time,
        mut candidates: Vec<Candidate>,
        relays: Vec<(RelayId, IpAddr)>,
        out: &mut Vec<Output>,
    ) {
        candidates.truncate(MAX_CANDIDATES);
        let known = |id| relays.iter().any(|(relay, _)| *relay == id);
        let gone = |p: &Path| matches!(p.base, Base::Relay(id) if !known(id));
        self.pairs.retain(|p| !gone(&p.path));
        self.early.retain(|p| !gone(p));
        self.relays = relays;
        if self.candidates != candidates || self.seq == 0 {
            // Whoever hears from a new address of ours opens its NAT for it; so do we.
            self.pairs.iter_mut().for_each(|p| p.retry(now));
            self.candidates = candidates;
            self.seq += 1;
            self.repeat = Some((now + FIRST_REPEAT, FIRST_REPEAT));
            self.tell(out);
        }
        self.form(now, out);
        self.choose(now, out);
    }

    fn tell(&self, out: &mut Vec<Output>) {
        out.push(Output::Signal(Signal {
            born: self.born,
            login: self.ours.clone(),
            seq: self.seq,
            has: self.theirs.as_ref().map(|t| (t.login.name.clone(), t.seq)),
            asks: self.acked < self.seq,
            candidates: self.candidates.clone(),
        }));
    }

    /// The other node told us.
    pub fn on_signal(&mut self, now: Time, signal: Signal, out: &mut Vec<Output>) {
        if self.theirs.as_ref().is_some_and(|t| signal.born < t.born) {
            return;
        }
        let same = |t: &&mut Theirs| t.login == signal.login;
        let new = match self.theirs.as_mut().filter(same) {
            Some(theirs) => {
                let new = signal.seq > theirs.seq;
                if new {
                    (theirs.seq, theirs.candidates) = (signal.seq, signal.candidates);
                }
                new
            }
            None => {
                // Another life of that node: nothing of the last one holds.
                self.pairs.clear();
                let known = self.theirs.is_some();
                self.theirs = Some(Theirs {
                    born: signal.born,
                    key: Key::short_term(signal.login.password.as_bytes()),
                    login: signal.login,
                    seq: signal.seq,
                    candidates: signal.candidates,
                });
                if known {
                    self.acked = 0;
                    self.repeat = Some((now + FIRST_REPEAT, FIRST_REPEAT));
                }
                true
            }
        };
        if let Some((name, seq)) = signal.has
            && name == self.ours.name
            && seq <= self.seq
        {
            self.acked = self.acked.max(seq);
        }
        if self.acked >= self.seq {
            self.repeat = None;
        }
        if self.seq > 0 && (new || signal.asks) {
            self.tell(out);
        }
        if new {
            self.form(now, out);
            self.look(now, out);
        }
    }

    /// Where the relays on a way are.
    fn relays_on(&self, path: Path, hops: u8) -> Vec<IpAddr> {
        let ours = self
            .relays
            .iter()
            .filter(|(id, _)| path.base == Base::Relay(*id));
        let mut on: Vec<IpAddr> = ours.map(|(_, ip)| *ip).collect();
        if usize::from(hops) > on.len() {
            on.push(path.peer.ip());
        }
        on
    }

    /// The pairs on which one of these relays is.
    fn through(&mut self, relays: &[IpAddr]) -> impl Iterator<Item = &mut Pair> {
        let on = |p: &Pair| {
            let on = self.relays_on(p.path, p.hops);
            on.iter().any(|r| relays.contains(r))
        };
        let those: Vec<bool> = self.pairs.iter().map(on).collect();
        let pairs = self.pairs.iter_mut().zip(those);
        pairs.filter_map(|(pair, is)| is.then_some(pair))
    }

    fn choose(&mut self, now: Time, out: &mut Vec<Output>) {
        let rank = |p: &Pair| (p.hops, self.cost(now, p));
        let settled = |p: &&Pair| match p.state {
            State::Works { since, again } => !again || now.since(since) >= PROBATION,
            State::Trying { .. } => false,
        };
        let works = || self.pairs.iter().filter(|p| p.works());
        let best = works().filter(settled).min_by_key(|p| rank(p));
        let best = best.or_else(|| works().min_by_key(|p| rank(p)));
        let current = self.chosen.and_then(|path| self.pair(path));
        let current = current.filter(|p| p.works());
        let chosen = match (current, best) {
            (None, best) => best.map(|p| p.path),
            (Some(current), None) => Some(current.path),
            (Some(current), Some(best)) => {
                let (new, old) = (self.cost(now, best), self.cost(now, current));
                let much_better = new * 10 + Duration::from_millis(20) < old * 7;
                let newer = current.is_older() && !best.is_older() && new <= old;
                let calm = now.since(self.chosen_at) >= SETTLE;
                let worth = (much_better || newer) && calm;
                let better = best.hops < current.hops || (best.hops == current.hops && worth);
                Some(if better { best.path } else { current.path })
            }
        };
        if chosen != self.chosen {
            (self.chosen, self.chosen_at) = (chosen, now);
            if let Some(pair) = self.pairs.iter_mut().find(|p| Some(p.path) == chosen) {
                pair.next = pair.next.min(now + CHECK_BUSY);
            }
            out.push(Output::Path(chosen));
        }
    }

    /// The deadline has come.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some((at, wait)) = self.repeat
            && now >= at
        {
            self.tell(out);
            let wait = (wait * 2).min(LAST_REPEAT);
            let on = now.since(self.began) < SIGNALLING || self.theirs.is_some();
            self.repeat = on.then_some((now + wait, wait));
        }
        if self.theirs.is_some() {
            self.look(now, out);
        }
    }

    /// When [`Agent::on_tick`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        let repeat = self.repeat.map(|(at, _)| at);
        if self.theirs.is_none() {
            return repeat;
        }
        let pairs = self.pairs.iter().map(Pair::deadline).min();
        earliest(repeat, pairs)
    }
}

/// Whether relays would send there: a guess that spares the asking.
fn is_public(addr: SocketAddr) -> bool {
    match addr.ip() {
        IpAddr::V4(ip) => !(ip.is_private() || ip.is_loopback() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || (ip.segments()[0] & 0xfe00) == 0xfc00),
    }
}

#[cfg(test)]
mod tests;
