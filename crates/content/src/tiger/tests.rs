use super::*;
use ::tiger::{Digest, Tiger};
use proptest::prelude::*;
use shoal_base::urn::ParseRootError;

/// The definition, read from the top: the left part is the largest power of two of leaves.
fn naive(bytes: &[u8]) -> TigerHash {
    if bytes.len() <= LEAF_LEN {
        return Tiger::new_with_prefix([0])
            .chain_update(bytes)
            .finalize()
            .into();
    }
    let leaves = bytes.len().div_ceil(LEAF_LEN);
    let left = leaves.next_power_of_two() / 2 * LEAF_LEN;
    let (left, right) = bytes.split_at(left);
    let both = Tiger::new_with_prefix([1]).chain_update(naive(left));
    both.chain_update(naive(right)).finalize().into()
}

fn build(bytes: &[u8], chunk: usize) -> TigerTree {
    let mut builder = TreeBuilder::new();
    for part in bytes.chunks(chunk.max(1)) {
        builder.update(part);
    }
    builder.finish()
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

#[test]
fn known_files_have_their_known_roots() {
    for (bytes, root) in [
        (vec![], "LWPNACQDBZRYXW3VHJVCJ64QBZNGHOHHHZWCLNQ"),
        (vec![0], "VK54ZIEEVTWNAUI5D5RDFIL37LX2IQNSTAXFKSA"),
        (vec![b'A'; 1024], "L66Q4YVNAFWVS23X2HJIRA5ZJ7WXR3F26RSASFA"),
        (vec![b'A'; 1025], "PZMRYHGY6LTBEH63ZWAHDORHSYTLO4LEFUIKHWY"),
    ] {
        let of = root_of(&bytes);
        assert_eq!(of.to_string(), root);
        assert_eq!(root.to_lowercase().parse(), Ok(of));
    }
    assert_eq!("LWPN".parse::<TigerRoot>(), Err(ParseRootError));
}

#[test]
fn large_files_keep_eleven_levels_and_their_root() {
    // Around 2^10 leaves the lowest level kept moves up.
    for leaves in [1023, 1024, 1025, 1026, 2047, 2048, 2049, 4097] {
        for extra in [0, 1] {
            let bytes = noise(leaves * LEAF_LEN + extra);
            let tree = build(&bytes, 5000);
            assert_eq!(tree.root().0, naive(&bytes), "{leaves} leaves and {extra}");
            assert!(tree.levels().len() <= MAX_LEVELS as usize);
            assert!(tree.spans().len() <= 1024 && tree.spans().len() > 500);
            let spans = bytes.chunks(tree.span_len() as usize);
            assert_eq!(spans.len(), tree.spans().len());
            assert!(spans.enumerate().all(|(n, span)| tree.check(n, span)));
        }
    }
}

#[test]
fn a_span_that_is_not_there_or_not_whole_is_wrong() {
    let bytes = noise(3000);
    let tree = build(&bytes, 3000);
    assert_eq!((tree.span_len(), tree.spans().len()), (1024, 3));
    assert!(tree.check(2, &bytes[2048..]));
    assert!(!tree.check(2, &bytes[2048..2999]));
    assert!(!tree.check(1, &bytes[..1024]));
    assert!(!tree.check(3, &[]));
    assert!(!tree.check(usize::MAX, &[]));
    let empty = build(&[], 1);
    assert!(empty.check(0, &[]));
    assert!(!empty.check(0, &[0]));
}

#[test]
fn levels_of_another_file_or_with_a_wrong_hash_are_refused() {
    let bytes = noise(10_000);
    let tree = build(&bytes, 999);
    let levels = tree.to_levels();
    let len = bytes.len() as u64;
    let other = root_of(b"other");
    assert_eq!(
        TigerTree::from_levels(len, other, &levels),
        Err(TreeError::Root)
    );
    assert_eq!(
        TigerTree::from_levels(len, tree.root(), &[]),
        Err(TreeError::Empty)
    );
    for cut in [1, 23, 24, levels.len() - 24] {
        let read = TigerTree::from_levels(len, tree.root(), &levels[..levels.len() - cut]);
        // All but the root may be missing.
        assert_eq!(
            read.is_ok(),
            levels.len() - cut == 24,
            "{cut} bytes too few: {read:?}"
        );
    }
    let mut wrong = levels.clone();
    wrong[30] ^= 1;
    let read = TigerTree::from_levels(len, tree.root(), &wrong);
    assert_eq!(read, Err(TreeError::Inconsistent));
    let mut long = levels;
    long.extend([0; 24]);
    assert!(matches!(
        TigerTree::from_levels(len, tree.root(), &long),
        Err(TreeError::Length(_))
    ));
}

proptest! {
    #[test]
    fn trees_are_those_of_the_definition(len in 0..40_000_usize, chunk in 1..5000_usize) {
        let bytes = noise(len);
        let tree = build(&bytes, chunk);
        prop_assert_eq!(tree.root().0, naive(&bytes));
        let spans = bytes.chunks(tree.span_len() as usize);
        prop_assert!(spans.enumerate().all(|(n, span)| tree.check(n, span)));
    }

    #[test]
    fn levels_that_are_written_are_read(len in 0..40_000_usize, keep in 1..8_usize) {
        let tree = build(&noise(len), 4096);
        let read = TigerTree::from_levels(len as u64, tree.root(), &tree.to_levels());
        prop_assert_eq!(read.as_ref(), Ok(&tree));
        // Fewer levels stand for longer spans.
        let upper: Vec<u8> = tree.levels().iter().take(keep).flatten().flatten().copied().collect();
        let read = TigerTree::from_levels(len as u64, tree.root(), &upper).expect("upper levels");
        let bytes = noise(len);
        let spans = bytes.chunks(read.span_len() as usize);
        prop_assert!(spans.enumerate().all(|(n, span)| read.check(n, span)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(len: u64, bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let root = TigerRoot(*bytes.first_chunk().unwrap_or(&[0; 24]));
        if let Ok(tree) = TigerTree::from_levels(len, root, &bytes) {
            prop_assert_eq!(tree.root(), root);
            prop_assert!(tree.spans().len() <= 1024);
        }
    }
}
