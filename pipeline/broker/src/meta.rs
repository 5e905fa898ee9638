//! The broker's durable metadata and the changes that make it up.
//!
//! Enters: [`Change`]s from the journal, in order. Leaves: topics, committed offsets, transactions.
//! Applying a change cannot fail; a change to something gone is ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A topic as created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicMeta {
    /// Never used twice, so that a topic created again under its name gets a new folder.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) configs: BTreeMap<String, String>,
    /// First readable offset of partitions where records were deleted.
    pub(crate) log_start: BTreeMap<i32, i64>,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Option<String>,
    /// When it was committed, ms since the epoch; 0 in journals of older versions.
    #[serde(default)]
    pub(crate) at_ms: i64,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TxnState {
    /// Nothing begun since the producer started.
    Empty,
    Ongoing,
    /// The outcome is decided and durable; markers may be missing.
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

/// A transactional producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TxnMeta {
    pub(crate) id: String,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// The epoch before the last increase that the producer itself asked for, or -1.
    pub(crate) last_epoch: i16,
    pub(crate) timeout_ms: i32,
    /// When it last changed, ms since the epoch; 0 in journals of older versions.
    #[serde(default)]
    pub(crate) at_ms: i64,
    pub(crate) state: TxnState,
    pub(crate) partitions: BTreeSet<(String, i32)>,
    /// Groups whose offsets belong to the transaction, with the offsets staged so far.
    pub(crate) offsets: BTreeMap<String, Vec<Committed>>,
}

/// One change of the metadata.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Change {
    Cluster {
        id: String,
    },
    Topic(TopicMeta),
    TopicDeleted {
        name: String,
    },
    /// Ids below `next_producer` and topic ids below `next_topic` are taken.
    Ids {
        next_producer: i64,
        next_topic: u64,
    },
    Offsets {
        group: String,
        offsets: Vec<Committed>,
    },
    GroupDeleted {
        group: String,
    },
    OffsetsExpired {
        group: String,
        partitions: Vec<(String, i32)>,
    },
    Txn(TxnMeta),
    TxnExpired {
        id: String,
    },
}

/// Everything the journal holds.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    pub(crate) cluster_id: String,
    pub(crate) topics: BTreeMap<String, TopicMeta>,
    pub(crate) groups: BTreeMap<String, BTreeMap<(String, i32), Committed>>,
    pub(crate) txns: BTreeMap<String, TxnMeta>,
    pub(crate) next_producer: i64,
    pub(crate) next_topic: u64,
}

impl Meta {
    /// Applies one change.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Cluster { id } => self.cluster_id = id,
            Change::Topic(topic) => {
                self.next_topic = self.next_topic.max(topic.id + 1);
                self.topics.insert(topic.name.clone(), topic);
            }
            Change::TopicDeleted { name } => {
                self.topics.remove(&name);
                for offsets in self.groups.values_mut() {
                    offsets.retain(|(topic, _), _| *topic != name);
                }
            }
            Change::Ids {
                next_producer,
                next_topic,
            } => {
                self.next_producer = self.next_producer.max(next_producer);
                self.next_topic = self.next_topic.max(next_topic);
            }
            Change::Offsets { group, offsets } => {
                let held = self.groups.entry(group).or_default();
                for committed in offsets {
                    held.insert((committed.topic.clone(), committed.partition), committed);
                }
            }
            Change::GroupDeleted { group } => {
                self.groups.remove(&group);
            }
            Change::OffsetsExpired { group, partitions } => {
                if let Some(held) = self.groups.get_mut(&group) {
                    for partition in partitions {
                        held.remove(&partition);
                    }
                    if held.is_empty() {
                        self.groups.remove(&group);
                    }
                }
            }
            Change::Txn(txn) => {
                self.txns.insert(txn.id.clone(), txn);
            }
            Change::TxnExpired { id } => {
                self.txns.remove(&id);
            }
        }
    }

    /// The shortest list of changes that leads to this state.
    pub(crate) fn snapshot(&self) -> Vec<Change> {
        let mut changes = vec![
            Change::Cluster {
                id: self.cluster_id.clone(),
            },
            Change::Ids {
                next_producer: self.next_producer,
                next_topic: self.next_topic,
            },
        ];
        changes.extend(self.topics.values().cloned().map(Change::Topic));
        changes.extend(self.groups.iter().map(|(group, offsets)| Change::Offsets {
            group: group.clone(),
            offsets: offsets.values().cloned().collect(),
        }));
        changes.extend(self.txns.values().cloned().map(Change::Txn));
        changes
    }

    /// Whether an undecided transaction has staged an offset of this group and partition.
    pub(crate) fn is_unstable(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.txns.values().any(|txn| {
            matches!(
                txn.state,
                TxnState::Ongoing | TxnState::PrepareCommit | TxnState::PrepareAbort
            ) && txn
                .offsets
                .get(group)
                .is_some_and(|o| o.iter().any(|c| c.topic == topic && c.partition == partition))
        })
    }
}
