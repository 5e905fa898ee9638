//! A worker: reads one topic and writes another, with its offsets, in transactions.

use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::*;

/// Records of one transaction.
const BATCH: usize = 25;

/// Copies two partitions of `input` to `output` until `total` records are through or `limit` transactions committed.
/// In the latter case it leaves one more transaction open, as a worker does that dies.
pub(crate) fn copy(kafka: &Kafka, input: &str, output: &str, limit: usize, total: i64) {
    let settings = [
        ("isolation.level", "read_committed"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ];
    let consumer = kafka.consumer("copiers", &settings);
    consumer.subscribe(&[input]).unwrap();
    let producer = kafka.transactional("copier", 60_000);
    let mut done = [0i64; 2];
    for (partition, done) in (0..).zip(&mut done) {
        if let Offset::Offset(at) = committed_offset(&consumer, input, partition) {
            *done = at;
        }
    }
    let mut commits = 0;
    while done.iter().sum::<i64>() < total {
        let mut batch = Vec::new();
        wait_until("there is input", || {
            let next = |wait| poll(&consumer, wait).map(|message| message.detach());
            batch.extend(next(100));
            while !batch.is_empty() && batch.len() < BATCH {
                match next(20) {
                    Some(message) => batch.push(message),
                    None => break,
                }
            }
            !batch.is_empty()
        });
        producer.begin_transaction().unwrap();
        let records = batch.iter().map(|message| {
            FutureRecord::to(output)
                .partition(message.partition())
                .key("k")
                .payload(std::str::from_utf8(message.payload().unwrap()).unwrap())
        });
        kafka.put_all(&producer, records);
        let mut offsets = TopicPartitionList::new();
        for message in &batch {
            done[message.partition() as usize] = message.offset() + 1;
        }
        for (partition, done) in (0..).zip(done) {
            if batch.iter().any(|message| message.partition() == partition) {
                offsets
                    .add_partition_offset(input, partition, Offset::Offset(done))
                    .unwrap();
            }
        }
        let member = consumer.group_metadata().unwrap();
        producer
            .send_offsets_to_transaction(&offsets, &member, PATIENCE)
            .unwrap();
        if commits == limit {
            return;
        }
        producer.commit_transaction(PATIENCE).unwrap();
        commits += 1;
    }
}
