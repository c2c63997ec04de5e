//! Publishing under words and searching by them: one operation for each word, and then, for a
//! search, one question to the owner of the rarest.

use super::super::place::Place;
use super::super::wire::{Ask, MAX_WORDS};
use super::ops::Work;
use super::{Endpoint, Purpose};
use crate::keywords::{MAX_TITLE, Record, words_of};
use crate::{OpId, Output};
use shoal_base::Time;

impl Endpoint {
    /// Why a record cannot be published.
    pub(super) fn unpublishable(&self, record: &Record) -> Option<String> {
        if words_of(&record.title).is_empty() {
            return Some("there is no word in its title".to_owned());
        }
        let why = || format!("the record is not signed, or its title exceeds {MAX_TITLE} bytes");
        (!record.verify()).then(why)
    }

    pub(super) fn search(text: &str, most: u8) -> Work {
        let mut words = words_of(text);
        words.truncate(MAX_WORDS);
        Work::Search {
            words,
            most,
            left: 0,
            counts: Vec::new(),
        }
    }

    /// Begins an operation for each word.
    pub(super) fn start_words(&mut self, now: Time, parent: OpId, out: &mut Vec<Output>) {
        let Some(entry) = self.ops.get_mut(&parent) else {
            return;
        };
        let (all, published) = match &mut entry.work {
            Work::Publish { record, left, .. } => {
                let all = words_of(&record.title);
                *left = all.len();
                (all, Some(record.clone()))
            }
            Work::Search {
                words,
                left,
                counts,
                ..
            } => {
                counts.clear();
                *left = words.len();
                (words.clone(), None)
            }
            Work::Api(_) | Work::Word { .. } | Work::Hand { .. } => return,
        };
        for word in all {
            let record = published.clone();
            let op = self.add_op(Work::Word {
                parent,
                word,
                record,
            });
            self.start(now, op, out);
        }
    }

    /// One word of a title or a search is done.
    pub(super) fn word_ended(
        &mut self,
        now: Time,
        parent: OpId,
        word: String,
        stored: bool,
        count: Option<(u32, Place)>,
        out: &mut Vec<Output>,
    ) {
        let Some(entry) = self.ops.get_mut(&parent) else {
            return;
        };
        match &mut entry.work {
            Work::Publish { left, .. } => {
                *left = left.saturating_sub(1);
                entry.outcome.stored += u32::from(stored);
                if *left == 0 {
                    self.conclude(now, parent, out);
                }
            }
            Work::Search {
                words,
                most,
                left,
                counts,
            } => {
                *left = left.saturating_sub(1);
                if let Some((count, place)) = count {
                    entry.outcome.answered += 1;
                    counts.push((count, word, place));
                }
                if *left > 0 {
                    return;
                }
                let all = counts.len() == words.len();
                let rarest = counts.iter().min_by_key(|(count, _, _)| *count);
                let Some((_, rarest, place)) = rarest.filter(|(n, _, _)| all && *n > 0) else {
                    return self.conclude(now, parent, out);
                };
                let (rarest, place, most) = (rarest.clone(), *place, *most);
                let mut asked = vec![rarest.clone()];
                asked.extend(words.iter().filter(|w| **w != rarest).cloned());
                entry.waiting = 1;
                let ask = Ask::Find { words: asked, most };
                self.ask(now, place, false, ask, Purpose::Op(parent), out);
            }
            Work::Api(_) | Work::Word { .. } | Work::Hand { .. } => {}
        }
    }
}
