//! Reducers that are associative and commutative: values of a key fold into a small state in any
//! order and grouping. The maps then aggregate in a hash table instead of sorting records, and no
//! key is hot for a reducer, because each map sends at most one record of it.

use super::map::{Common, FoldSink, Sink};
use std::fmt;
use std::sync::Arc;

/// A value that a fold cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub &'static str);

/// How values fold. What [`Fold::write`] gives is a value again.
pub trait Fold: Clone + Send + Sync + 'static {
    /// What is known of a key's values so far; what does not fit into it is kept in the fold.
    type State: Copy + Send + Sync + fmt::Debug;

    /// The state of one value.
    ///
    /// # Errors
    /// When the value is not one.
    fn read(&mut self, value: &[u8]) -> Result<Self::State, BadValue>;

    /// Takes the values of `more` into `state`; `more` is not used again.
    fn join(&mut self, state: &mut Self::State, more: Self::State);

    /// Appends the value that stands for all that went into `state`.
    fn write(&mut self, state: &Self::State, out: &mut Vec<u8>);

    /// Bytes kept outside the states.
    fn bytes(&self) -> usize {
        0
    }

    /// Forgets what is kept outside the states; no state lives on.
    fn clear(&mut self) {}
}

/// A [`Fold`] of any kind.
pub trait AnyFold: Send + Sync {
    /// The end of a map task that aggregates so.
    fn sink(&self, common: Common) -> Box<dyn Sink>;

    /// Folds one key after the other.
    fn group(&self) -> Box<dyn Group>;
}

/// Values of one key at a time.
pub trait Group: Send {
    /// Adds a value of the open key.
    ///
    /// # Errors
    /// When the value is not one.
    fn add(&mut self, value: &[u8]) -> Result<(), BadValue>;

    /// Appends the folded value to `out` and is ready for the next key.
    fn end(&mut self, out: &mut Vec<u8>);
}

impl<F: Fold> AnyFold for F {
    fn sink(&self, common: Common) -> Box<dyn Sink> {
        Box::new(FoldSink::new(self.clone(), common))
    }

    fn group(&self) -> Box<dyn Group> {
        Box::new(OneGroup {
            fold: self.clone(),
            state: None,
        })
    }
}

struct OneGroup<F: Fold> {
    fold: F,
    state: Option<F::State>,
}

impl<F: Fold> Group for OneGroup<F> {
    #[inline]
    fn add(&mut self, value: &[u8]) -> Result<(), BadValue> {
        let read = self.fold.read(value)?;
        match &mut self.state {
            Some(state) => self.fold.join(state, read),
            none => *none = Some(read),
        }
        Ok(())
    }

    #[inline]
    fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(state) = self.state.take() {
            self.fold.write(&state, out);
        }
        self.fold.clear();
    }
}

/// Adds whole numbers, which stay at the ends of their range rather than wrap round.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum;

/// The least whole number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Least;

/// The greatest whole number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Greatest;

const NO_NUMBER: BadValue = BadValue("the value is not a whole number of 64 bits");

