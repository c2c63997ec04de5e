use super::*;
use proptest::prelude::*;

struct Shell {
    dir: tempfile::TempDir,
    store: JobStore,
}

/// Exit code, standard output, standard error.
type Ran = (u8, String, String);

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let store = JobStore::open(&dir.path().join("store"), "me").expect("a store");
        Self { dir, store }
    }

    fn here(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn fs(&self, line: &str) -> Ran {
        self.fs_with(line, b"")
    }

    fn fs_with(&self, line: &str, mut input: &[u8]) -> Ran {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&self.store, &words, &mut input, &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (code, text(out), text(err))
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.fs(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        out
    }
}

#[test]
fn files_go_in_and_come_out_again() {
    let shell = Shell::new();
    fs::write(shell.here("a"), "one\n").expect("written");
    shell.ok("-mkdir -p hdfs:///user/me/in");
    shell.ok(&format!("-put {} hdfs:///user/me/in/a", shell.here("a")));
    shell.ok(&format!("-copyFromLocal -f {} in", shell.here("a")));
    assert_eq!(shell.ok("-cat in/a"), "one\n");
    let (code, _, err) = shell.fs(&format!("-put {} in/a", shell.here("a")));
    assert_eq!((code, err.as_str()), (1, "put: `in/a': File exists\n"));
    assert_eq!(shell.fs_with("-put -f - in/a", b"two\n").0, 0);
    shell.ok("-cp in/a in/b");
    assert_eq!(shell.ok("-cat in/*"), "two\ntwo\n");
    shell.ok("-mv in/b in/c");
    assert_eq!(shell.fs("-test -e in/b").0, 1);
    shell.ok(&format!("-get in {}", shell.here("back")));
    let back = fs::read(shell.here("back/c")).expect("it came out");
    assert_eq!(back, b"two\n");
    shell.ok(&format!("-getmerge in {}", shell.here("all")));
    assert_eq!(fs::read(shell.here("all")).expect("merged"), b"two\ntwo\n");
    assert_eq!(shell.fs_with("-appendToFile - in/c", b"three\n").0, 0);
    assert_eq!(shell.ok("-tail in/c"), "two\nthree\n");
}

#[test]
fn lists_have_the_form_that_programs_read() {
    let shell = Shell::new();
    shell.ok("-mkdir -p /d/e");
    assert_eq!(shell.fs_with("-put - /d/f", b"12345").0, 0);
    let all = shell.ok("-ls -R hdfs:///d");
    let lines: Vec<Vec<&str>> = all
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0][0].starts_with('d') && lines[1][0].starts_with("-rw"));
    assert_eq!((lines[1][4], lines[1][7]), ("5", "hdfs:///d/f"));
    assert_eq!(lines[1][6].len(), "12:34".len());
    assert!(shell.ok("-ls /d").starts_with("Found 2 items\n"));
    assert_eq!(shell.ok("-ls -C /d"), "/d/e\n/d/f\n");
    assert_eq!(shell.ok("-du /d"), "0  0  /d/e\n5  5  /d/f\n");
    assert_eq!(shell.ok("-du -s /d"), "5  5  /d\n");
    let count = shell.ok("-count /d");
    let count: Vec<_> = count.split_whitespace().collect();
    assert_eq!(count, ["2", "1", "5", "/d"]);
    assert_eq!(shell.ok("-stat %b,%F,%n /d/f"), "5,regular file,f\n");
    assert!(shell.ok("-df").contains("hdfs:///"));
}

#[test]
fn what_is_missing_is_told_as_hadoop_tells_it() {
    let shell = Shell::new();
    let (code, out, err) = shell.fs("-ls hdfs:///none");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "ls: `hdfs:///none': No such file or directory\n");
    assert_eq!(shell.fs("-rm /none").0, 1);
    assert_eq!(shell.fs("-rm -R -f -skipTrash hdfs:///none").0, 0);
    shell.ok("-mkdir /d");
    assert!(shell.fs("-mkdir /d").2.contains("File exists"));
    assert!(shell.fs("-rm /d").2.contains("Is a directory"));
    assert_eq!(shell.ok("-rm -r /d"), "Deleted /d\n");
    assert_eq!(shell.fs("-lx /").0, 255);
    assert!(shell.fs("ls /").2.contains("Did you mean -ls?"));
    assert!(shell.fs("-ls -z /").2.contains("Illegal option -z"));
    assert_eq!(shell.fs("-mv /a").0, 255);
}

#[test]
fn tests_answer_by_exit_code() {
    let shell = Shell::new();
    shell.ok("-touchz /z");
    shell.ok("-mkdir /d");
    for (line, code) in [
        ("-test -e /z", 0),
        ("-test -z /z", 0),
        ("-test -d /z", 1),
        ("-test -d /d", 0),
        ("-test -f /d", 1),
        ("-test -s /z", 1),
        ("-test -e /none", 1),
        ("-test /z", 255),
    ] {
        assert_eq!(shell.fs(line).0, code, "{line}");
    }
}

#[test]
fn nothing_outside_is_touched() {
    let shell = Shell::new();
    fs::write(shell.here("precious"), "x").expect("written");
    for line in [
        "-rm -r /../precious",
        "-rm -r hdfs:///../precious",
        "-mv /.. /x",
        "-touchz ../../../precious",
        "-mkdir -p /a/../../b",
    ] {
        let (code, _, err) = shell.fs(line);
        assert_eq!(code, 1, "{line}");
        assert!(err.contains(".. are refused"), "{line}: {err}");
    }
    assert_eq!(shell.fs("-rm -r /").0, 1);
    assert!(shell.store.root().is_dir());
    assert_eq!(fs::read(shell.here("precious")).expect("it is there"), b"x");
}

#[test]
fn packed_files_are_unpacked_as_text() {
    let shell = Shell::new();
    let mut packed = Vec::new();
    let mut gz = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
    gz.write_all(b"text\n").expect("packs");
    gz.finish().expect("packs");
    assert_eq!(shell.fs_with("-put - /x.gz", &packed).0, 0);
    assert_eq!(shell.ok("-text /x.gz"), "text\n");
    assert_eq!(shell.fs("-stat %b /x.gz").1, format!("{}\n", packed.len()));
}

proptest! {
    #[test]
    fn any_command_ends_and_stays_in_the_store(
        name in prop_oneof![
            Just("-ls"), Just("-rm"), Just("-mkdir"), Just("-touchz"), Just("-mv"), Just("-cp"),
            Just("-cat"), Just("-du"), Just("-count"), Just("-test"), Just("-stat"),
        ],
        words in proptest::collection::vec("-?[a-zR./*%]{0,6}", 0..4),
    ) {
        let shell = Shell::new();
        fs::write(shell.here("outside"), "x").expect("written");
        let line = format!("{name} {}", words.join(" "));
        let (code, ..) = shell.fs(&line);
        prop_assert!(matches!(code, 0 | 1 | 255), "{}: {}", line, code);
        prop_assert!(shell.store.root().is_dir());
        let mut beside: Vec<_> = fs::read_dir(shell.dir.path()).expect("a folder")
            .map(|e| e.expect("an entry").file_name()).collect();
        beside.sort();
        prop_assert_eq!(beside, ["outside", "store"]);
    }
}
