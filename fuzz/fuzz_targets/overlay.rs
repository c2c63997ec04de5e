//! What strangers send to overlay addresses: greetings of streams, datagrams and their halves. What is
//! read is written back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_reach::overlay::{GREETING, Halves, datagram, greeting, read_greeting};

fuzz_target!(|all: Vec<Vec<u8>>| {
    let mut halves = Halves::default();
    for bytes in &all {
        if let Some(first) = bytes.first_chunk::<GREETING>()
            && let Some(port) = read_greeting(first)
        {
            assert_eq!(&greeting(port), first);
        }
        let Some(whole) = halves.take(bytes) else {
            continue;
        };
        let parts = datagram(whole.from, whole.to, 0, &whole.data);
        let (one, two) = parts.expect("what came whole can be sent");
        let mut again = Halves::default();
        let read = again.take(&one).or_else(|| again.take(&two?));
        assert_eq!(read, Some(whole));
    }
});
