//! The central directory, as Napster had it: everybody tells one hub what he shares, and asks it.

use super::directory::{HUB, Net};
use super::library::{Library, Zipf};
use super::{Asked, Outcome};
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::report::{Report, number};
use crate::rng_for;
use rustc_hash::FxHashMap;
use shoal_napster::hub::Config;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Napster {
    /// Users of the hub.
    pub users: u32,
    /// Files of each.
    pub files: u32,
    /// Different contents there are.
    pub contents: u32,
    /// Questions.
    pub questions: u32,
}

impl Napster {
    fn questions(&self, zipf: &Zipf, rng: &mut shoal_base::Rng) -> Vec<(u32, u32)> {
        let user = |rng: &mut shoal_base::Rng| 1 + rng.below(self.users as usize) as u32;
        (0..self.questions)
            .map(|_| (user(rng), zipf.draw(rng)))
            .collect()
    }
}

impl Experiment for Napster {
    fn name(&self) -> &'static str {
        "napster"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("users", self.users.to_string()),
            ("files", self.files.to_string()),
            ("contents", self.contents.to_string()),
            ("questions", self.questions.to_string()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if !(2..=1_000_000).contains(&self.users)
            || self.files > 5000
            || self.contents == 0
            || self.questions == 0
        {
            let why = "napster needs 2 to 1,000,000 users of 5000 files at most, a content and a \
                       question";
            return Err(BadOptions(why.to_owned()));
        }
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(self.contents);
        let mut speed = Speed::default();
        speed.start(host, 0);
        let most = Config::default().max_results as u64;
        let mut holders: FxHashMap<u32, u64> = FxHashMap::default();
        let mut libraries = Vec::new();
        for _ in 0..self.users {
            let library = Library::draw(self.files, &zipf, &mut rng);
            for content in &library.0 {
                *holders.entry(*content).or_default() += 1;
            }
            libraries.push(library);
        }
        let mut net = Net::new(seed, &libraries);
        let (inside, indexed) = (net.inside, net.indexed());
        let shared: u64 = libraries.iter().map(|l| l.0.len() as u64).sum();

        let mut asked = Vec::new();
        let mut exact = true;
        for (n, (user, content)) in (0..).zip(self.questions(&zipf, &mut rng)) {
            if n % 100 == 0 {
                host.progress("Asking", n, self.questions.into());
            }
            let one = net.ask((user, content));
            let own = libraries[user as usize - 1].has(content);
            let others = holders.get(&content).copied().unwrap_or(0) - u64::from(own);
            exact &= one.found == others.min(most) && one.reach == 2;
            asked.push(one);
        }
        let outcome = Outcome::of(&asked);
        net.world.crash(HUB);
        let after: Vec<Asked> = self
            .questions(&zipf, &mut rng)
            .into_iter()
            .take(100)
            .map(|question| net.ask(question))
            .collect();
        let after = Outcome::of(&after);
        speed.stop(host, net.world.counts().events);

        let mut report = Report::new(self.name(), "A central directory", seed);
        report.summary =
            "A Napster hub and its users: one message asks, and the hub knows all that is \
                          shared. It also bears every question, and all search ends with it."
                .to_owned();
        report.options = self.options();
        report.digest = net.world.digest();
        report.figure("events", net.world.counts().events);
        speed.tell(&mut report);
        report.figure("files_shared", shared);
        report.figure("searches", outcome.json());
        report.figure("bytes_per_question", outcome.bytes);
        report.figure("without_hub", after.json());
        report.check(
            "everybody is let in and every file is in the directory",
            format!("{} users, {shared} files", self.users),
            format!("{inside} users, {indexed} files"),
            inside == self.users && indexed == shared,
        );
        report.check(
            "hits of each question",
            format!("one for everybody else who shares it, {most} at most"),
            if exact { "so" } else { "not so" },
            exact,
        );
        report.check(
            "messages of a question, whatever the number of users",
            "2: asked, answered",
            number(outcome.messages),
            (outcome.messages - 2.0).abs() < 0.1,
        );
        report.check(
            "questions answered when the hub is shot",
            "none",
            number(after.answered),
            after.answered == 0.0,
        );
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn the_hub_finds_all_that_is_shared_for_two_messages_and_all_ends_with_it() {
        let experiment = Napster {
            users: 200,
            files: 10,
            contents: 1000,
            questions: 100,
        };
        let report = experiment.run(2, &mut Silent).expect("good options");
        assert!(report.holds(), "{:#?}", report.checks);
        let again = experiment.run(2, &mut Silent).expect("good options");
        assert_eq!(report.json(), again.json());
    }
}
