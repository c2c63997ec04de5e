use super::*;
use proptest::prelude::*;
use shoal_content::{FileAttr, SafePath};

fn layout(files: &[(&str, u64)], piece_len: u32) -> Layout {
    let files = files.iter().map(|(path, len)| {
        let attr = FileAttr {
            pad: path.contains(".pad"),
            ..FileAttr::default()
        };
        (SafePath::new(path).expect("a safe path"), *len, attr)
    });
    Layout::new(files, piece_len).expect("a layout")
}

#[test]
fn urls_follow_bep_19() {
    let one = layout(&[("a b.iso", 10)], 16384);
    let many = layout(&[("top/x y", 10), ("top/d#/é", 10)], 16384);
    let folder = layout(&[("top/only", 10)], 16384);
    let cases = [
        (&one, 0, "http://h/f.iso", "http://h/f.iso"),
        (&one, 0, "http://h/", "http://h/a%20b.iso"),
        (&many, 0, "http://h/pub/", "http://h/pub/top/x%20y"),
        (&many, 1, "http://h/pub", "http://h/pub/top/d%23/%C3%A9"),
        (&folder, 0, "http://h", "http://h/top/only"),
    ];
    for (layout, file, base, url) in cases {
        assert_eq!(file_url(base, layout, file).as_deref(), Some(url));
    }
    assert_eq!(file_url("http://h/", &one, 1), None);
}

#[test]
fn runs_cross_pieces_and_files_and_leave_out_padding() {
    let l = layout(
        &[("t/a", 40_000), ("t/.pad/1", 25_536), ("t/b", 30_000)],
        32768,
    );
    let g = l.geometry();
    let blocks: Vec<Block> = (0..g.pieces())
        .flat_map(|p| (0..g.blocks(p)).map(move |n| g.block(p, n)))
        .collect();
    assert_eq!(run_len(&l, &blocks), blocks.len());
    assert_eq!(
        parts(&l, &blocks),
        [
            Part::File {
                file: 0,
                start: 0,
                len: 40_000
            },
            Part::Zeros { len: 25_536 },
            Part::File {
                file: 2,
                start: 0,
                len: 30_000
            },
        ]
    );
    let torn = [blocks[0], blocks[2], blocks[3]];
    assert_eq!(run_len(&l, &torn), 1);
    assert_eq!(run_len(&l, &torn[1..]), 2);
    assert_eq!(run_len(&l, &[]), 0);
    let big = layout(&[("x", 64 << 20)], 1 << 20);
    let g = big.geometry();
    let blocks: Vec<Block> = (0..1000).map(|n| g.block(n / 64, n % 64)).collect();
    assert_eq!(run_len(&big, &blocks), 256);
}

#[test]
fn answers_are_judged() {
    let base = Answer {
        status: 206,
        content_range: Some("bytes 100-199/5000"),
        ..Answer::default()
    };
    let body = |skip, len, whole| Ok(Body { skip, len, whole });
    let check = |a: &Answer<'_>| check_answer(a, &(100..200), 5000);
    assert_eq!(check(&base), body(0, 100, true));
    let with = |range| Answer {
        content_range: range,
        ..base
    };
    assert_eq!(check(&with(Some("bytes 100-149/*"))), body(0, 50, true));
    for bad in [
        None,
        Some("bytes 0-99/5000"),
        Some("bytes 100-200/5000"),
        Some("bytes 199-100/5000"),
        Some("bytes */5000"),
        Some("lines 100-199/5000"),
        Some("bytes +100-199/5000"),
    ] {
        let fault = check(&with(bad)).expect_err("refused");
        assert!(
            matches!(fault.0, WebSeedFault::Range { .. }),
            "{bad:?}: {fault:?}"
        );
    }
    let longer = check(&with(Some("bytes 100-199/5001"))).expect_err("refused");
    assert!(matches!(longer.0, WebSeedFault::Length { got: 5001, .. }));

    let whole = Answer {
        status: 200,
        content_length: Some(5000),
        ..Answer::default()
    };
    assert_eq!(check(&whole), body(100, 100, false));
    assert_eq!(check_answer(&whole, &(0..5000), 5000), body(0, 5000, true));
    let big = Answer {
        content_length: None,
        ..whole
    };
    let far = check_answer(&big, &(2 << 20..3 << 20), 4 << 20);
    assert_eq!(far, Err((WebSeedFault::NoRanges, ABSENT)));
    let zipped = Answer {
        content_encoding: Some("gzip"),
        ..whole
    };
    assert!(matches!(
        check(&zipped),
        Err((WebSeedFault::Encoding(_), _))
    ));

    let status = |status, retry_after| Answer {
        status,
        retry_after,
        ..Answer::default()
    };
    for (status, rest) in [
        (status(404, None), ABSENT),
        (status(404, Some("5")), ABSENT),
        (status(416, None), ABSENT),
        (status(500, None), UNWELL),
        (status(503, None), UNWELL),
        (status(503, Some("7")), Duration::from_secs(7)),
        (status(429, Some("99999999")), MAX_RETRY_AFTER),
        (status(503, Some("Fri, 31 Dec 1999 23:59:59 GMT")), UNWELL),
        (status(302, None), ABSENT),
    ] {
        let (fault, got) = check(&status).expect_err("refused");
        assert_eq!(got, rest, "{fault}");
    }
}

#[test]
fn tries_grow_apart_and_end() {
    let mut b = Backoff::default();
    let waits: Vec<_> = std::iter::from_fn(|| b.on_failure()).collect();
    assert_eq!(waits.len(), 3);
    assert!(waits.windows(2).all(|w| w[0] < w[1]), "{waits:?}");
    b.on_success();
    assert!(b.on_failure().is_some());
}

proptest! {
    #[test]
    fn parts_add_up_to_the_run(
        lens in prop::collection::vec((0u64..100_000, any::<bool>()), 1..8),
        skip in 0usize..20,
    ) {
        let names: Vec<String> = lens
            .iter()
            .enumerate()
            .map(|(i, (_, pad))| if *pad { format!("t/.pad/{i}") } else { format!("t/{i}") })
            .collect();
        let files: Vec<(&str, u64)> =
            names.iter().zip(&lens).map(|(n, (len, _))| (n.as_str(), *len)).collect();
        let l = layout(&files, 32768);
        let g = l.geometry();
        let blocks: Vec<Block> = (0..g.pieces())
            .flat_map(|p| (0..g.blocks(p)).map(move |n| g.block(p, n)))
            .skip(skip)
            .collect();
        let n = run_len(&l, &blocks);
        prop_assert_eq!(n == 0, blocks.is_empty());
        let want: u64 = blocks.iter().take(n).map(|b| u64::from(b.len)).sum();
        let got: u64 = parts(&l, blocks.get(..n).unwrap_or(&[])).iter().map(Part::len).sum();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn any_header_is_judged_without_panic(text in ".{0,60}") {
        fuzz(text.as_bytes());
    }
}
