//! The worker by its rules.

use crate::desk::job;
use shoal_base::{Machine, Rng, Time};
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use shoal_mapreduce::job::Code;
use shoal_mapreduce::message::{
    Assignment, Counters, FetchProblem, JobInfo, MapOutput, MapOutputs, TaskOutput, ToMaster,
    ToWorker,
};
use shoal_mapreduce::worker::{FetchRequest, Worker, WorkerConfig, WorkerInput, WorkerOutput};
use std::sync::Arc;
use std::time::Duration;

const JOB: JobId = JobId(1);

fn map(index: u32, number: u32) -> AttemptId {
    attempt(TaskKind::Map, index, number)
}

fn attempt(kind: TaskKind, index: u32, number: u32) -> AttemptId {
    let task = TaskId {
        job: JOB,
        kind,
        index,
    };
    AttemptId { task, number }
}

struct Bench {
    worker: Worker,
    now: Time,
    out: Vec<WorkerOutput>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let mut config = WorkerConfig::new(99, "host", "host:1");
        change(&mut config);
        let mut bench = Self {
            worker: Worker::new(config, Rng::from_seed(1)),
            now: Time::from_secs(10),
            out: Vec::new(),
        };
        assert_eq!(bench.give(WorkerInput::Tick), [WorkerOutput::Connect]);
        bench
    }

    /// One that is registered and knows a job of so many maps.
    fn at_work(maps: u32, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let mut bench = Self::new(change);
        bench.welcome(vec![], vec![]);
        bench.tell_job(maps);
        bench
    }

    fn give(&mut self, input: WorkerInput) -> Vec<WorkerOutput> {
        self.out.clear();
        self.worker.handle(self.now, input, &mut self.out);
        self.out.clone()
    }

    fn hear(&mut self, message: ToWorker) -> Vec<WorkerOutput> {
        self.give(WorkerInput::Message(message))
    }

    fn welcome(&mut self, go_on: Vec<AttemptId>, keep: Vec<AttemptId>) -> Vec<WorkerOutput> {
        let mut out = self.give(WorkerInput::Connected);
        out.extend(self.hear(ToWorker::Welcome {
            worker: WorkerId(5),
            heartbeat_ms: 3000,
            lease_ms: 15_000,
            go_on,
            keep,
        }));
        out
    }

    fn tell_job(&mut self, maps: u32) {
        self.hear(ToWorker::Job(JobInfo {
            job: JOB,
            spec: Arc::new(job(1, 2).spec),
            maps,
            cuts: Vec::new().into(),
        }));
    }

    fn assign(&mut self, attempt: AttemptId) -> Vec<WorkerOutput> {
        self.hear(ToWorker::Assign(Assignment {
            attempt,
            split: Default::default(),
            skip: vec![],
            probe: None,
            verified: false,
        }))
    }

    fn outputs(&mut self, from: u64, entries: &[(AttemptId, u64)]) -> Vec<WorkerOutput> {
        let entry = |(attempt, holder): &(AttemptId, u64)| MapOutput {
            attempt: *attempt,
            holder: WorkerId(*holder),
            bytes: 200,
            digest: [0; 32],
        };
        let addrs = entries
            .iter()
            .map(|(_, h)| (WorkerId(*h), format!("h{h}").as_str().into()));
        self.hear(ToWorker::Outputs(MapOutputs {
            job: JOB,
            from,
            addrs: addrs.collect(),
            entries: entries.iter().map(entry).collect(),
        }))
    }

    fn tick_to(&mut self, seconds: u64) -> Vec<WorkerOutput> {
        let end = Time::from_secs(seconds);
        let mut all = Vec::new();
        while let Some(at) = self.worker.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            all.extend(self.give(WorkerInput::Tick));
        }
        self.now = end;
        all
    }
}

fn fetches(out: &[WorkerOutput]) -> Vec<FetchRequest> {
    let fetch = |o: &WorkerOutput| match o {
        WorkerOutput::Fetch(request) => Some(request.clone()),
        _ => None,
    };
    out.iter().filter_map(fetch).collect()
}

