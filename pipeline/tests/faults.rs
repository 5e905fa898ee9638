//! Faults, and what is left after them: processes that die at every edge between two steps, stores that come back,
//! events nobody can read. Each counts records at the end: none lost, none twice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use common::{
    Running, dead_letters, models, run_json, simulate, small_plate, start_broker, start_broker_at, wait_for,
    wellspring,
};
use serde_json::Value;
use wellspring::kafka::producer::{BatchProducer, Committed};
use wellspring::kafka::tail::{Polled, Tail, TailRecord};
use wellspring::kafka::topics::{Topic, create_missing};
use wellspring::kafka::{KafkaSettings, OutRecord};

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
                        let counts = by_subject(&records(&kafka, topic));
                        let twice = counts.values().filter(|count| **count > 1).count();
                        assert_eq!((counts.len(), twice), (FIELDS as usize, 0), "{edge}, {topic:?}");
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

#[test]
fn a_field_that_kills_the_process_becomes_a_dead_letter_and_the_rest_of_the_plate_is_done() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let mut deaths = 0;
    let summary = loop {
        let ended = run(&models, folder.path(), &bootstrap, "poison")
            .env("FAILPOINTS", "worker.decode@SMALL0001/A02/1=return")
            .output()
            .unwrap();
        if ended.status.signal() != Some(libc::SIGABRT) {
            assert_eq!(ended.status.code(), Some(1));
            break serde_json::from_slice::<Value>(&ended.stdout).unwrap();
        }
        deaths += 1;
        assert!(deaths < 6, "the field kills for ever");
    };
    assert_eq!(deaths, 4);
    assert_eq!(
        (
            &summary["fields_done"],
            &summary["fields_failed"],
            &summary["lost"]
        ),
        (&Value::from(FIELDS - 1), &Value::from(1), &Value::from(0))
    );
    let letters = dead_letters(&folder.path().join("poison"));
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0]["class"], &letters[0]["well"]),
        (&"poison".into(), &"A02".into())
    );
    let counts = by_subject(&records(
        &KafkaSettings::new(&bootstrap, "poison", "test"),
        Topic::Features,
    ));
    assert!(counts.len() as u64 == FIELDS - 1 && counts.values().all(|count| *count == 1));
}

#[test]
fn a_failure_that_passes_is_tried_again_and_leaves_no_trace() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let faults =
        "worker.fetch@SMALL0001/A02/1=2*return(network);worker.embed@SMALL0001/B03/1=1*return(out_of_memory)";
    let mut command = run(&models, folder.path(), &bootstrap, "passing");
    command.env("FAILPOINTS", faults).args(["--retry-delays", "0,0"]);
    let (code, summary) = run_json(&mut command);
    assert_eq!(
        (code, &summary["fields_done"]),
        (0, &Value::from(FIELDS)),
        "{summary}"
    );
    let kafka = KafkaSettings::new(&bootstrap, "passing", "test");
    assert_eq!(records(&kafka, Topic::Retries).len(), 3);
    let counts = by_subject(&records(&kafka, Topic::Features));
    assert!(counts.len() as u64 == FIELDS && counts.values().all(|count| *count == 1));
}

#[test]
fn at_least_once_a_crash_repeats_records_under_the_same_ids_and_the_results_are_the_same() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let start = || {
        let mut command = run(&models, folder.path(), &bootstrap, "repeated");
        command.args(["--delivery", "at-least-once"]);
        command
    };
    // The features are at the broker, the offsets they answer are not.
    let killed = start().env("FAILPOINTS", "worker.sent=return").output().unwrap();
    assert_eq!(killed.status.signal(), Some(libc::SIGABRT));
    let (code, summary) = run_json(&mut start());
    assert_eq!(
        (code, &summary["fields_done"], &summary["lost"]),
        (0, &Value::from(FIELDS), &Value::from(0))
    );
    let features = records(
        &KafkaSettings::new(&bootstrap, "repeated", "test"),
        Topic::Features,
    );
    assert!(
        features.len() as u64 > FIELDS,
        "nothing was repeated, so nothing is shown"
    );
    let ids: BTreeSet<&str> = features.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids.len() as u64, FIELDS);
    assert_eq!(by_subject(&features).len() as u64, FIELDS);
}

