use super::*;
use crate::file_kind::FileKind;
use crate::keywords::Terms;
use proptest::prelude::*;

fn hit(sharer: &str, name: &str, size: u64, sha1: Option<u8>, tiger: Option<u8>) -> Hit {
    Hit {
        via: "gnutella",
        sharer: sharer.to_owned(),
        name: name.to_owned(),
        size,
        hashes: Hashes {
            sha1: sha1.map(|n| [n; 20]),
            tiger: tiger.map(|n| TigerRoot([n; 24])),
            ..Hashes::default()
        },
        ..Hit::default()
    }
}

#[test]
fn hits_of_one_content_are_one_result() {
    let mut hits = Hits::default();
    assert_eq!(
        hits.add(hit("a", "Shanty.ogg", 10, Some(1), None)),
        Change::New(0)
    );
    assert_eq!(
        hits.add(hit("b", "x/sea shanty.ogg", 10, Some(1), Some(2))),
        Change::Grew(0)
    );
    // Known by the tree that the second named.
    assert_eq!(
        hits.add(hit("c", "shanty.ogg", 10, None, Some(2))),
        Change::Grew(0)
    );
    assert_eq!(
        hits.add(hit("c", "shanty.ogg", 10, None, Some(2))),
        Change::Nothing
    );
    assert_eq!(
        hits.add(hit("d", "shanty.ogg", 10, None, None)),
        Change::New(1)
    );
    assert_eq!(
        hits.add(hit("e", "y\\SHANTY.OGG", 10, None, None)),
        Change::Grew(1)
    );
    assert_eq!(
        hits.add(hit("f", "shanty.ogg", 11, None, None)),
        Change::New(2)
    );
    let first = hits.get(0).expect("a result");
    assert_eq!((first.sharers(), first.size()), (3, 10));
    assert_eq!(first.doubts(), Doubts::default());
    assert!(hits.get(1).expect("a result").doubts().unproven);
    assert_eq!(hits.ranked(), [0, 1, 2]);
    assert_eq!((hits.len(), hits.dropped()), (3, 1));
}

#[test]
fn a_liar_joins_no_two_contents() {
    let mut hits = Hits::default();
    hits.add(hit("a", "song.ogg", 10, Some(1), Some(1)));
    hits.add(hit("b", "virus.exe", 99, Some(2), Some(2)));
    // Says of the first content that its tree is that of the second.
    assert_eq!(
        hits.add(hit("liar", "song.ogg", 99, Some(1), Some(2))),
        Change::Grew(0)
    );
    let song = hits.get(0).expect("a result");
    assert_eq!(song.hashes.tiger, Some(TigerRoot([1; 24])));
    assert_eq!((song.doubts().hashes, song.doubts().sizes), (1, 1));
    assert_eq!(
        hits.add(hit("c", "virus.exe", 99, None, Some(2))),
        Change::Grew(1)
    );
}

#[test]
fn names_that_share_no_word_with_most_are_told() {
    let mut hits = Hits::default();
    for sharer in ["a", "b", "c"] {
        hits.add(hit(
            sharer,
            &format!("Sea Shanty {sharer}.ogg"),
            10,
            Some(1),
            None,
        ));
    }
    hits.add(hit("d", "Top Hit 2026.ogg", 10, Some(1), None));
    let doubts = hits.get(0).expect("a result").doubts();
    assert_eq!((doubts.names, doubts.sizes), (1, 0));
    // Of two that differ nobody can say which is wrong.
    let mut hits = Hits::default();
    hits.add(hit("a", "one.ogg", 10, Some(1), None));
    hits.add(hit("b", "other.ogg", 10, Some(1), None));
    assert_eq!(hits.get(0).expect("a result").doubts().names, 0);
}

#[test]
fn what_can_be_had_comes_first() {
    let mut hits = Hits::default();
    for (n, sharers) in [(1, 1), (2, 3), (3, 2), (4, 3)] {
        for sharer in 0..sharers {
            let mut one = hit(&format!("s{n}{sharer}"), "song.ogg", 10, Some(n), None);
            // The fourth has as many sharers as the second, and they make everybody wait.
            one.queue = (n == 4).then_some(20);
            hits.add(one);
        }
    }
    assert_eq!(hits.ranked(), [1, 2, 0, 3]);
    hits.answered("gnutella", "s10", Duration::from_millis(30));
    assert_eq!(hits.ranked()[0], 1);
    let mut fast = hit("fast", "song.ogg", 10, Some(1), None);
    fast.rate = Some(10_000_000);
    hits.add(fast);
    assert_eq!(hits.ranked()[0], 0);
}

