//! What strangers say around a transfer: heads of requests and answers, openings of connections,
//! fields on their own. What is read is written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_gnutella::http::head::head_len;
use shoal_gnutella::http::locations::{PushLocation, read_location, write_location};
use shoal_gnutella::http::queue::{Opening, Queued};
use shoal_gnutella::http::ranges::{RangeSet, RangeSpec, read_content_range};
use shoal_gnutella::http::request::Request;
use shoal_gnutella::http::response::Response;
use shoal_gnutella::http::target::{Target, read_thex_uri};

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(len)) = head_len(data, 0) {
        let head = &data[..len];
        if let Ok(answer) = Response::read(head) {
            assert!(answer.tls.iter().all(|addr| answer.alternates.contains(addr)));
        }
        if let Ok(request) = Request::read(head)
            && request.target != Target::Other
        {
            assert_eq!(Target::read(&request.target.write()), request.target);
        }
    }
    if let Ok(Some((opening, used))) = Opening::read(data) {
        assert!(used <= data.len());
        let bytes = opening.write();
        let (again, _) = Opening::read(&bytes).expect("ours").expect("whole");
        match (&again, &opening) {
            // A name is written without what would end the line.
            (Opening::Giv { guid: a, .. }, Opening::Giv { guid: b, .. }) => assert_eq!(a, b),
            (a, b) => assert_eq!(a, b),
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(queued) = Queued::read(text) {
        assert_eq!(Queued::read(&queued.to_string()), Some(queued));
    }
    if let Some(addr) = read_location(text) {
        assert_eq!(read_location(&write_location(&addr)), Some(addr));
    }
    if let Some(push) = PushLocation::read(text) {
        assert_eq!(PushLocation::read(&push.write()), Some(push));
    }
    let set = RangeSet::read(text);
    assert_eq!(RangeSet::read(&set.write(usize::MAX)), set);
    if let Some((range, total)) = read_content_range(text) {
        assert!(range.start < range.end && total.is_none_or(|total| range.end <= total));
    }
    if let Some(range) = RangeSpec::read(text).and_then(|spec| spec.of(1 << 40)) {
        assert!(range.start < range.end && range.end <= 1 << 40);
    }
    let _ = read_thex_uri(text);
});
