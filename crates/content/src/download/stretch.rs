//! Stretches of pieces that are set aside for streams.
//!
//! A stream sends a file from an offset on, and jumps only at the price of a new connection. So it
//! gets a run of pieces that nobody has begun, as long as its share of all rates makes likely, and
//! others take those last, from the end on.

use super::{Download, Mode, SourceKind};
use crate::PieceIndex;
use crate::picker::Has;
use std::ops::Range;

impl Download {
    /// What is set aside for streams other than `id`. Nothing when somebody reads along, who needs
    /// each piece in its turn.
    pub(super) fn set_aside(&self, id: u32) -> Vec<Range<PieceIndex>> {
        if self.mode == Mode::Sequential {
            return Vec::new();
        }
        let streams = (0u32..).zip(&self.sources).filter(|(other, s)| {
            *other != id && s.used && !s.shut && !s.choked && !s.stalled && !s.stretch.is_empty()
        });
        streams.map(|(_, s)| s.stretch.clone()).collect()
    }

    /// `piece` is what `id` was to begin with. A stream at the end of its stretch is given another,
    /// and may begin elsewhere in the run. Stretches of others lose what was taken from their ends.
    pub(super) fn settle_stretch(
        &mut self,
        id: u32,
        piece: PieceIndex,
        aside: &[Range<PieceIndex>],
    ) -> PieceIndex {
        if aside.iter().any(|stretch| stretch.contains(&piece)) {
            return self.take_end(id, piece);
        }
        let Some(s) = self.source(id).filter(|s| s.kind == SourceKind::Stream) else {
            return piece;
        };
        if s.stretch.contains(&piece) {
            self.sources[id as usize].stretch.start = piece + 1;
            return piece;
        }
        let Some(held) = s.held() else { return piece };
        let goes_on = s.current != u32::MAX && s.current + 1 == piece;
        let run = self.run_from(piece, held, aside);
        // Who sends ranges up to here comes here next.
        let is_next = |other: &super::source::Source| {
            other.used && other.kind.is_ranged() && other.current.wrapping_add(1) == piece
        };
        let others = (0u32..).zip(&self.sources);
        let contested = !goes_on && others.into_iter().any(|(n, s)| n != id && is_next(s));
        let first = match contested && run > 1 {
            true => piece + run / 2,
            false => piece,
        };
        let most = piece + run - first;
        let length = self.share_of(id).clamp(1, most.max(1));
        self.sources[id as usize].stretch = first + 1..first + length;
        first
    }

    /// Takes `piece` from the end of the stretch that it is set aside in; a stream takes as much
    /// before it as makes both end together, and begins there.
    fn take_end(&mut self, id: u32, piece: PieceIndex) -> PieceIndex {
        let mut first = piece;
        let mut sources = self.sources.iter();
        let owner = sources.position(|s| s.used && s.stretch.contains(&piece));
        if let (Some(s), Some(owner)) = (self.source(id), owner.and_then(|n| self.sources.get(n)))
            && s.kind == SourceKind::Stream
            && let Some(held) = s.held()
        {
            let (own, theirs) = (s.pipe.rate(), owner.pipe.rate());
            let share = match own > 0.0 && theirs > 0.0 {
                true => own / (own + theirs),
                false => 0.5,
            };
            let left = f64::from(piece + 1 - owner.stretch.start);
            let most = piece + 1 - ((left * share) as u32).max(1);
            let fits = |p: &PieceIndex| self.picker.candidates().get(*p) && held.get(*p);
            let back = (most..piece).rev().take_while(fits).count() as u32;
            first = piece - back;
            self.sources[id as usize].stretch = first + 1..piece + 1;
        }
        if let Some(owner) = owner.and_then(|n| self.sources.get_mut(n)) {
            owner.stretch.end = first;
        }
        first
    }

    /// How many candidates that `held` has follow one another from `first` on, none set aside.
    fn run_from(&self, first: PieceIndex, held: Has<'_>, aside: &[Range<PieceIndex>]) -> u32 {
        let fits = |p: &PieceIndex| {
            self.picker.candidates().get(*p)
                && held.get(*p)
                && !aside.iter().any(|stretch| stretch.contains(p))
        };
        (first..self.geometry.pieces()).take_while(fits).count() as u32
    }

    /// How many of the pieces not begun yet will come from `id`, as rates stand; half of them while
    /// its rate is unknown.
    fn share_of(&self, id: u32) -> u32 {
        let left = self.picker.candidates().count();
        let own = self.source(id).map_or(0.0, |s| s.pipe.rate());
        let used = self.sources.iter().filter(|s| s.used && !s.stalled);
        let all: f64 = used.map(|s| s.pipe.rate()).sum();
        match own > 0.0 && all > 0.0 {
            true => (f64::from(left) * own / all).ceil() as u32,
            false => left / 2,
        }
    }
}

/// The last piece of the longest stretch that `admits`; of the others if it has none.
pub(super) fn last_of(
    aside: &[Range<PieceIndex>],
    mut admits: impl FnMut(PieceIndex) -> bool,
) -> Option<PieceIndex> {
    let mut stretches: Vec<&Range<PieceIndex>> = aside.iter().collect();
    stretches.sort_by_key(|stretch| std::cmp::Reverse(stretch.len()));
    stretches
        .into_iter()
        .find_map(|stretch| stretch.clone().rev().find(|p| admits(*p)))
}
