use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A size, and sometimes a hash.
#[derive(Debug, Clone, Copy, Default)]
struct Plain {
    size: u8,
    hash: Option<[u8; 2]>,
}

impl Facts for Plain {
    fn size(&self) -> u64 {
        self.size.into()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.size, u8::from(self.hash.is_some())]);
        out.extend(self.hash.unwrap_or_default());
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[size, has, a, b], rest) = bytes.split_first_chunk()?;
        let hash = (has != 0).then_some([a, b]);
        Some((Self { size, hash }, rest))
    }

    fn hashes(&self) -> [Option<&[u8]>; 2] {
        [None, self.hash.as_ref().map(<[u8; 2]>::as_slice)]
    }
}

type Index = super::Index<Plain>;

fn found(index: &Index, words: &str, luck: usize) -> Vec<(Owner, Vec<u8>)> {
    let mut out = Vec::new();
    index.search(&Terms::parse(words), luck, |e| {
        out.push((e.owner, [e.folder, e.name].concat()));
        true
    });
    out.sort();
    out
}

#[test]
fn the_log_is_cleaned_while_owners_come_and_go() {
    let mut index = Index::default();
    let facts = Plain {
        size: 10,
        hash: Some([7; 2]),
    };
    for round in 0..60u32 {
        for owner in 0..20 {
            index.remove_all(owner);
            for n in 0..100 + round {
                let name = format!("song {n} of{owner} round{round}.mp3");
                assert!(index.add(owner, b"C:\\music\\", name.as_bytes(), &facts));
                assert!(!index.add(owner, b"C:\\", format!("music\\{name}").as_bytes(), &facts));
            }
        }
    }
    assert_eq!(index.len(), 20 * 159);
    assert_eq!(index.bytes(), 20 * 159 * 10);
    let used = index.next.wrapping_sub(index.head) as usize;
    assert!(
        used < index.len() * 3 / 2 + CLEAN_FROM + 2,
        "{used} records for {}",
        index.len()
    );
    assert_eq!(found(&index, "music song of7", 5).len(), 159);
    assert!(
        index.words() < 20 + 60 + 170 + 10,
        "{} words",
        index.words()
    );
    let mut n = 0;
    index.with_hash(&[7; 2], |_| {
        n += 1;
        true
    });
    assert_eq!(n, index.len());
    for owner in 0..20 {
        index.remove_all(owner);
    }
    assert!(index.is_empty());
    assert_eq!(found(&index, "music", 0), []);
}

proptest! {
    #[test]
    fn it_finds_what_a_plain_list_finds(
        steps in proptest::collection::vec((0u8..4, 0u32..3, 0usize..6, 0usize..6), 0..200),
        beginnings: bool,
        luck: usize,
        start in prop_oneof![Just(0u32), Just(u32::MAX - 20)],
    ) {
        const WORDS: [&str; 6] = ["abba", "blur", "cure", "doors", "eels", "fugees"];
        let new = if beginnings { Index::with_beginnings() } else { Index::default() };
        let mut index = Index { base: start, head: start, next: start, ..new };
        let mut plain = BTreeSet::new();
        for (what, owner, a, b) in steps {
            let (folder, name) = (format!("{}\\", WORDS[a]), format!("x {}.mp3", WORDS[b]));
            let path = format!("{folder}{name}").into_bytes();
            match what {
                0 | 1 => {
                    let new = index.add(owner, folder.as_bytes(), name.as_bytes(), &Plain { size: 1, hash: Some([a as u8, 0]) });
                    prop_assert_eq!(new, plain.insert((owner, path)));
                }
                2 => {
                    let was = index.remove(owner, b"", &path);
                    prop_assert_eq!(was, plain.remove(&(owner, path)));
                }
                _ if a == 0 => {
                    index.remove_all(owner);
                    plain.retain(|(o, _)| *o != owner);
                }
                _ => index.clean_one(),
            }
        }
        prop_assert_eq!(index.len(), plain.len());
        let which = |fits: &dyn Fn(&str) -> bool| -> Vec<(Owner, Vec<u8>)> {
            let all = plain.iter().filter(|(_, p)| fits(&String::from_utf8_lossy(p)));
            all.cloned().collect()
        };
        for (n, first) in WORDS.into_iter().enumerate() {
            for second in ["x", "mp3", "abba", "cure"] {
                let want = which(&|p| p.contains(first) && p.contains(second));
                prop_assert_eq!(found(&index, &format!("{first} {second}"), luck), want);
                let want = which(&|p| p.contains(first) && !p.contains(second));
                prop_assert_eq!(found(&index, &format!("{first} -{second}"), luck), want);
                if beginnings {
                    let start = &first[..1];
                    let terms = format!("{start}* {second}");
                    let want = which(&|p| Terms::parse(&terms).fit(p));
                    prop_assert_eq!(found(&index, &terms, luck), want);
                }
            }
            let mut count = 0;
            index.with_hash(&[n as u8, 0], |e| {
                count += 1;
                e.folder.starts_with(first.as_bytes())
            });
            let folder = format!("{first}\\");
            prop_assert_eq!(count, which(&|p| p.starts_with(&folder)).len());
        }
    }
}

#[test]
fn words_by_the_thousand_come_and_go_and_are_found_by_their_beginnings() {
    let mut index = Index::with_beginnings();
    let facts = Plain::default();
    for n in 0..9000_u32 {
        let name = format!("word{n}x.txt");
        assert!(index.add(0, b"", name.as_bytes(), &facts));
        if n >= 1000 {
            let old = format!("word{}x.txt", n - 1000);
            assert!(index.remove(0, b"", old.as_bytes()));
        }
    }
    assert_eq!(index.len(), 1000);
    assert_eq!(found(&index, "word89* txt", 0).len(), 100);
    assert_eq!(found(&index, "word8* -txt", 0).len(), 0);
    assert_eq!(found(&index, "word1*", 0).len(), 0);
    assert_eq!(found(&index, "wor*", 3).len(), 1000);
    assert_eq!(found(&index, "w* word8999x", 3).len(), 1);
}