#[test]
fn when_its_lease_is_over_all_work_stops_and_finished_output_stays() {
    let mut bench = Bench::at_work(2, |_| {});
    bench.assign(map(0, 0));
    bench.assign(map(1, 0));
    bench.give(WorkerInput::Finished {
        attempt: map(0, 0),
        output: TaskOutput::default(),
        counters: Counters::new(),
    });
    bench.hear(ToWorker::Granted(map(0, 0)));
    let out = bench.tick_to(24);
    assert!(!out.contains(&WorkerOutput::Kill(map(1, 0))));
    let out = bench.tick_to(26);
    assert!(out.contains(&WorkerOutput::Kill(map(1, 0))), "{out:?}");
    assert!(out.contains(&WorkerOutput::Disconnect) && out.contains(&WorkerOutput::Connect));
    assert!(bench.worker.serves(map(0, 0)));
    let out = bench.welcome(vec![], vec![map(0, 0)]);
    let hello = out.iter().find_map(|o| match o {
        WorkerOutput::Send(ToMaster::Register(hello)) => Some(hello),
        _ => None,
    });
    let hello = hello.expect("it presents itself");
    assert_eq!(
        (hello.outputs.as_slice(), hello.running.len()),
        (&[map(0, 0)][..], 0)
    );
}

#[test]
fn the_lease_runs_from_when_the_answered_heartbeat_was_sent() {
    let mut bench = Bench::at_work(2, |_| {});
    bench.assign(map(0, 0));
    bench.tick_to(22);
    // Sent at 13, 16, 19 and 22 s; the second is answered late.
    bench.hear(ToWorker::Lease { sequence: 2 });
    assert!(!bench.tick_to(30).contains(&WorkerOutput::Kill(map(0, 0))));
    assert!(bench.tick_to(31).contains(&WorkerOutput::Kill(map(0, 0))));
}

#[test]
fn a_process_that_was_stopped_finds_its_lease_over_before_it_says_anything() {
    let mut bench = Bench::at_work(1, |_| {});
    bench.assign(map(0, 0));
    bench.now += Duration::from_secs(100);
    let out = bench.give(WorkerInput::Finished {
        attempt: map(0, 0),
        output: TaskOutput::default(),
        counters: Counters::new(),
    });
    let said = |o: &WorkerOutput| matches!(o, WorkerOutput::Send(_));
    assert!(!out.iter().any(said), "{out:?}");
    assert!(out.contains(&WorkerOutput::Kill(map(0, 0))));
}

#[test]
fn it_works_on_while_the_master_restarts_and_says_again_what_may_be_lost() {
    let mut bench = Bench::at_work(2, |_| {});
    bench.assign(map(0, 0));
    bench.assign(map(1, 0));
    bench.give(WorkerInput::Disconnected);
    let finished = WorkerInput::Finished {
        attempt: map(0, 0),
        output: TaskOutput::default(),
        counters: Counters::new(),
    };
    assert_eq!(bench.give(finished), [], "nobody hears it now");
    assert!(bench.tick_to(12).contains(&WorkerOutput::Connect));
    let out = bench.welcome(vec![map(1, 0)], vec![map(0, 0)]);
    let again = |o: &WorkerOutput| matches!(o, WorkerOutput::Send(ToMaster::Finished { attempt, .. }) if *attempt == map(0, 0));
    assert!(out.iter().any(again), "{out:?}");
    assert!(!out.iter().any(|o| matches!(o, WorkerOutput::Kill(_))));
}

#[test]
fn what_the_master_does_not_want_any_more_goes_with_the_welcome() {
    let mut bench = Bench::at_work(2, |_| {});
    bench.assign(map(0, 0));
    bench.assign(map(1, 0));
    bench.give(WorkerInput::Finished {
        attempt: map(0, 0),
        output: TaskOutput::default(),
        counters: Counters::new(),
    });
    bench.give(WorkerInput::Disconnected);
    bench.tick_to(12);
    let out = bench.welcome(vec![], vec![]);
    assert!(out.contains(&WorkerOutput::Drop(map(0, 0))));
    assert!(out.contains(&WorkerOutput::Kill(map(1, 0))));
}

