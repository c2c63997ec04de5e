//! The side that fetches: one host of which one file is asked. It remembers its place in the host's
//! queue from one connection to the next.
//!
//! The driver opens connections, writes what [`Client::ask`] gives, hands in what comes and, once
//! an answer's head is read, takes the body's bytes itself.

mod told;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use shoal_base::Time;

use super::head::{MAX_HEAD, head_len};
use super::queue::Queued;
use super::request::Ask;
use super::response::Response;
use super::target::Target;
use super::thex;
use crate::guid::Guid;
use crate::huge::Urn;
use crate::overlay::is_overlay;
pub use told::{ClientConfig, Event, Failure, Others, Step, Told, Want};

/// How long an answer may be waited for, and a body that does not go on.
const PATIENCE: Duration = Duration::from_secs(45);
/// Bodies that are passed over, at most: pages that explain an error.
const MAX_SKIP: u64 = 64 * 1024;
/// How long a host that is busy and says nothing of when is left alone.
const REST: Duration = Duration::from_secs(60);
/// The longest that a host may make us wait.
const MAX_WAIT: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Idle,
    /// An answer is waited for.
    Asked(Want),
    /// The driver takes so many bytes.
    Body(u64),
    /// The tree is coming, so many bytes in all.
    Tree(usize),
    /// A body nobody wants, and what is said when it is over.
    Skip(u64, Event),
}

/// One host that a file is fetched from.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    host: SocketAddr,
    /// Bytes of the file, once somebody has said so.
    len: Option<u64>,
    buf: Vec<u8>,
    stage: Stage,
    place: Option<Queued>,
    first: bool,
    /// Nobody can listen in.
    secure: bool,
    /// TLS did not come about with this host.
    clear: bool,
    keep: bool,
    deadline: Option<Time>,
}

impl Client {
    /// Nothing asked yet.
    pub fn new(config: ClientConfig, host: SocketAddr) -> Self {
        Self {
            config,
            host,
            len: None,
            buf: Vec::new(),
            stage: Stage::Idle,
            place: None,
            first: true,
            secure: false,
            clear: false,
            keep: true,
            deadline: None,
        }
    }

    /// The file's length, which answers must agree with.
    pub fn set_len(&mut self, len: u64) {
        self.len = Some(len);
    }

    /// The host is somewhere else now (its `QUEUE` said so).
    pub fn set_host(&mut self, host: SocketAddr) {
        self.host = host;
    }

    /// The name of our place in its queue.
    pub fn place(&self) -> Option<Guid> {
        self.place.map(|p| p.id)
    }

    /// Where others reach us, once that is known.
    pub fn set_node(&mut self, node: Option<SocketAddr>) {
        self.config.node = node;
    }

    /// TLS does not come about with this host: it is not proposed again.
    pub fn distrust_tls(&mut self) {
        self.clear = true;
    }

    /// A new connection is there, by TLS or not: what came on the old one counts no more.
    pub fn connected(&mut self, secure: bool) {
        self.secure = secure;
        self.buf.clear();
        self.stage = Stage::Idle;
        self.first = true;
        self.keep = true;
        self.deadline = None;
    }

    /// Whether the next request may go over the same connection.
    pub fn is_reusable(&self) -> bool {
        self.keep && self.stage == Stage::Idle
    }

    /// When [`Failure::Late`] is the verdict.
    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// The request for something. Of those who have the file a few are told.
    pub fn ask(&mut self, now: Time, want: Want, told: &Others) -> Vec<u8> {
        let own = Target::File(self.config.urn).write();
        let (target, range) = match &want {
            Want::Range(range) => (own.as_str(), Some(range.clone())),
            Want::Tree(uri) => (uri.as_str(), None),
        };
        let is_file = range.is_some();
        // Overlay addresses are of use to those alone who have one.
        let useful = |list: &[SocketAddr]| -> Vec<SocketAddr> {
            let here = is_overlay(self.host.ip());
            let list = list.iter().filter(|a| here || !is_overlay(a.ip()));
            list.copied().collect()
        };
        let (alternates, dead) = (useful(&told.alternates), useful(&told.dead));
        let ask = Ask {
            target,
            host: self.host,
            agent: &self.config.agent,
            range,
            urn: Some(self.config.urn).filter(|_| is_file),
            queued: self.place.filter(|_| is_file),
            node: self.config.node,
            alternates: &alternates,
            dead: &dead,
            tls_hosts: &told.tls,
            tls: self.config.tls,
            upgrade: self.config.tls && self.first && !self.secure && !self.clear,
            first: self.first,
        };
        let bytes = ask.write();
        self.first = false;
        self.stage = Stage::Asked(want);
        self.deadline = Some(now + PATIENCE);
        bytes
    }

