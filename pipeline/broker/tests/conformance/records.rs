//! Records go in and come out unchanged: keys, headers, tombstones, codecs, sizes, times, and never twice.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::support::raw::Raw;
use crate::support::*;

/// For records with timestamps of long ago: Kafka would remove them as past their week.
const FOREVER: [(&str, &str); 1] = [("retention.ms", "-1")];

pub(crate) fn keys_headers_and_tombstones_come_back(kafka: &Kafka) {
    let topic = kafka.topic("plates", 1, &FOREVER);
    let producer = kafka.producer(&[]);
    let id = Header {
        key: "ce_id",
        value: Some("a1"),
    };
    let empty = Header {
        key: "empty",
        value: None::<&str>,
    };
    let full = FutureRecord::to(&topic)
        .key("k")
        .payload("v")
        .headers(OwnedHeaders::new().insert(id).insert(empty))
        .timestamp(1234);
    kafka.try_put(&producer, full).unwrap();
    let tombstone = FutureRecord::<str, str>::to(&topic).key("k");
    kafka.try_put(&producer, tombstone).unwrap();

    let found = kafka.records(&topic, 0, "read_committed");
    let [first, second] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((first.key(), first.payload()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(first.timestamp().to_millis(), Some(1234));
    let headers = first.headers().unwrap();
    let header = |i: usize| {
        (
            headers.get(i).key.to_owned(),
            headers.get(i).value.map(<[u8]>::to_vec),
        )
    };
    assert_eq!(header(0), ("ce_id".to_owned(), Some(b"a1".to_vec())));
    assert_eq!(header(1), ("empty".to_owned(), None));
    assert_eq!(
        (second.key(), second.payload(), second.offset()),
        (Some(&b"k"[..]), None, 1)
    );
}

pub(crate) fn all_codecs_come_back(kafka: &Kafka) {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = kafka.topic(codec, 1, &[]);
        let producer = kafka.producer(&[("compression.type", codec), ("linger.ms", "20")]);
        let value = "features ".repeat(2000);
        let record = || FutureRecord::to(&topic).key("k").payload(value.as_str());
        kafka.put_all(&producer, (0..20).map(|_| record()));
        let read = kafka.committed(&topic, 0);
        assert_eq!(read.len(), 20, "{codec}");
        assert!(read.iter().all(|v| *v == value), "{codec}");
    }
}

pub(crate) fn four_megabyte_messages_pass_and_too_large_ones_are_refused(kafka: &Kafka) {
    let big = kafka.topic("big", 1, &[("max.message.bytes", "8000000")]);
    let small = kafka.topic("small", 1, &[("max.message.bytes", "1000")]);
    let producer = kafka.producer(&[("message.max.bytes", "8000000")]);
    let value = "x".repeat(4 << 20);
    for offset in 0..3 {
        assert_eq!(kafka.put(&producer, &big, 0, &value), offset);
    }
    let refused = FutureRecord::<(), str>::to(&small).payload(&value[..2000]);
    assert_eq!(kafka.try_put(&producer, refused), Err(Code::MessageSizeTooLarge));
    assert!(kafka.committed(&big, 0).iter().all(|v| *v == value));
}

pub(crate) fn offsets_are_found_by_time_within_compressed_batches(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &FOREVER);
    for (codec, first) in [("lz4", 0), ("none", 50)] {
        let producer = kafka.producer(&[("compression.type", codec), ("linger.ms", "50")]);
        let record = |i: i64| {
            FutureRecord::to(&topic)
                .key("k")
                .payload("v")
                .timestamp(1000 + 10 * i)
        };
        kafka.put_all(&producer, (first..first + 50).map(record));
    }
    let consumer = kafka.consumer("g", &[]);
    let found = |ms: i64| {
        let found = consumer.offsets_for_times(at(&topic, 0, ms), PATIENCE).unwrap();
        found.elements()[0].offset()
    };
    assert_eq!(found(0), Offset::Offset(0));
    assert_eq!(found(1000), Offset::Offset(0));
    assert_eq!(found(1001), Offset::Offset(1));
    assert_eq!(found(1255), Offset::Offset(26));
    assert_eq!(found(1505), Offset::Offset(51));
    assert_eq!(found(1990), Offset::Offset(99));
    assert_eq!(found(1991), Offset::End);
    assert_eq!(kafka.watermarks(&topic, 0), (0, 100));
}

/// A batch as an idempotent producer sends it.
fn batch(producer_id: i64, epoch: i16, sequence: i32, count: i32) -> Bytes {
    let record = |i: i32| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch: epoch,
        timestamp_type: TimestampType::Creation,
        offset: i.into(),
        sequence: sequence + i,
        timestamp: 1000,
        key: None,
        value: Some(Bytes::from((sequence + i).to_string())),
        headers: Default::default(),
    };
    let records: Vec<Record> = (0..count).map(record).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

pub(crate) fn a_batch_sent_twice_is_stored_once(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &FOREVER);
    // Whoever asks for records first may come before the partition has its leader.
    kafka.put(&kafka.producer(&[]), &topic, 0, "before");
    let mut raw = Raw::connect(&kafka.bootstrap);
    let mut ask = InitProducerIdRequest::default();
    ask.transactional_id = None;
    let given: InitProducerIdResponse = raw.ask(ApiKey::InitProducerId, 1, &ask);
    assert_eq!((given.error_code, given.producer_epoch), (0, 0));
    let mut send = |epoch, sequence, count| {
        let data = PartitionProduceData::default()
            .with_index(0)
            .with_records(Some(batch(*given.producer_id, epoch, sequence, count)));
        let to = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(topic.clone())))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![to]);
        let answer: ProduceResponse = raw.ask(ApiKey::Produce, 7, &request);
        let answer = &answer.responses[0].partition_responses[0];
        (answer.error_code, answer.base_offset)
    };
    const OUT_OF_ORDER: i16 = 45;
    const OLD_EPOCH: i16 = 47;
    assert_eq!(send(0, 0, 5), (0, 1));
    assert_eq!(send(0, 5, 2), (0, 6));
    assert_eq!(send(0, 0, 5), (0, 1), "a resent batch is where it was");
    assert_eq!(send(0, 5, 2), (0, 6));
    assert_eq!(send(0, 9, 1).0, OUT_OF_ORDER, "two records are missing");
    assert_eq!(send(1, 3, 1).0, OUT_OF_ORDER, "a new epoch begins with 0");
    assert_eq!(send(1, 0, 1), (0, 8));
    assert_eq!(send(0, 7, 1).0, OLD_EPOCH);
    let expected = ["before", "0", "1", "2", "3", "4", "5", "6", "0"];
    assert_eq!(kafka.committed(&topic, 0), expected);
}

pub(crate) fn records_from_the_future_are_refused(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &FOREVER);
    let producer = kafka.producer(&[]);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let send = |ms: i64| {
        let record = FutureRecord::<(), str>::to(&topic)
            .partition(0)
            .payload("v")
            .timestamp(ms);
        kafka.try_put(&producer, record)
    };
    let hour = 3_600_000;
    assert_eq!(send(now + hour / 2), Ok(0));
    assert_eq!(send(now + 2 * hour), Err(Code::InvalidTimestamp));
    assert_eq!(send(1), Ok(1), "the past is no fault");
}
