//! The allowed-fast set of the Fast extension (BEP 6): pieces that a peer may have even while
//! choked, so that a newcomer gets something to trade.

use sha1::{Digest, Sha1};
use shoal_base::InfoHash;
use shoal_content::PieceIndex;
use std::net::Ipv4Addr;

/// How many pieces are offered (BEP 6: "we currently set k to 10").
pub const ALLOWED_FAST_LEN: usize = 10;

/// Most pieces that can be asked of [`allowed_fast_set`].
const MAX_LEN: usize = 64;

/// The first `k` (at most 64) pieces of the set of the peer at `ip`, for a torrent of `pieces`
/// pieces; all pieces if there are no more than `k`.
///
/// BEP 6 has no rule for IPv6: such peers are offered none.
pub fn allowed_fast_set(
    ip: Ipv4Addr,
    info_hash: &InfoHash,
    pieces: u32,
    k: usize,
) -> Vec<PieceIndex> {
    let k = k.min(MAX_LEN);
    if pieces as usize <= k {
        return (0..pieces).collect();
    }
    let mut set = Vec::with_capacity(k);
    let [a, b, c, _] = ip.octets();
    let mut x = Sha1::new()
        .chain_update([a, b, c, 0])
        .chain_update(info_hash.as_bytes())
        .finalize();
    while set.len() < k {
        for word in x.as_chunks::<4>().0 {
            let index = u32::from_be_bytes(*word) % pieces;
            if set.len() < k && !set.contains(&index) {
                set.push(index);
            }
        }
        x = Sha1::digest(x);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_specification_s_examples_come_out() {
        let set = |k| allowed_fast_set([80, 4, 4, 200].into(), &InfoHash([0xaa; 20]), 1313, k);
        assert_eq!(set(7), [1059, 431, 808, 1217, 287, 376, 1188]);
        assert_eq!(set(9), [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
    }

    proptest! {
        #[test]
        fn the_set_is_distinct_in_range_and_as_long_as_can_be(
            ip in any::<[u8; 4]>(),
            hash in any::<[u8; 20]>(),
            pieces in 0u32..100,
            k in 0usize..20,
        ) {
            let mut set = allowed_fast_set(ip.into(), &InfoHash(hash), pieces, k);
            prop_assert_eq!(set.len(), k.min(pieces as usize));
            prop_assert!(set.iter().all(|p| *p < pieces));
            set.sort_unstable();
            set.dedup();
            prop_assert_eq!(set.len(), k.min(pieces as usize));
        }
    }
}
