use super::super::fold::Sum;
use super::super::partition::Cuts;
use super::*;
use crate::job::Partitioner;
use proptest::prelude::*;
use std::collections::BTreeMap;

proptest! {
    #[test]
    fn the_table_counts_as_a_map_does(
        // Short and long keys, zeros among their bytes, so that some share prefixes.
        records in proptest::collection::vec(
            (proptest::collection::vec(0..2u8, 0..20), 0..100i64), 0..1500),
        count in 1..4u32,
    ) {
        let order = KeyOrder::bytes();
        let partitions = Partitions::new(&Partitioner::Hash, count, &Cuts::default(), &order, b'\t');
        let mut table = Aggregator::new(Sum);
        // Twice, since a table is used again after a spill.
        for _ in 0..2 {
            let mut slow: BTreeMap<(u32, Vec<u8>), i64> = BTreeMap::new();
            for (key, value) in &records {
                table.add(key, value.to_string().as_bytes()).expect("a number");
                *slow.entry((partitions.of(key), key.clone())).or_default() += value;
            }
            let mut got = Vec::new();
            table.drain(&partitions, &order, &mut |place, key, value| {
                let value = String::from_utf8_lossy(value).parse::<i64>().expect("a number");
                got.push(((place, key.to_vec()), value));
                Ok(())
            }).expect("drains");
            prop_assert_eq!(got, slow.into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn many_keys_are_found_again() {
    let order = KeyOrder::bytes();
    let partitions = Partitions::new(&Partitioner::Hash, 1, &Cuts::default(), &order, b'\t');
    let mut table = Aggregator::new(Sum);
    for n in 0..200_000u64 {
        let key = (n % 50_000).to_string();
        table.add(key.as_bytes(), b"1").expect("a number");
    }
    let mut keys = 0;
    table
        .drain(&partitions, &order, &mut |_, _, value| {
            assert_eq!(value, b"4");
            keys += 1;
            Ok(())
        })
        .expect("drains");
    assert_eq!(keys, 50_000);
}
