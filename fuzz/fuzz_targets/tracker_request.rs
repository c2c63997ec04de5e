//! What a tracker server reads from strangers: UDP datagrams and HTTP targets. What is read is
//! written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_bittorrent::tracker::http_request::{self, HttpRequest};
use shoal_bittorrent::tracker::{access, udp};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => {
            let _ = udp::url_data(data);
            if let Ok(request) = udp::decode_request(data) {
                let mut bytes = Vec::new();
                udp::encode_request(&request, &mut bytes);
                assert_eq!(udp::decode_request(&bytes), Ok(request));
            }
        }
        1 => match http_request::decode(data) {
            Ok(HttpRequest::Announce { announce, .. }) => {
                let url = http_request::announce_url("http://t/announce", &announce, None);
                let compact = true;
                let again = HttpRequest::Announce { announce, compact };
                assert_eq!(http_request::decode(url.as_bytes()), Ok(again));
            }
            Ok(HttpRequest::Scrape(hashes)) => {
                let url = http_request::scrape_url("http://t/announce", &hashes);
                let url = url.expect("an announce url");
                let again = HttpRequest::Scrape(hashes);
                assert_eq!(http_request::decode(url.as_bytes()), Ok(again));
            }
            Err(_) => {}
        },
        _ => {
            if let Ok(text) = std::str::from_utf8(data) {
                let _ = access::parse_list(text);
            }
        }
    }
});
