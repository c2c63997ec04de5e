//! What strangers say in Napster's messages: frames, lists of files, queries, what peers ask each
//! other. What is read is written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::Rng;
use shoal_napster::client::Client;
use shoal_napster::fields::Fields;
use shoal_napster::gateway::{Gateway, Guest};
use shoal_napster::query::Query;
use shoal_napster::transfer::{Answer, Request, read_answer};
use shoal_napster::{file, frame, mp3};

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((message, used))) = frame::decode(data, frame::MAX_DATA) {
        assert!(used <= data.len() && message.data.len() <= frame::MAX_DATA);
        let mut again = Vec::new();
        frame::encode(message.kind, message.data, &mut again);
        assert_eq!(again, &data[..used]);
    }
    let mut fields = Fields::new(data);
    while fields.word().is_some() {}
    let _ = file::parse_share(data);
    let _ = file::parse_share_other(data);
    let _ = file::parse_share_folder(data, |folder, name, _| {
        assert!(folder.len() + name.len() <= data.len());
    });
    if let Ok(query) = Query::parse(data) {
        let mut said = Vec::new();
        query.put(&mut said);
        let again = Query::parse(&said).expect("ours");
        let mut twice = Vec::new();
        again.put(&mut twice);
        assert_eq!(said, twice);
    }
    let _ = Request::is_whole(data);
    if let Answer::Size(_, used) = read_answer(data, 834_000) {
        assert!(used <= data.len());
    }
    let _ = mp3::parse(data, data.len() as u64);
    let _ = Client::default().on_bytes(data, &mut Vec::new());
    let guest = Guest {
        nick: "overlay".to_owned(),
        ip: std::net::Ipv4Addr::LOCALHOST,
        port: 1,
        client: String::new(),
    };
    let mut gateway = Gateway::new("overlay", b"secret", guest, &mut Rng::from_seed(1));
    let _ = gateway.on_bytes(data, &mut Vec::new());
});
