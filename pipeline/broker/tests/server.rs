//! The embedded broker itself: where it listens, what it refuses, what it frees.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};

use std::time::Duration;

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};
use support::raw::Raw;
use support::*;
use wellspring_broker::{BrokerConfig, BrokerError, EmbeddedBroker};

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

#[test]
fn a_dropped_broker_frees_its_folder() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let start = || runtime.block_on(EmbeddedBroker::start(dir.path(), "127.0.0.1:0"));
    drop(start().unwrap());
    wait_until("its folder can be used again", || match start() {
        Ok(broker) => runtime.block_on(broker.shutdown()).is_ok(),
        Err(BrokerError::Locked { .. }) => false,
        Err(error) => panic!("{error}"),
    });
}

#[test]
fn offsets_of_abandoned_groups_are_forgotten_and_others_are_not() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let config = BrokerConfig {
        housekeeping: Duration::from_millis(100),
        offsets_retention: Duration::from_secs(2),
        ..BrokerConfig::default()
    };
    let start = EmbeddedBroker::start_with(dir.path(), "127.0.0.1:0", config);
    let broker = runtime.block_on(start).unwrap();
    let kafka = Kafka::at(broker.bootstrap(), runtime);
    let topic = kafka.topic("t", 1, &[]);
    let member = kafka.consumer("alive", &[]);
    member.subscribe(&[&topic]).unwrap();
    wait_until("it is a member", || {
        poll(&member, 20);
        member.assignment().unwrap().count() == 1
    });
    member.commit(&at(&topic, 0, 3), CommitMode::Sync).unwrap();
    let abandoned = kafka.consumer("abandoned", &[]);
    abandoned.commit(&at(&topic, 0, 5), CommitMode::Sync).unwrap();
    assert_eq!(committed_offset(&abandoned, &topic, 0), Offset::Offset(5));
    wait_until("the group is forgotten", || {
        poll(&member, 20);
        committed_offset(&abandoned, &topic, 0) == Offset::Invalid
    });
    assert_eq!(committed_offset(&member, &topic, 0), Offset::Offset(3));
    drop(member);
    wait_until("the other one is, once it is left", || {
        committed_offset(&kafka.consumer("alive", &[]), &topic, 0) == Offset::Invalid
    });
    kafka.runtime.block_on(broker.shutdown()).unwrap();
}