    /// Bytes came. While a body comes they are the driver's, and none are taken.
    pub fn on_bytes(&mut self, now: Time, bytes: &[u8]) -> Step {
        match &self.stage {
            Stage::Idle | Stage::Body(_) => Step::default(),
            Stage::Asked(_) => self.take_head(now, bytes),
            Stage::Tree(len) => {
                let part = bytes.len().min(len.saturating_sub(self.buf.len()));
                self.buf
                    .extend_from_slice(bytes.get(..part).unwrap_or_default());
                let event = (self.buf.len() >= *len).then(|| self.finish_tree());
                Step {
                    used: part,
                    event,
                    told: None,
                }
            }
            Stage::Skip(left, event) => {
                let left = *left;
                let part = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let left = left - part as u64;
                let event = event.clone();
                let over = left == 0;
                self.stage = if over {
                    Stage::Idle
                } else {
                    Stage::Skip(left, event.clone())
                };
                Step {
                    used: part,
                    event: over.then_some(event),
                    told: None,
                }
            }
        }
    }

    /// The driver took so many bytes of the body. True: it is over.
    pub fn on_body(&mut self, now: Time, bytes: u64) -> bool {
        let Stage::Body(left) = &mut self.stage else {
            return false;
        };
        *left = left.saturating_sub(bytes);
        self.deadline = Some(now + PATIENCE);
        if *left == 0 {
            self.stage = Stage::Idle;
            self.deadline = None;
        }
        self.stage == Stage::Idle
    }

    fn finish_tree(&mut self) -> Event {
        self.stage = Stage::Idle;
        self.deadline = None;
        match thex::read(&std::mem::take(&mut self.buf)) {
            Ok(tree) if tree.file_len.zip(self.len).is_none_or(|(a, b)| a == b) => {
                Event::Tree(tree.levels)
            }
            Ok(_) => Event::Failed(Failure::OtherFile),
            Err(error) => Event::Failed(error.into()),
        }
    }

    fn fail(&mut self, failure: Failure) -> Option<Event> {
        self.stage = Stage::Idle;
        self.keep = false;
        self.deadline = None;
        Some(Event::Failed(failure))
    }

