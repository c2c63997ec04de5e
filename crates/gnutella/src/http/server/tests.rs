use super::*;
use crate::http::files::{Lookup, Offer};
use crate::http::queue::Queued;
use crate::http::ranges::RangeSet;
use crate::http::response::Response;
use crate::http::thex;
use crate::huge::{TigerRoot, Urn};
use proptest::prelude::{any, prop, prop_assert, proptest};

/// Three files: a whole one, a partial one, and one that is gone.
struct Library {
    browse: bool,
}

const WHOLE: Sha1 = [1; 20];
const PART: Sha1 = [2; 20];
const GONE: Sha1 = [3; 20];

fn offer(sha1: Sha1) -> Offer {
    Offer {
        key: u64::from(sha1[0]),
        name: "a \"song\".mp3".into(),
        len: 1000,
        sha1,
        tiger: (sha1 == WHOLE).then_some(TigerRoot([9; 24])),
        available: (sha1 == PART).then(|| [100..200, 300..400].into_iter().collect()),
    }
}

impl Files for Library {
    fn by_urn(&self, urn: &Urn) -> Lookup {
        match urn.sha1() {
            Some(GONE) => Lookup::Gone,
            Some(sha1 @ (WHOLE | PART)) => Lookup::Found(offer(sha1)),
            _ => Lookup::Unknown,
        }
    }

    fn by_index(&self, index: u32) -> Lookup {
        match index {
            1 => Lookup::Found(offer(WHOLE)),
            _ => Lookup::Unknown,
        }
    }

    fn tree(&self, file: &Offer) -> Option<Vec<u8>> {
        file.tiger.map(|root| root.0.to_vec())
    }

    fn browse(&self) -> Option<Vec<u8>> {
        self.browse.then(|| b"hits".to_vec())
    }
}

const FILES: Library = Library { browse: true };

struct Scene {
    server: Server,
    now: Time,
    out: Vec<Effect>,
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([44, 20, n, 1])
}

impl Scene {
    fn new(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::default();
        config.queue.slots = 1;
        change(&mut config);
        Self {
            server: Server::new(config, Rng::from_seed(1)),
            now: Time::ZERO,
            out: Vec::new(),
        }
    }

