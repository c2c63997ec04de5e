//! Replays every plan of faults that once violated a rule.

use shoal_sim::faults::Regression;
use std::path::Path;

#[test]
fn what_once_failed_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let kept: Regression = serde_json::from_str(&text).expect("a regression");
        if let Err(violated) = kept.subject.run(&kept.plan) {
            panic!("{}: {violated}", path.display());
        }
    }
}
