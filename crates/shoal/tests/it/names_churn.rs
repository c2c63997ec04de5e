//! The index of names with real processes: of six supernodes two are killed at once, and come back with
//! nothing; then two others. `SHOAL_CHURN=ROUNDSxSEED` says how often, and who; `-- --nocapture` shows
//! how long it takes.

use std::time::{Duration, Instant};

use shoal_base::Rng;
use shoal_call::chat::{Event, Status};
use shoal_node::supernode::PeopleEvent;

use crate::chat::listed;
use crate::people::{Online, Person, look_up};
use crate::process::{LONG, Running};
use crate::supernode::Overlay;

const SUPERNODES: usize = 6;
/// A third of them.
const KILLED: usize = 2;
/// Letters that are not taken for each other in names.
const LETTERS: &str = "abcdefghjkmnpqrstuvx";
/// What a newcomer waits for all of the names when some of those it asks were killed a moment ago: five to
/// seven seconds, and more where other tests keep the processors.
const FOUND: Duration = Duration::from_secs(30);
/// What offline texts may take after the return of their recipient.
const RETURN: Duration = Duration::from_secs(5);

/// How many rounds, and the seed that says who is killed.
fn rounds() -> (usize, u64) {
    let Ok(text) = std::env::var("SHOAL_CHURN") else {
        return (2, 1);
    };
    let read = text.split_once('x');
    let read = read.and_then(|(rounds, seed)| Some((rounds.parse().ok()?, seed.parse().ok()?)));
    read.unwrap_or_else(|| panic!("SHOAL_CHURN={text}, not 3x7"))
}

/// A supernode that comes back where it was.
struct Place {
    name: String,
    addr: String,
    run: Running,
}

fn start(overlay: &Overlay, name: &str, listen: &str) -> Place {
    let args = ["--supernode", "--keep-role", "--listen", listen];
    let state = format!("state-{name}");
    let mut all = vec!["supernode", "node", "--login", &overlay.at, "--name", name];
    all.extend(["--state-dir", &state, "--stats-interval", "1"]);
    all.extend(args);
    let mut run = overlay.world.start(&all);
    Place {
        name: name.to_owned(),
        addr: run.addr(),
        run,
    }
}

/// Waits for the next word of a supernode on how many records it keeps.
#[track_caller]
fn records(place: &mut Place) -> u64 {
    let stats = place.run.event("supernode_stats");
    stats["records"].as_u64().expect("a number")
}

/// Waits until there are so many copies of records, and each of these supernodes has some.
#[track_caller]
fn copies<'a>(supers: impl Iterator<Item = &'a mut Place>, wanted: u64) {
    let begun = Instant::now();
    let mut supers: Vec<_> = supers.collect();
    loop {
        let kept: Vec<u64> = supers.iter_mut().map(|place| records(place)).collect();
        if kept.iter().sum::<u64>() >= wanted && !kept.contains(&0) {
            return;
        }
        assert!(begun.elapsed() < LONG, "{kept:?} of {wanted}");
    }
}

/// Writes a text and waits until its recipient has read it.
#[track_caller]
fn talk(from: &Online, name: &str, to: &mut Online, text: &str) {
    from.people
        .write(name, text)
        .expect("it runs")
        .expect("taken");
    assert_eq!(to.text().1, text);
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "how long it takes is read by whoever runs it"
)]
fn every_name_outlives_a_third_of_the_supernodes_again_and_again() {
    let (rounds, seed) = rounds();
    let mut rng = Rng::from_seed(seed);
    let overlay = Overlay::new();
    let mut supers: Vec<Place> = (0..SUPERNODES)
        .map(|n| start(&overlay, &format!("super{n}"), "127.0.0.1:0"))
        .collect();
    listed(&overlay.world, &overlay.at, SUPERNODES);
    let names: Vec<String> = LETTERS.chars().map(|c| format!("person-{c}")).collect();
    let people: Vec<Person> = names
        .iter()
        .zip(1..)
        .map(|(name, n)| Person::claim(&overlay.world, &overlay.at, name, n))
        .collect();
    let mut online: Vec<Online> = people.iter().map(Person::online).collect();
    for one in &mut online {
        one.at_home();
    }
    // Who is there: two buddies. All others go, so that nobody publishes their records again.
    online.truncate(2);
    for (n, one) in online.iter().enumerate() {
        one.people.set_buddy(&names[1 - n], true);
    }
    let (at, server) = (people[0].at, people[0].server);
    let count = names.len() as u64;
    let mut order: Vec<usize> = (0..SUPERNODES).collect();
    for round in 0..rounds {
        if (round * KILLED).is_multiple_of(SUPERNODES) {
            rng.shuffle(&mut order);
        }
        let begun = Instant::now();
        // Whoever is to be written to while away was there since its supernodes were started again.
        let away = 2 + round;
        people[away].online().at_home();
        copies(supers.iter_mut(), 4 * count);
        let first = round * KILLED % SUPERNODES;
        let killed = &order[first..first + KILLED];
        for n in killed {
            supers[*n].run.kill();
        }
        let (found, took) = look_up(at, server, &names, FOUND);
        let missing: Vec<_> = names
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none())
            .collect();
        assert!(
            missing.is_empty(),
            "round {round}, seed {seed}: {missing:?}"
        );
        for (person, record) in people.iter().zip(found.iter().flatten()) {
            assert_eq!(
                record.certificate.key,
                person.key.verifying_key().to_bytes()
            );
        }
        eprintln!("round {round}: all {count} names after {took:.2?}");

        // Texts for who is there and who is not, and how a buddy is.
        let (one, rest) = online.split_at_mut(1);
        talk(&one[0], &names[1], &mut rest[0], &format!("round {round}"));
        rest[0]
            .people
            .set_status([Status::Away, Status::Online][round % 2]);
        let wanted = [Status::Away, Status::Online][round % 2];
        one[0].wait_for("presence of a buddy", |event| match event {
            PeopleEvent::Chat(Event::Presence(name, status)) => {
                (*name == names[1] && *status == wanted).then_some(())
            }
            _ => None,
        });
        let text = format!("while you were away, {round}");
        let seq = one[0].people.write(&names[away], &text);
        one[0].stored(seq.expect("it runs").expect("taken"), 1);
        let back = Instant::now();
        let mut returned = people[away].online();
        assert_eq!(returned.text().1, text);
        assert!(back.elapsed() < RETURN, "{:?}", back.elapsed());
        drop(returned);

        // The ring closes: all that are left keep all.
        let left = supers.iter_mut().enumerate();
        let left = left.filter(|(n, _)| !killed.contains(n));
        copies(left.map(|(_, place)| place), 4 * count);
        eprintln!(
            "round {round}: four copies of each after {:.1?}",
            begun.elapsed()
        );
        for n in killed {
            let (name, addr) = (supers[*n].name.clone(), supers[*n].addr.clone());
            supers[*n] = start(&overlay, &name, &addr);
        }
        assert!(begun.elapsed() < 2 * LONG, "round {round}");
    }
}
