use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Tree {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dict(BTreeMap<Vec<u8>, Self>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Tree::Int),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Tree::Bytes)
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Tree::List),
            prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..6), inner, 0..6)
                .prop_map(Tree::Dict),
        ]
    })
}

fn write(tree: &Tree, e: &mut Encoder) {
    match tree {
        Tree::Int(i) => e.int(*i),
        Tree::Bytes(b) => e.bytes(b),
        Tree::List(l) => e.list(|e| l.iter().for_each(|t| write(t, e))),
        Tree::Dict(d) => e.dict(|e| d.iter().for_each(|(k, t)| write(t, e.key(k)))),
    }
}

fn same(tree: &Tree, value: &Value<'_>) -> bool {
    match (tree, value) {
        (Tree::Int(a), Value::Int(b)) => a == b,
        (Tree::Bytes(a), Value::Bytes(b)) => a == b,
        (Tree::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Tree::Dict(a), Value::Dict(b)) => {
            a.len() == b.len() && a.iter().all(|(k, t)| b.get(k).is_some_and(|v| same(t, v)))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(tree in tree()) {
        let mut e = Encoder::new();
        write(&tree, &mut e);
        let bytes = e.into_bytes();
        let value = decode(&bytes).expect("our own output decodes");
        prop_assert!(same(&tree, &value));
        let mut again = Encoder::new();
        again.value(&value);
        prop_assert_eq!(again.into_bytes(), bytes);
    }

    #[test]
    fn any_bytes_decode_or_err(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _outcome = decode(&bytes);
    }
}

#[test]
fn errors_name_the_byte() {
    let cases: &[(&[u8], BencodeError)] = &[
        (b"", BencodeError::Truncated(0)),
        (b"i", BencodeError::Truncated(0)),
        (b"i12", BencodeError::Truncated(0)),
        (b"ie", BencodeError::BadInteger(0)),
        (b"i-0e", BencodeError::BadInteger(0)),
        (b"i03e", BencodeError::BadInteger(0)),
        (b"i+3e", BencodeError::BadInteger(0)),
        (b"i9223372036854775808e", BencodeError::BadInteger(0)),
        (b"5:abc", BencodeError::Truncated(0)),
        (b"99999999999999999999999:a", BencodeError::BadLength(0)),
        (b"01:a", BencodeError::BadLength(0)),
        (b"di1ei2ee", BencodeError::BadKey(1)),
        (b"d1:ai1e1:ai2ee", BencodeError::DuplicateKey(7)),
        (b"d1:bi1e1:ai2e1:bi3ee", BencodeError::DuplicateKey(0)),
        (b"li1ex", BencodeError::UnexpectedByte(4)),
        (b"i1ei2e", BencodeError::Trailing(3)),
    ];
    for (input, error) in cases {
        assert_eq!(
            decode(input).as_ref(),
            Err(error),
            "{}",
            input.escape_ascii()
        );
    }
    let deep = [vec![b'l'; 100_000], vec![b'e'; 100_000]].concat();
    assert_eq!(decode(&deep), Err(BencodeError::TooDeep(64)));
}

#[test]
fn unsorted_keys_are_read_and_reported() {
    let value = decode(b"d1:bi2e1:ai1ee").expect("unsorted is accepted");
    let dict = value.as_dict().expect("a dictionary");
    assert!(!dict.is_sorted());
    assert_eq!((dict.int("a"), dict.int("b")), (Some(1), Some(2)));
    assert_eq!(dict.raw(), b"d1:bi2e1:ai1ee");
}
