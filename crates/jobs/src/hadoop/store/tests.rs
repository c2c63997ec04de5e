use super::*;
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, JobStore) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let store = JobStore::open(&dir.path().join("s"), "me").expect("a store");
    (dir, store)
}

#[test]
fn every_way_to_write_a_path_means_a_place_in_the_store() {
    let (_dir, store) = store();
    for (written, below, shown) in [
        ("hdfs:///user/me/x", "user/me/x", "hdfs:///user/me/x"),
        ("hdfs://nn:8020/a/", "a", "hdfs://nn:8020/a"),
        ("hdfs:/a//./b", "a/b", "hdfs:///a/b"),
        ("hdfs://", "", "hdfs:///"),
        ("/a/b", "a/b", "/a/b"),
        ("x/y", "user/me/x/y", "x/y"),
        (".", "user/me", "."),
        ("a:b", "user/me/a:b", "a:b"),
    ] {
        let place = store.locate(written).expect(written);
        assert_eq!(place.real, store.root().join(below), "{written}");
        assert_eq!(place.shown(), shown, "{written}");
        assert!(place.stored);
    }
    assert_eq!(store.locate("x").expect("x").child("y").shown(), "x/y");
    assert_eq!(store.locate("x").expect("x").uri(), "hdfs:///user/me/x");
    let file = store.locate("file:///etc/x").expect("a file");
    assert_eq!(
        (file.stored, file.real.as_path()),
        (false, Path::new("/etc/x"))
    );
}

#[test]
fn nothing_leaves_the_store() {
    let (_dir, store) = store();
    for bad in ["../x", "/..", "hdfs:///a/../../b", "a/..", "", "a\0b"] {
        assert!(
            matches!(store.locate(bad), Err(StoreError::Path { .. })),
            "{bad:?}"
        );
    }
    assert!(matches!(
        store.locate("s3a://b/x"),
        Err(StoreError::Scheme { .. })
    ));
}

#[test]
fn with_a_local_default_bare_paths_are_this_machines() {
    let (_dir, mut store) = store();
    store.set_default("file:///").expect("local");
    assert!(!store.locate("/etc/x").expect("a path").stored);
    assert!(store.locate("hdfs:///x").expect("a path").stored);
    store.set_default("hdfs://nn").expect("the store");
    assert!(store.locate("/etc/x").expect("a path").stored);
    assert!(store.set_default("s3a://b").is_err());
}

#[test]
fn patterns_find_what_is_there() {
    let (_dir, store) = store();
    for name in ["a1", "a2", "b1", "c/d"] {
        let path = store.root().join("in").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, name).expect("written");
    }
    let shown = |what: &str| -> Vec<String> {
        let found = store.find(what).expect(what);
        found.iter().map(Location::shown).collect()
    };
    assert_eq!(shown("/in/a?"), ["/in/a1", "/in/a2"]);
    assert_eq!(
        shown("hdfs:///in/{b,a}1"),
        ["hdfs:///in/a1", "hdfs:///in/b1"]
    );
    assert_eq!(shown("/in/*/d"), ["/in/c/d"]);
    assert!(matches!(store.find("/in/z*"), Err(StoreError::Missing(_))));
    assert!(matches!(store.find("/none"), Err(StoreError::Missing(_))));
    let inputs = Inputs::default().with(std::sync::Arc::new(StoreInputs(store.clone())));
    let files = inputs.expand(&["hdfs:///in".to_owned()]).expect("files");
    let names: Vec<_> = files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "hdfs:///in/a1",
            "hdfs:///in/a2",
            "hdfs:///in/b1",
            "hdfs:///in/c/d"
        ]
    );
    let mut text = String::new();
    let read = std::sync::Arc::default();
    let reader = inputs.open("hdfs:///in/a2", 1, 1, &read);
    reader
        .expect("opens")
        .read_to_string(&mut text)
        .expect("reads");
    assert!(text.starts_with('2'), "{text}");
}

proptest! {
    #[test]
    fn any_path_is_in_the_store_or_refused(written in "(hdfs:)?/{0,3}[a-z./:*{},\\[\\]]{0,20}") {
        let (_dir, store) = store();
        if let Ok(place) = store.locate(&written) {
            prop_assert!(place.real.starts_with(store.root()));
            prop_assert!(!place.real.components().any(|c| c == std::path::Component::ParentDir));
            let again = store.locate(&place.shown()).expect("what is shown is a path");
            prop_assert_eq!(again.real, place.real);
        }
        let _ = store.find(&written);
    }

    #[test]
    fn braces_end(pattern in "[{},a]{0,24}") {
        prop_assert!(braces(&pattern).len() <= BRACES_MAX + 24);
    }
}
