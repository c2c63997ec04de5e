//! Help texts, usage errors, completions.

use crate::process::World;

#[test]
fn help_and_version_go_to_stdout_and_exit_0() {
    let world = World::new();
    for args in [
        &["--help"][..],
        &["-h"],
        &["share", "--help"],
        &["fetch", "--help"],
        &["torrent", "--help"],
        &["torrent", "show", "--help"],
        &["torrent", "create", "--help"],
        &["torrent", "verify", "--help"],
        &["serve", "tracker", "--help"],
        &["hadoop", "--help"],
        &["sim", "--help"],
        &["sim", "chord", "--help"],
        &["completions", "--help"],
    ] {
        let ran = world.run(args).expect(0);
        assert!(ran.stdout.contains("Usage: shoal"), "{args:?}");
        assert!(ran.stderr.is_empty());
    }
    let version = world.run(&["--version"]).expect(0);
    assert_eq!(
        version.stdout,
        concat!("shoal ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn the_help_names_every_flag_other_programs_rely_on() {
    let world = World::new();
    for (command, flags) in [
        (
            &["share", "--help"][..],
            &[
                "--torrent-out",
                "--tracker",
                "--v1",
                "--v2",
                "--hybrid",
                "--piece-size",
                "--listen",
                "--json",
            ][..],
        ),
        (
            &["fetch", "--help"],
            &[
                "--dir",
                "--listen",
                "--peer",
                "--tracker",
                "--no-dht",
                "--no-lsd",
                "--no-upnp",
                "--up-limit",
                "--down-limit",
                "--seed",
                "--json",
            ],
        ),
        (
            &["serve", "tracker", "--help"],
            &["--http", "--udp", "--json"],
        ),
    ] {
        let help = world.run(command).expect(0).stdout;
        for flag in flags {
            assert!(help.contains(flag), "{command:?} has no {flag}");
        }
    }
}

#[test]
fn wrong_command_lines_exit_2_and_say_so_on_stderr() {
    let world = World::new();
    for args in [
        &[][..],
        &["fetch"],
        &["share"],
        &["torrent"],
        &["frobnicate"],
        &["fetch", "x", "--down-limit", "fast"],
        &["fetch", "x", "--listen", "nowhere"],
        &["fetch", "x", "--timeout", "soon"],
        &["fetch", "x", "--tracker", "ftp://x"],
        &["share", "x", "--piece-size", "-1"],
        &["share", "x", "--v1", "--v2"],
        &["serve", "tracker"],
        &[
            "serve", "tracker", "--http", ":0", "--allow", "a", "--deny", "b",
        ],
        &["completions", "tcsh"],
        &["-q", "-v", "fetch", "x"],
    ] {
        let ran = world.run(args).expect(2);
        assert!(ran.stdout.is_empty(), "{args:?}: {}", ran.stdout);
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_typing_error_gets_a_suggestion() {
    World::new().run(&["fecth"]).expect(2).says("fetch");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = world.run(&["completions", shell]).expect(0);
        assert!(
            ran.stdout.contains("shoal") && ran.stdout.contains("fetch"),
            "{shell}"
        );
    }
}

#[test]
fn a_closed_stdout_is_no_failure() {
    use std::process::Stdio;
    let world = World::new();
    for args in [&["--help"][..], &["completions", "bash"]] {
        let mut child = world
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{args:?} {output:?}");
        assert!(output.stderr.is_empty(), "{args:?} {output:?}");
    }
}
