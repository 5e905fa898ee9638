//! The transaction coordinator: who owns a transactional id, what belongs to its transaction, and
//! how that ends.
//!
//! Enters: requests of transactional producers and the clock. Leaves: journal entries, control
//! batches, committed offsets. Ending a transaction is: partitions flushed (commit only) - outcome in
//! the journal, flushed - markers in the partitions - offsets and completion in the journal as one
//! entry. A crash between any two of these is finished at the next start. All methods block.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;

use crate::broker::Broker;
use crate::error::StorageError;
use crate::log::partition::lock;
use crate::meta::{Change, Committed, Meta, TxnMeta, TxnState};

/// The last epoch of a producer id; after it a new id is taken.
const LAST_EPOCH: i16 = i16::MAX - 1;
/// How long to wait before trying again to end a transaction after a failed write.
const RETRY_END: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Txn {
    meta: TxnMeta,
    /// When an ongoing transaction is aborted, or a decided one is tried again.
    due: Option<Instant>,
}

/// All transactional producers. Lock order: one transaction, then groups, then journal and logs.
#[derive(Debug)]
pub(crate) struct Transactions {
    by_id: Mutex<HashMap<String, Arc<Mutex<Txn>>>>,
    /// Transactions with a due time, so that the clock looks at few.
    timed: Mutex<BTreeMap<String, Instant>>,
}

/// Which producer speaks for a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Producer<'a> {
    pub(crate) transactional_id: &'a str,
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

fn storage(error: &StorageError) -> ResponseError {
    tracing::error!(%error, "transaction state could not be stored");
    ResponseError::CoordinatorNotAvailable
}

