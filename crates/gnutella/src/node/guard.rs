//! Who asks too much, breaks the rules, or answers everything.

use std::collections::BTreeMap;

use shoal_base::Time;

use crate::guid::Guid;
use crate::message::bye::code;

/// How many of something may pass, at a rate and in bursts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    left: f32,
    last: Time,
}

impl Allowance {
    /// Full.
    pub(super) fn new(now: Time, burst: f32) -> Self {
        Self {
            left: burst,
            last: now,
        }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Time, rate: f32, burst: f32) -> bool {
        let gained = now.since(self.last).as_secs_f64() as f32 * rate;
        self.last = self.last.max(now);
        self.left = (self.left + gained).min(burst);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

/// A neighbour's faults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conduct {
    pub(super) queries: Allowance,
    pub(super) pings: Allowance,
    /// Messages that came.
    pub(super) messages: u32,
    /// Those that could not be read.
    pub(super) malformed: u32,
    /// Queries that it had sent before.
    pub(super) repeated: u32,
    /// Answers to what was never asked.
    pub(super) unasked: u32,
    /// Queries beyond the allowance.
    pub(super) too_fast: u32,
}

/// Faults of one kind that are borne in any case.
const BORNE: u32 = 50;
/// Beyond those: one in so many messages.
const ONE_IN: u32 = 5;

impl Conduct {
    pub(super) fn new(now: Time) -> Self {
        Self {
            queries: Allowance::new(now, 50.0),
            pings: Allowance::new(now, 3.0),
            messages: 0,
            malformed: 0,
            repeated: 0,
            unasked: 0,
            too_fast: 0,
        }
    }

    /// Why the connection should end, if it should.
    pub(super) fn verdict(&self) -> Option<(u16, &'static str)> {
        let often = |n: u32| n > BORNE && n > self.messages / ONE_IN;
        if often(self.malformed) {
            return Some((code::MALFORMED, "Too many malformed messages"));
        }
        if often(self.repeated) {
            return Some((code::DUPLICATES, "Too many duplicates"));
        }
        if often(self.unasked) {
            return Some((code::UNASKED, "Answers to what was not asked"));
        }
        // Those beyond the allowance are only dropped while most are within it.
        (self.too_fast > 20 * BORNE && self.too_fast > self.messages / 2)
            .then_some((code::TOO_FAST, "Too many queries"))
    }
}

/// Servents that are watched at once.
const WATCHED: usize = 512;
/// Different questions after which watching starts anew.
const ROUND: u32 = 48;
/// Different questions that one must have answered to be held for one who answers everything.
const SUSPICIOUS: u32 = 24;

/// Finds those who answer every question: a servent that answered nearly all of many different
/// questions. Questions fall into 64 classes by their words.
#[derive(Debug, Default)]
pub(super) struct Answerers {
    asked: u64,
    answered: BTreeMap<Guid, u64>,
    /// Found out, in this round or the last.
    known: [Vec<Guid>; 2],
}

impl Answerers {
    /// A query passed; `class` is its words' class.
    pub(super) fn on_query(&mut self, class: u8) {
        if self.asked.count_ones() >= ROUND {
            self.asked = 0;
            self.answered.clear();
            self.known.swap(0, 1);
            if let Some(first) = self.known.first_mut() {
                first.clear();
            }
        }
        self.asked |= 1 << (class & 63);
    }

    /// A servent answered such a query; whether its answer should be passed on.
    pub(super) fn on_answer(&mut self, servent: Guid, class: u8) -> bool {
        if self.known.iter().any(|k| k.contains(&servent)) {
            return false;
        }
        if self.answered.len() >= WATCHED && !self.answered.contains_key(&servent) {
            return true;
        }
        let classes = self.answered.entry(servent).or_default();
        *classes |= self.asked & 1 << (class & 63);
        let (answered, asked) = (classes.count_ones(), self.asked.count_ones());
        if answered < SUSPICIOUS || answered * 10 < asked * 9 {
            return true;
        }
        if let Some(first) = self.known.first_mut() {
            first.push(servent);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qrp::{hash, slot};

    #[test]
    fn who_answers_everything_is_found_and_who_answers_much_is_not() {
        let mut watch = Answerers::default();
        let (liar, sharer) = (Guid([1; 16]), Guid([2; 16]));
        let (mut passed, mut shared) = (0, 0);
        for n in 0..500_u32 {
            let text = slot(hash(n.to_string().as_bytes()), 6) as u8;
            watch.on_query(text);
            passed += u32::from(watch.on_answer(liar, text));
            if n % 2 == 0 {
                shared += u32::from(watch.on_answer(sharer, text));
            }
        }
        assert!(passed < 150, "{passed} of the liar's answers passed");
        assert_eq!(shared, 250);
    }

    #[test]
    fn one_question_asked_often_makes_nobody_a_liar() {
        let mut watch = Answerers::default();
        for _ in 0..500 {
            watch.on_query(7);
            assert!(watch.on_answer(Guid([1; 16]), 7));
        }
    }

    #[test]
    fn an_allowance_grows_with_time() {
        let mut now = Time::ZERO;
        let mut allowance = Allowance::new(now, 2.0);
        let mut passed = 0;
        for _ in 0..100 {
            now += std::time::Duration::from_millis(100);
            passed += u32::from(allowance.take(now, 1.0, 2.0));
        }
        assert!((11..=12).contains(&passed));
    }
}
