use super::*;
use proptest::prelude::*;
use std::path::Component;

fn clean(parts: &[&str], naming: Naming) -> String {
    let parts = parts.iter().map(|p| p.as_bytes());
    SafePath::sanitise(parts, naming)
        .expect("short")
        .as_str()
        .to_owned()
}

#[test]
fn hostile_names_are_made_safe() {
    let long = format!("{}.flac", "é".repeat(200));
    let cut = format!("{}.flac", "é".repeat(125));
    let cases: &[(&[&str], &str)] = &[
        (&["a", "b.txt"], "a/b.txt"),
        (&["..", "..", "etc", "passwd"], "etc/passwd"),
        (&["a", ".", "", "b"], "a/b"),
        (&[".."], "_"),
        (&[""], "_"),
        (&["/etc/passwd"], "_etc_passwd"),
        (&["..\\..\\x"], ".._.._x"),
        (&["a\0b\nc\u{7f}\u{9b}"], "a_b_c__"),
        (&["\u{202e}txt.exe"], "txt.exe"),
        (&["..\u{202e}"], "_"),
        (&["..."], "..."),
        (&["What? 1:2*.mp3"], "What? 1:2*.mp3"),
        (&[&long], &cut),
    ];
    for (parts, expected) in cases {
        assert_eq!(clean(parts, Naming::Download), *expected, "{parts:?}");
    }
    let bad = SafePath::sanitise([&b"a\xff\xfeb"[..]], Naming::Download);
    assert_eq!(bad.expect("short").as_str(), "a__b");
    assert_eq!(
        SafePath::sanitise([], Naming::Download),
        Err(PathError::Empty)
    );
    let deep = vec![&b"abc"[..]; 1000];
    assert_eq!(
        SafePath::sanitise(deep, Naming::Download),
        Err(PathError::TooLong(3075))
    );
}

#[test]
fn portable_names_suit_windows() {
    let cases = [
        ("con", "_con"),
        ("AUX.c", "_AUX.c"),
        ("nul .txt", "_nul .txt"),
        ("lpt1", "_lpt1"),
        ("COM¹.log", "_COM¹.log"),
        ("com10", "com10"),
        ("console", "console"),
        ("name. .", "name"),
        ("...", "_"),
        ("a:b?c", "a_b_c"),
    ];
    for (raw, expected) in cases {
        assert_eq!(clean(&[raw], Naming::Portable), expected);
    }
}

#[cfg(unix)]
#[test]
fn local_names_are_kept() {
    for name in [
        "Icon\r",
        "dev-disk\\x2d1.mount",
        "\u{202e}x",
        "aux.c",
        "a:b.",
    ] {
        assert_eq!(clean(&[name], Naming::Local), name);
        assert!(SafePath::new(name).is_ok());
    }
    assert_eq!(clean(&["a/b\0"], Naming::Local), "a_b_");
    assert_eq!(
        SafePath::new("Icon\r").expect("safe").to_string(),
        "Icon\\r"
    );
}

#[test]
fn only_safe_text_is_taken_as_a_path() {
    for bad in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0"] {
        assert!(SafePath::new(bad).is_err(), "{bad:?}");
    }
    assert!(SafePath::new(&"a".repeat(256)).is_err());
    assert_eq!("a/b".parse::<SafePath>().expect("safe").file_name(), "b");
}

#[test]
fn numbers_go_before_the_extension() {
    let cases = [
        ("a/b.txt", "a/b.1.txt"),
        ("a", "a.1"),
        (".x", ".x.1"),
        ("....", "_.1"),
    ];
    for (name, expected) in cases {
        let path = SafePath::new(name).expect("safe");
        assert_eq!(path.numbered(1).as_str(), expected);
    }
    let long = SafePath::new(&format!("d/{}.txt", "é".repeat(125))).expect("safe");
    let numbered = long.numbered(u64::MAX);
    assert!(numbered.file_name().len() <= MAX_COMPONENT_LEN);
    assert!(numbered.as_str().ends_with(".18446744073709551615.txt"));
}

#[test]
fn links_lead_from_their_folder_to_the_target() {
    let cases = [
        ("t/l", "t/a", "a"),
        ("t/d/l", "t/a/b", "../a/b"),
        ("t/d/l", "t/d/x", "x"),
        ("t/d/l", "t/d", "../d"),
        ("t/d/e/l", "t", "../../../t"),
    ];
    for (link, target, expected) in cases {
        let path = |text| SafePath::new(text).expect("safe");
        assert_eq!(path(link).link_to(&path(target)), expected);
    }
}

fn naming() -> impl Strategy<Value = Naming> {
    prop_oneof![
        Just(Naming::Download),
        Just(Naming::Portable),
        Just(Naming::Local)
    ]
}

fn nasty() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "[./\\\\a-c: \u{202e}\u{0}]{0,12}".prop_map(String::into_bytes),
        "(con|aux|com1|\\.\\.)[. a]{0,4}".prop_map(String::into_bytes),
        "\\PC{0,150}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn no_path_leaves_its_folder(
        parts in prop::collection::vec(nasty(), 0..8),
        naming in naming(),
        n in any::<u64>(),
    ) {
        let made = SafePath::sanitise(parts.iter().map(Vec::as_slice), naming);
        prop_assert_eq!(made.is_err(), parts.is_empty());
        let Ok(path) = made else { return Ok(()) };
        for path in [path.numbered(n), path] {
            let root = Path::new("/downloads/here");
            let joined = root.join(path.as_path());
            let below = joined.strip_prefix(root).expect("stays below the root");
            prop_assert!(below.components().count() == path.components().count());
            for part in below.components() {
                let Component::Normal(name) = part else {
                    return Err(TestCaseError::fail(format!("{part:?} in {path:?}")));
                };
                prop_assert!(!name.is_empty() && name.len() <= MAX_COMPONENT_LEN);
                prop_assert!(!name.as_encoded_bytes().contains(&0));
            }
            prop_assert_eq!(SafePath::new(path.as_str()), Ok(path.clone()));
            let again = path.components().map(str::as_bytes);
            prop_assert_eq!(SafePath::sanitise(again, naming), Ok(path));
        }
    }
}
