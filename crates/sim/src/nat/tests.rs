use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn world(kind: NatKind) -> Internet {
    let mut net = Internet::new();
    net.attach(0, addr("1.1.1.1:1000"));
    net.attach(1, addr("1.1.1.1:1001"));
    net.attach(2, addr("2.2.2.2:1000"));
    let nat = net.add_nat(kind, addr("9.9.9.9:0").ip());
    net.attach_behind(3, nat);
    net
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_cone_has_one_face_and_a_symmetric_one_many() {
    let faces = |kind| {
        let mut net = world(kind);
        ["1.1.1.1:1000", "2.2.2.2:1000"].map(|to| {
            net.depart(Time::ZERO, 3, addr(to))
                .expect("it leads there")
                .0
        })
    };
    let [a, b] = faces(NatKind::cone(MINUTE));
    assert_eq!(a, b);
    let [a, b] = faces(NatKind::symmetric(MINUTE));
    assert_ne!(a, b);
    assert_eq!(a.ip(), b.ip());
}

#[test]
fn filters_let_in_whom_they_should() {
    let lets_in = |filtering| {
        let mut net = world(NatKind {
            mapping: Mapping::EndpointIndependent,
            filtering,
            timeout: MINUTE,
            keeps_port: false,
        });
        let (outer, _) = net
            .depart(Time::ZERO, 3, addr("1.1.1.1:1000"))
            .expect("out");
        [0, 1, 2].map(|node| {
            let (from, to) = net.depart(Time::ZERO, node, outer).expect("it leads there");
            assert_eq!(to, 3);
            net.arrive(Time::from_secs(1), from, outer)
        })
    };
    assert_eq!(lets_in(Filtering::EndpointIndependent), [true, true, true]);
    assert_eq!(lets_in(Filtering::AddressDependent), [true, true, false]);
    assert_eq!(
        lets_in(Filtering::AddressAndPortDependent),
        [true, false, false]
    );
}

#[test]
fn neighbours_meet_inside_and_a_firewall_keeps_addresses() {
    let mut net = world(NatKind::cone(MINUTE));
    let (one, two) = (addr("192.168.0.1:5"), addr("192.168.0.2:5"));
    net.attach_inside(4, 0, one);
    net.attach_inside(5, 0, two);
    assert_eq!(net.depart(Time::ZERO, 4, two), Some((one, 5)));
    assert!(net.arrive(Time::ZERO, one, two));
    assert_eq!(net.depart(Time::ZERO, 0, two), None);
    let own = addr("[2001:db8::7]:9");
    let wall = NatKind {
        keeps_port: true,
        ..NatKind::cone(MINUTE)
    };
    let wall = net.add_nat(wall, own.ip());
    net.attach_inside(4, wall, own);
    let other = addr("[2001:db8::8]:9");
    net.attach(0, other);
    assert_eq!(net.depart(Time::ZERO, 0, own), None);
    assert_eq!(net.depart(Time::ZERO, 4, other), Some((own, 0)));
    assert_eq!(net.depart(Time::ZERO, 0, own), Some((other, 4)));
    assert!(net.arrive(Time::ZERO, other, own));
    assert!(!net.arrive(Time::ZERO, addr("[2001:db8::8]:8"), own));
    // Of IPv4 it still has the other one.
    assert_eq!(net.depart(Time::ZERO, 4, two), Some((one, 5)));
}

#[test]
fn mappings_end_with_time_and_with_a_reboot() {
    let mut net = world(NatKind::cone(MINUTE));
    let to = addr("1.1.1.1:1000");
    let (outer, _) = net.depart(Time::ZERO, 3, to).expect("out");
    assert!(net.arrive(Time::from_secs(59), to, outer));
    assert!(!net.arrive(Time::from_secs(60), to, outer));
    let (later, _) = net.depart(Time::from_secs(100), 3, to).expect("out");
    assert_ne!(outer, later);
    net.reboot_nat(0);
    assert!(!net.arrive(Time::from_secs(100), to, later));
}

#[test]
fn an_address_that_changed_leads_nowhere() {
    let mut net = world(NatKind::cone(MINUTE));
    net.attach(0, addr("4.4.4.4:1000"));
    assert!(net.depart(Time::ZERO, 1, addr("1.1.1.1:1000")).is_none());
    assert!(net.depart(Time::ZERO, 1, addr("4.4.4.4:1000")).is_some());
    assert_eq!(net.public_addr(3), None);
}
