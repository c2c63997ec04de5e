use super::*;

fn tiers(urls: &[&[&str]]) -> Vec<Vec<String>> {
    let tier = |t: &&[&str]| t.iter().map(|u| format!("http://{u}/announce")).collect();
    urls.iter().map(tier).collect()
}

fn announcer(urls: &[&[&str]], private: bool) -> Announcer {
    Announcer::new(Time::ZERO, &tiers(urls), private, Rng::from_seed(3))
}

fn reply(interval: u32, min_interval: Option<u32>, peers: usize) -> AnnounceReply {
    AnnounceReply {
        interval,
        min_interval,
        peers: (0..peers)
            .map(|p| ([127, 0, 0, 1], 1 + p as u16).into())
            .collect(),
        ..AnnounceReply::default()
    }
}

/// Runs one input and gives what was ordered: host and event.
fn step(a: &mut Announcer, at: u64, input: AnnouncerInput<'_>) -> Vec<(String, AnnounceEvent)> {
    let mut out = Vec::new();
    a.handle(Time::from_secs(at), input, &mut out);
    let host = |t| a.url(t).and_then(|u| u.split('/').nth(2)).unwrap_or("?");
    out.iter()
        .filter_map(|o| match o {
            AnnouncerOutput::Announce(order) => Some((host(order.tracker).to_owned(), order.event)),
            AnnouncerOutput::Failed { .. } => None,
        })
        .collect()
}

fn done<'a>(
    a: &Announcer,
    host: &str,
    result: Result<&'a AnnounceReply, Option<Duration>>,
) -> AnnouncerInput<'a> {
    let url = format!("http://{host}/announce");
    let tracker = a
        .trackers
        .iter()
        .position(|t| t.url == url)
        .expect("a known host");
    AnnouncerInput::Done { tracker, result }
}

fn seconds(t: Option<Time>) -> Option<u64> {
    t.map(|t| t.as_micros() / 1_000_000)
}

use AnnounceEvent::{Completed, None as Regular, Started, Stopped};

#[test]
fn says_started_then_regular_then_completed_then_stopped() {
    let mut a = announcer(&[&["a"]], false);
    assert_eq!(
        step(&mut a, 0, AnnouncerInput::Tick),
        [("a".into(), Started)]
    );
    assert_eq!(a.deadline(), None);
    let ok = reply(1800, None, 5);
    step(&mut a, 1, AnnouncerInput::WantsPeers(false));
    let input = done(&a, "a", Ok(&ok));
    assert_eq!(step(&mut a, 1, input), []);
    assert_eq!(seconds(a.deadline()), Some(1801));
    assert_eq!(
        step(&mut a, 1801, AnnouncerInput::Tick),
        [("a".into(), Regular)]
    );
    assert_eq!(
        step(&mut a, 1802, AnnouncerInput::Completed),
        [],
        "one is under way"
    );
    let input = done(&a, "a", Ok(&ok));
    assert_eq!(step(&mut a, 1803, input), [("a".into(), Completed)]);
    let input = done(&a, "a", Ok(&ok));
    assert_eq!(step(&mut a, 1804, input), []);
    assert_eq!(seconds(a.deadline()), Some(3604));
    assert_eq!(
        step(&mut a, 1900, AnnouncerInput::Stop),
        [("a".into(), Stopped)]
    );
    assert!(!a.is_finished());
    let input = done(&a, "a", Err(None));
    step(&mut a, 1901, input);
    assert!(a.is_finished());
    assert_eq!(a.deadline(), None);
}

#[test]
fn the_first_working_tracker_of_each_tier_is_used_and_moves_to_the_front() {
    let mut a = announcer(&[&["a", "b"], &["c"]], false);
    let first = step(&mut a, 0, AnnouncerInput::Tick);
    assert_eq!(first.len(), 2, "one of each tier: {first:?}");
    let (bad, good) = if first[0].0 == "a" {
        ("a", "b")
    } else {
        ("b", "a")
    };
    let input = done(&a, bad, Err(None));
    assert_eq!(step(&mut a, 1, input), [(good.into(), Started)]);
    let ok = reply(600, None, 1);
    for host in [good, "c"] {
        let input = done(&a, host, Ok(&ok));
        assert_eq!(step(&mut a, 2, input), []);
    }
    step(&mut a, 2, AnnouncerInput::WantsPeers(false));
    let again = step(&mut a, 602, AnnouncerInput::Tick);
    assert_eq!(again, [(good.into(), Regular), ("c".into(), Regular)]);
    let stops = step(&mut a, 603, AnnouncerInput::Stop);
    assert_eq!(stops.len(), 2, "only those that know us: {stops:?}");
}

