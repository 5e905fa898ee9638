//! Retention and compaction: what should go goes, what should stay stays.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::Message;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::support::*;

const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

/// A topic and a sender of keyed records, each call one batch of one record.
struct Keyed<'a> {
    kafka: &'a Kafka,
    topic: String,
}

impl<'a> Keyed<'a> {
    fn new(kafka: &'a Kafka, name: &str, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("segment.ms", "60000"),
        ];
        all.extend_from_slice(settings);
        Self {
            kafka,
            topic: kafka.topic(name, 1, &all),
        }
    }

    fn put(&self, producer: &FutureProducer, key: &str, value: Option<&str>) {
        self.put_at(producer, key, value, now_ms());
    }

    fn put_at(&self, producer: &FutureProducer, key: &str, value: Option<&str>, ms: i64) {
        let mut record = FutureRecord::to(&self.topic).partition(0).key(key).timestamp(ms);
        record.payload = value;
        self.kafka.try_put(producer, record).unwrap();
    }

    /// A record so far ahead of those before it that it begins a new segment; compaction leaves that one alone.
    fn roll(&self, producer: &FutureProducer, minutes: i64) {
        self.put_at(producer, "roll", Some("roll"), now_ms() + minutes * 60_000);
    }

    /// Offset, key and value of what is there, without the records that only roll segments.
    fn found(&self) -> Vec<(i64, String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let found = self.kafka.records(&self.topic, 0, "read_committed");
        let found = found.iter().map(|m| {
            let key = text(m.key().unwrap_or_default());
            (m.offset(), key, m.payload().map(text))
        });
        found.filter(|(_, key, _)| key != "roll").collect()
    }

    fn wait_for(&self, expected: &[(i64, &str, Option<&str>)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(offset, key, value)| (*offset, (*key).to_owned(), value.map(str::to_owned)))
            .collect();
        let mut last = Vec::new();
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            last = self.found();
            if last == expected {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(last, expected);
    }
}

pub(crate) fn records_past_their_time_are_removed(kafka: &Kafka) {
    let settings = [("retention.ms", "1800000"), ("segment.ms", "60000")];
    let topic = kafka.topic("t", 1, &settings);
    let producer = kafka.producer(&[]);
    let put = |value: &str, ms: i64| {
        let record = FutureRecord::<(), str>::to(&topic).payload(value).timestamp(ms);
        kafka.try_put(&producer, record).unwrap();
    };
    put("old", now_ms() - HOUR_MS);
    put("old too", now_ms() - HOUR_MS);
    put("young", now_ms());
    wait_until("the old segment is gone", || {
        kafka.watermarks(&topic, 0) == (2, 3)
    });
    assert_eq!(kafka.committed(&topic, 0), ["young"]);
    // The last segment goes too, and offsets go on.
    let all_old = kafka.topic("all-old", 1, &settings);
    let record = FutureRecord::<(), str>::to(&all_old)
        .payload("old")
        .timestamp(now_ms() - HOUR_MS);
    kafka.try_put(&producer, record).unwrap();
    wait_until("nothing is left", || kafka.watermarks(&all_old, 0) == (1, 1));
    assert_eq!(kafka.put(&producer, &all_old, 0, "young"), 1);
    assert_eq!(kafka.committed(&all_old, 0), ["young"]);
}

pub(crate) fn records_beyond_the_size_are_removed(kafka: &Kafka) {
    let settings = [("retention.bytes", "2500000"), ("segment.bytes", "1048576")];
    let topic = kafka.topic("t", 1, &settings);
    let producer = kafka.producer(&[("linger.ms", "0")]);
    let value = "x".repeat(500_000);
    // Two of them fill a segment: five segments, of which the last two and a part of a third would do.
    for _ in 0..10 {
        kafka.put(&producer, &topic, 0, &value);
    }
    wait_until("the two oldest segments are gone", || {
        kafka.watermarks(&topic, 0) == (4, 10)
    });
    assert_eq!(kafka.committed(&topic, 0).len(), 6);
}

