use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn found(index: &Index, word: &str, luck: usize) -> Vec<(Owner, Vec<u8>)> {
    let mut out = Vec::new();
    index.search(&[word.as_bytes().to_vec()], &[], luck, |e| {
        out.push((e.owner, [e.folder, e.name].concat()));
        true
    });
    out.sort();
    out
}

#[test]
fn the_log_is_cleaned_while_owners_come_and_go() {
    let mut index = Index::default();
    let facts = Facts {
        size: 10,
        md5: Some([7; 16]),
        ..Facts::default()
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
    index.by_content([7; 16], 10, |_| {
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
        luck: usize,
        start in prop_oneof![Just(0u32), Just(u32::MAX - 20)],
    ) {
        const WORDS: [&str; 6] = ["abba", "blur", "cure", "doors", "eels", "fugees"];
        let mut index = Index { base: start, head: start, next: start, ..Index::default() };
        let mut plain = BTreeSet::new();
        for (what, owner, a, b) in steps {
            let (folder, name) = (format!("{}\\", WORDS[a]), format!("x {}.mp3", WORDS[b]));
            let path = format!("{folder}{name}").into_bytes();
            match what {
                0 | 1 => {
                    let new = index.add(owner, folder.as_bytes(), name.as_bytes(), &Facts::default());
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
        for first in WORDS {
            for second in ["x", "mp3", "abba", "cure"] {
                let want: Vec<_> = plain.iter().filter(|(_, p)| {
                    let p = String::from_utf8_lossy(p);
                    p.contains(first) && p.contains(second)
                }).cloned().collect();
                prop_assert_eq!(found(&index, &format!("{first} {second}"), luck), want);
            }
        }
    }
}
