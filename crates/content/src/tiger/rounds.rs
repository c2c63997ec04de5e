//! Tiger itself (Anderson and Biham, "Tiger: A Fast New Hash Function", 1996), as its tree needs it:
//! several messages of one length side by side.
//!
//! A round waits for the tables' words of the round before. What is hashed side by side does not wait
//! for each other, so that one processor makes several leaves in little more than the time of one.

use std::array::from_fn;
use std::sync::LazyLock;

use super::TigerHash;

/// Messages hashed side by side.
pub(super) const LANES: usize = 3;

const BLOCK: usize = 64;
const START: [u64; 3] = [
    0x0123_4567_89ab_cdef,
    0xfedc_ba98_7654_3210,
    0xf096_a5b4_c3b2_e187,
];

type Tables = [[u64; 256]; 4];
type State = [u64; 3];

/// The S-boxes, made as the authors made them: from this text, by the hash itself over boxes that
/// are not mixed yet (their `gen.c`).
static TABLES: LazyLock<Box<Tables>> = LazyLock::new(|| {
    const SEED: &[u8; BLOCK] = b"Tiger - A Fast New Hash Function, by Ross Anderson and Eli Biham";
    const PASSES: usize = 5;
    // Each entry begins as its own number in all eight bytes.
    let mut tables: Box<Tables> =
        Box::new(from_fn(|_| from_fn(|n| n as u64 * 0x0101_0101_0101_0101)));
    let mut state = START;
    let mut word = 2;
    for _ in 0..PASSES {
        for entry in 0..256 {
            for table in 0..4 {
                word += 1;
                if word == 3 {
                    word = 0;
                    let [next] = compress(&tables, [state], [words(SEED)]);
                    state = next;
                }
                for (byte, other) in state[word].to_le_bytes().into_iter().enumerate() {
                    let boxes = &mut tables[table];
                    let mask = 0xff << (8 * byte);
                    let swapped = (boxes[entry] ^ boxes[usize::from(other)]) & mask;
                    boxes[entry] ^= swapped;
                    boxes[usize::from(other)] ^= swapped;
                }
            }
        }
    }
    tables
});

fn words(block: &[u8; BLOCK]) -> [u64; 8] {
    let (words, _) = block.as_chunks::<8>();
    from_fn(|n| words.get(n).map_or(0, |word| u64::from_le_bytes(*word)))
}

/// One word of each lane's block: which of the state's three plays which part is told.
#[inline(always)]
fn round<const N: usize, const A: usize, const B: usize, const C: usize, const FACTOR: u64>(
    [t1, t2, t3, t4]: &Tables,
    s: &mut [State; N],
    x: &[[u64; 8]; N],
    word: usize,
) {
    for (s, x) in s.iter_mut().zip(x) {
        s[C] ^= x[word];
        let [c0, c1, c2, c3, c4, c5, c6, c7] = s[C].to_le_bytes().map(usize::from);
        s[A] = s[A].wrapping_sub(t1[c0] ^ t2[c2] ^ t3[c4] ^ t4[c6]);
        s[B] = s[B].wrapping_add(t4[c1] ^ t3[c3] ^ t2[c5] ^ t1[c7]);
        s[B] = s[B].wrapping_mul(FACTOR);
    }
}

/// Eight rounds. Parts move on by one with each.
#[inline(always)]
fn pass<const N: usize, const A: usize, const B: usize, const C: usize, const FACTOR: u64>(
    t: &Tables,
    s: &mut [State; N],
    x: &[[u64; 8]; N],
) {
    round::<N, A, B, C, FACTOR>(t, s, x, 0);
    round::<N, B, C, A, FACTOR>(t, s, x, 1);
    round::<N, C, A, B, FACTOR>(t, s, x, 2);
    round::<N, A, B, C, FACTOR>(t, s, x, 3);
    round::<N, B, C, A, FACTOR>(t, s, x, 4);
    round::<N, C, A, B, FACTOR>(t, s, x, 5);
    round::<N, A, B, C, FACTOR>(t, s, x, 6);
    round::<N, B, C, A, FACTOR>(t, s, x, 7);
}

/// One block into the state of each lane.
#[inline(always)]
fn compress<const N: usize>(
    tables: &Tables,
    before: [State; N],
    mut x: [[u64; 8]; N],
) -> [State; N] {
    let mut s = before;
    pass::<N, 0, 1, 2, 5>(tables, &mut s, &x);
    x.iter_mut().for_each(schedule);
    pass::<N, 2, 0, 1, 7>(tables, &mut s, &x);
    x.iter_mut().for_each(schedule);
    pass::<N, 1, 2, 0, 9>(tables, &mut s, &x);
    from_fn(|lane| {
        let ([a, b, c], [d, e, f]) = (s[lane], before[lane]);
        [a ^ d, b.wrapping_sub(e), c.wrapping_add(f)]
    })
}