pub(crate) fn settings_changed_later_act(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[("retention.ms", "-1")]);
    let producer = kafka.producer(&[]);
    let record = FutureRecord::<(), str>::to(&topic)
        .payload("old")
        .timestamp(now_ms() - HOUR_MS);
    kafka.try_put(&producer, record).unwrap();
    assert_eq!(kafka.watermarks(&topic, 0), (0, 1));
    crate::topics::alter(kafka, &topic, &[("retention.ms", "1800000")]);
    wait_until("the record is gone", || kafka.watermarks(&topic, 0) == (1, 1));
}

pub(crate) fn the_last_record_of_each_key_stays(kafka: &Kafka) {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let states = Keyed::new(kafka, codec, &[]);
        let settings = [("compression.type", codec), ("linger.ms", "100")];
        let producer = kafka.producer(&settings);
        let value = format!("{codec} ").repeat(100);
        let keys = ["a", "b", "a", "c", "b", "d"];
        let record = |key: &'static str| FutureRecord::to(&states.topic).key(key).payload(value.as_str());
        kafka.put_all(&producer, keys.into_iter().map(record));
        states.put(&producer, "d", None);
        states.roll(&producer, 5);
        let value = Some(value.as_str());
        states.wait_for(&[(2, "a", value), (3, "c", value), (4, "b", value), (6, "d", None)]);
        // What is in the segment being written may well be superseded; it still is there.
        states.put(&producer, "a", Some("new"));
        let expected = [
            (2, "a", value),
            (3, "c", value),
            (4, "b", value),
            (6, "d", None),
            (8, "a", Some("new")),
        ];
        states.wait_for(&expected);
    }
}

pub(crate) fn tombstones_go_in_the_end(kafka: &Kafka) {
    let states = Keyed::new(kafka, "states", &[("delete.retention.ms", "0")]);
    let producer = kafka.producer(&[]);
    states.put(&producer, "a", Some("1"));
    states.put(&producer, "b", Some("1"));
    states.put(&producer, "a", None);
    for minutes in (5..55).step_by(5) {
        states.roll(&producer, minutes);
        wait_until("the value is gone", || states.found().len() < 3);
        if states.found().len() == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    states.wait_for(&[(1, "b", Some("1"))]);
}

pub(crate) fn aborted_records_supersede_nothing(kafka: &Kafka) {
    let states = Keyed::new(kafka, "states", &[]);
    let producer = kafka.transactional("p", 60_000);
    let transaction = |commit: bool, records: &[(&str, &str)]| {
        producer.begin_transaction().unwrap();
        for (key, value) in records {
            states.put(&producer, key, Some(value));
        }
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    };
    transaction(true, &[("a", "1"), ("b", "1")]); // offsets 0 and 1, the marker 2
    transaction(true, &[("a", "2")]); // 3, 4
    transaction(false, &[("a", "never"), ("b", "never")]); // 5, 6, 7
    transaction(true, &[("c", "1")]); // 8, 9
    let plain = kafka.producer(&[]);
    states.roll(&plain, 5);
    let expected = [(1, "b", Some("1")), (3, "a", Some("2")), (8, "c", Some("1"))];
    wait_until("superseded and aborted records are gone", || {
        let all = kafka.records(&states.topic, 0, "read_uncommitted");
        let offsets: Vec<i64> = all.iter().map(Message::offset).collect();
        offsets == [1, 3, 8, 10]
    });
    states.wait_for(&expected);
    // The producer goes on where it was.
    transaction(true, &[("b", "2")]);
    let more = [(11, "b", Some("2"))];
    states.wait_for(&[&expected[..], &more[..]].concat());
}

pub(crate) fn compacted_topics_take_no_records_without_a_key(kafka: &Kafka) {
    let states = Keyed::new(kafka, "states", &[]);
    for codec in ["none", "lz4"] {
        let producer = kafka.producer(&[("compression.type", codec)]);
        let record = FutureRecord::<(), str>::to(&states.topic).payload("no key");
        let refused = kafka.try_put(&producer, record);
        assert_eq!(refused, Err(Code::InvalidRecord), "{codec}");
    }
}
