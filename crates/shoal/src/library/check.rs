//! `shoal library check`: asks the networks, as any stranger would, for what the library shares.

use std::cell::Cell;
use std::time::{Duration, Instant};

use shoal_base::words;
use shoal_store::library::{Library, View};

use super::{failed, open};
use crate::cli::{HubFlags, LibraryCheckArgs, WhoFlags, WordFlags};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::FileReport;
use crate::ui::Ui;
use crate::units::{Span, count};
use crate::{gnutella, napster};

/// Words of a file's name that it is searched by, the longest: hubs and ultrapeers look at no more.
const WORDS: usize = 5;

/// A file that others should find.
struct Sample {
    /// Within its folder.
    path: String,
    bytes: u64,
    sha1: [u8; 20],
    words: Vec<String>,
}

/// Runs the command.
pub(super) fn check(args: &LibraryCheckArgs, ui: &Ui) -> Outcome<Exit> {
    let gnutella = !args.gnutella.connect.is_empty() || !args.gnutella.cache.is_empty();
    if args.hub.is_none() && !gnutella {
        return Err(Failure::usage("nobody to ask")
            .hint("--hub HOST:PORT asks a Napster hub, --connect HOST:PORT a Gnutella network"));
    }
    let samples = samples(&open(&args.place, ui)?, args.files)?;
    if samples.is_empty() {
        return Err(Failure::not_found(
            "the library shares nothing with everyone that has a name of words",
        )
        .hint("shoal library add FOLDER"));
    }
    let mut missing = 0;
    for sample in &samples {
        if let Some(hub) = &args.hub {
            missing += ask(sample, "napster", ui, || on_hub(sample, hub, args))?;
        }
        if gnutella {
            missing += ask(sample, "gnutella", ui, || on_gnutella(sample, args))?;
        }
    }
    if missing > 0 {
        let what = format!("{} not found by others", count(missing, "file"));
        return Err(Failure::not_found(what).hint(
            "is `shoal napster share --library` or `shoal gnutella node --library` running, \
             and can others connect to it?",
        ));
    }
    let found = format!("{} found by others", count(samples.len() as u64, "file"));
    ui.status("Checked", &found);
    Ok(Exit::Ok)
}

/// Asks one network for one file, and tells; 1 if it was not found.
fn ask(
    sample: &Sample,
    via: &'static str,
    ui: &Ui,
    find: impl FnOnce() -> Outcome<bool>,
) -> Outcome<u64> {
    ui.line("Asking", &format!("{via} for {}", sample.path));
    let begun = Instant::now();
    let found = find()?;
    let took = begun.elapsed();
    ui.finish_step();
    ui.report(&FileReport::Checked {
        path: &sample.path,
        via,
        found,
        seconds: took.as_secs_f64(),
    });
    let state = if found { "found" } else { "NOT FOUND" };
    let path = &sample.path;
    ui.result(&format!("{state:>9}  {via:<8}  {:>6}  {path}", Span(took)));
    Ok(u64::from(!found))
}

/// So many files of all that strangers may have, evenly spread.
fn samples(library: &Library, most: u16) -> Outcome<Vec<Sample>> {
    let shared = |each: &mut dyn FnMut(Sample)| -> Outcome {
        let all = library.each(|file| {
            let name = file.path.rsplit('/').next().unwrap_or(file.path);
            let mut words = Vec::new();
            words::each_word(name, &mut String::new(), |word| words.push(word.to_owned()));
            words.sort_by_key(|word| std::cmp::Reverse(word.len()));
            words.truncate(WORDS);
            if View::Anyone.sees(&file.folder.audience) && !words.is_empty() {
                each(Sample {
                    path: file.path.to_owned(),
                    bytes: file.record.stamp.len,
                    sha1: file.record.sha1,
                    words,
                });
            }
            true
        });
        all.map_err(|e| failed(&e))
    };
    let mut total = 0;
    shared(&mut |_| total += 1)?;
    let most = usize::from(most).min(total);
    let (mut seen, mut samples) = (0, Vec::new());
    shared(&mut |sample| {
        // The k-th sample is the file at k/most of the way.
        if samples.len() < most && seen * most >= samples.len() * total {
            samples.push(sample);
        }
        seen += 1;
    })?;
    Ok(samples)
}

/// Under a nick of its own: one does not find what one shares oneself.
fn on_hub(sample: &Sample, hub: &str, args: &LibraryCheckArgs) -> Outcome<bool> {
    let hub = HubFlags {
        hub: hub.to_owned(),
        who: WhoFlags::by_chance(),
    };
    let words = WordFlags::all_of(&sample.words);
    let hits = napster::client::ask(&hub, &words, |_| {})?;
    let its = |nick: &str| {
        args.nick
            .as_deref()
            .is_none_or(|n| n.eq_ignore_ascii_case(nick))
    };
    Ok(hits
        .iter()
        .any(|(hit, _)| hit.facts.size == sample.bytes && its(&hit.nick)))
}

fn on_gnutella(sample: &Sample, args: &LibraryCheckArgs) -> Outcome<bool> {
    let found = Cell::new(false);
    gnutella::ask(
        &args.gnutella,
        None,
        &sample.words,
        Duration::from_secs(args.wait),
        &|| !found.get(),
        &mut |answer| {
            let its = |file: &shoal_gnutella::node::FoundFile| match file.sha1 {
                Some(sha1) => sha1 == sample.sha1,
                None => file.size == sample.bytes,
            };
            found.set(found.get() || answer.files.iter().any(its));
        },
    )?;
    Ok(found.get())
}
