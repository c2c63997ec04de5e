//! Lines that the two ends of a call say to each other: what is taken is said again the same way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_call::media::say::{MOST_LINE, MOST_MEMBERS, Say};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(say) = Say::parse(&text) else {
        return;
    };
    assert!(text.len() <= MOST_LINE);
    match &say {
        Say::Group(group) => assert!(group.members.len() <= MOST_MEMBERS),
        Say::Host(told) => assert!(told.hosts.len() <= MOST_MEMBERS),
        _ => {}
    }
    let line = say.to_line();
    // What was told in escapes may be longer without them, or the other way round.
    if line.len() <= MOST_LINE {
        assert_eq!(Say::parse(&line), Ok(say));
    }
});
