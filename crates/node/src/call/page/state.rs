//! What the page has not been told yet, and the calls that it has.

use crate::call::CallEvent;
use serde::Serialize;
use shoal_base::id::to_hex;
use shoal_call::media::say::Group;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// News kept for a page that does not ask.
const MOST_NEWS: usize = 200;

/// What happened to a call.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum News {
    /// Somebody calls.
    Incoming {
        /// His key.
        key: String,
        /// His offer.
        sdp: String,
        /// The node carries the sound: the browser needs no addresses of its own.
        carried: bool,
        /// Somebody whom the user said yes to has named him: no need to ask.
        named: bool,
    },
    /// A call of a group was taken: its other members are to be called.
    Group {
        /// The group.
        group: Group,
        /// Keys of those whom we call; the others call us.
        call: Vec<String>,
    },
    /// Others mix for the group that the call is of: the first of them who is there.
    Host {
        /// The group, without members: so one of these is called to be mixed.
        group: Group,
        /// Their keys.
        hosts: Vec<String>,
        /// The key of who says so.
        caller: String,
    },
    /// The other end, which mixes, is about to hang up.
    Away,
    /// It rings there.
    Ringing,
    /// Both ends know of each other.
    Described {
        /// The other's key.
        key: String,
        /// To be compared.
        digits: String,
    },
    /// The answer is there.
    Answered {
        /// It.
        sdp: String,
        /// The other end takes part in the call's group.
        joins: bool,
    },
    /// The way of the connection that carries the call, or another one.
    Way {
        /// Relays on it, ours and theirs; none when it is direct.
        relays: Vec<String>,
    },
    /// There is no call, or no longer, and why.
    Failed {
        /// Why.
        why: String,
    },
    /// Somebody hung up.
    Ended {
        /// What the page says.
        why: String,
    },
}

#[derive(Debug, Serialize, Clone)]
pub(super) struct Item {
    id: u64,
    #[serde(flatten)]
    news: News,
}

#[derive(Debug)]
struct Open {
    stop: Arc<AtomicBool>,
    /// The page's answer, if it gave one; refused if that is none.
    answer: Option<Option<String>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The number of the first one kept.
    first: u64,
    news: VecDeque<Item>,
    calls: BTreeMap<u64, Open>,
    next_id: u64,
}

/// Shared by all requests and calls.
#[derive(Debug, Default)]
pub(super) struct State {
    inner: Mutex<Inner>,
    more: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new call, with the flag that ends it; none if there are `most`.
    pub(super) fn open(&self, most: usize) -> Option<(u64, Arc<AtomicBool>)> {
        let mut inner = self.lock();
        if inner.calls.len() >= most {
            return None;
        }
        inner.next_id += 1;
        let (id, stop) = (inner.next_id, Arc::<AtomicBool>::default());
        let open = Open {
            stop: Arc::clone(&stop),
            answer: None,
        };
        inner.calls.insert(id, open);
        Some((id, stop))
    }

    /// A call is over; how many are left.
    pub(super) fn close(&self, id: u64) -> usize {
        let mut inner = self.lock();
        inner.calls.remove(&id);
        inner.calls.len()
    }

    pub(super) fn tell(&self, id: u64, news: News) {
        let mut inner = self.lock();
        if inner.news.len() >= MOST_NEWS {
            inner.news.pop_front();
            inner.first += 1;
        }
        inner.news.push_back(Item { id, news });
        drop(inner);
        self.more.notify_all();
    }

    pub(super) fn tell_event(&self, id: u64, event: &CallEvent) {
        match event {
            CallEvent::Ringing => self.tell(id, News::Ringing),
            CallEvent::Described { key, digits } => self.tell(
                id,
                News::Described {
                    key: to_hex(key),
                    digits: digits.clone(),
                },
            ),
            // The rest is the browser's to know.
            _ => {}
        }
    }

    /// News from number `since` on, waited for if there are none; and the number of the next.
    pub(super) fn since(&self, since: u64, limit: Duration, stop: &AtomicBool) -> (Vec<Item>, u64) {
        let end = Instant::now() + limit;
        let mut inner = self.lock();
        loop {
            let next = inner.first + inner.news.len() as u64;
            // A page that knows more than there is was made by another run.
            let since = if since > next { 0 } else { since };
            let skip = usize::try_from(since.saturating_sub(inner.first)).unwrap_or(usize::MAX);
            let items: Vec<_> = inner.news.iter().skip(skip).cloned().collect();
            let left = end.saturating_duration_since(Instant::now());
            if !items.is_empty() || left.is_zero() || stop.load(Ordering::Acquire) {
                return (items, next);
            }
            inner = self
                .more
                .wait_timeout(inner, left)
                .map_or_else(|e| e.into_inner().0, |w| w.0);
        }
    }

    pub(super) fn wake(&self) {
        self.more.notify_all();
    }

    /// The page answers, or refuses; false if nobody waits for that.
    pub(super) fn answer(&self, id: u64, sdp: Option<String>) -> bool {
        match self.lock().calls.get_mut(&id) {
            Some(open) if open.answer.is_none() => {
                open.answer = Some(sdp);
                true
            }
            _ => false,
        }
    }

    pub(super) fn answer_of(&self, id: u64) -> Option<Option<String>> {
        self.lock().calls.get(&id)?.answer.clone()
    }

    pub(super) fn hang_up(&self, id: u64) -> bool {
        let inner = self.lock();
        let Some(open) = inner.calls.get(&id) else {
            return false;
        };
        open.stop.store(true, Ordering::Release);
        true
    }
}
