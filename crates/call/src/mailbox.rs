//! A supernode's boxes: sealed letters kept for who is away.
//!
//! Whoever has a certificate of the overlay's login server has a box once it asked for one, and may put
//! letters into the boxes of others. The supernode sees who puts how much for whom, and no more; it
//! cannot read a letter, nor make one that its recipient takes for somebody's.

pub mod office;
pub mod watch;
pub mod wire;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shoal_supernode::token::Key;

use crate::seal::MAX_SEALED;

/// The name of a letter: the first bytes of its hash, so that nobody gives one another's.
pub type LetterId = [u8; 16];

/// How long a letter is kept at most.
pub const MAX_KEEP: Duration = Duration::from_secs(14 * 86_400);

/// A letter on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The key of the recipient's name.
    pub to: Key,
    /// For how many seconds it is to be kept from when it comes.
    pub keep: u32,
    /// As [`crate::seal`] writes it.
    pub sealed: Vec<u8>,
}

impl Envelope {
    /// Its name.
    pub fn id(&self) -> LetterId {
        let hash: [u8; 32] = Sha256::digest(&self.sealed).into();
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        id
    }

    /// Whether it is one that a box takes.
    pub fn fits(&self) -> bool {
        let kept = Duration::from_secs(self.keep.into()) <= MAX_KEEP;
        kept && self.keep > 0 && self.sealed.len() <= MAX_SEALED
    }
}