impl Transactions {
    /// The transactions the journal holds; their timeouts begin anew.
    pub(crate) fn recovered(meta: &Meta) -> Self {
        let now = Instant::now();
        let mut timed = BTreeMap::new();
        let mut by_id = HashMap::new();
        for txn in meta.txns.values() {
            let due = (txn.state == TxnState::Ongoing).then(|| now + timeout(txn));
            timed.extend(due.map(|d| (txn.id.clone(), d)));
            by_id.insert(
                txn.id.clone(),
                Arc::new(Mutex::new(Txn {
                    meta: txn.clone(),
                    due,
                })),
            );
        }
        Self {
            by_id: Mutex::new(by_id),
            timed: Mutex::new(timed),
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Mutex<Txn>>> {
        lock(&self.by_id).get(id).cloned()
    }

    /// Finishes decided transactions, and ends open ones that no producer owns any more.
    pub(crate) fn finish_at_start(&self, broker: &Broker) -> Result<(), StorageError> {
        let all: Vec<_> = lock(&self.by_id).values().cloned().collect();
        let mut owned: HashMap<i64, TxnMeta> = HashMap::new();
        for txn in all {
            let mut txn = lock(&txn);
            if matches!(txn.meta.state, TxnState::PrepareCommit | TxnState::PrepareAbort) {
                self.complete(broker, &mut txn)?;
            }
            owned.insert(txn.meta.producer_id, txn.meta.clone());
        }
        for topic in broker.topics.all() {
            for (index, partition) in (0i32..).zip(&topic.partitions) {
                for (producer_id, epoch) in partition.open_producers() {
                    let owner = owned.get(&producer_id);
                    let here = (topic.meta.name.clone(), index);
                    if owner.is_some_and(|t| t.state == TxnState::Ongoing && t.partitions.contains(&here)) {
                        continue;
                    }
                    // Only a power cut leads here: the journal reached the disk and the marker did not.
                    let commit =
                        owner.is_some_and(|t| t.state == TxnState::CompleteCommit && t.epoch == epoch);
                    tracing::warn!(topic = %topic.meta.name, partition = index, producer_id, commit,
                        "ended a transaction whose marker was missing");
                    partition.end_transaction(producer_id, epoch, commit, topic.settings.roll)?;
                }
            }
        }
        Ok(())
    }

    /// Stores a new state of a transaction, and only then shows it.
    fn store(&self, broker: &Broker, txn: &mut Txn, meta: TxnMeta, sync: bool) -> Result<(), ResponseError> {
        let meta = TxnMeta {
            at_ms: crate::now_ms(),
            ..meta
        };
        broker
            .journal
            .append(vec![Change::Txn(meta.clone())], sync)
            .map_err(|e| storage(&e))?;
        txn.meta = meta;
        Ok(())
    }

    fn set_due(&self, txn: &mut Txn, due: Option<Instant>) {
        txn.due = due;
        let mut timed = lock(&self.timed);
        match due {
            Some(due) => timed.insert(txn.meta.id.clone(), due),
            None => timed.remove(&txn.meta.id),
        };
    }

    /// Gives a producer its id and epoch, ending what an earlier producer of the name left open.
    /// `known` is the id and epoch of a producer that continues after an error.
    pub(crate) fn init(
        &self,
        broker: &Broker,
        transactional_id: &str,
        timeout_ms: i32,
        known: Option<(i64, i16)>,
    ) -> Result<(i64, i16), ResponseError> {
        let longest = i32::try_from(broker.config.max_transaction_timeout.as_millis()).unwrap_or(i32::MAX);
        if timeout_ms <= 0 || timeout_ms > longest {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        let shared = {
            let mut by_id = lock(&self.by_id);
            Arc::clone(by_id.entry(transactional_id.to_owned()).or_insert_with(|| {
                let meta = TxnMeta {
                    id: transactional_id.to_owned(),
                    producer_id: -1,
                    epoch: -1,
                    last_epoch: -1,
                    timeout_ms,
                    at_ms: crate::now_ms(),
                    state: TxnState::Empty,
                    partitions: BTreeSet::new(),
                    offsets: BTreeMap::new(),
                };
                Arc::new(Mutex::new(Txn { meta, due: None }))
            }))
        };
        let mut txn = lock(&shared);
        if let (Some((id, epoch)), true) = (known, txn.meta.producer_id >= 0) {
            if id != txn.meta.producer_id || (epoch != txn.meta.epoch && epoch != txn.meta.last_epoch) {
                return Err(ResponseError::ProducerFenced);
            }
            if epoch == txn.meta.last_epoch && epoch != txn.meta.epoch {
                // The answer to the same request was lost.
                return Ok((txn.meta.producer_id, txn.meta.epoch));
            }
        }
        match txn.meta.state {
            TxnState::PrepareCommit | TxnState::PrepareAbort => {
                self.complete(broker, &mut txn).map_err(|e| storage(&e))?;
            }
            TxnState::Ongoing => self.fence_and_abort(broker, &mut txn)?,
            TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort => {}
        }
        let mut meta = txn.meta.clone();
        if meta.producer_id < 0 || meta.epoch >= LAST_EPOCH {
            meta.producer_id = broker.new_producer_id().map_err(|e| storage(&e))?;
            meta.epoch = 0;
            meta.last_epoch = -1;
        } else {
            meta.epoch += 1;
            meta.last_epoch = known.map_or(-1, |(_, epoch)| epoch);
        }
        meta.timeout_ms = timeout_ms;
        meta.state = TxnState::Empty;
        self.store(broker, &mut txn, meta, true)?;
        Ok((txn.meta.producer_id, txn.meta.epoch))
    }

    /// Aborts under a raised epoch, so that the old producer can add nothing more.
    fn fence_and_abort(&self, broker: &Broker, txn: &mut Txn) -> Result<(), ResponseError> {
        let mut meta = txn.meta.clone();
        meta.epoch = meta.epoch.saturating_add(1);
        meta.last_epoch = -1;
        meta.state = TxnState::PrepareAbort;
        self.store(broker, txn, meta, true)?;
        self.complete(broker, txn).map_err(|e| storage(&e))
    }

    /// The transaction of a producer, if it is the one the coordinator knows.
    fn owned(&self, producer: Producer<'_>) -> Result<Arc<Mutex<Txn>>, ResponseError> {
        self.find(producer.transactional_id)
            .ok_or(ResponseError::InvalidProducerIdMapping)
    }

    fn check(txn: &Txn, producer: Producer<'_>) -> Result<(), ResponseError> {
        if txn.meta.producer_id != producer.id {
            Err(ResponseError::InvalidProducerIdMapping)
        } else if txn.meta.epoch != producer.epoch {
            Err(ResponseError::ProducerFenced)
        } else {
            Ok(())
        }
    }

    /// Adds partitions or groups to a transaction, beginning it where none is open.
    pub(crate) fn add(
        &self,
        broker: &Broker,
        producer: Producer<'_>,
        partitions: Vec<(String, i32)>,
        group: Option<String>,
    ) -> Result<(), ResponseError> {
        let shared = self.owned(producer)?;
        let mut txn = lock(&shared);
        Self::check(&txn, producer)?;
        let begins = match txn.meta.state {
            TxnState::PrepareCommit | TxnState::PrepareAbort => {
                return Err(ResponseError::ConcurrentTransactions);
            }
            TxnState::Ongoing => false,
            TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort => true,
        };
        let mut meta = txn.meta.clone();
        meta.state = TxnState::Ongoing;
        meta.partitions.extend(partitions);
        if let Some(group) = group {
            meta.offsets.entry(group).or_default();
        }
        if meta != txn.meta {
            self.store(broker, &mut txn, meta, false)?;
        }
        if begins {
            let due = Instant::now() + timeout(&txn.meta);
            self.set_due(&mut txn, Some(due));
        }
        Ok(())
    }

    /// Runs an append of transactional records while their transaction can neither end nor change
    /// hands.
    pub(crate) fn while_open<T>(
        &self,
        producer: Producer<'_>,
        topic: &str,
        partition: i32,
        append: impl FnOnce() -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        let shared = self.owned(producer)?;
        let txn = lock(&shared);
        match Self::check(&txn, producer) {
            Err(ResponseError::ProducerFenced) => return Err(ResponseError::InvalidProducerEpoch),
            checked => checked?,
        }
        if txn.meta.state != TxnState::Ongoing
            || !txn.meta.partitions.contains(&(topic.to_owned(), partition))
        {
            return Err(ResponseError::InvalidTxnState);
        }
        append()
    }

    /// Stages offsets to be committed with the transaction; `allowed` is asked last, under the lock.
    pub(crate) fn stage_offsets(
        &self,
        broker: &Broker,
        producer: Producer<'_>,
        group: &str,
        offsets: Vec<Committed>,
        allowed: impl FnOnce() -> Result<(), ResponseError>,
    ) -> Result<(), ResponseError> {
        let shared = self.owned(producer)?;
        let mut txn = lock(&shared);
        match Self::check(&txn, producer) {
            Err(ResponseError::ProducerFenced) => return Err(ResponseError::InvalidProducerEpoch),
            checked => checked?,
        }
        if txn.meta.state != TxnState::Ongoing || !txn.meta.offsets.contains_key(group) {
            return Err(ResponseError::InvalidTxnState);
        }
        allowed()?;
        let mut meta = txn.meta.clone();
        let staged = meta.offsets.entry(group.to_owned()).or_default();
        staged.retain(|old| {
            !offsets
                .iter()
                .any(|new| new.topic == old.topic && new.partition == old.partition)
        });
        staged.extend(offsets);
        self.store(broker, &mut txn, meta, false)
    }

    /// Commits or aborts.
    pub(crate) fn end(
        &self,
        broker: &Broker,
        producer: Producer<'_>,
        commit: bool,
    ) -> Result<(), ResponseError> {
        let shared = self.owned(producer)?;
        let mut txn = lock(&shared);
        Self::check(&txn, producer)?;
        match (txn.meta.state, commit) {
            (TxnState::Ongoing, _) => {}
            // The answer to the same request was lost.
            (TxnState::CompleteCommit, true) | (TxnState::CompleteAbort, false) => return Ok(()),
            (TxnState::PrepareCommit, true) | (TxnState::PrepareAbort, false) => {
                return self.complete(broker, &mut txn).map_err(|e| storage(&e));
            }
            _ => return Err(ResponseError::InvalidTxnState),
        }
        if commit {
            for (topic, index) in &txn.meta.partitions {
                if let Some(partition) = broker.topics.partition(topic, *index) {
                    partition.flush().map_err(|e| storage(&e))?;
                }
            }
        }
        let mut meta = txn.meta.clone();
        meta.state = if commit {
            TxnState::PrepareCommit
        } else {
            TxnState::PrepareAbort
        };
        self.store(broker, &mut txn, meta, true)?;
        self.complete(broker, &mut txn).map_err(|e| storage(&e))
    }

    /// Carries out a decided outcome. May be repeated: markers go only where a transaction is open.
    fn complete(&self, broker: &Broker, txn: &mut Txn) -> Result<(), StorageError> {
        let result = self.try_complete(broker, txn);
        let due = result.is_err().then(|| Instant::now() + RETRY_END);
        self.set_due(txn, due);
        result
    }

    fn try_complete(&self, broker: &Broker, txn: &mut Txn) -> Result<(), StorageError> {
        let commit = txn.meta.state == TxnState::PrepareCommit;
        for (topic, index) in &txn.meta.partitions {
            // A topic deleted meanwhile needs no marker.
            let topic = broker.topics.get(topic);
            if let Some((topic, partition)) = topic.as_ref().and_then(|t| Some((t, t.partition(*index)?))) {
                let roll = topic.settings.roll;
                partition.end_transaction(txn.meta.producer_id, txn.meta.epoch, commit, roll)?;
            }
        }
        let mut meta = txn.meta.clone();
        meta.at_ms = crate::now_ms();
        meta.partitions.clear();
        let offsets = std::mem::take(&mut meta.offsets);
        meta.state = if commit {
            TxnState::CompleteCommit
        } else {
            TxnState::CompleteAbort
        };
        let mut changes = vec![Change::Txn(meta.clone())];
        if commit {
            let staged = offsets.into_iter().filter(|(_, o)| !o.is_empty());
            changes.extend(staged.map(|(group, offsets)| Change::Offsets { group, offsets }));
        }
        broker.journal.append(changes, false)?;
        txn.meta = meta;
        Ok(())
    }

    /// Forgets transactional ids that nobody has used for long; a producer that still holds one must
    /// begin anew, as with Kafka.
    pub(crate) fn forget_idle(&self, broker: &Broker, now_ms: i64) {
        let keep_ms =
            i64::try_from(broker.config.transactional_id_expiration.as_millis()).unwrap_or(i64::MAX);
        let mut by_id = lock(&self.by_id);
        by_id.retain(|id, txn| {
            // One that somebody holds is in use.
            if Arc::strong_count(txn) > 1 {
                return true;
            }
            let held = lock(txn);
            let since = held.meta.at_ms.max(broker.started_ms);
            let open = matches!(
                held.meta.state,
                TxnState::Ongoing | TxnState::PrepareCommit | TxnState::PrepareAbort
            );
            if open || held.due.is_some() || now_ms.saturating_sub(since) < keep_ms {
                return true;
            }
            let change = Change::TxnExpired { id: id.clone() };
            match broker.journal.append(vec![change], false) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "could not forget a transactional id; it will be tried again");
                    true
                }
            }
        });
    }

