use super::*;
use proptest::prelude::*;
use std::net::Ipv6Addr;

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([44, 20, n, 1], 6346))
}

fn told(mesh: &Mesh, asker: SocketAddr) -> Vec<SocketAddr> {
    mesh.tell(Time::ZERO, &[1; 20], Some(asker), asker.ip(), 9)
}

#[test]
fn locations_are_written_short() {
    assert_eq!(read_location("44.20.3.1"), Some(addr(3)));
    assert_eq!(write_location(&addr(3)), "44.20.3.1");
    let other = SocketAddr::from(([44, 20, 3, 1], 99));
    assert_eq!(write_location(&other), "44.20.3.1:99");
    for bad in ["", "1.2.3", "1.2.3.4:0", "host:1", "1.2.3.4:99999"] {
        assert_eq!(read_location(bad), None, "{bad}");
    }
    let push = PushLocation::read("9DBC52EEEBCA2C8A79036D626B959900;fwt/1;1.2.3.4:5;6.7.8.9");
    let push = push.expect("a location");
    assert_eq!(push.proxies.len(), 2);
    assert_eq!(PushLocation::read(&push.write()), Some(push));
}

#[test]
fn the_dead_are_dropped_and_hearsay_does_not_bring_them_back() {
    let mut mesh = Mesh::new(MeshConfig::default());
    let file = [1; 20];
    mesh.learn(Time::ZERO, file, addr(1), true);
    mesh.learn(Time::ZERO, file, addr(2), false);
    assert_eq!(told(&mesh, addr(9)), [addr(2), addr(1)]);
    assert_eq!(told(&mesh, addr(2)), [addr(1)]);
    mesh.dead(&file, addr(2), addr(5).ip());
    mesh.dead(&file, addr(1), addr(5).ip());
    mesh.dead(&file, addr(1), addr(5).ip());
    mesh.learn(Time::ZERO, file, addr(1), false);
    assert_eq!(told(&mesh, addr(9)), [], "one vote: not told, but kept");
    mesh.learn(Time::ZERO, file, addr(1), true);
    assert_eq!(told(&mesh, addr(9)), [addr(1)]);
    mesh.dead(&file, addr(1), addr(5).ip());
    mesh.dead(&file, addr(1), addr(6).ip());
    assert_eq!(mesh.len(&file), 0);
}

#[test]
fn a_mesh_is_bounded() {
    let config = MeshConfig {
        max_files: 3,
        max_locations: 4,
        ..MeshConfig::default()
    };
    let mut mesh = Mesh::new(config);
    mesh.learn(Time::ZERO, [1; 20], addr(200), true);
    for n in 0..100 {
        mesh.learn(Time::ZERO, [1; 20], addr(n), false);
    }
    assert_eq!(mesh.len(&[1; 20]), 4);
    assert!(
        told(&mesh, addr(201)).contains(&addr(200)),
        "hearsay gave way"
    );
    for n in 2..9 {
        mesh.learn(Time::ZERO, [n; 20], addr(1), false);
    }
    assert_eq!((mesh.len(&[1; 20]), mesh.len(&[8; 20])), (0, 1));
    assert_eq!((mesh.files.len(), mesh.order.len()), (3, 3));
}

#[test]
fn those_behind_firewalls_are_kept_by_name_and_for_a_while() {
    let mut mesh = Mesh::new(MeshConfig::default());
    for n in 0..20 {
        let guid = Guid([n % 12; 16]);
        let proxies = vec![addr(n)];
        mesh.learn_pushed(Time::ZERO, [1; 20], PushLocation { guid, proxies });
    }
    let told = mesh.tell_pushed(Time::from_secs(9), &[1; 20]);
    assert_eq!(
        (told.len(), &told[0].proxies),
        (MAX_PUSHED, &vec![addr(19)])
    );
    assert_eq!(mesh.tell_pushed(Time::from_secs(4000), &[1; 20]), []);
}

#[test]
fn marks_of_tls_are_those_of_gtk_gnutella() {
    let text = "tls=48, 44.20.0.1, 44.20.1.1, nonsense, 44.20.2.1, 44.20.3.1, 44.20.4.1";
    let (all, tls) = read_locations(text.split(',').map(str::trim));
    assert_eq!((all.len(), tls), (5, vec![addr(1), addr(4)]));
    assert_eq!(write_locations(&[addr(1)], &[addr(1)]), "tls=8,44.20.1.1");
    assert_eq!(write_locations(&[addr(1)], &[]), "44.20.1.1");
}

proptest! {
    #[test]
    fn marked_lists_are_read_as_they_are_written(marks: Vec<bool>) {
        let marks = &marks[..marks.len().min(MAX_READ)];
        let all: Vec<_> = (0..marks.len()).map(|n| addr(n as u8)).collect();
        let tls = all.iter().zip(marks).filter(|(_, m)| **m);
        let tls: Vec<_> = tls.map(|(a, _)| *a).collect();
        let text = write_locations(&all, &tls);
        prop_assert_eq!(read_locations(text.split(',')), (all, tls));
    }

    #[test]
    fn what_is_written_is_read(ip: [u8; 4], port in 1u16.., v6: [u16; 8]) {
        let v6 = Ipv6Addr::from(v6);
        for addr in [SocketAddr::from((ip, port)), SocketAddr::from((v6, port))] {
            prop_assert_eq!(read_location(&write_location(&addr)), Some(addr));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9A-F.:;,/a-z]{0,80}") {
        let _ = read_location(&text);
        let _ = PushLocation::read(&text);
    }
}
