use super::*;
use proptest::prelude::*;

fn answerer(status: Status, proxies: Vec<SocketAddrV4>, browsable: bool) -> Answerer {
    Answerer {
        addr: "44.20.1.1:6346".parse().unwrap(),
        speed: 1000,
        vendor: *b"SHOA",
        status,
        proxies,
        browsable,
        tls: browsable,
        overlay: browsable.then(|| "[fc01::2]:6346".parse().unwrap()),
        servent: Guid([5; 16]),
    }
}

fn files(n: u32) -> Vec<SharedFile> {
    (0..n)
        .map(|index| SharedFile {
            index,
            size: 10_000_000_000 >> (index % 4),
            name: format!("a song number {index}.ogg"),
            sha1: (index % 3 > 0).then_some([index as u8; 20]),
            tiger: (index % 2 > 0).then_some(TigerRoot([0; 24])),
        })
        .collect()
}

#[test]
fn the_push_bit_is_swapped() {
    let status = Status {
        firewalled: Some(true),
        busy: Some(false),
        ..Status::default()
    };
    let mut payload = Vec::new();
    answerer(status, Vec::new(), false).write(&files(1), |p| payload = p.to_vec());
    let (_, open) = payload.split_at(payload.len() - 19);
    assert_eq!(open[..3], [2, PUSH | BUSY, PUSH]);
    assert_eq!(Hit::read(&payload).unwrap().status, status);
}

#[test]
fn many_files_take_several_messages() {
    let all = files(1000);
    let mut got = Vec::new();
    answerer(Status::default(), Vec::new(), false).write(&all, |payload| {
        assert!(payload.len() < FULL + 2048);
        let hit = Hit::read(payload).unwrap();
        assert_eq!(
            peek(payload),
            Some((hit.results.len() as u8, Guid([5; 16])))
        );
        got.extend(hit.results.iter().map(|r| SharedFile {
            index: r.index,
            size: r.size,
            name: String::from_utf8_lossy(r.name).into_owned(),
            sha1: r.sha1,
            tiger: r.tiger,
        }));
    });
    assert_eq!(got, all);
}

#[test]
fn a_bare_hit_of_0_4_is_read() {
    let mut payload = vec![1, 0xca, 0x18, 44, 20, 1, 2, 28, 0, 0, 0];
    payload.extend_from_slice(&[9, 0, 0, 0, 0, 4, 0, 0]);
    payload.extend_from_slice(b"x.txt\0\0");
    payload.extend_from_slice(&[8; 16]);
    let hit = Hit::read(&payload).unwrap();
    assert_eq!((hit.results[0].index, hit.results[0].size), (9, 1024));
    assert_eq!((hit.vendor, hit.servent), ([0; 4], Guid([8; 16])));
}

proptest! {
    #[test]
    fn what_is_said_behind_the_results_is_read(
        firewalled: Option<bool>,
        busy: Option<bool>,
        uploaded: Option<bool>,
        measured: Option<bool>,
        browsable: bool,
        proxies in prop::collection::vec(any::<([u8; 4], u16)>(), 0..5),
    ) {
        let status = Status { firewalled, busy, uploaded, measured };
        let proxies: Vec<SocketAddrV4> = proxies
            .into_iter()
            .map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
            .collect();
        let mut payload = Vec::new();
        answerer(status, proxies.clone(), browsable)
            .write(&files(3), |p| payload = p.to_vec());
        let hit = Hit::read(&payload).unwrap();
        prop_assert_eq!((hit.tls, hit.overlay.is_some()), (browsable, browsable));
        prop_assert_eq!((hit.status, hit.proxies, hit.browsable), (status, proxies, browsable));
        prop_assert_eq!((&hit.vendor, hit.results.len()), (b"SHOA", 3));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, results in 0_u8..4) {
        let _ = Hit::read(&bytes);
        peek(&bytes);
        let mut payload = vec![results, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0];
        payload.extend_from_slice(&bytes);
        let _ = Hit::read(&payload);
    }

    #[test]
    fn a_changed_byte_does_not_break_the_reader(at: usize, to: u8) {
        let mut payload = Vec::new();
        answerer(Status::default(), vec!["1.2.3.4:5".parse().unwrap()], true)
            .write(&files(8), |p| payload = p.to_vec());
        let at = at % payload.len();
        payload[at] = to;
        let _ = Hit::read(&payload);
    }
}