#[test]
fn events_nobody_can_read_are_dead_letters_and_a_plate_announced_thrice_is_planned_once() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let kafka = KafkaSettings::new(&bootstrap, "events", "test");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(create_missing(&kafka)).unwrap();
    let mut huge = b"{\"plate\":\"SMALL0001\",\"more\":\"".to_vec();
    // The largest that a producer of ours sends and the broker takes; cut short, so that it ends in the middle.
    huge.resize(15 << 20, b'x');
    let unreadable: Vec<Vec<u8>> = vec![
        b"\xff\xfe\x00plate".to_vec(),
        b"{\"run\":\"events\"}".to_vec(),
        b"{\"plate\":17}".to_vec(),
        b"[1,2,3]".to_vec(),
        Vec::new(),
        huge,
    ];
    let mut events: Vec<Vec<u8>> = unreadable.clone();
    // From the future, of a newer version: it says which plate, and that is all that is needed.
    events.push(
        b"{\"plate\":\"SMALL0001\",\"version\":99,\"time\":\"2999-01-01T00:00:00Z\",\"new\":{\"a\":[1]}}"
            .to_vec(),
    );
    for (number, event) in events.into_iter().enumerate() {
        let id = format!("event {number}");
        let record = OutRecord::of_bytes(Topic::Plates, "SMALL0001", id, "wellspring.plate-ready.v1", event);
        let producer = BatchProducer::open(&kafka, "test").unwrap();
        assert_eq!(producer.publish([&record]).unwrap(), Committed::Yes);
    }
    let (code, summary) = run_json(&mut run(&models, folder.path(), &bootstrap, "events"));
    assert_eq!(
        (code, &summary["fields_done"]),
        (1, &Value::from(FIELDS)),
        "{summary}"
    );
    let letters = dead_letters(&folder.path().join("events"));
    assert_eq!(letters.len(), unreadable.len());
    assert!(
        letters.iter().all(|letter| letter["class"] == "bad_event"),
        "{letters:?}"
    );
    let sizes: BTreeSet<u64> = letters
        .iter()
        .filter_map(|l| l["original_bytes"].as_u64())
        .collect();
    assert!(sizes.contains(&(15 << 20)), "{sizes:?}");
    // Announced twice more after it is done, by the command.
    let announced = wellspring(&models)
        .args([
            "plates",
            "announce",
            "SMALL0001",
            "SMALL0001",
            "--prefix",
            "events",
            "--kafka",
            &bootstrap,
        ])
        .status();
    assert!(announced.unwrap().success());
    let (code, _) = run_json(&mut run(&models, folder.path(), &bootstrap, "events"));
    assert_eq!(code, 1);
    for topic in [Topic::Tasks, Topic::Features] {
        let counts = by_subject(&records(&kafka, topic));
        assert!(
            counts.len() as u64 == FIELDS && counts.values().all(|count| *count == 1),
            "{topic:?}"
        );
    }
}

/// `serve` and a worker on a broker of their own, for faults that strike from outside.
struct Fleet<'a> {
    models: &'a Path,
    folder: &'a Path,
    kafka: KafkaSettings,
}

