//! The peer wire: frames and handshakes. What is read is written again byte for byte, and a frame
//! that comes in parts is judged as one that comes whole.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_bittorrent::handshake::{HANDSHAKE_LEN, Handshake, check_prefix};
use shoal_bittorrent::wire::{self, Limits};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, stream)) = data.split_first() else {
        return;
    };
    let limits = match choice {
        0 => Limits::default(),
        pieces => Limits::for_pieces(u32::from(pieces)),
    };
    let mut rest = stream;
    while let Ok(Some((message, used))) = wire::decode(rest, &limits) {
        let mut again = Vec::new();
        wire::encode(&message, &mut again);
        assert_eq!(again, rest[..used]);
        assert_eq!((wire::frame_len(rest), wire::needed(rest)), (Some(used), 0));
        for cut in [0, 3, 4, 5, used - 1] {
            if cut < used {
                assert_eq!(wire::decode(&rest[..cut], &limits), Ok(None));
                assert!(wire::needed(&rest[..cut]) <= used - cut);
            }
        }
        rest = &rest[used..];
    }
    if let Ok(None) = wire::decode(rest, &limits) {
        assert!(wire::needed(rest) > 0);
    }
    if let Some(bytes) = stream.first_chunk::<HANDSHAKE_LEN>() {
        let read = Handshake::decode(bytes);
        assert_eq!(read.is_ok(), check_prefix(bytes).is_ok());
        if let Ok(read) = read {
            assert_eq!(Handshake::decode(&read.encode()), Ok(read));
        }
    }
});
