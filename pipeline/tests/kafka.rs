//! Schemas, headers, topics and replay through a broker: the embedded one, and Apache Kafka and a schema registry where
//! there are some.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it skips"
)]

mod common;
mod kafka {
    pub(crate) mod diff;
    pub(crate) mod registry;
    pub(crate) mod replay;
    pub(crate) mod topics;
    pub(crate) mod turns;
}

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use wellspring::events::{FieldFeatures, PlateReady, Status};
use wellspring::kafka::producer::{BatchProducer, Committed};
use wellspring::kafka::tail::{Start, read_events, read_to_end};
use wellspring::kafka::topics::{Topic, create_missing};
use wellspring::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use wellspring_broker::EmbeddedBroker;

use common::apache_kafka;

/// An embedded broker that lives as long as the test.
pub(crate) struct Broker {
    pub(crate) runtime: tokio::runtime::Runtime,
    broker: Option<EmbeddedBroker>,
    bootstrap: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Broker {
    pub(crate) fn embedded() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("broker");
        let started = EmbeddedBroker::start(&data, "127.0.0.1:0");
        let broker = runtime.block_on(started).unwrap();
        Self {
            bootstrap: broker.bootstrap(),
            runtime,
            broker: Some(broker),
            folder,
        }
    }

    /// Apache Kafka where there is one; `None`, with a plain word, elsewhere.
    pub(crate) fn apache() -> Option<Self> {
        Some(Self {
            bootstrap: apache_kafka()?,
            runtime: tokio::runtime::Runtime::new().unwrap(),
            broker: None,
            folder: tempfile::tempdir().unwrap(),
        })
    }

    /// Settings with a prefix that no other test has.
    pub(crate) fn settings(&self) -> KafkaSettings {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("test-{}-{count}", std::process::id());
        KafkaSettings::new(&self.bootstrap, prefix, "test")
    }

    pub(crate) fn create_topics(&self, kafka: &KafkaSettings) -> Result<(), KafkaFailure> {
        self.runtime.block_on(create_missing(kafka))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            let _ended = self.runtime.block_on(broker.shutdown());
        }
    }
}

pub(crate) fn publish(kafka: &KafkaSettings, records: &[OutRecord]) {
    let producer = BatchProducer::open(kafka, "test").unwrap();
    assert_eq!(producer.publish(records).unwrap(), Committed::Yes);
}

/// Every committed record of a topic, as `read` sees it.
pub(crate) fn all<E: serde::de::DeserializeOwned>(kafka: &KafkaSettings, topic: Topic) -> Vec<E> {
    let mut found = Vec::new();
    read_to_end(kafka, topic, &Start::Beginning, |record| {
        found.push(record.read().unwrap());
        Ok::<_, KafkaFailure>(std::ops::ControlFlow::Continue(()))
    })
    .unwrap();
    found
}

pub(crate) fn features(run: &str, plate: &str, field: u32) -> FieldFeatures {
    serde_json::from_value(serde_json::json!({
        "run": run, "plate": plate, "well": "A01", "field": field, "model": "m", "tiles": 1, "passed": true,
        "quality": [{"channel": "DNA", "measures": [["MeanIntensity", 0.5]], "flags": []}], "embedding": "AACAPw==",
    }))
    .unwrap()
}

pub(crate) fn features_record(features: &FieldFeatures) -> OutRecord {
    let id = format!(
        "{}/{}/{}",
        features.run, features.field.plate, features.field.field
    );
    let key = features.field.plate.as_str();
    OutRecord::new(Topic::Features, key, id, "wellspring.features.v1", features).unwrap()
}

/// The first record of a topic as it lies there: value and headers.
pub(crate) fn raw(kafka: &KafkaSettings, topic: Topic) -> (Vec<u8>, Vec<(String, String)>) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .set("group.id", format!("{}-raw", kafka.prefix))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&topic.name(&kafka.prefix)]).unwrap();
    let mut found = None;
    common::wait_for("the first record", || {
        found = consumer
            .poll(std::time::Duration::from_millis(100))
            .map(|message| message.unwrap().detach());
        found.is_some()
    });
    let message = found.unwrap();
    let headers = message.headers().unwrap().iter().map(|header| {
        let value = String::from_utf8(header.value.unwrap().to_vec()).unwrap();
        (header.key.to_owned(), value)
    });
    (message.payload().unwrap().to_vec(), headers.collect())
}

