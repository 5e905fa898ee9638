//! The journal after a restart, after a torn write, and after it has outgrown its content.

use std::collections::BTreeMap;

use super::{Journal, NAME, REWRITE_FROM};
use crate::meta::{Change, Committed, Meta, TopicMeta, TxnMeta, TxnState};

fn offsets(group: &str, offset: i64) -> Change {
    let committed = Committed {
        topic: "t".to_owned(),
        partition: 0,
        offset,
        leader_epoch: 0,
        metadata: Some("m".repeat(1000)),
        at_ms: 7,
    };
    Change::Offsets {
        group: group.to_owned(),
        offsets: vec![committed],
    }
}

fn everything() -> Vec<Change> {
    let topic = TopicMeta {
        id: 4,
        name: "t".to_owned(),
        partitions: 3,
        configs: BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]),
        log_start: BTreeMap::from([(2, 17)]),
    };
    let txn = TxnMeta {
        id: "p".to_owned(),
        producer_id: 8,
        epoch: 2,
        last_epoch: -1,
        timeout_ms: 1000,
        at_ms: 7,
        state: TxnState::Ongoing,
        partitions: [("t".to_owned(), 1)].into(),
        offsets: BTreeMap::from([("g".to_owned(), Vec::new())]),
    };
    vec![
        Change::Cluster { id: "c".to_owned() },
        Change::Ids {
            next_producer: 1000,
            next_topic: 9,
        },
        Change::Topic(topic),
        offsets("g", 5),
        Change::Txn(txn),
    ]
}

fn shown(meta: &Meta) -> String {
    format!("{meta:?}")
}

#[test]
fn all_kinds_of_changes_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.append(everything(), true).unwrap();
    let before = shown(&journal.meta());
    drop(journal);
    assert_eq!(shown(&Journal::open(dir.path()).unwrap().meta()), before);
}

#[test]
fn a_frame_torn_at_any_byte_is_cut_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.append(everything(), false).unwrap();
    let (before, file) = (shown(&journal.meta()), dir.path().join(NAME));
    let kept = std::fs::metadata(&file).unwrap().len() as usize;
    journal
        .append(vec![offsets("g", 6), offsets("h", 7)], false)
        .unwrap();
    drop(journal);
    let bytes = std::fs::read(&file).unwrap();
    for cut in (kept..bytes.len()).step_by(13) {
        std::fs::write(&file, &bytes[..cut]).unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(shown(&journal.meta()), before, "cut at byte {cut}");
        assert_eq!(std::fs::metadata(&file).unwrap().len() as usize, kept);
    }
}

#[test]
fn a_journal_that_has_outgrown_its_content_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.append(everything(), false).unwrap();
    let rounds = REWRITE_FROM as i64 / 1000 + 10;
    for offset in 0..rounds {
        journal.append(vec![offsets("g", offset)], false).unwrap();
    }
    let (before, file) = (shown(&journal.meta()), dir.path().join(NAME));
    assert!(std::fs::metadata(&file).unwrap().len() < REWRITE_FROM / 2);
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(shown(&journal.meta()), before);
    assert_eq!(
        journal.meta().groups["g"][&("t".to_owned(), 0)].offset,
        rounds - 1
    );
}