    fn take_head(&mut self, now: Time, bytes: &[u8]) -> Step {
        let seen = self.buf.len();
        let room = MAX_HEAD.saturating_sub(seen);
        let part = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        self.buf.extend_from_slice(part);
        let len = match head_len(&self.buf, seen) {
            Ok(None) => {
                return Step {
                    used: part.len(),
                    ..Step::default()
                };
            }
            Ok(Some(len)) => len,
            Err(_) => {
                return Step {
                    used: part.len(),
                    event: self.fail(Failure::Nonsense("the answer's head is too long")),
                    told: None,
                };
            }
        };
        let head = std::mem::take(&mut self.buf);
        let used = len.saturating_sub(seen);
        let Ok(answer) = Response::read(head.get(..len).unwrap_or_default()) else {
            return Step {
                used,
                event: self.fail(Failure::Nonsense("the answer is not HTTP")),
                told: None,
            };
        };
        if answer.upgrades && self.config.tls && !self.secure {
            self.secure = true;
            return Step {
                used,
                event: Some(Event::Secure),
                told: None,
            };
        }
        // 100 Continue and the like announce nothing.
        if (100..200).contains(&answer.status) {
            let rest = self.on_bytes(now, bytes.get(used..).unwrap_or_default());
            return Step {
                used: used + rest.used,
                ..rest
            };
        }
        self.keep = answer.keep_alive;
        let Stage::Asked(want) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return Step::default();
        };
        self.deadline = Some(now + PATIENCE);
        let (told, event) = match want {
            Want::Range(range) => {
                let told = told(&answer);
                if !self.is_of_the_file(&answer, &told) {
                    (None, self.fail(Failure::OtherFile))
                } else {
                    (Some(Box::new(told)), self.on_file(now, &range, &answer))
                }
            }
            Want::Tree(_) => (None, self.on_tree(now, &answer)),
        };
        if self.stage == Stage::Idle {
            self.deadline = None;
        }
        Step { used, told, event }
    }

    fn is_of_the_file(&self, answer: &Response, told: &Told) -> bool {
        let ours = |urn: &Urn| urn.agrees(&self.config.urn);
        answer.urns.iter().all(ours) && told.len.zip(self.len).is_none_or(|(a, b)| a == b)
    }

    /// An answer to a request for bytes.
    fn on_file(&mut self, now: Time, asked: &Range<u64>, answer: &Response) -> Option<Event> {
        match answer.status {
            200 | 206 => {
                if answer.packed || answer.chunked {
                    return self.fail(Failure::Nonsense("the file comes packed or in chunks"));
                }
                let range = match (&answer.content_range, answer.content_len) {
                    (Some((range, _)), _) if answer.status == 206 => range.clone(),
                    (_, Some(len)) if answer.status == 200 => 0..len,
                    _ => return self.fail(Failure::Nonsense("the answer says not which bytes")),
                };
                let len = range.end - range.start;
                if answer.content_len.is_some_and(|told| told != len) {
                    return self.fail(Failure::Nonsense("the answer's lengths differ"));
                }
                // Any part of what was asked for will do (PFSP §1).
                if range.start < asked.start || range.start >= asked.end {
                    return self.fail(Failure::Nonsense("the answer brings other bytes"));
                }
                self.place = None;
                if range.end > asked.end {
                    // More than asked for: the rest is not waited for.
                    self.keep = false;
                }
                let range = range.start..range.end.min(asked.end);
                self.stage = Stage::Body(range.end - range.start);
                Some(Event::Body(range))
            }
            503 => self.on_busy(now, answer),
            416 => self.skip(answer, Event::Lacks),
            404 | 410 => {
                let failure = Failure::NotThere(answer.status);
                self.skip(answer, Event::Failed(failure))
            }
            status => {
                let failure = Failure::Refused(status, answer.reason.clone());
                self.skip(answer, Event::Failed(failure))
            }
        }
    }

    /// Says `event` once the answer's body has been passed over.
    fn skip(&mut self, answer: &Response, event: Event) -> Option<Event> {
        let len = answer
            .content_len
            .filter(|len| *len <= MAX_SKIP && !answer.chunked);
        self.keep &= len.is_some();
        match len {
            Some(len) if self.keep && len > 0 => {
                self.stage = Stage::Skip(len, event);
                None
            }
            _ => Some(event),
        }
    }

    fn on_busy(&mut self, now: Time, answer: &Response) -> Option<Event> {
        let secs = |n: u64| Duration::from_secs(n).min(MAX_WAIT);
        let retry = answer.retry_after.map(secs);
        let short = answer.content_len.is_some_and(|len| len <= MAX_SKIP);
        let kept = self.keep && short && !answer.chunked;
        // The older kind first: PARQ's servers send no such field.
        let (wait, lifetime, position, keep) = match (&answer.legacy, &answer.queued) {
            (Some(legacy), _) => {
                let (min, max) = (secs(legacy.poll_min), secs(legacy.poll_max));
                // In the middle: neither too early nor, for a slow line, too late.
                let wait = min + (max - min) / 4;
                (wait, max, Some(legacy.position), kept)
            }
            (None, Some(queued)) => {
                self.place = Some(*queued);
                let wait = retry.unwrap_or(REST);
                let lifetime = queued.lifetime.map_or(wait + REST, secs);
                (wait, lifetime.max(wait), Some(queued.position), kept)
            }
            (None, None) => {
                let wait = retry.unwrap_or(REST);
                (wait, MAX_WAIT, None, false)
            }
        };
        let event = Event::Wait {
            at: now + wait,
            until: now + lifetime,
            position,
            keep,
        };
        self.skip(answer, event)
    }

    /// An answer to a request for the tree.
    fn on_tree(&mut self, now: Time, answer: &Response) -> Option<Event> {
        match (answer.status, answer.content_len) {
            (200 | 206, Some(len)) if !answer.chunked && !answer.packed => {
                let Some(len) = usize::try_from(len).ok().filter(|l| *l <= thex::MAX_LEN) else {
                    return self.fail(thex::ThexError::TooLong.into());
                };
                self.stage = Stage::Tree(len);
                if len == 0 {
                    return Some(self.finish_tree());
                }
                None
            }
            (200 | 206, _) => self.fail(Failure::Nonsense("the tree says not how long it is")),
            (503, _) => self.on_busy(now, answer),
            (status, _) => self.skip(answer, Event::Failed(Failure::NotThere(status))),
        }
    }
}

fn told(answer: &Response) -> Told {
    let whole = answer.content_len.filter(|_| answer.status == 200);
    let total = answer.content_range.as_ref().and_then(|(_, total)| *total);
    Told {
        len: total.or(whole).or(answer.unsatisfied),
        tree: answer.tree.clone(),
        available: answer.available.clone(),
        alternates: answer.alternates.clone(),
        tls: answer.tls.clone(),
        speaks_tls: answer.speaks_tls,
        dead: answer.dead.clone(),
        pushed: answer.pushed.clone(),
        name: answer.name.clone(),
    }
}

#[cfg(test)]
mod tests;
