//! The QRP document's vectors and examples, and properties of tables and their updates.

use super::*;
use crate::huge::TigerRoot;
use crate::message::route::Route;
use proptest::prelude::*;

#[test]
fn the_documents_hashes_come_out() {
    for (word, bits, want) in [
        ("", 13, 0),
        ("eb", 13, 6791),
        ("ebc", 13, 7082),
        ("ebck", 13, 6698),
        ("ebckl", 13, 3179),
        ("ebcklm", 13, 3235),
        ("ebcklme", 13, 6438),
        ("ebcklmen", 13, 1062),
        ("ebcklmenq", 13, 3527),
        ("", 16, 0),
        ("n", 16, 65003),
        ("nd", 16, 54193),
        ("ndf", 16, 4953),
        ("ndfl", 16, 58201),
        ("ndfla", 16, 34830),
        ("ndflal", 16, 36910),
        ("ndflale", 16, 34586),
        ("ndflalem", 16, 37658),
        ("ndflaleme", 16, 45559),
        ("ol2j34lj", 10, 318),
        ("asdfas23", 10, 503),
        ("9um3o34fd", 10, 758),
        ("a234d", 10, 281),
        ("a3f", 10, 767),
        ("3nja9", 10, 581),
        ("2459345938032343", 10, 146),
        ("7777a88a8a8a8", 10, 342),
        ("asdfjklkj3k", 10, 861),
        ("adfk32l", 10, 1011),
        ("zzzzzzzzzzz", 10, 944),
        ("3NJA9", 10, 581),
        ("3nJa9", 10, 581),
    ] {
        assert_eq!(slot(hash(word.as_bytes()), bits), want, "{word} of {bits}");
    }
}

/// Which of eight slots are set.
fn slots(table: &Table) -> Vec<u32> {
    (0..8).filter(|n| table.has(n << 29)).collect()
}

/// The document's appendix B: "test" is added, "qrp" is added, "test" is removed, in five encodings.
#[test]
fn the_documents_examples_are_read() {
    let reset = Route::read(&[0, 8, 0, 0, 0, 7]).unwrap();
    let examples: [&[&[u8]]; 5] = [
        &[
            &[1, 1, 1, 0, 8, 0, 0, 0xfa, 0, 0, 0, 0, 0],
            &[1, 1, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0xfa, 0],
            &[1, 1, 1, 0, 8, 0, 0, 6, 0, 0, 0, 0, 0],
        ],
        &[
            &[1, 1, 1, 0, 4, 0, 0xa0, 0, 0],
            &[1, 1, 1, 0, 4, 0, 0, 0, 0xa0],
            &[1, 1, 1, 0, 4, 0, 0x60, 0, 0],
        ],
        &[
            &[1, 1, 2, 0, 4, 0, 0xa0],
            &[1, 2, 2, 0, 4, 0, 0],
            &[1, 1, 2, 0, 4, 0, 0],
            &[1, 2, 2, 0, 4, 0, 0xa0],
            &[1, 1, 2, 0, 4, 0, 0x60],
            &[1, 2, 2, 0, 4, 0, 0],
        ],
        &[
            b"\x01\x01\x01\x01\x04\x78\x9c\x63\x58\xc0\xc0\x00\x00\x01\xe4\x00\xa1",
            b"\x01\x01\x01\x01\x04\x78\x9c\x63\x60\x60\x58\x00\x00\x00\xa4\x00\xa1",
            b"\x01\x01\x01\x01\x04\x78\x9c\x63\x48\x60\x60\x00\x00\x01\x24\x00\x61",
        ],
        &[
            b"\x01\x01\x02\x01\x04\x78\x9c\x63\x58\xc0\xc0\x00\x00\x01\xe4",
            b"\x01\x02\x02\x01\x04\x00\xa1",
            b"\x01\x01\x02\x01\x04\x78\x9c\x63\x60\x60\x58\x00\x00\x00\xa4",
            b"\x01\x02\x02\x01\x04\x00\xa1",
            b"\x01\x01\x02\x01\x04\x78\x9c\x63\x48\x60\x60\x00\x00\x01\x24",
            b"\x01\x02\x02\x01\x04\x00\x61",
        ],
    ];
    for example in examples {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.on_message(reset), Ok(false));
        assert!(receiver.table().is_none());
        let mut seen = Vec::new();
        for message in example {
            if receiver.on_message(Route::read(message).unwrap()).unwrap() {
                seen.push(slots(receiver.table().unwrap()));
            }
        }
        // The document calls the second word's hash 7, and puts it into the slot before the last.
        let want: [&[u32]; 3] = [&[2], &[2, 6], &[6]];
        assert_eq!(seen, want);
    }
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let reset = Route::read(&[0, 8, 0, 0, 0, 7]).unwrap();
    let on = |messages: &[&[u8]]| {
        let mut receiver = Receiver::default();
        let mut last = receiver.on_message(reset);
        for message in messages {
            last = receiver.on_message(Route::read(message).unwrap());
        }
        last
    };
    let mut bare = Receiver::default();
    let patch = Route::read(&[1, 1, 1, 0, 1, 0]).unwrap();
    assert_eq!(bare.on_message(patch), Err(RouteError::NoReset));
    assert_eq!(on(&[&[1, 2, 2, 0, 4, 0, 0]]), Err(RouteError::Order));
    assert_eq!(
        on(&[&[1, 1, 2, 0, 4, 0, 0], &[1, 2, 2, 0, 8, 0, 0]]),
        Err(RouteError::Order)
    );
    assert_eq!(on(&[&[1, 1, 1, 0, 4, 0, 0, 0]]), Err(RouteError::Length));
    assert_eq!(on(&[&[1, 1, 1, 0, 1, 0, 0]]), Err(RouteError::Length));
    assert_eq!(on(&[&[1, 1, 1, 1, 4, 1, 2, 3]]), Err(RouteError::Packed));
}