#[test]
fn a_private_torrent_uses_one_tracker_at_a_time() {
    let mut a = announcer(&[&["a"], &["b"]], true);
    let ok = reply(600, None, 1);
    assert_eq!(
        step(&mut a, 0, AnnouncerInput::Tick),
        [("a".into(), Started)]
    );
    let input = done(&a, "a", Err(None));
    assert_eq!(step(&mut a, 1, input), [("b".into(), Started)]);
    let input = done(&a, "b", Ok(&ok));
    assert_eq!(step(&mut a, 2, input), []);
    assert_eq!(
        step(&mut a, 700, AnnouncerInput::Tick),
        [("b".into(), Regular)]
    );
}

#[test]
fn a_dead_tier_is_tried_again_ever_later_but_not_too_late() {
    let mut a = announcer(&[&["a"]], false);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert_eq!(step(&mut a, now, AnnouncerInput::Tick).len(), 1);
        let input = done(&a, "a", Err(None));
        step(&mut a, now, input);
        let next = seconds(a.deadline()).expect("tried again") + 1;
        waits.push(next - now);
        now = next;
    }
    assert!((13..=18).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).take(6).all(|w| w[0] < w[1]), "{waits:?}");
    assert!(waits.iter().all(|w| *w <= 1981), "{waits:?}");
}

#[test]
fn a_tracker_that_says_when_to_come_back_is_obeyed() {
    let mut a = announcer(&[&["a"]], false);
    step(&mut a, 0, AnnouncerInput::Tick);
    let input = done(&a, "a", Err(Some(Duration::from_secs(3600))));
    step(&mut a, 0, input);
    assert_eq!(seconds(a.deadline()), Some(3600));
    step(&mut a, 3600, AnnouncerInput::Tick);
    let input = done(&a, "a", Err(Some(Duration::MAX)));
    step(&mut a, 3600, input);
    assert_eq!(seconds(a.deadline()), Some(3600 + 6 * 3600));
}

#[test]
fn more_peers_are_asked_for_no_sooner_than_the_tracker_allows() {
    // (min interval, peers in the reply, when the next announce is due while peers are wanted)
    for (min, peers, due) in [
        (None, 3, 60),
        (Some(10), 3, 60),
        (Some(300), 3, 300),
        (Some(9000), 3, 1800),
        (None, 0, 120),
    ] {
        let mut a = announcer(&[&["a"]], false);
        step(&mut a, 0, AnnouncerInput::Tick);
        let ok = reply(1800, min, peers);
        let input = done(&a, "a", Ok(&ok));
        step(&mut a, 0, input);
        assert_eq!(
            seconds(a.deadline()),
            Some(due),
            "min {min:?}, {peers} peers"
        );
        step(&mut a, 1, AnnouncerInput::WantsPeers(false));
        assert_eq!(seconds(a.deadline()), Some(1800));
        step(&mut a, 2, AnnouncerInput::WantsPeers(true));
        assert_eq!(seconds(a.deadline()), Some(due));
    }
}

#[test]
fn unknown_schemes_and_repeats_are_left_out_and_intervals_bounded() {
    let list = |urls: &[&str]| vec![urls.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>()];
    let urls = list(&["wss://x", "", "é", "UDP://h:1", "UDP://h:1", "http://"]);
    let a = Announcer::new(Time::ZERO, &urls, false, Rng::from_seed(1));
    assert_eq!(a.trackers.len(), 2);
    let none = Announcer::new(Time::ZERO, &[], false, Rng::from_seed(1));
    assert_eq!(none.deadline(), None);
    for (interval, due) in [(0, 60), (u32::MAX, 6 * 3600)] {
        let mut a = announcer(&[&["a"]], false);
        step(&mut a, 0, AnnouncerInput::WantsPeers(false));
        step(&mut a, 0, AnnouncerInput::Tick);
        let ok = reply(interval, None, 1);
        let input = done(&a, "a", Ok(&ok));
        step(&mut a, 0, input);
        assert_eq!(seconds(a.deadline()), Some(due));
    }
}

#[test]
fn stopping_during_the_first_announce_waits_for_both() {
    let mut a = announcer(&[&["a"]], false);
    step(&mut a, 0, AnnouncerInput::Tick);
    assert_eq!(
        step(&mut a, 1, AnnouncerInput::Stop),
        [("a".into(), Stopped)]
    );
    assert_eq!(step(&mut a, 1, AnnouncerInput::Stop), []);
    let ok = reply(60, None, 0);
    for finished in [false, true] {
        let input = done(&a, "a", Ok(&ok));
        step(&mut a, 2, input);
        assert_eq!(a.is_finished(), finished);
    }
}
