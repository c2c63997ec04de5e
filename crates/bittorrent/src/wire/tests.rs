use super::*;
use proptest::prelude::*;

fn any_block() -> impl Strategy<Value = Block> {
    any::<(u32, u32, u32)>().prop_map(|(piece, begin, len)| Block { piece, begin, len })
}

/// Message kinds with the bytes that the borrowing ones need.
fn build(kind: u8, n: u32, block: Block, data: &[u8]) -> Message<'_> {
    match kind {
        0 => Message::KeepAlive,
        1 => Message::Choke,
        2 => Message::Unchoke,
        3 => Message::Interested,
        4 => Message::NotInterested,
        5 => Message::Have(n),
        6 => Message::Bitfield(data),
        7 => Message::Request(block),
        8 => Message::Piece {
            piece: block.piece,
            begin: block.begin,
            data,
        },
        9 => Message::Cancel(block),
        10 => Message::Port(n as u16),
        11 => Message::Suggest(n),
        12 => Message::HaveAll,
        13 => Message::HaveNone,
        14 => Message::Reject(block),
        15 => Message::AllowedFast(n),
        16 => Message::Extended {
            id: n as u8,
            payload: data,
        },
        _ => Message::Unknown {
            id: 21 + (n % 100) as u8,
            payload: data,
        },
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        kinds in prop::collection::vec((0u8..18, any::<u32>(), any_block()), 1..10),
        data in prop::collection::vec(any::<u8>(), 1..300),
        cut in any::<prop::sample::Index>(),
    ) {
        let limits = Limits::default();
        let sent: Vec<_> = kinds.iter().map(|(k, n, b)| build(*k, *n, *b, &data)).collect();
        let mut bytes = Vec::new();
        sent.iter().for_each(|m| encode(m, &mut bytes));
        let mut at = 0;
        for message in &sent {
            let rest = &bytes[at..];
            let whole = frame_len(rest).unwrap();
            let part = &rest[..cut.index(whole)];
            prop_assert_eq!(decode(part, &limits), Ok(None));
            prop_assert!(needed(part) > 0 && part.len() + needed(part) <= whole);
            let (got, used) = decode(rest, &limits).unwrap().unwrap();
            prop_assert_eq!(&got, message);
            prop_assert_eq!(used, whole);
            prop_assert_eq!(needed(rest), 0);
            at += used;
        }
        prop_assert_eq!(at, bytes.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        small in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if small {
            bytes.iter_mut().take(3).for_each(|b| *b = 0);
        }
        if let Ok(Some((message, used))) = decode(&bytes, &Limits::default()) {
            let mut again = Vec::new();
            encode(&message, &mut again);
            prop_assert_eq!(&again[..], &bytes[..used]);
        }
    }
}

fn refuse(bytes: &[u8], limits: Limits) -> String {
    decode(bytes, &limits).unwrap_err().to_string()
}

#[test]
fn bad_lengths_are_refused_before_the_payload_comes() {
    let any = Limits::default();
    assert_eq!(
        refuse(&[0, 0, 0, 4, 4], any),
        "have message (id 4) cannot be 4 bytes long"
    );
    assert_eq!(
        refuse(&[0, 0, 0x40, 0x0a, 7], any),
        "piece message (id 7) cannot be 16394 bytes long"
    );
    assert_eq!(
        refuse(&[0xff, 0xff, 0xff, 0xff], any),
        "frame of 4294967295 bytes is longer than any message"
    );
    assert!(decode(&[0, 0, 0x40, 9, 7], &any).unwrap().is_none());
    for (id, ok_len) in [(0, 1), (6, 13), (8, 13), (9, 3), (13, 5), (14, 1), (16, 13)] {
        assert!(decode(&[0, 0, 0, ok_len, id], &any).is_ok(), "id {id}");
        assert!(decode(&[0, 0, 0, ok_len + 1, id], &any).is_err(), "id {id}");
    }
    assert!(decode(&[0, 0, 0, 1, 20], &any).is_err(), "no extension id");
    assert!(decode(&[0, 2, 0, 2, 20], &any).unwrap().is_none());
    assert!(decode(&[0, 2, 0, 3, 20], &any).is_err());
    assert!(decode(&[0, 2, 0, 2, 99], &any).is_err());
}

#[test]
fn a_bitfield_must_fit_the_torrent() {
    let ten = Limits::for_pieces(10);
    assert!(decode(&[0, 0, 0, 3, 5, 0, 0], &ten).unwrap().is_some());
    assert!(decode(&[0, 0, 0, 2, 5, 0], &ten).is_err());
    assert!(decode(&[0, 0, 0, 4, 5, 0, 0, 0], &ten).is_err());
    let unknown = Limits::up_to_pieces(24);
    assert!(decode(&[0, 0, 0, 4, 5], &unknown).is_ok());
    assert!(decode(&[0, 0, 0, 5, 5], &unknown).is_err());
}

#[test]
fn a_piece_header_is_what_encode_writes() {
    let block = Block {
        piece: 7,
        begin: 16384,
        len: 3,
    };
    let mut bytes = Vec::new();
    let (piece, begin, data) = (7, 16384, &b"abc"[..]);
    encode(&Message::Piece { piece, begin, data }, &mut bytes);
    assert_eq!(bytes[..PIECE_HEADER_LEN], piece_header(block));
    assert_eq!(&bytes[PIECE_HEADER_LEN..], b"abc");
}
