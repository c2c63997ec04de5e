//! `shoal dht publish` and `shoal dht find`: content by the words of its title.

use std::time::{SystemTime, UNIX_EPOCH};

use shoal_base::id::to_hex;
use shoal_dht::keywords::{MAX_TITLE, Record};
use shoal_dht::{Answer, Failure as DhtFailure, Request};

use super::{Client, failed, hash};
use crate::cli::{DhtFindArgs, DhtPublishArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::key;
use crate::report::Report;
use crate::ui::Ui;
use crate::units::{Size, count};

pub(super) fn publish(args: &DhtPublishArgs, ui: &Ui) -> Outcome<Exit> {
    let content = hash(&args.content)?;
    if args.title.len() > MAX_TITLE {
        return Err(Failure::usage(format!(
            "the title has {} bytes; {MAX_TITLE} are allowed",
            args.title.len()
        )));
    }
    let signer = key::load_or_make(&args.key)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let minutes = now.map_or(0, |since| since.as_secs() / 60);
    let made = u32::try_from(minutes).unwrap_or(u32::MAX);
    let record = Record::sign(&signer, content, args.size, made, &args.title);
    let mut client = Client::brief(&args.dht, ui)?;
    let request = Request::Publish {
        record: record.clone(),
        keep: args.keep,
    };
    let done = client.run(&request, args.tries.timeout, |_| {})?;
    let stored = done.map_err(|e| failed("cannot publish it", &e))?;
    let publisher = to_hex(&record.publisher);
    ui.report(&Report::Indexed {
        content: &content.to_string(),
        publisher: &publisher,
        title: &record.title,
        words: stored.stored,
    });
    ui.status(
        "Published",
        &format!("under {}", count(stored.stored.into(), "word")),
    );
    if args.keep {
        return Ok(client.stay(ui));
    }
    client.node.stop();
    Ok(Exit::Ok)
}

pub(super) fn find(args: &DhtFindArgs, ui: &Ui) -> Outcome<Exit> {
    let mut client = Client::brief(&args.dht, ui)?;
    let request = Request::Find {
        words: args.words.join(" "),
        most: args.limit,
    };
    let mut found = Vec::new();
    let done = client.run(&request, args.tries.timeout, |answer| {
        if let Answer::Records(records) = answer {
            found.extend(records);
        }
    })?;
    client.node.stop();
    for record in &found {
        let content = record.content.to_string();
        ui.report(&Report::Record {
            content: &content,
            publisher: &to_hex(&record.publisher),
            title: &record.title,
            size: record.size,
        });
        // A stranger wrote the title.
        let title: String = record.title.chars().filter(|c| !c.is_control()).collect();
        ui.result(&format!("{content}\t{}\t{title}", Size(record.size)));
    }
    match done {
        _ if !found.is_empty() => Ok(Exit::Ok),
        Err(e) => Err(failed("nothing found", &e)),
        Ok(o) => Err(failed("nothing found", &DhtFailure::NotFound(o.answered))),
    }
}