#[test]
fn a_table_has_beginnings_of_words_and_contents() {
    // Hashes that repeat themselves would cancel out in the XOR.
    let sha1 = |n: u8| std::array::from_fn(|at| n.wrapping_mul(at as u8 + 1));
    let mut table = Table::new(BITS);
    table.add("Rare Recordings (live).ogg", Some(sha1(3)));
    let finds = |text: &str, urns: &[Urn]| table.may_answer(&Probe::of_text(text.as_bytes(), urns));
    assert!(finds("recording RARE", &[]));
    assert!(finds("record", &[]), "four letters less");
    assert!(!finds("rare bootleg", &[]));
    assert!(finds("", &[Urn::Sha1(sha1(3))]));
    assert!(finds(
        "other words",
        &[Urn::Bitprint(sha1(3), TigerRoot([0; 24]))]
    ));
    assert!(!finds("", &[Urn::Sha1(sha1(4))]));
    assert!(finds("a b", &[]), "words too short to tell");
}

#[test]
fn tables_of_other_sizes_are_folded_and_spread() {
    let words: Vec<u32> = (0..40_u32)
        .map(|n| hash(n.to_string().as_bytes()))
        .collect();
    for (from, to) in [(18, 16), (10, 16), (16, 16), (3, 21)] {
        let mut small = Table::new(from);
        words.iter().for_each(|w| small.insert(*w));
        let mut merged = Table::new(to);
        merged.merge(&small);
        assert!(words.iter().all(|w| merged.has(*w)), "{from} to {to}");
    }
}

fn table_of(bits: u8, words: &[String]) -> Table {
    let mut table = Table::new(bits);
    for word in words {
        table.insert(hash(word.as_bytes()));
    }
    table
}

proptest! {
    #[test]
    fn updates_carry_a_table_over(
        steps in prop::collection::vec(prop::collection::vec("[a-z]{1,8}", 0..60), 1..5),
        bits in 3_u8..=17,
        one_bit: bool,
    ) {
        let mut receiver = Receiver::default();
        let mut sent: Option<Table> = None;
        for words in steps {
            let table = table_of(bits, &words);
            if sent.is_none() {
                receiver.on_message(Route::read(&reset(&table)).unwrap()).unwrap();
            }
            for message in patches(sent.as_ref(), &table, one_bit) {
                prop_assert!(message.len() <= MAX_PART + 6);
                receiver.on_message(Route::read(&message).unwrap()).unwrap();
            }
            prop_assert_eq!(receiver.table(), Some(&table));
            sent = Some(table);
        }
    }

    #[test]
    fn arbitrary_updates_are_applied_or_refused(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8),
    ) {
        let mut receiver = Receiver::default();
        let _ = receiver.on_message(Route::Reset { slots: 64, infinity: 7 });
        for message in messages {
            if let Ok(route) = Route::read(&message) && receiver.on_message(route).is_err() {
                break;
            }
        }
        if let Some(table) = receiver.table() {
            prop_assert!(table.count() <= 1 << table.bits());
        }
    }
}
