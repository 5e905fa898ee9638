//! `wellspring topics` on the embedded broker and on Apache Kafka.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use wellspring::kafka::OutRecord;
use wellspring::kafka::admin::{Admin, Wanted};
use wellspring::kafka::backlog::{Backlog, Reached, Standing};
use wellspring::kafka::topics::Topic;

use crate::{Broker, command, features, features_record, publish, text};

fn lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn topics(broker: &Broker) {
    let kafka = broker.settings();
    // An operator made one of them by hand, too small, with a setting of their own.
    let tasks = Topic::Tasks.name(&kafka.prefix);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .create()
        .unwrap();
    let by_hand = NewTopic::new(&tasks, 2, TopicReplication::Fixed(1))
        .set("retention.ms", "60000")
        .set("max.message.bytes", "5000000");
    let made = admin.create_topics([&by_hand], &AdminOptions::new());
    broker.runtime.block_on(made).unwrap()[0].as_ref().unwrap();

    let diff = command(&kafka, &["topics", "diff", "--json"]);
    assert_eq!(diff.status.code(), Some(1), "{}", text(&diff.stderr));
    let found = lines(&diff.stdout);
    let of_tasks: Vec<_> = found
        .iter()
        .filter(|line| line["topic"] == tasks.as_str())
        .map(|line| {
            (
                line["what"].as_str().unwrap(),
                line["is"].as_str().unwrap(),
                line["wanted"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        of_tasks,
        [("partitions", "2", "32"), ("retention.ms", "60000", "-1")]
    );
    assert_eq!(
        found
            .iter()
            .filter(|line| line["what"] == "topic" && line["is"].is_null())
            .count(),
        Topic::ALL.len() - 1
    );
    // Only shown.
    let described = lines(&command(&kafka, &["topics", "describe", "--json"]).stdout);
    assert_eq!(described.iter().filter(|line| line["exists"] == true).count(), 1);

    let apply = command(
        &kafka,
        &[
            "topics",
            "apply",
            "--retention",
            "tasks=30d",
            "--partitions",
            "plates=6",
        ],
    );
    assert_eq!(apply.status.code(), Some(0), "{}", text(&apply.stderr));
    assert!(text(&apply.stdout).contains("partitions is 2, wanted 32"));
    let again = [
        "topics",
        "diff",
        "--retention",
        "tasks=30d",
        "--partitions",
        "plates=6",
    ];
    let diff = command(&kafka, &again);
    assert_eq!(diff.status.code(), Some(0), "{}", text(&diff.stdout));

    let admin = Admin::open(&kafka).unwrap();
    let is = broker
        .runtime
        .block_on(admin.describe(Topic::Tasks))
        .unwrap()
        .unwrap();
    assert_eq!((is.partitions, is.records), (32, 0));
    assert_eq!(is.own_settings["retention.ms"], "2592000000");
    assert_eq!(
        is.own_settings["max.message.bytes"], "5000000",
        "an operator's own setting stays"
    );
    let is = broker
        .runtime
        .block_on(admin.describe(Topic::Plates))
        .unwrap()
        .unwrap();
    assert_eq!(is.partitions, 6);

    // A value that no broker takes: librdkafka says yes to it.
    let mut impossible = Wanted::usual(Topic::Tasks);
    impossible.settings.insert("retention.ms", "soon".to_owned());
    let refused = broker
        .runtime
        .block_on(admin.apply(&impossible))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&tasks) && refused.contains("retention.ms"),
        "{refused}"
    );

    publish(
        &kafka,
        &[
            features_record(&features("r", "P", 1)),
            features_record(&features("r", "P", 2)),
        ],
    );
    let read = lines(&command(&kafka, &["topics", "read", "features"]).stdout);
    assert_eq!(
        read.iter()
            .map(|line| line["value"]["field"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let from = format!("{}:{}", read[1]["partition"], read[1]["offset"]);
    let read = lines(&command(&kafka, &["topics", "read", "features", "--from", &from]).stdout);
    assert_eq!(read.len(), 1);
    assert_eq!(read[0]["value"]["embedding"], "AACAPw==");
    let described = lines(&command(&kafka, &["topics", "describe", "--json"]).stdout);
    let features = described.iter().find(|line| line["topic"] == "features").unwrap();
    assert_eq!(
        (&features["schema"], &features["partitions"]),
        (&2.into(), &8.into())
    );
    assert!(features["records"].as_i64().unwrap() >= 2);
    let table = command(&kafka, &["topics", "describe"]);
    assert!(text(&table.stdout).contains("30 d"), "{}", text(&table.stdout));
}

#[test]
fn topics_are_compared_created_and_altered() {
    topics(&Broker::embedded());
}

#[test]
fn on_apache_kafka_too_topics_are_compared_created_and_altered() {
    if let Some(kafka) = Broker::apache() {
        topics(&kafka);
    }
}

fn backlogs(broker: &Broker) {
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let backlog = Backlog::open(&kafka, Topic::Tasks, "worker").unwrap();
    let mut reached = Reached::default();
    let mut look = || backlog.since(&mut reached, |_| {}).unwrap();
    assert_eq!(look(), Standing::default());
    for (partition, records) in [(3, 5), (7, 2)] {
        let record = |i: usize| OutRecord {
            partition: Some(partition),
            ..OutRecord::of_bytes(
                Topic::Tasks,
                "P/A01",
                format!("{partition}/{i}"),
                "test",
                Vec::new(),
            )
        };
        publish(&kafka, &(0..records).map(record).collect::<Vec<_>>());
    }
    // Three of the five are answered.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .set("group.id", kafka.group("worker"))
        .create()
        .unwrap();
    let mut answered = TopicPartitionList::new();
    let name = Topic::Tasks.name(&kafka.prefix);
    answered
        .add_partition_offset(&name, 3, Offset::Offset(3))
        .unwrap();
    consumer.commit(&answered, CommitMode::Sync).unwrap();
    let partitions = backlog.partitions().unwrap();
    assert_eq!(partitions.len(), 32);
    let standing = |answered, waiting| Standing { answered, waiting };
    assert_eq!((partitions[&3], partitions[&7]), (standing(3, 2), standing(0, 2)));
    // Since the look before: without the markers that end transactions.
    assert_eq!(look(), standing(3, 4));
    assert_eq!(look(), standing(0, 4));
}

#[test]
fn a_backlog_is_what_is_not_answered_in_every_partition() {
    backlogs(&Broker::embedded());
}

#[test]
fn on_apache_kafka_too_a_backlog_is_what_is_not_answered_in_every_partition() {
    if let Some(kafka) = Broker::apache() {
        backlogs(&kafka);
    }
}
