//! Who has allocations, how many, and how fast he may send.

use shoal_base::TokenBucket;
use slab::Slab;
use std::collections::BTreeMap;

#[derive(Debug)]
struct User {
    name: Vec<u8>,
    allocations: usize,
    bucket: TokenBucket,
}

/// Users with allocations. A user is known as long as he has one.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_name: BTreeMap<Vec<u8>, usize>,
    all: Slab<User>,
}

impl Users {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// One more allocation of a user, if he has fewer than `most`.
    pub(super) fn take(&mut self, name: &[u8], most: usize, rate: Option<u64>) -> Option<usize> {
        if let Some(&key) = self.by_name.get(name) {
            let user = self.all.get_mut(key)?;
            if user.allocations >= most {
                return None;
            }
            user.allocations += 1;
            return Some(key);
        }
        if most == 0 {
            return None;
        }
        let key = self.all.insert(User {
            name: name.to_vec(),
            allocations: 1,
            bucket: TokenBucket::new(rate),
        });
        self.by_name.insert(name.to_vec(), key);
        Some(key)
    }

    /// One allocation less.
    pub(super) fn release(&mut self, key: usize) {
        let Some(user) = self.all.get_mut(key) else {
            return;
        };
        user.allocations -= 1;
        if user.allocations == 0 {
            let user = self.all.remove(key);
            self.by_name.remove(&user.name);
        }
    }

    pub(super) fn bucket(&mut self, key: usize) -> Option<&mut TokenBucket> {
        self.all.get_mut(key).map(|user| &mut user.bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number_of_allocations_and_is_forgotten_after_the_last() {
        let mut users = Users::default();
        let a = users.take(b"a", 2, None).unwrap();
        assert_eq!(users.take(b"a", 2, None), Some(a));
        assert_eq!(users.take(b"a", 2, None), None);
        let b = users.take(b"b", 2, None).unwrap();
        assert_ne!(a, b);
        users.release(a);
        assert_eq!((users.take(b"a", 2, None), users.len()), (Some(a), 2));
        for key in [a, a, b] {
            users.release(key);
        }
        assert_eq!(users.len(), 0);
    }
}
