//! What is done now and then: retention, compaction, and forgetting those who are gone for good.
//!
//! Enters: the broker and the clock. Leaves: fewer files and fewer journal entries. A failure is logged and tried again
//! the next time; it harms no request. Blocks, for as long as there is something to compact.

use crate::broker::Broker;
use crate::error::StorageError;
use crate::log::partition::{Partition, lock};
use crate::meta::Change;
use crate::topics::Topic;

/// Does all of it once. `stop` is asked now and then.
pub(crate) fn run(broker: &Broker, stop: &dyn Fn() -> bool) {
    let now_ms = crate::now_ms();
    for topic in broker.topics.all() {
        for (index, partition) in topic.partitions.iter().enumerate() {
            if stop() {
                return;
            }
            let done = clean(broker, &topic, partition, now_ms, stop);
            // The files of a topic deleted meanwhile are gone, as they should be.
            if let Err(error) = done
                && broker.topics.get(&topic.meta.name).is_some()
            {
                tracing::warn!(topic = %topic.meta.name, partition = index, %error,
                    "could not clean a partition; it will be tried again");
            }
        }
    }
    if let Err(error) = expire_offsets(broker, now_ms) {
        tracing::warn!(%error, "could not forget the offsets of groups long gone; it will be tried again");
    }
    broker.transactions.forget_idle(broker, now_ms);
}

fn clean(
    broker: &Broker,
    topic: &Topic,
    partition: &Partition,
    now_ms: i64,
    stop: &dyn Fn() -> bool,
) -> Result<(), StorageError> {
    let settings = &topic.settings;
    if settings.retention_ms.is_some() || settings.retention_bytes.is_some() {
        let gone = partition.retain(settings.retention_ms, settings.retention_bytes, now_ms)?;
        if gone > 0 {
            tracing::info!(topic = %topic.meta.name, segments = gone, "removed segments past their retention");
        }
    }
    let Some(how) = settings.compaction else {
        return Ok(());
    };
    // Several passes where one had no room for all keys.
    while partition.compact(&how, broker.config.compaction_keys, now_ms, stop)? && !stop() {
        tracing::debug!(dir = %partition.dir().display(), "compacted a partition");
    }
    Ok(())
}

/// Forgets offsets committed long ago by groups that have had no member for as long.
fn expire_offsets(broker: &Broker, now_ms: i64) -> Result<(), StorageError> {
    let keep_ms = i64::try_from(broker.config.offsets_retention.as_millis()).unwrap_or(i64::MAX);
    // Held to the end: no member can come meanwhile and find its offsets gone.
    let mut groups = lock(&broker.groups);
    let expired: Vec<Change> = {
        let meta = broker.journal.meta();
        groups.forget_departures(|group| meta.groups.contains_key(group));
        let abandoned = meta.groups.iter().filter_map(|(group, offsets)| {
            let since = groups.empty_since(group)?.max(broker.started_ms);
            let old = |at: i64| now_ms.saturating_sub(at.max(since)) >= keep_ms;
            let gone = offsets.iter().filter(|(_, committed)| old(committed.at_ms));
            let partitions: Vec<(String, i32)> = gone.map(|(partition, _)| partition.clone()).collect();
            (!partitions.is_empty()).then(|| Change::OffsetsExpired {
                group: group.clone(),
                partitions,
            })
        });
        abandoned.collect()
    };
    if expired.is_empty() {
        return Ok(());
    }
    tracing::info!(
        groups = expired.len(),
        "forgot offsets of groups long without members"
    );
    broker.journal.append(expired, false)
}
