//! Search where no key leads to the owner: a central directory, flooding, and what came after them, by
//! the real cores on the same libraries and the same questions.
//!
//! A content of popularity rank k is shared and asked for with a probability in proportion to 1/k
//! (Zipf's law), so that what is asked for often is shared by many.

mod directory;
pub mod flooding;
mod graph;
mod hierarchy;
mod library;
pub mod napster;
pub mod overlays;
pub mod pollution;
mod servent;
pub mod supernodes;
mod ultrapeers;
mod walks;

use crate::stats::Summary;

/// What became of one question.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Asked {
    /// Messages that carried it.
    messages: u64,
    /// Nodes that it reached, who asked included.
    reach: u64,
    /// Files that were found.
    found: u64,
    /// Milliseconds until the first of them; nothing if none.
    first_ms: Option<f64>,
    /// Messages that carried answers.
    answers: u64,
    /// Bytes of them all.
    bytes: u64,
    /// Hops to the one who gave the first of them.
    hops: Option<u32>,
}

/// What became of many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Outcome {
    questions: usize,
    messages: f64,
    reach: f64,
    found: f64,
    /// Share of those that found something.
    answered: f64,
    /// Median over those.
    first_ms: f64,
    answers: f64,
    bytes: f64,
    /// In the mean over those.
    hops: f64,
}

impl Outcome {
    fn of(all: &[Asked]) -> Self {
        let mean =
            |of: &dyn Fn(&Asked) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        let mut firsts: Vec<f64> = all.iter().filter_map(|a| a.first_ms).collect();
        Self {
            questions: all.len(),
            messages: mean(&|a| a.messages as f64),
            reach: mean(&|a| a.reach as f64),
            found: mean(&|a| a.found as f64),
            answered: mean(&|a| f64::from(u8::from(a.found > 0))),
            first_ms: match firsts.is_empty() {
                true => 0.0,
                false => Summary::of(&mut firsts).p50,
            },
            answers: mean(&|a| a.answers as f64),
            bytes: mean(&|a| a.bytes as f64),
            hops: {
                let hops: Vec<f64> = all.iter().filter_map(|a| a.hops).map(f64::from).collect();
                crate::stats::mean(&hops)
            },
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "questions": self.questions, "messages": self.messages, "reach": self.reach,
            "found": self.found, "answered": self.answered, "first_ms": self.first_ms,
            "answers": self.answers, "bytes": self.bytes, "hops": self.hops,
        })
    }
}

/// The load on the busiest against the mean.
fn hottest(loads: &[u64]) -> (u64, f64) {
    let most = loads.iter().copied().max().unwrap_or(0);
    let mean = loads.iter().sum::<u64>() as f64 / loads.len().max(1) as f64;
    (most, if mean > 0.0 { most as f64 / mean } else { 0.0 })
}
