//! What we would be as a host.

use crate::call::ways::addresses;
use crate::reach::Reach;
use shoal_call::media::host::{Strength, power};
use std::fs;
use std::num::NonZero;
use std::thread;

/// As things are now.
pub(super) fn strength(mixes: bool, reach: &Reach) -> Strength {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let mapped = reach.look().and_then(|looked| looked.mapped);
    Strength {
        mixes,
        open: mapped.is_some_and(|at| addresses().contains(&at.ip())),
        power: power(processors, load()),
    }
}

/// Processes that ran or wanted to in the last minute, on average; none where the system does not tell.
fn load() -> f64 {
    let told = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = told.split(' ').next();
    first.and_then(|n| n.parse().ok()).unwrap_or_default()
}
