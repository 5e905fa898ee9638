//! The server itself: where it listens, what it refuses, and administration.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use support::raw::Raw;
use support::*;
use wellspring_broker::{BrokerError, EmbeddedBroker};

#[tokio::test(flavor = "multi_thread")]
async fn only_loopback_is_served() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "192.0.2.1:9092", "[::]:0"] {
        let refused = EmbeddedBroker::start(dir.path(), address).await;
        assert!(
            matches!(refused, Err(BrokerError::NotLoopback { .. })),
            "{address}: {refused:?}"
        );
    }
    let refused = EmbeddedBroker::start(dir.path(), "nonsense").await;
    assert!(
        matches!(refused, Err(BrokerError::ListenSyntax { .. })),
        "{refused:?}"
    );
    EmbeddedBroker::start(dir.path(), "localhost:0")
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_close_their_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    tokio::task::spawn_blocking(move || {
        let mut bystander = Raw::connect(&bootstrap);
        let garbage: [&[u8]; 6] = [
            // A negative length, a length of 2 GB, and a request of no bytes.
            b"\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff",
            b"\0\0\0\0",
            // An unknown request, one in a version that is too new, and one that is cut short.
            b"\0\0\0\x0a\x7f\0\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\x0a\0\x03\0\x63\0\0\0\x01\xff\xff",
            b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff",
        ];
        for bytes in garbage {
            let mut client = Raw::connect(&bootstrap);
            client.stream.write_all(bytes).unwrap();
            let mut answer = Vec::new();
            // Closed with or without a reset; either way nothing is answered.
            let _ = client.stream.read_to_end(&mut answer);
            assert_eq!(answer, b"", "{bytes:?}");
        }
        let versions: ApiVersionsResponse =
            bystander.ask(ApiKey::ApiVersions, 3, &ApiVersionsRequest::default());
        assert_eq!(versions.error_code, 0);
        assert!(
            versions
                .api_keys
                .iter()
                .any(|k| k.api_key == ApiKey::EndTxn as i16)
        );
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_grown_configured_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    create_topic_with(&bootstrap, "t", 1, &[("retention.ms", "60000")]).await;
    let admin: AdminClient<DefaultClientContext> = client(&bootstrap).create().unwrap();
    let options = AdminOptions::new();
    let again = rdkafka::admin::NewTopic::new("t", 1, rdkafka::admin::TopicReplication::Fixed(1));
    let refused = admin.create_topics([&again], &options).await.unwrap();
    assert_eq!(
        refused[0].as_ref().unwrap_err().1,
        RDKafkaErrorCode::TopicAlreadyExists
    );
    let wrong = rdkafka::admin::NewTopic::new("u", 1, rdkafka::admin::TopicReplication::Fixed(3));
    let refused = admin.create_topics([&wrong], &options).await.unwrap();
    assert_eq!(
        refused[0].as_ref().unwrap_err().1,
        RDKafkaErrorCode::InvalidReplicationFactor
    );

    let producer = producer(&bootstrap, &[]);
    send(&producer, "t", 0, "one").await;
    admin
        .create_partitions(&[NewPartitions::new("t", 3)], &options)
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let altered = AlterConfig::new(ResourceSpecifier::Topic("t")).set("max.message.bytes", "4000");
    admin.alter_configs([&altered], &options).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let shown = admin
        .describe_configs([&ResourceSpecifier::Topic("t")], &options)
        .await
        .unwrap();
    let shown = shown[0].as_ref().unwrap();
    assert_eq!(
        shown.get("max.message.bytes").unwrap().value.as_deref(),
        Some("4000")
    );

    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset("t", 0, Offset::Offset(1)).unwrap();
    admin.delete_records(&cut, &options).await.unwrap();
    let asking = bootstrap.clone();
    tokio::task::spawn_blocking(move || {
        let consumer = consumer(&asking, "g", &[]);
        let metadata = consumer
            .fetch_metadata(Some("t"), Duration::from_secs(20))
            .unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), 3);
        assert_eq!(
            consumer
                .fetch_watermarks("t", 0, Duration::from_secs(20))
                .unwrap(),
            (1, 1)
        );
    })
    .await
    .unwrap();
    admin.delete_topics(&["t"], &options).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let gone = admin.delete_topics(&["t"], &options).await.unwrap();
    assert_eq!(
        gone[0].as_ref().unwrap_err().1,
        RDKafkaErrorCode::UnknownTopicOrPartition
    );
    // A topic of the same name begins anew, also after a restart.
    create_topic(&bootstrap, "t", 1).await;
    broker.shutdown().await.unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let asking = broker.bootstrap();
    let read = tokio::task::spawn_blocking(move || read_partition(&asking, "t", 0, "read_committed"));
    assert_eq!(read.await.unwrap(), []);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_broker_frees_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    create_topic(&broker.bootstrap(), "t", 1).await;
    drop(broker);
    let start = std::time::Instant::now();
    loop {
        match EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await {
            Ok(broker) => break broker.shutdown().await.unwrap(),
            Err(BrokerError::Locked { .. }) if start.elapsed() < PATIENCE => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}
