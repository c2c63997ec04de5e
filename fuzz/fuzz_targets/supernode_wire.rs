//! What strangers send in the supernodes' overlay, to nodes and to the servers. What is read is
//! written and read back the same.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use shoal_supernode::wire::{self, Answer, Ask, HEADER, MAX_MESSAGE, Message};

fn check<M: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
    data: &[u8],
) {
    if let Ok(Some((message, used))) = wire::decode::<M>(data) {
        assert!(used <= data.len() && used <= HEADER + MAX_MESSAGE);
        let mut said = Vec::new();
        wire::encode(&message, &mut said);
        assert_eq!(wire::decode::<M>(&said), Ok(Some((message, said.len()))));
    }
}

fuzz_target!(|data: &[u8]| {
    let mut framed = (data.len() as u32).to_le_bytes().to_vec();
    framed.extend(data);
    for bytes in [data, &framed] {
        check::<Message<SocketAddr>>(bytes);
        check::<Ask<SocketAddr>>(bytes);
        check::<Answer<SocketAddr>>(bytes);
    }
});
