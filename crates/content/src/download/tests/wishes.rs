//! What is wanted, in which order, how much at once, and what was there before.

use super::*;

#[test]
fn sequential_mode_and_deadlines_order_the_pieces() {
    let mut w = World::new(8, 100, DownloadConfig::default());
    w.download.set_mode(Mode::Sequential);
    w.download.set_deadline(90, Time::from_secs(2));
    w.download.set_deadline(80, Time::from_secs(1));
    let a = w.add(&with_address(1), None);
    let pieces: Vec<u32> = w.all[a].pending.iter().map(|b| b.piece).collect();
    let mut order = pieces;
    order.dedup();
    assert_eq!(order, [80, 90, 0, 1, 2, 3, 4, 5]);
    w.run(60.0);
}

#[test]
fn random_mode_does_not_care_what_is_rare() {
    // Of two sources one lacks piece 7. How often is it among the first eight asked of the other?
    let early = |mode| {
        (0..40).filter(move |seed| {
            let config = DownloadConfig {
                random_first: 0,
                ..DownloadConfig::default()
            };
            let mut w = World::new(*seed, 40, config);
            w.download.set_mode(mode);
            let mut common = Bitfield::full(40);
            common.clear(7);
            w.add(&with_address(1), Some(&common));
            let all = w.add(&with_address(2), None);
            w.all[all].pending.iter().any(|b| b.piece == 7)
        })
    };
    assert_eq!(early(Mode::RarestFirst).count(), 40);
    let random = early(Mode::Random).count();
    assert!((3..20).contains(&random), "{random} of 40");
}

#[test]
fn the_total_of_open_requests_is_bounded() {
    let most = 20 * u64::from(BLOCK_LEN);
    let config = DownloadConfig {
        max_outstanding: Some(most),
        ..DownloadConfig::default()
    };
    let mut w = World::new(9, 100, config);
    for a in 0..4 {
        w.add(&with_address(a), None);
    }
    while !w.download.is_finished() {
        assert!(w.download.bytes_outstanding() <= most);
        assert!(w.step());
    }
    assert!(w.now < secs(10.0), "{:?}", w.now);
}

#[test]
fn a_pause_of_our_own_makes_nothing_be_asked_twice() {
    let mut w = World::new(16, 400, DownloadConfig::default());
    for a in 0..4 {
        w.add(&with_address(a), None);
    }
    while w.now < secs(0.5) {
        w.step();
    }
    // Nothing is read for eight seconds, but the clock goes on.
    let held = std::mem::take(&mut w.events);
    while w.now < secs(8.5) && w.step() {}
    w.now = secs(8.5);
    for Reverse((_, _, event)) in held.into_sorted_vec().into_iter().rev() {
        w.at(secs(8.5), event);
    }
    w.run(60.0);
    // The end game may ask for a block or two again; the pause alone would have for dozens.
    assert!(w.download.waste().duplicate <= 2 * u64::from(BLOCK_LEN));
}

#[test]
fn paused_nothing_is_asked_and_then_it_goes_on() {
    let mut w = World::new(10, 40, DownloadConfig::default());
    w.add(&with_address(1), None);
    w.download.set_paused(w.now, true, &mut Vec::new());
    while w.now < secs(3.0) && w.step() {}
    assert_eq!(w.download.bytes_outstanding(), 0);
    let mut out = Vec::new();
    w.download.set_paused(w.now, false, &mut out);
    w.apply(out);
    w.run(60.0);
}

#[test]
fn restored_blocks_are_not_asked_for_again() {
    let mut w = World::new(11, 10, DownloadConfig::default());
    let g = w.download.geometry();
    let mut two = Bitfield::new(4);
    two.set(0);
    two.set(2);
    assert!(!w.download.restore_partial(3, &two));
    assert!(w.download.restore_partial(4, &Bitfield::full(4)));
    for b in [g.block(3, 0), g.block(3, 2)] {
        w.disk.insert(b, 0);
    }
    for n in 0..4 {
        w.disk.insert(g.block(4, n), 0);
    }
    w.at(Time::ZERO, Event::Hashed(4));
    assert_eq!(w.download.partial().count(), 2);
    w.add(&with_address(1), None);
    w.run(60.0);
    assert_eq!(w.arrivals, 40 - 6);
}

#[test]
fn skipped_pieces_are_left_out_until_wanted() {
    let mut w = World::new(12, 40, DownloadConfig::default());
    let mut out = Vec::new();
    w.add(&with_address(1), None);
    w.download.set_priorities(
        w.now,
        |p| {
            if p < 10 {
                Priority::High
            } else {
                Priority::Skip
            }
        },
        &mut out,
    );
    w.apply(out);
    w.download.check_invariants();
    while !w.download.is_finished() {
        assert!(w.step());
    }
    assert_eq!(w.finished, 1);
    assert!(!w.all[0].interested);
    while w.events.peek().is_some() && w.step() {}
    assert_eq!(w.download.have().count(), 10);
    let mut out = Vec::new();
    w.download
        .set_priorities(w.now, |_| Priority::Low, &mut out);
    w.apply(out);
    w.finished = 0;
    w.run(60.0);
}

#[test]
fn lost_pieces_are_fetched_again() {
    let mut w = World::new(13, 20, DownloadConfig::default());
    w.add(&with_address(1), None);
    w.run(60.0);
    let g = w.download.geometry();
    let mut out = Vec::new();
    for p in [3, 4] {
        w.download.on_piece_lost(w.now, p, &mut out);
        for n in 0..g.blocks(p) {
            w.disk.remove(&g.block(p, n));
        }
    }
    assert!(!w.download.is_finished());
    w.apply(out);
    (w.finished, w.haves) = (0, 18);
    w.run(60.0);
}