impl Fleet<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = wellspring(self.models);
        command.args(arguments).arg("--kafka").arg(&self.kafka.bootstrap);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running(self.command(arguments).spawn().unwrap())
    }

    fn serve(&self) -> Running {
        let results = self.folder.join("results");
        self.start(&["serve", "--no-worker", "--out", results.to_str().unwrap()])
    }

    fn submit(&self) {
        let screen = self.folder.join("plates/screen.toml");
        let submitted = self.command(&["submit", screen.to_str().unwrap()]).status();
        assert!(submitted.unwrap().success());
    }

    /// The summary of the only run, once it is there.
    fn summary(&self) -> Option<Value> {
        let run = std::fs::read_dir(self.folder.join("results"))
            .ok()?
            .next()?
            .ok()?;
        serde_json::from_slice(&std::fs::read(run.path().join("run.json")).ok()?).ok()
    }

    fn wait_for_fields(&self, done: u64) {
        wait_for("the results", || {
            self.summary()
                .is_some_and(|summary| summary["fields_done"] == done)
        });
    }

    fn wait_for_a_feature(&self) {
        let mut tail = Tail::open(&self.kafka, &[Topic::Features]).unwrap();
        wait_for("the first features", || {
            matches!(tail.poll(Duration::from_millis(50)).unwrap(), Polled::Record(_))
        });
    }

    fn assert_every_feature_once(&self, fields: usize) {
        let counts = by_subject(&records(&self.kafka, Topic::Features));
        let twice = counts.values().filter(|count| **count > 1).count();
        assert_eq!((counts.len(), twice), (fields, 0));
    }
}

#[test]
fn dead_letters_are_listed_and_tried_again_once_and_the_results_are_made_anew() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet {
        models: &models,
        folder: folder.path(),
        kafka: KafkaSettings::new(&bootstrap, "wellspring", "test"),
    };
    fleet.submit();
    let _serve = fleet.serve();
    let faults =
        "worker.fetch@SMALL0001/A02/1=return(network);worker.decode@SMALL0001/B03/1=return(bad_image)";
    let mut worker = Running(
        fleet
            .command(&["worker", "--retry-delays", "none"])
            .env("FAILPOINTS", faults)
            .spawn()
            .unwrap(),
    );
    fleet.wait_for_fields(FIELDS - 2);
    kill("-TERM", worker.0.id());
    assert!(worker.0.wait().unwrap().success());

    let letters = |arguments: &[&str]| -> (Option<i32>, Vec<Value>) {
        let mut command = fleet.command(&[&["dead-letters"], arguments].concat());
        let output = command.arg("--json").stdout(Stdio::piped()).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let parsed = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        (output.status.code(), parsed.collect())
    };
    let (_, listed) = letters(&["list"]);
    assert_eq!(listed.len(), 2);
    let (_, network) = letters(&[
        "list",
        "--class",
        "network",
        "--plate",
        "SMALL0001",
        "--well",
        "A02",
    ]);
    assert_eq!((network.len(), &network[0]["attempt"]), (1, &Value::from(1)));
    assert!(letters(&["list", "--since", "2999-01-01"]).1.is_empty());
    let id = network[0]["id"].as_str().unwrap();
    assert_eq!(letters(&["show", &id[..10]]).1.len(), 1);
    assert_eq!(
        letters(&["retry"]).0,
        Some(2),
        "without a filter nothing is tried again"
    );
    assert_eq!(letters(&["retry", "--class", "model"]).1.len(), 0);
    assert_eq!(letters(&["retry", "--class", "network", "--dry-run"]).1.len(), 1);

    // Several operators at once: each letter is tried again by one of them.
    let mut operators: Vec<_> = (0..3)
        .map(|_| fleet.start(&["dead-letters", "retry", "--class", "network"]))
        .collect();
    for operator in &mut operators {
        operator.0.wait().unwrap();
    }
    letters(&["retry", "--class", "network"]);
    let tasks = by_subject(&records(&fleet.kafka, Topic::Tasks));
    assert_eq!(
        (tasks.len() as u64, tasks.values().sum::<usize>() as u64),
        (FIELDS, FIELDS + 1)
    );

    // The run is open again; a worker without the fault does the field.
    let _worker = fleet.start(&["worker"]);
    fleet.wait_for_fields(FIELDS - 1);
    assert_eq!(letters(&["list"]).1.len(), 1);
    assert_eq!(letters(&["discard", "--class", "bad_image"]).1.len(), 1);
    assert!(letters(&["list"]).1.is_empty());
    assert_eq!(letters(&["list", "--all"]).1.len(), 2);
    fleet.assert_every_feature_once(FIELDS as usize - 1);
    assert_eq!(fleet.summary().unwrap()["dead_letters"], 1);
}

