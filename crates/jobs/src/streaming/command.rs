//! Command lines: cut into words as a shell does, but nothing is expanded and no shell runs.

use crate::code::failed;
use shoal_mapreduce::code::CodeError;

/// The words of a command.
///
/// # Errors
/// When there are none, or a quotation is not closed.
pub fn words(command: &str) -> Result<Vec<String>, CodeError> {
    let bad = |why: &str| failed(format!("the command {command:?} {why}"));
    if command.contains('\0') {
        return Err(bad("holds a NUL byte"));
    }
    let words = shlex::split(command).ok_or_else(|| bad("ends inside a quotation"))?;
    if words.first().is_none_or(String::is_empty) {
        return Err(bad("names no program"));
    }
    Ok(words)
}

/// A word as a shell would have to be given it.
pub fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.replace('\0', ""), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_cut_as_a_shell_cuts_them() {
        let cut = |text: &str| words(text).expect("a command");
        assert_eq!(cut("cat"), ["cat"]);
        assert_eq!(cut("  awk  '{print $1}' "), ["awk", "{print $1}"]);
        assert_eq!(
            cut(r#"/bin/sh -ex setup.sh python3 "my job.py" --step-num=0 --mapper"#),
            [
                "/bin/sh",
                "-ex",
                "setup.sh",
                "python3",
                "my job.py",
                "--step-num=0",
                "--mapper"
            ]
        );
        assert_eq!(
            cut(r#"echo 'it'"'"'s' $HOME | x"#),
            ["echo", "it's", "$HOME", "|", "x"]
        );
        assert_eq!(cut("a '' b"), ["a", "", "b"]);
    }

    #[test]
    fn a_command_without_words_or_with_an_open_quotation_is_refused() {
        for bad in [
            "",
            "   ",
            "'",
            "cat \"x",
            "'' x",
            "# only a comment",
            "a\0b",
        ] {
            let error = words(bad).expect_err("no command");
            assert!(error.what.contains("the command"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(parts in proptest::collection::vec("[^\0]{0,12}", 1..6)) {
            prop_assume!(!parts[0].is_empty());
            let line: Vec<_> = parts.iter().map(|w| quoted(w)).collect();
            prop_assert_eq!(words(&line.join(" ")).expect("a command"), parts);
        }

        #[test]
        fn any_text_is_cut_or_refused(text in any::<String>()) {
            let _ = words(&text);
        }
    }
}
