//! Torn tails, damage, segments, sequence numbers and aborted ranges, on files of their own.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::batch::{self, BatchHeader, BatchProblem, HEADER};
use super::partition::{AppendError, Partition};
use super::producers::Refusal;
use crate::error::StorageError;
use crate::settings::Roll;

const BIG: Roll = Roll {
    bytes: 1 << 30,
    ms: i64::MAX,
};

/// A batch of `count` records with an unopened body, as a producer would send it.
fn sent(producer_id: i64, epoch: i16, sequence: i32, count: i32, transactional: bool) -> Vec<u8> {
    let mut b = batch::marker(producer_id, epoch, true, 1000);
    b.truncate(HEADER);
    b.resize(HEADER + 100, 7);
    let length = (b.len() - 12) as i32;
    b[8..12].copy_from_slice(&length.to_be_bytes());
    b[21..23].copy_from_slice(&(if transactional { 0x10i16 } else { 0 }).to_be_bytes());
    b[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    b[53..57].copy_from_slice(&sequence.to_be_bytes());
    b[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c::crc32c(&b[21..]);
    b[17..21].copy_from_slice(&crc.to_be_bytes());
    b
}

const SMALL: Roll = Roll {
    bytes: 400,
    ms: i64::MAX,
};

fn append(log: &Partition, bytes: &[u8]) -> Result<i64, AppendError> {
    append_rolling(log, bytes, BIG)
}

fn append_rolling(log: &Partition, bytes: &[u8], roll: Roll) -> Result<i64, AppendError> {
    log.append(bytes, &BatchHeader::parse_sent(bytes).unwrap(), roll, false)
}

fn open(dir: &Path) -> Partition {
    Partition::open(dir.to_path_buf(), 0).unwrap()
}

/// Base offsets of the batches that a reader sees.
fn offsets(log: &Partition) -> Vec<i64> {
    let (mut found, mut at) = (Vec::new(), log.ends().start);
    loop {
        let bytes = log.read(at, i64::MAX, 1 << 20, true).unwrap();
        if bytes.is_empty() {
            return found;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).unwrap();
            assert!(header.checksum_ok(rest));
            found.push(header.base_offset);
            at = header.last_offset() + 1;
            rest = &rest[header.total_len..];
        }
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_rest_stays() {
    let whole = tempfile::tempdir().unwrap();
    let log = open(whole.path());
    for i in 0..3 {
        append(&log, &sent(-1, -1, -1, 2, false)).unwrap();
        assert_eq!(log.ends().next, 2 * (i + 1));
    }
    let file = whole.path().join("00000000000000000000.log");
    let bytes = std::fs::read(&file).unwrap();
    let one = bytes.len() / 3;
    for cut in 2 * one..bytes.len() {
        let torn = tempfile::tempdir().unwrap();
        std::fs::write(torn.path().join("00000000000000000000.log"), &bytes[..cut]).unwrap();
        let log = open(torn.path());
        assert_eq!(offsets(&log), [0, 2], "cut at byte {cut}");
        assert_eq!(append(&log, &sent(-1, -1, -1, 1, false)).unwrap(), 4);
        drop(log);
        assert_eq!(offsets(&open(torn.path())), [0, 2, 4]);
    }
}

#[test]
fn rubbish_after_the_last_batch_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()), &sent(-1, -1, -1, 1, false)).unwrap();
    let file = dir.path().join("00000000000000000000.log");
    OpenOptions::new()
        .append(true)
        .open(file)
        .unwrap()
        .write_all(&[0xab; 300])
        .unwrap();
    assert_eq!(offsets(&open(dir.path())), [0]);
}

#[test]
fn damage_in_an_older_segment_is_an_error_and_cuts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for _ in 0..6 {
        append_rolling(&log, &sent(-1, -1, -1, 1, false), SMALL).unwrap();
    }
    assert_eq!(offsets(&log), [0, 1, 2, 3, 4, 5]);
    drop(log);
    assert_eq!(offsets(&open(dir.path())), [0, 1, 2, 3, 4, 5]);
    let oldest = dir.path().join("00000000000000000000.log");
    let mut bytes = std::fs::read(&oldest).unwrap();
    bytes[16] = 9;
    std::fs::write(&oldest, &bytes).unwrap();
    let error = Partition::open(dir.path().to_path_buf(), 0).unwrap_err();
    assert!(
        matches!(error, StorageError::Corrupt { position: 0, .. }),
        "{error}"
    );
    assert_eq!(std::fs::read(&oldest).unwrap(), bytes);
}

