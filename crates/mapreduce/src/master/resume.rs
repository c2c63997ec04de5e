//! A master that goes on where another left off.

use crate::job::REDUCES_MAX;
use crate::log::{LogError, Reader, Record};
use crate::master::job::Job;
use crate::master::{CHECK_EVERY, Master, MasterConfig, MasterOutput, Resumed};
use shoal_base::{Rng, Time};

impl Master {
    /// A master that goes on where another left off, from any prefix of its log, also one torn in
    /// the middle of a record. What it wants done first (publishing, above all) is appended to
    /// `out`.
    ///
    /// What is in the log as finished is not run again while its output exists: workers come back
    /// and say what they hold. Outputs that nobody claims in time are made again.
    ///
    /// # Errors
    /// When the log is of another version or of something else altogether.
    pub fn resume(
        config: MasterConfig,
        rng: Rng,
        log: &[u8],
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) -> Result<(Self, Resumed), LogError> {
        let mut master = Self::new(config, rng);
        let mut reader = Reader::new(log)?;
        let mut begun = false;
        for record in reader.by_ref() {
            begun = true;
            master.replay(record);
        }
        let damaged = reader.is_damaged();
        let mut valid = reader.valid();
        if begun {
            master.incarnation = master.incarnation.saturating_add(1);
        } else {
            // Nothing but a header, or less: begin anew.
            valid = 0;
        }
        for job in master.jobs.values_mut().filter(|job| job.is_live()) {
            settle(job, out);
        }
        if !master.live.is_empty() {
            master.quiet_until = Some(now + master.config.reconnect);
            master.rejoin_until = Some(now + master.config.rejoin);
            master.check_at = Some(now + CHECK_EVERY);
        }
        // A job whose last record before the end is there needs only its end.
        let live: Vec<_> = master.live.iter().copied().collect();
        for job in &live {
            master.end_if_complete(*job, now, out);
        }
        let dropped = log.len().saturating_sub(valid);
        if damaged {
            let text = format!(
                "the execution log is damaged at byte {valid}: the {dropped} bytes from there on \
                 are left out, and what they tell of is done again"
            );
            master.notice(None, text, out);
        }
        let resumed = Resumed {
            valid,
            dropped,
            damaged,
            jobs: live,
        };
        Ok((master, resumed))
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Started { incarnation } => {
                self.incarnation = self.incarnation.max(incarnation);
            }
            Record::Submitted {
                job,
                submission,
                at_us,
            } => {
                self.next_job = self.next_job.max(job.0.saturating_add(1));
                if submission.spec.reduces > REDUCES_MAX {
                    return;
                }
                self.take_on(job, *submission, Time::from_micros(at_us));
            }
            Record::Ended { job, .. } => {
                self.apply(record);
                self.live.remove(&job);
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.retire();
                }
            }
            Record::Liar { key } => {
                self.reputations.condemn(key);
            }
            Record::Confirmed { keys } => {
                for key in keys {
                    self.reputations.confirm(key);
                }
            }
            Record::Lost { attempt } => {
                self.apply(record);
                let liars = &self.reputations;
                let job = self.jobs.get_mut(&attempt.task.job);
                if let Some(task) = job.and_then(|j| j.task_mut(attempt.task))
                    && let Some(lost) = task
                        .lost
                        .take_if(|c| !c.verified && c.stranger.is_some_and(|k| liars.is_liar(&k)))
                {
                    task.refuted = Some(lost.output.digest);
                }
            }
            Record::Committed(ref commit) => {
                let id = commit.attempt.task;
                self.apply(record);
                if let Some(task) = self.jobs.get_mut(&id.job).and_then(|j| j.task_mut(id)) {
                    task.refuted = None;
                }
            }
            other => self.apply(other),
        }
    }

    /// Outputs that no worker claimed after a restart are gone.
    pub(super) fn give_up_waiting(&mut self, out: &mut Vec<MasterOutput>) {
        let live: Vec<_> = self.live.iter().copied().collect();
        for id in live {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            let held: std::collections::BTreeSet<_> = job
                .maps
                .list
                .iter()
                .filter_map(|t| t.done.as_ref())
                .filter(|d| d.held)
                .map(|d| d.commit.attempt)
                .collect();
            let lost = self.lose_outputs(id, |_, attempt| !held.contains(&attempt), out);
            if lost > 0 {
                let text = format!("the output of {lost} map tasks did not come back");
                self.notice(Some(id), text, out);
            }
        }
    }
}

/// What the log says is there may not be; what was to get its name may not have it.
fn settle(job: &mut Job, out: &mut Vec<MasterOutput>) {
    for task in job.maps.list.iter_mut().chain(&mut job.reduces.list) {
        task.launched = 0;
        if let Some(done) = &mut task.done {
            done.held = false;
        }
    }
    for kind in [crate::id::TaskKind::Map, crate::id::TaskKind::Reduce] {
        if !job.publishes(kind) {
            continue;
        }
        let done = job.tasks(kind).list.iter().filter_map(|t| t.done.as_ref());
        out.extend(
            done.filter(|d| !d.published)
                .map(|d| MasterOutput::Publish {
                    attempt: d.commit.attempt,
                    holder: d.commit.holder,
                    addr: d.commit.addr.clone(),
                    output: d.commit.output.clone(),
                }),
        );
    }
}
