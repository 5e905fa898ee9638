//! Faults, and what is left after them: processes that die at every edge between two steps, stores that come back,
//! events nobody can read. Each counts records at the end: none lost, none twice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod fleet;
mod imaging;
mod outside;
mod records;
mod reruns;
mod steering;
mod store;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use common::{models, run_json, start_broker, wellspring};
use serde_json::Value;
use wellspring::kafka::tail::{Tail, TailRecord};
use wellspring::kafka::topics::Topic;
use wellspring::kafka::{KafkaFailure, KafkaSettings};

/// Every edge, and what it lets pass before it kills.
const EDGES: [(&str, &str); 18] = [
    ("planner.read", "return"),
    ("planner.plan", "return"),
    ("planner.sent", "return"),
    ("planner.committed", "return"),
    ("worker.read", "9*off->return"),
    ("worker.fetch", "9*off->return"),
    ("worker.decode", "9*off->return"),
    ("worker.preprocess", "9*off->return"),
    ("worker.quality", "9*off->return"),
    ("worker.embed", "9*off->return"),
    ("worker.sent", "return"),
    ("worker.committed", "return"),
    ("collector.collect", "5*off->return"),
    ("collector.compare", "return"),
    // The plate's profiles, and then the comparisons.
    ("collector.sent", "return"),
    ("collector.committed", "return"),
    ("collector.committed", "1*off->return"),
    ("collector.finish", "return"),
];

/// Fields of [`few_wells`].
const FIELDS: u64 = 24;

#[test]
fn a_process_killed_at_any_edge_loses_nothing_and_repeats_nothing() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let edges = Mutex::new(EDGES.iter().enumerate());
    std::thread::scope(|scope| {
        // What dies is missed by its group for some seconds; several wait at once.
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((number, (edge, action))) = edges.lock().unwrap().next() else {
                        return;
                    };
                    let prefix = format!("edge-{number}");
                    let run = || run(&models, folder.path(), &bootstrap, &prefix);
                    let killed = run()
                        .env("FAILPOINTS", format!("{edge}={action}"))
                        .output()
                        .unwrap();
                    assert_eq!(
                        killed.status.signal(),
                        Some(libc::SIGABRT),
                        "{edge}: {}",
                        String::from_utf8_lossy(&killed.stderr)
                    );
                    let (code, summary) = run_json(&mut run());
                    assert_eq!(
                        (code, &summary["fields_done"]),
                        (0, &Value::from(FIELDS)),
                        "{edge}: {summary}"
                    );
                    assert_eq!(
                        (&summary["lost"], &summary["dead_letters"]),
                        (&Value::from(0), &Value::from(0)),
                        "{edge}"
                    );
                    let kafka = KafkaSettings::new(&bootstrap, &prefix, "test");
                    for topic in [Topic::Tasks, Topic::Features, Topic::Profiles] {
                        assert_each_once(&kafka, topic, FIELDS);
                    }
                    let finished = records(&kafka, Topic::Status)
                        .iter()
                        .filter(|status| json(status)["status"] == "run_finished")
                        .count();
                    assert_eq!(finished, 1, "{edge}");
                }
            });
        }
    });
}

/// A run of the plate in `folder` under `prefix`, with its results in a folder of that name.
fn run(models: &Path, folder: &Path, bootstrap: &str, prefix: &str) -> Command {
    let mut command = wellspring(models);
    command.arg("run").arg(folder.join("plates/screen.toml"));
    command.args(["--json", "--kafka", bootstrap, "--prefix", prefix, "--out"]);
    command.arg(folder.join(prefix));
    command
}

/// As [`common::few_wells`], of one channel.
fn few_wells(folder: &Path) {
    common::few_wells(folder, "\"DNA\"");
}

/// All committed records of a topic.
fn records(kafka: &KafkaSettings, topic: Topic) -> Vec<TailRecord> {
    let mut tail = Tail::open(kafka, &[topic]).unwrap();
    let mut records = Vec::new();
    let read = tail.read_to_end(common::PATIENCE, |record| -> Result<_, KafkaFailure> {
        records.push(record.clone());
        Ok(ControlFlow::Continue(()))
    });
    read.unwrap();
    records
}

fn json(record: &TailRecord) -> Value {
    let json = record.schemas.to_json(record.topic, &record.value).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// Asserts that so many fields are in a topic, each once.
fn assert_each_once(kafka: &KafkaSettings, topic: Topic, fields: u64) {
    let records = records(kafka, topic);
    let counts = by_subject(&records);
    let places: Vec<_> = records
        .iter()
        .filter(|record| {
            by_subject(std::slice::from_ref(record))
                .keys()
                .any(|of| counts[of] > 1)
        })
        .map(|record| (record.partition, record.offset, record.time_ms, &record.id))
        .collect();
    assert!(
        counts.len() as u64 == fields && places.is_empty(),
        "{}, {topic:?}: {} of {fields} fields, more than once: {places:?}",
        kafka.prefix,
        counts.len()
    );
}

/// How often each well and field occurs.
fn by_subject(records: &[TailRecord]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        let value = json(record);
        let subject = format!("{} {} {}", value["plate"], value["well"], value["field"]);
        *counts.entry(subject).or_default() += 1;
    }
    counts
}
