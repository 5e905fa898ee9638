//! Fetch: reads batches, or waits until there are some.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::frame::{Frame, FrameError, Reply};
use crate::log::batch::BatchHeader;
use crate::log::partition::{Ends, Partition, Watch};

/// Longest wait for news, whatever the client asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Answers with what is there once there is enough of it or time is up. No sessions: every request
/// names all its partitions.
pub(super) async fn fetch(
    broker: &Arc<Broker>,
    frame: &Frame,
    mut stopped: watch::Receiver<bool>,
) -> Result<Reply, FrameError> {
    let request: FetchRequest = frame.decode()?;
    if request.session_id != 0 {
        let error = ResponseError::FetchSessionIdNotFound.code();
        return frame
            .reply(&FetchResponse::default().with_error_code(error))
            .map(Reply::from);
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let deadline = Instant::now() + wait;
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    let request = Arc::new(request);
    let news = Arc::new(Notify::new());
    let _watches = watch_all(broker, &request, &news);
    loop {
        // Never closed, so this only waits, and only while many large answers are being written.
        let room = Arc::clone(&broker.fetch_answers).acquire_owned().await.ok();
        let (worker, asked) = (Arc::clone(broker), Arc::clone(&request));
        let (answer, bytes, failed) = tokio::task::spawn_blocking(move || read_all(&worker, &asked)).await?;
        if bytes >= enough || failed || Instant::now() >= deadline || *stopped.borrow() {
            let bytes = frame.reply(&answer)?;
            return Ok(Reply { bytes, room });
        }
        drop((answer, room));
        tokio::select! {
            () = news.notified() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = crate::server::told_to_stop(&mut stopped) => {}
        }
    }
}

fn watch_all(broker: &Broker, request: &FetchRequest, news: &Arc<Notify>) -> Vec<Watch> {
    let id = broker.ticket();
    let partitions = request
        .topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(move |p| (&t.topic, p)));
    partitions
        .filter_map(|(topic, p)| broker.topics.partition(topic, p.partition))
        .map(|partition| partition.watch(id, news))
        .collect()
}

/// Reads all partitions asked for; also returns how many bytes that is and whether any failed.
fn read_all(broker: &Broker, request: &FetchRequest) -> (FetchResponse, usize, bool) {
    let most = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(broker.config.fetch_max_bytes);
    let committed = request.isolation_level == 1;
    let (mut total, mut failed) = (0, false);
    let topics = request.topics.iter().map(|asked| {
        let partitions = asked.partitions.iter().map(|p| {
            let found = broker.topics.partition(&asked.topic, p.partition);
            let data = PartitionData::default().with_partition_index(p.partition);
            let data = match found {
                Some(partition) => read(
                    &partition,
                    p,
                    data,
                    most.saturating_sub(total),
                    total == 0,
                    committed,
                ),
                None => refused(data, ResponseError::UnknownTopicOrPartition),
            };
            failed |= data.error_code != 0;
            total += data.records.as_ref().map_or(0, Bytes::len);
            data
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(asked.topic.clone())
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    (FetchResponse::default().with_responses(topics), total, failed)
}

fn refused(data: PartitionData, error: ResponseError) -> PartitionData {
    data.with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}

fn read(
    partition: &Partition,
    asked: &FetchPartition,
    data: PartitionData,
    left: usize,
    first: bool,
    committed: bool,
) -> PartitionData {
    let Ends { start, stable, next } = partition.ends();
    let data = data
        .with_high_watermark(next)
        .with_last_stable_offset(stable)
        .with_log_start_offset(start)
        .with_preferred_read_replica(BrokerId(-1));
    if asked.current_leader_epoch > 0 {
        return refused(data, ResponseError::UnknownLeaderEpoch);
    }
    if asked.fetch_offset < start || asked.fetch_offset > next {
        return refused(data, ResponseError::OffsetOutOfRange);
    }
    let limit = if committed { stable } else { next };
    let most = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
    let empty = asked.fetch_offset >= limit || (most == 0 && !first);
    let read = if empty {
        Ok(Bytes::new())
    } else {
        partition.read(asked.fetch_offset, limit, most, first)
    };
    match read {
        Ok(records) => {
            let aborted = committed.then(|| aborted(partition, asked.fetch_offset, &records));
            data.with_aborted_transactions(aborted)
                .with_records(Some(records))
        }
        Err(error) => {
            tracing::error!(%error, "fetch failed");
            refused(data, ResponseError::KafkaStorageError)
        }
    }
}

/// Aborted transactions that touch what was read.
fn aborted(partition: &Partition, from: i64, records: &Bytes) -> Vec<AbortedTransaction> {
    let (mut at, mut end) = (0, from);
    while let Some(header) = records.get(at..).and_then(|b| BatchHeader::parse(b).ok()) {
        at += header.total_len;
        end = header.last_offset() + 1;
    }
    let found = partition.aborted_in(from, end).into_iter();
    found
        .map(|a| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(a.producer_id))
                .with_first_offset(a.first_offset)
        })
        .collect()
}
