//! Command lines of streaming jobs, and what their processes write to standard error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_jobs::hadoop::keys;
use shoal_jobs::streaming::command;
use shoal_jobs::streaming::report::{self, Report};

fuzz_target!(|data: &[u8]| {
    if let Report::Count { group, name, .. } = report::parse(data) {
        assert!(!group.is_empty() && !name.is_empty());
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(words) = command::words(text) {
        // Quoted again, the words are the same.
        let line: Vec<_> = words.iter().map(|word| command::quoted(word)).collect();
        let again = command::words(&line.join(" ")).expect("quoted words are words");
        assert_eq!(again, words);
    }
    if let Ok(parts) = keys::parse(text) {
        assert!(!parts.is_empty());
        assert!(parts.iter().all(|p| p.first >= 1 && p.last.is_none_or(|last| last >= p.first)));
    }
});
