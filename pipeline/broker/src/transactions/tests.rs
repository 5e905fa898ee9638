//! Producer ids and epochs at their limits, and transactional ids that nobody uses.

use std::path::Path;

use super::*;
use crate::config::BrokerConfig;

fn open(dir: &Path, expiration: Duration) -> Arc<Broker> {
    let config = BrokerConfig {
        transactional_id_expiration: expiration,
        ..BrokerConfig::default()
    };
    Broker::open(dir, "127.0.0.1:1".parse().unwrap(), config).unwrap()
}

const LONG: Duration = Duration::from_secs(3600);

fn init(broker: &Broker, known: Option<(i64, i16)>) -> Result<(i64, i16), ResponseError> {
    broker.transactions.init(broker, "p", 60_000, known)
}

/// A broker whose producer `p` has this id, epoch and state.
fn broker_with(dir: &Path, producer_id: i64, epoch: i16, state: TxnState) -> Arc<Broker> {
    let broker = open(dir, LONG);
    let meta = TxnMeta {
        id: "p".to_owned(),
        producer_id,
        epoch,
        last_epoch: -1,
        timeout_ms: 60_000,
        at_ms: crate::now_ms(),
        state,
        partitions: BTreeSet::new(),
        offsets: BTreeMap::new(),
    };
    let ids = Change::Ids {
        next_producer: producer_id + 1,
        next_topic: 0,
    };
    broker.journal.append(vec![ids, Change::Txn(meta)], true).unwrap();
    drop(broker);
    open(dir, LONG)
}

#[test]
fn a_producer_past_its_last_epoch_gets_a_new_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(dir.path(), 7, LAST_EPOCH - 1, TxnState::CompleteCommit);
    assert_eq!(init(&broker, None), Ok((7, LAST_EPOCH)));
    let (fresh, epoch) = init(&broker, None).unwrap();
    assert!(fresh > 7, "{fresh}");
    assert_eq!(epoch, 0);
    // The one of the old id is fenced.
    let old = Producer {
        transactional_id: "p",
        id: 7,
        epoch: LAST_EPOCH,
    };
    assert!(broker.transactions.end(&broker, old, true).is_err());
    assert_eq!(
        init(&broker, Some((7, LAST_EPOCH))),
        Err(ResponseError::ProducerFenced)
    );
    assert_eq!(init(&broker, Some((fresh, 0))), Ok((fresh, 1)));
}

#[test]
fn an_open_transaction_of_the_last_epoch_is_aborted_and_its_id_given_up() {
    for epoch in [LAST_EPOCH, i16::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker_with(dir.path(), 7, epoch, TxnState::Ongoing);
        let (fresh, epoch) = init(&broker, None).unwrap();
        assert!(fresh > 7, "{fresh}");
        assert_eq!(epoch, 0);
        let states: Vec<TxnState> = broker.journal.meta().txns.values().map(|t| t.state).collect();
        assert_eq!(states, [TxnState::Empty]);
    }
}

#[test]
fn ids_not_used_for_long_are_forgotten_and_open_ones_are_not() {
    for (state, forgotten) in [
        (TxnState::Empty, true),
        (TxnState::CompleteCommit, true),
        (TxnState::Ongoing, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker_with(dir.path(), 7, 3, state);
        let now_ms = crate::now_ms();
        broker.transactions.forget_idle(&broker, now_ms);
        assert!(broker.transactions.find("p").is_some(), "it was used just now");
        broker.transactions.forget_idle(&broker, now_ms + 2 * 3_600_000);
        assert_eq!(broker.transactions.find("p").is_none(), forgotten, "{state:?}");
        drop(broker);
        let broker = open(dir.path(), LONG);
        assert_eq!(broker.transactions.find("p").is_none(), forgotten, "{state:?}");
    }
}