    /// Whether [`expire`](Self::expire) has anything to do.
    pub(crate) fn any_due(&self) -> bool {
        let now = Instant::now();
        lock(&self.timed).values().any(|due| *due <= now)
    }

    /// Aborts transactions past their timeout and finishes decided ones that failed before.
    pub(crate) fn expire(&self, broker: &Broker) {
        let now = Instant::now();
        let due: Vec<String> = lock(&self.timed)
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(shared) = self.find(&id) else { continue };
            let mut txn = lock(&shared);
            if txn.due.is_none_or(|due| due > now) {
                continue;
            }
            let done = match txn.meta.state {
                TxnState::Ongoing => {
                    tracing::warn!(transactional_id = %id, timeout_ms = txn.meta.timeout_ms,
                        "transaction timed out and is aborted");
                    self.fence_and_abort(broker, &mut txn).is_ok()
                }
                TxnState::PrepareCommit | TxnState::PrepareAbort => self.complete(broker, &mut txn).is_ok(),
                TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort => {
                    self.set_due(&mut txn, None);
                    true
                }
            };
            if !done {
                self.set_due(&mut txn, Some(now + RETRY_END));
            }
        }
    }
}

fn timeout(meta: &TxnMeta) -> Duration {
    Duration::from_millis(u64::try_from(meta.timeout_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests;
