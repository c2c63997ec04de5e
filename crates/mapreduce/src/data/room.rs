//! Room for many small items: a growing list that, once it is large, lies in memory of its own in
//! huge pages.
//!
//! A map task fills a hundred mebibytes and gives them back, and the next does it again. By pages of
//! 4 KiB that is a fault for every forty records, which costs a sort as much time as the sorting;
//! huge pages need a five-hundredth of the faults, and fewer entries of the processor's table of
//! pages when the records are then visited in order.

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use memmap2::MmapMut;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// A list longer than this, in bytes, moves to huge pages.
const LARGE_BYTES: usize = 1 << 20;
/// Bytes that such a list takes at first. What is not touched is address space only.
const FIRST_BYTES: usize = 256 << 20;

/// A growing list of plain items.
pub(super) struct Room<T> {
    /// The items while they are few.
    few: Vec<T>,
    /// The items otherwise, and room for more.
    many: Option<MmapMut>,
    len: usize,
}

impl<T> Room<T> {
    /// An empty one.
    pub(super) const fn new() -> Self {
        Self {
            few: Vec::new(),
            many: None,
            len: 0,
        }
    }
}

impl<T> fmt::Debug for Room<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("len", &self.len).finish()
    }
}

impl<T: Pod> Room<T> {
    /// Appends an item.
    #[inline]
    pub(super) fn push(&mut self, item: T) {
        self.extend_from_slice(&[item]);
    }

    /// Appends items.
    #[inline]
    pub(super) fn extend_from_slice(&mut self, items: &[T]) {
        let end = self.len + items.len();
        if let Some(map) = &mut self.many
            && let Some(to) = cast_slice_mut(map).get_mut(self.len..end)
        {
            to.copy_from_slice(items);
        } else {
            self.extend_slowly(items);
        }
        self.len = end;
    }

    fn extend_slowly(&mut self, items: &[T]) {
        let end = self.len + items.len();
        if self.many.is_none() && end * size_of::<T>() <= LARGE_BYTES {
            self.few.extend_from_slice(items);
            return;
        }
        let double = (2 * self.len).max(end) * size_of::<T>();
        match anonymous(double.max(FIRST_BYTES)) {
            Some(mut map) => {
                let all = [&**self, items];
                let mut to = cast_slice_mut::<u8, T>(&mut map);
                for part in all {
                    let Some((here, rest)) = to.split_at_mut_checked(part.len()) else {
                        return;
                    };
                    here.copy_from_slice(part);
                    to = rest;
                }
                self.many = Some(map);
                self.few = Vec::new();
            }
            // There is no such memory here: then as any other list.
            None => {
                if self.many.is_some() {
                    self.few = self.to_vec();
                    self.many = None;
                }
                self.few.extend_from_slice(items);
            }
        }
    }

    /// Forgets all items, keeping the room.
    pub(super) fn clear(&mut self) {
        self.few.clear();
        self.len = 0;
    }
}

/// Memory of so many bytes, zeroed, in huge pages where the system has them.
fn anonymous(bytes: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(bytes).ok()?;
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

impl<T: Pod> Deref for Room<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.many {
            Some(map) => cast_slice(map).get(..self.len).unwrap_or_default(),
            None => &self.few,
        }
    }
}

impl<T: Pod> DerefMut for Room<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.many {
            Some(map) => cast_slice_mut(map).get_mut(..self.len).unwrap_or_default(),
            None => &mut self.few,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        // A mebibyte is passed in some of the cases.
        #[test]
        fn it_holds_what_a_list_holds(parts in proptest::collection::vec((any::<u64>(), 0..60_000usize), 0..5)) {
            let (mut room, mut list) = (Room::new(), Vec::new());
            for round in 0..2 {
                for (n, (first, len)) in parts.iter().enumerate() {
                    let items: Vec<u64> = (0..*len as u64).map(|i| first ^ i).collect();
                    room.extend_from_slice(&items);
                    list.extend_from_slice(&items);
                    room.push(n as u64 + round);
                    list.push(n as u64 + round);
                    prop_assert!(*room == *list);
                }
                room.reverse();
                list.reverse();
                prop_assert!(*room == *list);
                room.clear();
                list.clear();
                prop_assert!(room.is_empty());
            }
        }
    }

    #[test]
    fn it_grows_beyond_its_first_memory() {
        let mut room = Room::new();
        let block = vec![7_u64; 1 << 20];
        for _ in 0..40 {
            room.extend_from_slice(&block);
        }
        room.push(8);
        assert_eq!(room.len(), (40 << 20) + 1);
        assert_eq!((room.first(), room.last()), (Some(&7), Some(&8)));
        assert_eq!(room.get(33 << 20), Some(&7));
    }
}
