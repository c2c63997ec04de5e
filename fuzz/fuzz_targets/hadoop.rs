//! Hadoop's arguments, each line one word: they make a job that is safe to run, or an error that names
//! an option; paths stay in the job store.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use shoal_jobs::hadoop::store::JobStore;
use shoal_jobs::hadoop::{arguments, job, properties};

/// An empty store.
fn store() -> &'static JobStore {
    static STORE: OnceLock<JobStore> = OnceLock::new();
    STORE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("shoal-fuzz-{}", std::process::id()));
        JobStore::open(&dir, "user").expect("a store")
    })
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = properties::parse_conf(text);
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut read = match arguments::parse(&words) {
        Ok(read) => read,
        Err(e) => {
            // What it names may be an empty word.
            assert!(!e.why.is_empty());
            return;
        }
    };
    // Files of properties could be any file of this machine.
    read.conf.clear();
    match job::streaming(&read, store()) {
        Err(e) => assert!(!e.why.is_empty()),
        Ok(made) => {
            assert!(!made.spec.inputs.is_empty() && !made.spec.output.is_empty());
            assert!(made.spec.map_fields.key_fields >= 1);
            assert_eq!(made.spec.reduces == 0, made.spec.reducer.is_none());
            if made.output.stored {
                assert!(made.output.real.starts_with(store().root()));
                assert!(!made.spec.output.split('/').any(|part| part == ".."));
            }
        }
    }
});