/// The words of the next pass.
#[inline(always)]
fn schedule(x: &mut [u64; 8]) {
    x[0] = x[0].wrapping_sub(x[7] ^ 0xa5a5_a5a5_a5a5_a5a5);
    x[1] ^= x[0];
    x[2] = x[2].wrapping_add(x[1]);
    x[3] = x[3].wrapping_sub(x[2] ^ (!x[1] << 19));
    x[4] ^= x[3];
    x[5] = x[5].wrapping_add(x[4]);
    x[6] = x[6].wrapping_sub(x[5] ^ (!x[4] >> 23));
    x[7] ^= x[6];
    x[0] = x[0].wrapping_add(x[7]);
    x[1] = x[1].wrapping_sub(x[0] ^ (!x[7] << 19));
    x[2] ^= x[1];
    x[3] = x[3].wrapping_add(x[2]);
    x[4] = x[4].wrapping_sub(x[3] ^ (!x[2] >> 23));
    x[5] ^= x[4];
    x[6] = x[6].wrapping_add(x[5]);
    x[7] = x[7].wrapping_sub(x[6] ^ 0x0123_4567_89ab_cdef);
}

/// Hashes of a mark and a message each; the messages are equally long, or what lies beyond the
/// shortest is passed over.
pub(super) fn hash<const N: usize>(mark: u8, messages: [&[u8]; N]) -> [TigerHash; N] {
    let tables: &Tables = &TABLES;
    let len = messages.iter().map(|m| m.len()).min().unwrap_or(0);
    let mut states = [START; N];
    // Behind the mark every block begins a byte early.
    let whole = (1 + len) / BLOCK;
    for block in 0..whole {
        let x = messages.map(|message| match block {
            0 => first(mark, message),
            _ => {
                let bytes = message.get(block * BLOCK - 1..).unwrap_or_default();
                bytes.first_chunk().map_or([0; 8], words)
            }
        });
        states = compress(tables, states, x);
    }
    // What is left, a one, zeros, and how many bits there were.
    let left = (1 + len) % BLOCK;
    let bits = (1 + len as u64) * 8;
    let mut ends = messages.map(|message| {
        let mut end = [[0; BLOCK]; 2];
        let tail = end.as_flattened_mut();
        let from = match whole {
            0 => {
                tail[0] = mark;
                0
            }
            _ => whole * BLOCK - 1,
        };
        let rest = message.get(from..len).unwrap_or_default();
        let at = left - rest.len();
        if let Some(place) = tail.get_mut(at..left) {
            place.copy_from_slice(rest);
        }
        tail[left] = 1;
        end
    });
    let fits = left < BLOCK - 8;
    for end in &mut ends {
        let last = &mut end[usize::from(!fits)];
        last[BLOCK - 8..].copy_from_slice(&bits.to_le_bytes());
    }
    states = compress(tables, states, ends.map(|end| words(&end[0])));
    if !fits {
        states = compress(tables, states, ends.map(|end| words(&end[1])));
    }
    states.map(|state| {
        let mut hash = TigerHash::default();
        for (place, word) in hash.chunks_exact_mut(8).zip(state) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        hash
    })
}

/// The mark and what follows in its block.
fn first(mark: u8, message: &[u8]) -> [u64; 8] {
    let mut block = [0; BLOCK];
    block[0] = mark;
    if let (Some(place), Some(bytes)) = (block.get_mut(1..), message.get(..BLOCK - 1)) {
        place.copy_from_slice(bytes);
    }
    words(&block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tiger::{Digest, Tiger};
    use proptest::prelude::*;

    fn theirs(mark: u8, message: &[u8]) -> TigerHash {
        let tiger = Tiger::new_with_prefix([mark]);
        tiger.chain_update(message).finalize().into()
    }

    /// Three of the results that the authors published.
    #[test]
    fn published_results_come_out() {
        let hex = |hash: TigerHash| shoal_base::id::to_hex(&hash).to_uppercase();
        for (text, known) in [
            ("abc", "2AAB1484E8C158F2BFB8C5FF41B57A525129131C957B5F93"),
            ("Tiger", "DD00230799F5009FEC6DEBC838BB6A27DF2B9D6F110C7937"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-",
                "F71C8583902AFB879EDFE610F82C0D4786A3A534504486B5",
            ),
        ] {
            let (mark, rest) = text.as_bytes().split_first().expect("text");
            assert_eq!(hash(*mark, [rest]).map(hex), [known.to_owned()], "{text}");
        }
    }

    #[test]
    fn every_length_around_a_block_is_that_of_the_other_program() {
        let bytes: Vec<u8> = (0..300u32).map(|n| (n * 7) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(
                hash(1, [&bytes[..len]]),
                [theirs(1, &bytes[..len])],
                "{len}"
            );
        }
    }

    proptest! {
        #[test]
        fn lanes_do_not_touch_each_other(
            pair in (0usize..1200).prop_flat_map(|len| {
                let message = || prop::collection::vec(any::<u8>(), len);
                (message(), message(), message(), message())
            }),
            mark: u8,
        ) {
            let (a, b, c, d) = &pair;
            let all = hash(mark, [a, b, c, d]);
            prop_assert_eq!(all, [a, b, c, d].map(|m| theirs(mark, m)));
            prop_assert_eq!(hash(mark, [a, b]), [all[0], all[1]]);
        }
    }
}
