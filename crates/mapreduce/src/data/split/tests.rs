use super::*;
use proptest::prelude::*;

/// Reads a range of `text` in pieces of at most `step` bytes.
fn read(text: &[u8], start: u64, len: u64, chunk: usize, step: usize) -> Vec<(Vec<u8>, u64)> {
    let mut lines = Lines::new(start, len, chunk);
    let mut at = lines.read_from() as usize;
    let mut out = Vec::new();
    while !lines.done() {
        let room = lines.room();
        let n = room.len().min(step).min(text.len() - at);
        room[..n].copy_from_slice(&text[at..at + n]);
        at += n;
        if let Some((whole, offset)) = lines.filled(n) {
            out.push((whole.to_vec(), offset));
        }
    }
    out
}

proptest! {
    #[test]
    fn every_line_is_in_one_range(
        text in "[ab\n]{0,60}", cuts in proptest::collection::vec(0..60u64, 0..4), chunk in 1..20usize, step in 1..20usize,
    ) {
        let text = text.into_bytes();
        let mut edges: Vec<u64> = cuts.into_iter().map(|c| c.min(text.len() as u64)).collect();
        edges.extend([0, text.len() as u64]);
        edges.sort_unstable();
        let mut all = Vec::new();
        for edge in edges.windows(2) {
            for (part, offset) in read(&text, edge[0], edge[1] - edge[0], chunk, step) {
                prop_assert_eq!(offset as usize, all.len());
                prop_assert!(part.ends_with(b"\n") || offset as usize + part.len() == text.len());
                let mut begin = offset;
                for line in part.split_inclusive(|b| *b == b'\n') {
                    prop_assert!((edge[0]..edge[1]).contains(&begin));
                    begin += line.len() as u64;
                }
                all.extend_from_slice(&part);
            }
        }
        prop_assert_eq!(all, text);
    }

    #[test]
    fn splits_cover_every_file_once(lens in proptest::collection::vec((0..500u64, any::<bool>()), 0..20), split in 1..200u64) {
        let files: Vec<InputFile> = lens.iter().enumerate().map(|(n, (len, splittable))| InputFile {
            name: n.to_string(), len: *len, splittable: *splittable, input: 0, unit: 0, lead: 0,
        }).collect();
        let splits = plan(&files, split);
        let mut ranges = splits.iter().flat_map(|s| &s.parts).peekable();
        for file in files.iter().filter(|f| f.len > 0) {
            let mut at = 0;
            while at < file.len {
                let range = ranges.next().expect("covers all");
                prop_assert_eq!((&range.file, range.offset), (&file.name, at));
                prop_assert!(!file.splittable || range.len <= split);
                at += range.len;
            }
            prop_assert!(at == file.len);
        }
        prop_assert!(ranges.next().is_none());
        prop_assert!(splits.iter().all(|s| s.len() <= split || s.parts.len() == 1));
    }
}

proptest! {
    #[test]
    fn ranges_are_of_their_own_pieces_and_one_more(
        len in 1..3000u64, unit in 1..100u64, lead in 0..100u64, split in 1..500u64,
    ) {
        let lead = lead % unit;
        let file = InputFile {
            name: "f".to_owned(), len, splittable: true, input: 0, unit, lead,
        };
        let splits = plan(&[file], split);
        let piece = |byte: u64| (byte + unit - lead) / unit;
        let mut at = 0;
        for part in splits.iter().map(|s| &s.parts[0]) {
            prop_assert_eq!(part.offset, at);
            prop_assert!(part.len > 0);
            at += part.len;
            if unit <= split {
                // One piece more than the length needs, which the rest of a line lies in.
                let touched = piece(at - 1) - piece(part.offset.saturating_sub(1)) + 1;
                prop_assert!(touched <= split / unit + 1, "{} pieces in {:?}", touched, part);
                prop_assert!(part.len <= split + 1);
            } else {
                prop_assert!(part.len <= split);
            }
        }
        prop_assert_eq!(at, len);
    }
}

#[test]
fn a_file_is_cut_one_byte_into_its_pieces() {
    let file = |len, lead| InputFile {
        name: "f".to_owned(),
        len,
        splittable: true,
        input: 0,
        unit: 16,
        lead,
    };
    let starts = |file, split_bytes| {
        let splits = plan(&[file], split_bytes);
        splits.iter().map(|s| s.parts[0].offset).collect::<Vec<_>>()
    };
    assert_eq!(starts(file(96, 0), 40), [0, 33, 65]);
    // The file begins 11 bytes into a piece.
    assert_eq!(starts(file(69, 5), 40), [0, 6, 38]);
    assert_eq!(starts(file(33, 0), 16), [0, 17], "none of nothing");
    assert_eq!(starts(file(3, 5), 40), [0]);
}

#[test]
fn small_files_share_a_split() {
    let file = |name: &str, len| InputFile {
        name: name.to_owned(),
        len,
        splittable: true,
        input: 0,
        unit: 0,
        lead: 0,
    };
    let splits = plan(
        &[file("a", 10), file("b", 20), file("c", 100), file("d", 0)],
        64,
    );
    let shape: Vec<Vec<(&str, u64, u64)>> = splits
        .iter()
        .map(|s| {
            s.parts
                .iter()
                .map(|r| (r.file.as_str(), r.offset, r.len))
                .collect()
        })
        .collect();
    assert_eq!(
        shape,
        [
            vec![("a", 0, 10), ("b", 0, 20)],
            vec![("c", 0, 50)],
            vec![("c", 50, 50)]
        ]
    );
}