#[test]
fn a_reduce_asks_few_holders_at_a_time_for_many_outputs_each() {
    let mut bench = Bench::at_work(100, |c| {
        c.streams = 2;
        c.outputs_per_request = 10;
    });
    bench.assign(attempt(TaskKind::Reduce, 1, 0));
    let entries: Vec<_> = (0..100).map(|i| (map(i, 0), u64::from(i % 4))).collect();
    let mut asked = fetches(&bench.outputs(0, &entries));
    assert_eq!(asked.len(), 2);
    let (mut requests, mut here) = (0, 0);
    while let Some(request) = asked.pop() {
        requests += 1;
        assert!(request.outputs.len() <= 10 && !request.addr.is_empty());
        assert!(asked.iter().all(|other| other.holder != request.holder));
        for (output, _) in &request.outputs {
            here += 1;
            let out = bench.give(WorkerInput::Fetched {
                request: request.request,
                output: *output,
                bytes: 100,
            });
            asked.extend(fetches(&out));
            assert!(asked.len() <= 2);
            let complete = out.contains(&WorkerOutput::Complete(attempt(TaskKind::Reduce, 1, 0)));
            assert_eq!(complete, here == 100);
        }
    }
    assert_eq!(
        (requests, here),
        (12, 100),
        "25 outputs of each of four, ten at a time"
    );
}

#[test]
fn credit_limits_what_is_under_way_but_one_request_always_is() {
    let mut bench = Bench::at_work(4, |c| c.credit_bytes = 250);
    bench.assign(attempt(TaskKind::Reduce, 0, 0));
    // 100 bytes of each for one of two reduces.
    let entries: Vec<_> = (0..4).map(|i| (map(i, 0), u64::from(i))).collect();
    let asked = fetches(&bench.outputs(0, &entries));
    assert_eq!(asked.len(), 3, "credit was left for a third");
    let mut poor = Bench::at_work(4, |c| c.credit_bytes = 1);
    poor.assign(attempt(TaskKind::Reduce, 0, 0));
    assert_eq!(fetches(&poor.outputs(0, &entries)).len(), 1);
}

#[test]
fn a_holder_that_fails_is_reported_and_tried_again_later_and_later() {
    let mut bench = Bench::at_work(1, |_| {});
    bench.assign(attempt(TaskKind::Reduce, 0, 0));
    let mut asked = fetches(&bench.outputs(0, &[(map(0, 0), 3)]));
    let mut waits = Vec::new();
    for _ in 0..4 {
        let out = bench.give(WorkerInput::FetchFailed {
            request: asked[0].request,
            outputs: vec![],
            problem: FetchProblem::Unreachable,
        });
        assert!(out.iter().any(|o| matches!(
            o,
            WorkerOutput::Send(ToMaster::FetchFailed {
                holder: WorkerId(3),
                ..
            })
        )));
        assert!(fetches(&out).is_empty());
        let failed = bench.now;
        loop {
            bench.now = bench.worker.deadline().expect("it tries again");
            asked = fetches(&bench.give(WorkerInput::Tick));
            let sent = bench.now;
            bench.hear(ToWorker::Lease { sequence: u64::MAX });
            if !asked.is_empty() {
                waits.push(sent.since(failed).as_secs());
                break;
            }
        }
    }
    assert_eq!(waits, [1, 2, 4, 8]);
}

#[test]
fn news_of_another_holder_is_followed_at_once() {
    let mut bench = Bench::at_work(1, |_| {});
    bench.assign(attempt(TaskKind::Reduce, 0, 0));
    let asked = fetches(&bench.outputs(0, &[(map(0, 0), 3)]));
    bench.give(WorkerInput::FetchFailed {
        request: asked[0].request,
        outputs: vec![],
        problem: FetchProblem::Unreachable,
    });
    let asked = fetches(&bench.outputs(1, &[(map(0, 1), 4)]));
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].holder, asked[0].outputs[0].0),
        (WorkerId(4), map(0, 1))
    );
}