#[test]
fn what_earlier_fetches_showed_counts_more_than_words() {
    let score = |change: fn(&mut Hit)| {
        let mut hits = Hits::default();
        let mut one = hit("a", "song.ogg", 10, Some(1), None);
        change(&mut one);
        hits.add(one);
        hits.get(0).expect("a result").score()
    };
    let unknown = score(|_| {});
    let boasts = score(|h| h.claimed = Some(u64::MAX));
    let at_most = score(|h| h.claimed = Some(MAX_CLAIM));
    let gave = score(|h| h.rate = Some(1_000_000));
    let refused = score(|h| h.refused = 2);
    let lied = score(|h| (h.lied, h.rate, h.claimed) = (true, Some(1 << 40), Some(1 << 40)));
    assert!(unknown < boasts && boasts <= at_most && boasts < gave);
    assert!(refused < unknown && lied < refused, "{refused} {lied}");
    assert_eq!(lied, 0.0);
}

#[test]
fn only_what_is_wanted_passes() {
    let filter = Filter {
        terms: Terms::parse("shanty -live"),
        kind: FileKind::parse(b"audio"),
        size: 5..=20,
        min_bitrate: 128,
    };
    let mut good = hit("a", "Sea Shanty.ogg", 10, None, None);
    good.bitrate = 192;
    assert!(filter.admits(&good));
    let change = |f: &dyn Fn(&mut Hit)| {
        let mut other = good.clone();
        f(&mut other);
        filter.admits(&other)
    };
    assert!(!change(&|h| h.name = "Sea Shanty (live).ogg".into()));
    assert!(!change(&|h| h.name = "Sea Shanty.txt".into()));
    assert!(!change(&|h| h.size = 21));
    assert!(!change(&|h| h.bitrate = 0));
    assert!(Filter::default().admits(&hit("a", "", 0, None, None)));
}

#[test]
fn a_saved_search_tells_what_is_new() {
    let mut hits = Hits::default();
    hits.add(hit("a", "one.ogg", 10, Some(1), None));
    hits.add(hit("a", "two.ogg", 10, None, None));
    let mut seen = Seen::default();
    let news = |hits: &Hits, seen: &mut Seen| -> Vec<usize> {
        (0..hits.len())
            .filter(|n| seen.is_new(hits.get(*n).expect("a result")))
            .collect()
    };
    assert_eq!(news(&hits, &mut seen), [0, 1]);
    let mut seen = Seen::from_bytes(&seen.to_bytes()).expect("sound");
    hits.add(hit("b", "one.ogg", 10, Some(1), Some(7)));
    hits.add(hit("b", "three.ogg", 10, Some(3), None));
    assert_eq!(news(&hits, &mut seen), [2]);
    // By another of its hashes it is still the same.
    let mut later = Hits::default();
    later.add(hit("c", "one.ogg", 10, None, Some(7)));
    assert_eq!(news(&later, &mut seen), []);
    assert_eq!(Seen::from_bytes(&[0; 7]), None);
    assert_eq!(Seen::from_bytes(&[0; 16]), None, "twice the same");
}

fn any_hit() -> impl Strategy<Value = Hit> {
    let small = || prop::option::of(0..4_u8);
    (
        "[a-d]",
        "[ab]( [cd])?(\\.ogg)?",
        0..3_u64,
        small(),
        small(),
        any::<bool>(),
    )
        .prop_map(|(sharer, name, size, sha1, tiger, firewalled)| Hit {
            firewalled,
            ..hit(&sharer, &name, size, sha1, tiger)
        })
}

proptest! {
    #[test]
    fn every_hit_is_in_the_result_of_its_best_hash(all in prop::collection::vec(any_hit(), 0..60)) {
        let mut hits = Hits::default();
        for one in &all {
            hits.add(one.clone());
        }
        let mut kept = 0;
        let mut ranked = hits.ranked();
        for n in &ranked {
            let found = hits.get(*n).expect("a result");
            kept += found.hits.len();
            prop_assert!(found.score().is_finite() && found.score() > 0.0);
            prop_assert!(found.hits.iter().any(|h| h.size == found.size()));
            let doubts = found.doubts();
            let most = found.hits.len();
            prop_assert!(doubts.sizes < most && doubts.names < most && doubts.hashes < most);
            prop_assert_eq!(doubts.unproven, found.hits.iter().all(|h| h.hashes.is_empty()));
        }
        prop_assert_eq!(kept as u64 + hits.dropped(), all.len() as u64);
        ranked.sort_unstable();
        prop_assert_eq!(ranked, (0..hits.len()).collect::<Vec<_>>());
        // The same SHA-1 is never in two results' names.
        let mut sha1s: Vec<_> = (0..hits.len()).filter_map(|n| hits.get(n)?.hashes.sha1).collect();
        let before = sha1s.len();
        sha1s.sort_unstable();
        sha1s.dedup();
        prop_assert_eq!(sha1s.len(), before);
    }

    #[test]
    fn any_bytes_are_marks_or_refused(bytes: Vec<u8>) {
        if let Some(seen) = Seen::from_bytes(&bytes) {
            prop_assert_eq!(seen.to_bytes(), bytes);
        }
    }
}