/// Runs the binary against a broker.
pub(crate) fn command(kafka: &KafkaSettings, arguments: &[&str]) -> Output {
    let mut command: Command = common::wellspring(Path::new("no-models"));
    command.args(arguments).args(["--kafka", &kafka.bootstrap]);
    command.args(["--prefix", &kafka.prefix]).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server that answers every request with the same status and body, and keeps the requests' heads.
pub(crate) fn answering(status: &str, body: &str) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let (heads, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next());
            let mut rest = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            let _body = stream.read_exact(&mut rest);
            if heads.send(head).is_err() {
                return;
            }
            let _answered = stream.write_all(answer.as_bytes());
        }
    });
    (url, received)
}

fn cloud_events(broker: &Broker) {
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let event: PlateReady = serde_json::from_str(r#"{"plate":"P1","run":"r-1"}"#).unwrap();
    let record = OutRecord::new(
        Topic::Plates,
        "P1",
        "r-1/P1/ready",
        "wellspring.plate-ready.v1",
        &event,
    );
    publish(&kafka, &[record.unwrap()]);
    let (value, headers) = raw(&kafka, Topic::Plates);
    assert!(value.starts_with(&[0xc3, 0x01]));
    let header = |name: &str| {
        let mut found = headers.iter().filter(|(key, _)| key == name);
        let value = found.next().unwrap_or_else(|| panic!("no {name}")).1.clone();
        assert!(found.next().is_none(), "{name} twice");
        value
    };
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_id"), "r-1/P1/ready");
    assert_eq!(header("ce_type"), "wellspring.plate-ready.v1");
    assert_eq!(header("ce_source"), "wellspring");
    assert!(wellspring::clock::parse_moment(&header("ce_time"), 0).is_some());
    assert_eq!(header("ce_dataschema"), "urn:wellspring:schema:plates:4");
    assert_eq!(header("content-type"), "application/avro");
    let trace = header("traceparent");
    assert_eq!(trace.split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
    assert_eq!(all::<PlateReady>(&kafka, Topic::Plates), [event]);
}

#[test]
fn records_carry_cloud_events_attributes_and_their_trace() {
    cloud_events(&Broker::embedded());
}

#[test]
fn on_apache_kafka_too_records_carry_cloud_events_attributes_and_their_trace() {
    if let Some(kafka) = Broker::apache() {
        cloud_events(&kafka);
    }
}

fn open_transactions(broker: &Broker) {
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let status = |plate: &str| {
        let status = serde_json::from_value(serde_json::json!({
            "status": "plate_released", "run": "r", "plate": plate, "time_ms": 1,
        }));
        OutRecord::status(plate.to_owned(), &status.unwrap()).unwrap()
    };
    // A process that ended in a transaction: the broker ends it some seconds later.
    let dead: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .set("transactional.id", format!("{}-dead", kafka.prefix))
        .set("transaction.timeout.ms", "2000")
        .set("message.timeout.ms", "1900")
        .create()
        .unwrap();
    let (wait, topic) = (Duration::from_secs(20), Topic::Status.name(&kafka.prefix));
    dead.init_transactions(wait).unwrap();
    dead.begin_transaction().unwrap();
    let never = status("NEVER");
    let record = BaseRecord::to(&topic).key("r").payload(&never.value);
    dead.send(record).map_err(|(error, _)| error).unwrap();
    dead.flush(wait).unwrap();
    publish(&kafka, &[status("BEHIND")]);
    assert!(all::<Status>(&kafka, Topic::Status).is_empty());
    let found = read_events::<Status>(&kafka, Topic::Status).unwrap();
    let plates: Vec<_> = found.iter().filter_map(|(_, status)| status.plate()).collect();
    assert_eq!(plates, [&"BEHIND".parse().unwrap()]);
}

#[test]
fn what_stands_behind_the_open_transaction_of_a_dead_process_is_waited_for() {
    open_transactions(&Broker::embedded());
}

#[test]
fn on_apache_kafka_too_what_stands_behind_the_open_transaction_of_a_dead_process_is_waited_for() {
    if let Some(kafka) = Broker::apache() {
        open_transactions(&kafka);
    }
}

/// Before there were schemas every record was JSON; a log of that time is still read.
#[test]
fn topics_written_by_the_earlier_json_version_stay_readable() {
    let broker = Broker::embedded();
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let old = br#"{"run":"r","plate":"P","well":"A01","field":1,"ordinal":0,"model":"m","tiles":1,"passed":true,"quality":[],"embedding":"AACAPw=="}"#;
    let record = OutRecord::of_bytes(
        Topic::Features,
        "P",
        "r/P/A01/1",
        "wellspring.features.v1",
        old.to_vec(),
    );
    publish(&kafka, &[record, features_record(&features("r", "P", 2))]);
    let read: Vec<FieldFeatures> = all(&kafka, Topic::Features);
    assert_eq!(
        read.iter()
            .map(|f| (f.field.field, f.embedding[0]))
            .collect::<Vec<_>>(),
        [(1, 1.0), (2, 1.0)]
    );
}