    /// Bytes come, on a new connection if there is none.
    fn bytes(&mut self, id: ConnectionId, bytes: &[u8]) -> Vec<Effect> {
        if !self.server.connections.contains_key(&id) {
            assert!(self.server.open(self.now, id, ip(id as u8)));
        }
        self.server
            .on_bytes(self.now, id, bytes, &FILES, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn sent(&mut self, id: ConnectionId) -> Vec<Effect> {
        self.server.on_sent(self.now, id, &FILES, &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// Asks, with fields; the answer, and what follows it.
    fn get(&mut self, id: ConnectionId, target: &str, fields: &str) -> (Response, Vec<Effect>) {
        let request = format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
        let mut effects = self.bytes(id, request.as_bytes());
        assert!(!effects.is_empty(), "an answer");
        let Effect::Send { bytes, .. } = effects.remove(0) else {
            panic!("no answer: {effects:?}");
        };
        let len = head_len(&bytes, 0).expect("short").expect("whole");
        (Response::read(&bytes[..len]).expect("an answer"), effects)
    }

    fn pass(&mut self, secs: u64) -> Vec<Effect> {
        self.now += Duration::from_secs(secs);
        self.server.tick(self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }
}

fn uri(sha1: Sha1) -> String {
    format!("/uri-res/N2R?{}", Urn::Sha1(sha1))
}

fn body(connection: ConnectionId, sha1: Sha1, range: Range<u64>) -> Effect {
    Effect::SendFile {
        connection,
        file: u64::from(sha1[0]),
        sha1,
        range,
    }
}

#[test]
fn whole_files_and_ranges_are_sent() {
    let mut scene = Scene::new(|_| {});
    let (answer, effects) = scene.get(1, &uri(WHOLE), "");
    assert_eq!((answer.status, answer.content_len), (200, Some(1000)));
    assert_eq!(answer.urns, [Urn::Sha1(WHOLE)]);
    assert_eq!(answer.tree.map(|t| t.1), Some(TigerRoot([9; 24])));
    assert_eq!(effects, [body(1, WHOLE, 0..1000)]);
    assert_eq!(scene.sent(1), []);
    let (answer, effects) = scene.get(1, "/get/1/whatever", "Range: bytes=10-19\r\n");
    assert_eq!(answer.status, 206);
    assert_eq!(answer.content_range, Some((10..20, Some(1000))));
    assert_eq!(effects, [body(1, WHOLE, 10..20)]);
    scene.sent(1);
    let (answer, _) = scene.get(1, &uri(WHOLE), "Range: bytes=1000-\r\n");
    assert_eq!((answer.status, answer.keep_alive), (416, true));
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let mut scene = Scene::new(|_| {});
    let both = format!(
        "GET {0} HTTP/1.1\r\nRange: bytes=0-9\r\n\r\nGET {0} HTTP/1.1\r\nConnection: close\r\n\
         Range: bytes=10-19\r\n\r\n",
        uri(WHOLE)
    );
    let effects = scene.bytes(1, both.as_bytes());
    assert_eq!(effects.len(), 2);
    assert_eq!(effects[1], body(1, WHOLE, 0..10));
    let effects = scene.sent(1);
    assert_eq!(effects[1], body(1, WHOLE, 10..20));
    assert_eq!(scene.sent(1), [Effect::Close { connection: 1 }]);
}

#[test]
fn answers_are_shortened_even_without_a_range() {
    let mut scene = Scene::new(|c| c.max_range = Some(64));
    let (answer, effects) = scene.get(1, &uri(WHOLE), "");
    assert_eq!(
        (answer.status, answer.content_range),
        (206, Some((0..64, Some(1000))))
    );
    assert_eq!(effects, [body(1, WHOLE, 0..64)]);
}

#[test]
fn of_a_partial_file_what_is_there_is_sent() {
    let mut scene = Scene::new(|_| {});
    let (answer, effects) = scene.get(1, &uri(PART), "Range: bytes=0-\r\n");
    assert_eq!(
        answer.available,
        Some(RangeSet::read("bytes 100-199,300-399"))
    );
    assert_eq!(answer.content_range, Some((100..200, Some(1000))));
    assert_eq!(effects, [body(1, PART, 100..200)]);
    scene.sent(1);
    let (answer, effects) = scene.get(1, &uri(PART), "Range: bytes=200-299\r\n");
    assert_eq!((answer.status, answer.keep_alive), (416, true));
    assert_eq!(answer.available.map(|a| a.bytes()), Some(200));
    assert_eq!(effects, []);
}

#[test]
fn what_is_not_there_is_told_so() {
    let mut scene = Scene::new(|_| {});
    let status =
        |scene: &mut Scene, target: &str, fields: &str| scene.get(1, target, fields).0.status;
    assert_eq!(status(&mut scene, &uri(GONE), ""), 410);
    assert_eq!(status(&mut scene, &uri([7; 20]), ""), 404);
    assert_eq!(status(&mut scene, "/get/9/x", ""), 404);
    assert_eq!(status(&mut scene, "/../../etc/passwd", ""), 404);
    let other = format!("X-Gnutella-Content-URN: {}\r\n", Urn::Sha1(PART));
    assert_eq!(status(&mut scene, &uri(WHOLE), &other), 404);
    assert_eq!(status(&mut scene, "/", "Accept: text/html\r\n"), 406);
    let (answer, _) = scene.get(
        1,
        "/",
        "Accept: text/html, application/x-gnutella-packets\r\n",
    );
    assert_eq!((answer.status, answer.content_len), (200, Some(4)));
    let mut out = Vec::new();
    let closed = Library { browse: false };
    let request = b"GET / HTTP/1.1\r\n\r\n";
    scene
        .server
        .on_bytes(scene.now, 1, request, &closed, &mut out);
    assert!(matches!(&out[0], Effect::Send { bytes, .. } if bytes.starts_with(b"HTTP/1.1 403")));
}

#[test]
fn trees_are_sent_without_a_slot() {
    let mut scene = Scene::new(|_| {});
    scene.get(1, &uri(WHOLE), "");
    let root = shoal_base::base32::encode(&[9; 24]);
    let target = format!("/uri-res/N2X?{};{root}", Urn::Sha1(WHOLE));
    let effects = scene.bytes(2, format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
    let Effect::Send { bytes, .. } = &effects[0] else {
        panic!("no answer");
    };
    let len = head_len(bytes, 0).expect("short").expect("whole");
    let tree = thex::read(&bytes[len..]).expect("a tree");
    assert_eq!((tree.file_len, tree.levels), (Some(1000), vec![9; 24]));
    assert_eq!(
        scene
            .get(2, &format!("/uri-res/N2X?{}", Urn::Sha1(PART)), "")
            .0
            .status,
        404
    );
}

#[test]
fn who_comes_second_waits_polls_and_is_let_in() {
    let mut scene = Scene::new(|_| {});
    let parq = "X-Queue: 1.0\r\n";
    scene.get(1, &uri(WHOLE), parq);
    let (answer, effects) = scene.get(2, &uri(WHOLE), parq);
    let queued = answer.queued.expect("a place");
    assert_eq!((answer.status, queued.position), (503, 1));
    assert_eq!((answer.retry_after, answer.keep_alive), (Some(30), true));
    assert_eq!(effects, []);
    // The first is through and leaves.
    scene.sent(1);
    assert_eq!(scene.pass(30), [Effect::Close { connection: 1 }]);
    let again = format!("X-Queue: 1.0\r\nX-Queued: {queued}\r\n");
    let (answer, effects) = scene.get(2, &uri(WHOLE), &again);
    assert_eq!((answer.status, effects.len()), (200, 1));
    // The older kind, and none at all.
    let (legacy, _) = scene.get(3, &uri(WHOLE), "X-Queue: 0.1\r\n");
    let legacy = legacy.legacy.expect("a place");
    assert_eq!(
        (legacy.position, legacy.poll_min, legacy.poll_max),
        (1, 30, 60)
    );
    let (silent, effects) = scene.get(4, &uri(WHOLE), "");
    assert_eq!((silent.queued, silent.keep_alive), (None, false));
    assert_eq!(effects, [Effect::Close { connection: 4 }]);
}

#[test]
fn a_downloader_that_can_be_reached_is_called() {
    let mut scene = Scene::new(|c| c.queue.synchronous = 0);
    scene.get(1, &uri(WHOLE), "");
    let fields = "X-Queue: 1.0\r\nX-Node: 44.20.2.1:6346\r\n";
    let (answer, effects) = scene.get(2, &uri(WHOLE), fields);
    let id = answer.queued.expect("a place").id;
    assert_eq!(effects, [Effect::Close { connection: 2 }]);
    let elsewhere = "X-Queue: 1.0\r\nX-Node: 44.20.9.9:80\r\n";
    scene.get(3, &uri(WHOLE), elsewhere);
    scene.sent(1);
    let node = SocketAddr::from(([44, 20, 2, 1], 6346));
    let effects = scene.pass(20);
    assert!(
        effects.contains(&Effect::Call(Call { node, id })),
        "{effects:?}"
    );
    // The second named another machine: it is not called.
    let calls = effects.iter().filter(|e| matches!(e, Effect::Call(_)));
    assert_eq!(calls.count(), 1);
    assert!(scene.server.open(scene.now, 20, ip(2)));
    let queued = Queued {
        position: 1,
        length: None,
        eta: None,
        lifetime: None,
        id,
    };
    let (answer, _) = scene.get(
        20,
        &uri(WHOLE),
        &format!("X-Queue: 1.0\r\nX-Queued: {queued}\r\n"),
    );
    assert_eq!(answer.status, 200);
}

#[test]
fn locations_are_learnt_handed_out_and_forgotten() {
    let mut scene = Scene::new(|c| c.queue.slots = 9);
    scene.get(
        1,
        &uri(WHOLE),
        "X-Alt: 44.20.1.1:99, 44.20.8.1, 127.0.0.1:80, 192.168.0.1\r\n",
    );
    let (answer, _) = scene.get(2, &uri(WHOLE), "");
    let told: Vec<_> = answer.alternates.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["44.20.8.1:6346", "44.20.1.1:99"],
        "none of our network"
    );
    scene.sent(2);
    assert_eq!(scene.get(2, &uri(WHOLE), "").0.alternates, [], "told once");
    let (answer, _) = scene.get(3, &uri(WHOLE), "X-NAlt: 44.20.8.1, 44.20.1.1:99\r\n");
    assert_eq!(
        answer.alternates,
        [],
        "hearsay is dropped, the other not told"
    );
    assert_eq!(scene.server.mesh().len(&WHOLE), 1);
}

#[test]
fn a_head_that_is_drawn_out_ends_the_connection() {
    let mut scene = Scene::new(|_| {});
    for _ in 0..3 {
        scene.bytes(1, b"G");
        scene.pass(6);
    }
    scene.bytes(1, b"E");
    let effects = scene.pass(3);
    assert!(
        effects.contains(&Effect::Close { connection: 1 }),
        "{effects:?}"
    );
    assert!(!scene.server.wants_bytes(1));
}

#[test]
fn a_body_that_is_hardly_taken_ends_the_connection() {
    let mut scene = Scene::new(|_| {});
    scene.get(1, &uri(WHOLE), "");
    for _ in 0..5 {
        scene.pass(10);
        scene.server.on_progress(scene.now, 1, 100);
    }
    assert_eq!(scene.pass(10), [Effect::Close { connection: 1 }]);
    assert_eq!(scene.server.figures(), (0, 0), "its slot is free");
}

#[test]
fn nonsense_is_answered_and_closed() {
    let mut scene = Scene::new(|_| {});
    for (id, bytes, status) in [
        (1, &b"NONSENSE\r\n\r\n"[..], "400"),
        (2, b"POST / HTTP/1.1\r\n\r\n", "501"),
        (3, b"GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\n", "413"),
        (4, &[b'a'; MAX_HEAD], "431"),
    ] {
        let effects = scene.bytes(id, bytes);
        let Effect::Send { bytes, .. } = &effects[0] else {
            panic!("no answer");
        };
        assert!(
            bytes.starts_with(format!("HTTP/1.1 {status}").as_bytes()),
            "{status}"
        );
        assert_eq!(effects[1], Effect::Close { connection: id });
    }
    let one_host = (100..).take_while(|id| scene.server.open(scene.now, *id, ip(50)));
    assert_eq!(one_host.count(), ServerConfig::default().max_per_host);
}

proptest! {
    #[test]
    fn arbitrary_bytes_on_many_connections_are_borne(
        steps in prop::collection::vec((1u64..6, 0u8..9, "(GET|HEAD) (/|/get/1/x|/uri-res/N2R\\?urn:sha1:AEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIB) HTTP/1.1\r\n(X-Queue: [01].[01]\r\n|Range: bytes=[0-9]{1,4}-[0-9]{0,4}\r\n|X-N?Alt: [0-9.,:]{0,20}\r\n){0,3}\r\n", any::<Vec<u8>>()), 0..60)
    ) {
        let mut scene = Scene::new(|_| {});
        for (id, what, text, bytes) in steps {
            let effects = match what {
                0..=4 => scene.bytes(id, text.as_bytes()),
                5 => scene.bytes(id, &bytes),
                6 => scene.sent(id),
                7 => scene.pass(7),
                _ => {
                    scene.server.close(scene.now, id, &mut scene.out);
                    std::mem::take(&mut scene.out)
                }
            };
            for effect in effects {
                if let Effect::SendFile { range, .. } = effect {
                    prop_assert!(range.start < range.end && range.end <= 1000);
                }
            }
            let (running, _) = scene.server.figures();
            prop_assert!(running <= 1);
            prop_assert!(scene.server.deadline().is_none_or(|d| d >= scene.now));
        }
    }
}
