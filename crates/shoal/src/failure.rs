//! How a command fails: what went wrong, why, what to do about it, and the exit code.

use std::fmt::Write as _;

/// The exit codes every command keeps to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done as asked.
    Ok = 0,
    /// Failed; the message says why.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Nobody reachable, or timed out.
    Unreachable = 4,
    /// The other side, or a rule, said no.
    Refused = 5,
    /// Stopped by ctrl-C or a termination signal.
    Interrupted = 130,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What failed, a lower-case phrase.
    pub(crate) what: String,
    /// Why, from the nearest cause to the root.
    pub(crate) because: Vec<String>,
    /// What the user can do, if we know.
    pub(crate) hint: Option<String>,
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with an exit code of its own.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            because: Vec::new(),
            hint: None,
        }
    }

    /// The plain failure.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// A wrong command line.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// A thing that does not exist.
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, what)
    }

    /// Adds an error and all its causes. A cause that its parent already quotes is left out.
    pub(crate) fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(e) = next {
            let text = e.to_string();
            if !self
                .because
                .last()
                .is_some_and(|last| last.ends_with(&text))
            {
                self.because.push(text);
            }
            next = e.source();
        }
        self
    }

    /// Adds a reason in words.
    pub(crate) fn reason(mut self, why: impl Into<String>) -> Self {
        self.because.push(why.into());
        self
    }

    /// Adds what the user can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure of the file system: `what` failed on `path`.
    pub(crate) fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let exit = match error.kind() {
            K::NotFound => Exit::NotFound,
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, format!("cannot {what} {}", path.display())).because(error);
        match error.kind() {
            K::PermissionDenied => failure.hint("check who may read and write it: ls -ld"),
            K::StorageFull => failure.hint("free some space and run the same command again"),
            _ => failure,
        }
    }

    /// The message for people, without the final line feed.
    pub(crate) fn render(&self, color: bool) -> String {
        let paint = |label: &str, code: &str| {
            if color {
                format!("\x1b[1;{code}m{label}\x1b[0m")
            } else {
                label.to_owned()
            }
        };
        let mut out = format!("{} {}", paint("error:", "31"), self.what);
        for why in &self.because {
            let _ = write!(out, "\n  because: {why}");
        }
        if let Some(hint) = &self.hint {
            let _ = write!(out, "\n{} {hint}", paint("hint:", "36"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the thing")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_failure_names_what_why_and_what_to_do() {
        let inner = io::Error::new(io::ErrorKind::PermissionDenied, "permission denied");
        let failure = Failure::failed("cannot share x")
            .because(&Outer(inner))
            .hint("look at it");
        assert_eq!(
            failure.render(false),
            "error: cannot share x\n  because: cannot open the thing\n  because: permission denied\nhint: look at it"
        );
        assert!(failure.render(true).starts_with("\x1b[1;31merror:\x1b[0m"));
    }

    #[test]
    fn a_cause_already_quoted_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Quoting(#[source] io::Error);
        let failure = Failure::failed("x").because(&Quoting(io::Error::other("inner")));
        assert_eq!(failure.because, ["outer: inner"]);
    }

    #[test]
    fn a_missing_file_exits_3() {
        let e = io::Error::from(io::ErrorKind::NotFound);
        let failure = Failure::io("read", std::path::Path::new("/x"), &e);
        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(failure.exit as u8, 3);
    }
}
