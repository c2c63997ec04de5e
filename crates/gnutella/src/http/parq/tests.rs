use super::*;

fn asker(n: u8, queueing: Queueing) -> Asker {
    Asker {
        ip: IpAddr::from([44, 20, n, 1]),
        connection: u64::from(n),
        queueing,
        id: None,
        node: None,
        sha1: [1; 20],
        bytes: 30 << 20,
    }
}

fn parq(n: u8) -> Asker {
    asker(n, Queueing::Parq)
}

struct Scene {
    queue: Queue,
    rng: Rng,
    now: Time,
}

impl Scene {
    fn new(slots: u32) -> Self {
        let config = QueueConfig {
            slots,
            ..QueueConfig::default()
        };
        Self {
            queue: Queue::new(config),
            rng: Rng::from_seed(1),
            now: Time::ZERO,
        }
    }

    fn ask(&mut self, asker: &Asker) -> Answer {
        self.queue.ask(self.now, &mut self.rng, asker)
    }

    fn place(&mut self, asker: &Asker) -> Place {
        match self.ask(asker) {
            Answer::Queued(place) => place,
            other => panic!("no place: {other:?}"),
        }
    }

    fn release(&mut self, n: u8) -> Vec<Call> {
        let mut calls = Vec::new();
        self.queue.release(self.now, u64::from(n), &mut calls);
        calls
    }

    fn pass(&mut self, secs: u64) -> Vec<Call> {
        self.now += Duration::from_secs(secs);
        let mut calls = Vec::new();
        self.queue.tick(self.now, &mut calls);
        calls
    }
}

#[test]
fn first_come_first_served() {
    let mut scene = Scene::new(1);
    assert_eq!(scene.ask(&parq(1)), Answer::Granted);
    let second = scene.place(&parq(2));
    let third = scene.place(&parq(3));
    assert_eq!((second.position, second.retry_after.as_secs()), (1, 30));
    assert_eq!((third.position, third.retry_after.as_secs()), (2, 50));
    assert_eq!(
        (third.length, third.eta.as_secs(), third.keep),
        (2, 30, true)
    );
    scene.release(1);
    // The third asks first, and must wait all the same.
    scene.pass(50);
    assert_eq!(scene.place(&parq(3)).position, 2);
    assert_eq!(scene.place(&parq(4)).position, 3, "a newcomer too");
    assert_eq!(scene.ask(&parq(2)), Answer::Granted);
    assert_eq!(scene.ask(&parq(2)), Answer::Granted, "it keeps its slot");
}

#[test]
fn who_polls_too_early_goes_to_the_end() {
    let mut scene = Scene::new(1);
    scene.ask(&parq(1));
    let place = scene.place(&parq(2));
    scene.place(&parq(3));
    scene.pass(20);
    let again = Asker {
        id: Some(place.id),
        ..parq(2)
    };
    let new = scene.place(&again);
    assert_eq!(new.position, 2);
    assert_ne!(new.id, place.id);
    scene.pass(49);
    let again = Asker {
        id: Some(new.id),
        ..parq(2)
    };
    assert_eq!(scene.place(&again).id, new.id, "a second is forgiven");
}

#[test]
fn a_place_is_of_one_host() {
    let mut scene = Scene::new(1);
    scene.ask(&parq(1));
    let place = scene.place(&parq(2));
    scene.pass(30);
    let thief = Asker {
        id: Some(place.id),
        ..parq(9)
    };
    assert_ne!(scene.place(&thief).id, place.id);
    // The connection was lost: the name brings it back.
    scene.release(2);
    let back = Asker {
        id: Some(place.id),
        connection: 77,
        ..parq(2)
    };
    assert_eq!(scene.place(&back).position, 1);
}

#[test]
fn who_does_not_come_back_loses_its_place_and_who_left_an_address_is_called() {
    let mut scene = Scene::new(1);
    scene.ask(&parq(1));
    scene.place(&parq(2));
    let node = SocketAddr::from(([44, 20, 3, 1], 6346));
    let reachable = Asker {
        node: Some(node),
        ..parq(3)
    };
    let place = scene.place(&reachable);
    assert_eq!(scene.queue.deadline(), Some(Time::from_secs(330)));
    assert_eq!(scene.pass(331), []);
    assert_eq!(scene.queue.len(), 1);
    let call = Call { node, id: place.id };
    assert_eq!(scene.pass(20), [call]);
    assert_eq!(scene.pass(61), [call]);
    assert_eq!(scene.pass(61), []);
    assert!(scene.queue.is_empty(), "two calls without an answer");
}

#[test]
fn a_free_slot_is_told_to_who_holds_no_connection() {
    let mut scene = Scene::new(1);
    scene.ask(&parq(1));
    let node = SocketAddr::from(([44, 20, 2, 1], 6346));
    let reachable = Asker {
        node: Some(node),
        ..parq(2)
    };
    let place = scene.place(&reachable);
    assert_eq!(scene.release(2), [], "no slot was freed");
    assert_eq!(scene.release(1), [Call { node, id: place.id }]);
    let comes = Asker {
        id: Some(place.id),
        connection: 50,
        ..parq(2)
    };
    assert_eq!(
        scene.ask(&comes),
        Answer::Granted,
        "at once, not after 30 s"
    );
}

#[test]
fn others_have_their_places_too() {
    let mut scene = Scene::new(1);
    scene.ask(&parq(1));
    let legacy = scene.place(&asker(2, Queueing::Legacy));
    assert!(legacy.keep);
    let silent = asker(3, Queueing::None);
    assert!(!scene.place(&silent).keep);
    scene.now += Duration::from_secs(5);
    assert_eq!(scene.place(&silent).position, 2, "not punished");
    scene.release(2);
    assert_eq!(
        scene.place(&silent).position,
        1,
        "the other lived by its connection"
    );
    scene.release(1);
    assert_eq!(scene.ask(&silent), Answer::Granted);
}

#[test]
fn one_host_takes_neither_all_slots_nor_all_places() {
    let mut scene = Scene::new(3);
    let from = |connection| Asker {
        connection,
        ..parq(1)
    };
    assert_eq!(scene.ask(&from(1)), Answer::Granted);
    assert_eq!(scene.ask(&from(2)), Answer::Granted);
    let waits = scene.place(&from(3));
    assert_eq!(waits.position, 1);
    assert_eq!(
        scene.ask(&parq(2)),
        Answer::Granted,
        "nobody is held up by it"
    );
    for n in 4..23 {
        scene.place(&from(n));
    }
    assert!(matches!(scene.ask(&from(23)), Answer::Full(_)));
}
