//! Messages as bytes.

use crate::desk::{job, register};
use proptest::prelude::*;
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use shoal_mapreduce::message::{
    Assignment, Blame, Counters, Failure, FetchProblem, JobInfo, MapOutput, MapOutputs, Phase,
    Progress, RecordRange, TaskOutput, ToMaster, ToWorker,
};
use shoal_mapreduce::wire::{FRAME_MAX, LENGTH_BYTES, VERSION, WireError, decode, encode};
use std::sync::Arc;

fn attempt() -> impl Strategy<Value = AttemptId> {
    (any::<u64>(), any::<bool>(), any::<u32>(), any::<u32>()).prop_map(
        |(job, map, index, number)| AttemptId {
            task: TaskId {
                job: JobId(job),
                kind: if map { TaskKind::Map } else { TaskKind::Reduce },
                index,
            },
            number,
        },
    )
}

fn attempts() -> impl Strategy<Value = Vec<AttemptId>> {
    proptest::collection::vec(attempt(), 0..5)
}

fn failure() -> impl Strategy<Value = Failure> {
    (any::<String>(), any::<bool>(), any::<Option<(u64, u64)>>()).prop_map(
        |(what, host, records)| Failure {
            what,
            blame: if host { Blame::Host } else { Blame::Code },
            records: records.map(|(from, to)| RecordRange { from, to }),
        },
    )
}

fn output() -> impl Strategy<Value = (TaskOutput, Counters)> {
    let counters = proptest::collection::btree_map(any::<(String, String)>(), any::<u64>(), 0..4);
    (any::<(u64, u64, [u8; 32], String)>(), counters).prop_map(
        |((bytes, records, digest, place), counters)| {
            let output = TaskOutput {
                bytes,
                records,
                digest,
                place,
            };
            (output, counters)
        },
    )
}

fn to_master() -> impl Strategy<Value = ToMaster> {
    prop_oneof![
        (any::<(u64, String, u32)>(), attempts(), attempts()).prop_map(
            |((instance, host, slots), outputs, running)| {
                let mut hello = register(instance, &host, slots, crate::desk::holding(&[1, 3]));
                hello.outputs = outputs;
                hello.running = running;
                ToMaster::Register(hello)
            }
        ),
        (any::<u64>(), attempts(), any::<(u64, u64)>()).prop_map(
            |(sequence, attempts, (done, total))| {
                let progress = Progress {
                    phase: Phase::Shuffle,
                    done,
                    total,
                };
                let progress = attempts.into_iter().map(|a| (a, progress)).collect();
                ToMaster::Heartbeat { sequence, progress }
            }
        ),
        (attempt(), output()).prop_map(|(attempt, (output, counters))| ToMaster::Finished {
            attempt,
            output,
            counters,
        }),
        (attempt(), failure()).prop_map(|(attempt, failure)| ToMaster::Failed { attempt, failure }),
        (attempt(), any::<u64>(), attempts()).prop_map(|(attempt, holder, outputs)| {
            ToMaster::FetchFailed {
                attempt,
                holder: WorkerId(holder),
                outputs,
                problem: FetchProblem::Missing,
            }
        }),
        Just(ToMaster::Leave),
    ]
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    let entry = (attempt(), any::<(u64, u64, [u8; 32])>());
    let entry = entry.prop_map(|(attempt, (holder, bytes, digest))| MapOutput {
        attempt,
        holder: WorkerId(holder),
        bytes,
        digest,
    });
    prop_oneof![
        (any::<(u64, u64, u64)>(), attempts(), attempts()).prop_map(
            |((worker, heartbeat_ms, lease_ms), go_on, keep)| ToWorker::Welcome {
                worker: WorkerId(worker),
                heartbeat_ms,
                lease_ms,
                go_on,
                keep,
            }
        ),
        (any::<u64>(), any::<u32>(), any::<Vec<Vec<u8>>>()).prop_map(|(id, maps, cuts)| {
            ToWorker::Job(JobInfo {
                job: JobId(id),
                spec: Arc::new(job(1, 1).spec),
                maps,
                cuts: cuts.into(),
            })
        }),
        (attempt(), any::<Option<(u64, u64)>>(), any::<bool>()).prop_map(
            |(attempt, probe, verified)| ToWorker::Assign(Assignment {
                attempt,
                split: job(2, 1).splits.remove(1),
                skip: vec![RecordRange { from: 3, to: 4 }],
                probe: probe.map(|(from, to)| RecordRange { from, to }),
                verified,
            })
        ),
        (
            any::<u64>(),
            proptest::collection::vec(entry, 0..4),
            any::<String>()
        )
            .prop_map(|(from, entries, addr)| ToWorker::Outputs(MapOutputs {
                job: JobId(from),
                from,
                entries: entries.into(),
                addrs: vec![(WorkerId(from), addr.as_str().into())],
            })),
        attempt().prop_map(ToWorker::Kill),
        attempt().prop_map(ToWorker::Granted),
        any::<u64>().prop_map(|job| ToWorker::JobEnd(JobId(job))),
        any::<u64>().prop_map(|sequence| ToWorker::Lease { sequence }),
    ]
}

proptest! {
    #[test]
    fn messages_to_the_master_come_back_as_they_went(message in to_master()) {
        let mut frame = Vec::new();
        encode(&message, &mut frame).expect("short");
        prop_assert_eq!(decode(&frame), Ok(Some((message, frame.len()))));
        for cut in 0..frame.len() {
            prop_assert_eq!(decode::<ToMaster>(&frame[..cut]), Ok(None), "cut at {}", cut);
        }
    }

    #[test]
    fn messages_to_workers_come_back_as_they_went(message in to_worker()) {
        let mut frame = Vec::new();
        encode(&message, &mut frame).expect("short");
        frame.extend_from_slice(b"the next frame");
        let used = frame.len() - 14;
        prop_assert_eq!(decode(&frame), Ok(Some((message, used))));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in any::<Vec<u8>>()) {
        let mut frame = (bytes.len() as u32 + 1).to_le_bytes().to_vec();
        frame.push(VERSION);
        frame.extend(&bytes);
        prop_assert_ne!(decode::<ToMaster>(&frame), Ok(None));
        prop_assert_ne!(decode::<ToWorker>(&frame), Ok(None));
        let _ = decode::<ToMaster>(&bytes);
    }
}

#[test]
fn lengths_are_judged_before_the_bytes_come() {
    let long = (FRAME_MAX as u32 + 1).to_le_bytes();
    assert_eq!(
        decode::<ToMaster>(&long),
        Err(WireError::Length(FRAME_MAX + 1))
    );
    assert_eq!(decode::<ToMaster>(&[0; 4]), Err(WireError::Length(0)));
    let other = [9, 0, 0, 0, 77];
    assert_eq!(decode::<ToMaster>(&other), Err(WireError::Version(77)));
    assert_eq!(LENGTH_BYTES, 4);
}
