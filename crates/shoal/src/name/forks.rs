//! Forks of the public log that conversations found out, and kept.

use std::path::{Path, PathBuf};

use shoal_base::id::to_hex;
use shoal_call::chat::Fork;
use shoal_node::supernode::{forks_path, kept_forks};
use shoal_supernode::token::Key;

use super::keep::folders;
use crate::failure::{Exit, Failure, Outcome};
use crate::report::PeopleReport;
use crate::supernode::shown;
use crate::ui::Ui;

/// Says what the login server showed to somebody, and what to us.
pub(crate) fn tell_fork(fork: &Fork, ui: &Ui) {
    let (theirs, ours) = (&fork.theirs, &fork.ours);
    let (name, root, our_root) = (shown(&fork.with), to_hex(&theirs.root), to_hex(&ours.root));
    ui.report(&PeopleReport::Forked {
        name: &name,
        size: theirs.size,
        root: &root,
        unix: theirs.unix,
        our_size: ours.size,
        our_root: &our_root,
        our_unix: ours.unix,
        proof: fork.is_proof(),
    });
    let doubt = match fork.is_proof() {
        true => "",
        false => ", and does not prove that they are of one log",
    };
    ui.warn(&format!(
        "the login server showed {name} another log of names: {} entries, root {root}; to us {} entries, \
         root {our_root}{doubt}",
        theirs.size, ours.size
    ));
}

/// Tells all forks that are kept against a login server, by any name of ours; fails if there is one.
pub(super) fn tell_kept(state_dir: Option<&Path>, server: &Key, ui: &Ui) -> Outcome {
    let mut where_kept: Option<PathBuf> = None;
    for dir in folders(state_dir) {
        let path = forks_path(&dir);
        let forks = kept_forks(&dir, server).map_err(|e| Failure::io("read", &path, &e))?;
        forks.iter().for_each(|fork| tell_fork(fork, ui));
        if !forks.is_empty() {
            where_kept = Some(path);
        }
    }
    match where_kept {
        None => Ok(()),
        Some(path) => Err(
            Failure::new(Exit::Refused, "the login server signed two logs of names")
                .reason("what it signed for others contradicts what it showed to us")
                .hint(format!("the signed heads are in {}", path.display())),
        ),
    }
}