#[test]
fn a_broker_killed_under_a_fleet_and_started_again_loses_and_repeats_nothing() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(
        folder.path(),
        &small_plate("\"DNA\"").replace("fields = 2", "fields = 1"),
    );
    let data = folder.path().join("broker");
    let (broker, bootstrap) = start_broker(&models, &data);
    let fleet = Fleet {
        models: &models,
        folder: folder.path(),
        kafka: KafkaSettings::new(&bootstrap, "wellspring", "test"),
    };
    fleet.submit();
    let mut serve = fleet.serve();
    let mut worker = fleet.start(&["worker"]);
    fleet.wait_for_a_feature();
    // kill -9, and again under the same address.
    drop(broker);
    let _broker = start_broker_at(&models, &data, &bootstrap);
    fleet.wait_for_fields(96);
    for process in [&mut serve, &mut worker] {
        assert!(
            process.0.try_wait().unwrap().is_none(),
            "a process ended with its broker"
        );
    }
    fleet.assert_every_feature_once(96);
}

#[test]
fn a_worker_that_wakes_after_its_partitions_moved_repeats_nothing() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet {
        models: &models,
        folder: folder.path(),
        kafka: KafkaSettings::new(&bootstrap, "wellspring", "test"),
    };
    fleet.submit();
    let _serve = fleet.serve();
    let mut zombie = fleet.start(&["worker"]);
    fleet.wait_for_a_feature();
    kill("-STOP", zombie.0.id());
    let _other = fleet.start(&["worker"]);
    fleet.wait_for_fields(192);
    // It finishes what it had in work, for partitions that are others' now.
    kill("-CONT", zombie.0.id());
    kill("-TERM", zombie.0.id());
    assert!(zombie.0.wait().unwrap().success());
    fleet.assert_every_feature_once(192);
}

fn kill(signal: &str, process: u32) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// A run of the plate in `folder` under `prefix`, with its results in a folder of that name.
fn run(models: &Path, folder: &Path, bootstrap: &str, prefix: &str) -> Command {
    let mut command = wellspring(models);
    command.arg("run").arg(folder.join("plates/screen.toml"));
    command.args(["--json", "--kafka", bootstrap, "--prefix", prefix, "--out"]);
    command.arg(folder.join(prefix));
    command
}

/// One plate of 24 wells with one field each, both controls among them: quick to run.
fn few_wells(folder: &Path) {
    simulate(
        folder,
        &small_plate("\"DNA\"").replace("fields = 2", "fields = 1"),
    );
    let plates = folder.join("plates");
    let map = plates.join("platemap.csv");
    let rows = std::fs::read_to_string(&map).unwrap();
    let kept = |well: &str| ["01", "02", "03"].contains(&&well[1..]);
    let few: Vec<&str> = rows
        .lines()
        .filter(|row| row.starts_with("plate,") || row.split(',').nth(1).is_some_and(kept))
        .collect();
    std::fs::write(&map, few.join("\n")).unwrap();
    for image in std::fs::read_dir(plates.join("images/SMALL0001")).unwrap() {
        let image = image.unwrap();
        let name = image.file_name().into_string().unwrap();
        if !name.split('_').nth(1).is_some_and(kept) {
            std::fs::remove_file(image.path()).unwrap();
        }
    }
}

/// All committed records of a topic.
fn records(kafka: &KafkaSettings, topic: Topic) -> Vec<TailRecord> {
    let mut tail = Tail::open(kafka, &[topic]).unwrap();
    let (mut records, mut ended) = (Vec::new(), 0);
    while ended < tail.partitions() {
        match tail.poll(common::PATIENCE).unwrap() {
            Polled::Record(record) => records.push(record),
            Polled::AtEnd => ended += 1,
            Polled::Nothing => panic!("nothing is heard of {topic:?}"),
        }
    }
    records
}

fn json(record: &TailRecord) -> Value {
    serde_json::from_slice(&record.value).unwrap()
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