/// Reads `-?[0-9]+`.
#[inline]
fn number(value: &[u8]) -> Result<i64, BadValue> {
    // Most values of a word count.
    if let [digit @ b'0'..=b'9'] = value {
        return Ok(i64::from(digit - b'0'));
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or(NO_NUMBER)
}

/// Appends `n` in decimal.
pub(crate) fn write_number(n: i64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        if let Some(place) = digits.get_mut(at) {
            *place = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 || at == 0 {
            break;
        }
    }
    if n < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

macro_rules! number_fold {
    ($name:ty, $combine:expr) => {
        impl Fold for $name {
            type State = i64;

            #[inline]
            fn read(&mut self, value: &[u8]) -> Result<i64, BadValue> {
                number(value)
            }

            #[inline]
            fn join(&mut self, state: &mut i64, more: i64) {
                let combine: fn(i64, i64) -> i64 = $combine;
                *state = combine(*state, more);
            }

            fn write(&mut self, state: &i64, out: &mut Vec<u8>) {
                write_number(*state, out);
            }
        }
    };
}

number_fold!(Sum, i64::saturating_add);
number_fold!(Least, Ord::min);
number_fold!(Greatest, Ord::max);

/// Sets of names: a value is names in order, commas between them.
///
/// A state is a chain of values' numbers, newest first, so that the usual case, the same value
/// again, costs one comparison of numbers.
#[derive(Debug, Clone, Default)]
pub struct Union {
    /// Values seen, each once if they come in a row, as `(start, end)` in `bytes`.
    values: Vec<(usize, usize)>,
    bytes: Vec<u8>,
    /// Links of the chains.
    links: Vec<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    value: u32,
    /// Index of the next link plus one; 0 ends the chain.
    next: u32,
}

/// The newest value of a key, and the chain of those before it.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    newest: u32,
    rest: u32,
}

const TOO_MANY: BadValue = BadValue("there are too many values to hold");

impl Union {
    #[inline]
    fn number_of(&mut self, value: &[u8]) -> Result<u32, BadValue> {
        if let Some((start, end)) = self.values.last()
            && self.bytes.get(*start..*end) == Some(value)
        {
            return Ok(self.values.len() as u32 - 1);
        }
        let number = u32::try_from(self.values.len()).map_err(|_| TOO_MANY)?;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.values.push((start, self.bytes.len()));
        Ok(number)
    }

    fn next(&self, chain: Chain) -> Option<Chain> {
        let at = (chain.rest as usize).checked_sub(1)?;
        self.links.get(at).map(|link| Chain {
            newest: link.value,
            rest: link.next,
        })
    }

    fn value(&self, number: u32) -> &[u8] {
        self.values
            .get(number as usize)
            .and_then(|(start, end)| self.bytes.get(*start..*end))
            .unwrap_or_default()
    }
}

impl Fold for Union {
    type State = Chain;

    #[inline]
    fn read(&mut self, value: &[u8]) -> Result<Chain, BadValue> {
        Ok(Chain {
            newest: self.number_of(value)?,
            rest: 0,
        })
    }

    #[inline]
    fn join(&mut self, state: &mut Chain, more: Chain) {
        let mut more = Some(more);
        while let Some(chain) = more {
            more = self.next(chain);
            if chain.newest == state.newest {
                continue;
            }
            self.links.push(Link {
                value: state.newest,
                next: state.rest,
            });
            // Links are fewer than 2^32: the budget of memory ends long before.
            state.rest = self.links.len() as u32;
            state.newest = chain.newest;
        }
    }

    fn write(&mut self, state: &Chain, out: &mut Vec<u8>) {
        let mut numbers = Vec::new();
        let mut next = Some(*state);
        while let Some(chain) = next {
            numbers.push(chain.newest);
            next = self.next(chain);
        }
        numbers.reverse();
        let names = |number: &u32| self.value(*number).split(|b| *b == b',');
        // Files mostly come in order, and then so do the lists.
        let in_order = numbers.iter().flat_map(names).is_sorted_by(|a, b| a < b);
        let mut write = |name: &[u8], first: bool| {
            if !first {
                out.push(b',');
            }
            out.extend_from_slice(name);
        };
        if in_order {
            for (n, number) in numbers.iter().enumerate() {
                write(self.value(*number), n == 0);
            }
            return;
        }
        let mut names: Vec<&[u8]> = numbers.iter().flat_map(names).collect();
        names.sort_unstable();
        names.dedup();
        for (n, name) in names.iter().enumerate() {
            write(name, n == 0);
        }
    }

    fn bytes(&self) -> usize {
        self.bytes.len() + self.values.len() * 16 + self.links.len() * 8
    }

    fn clear(&mut self) {
        self.values.clear();
        self.bytes.clear();
        self.links.clear();
    }
}

/// The fold of a built-in reducer's name; none when that reducer is no fold.
pub fn by_name(name: &str) -> Option<Arc<dyn AnyFold>> {
    Some(match name {
        "wordcount" | "sum" => Arc::new(Sum),
        "min" => Arc::new(Least),
        "max" => Arc::new(Greatest),
        "index" | "union" => Arc::new(Union::default()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Folds the values in two halves and then the halves, as maps and a reduce do.
    fn folded(fold: &dyn AnyFold, values: &[Vec<u8>], cut: usize) -> Vec<u8> {
        let mut group = fold.group();
        let mut halves = Vec::new();
        for half in [&values[..cut], &values[cut..]] {
            if half.is_empty() {
                continue;
            }
            for value in half {
                group.add(value).expect("a value");
            }
            let mut out = Vec::new();
            group.end(&mut out);
            halves.push(out);
        }
        for half in halves {
            group.add(&half).expect("a value");
        }
        let mut out = Vec::new();
        group.end(&mut out);
        out
    }

    proptest! {
        #[test]
        fn numbers_fold(values in proptest::collection::vec(-1000..1000i64, 1..20), cut: usize) {
            let texts: Vec<Vec<u8>> = values.iter().map(|n| n.to_string().into_bytes()).collect();
            let cut = cut % texts.len();
            let sum = values.iter().sum::<i64>().to_string().into_bytes();
            prop_assert_eq!(folded(&Sum, &texts, cut), sum);
            let min = values.iter().min().expect("some").to_string().into_bytes();
            prop_assert_eq!(folded(&Least, &texts, cut), min);
            let max = values.iter().max().expect("some").to_string().into_bytes();
            prop_assert_eq!(folded(&Greatest, &texts, cut), max);
        }

        #[test]
        fn names_fold_into_a_set_in_order(
            values in proptest::collection::vec("[a-c]{1,2}(,[a-c]{1,2}){0,3}", 1..20), cut: usize,
        ) {
            let texts: Vec<Vec<u8>> = values.iter().map(|v| v.clone().into_bytes()).collect();
            let mut set: Vec<&str> = values.iter().flat_map(|v| v.split(',')).collect();
            set.sort_unstable();
            set.dedup();
            let got = folded(&Union::default(), &texts, cut % texts.len());
            // A value that is no set is only put in order once another joins it.
            let sorted = texts.len() > 1;
            prop_assert!(!sorted || got == set.join(",").into_bytes());
        }

        #[test]
        fn numbers_are_written_as_by_format(n: i64) {
            let mut out = Vec::new();
            write_number(n, &mut out);
            prop_assert_eq!(out, n.to_string().into_bytes());
        }
    }

    #[test]
    fn sums_stay_at_the_end_of_their_range_and_refuse_words() {
        let values = vec![b"9223372036854775807".to_vec(), b"5".to_vec()];
        assert_eq!(folded(&Sum, &values, 1), b"9223372036854775807");
        assert_eq!(Sum.group().add(b"many"), Err(NO_NUMBER));
    }
}
