//! Sharers that nobody can connect to.

use super::*;

/// The query of the last hits that a node heard of, and who shares.
fn last_hit(w: &World, at: u32) -> (QueryId, Key) {
    let hit = w.events.iter().rev().find_map(|(_, n, e)| match e {
        Event::Hits(id, hits) if *n == at => Some((*id, hits[0].sharer.token.key)),
        _ => None,
    });
    hit.expect("a hit")
}

#[test]
fn a_sharer_that_cannot_be_reached_is_asked_by_the_way_its_hit_came() {
    let mut w = World::overlay(12);
    let (home, other) = (w.homes()[&100], w.homes());
    let far = other
        .iter()
        .find(|(_, h)| **h != home)
        .expect("one elsewhere");
    let far = *far.0;
    assert_eq!(w.finds(100, &format!("number{far}")), [far]);
    let (query, sharer) = last_hit(&w, 100);
    let before = w.events.len();
    w.with(100, |n, now, out| {
        assert!(n.push(now, query, &sharer, [1; 20], out));
        assert!(
            !n.push(now, [0; 16], &sharer, [1; 20], out),
            "no such query"
        );
    });
    w.runs(Duration::from_secs(2));
    let asked = w.events[before..].iter().filter_map(|(_, at, e)| match e {
        Event::Push(sha1, to) => Some((*at, *sha1, *to)),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [(far, [1; 20], 100)]);
}

#[test]
fn nobody_makes_a_sharer_connect_to_somebody_else() {
    let mut w = World::overlay(6);
    let home = w.homes()[&100].expect("at home");
    let link = stranger(&mut w, home, 300, Purpose::Child);
    let query = Message::Query {
        id: [3; 16],
        wanted: Wanted::Words("number100".into()),
        ttl: 0,
    };
    w.with(home, |n, now, out| n.on_message(now, link, query, out));
    let sharer = own_key(100).verifying_key().to_bytes();
    let own = |links, n| Presence::new(&own_key(300), token(&server(), n, 1_000_000), links, None);
    let push = |query, from| Message::Push {
        query,
        sharer,
        sha1: [1; 20],
        from: Box::new(from),
    };
    let told = [
        // Another's address in one's own name, and one's own address in another's.
        push([3; 16], own(101, 300)),
        push([3; 16], own(300, 301)),
    ];
    for message in told {
        w.with(home, |n, now, out| n.on_message(now, link, message, out));
    }
    // By the way of a query that somebody else asked.
    let thief = stranger(&mut w, home, 302, Purpose::Child);
    let mine = Presence::new(
        &own_key(302),
        token(&server(), 302, 1_000_000),
        302,
        Some(302),
    );
    w.with(home, |n, now, out| {
        n.on_message(now, thief, push([3; 16], mine), out);
    });
    w.runs(Duration::from_secs(2));
    let pushed = w
        .events
        .iter()
        .any(|(_, _, e)| matches!(e, Event::Push(..)));
    assert!(!pushed);
}