#[test]
fn a_gap_in_the_list_makes_it_connect_anew() {
    let mut bench = Bench::at_work(4, |_| {});
    bench.outputs(0, &[(map(0, 0), 3)]);
    assert!(
        !bench
            .outputs(0, &[(map(0, 0), 3)])
            .contains(&WorkerOutput::Disconnect)
    );
    assert!(
        bench
            .outputs(3, &[(map(3, 0), 3)])
            .contains(&WorkerOutput::Disconnect)
    );
}

#[test]
fn a_reduce_of_a_job_without_maps_is_complete_at_once() {
    let mut bench = Bench::at_work(0, |_| {});
    let reduce = attempt(TaskKind::Reduce, 0, 0);
    assert!(
        bench
            .assign(reduce)
            .contains(&WorkerOutput::Complete(reduce))
    );
}

#[test]
fn killing_a_reduce_cancels_what_it_asked_for() {
    let mut bench = Bench::at_work(1, |_| {});
    let reduce = attempt(TaskKind::Reduce, 0, 0);
    bench.assign(reduce);
    let asked = fetches(&bench.outputs(0, &[(map(0, 0), 3)]));
    let out = bench.hear(ToWorker::Kill(reduce));
    let expected = [
        WorkerOutput::CancelFetch(asked[0].request),
        WorkerOutput::Kill(reduce),
    ];
    assert_eq!(out, expected);
    let late = bench.give(WorkerInput::Fetched {
        request: asked[0].request,
        output: map(0, 0),
        bytes: 1,
    });
    assert_eq!(late, []);
}

#[test]
fn a_strangers_master_gets_no_native_code_run() {
    let mut bench = Bench::new(|c| c.sandbox_only = true);
    bench.welcome(vec![], vec![]);
    let mut spec = job(1, 1).spec;
    spec.reducer = Some(Code::Streaming {
        command: "rm -rf".into(),
    });
    bench.hear(ToWorker::Job(JobInfo {
        job: JOB,
        spec: Arc::new(spec),
        maps: 1,
        cuts: Vec::new().into(),
    }));
    let out = bench.assign(map(0, 0));
    assert!(
        matches!(out[..], [WorkerOutput::Send(ToMaster::Failed { .. })]),
        "{out:?}"
    );
}

#[test]
fn the_end_of_a_job_ends_everything_of_it() {
    let mut bench = Bench::at_work(2, |_| {});
    bench.assign(map(0, 0));
    bench.assign(map(1, 0));
    bench.give(WorkerInput::Finished {
        attempt: map(0, 0),
        output: TaskOutput::default(),
        counters: Counters::new(),
    });
    let out = bench.hear(ToWorker::JobEnd(JOB));
    assert_eq!(
        out,
        [WorkerOutput::Kill(map(1, 0)), WorkerOutput::JobEnd(JOB)]
    );
    assert!(!bench.worker.serves(map(0, 0)));
}

#[test]
fn a_probe_is_never_claimed_from_a_master_that_may_have_forgotten_it() {
    let mut bench = Bench::at_work(2, |_| {});
    bench.hear(ToWorker::Assign(Assignment {
        attempt: map(0, 0),
        split: Default::default(),
        skip: vec![],
        probe: Some(shoal_mapreduce::message::RecordRange { from: 0, to: 5 }),
        verified: false,
    }));
    bench.give(WorkerInput::Disconnected);
    bench.tick_to(12);
    let out = bench.welcome(vec![], vec![]);
    assert!(out.contains(&WorkerOutput::Kill(map(0, 0))));
    let hello = out.iter().find_map(|o| match o {
        WorkerOutput::Send(ToMaster::Register(hello)) => Some(hello.running.len()),
        _ => None,
    });
    assert_eq!(hello, Some(0));
}
