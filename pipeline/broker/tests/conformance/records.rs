//! Records go in and come out unchanged: keys, headers, tombstones, codecs, sizes, times.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use support::*;
use wellspring_broker::EmbeddedBroker;

#[tokio::test(flavor = "multi_thread")]
async fn keys_headers_and_tombstones_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    create_topic(&broker.bootstrap(), "plates", 1).await;
    let producer = producer(&broker.bootstrap(), &[]);
    let headers = OwnedHeaders::new()
        .insert(Header {
            key: "ce_id",
            value: Some("a1"),
        })
        .insert(Header {
            key: "empty",
            value: None::<&str>,
        });
    let full = FutureRecord::to("plates")
        .key("k")
        .payload("v")
        .headers(headers)
        .timestamp(1234);
    producer.send(full, Timeout::Never).await.unwrap();
    producer
        .send(FutureRecord::<str, str>::to("plates").key("k"), Timeout::Never)
        .await
        .unwrap();
    let consumer = stream(&broker.bootstrap(), "g", &[]);
    consumer.subscribe(&["plates"]).unwrap();
    let first = consumer.recv().await.unwrap();
    assert_eq!((first.key(), first.payload()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(first.timestamp().to_millis(), Some(1234));
    let headers = first.headers().unwrap();
    assert_eq!(
        headers.get(0),
        Header {
            key: "ce_id",
            value: Some(&b"a1"[..])
        }
    );
    assert_eq!(
        headers.get(1),
        Header {
            key: "empty",
            value: None
        }
    );
    let second = consumer.recv().await.unwrap();
    assert_eq!(
        (second.key(), second.payload(), second.offset()),
        (Some(&b"k"[..]), None, 1)
    );
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_codecs_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        create_topic(&broker.bootstrap(), codec, 1).await;
        let producer = producer(
            &broker.bootstrap(),
            &[("compression.type", codec), ("linger.ms", "20")],
        );
        let value = "features ".repeat(2000);
        let sends: Vec<_> = (0..20)
            .map(|_| {
                producer
                    .send_result(FutureRecord::<(), str>::to(codec).payload(&value))
                    .unwrap()
            })
            .collect();
        for sent in sends {
            sent.await.unwrap().unwrap();
        }
        let (bootstrap, topic) = (broker.bootstrap(), codec.to_owned());
        let read =
            tokio::task::spawn_blocking(move || read_partition(&bootstrap, &topic, 0, "read_committed"));
        let read = read.await.unwrap();
        assert_eq!(read.len(), 20, "{codec}");
        assert!(read.iter().all(|(_, v)| *v == value), "{codec}");
    }
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn four_megabyte_messages_pass_and_too_large_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "big", 1).await;
    create_topic_with(&bootstrap, "small", 1, &[("max.message.bytes", "1000")]).await;
    let producer = producer(&bootstrap, &[("message.max.bytes", "8000000")]);
    let value = "x".repeat(4 << 20);
    for offset in 0..3 {
        assert_eq!(send(&producer, "big", 0, &value).await, offset);
    }
    let refused = FutureRecord::<(), str>::to("small").payload(&value[..2000]);
    let (error, _) = producer.send(refused, Timeout::Never).await.unwrap_err();
    assert_eq!(
        error.rdkafka_error_code(),
        Some(rdkafka::types::RDKafkaErrorCode::MessageSizeTooLarge)
    );
    let read = tokio::task::spawn_blocking(move || read_partition(&bootstrap, "big", 0, "read_committed"));
    assert!(read.await.unwrap().iter().all(|(_, v)| *v == value));
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time_within_compressed_batches() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    create_topic(&broker.bootstrap(), "t", 1).await;
    let producer = producer(
        &broker.bootstrap(),
        &[("compression.type", "lz4"), ("linger.ms", "50")],
    );
    let sends: Vec<_> = (0..100i64)
        .map(|i| {
            let record = FutureRecord::<(), str>::to("t")
                .payload("v")
                .timestamp(1000 + 10 * i);
            producer.send_result(record).unwrap()
        })
        .collect();
    for sent in sends {
        sent.await.unwrap().unwrap();
    }
    let bootstrap = broker.bootstrap();
    tokio::task::spawn_blocking(move || {
        let consumer = consumer(&bootstrap, "g", &[]);
        let at = |ms: i64| {
            let mut ask = TopicPartitionList::new();
            ask.add_partition_offset("t", 0, Offset::Offset(ms)).unwrap();
            let found = consumer.offsets_for_times(ask, Duration::from_secs(20)).unwrap();
            found.elements()[0].offset()
        };
        assert_eq!(at(0), Offset::Offset(0));
        assert_eq!(at(1000), Offset::Offset(0));
        assert_eq!(at(1001), Offset::Offset(1));
        assert_eq!(at(1505), Offset::Offset(51));
        assert_eq!(at(1990), Offset::Offset(99));
        assert_eq!(at(1991), Offset::End);
        assert_eq!(
            consumer
                .fetch_watermarks("t", 0, Duration::from_secs(20))
                .unwrap(),
            (0, 100)
        );
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}
