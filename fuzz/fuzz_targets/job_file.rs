//! Job files: any text is a job, which can be told to workers, or an error with words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_jobs::job_file;
use shoal_mapreduce::job::JobSpec;
use shoal_mapreduce::wire;

fuzz_target!(|text: &str| {
    match job_file::parse(text) {
        Ok(job) => {
            assert!(job.spec.limits.attempts_max > 0 && job.spec.map_fields.key_fields > 0);
            let mut frame = Vec::new();
            wire::encode(&job.spec, &mut frame).expect("it is shorter than a frame can be");
            let (again, len) = wire::decode::<JobSpec>(&frame).expect("ours").expect("all of it");
            assert_eq!((again, len), (job.spec, frame.len()));
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
});