#[test]
fn deleting_records_removes_whole_segments_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for _ in 0..6 {
        append_rolling(&log, &sent(-1, -1, -1, 1, false), SMALL).unwrap();
    }
    assert_eq!(log.delete_before(3).unwrap(), 3);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    drop(log);
    let log = Partition::open(dir.path().to_path_buf(), 3).unwrap();
    assert_eq!((log.ends().start, offsets(&log)), (3, vec![3, 4, 5]));
}

#[test]
fn resent_batches_are_recognised_before_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert_eq!(append(&log, &sent(9, 0, 0, 5, false)).unwrap(), 0);
    assert_eq!(append(&log, &sent(9, 0, 5, 2, false)).unwrap(), 5);
    for log in [log, open(dir.path())] {
        assert_eq!(
            append(&log, &sent(9, 0, 0, 5, false)).unwrap(),
            0,
            "a duplicate has its first offset"
        );
        assert_eq!(append(&log, &sent(9, 0, 5, 2, false)).unwrap(), 5);
        let gap = append(&log, &sent(9, 0, 9, 1, false)).unwrap_err();
        assert!(matches!(gap, AppendError::Refused(Refusal::OutOfOrder)), "{gap}");
        assert_eq!(log.ends().next, 7);
    }
    let log = open(dir.path());
    append(&log, &sent(9, 1, 0, 1, false)).unwrap();
    let old = append(&log, &sent(9, 0, 7, 1, false)).unwrap_err();
    assert!(matches!(old, AppendError::Refused(Refusal::OldEpoch)), "{old}");
}

#[test]
fn sequence_numbers_wrap_to_zero() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, &sent(9, 0, i32::MAX - 1, 2, false)).unwrap();
    append(&log, &sent(9, 0, 0, 1, false)).unwrap();
    append(&log, &sent(9, 0, 1, 1, false)).unwrap();
    assert_eq!(log.ends().next, 4);
}

#[test]
fn aborted_ranges_and_the_stable_offset_are_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, &sent(1, 0, 0, 1, true)).unwrap(); // offset 0, open until 4
    append(&log, &sent(2, 0, 0, 1, true)).unwrap(); // offset 1
    log.end_transaction(2, 0, false, BIG).unwrap(); // offset 2
    append(&log, &sent(3, 0, 0, 1, true)).unwrap(); // offset 3
    log.end_transaction(1, 0, false, BIG).unwrap(); // offset 4
    for log in [log, open(dir.path())] {
        assert_eq!(log.ends().stable, 3);
        let ids = |from, to| {
            log.aborted_in(from, to)
                .iter()
                .map(|a| a.producer_id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(0, 5), [2, 1]);
        assert_eq!(ids(0, 1), [1]);
        assert_eq!(ids(3, 4), [1]);
        assert!(ids(5, 9).is_empty());
        assert_eq!(log.open_producers(), [(3, 0)]);
        // Ending what is not open writes nothing.
        log.end_transaction(1, 0, true, BIG).unwrap();
        assert_eq!(log.ends().next, 5);
    }
}

#[test]
fn batches_that_lie_about_themselves_are_refused() {
    let good = sent(9, 0, 0, 3, false);
    assert!(BatchHeader::parse_sent(&good).is_ok());
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        BatchHeader::parse_sent(&bytes).unwrap_err()
    };
    assert_eq!(changed(16, 1), BatchProblem::Magic);
    assert_eq!(changed(11, 0), BatchProblem::Length);
    assert_eq!(changed(60, 9), BatchProblem::Count);
    assert_eq!(changed(HEADER + 5, 0), BatchProblem::Checksum);
    assert_eq!(BatchHeader::parse_sent(&good[..40]), Err(BatchProblem::Short));
}
