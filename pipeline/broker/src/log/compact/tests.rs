//! Compaction of arbitrary logs: what a reader can tell from them stays the same, also after a restart.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use proptest::prelude::*;

use super::*;
use crate::settings::Roll;

const HOW: Compaction = Compaction {
    min_dirty_ratio: 0.0,
    min_lag_ms: 0,
    max_lag_ms: i64::MAX,
    delete_retention_ms: 1000,
};
/// Room for two or three batches.
const ROLL: Roll = Roll {
    bytes: 400,
    ms: i64::MAX,
};

fn open(dir: &Path) -> Partition {
    Partition::open(dir.to_path_buf(), 0).unwrap()
}

/// A batch of keyed records; a `None` is a tombstone.
fn batch(
    producer: i64,
    sequence: i32,
    transactional: bool,
    compression: Compression,
    records: &[(u8, Option<u8>)],
) -> Vec<u8> {
    let record = |(i, (key, value)): (i32, &(u8, Option<u8>))| kafka_protocol::records::Record {
        transactional,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: producer,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        offset: i.into(),
        sequence: sequence + i,
        timestamp: 1000 + i64::from(i),
        key: Some(Bytes::from(vec![*key])),
        value: value.map(|v| Bytes::from(vec![v])),
        headers: Default::default(),
    };
    let records: Vec<_> = (0..).zip(records).map(record).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.to_vec()
}

fn append(log: &Partition, bytes: &[u8]) -> i64 {
    let header = BatchHeader::parse_sent(bytes).unwrap();
    log.append(bytes, &header, ROLL, false).unwrap()
}

/// Offset, key and value of what a read-committed consumer sees.
fn committed(log: &Partition) -> Vec<(i64, u8, Option<u8>)> {
    let (mut found, mut at) = (Vec::new(), log.ends().start);
    loop {
        let bytes = log.read(at, log.ends().stable, 1 << 20, true).unwrap();
        if bytes.is_empty() {
            return found;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).unwrap();
            assert!(header.checksum_ok(rest));
            let of_aborted = |a: &Aborted| {
                a.producer_id == header.producer_id
                    && (a.first_offset..=a.last_offset).contains(&header.base_offset)
            };
            let aborted = header.is_transactional() && log.aborted_in(0, i64::MAX).iter().any(of_aborted);
            if !header.is_control() && !aborted {
                for record in Records::open(&header, rest).unwrap().iter() {
                    let record = record.unwrap();
                    let offset = header.base_offset + i64::from(record.offset_delta);
                    // The value is the last byte but one, before the count of headers.
                    let value = (!record.tombstone).then(|| record.bytes[record.bytes.len() - 2]);
                    found.push((offset, record.key.unwrap()[0], value));
                }
            }
            at = header.last_offset() + 1;
            rest = &rest[header.total_len..];
        }
    }
}

/// The last value of each key, tombstones left out.
fn state(found: &[(i64, u8, Option<u8>)]) -> BTreeMap<u8, (i64, u8)> {
    let mut state = BTreeMap::new();
    for (offset, key, value) in found {
        match value {
            Some(value) => state.insert(*key, (*offset, *value)),
            None => state.remove(key),
        };
    }
    state
}

fn compact_all(log: &Partition, max_keys: usize, now_ms: i64) {
    while log.compact(&HOW, max_keys, now_ms, &|| false).unwrap() {}
}

#[derive(Debug, Clone)]
enum Step {
    Send(i64, Vec<(u8, Option<u8>)>, usize),
    End(i64, bool),
    Compact(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = prop::collection::vec((0u8..6, prop::option::weighted(0.8, any::<u8>())), 1..5);
    let step = prop_oneof![
        // Producers 1 and 2 write in transactions, 3 does not.
        6 => (1i64..4, records, 0usize..5).prop_map(|(p, r, c)| Step::Send(p, r, c)),
        3 => (1i64..3, any::<bool>()).prop_map(|(p, commit)| Step::End(p, commit)),
        1 => (0i64..2000).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_state_of_every_key_stays(steps in steps(), max_keys in 1usize..8) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let mut sequences = [0i32; 4];
        let mut now_ms = 10_000;
        for step in steps {
            match step {
                Step::Send(producer, records, codec) => {
                    let sequence = &mut sequences[producer as usize];
                    append(&log, &batch(producer, *sequence, producer < 3, CODECS[codec], &records));
                    *sequence += records.len() as i32;
                }
                Step::End(producer, commit) => log.end_transaction(producer, 0, commit, ROLL).unwrap(),
                Step::Compact(after_ms) => {
                    now_ms += after_ms;
                    let (before, ends) = (state(&committed(&log)), log.ends());
                    compact_all(&log, max_keys, now_ms);
                    prop_assert_eq!(state(&committed(&log)), before);
                    prop_assert_eq!(log.ends(), ends);
                }
                Step::Reopen => {
                    let (before, ends, open_before) = (committed(&log), log.ends(), log.open_producers());
                    drop(log);
                    log = open(dir.path());
                    prop_assert_eq!(committed(&log), before);
                    prop_assert_eq!(log.ends(), ends);
                    prop_assert_eq!(log.open_producers(), open_before);
                }
            }
        }
    }
}

#[test]
fn what_is_superseded_goes_and_a_resent_batch_is_still_known() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let superseded = batch(1, 0, false, Compression::Lz4, &[(0, Some(1)), (1, Some(1))]);
    append(&log, &superseded);
    append(
        &log,
        &batch(2, 0, false, Compression::None, &[(0, Some(2)), (1, Some(2))]),
    );
    // Enough to close the segments with those two.
    for i in 0..8 {
        append(
            &log,
            &batch(2, 2 + i, false, Compression::None, &[(2, Some(i as u8))]),
        );
    }
    compact_all(&log, 100, 0);
    for log in [log, open(dir.path())] {
        let found = committed(&log);
        assert!(
            found.starts_with(&[(2, 0, Some(2)), (3, 1, Some(2))]),
            "{found:?}"
        );
        assert!(found.len() <= 8, "of 12 records: {found:?}");
        assert_eq!(append(&log, &superseded), 0, "not stored a second time");
    }
}

#[test]
fn a_compaction_cut_short_leaves_the_log_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for i in 0..8 {
        append(&log, &batch(-1, -1, false, Compression::None, &[(0, Some(i))]));
    }
    let before = committed(&log);
    drop(log);
    let half_written = dir.path().join("00000000000000000000.compacting");
    std::fs::write(&half_written, b"half a batch").unwrap();
    assert_eq!(committed(&open(dir.path())), before);
    assert!(!half_written.exists());
}
