//! Faults that strike a fleet from outside, and the operator who deals with what is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::tail::{Polled, Tail};
use wellspring::kafka::topics::Topic;

use crate::common::{
    Running, comes, models, simulate, small_plate, start_broker, start_broker_at, wait_for, wellspring,
};
use crate::{FIELDS, by_subject, few_wells, records};

/// `serve` and a worker on a broker of their own, for faults that strike from outside.
pub(crate) struct Fleet<'a> {
    pub(crate) models: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) kafka: KafkaSettings,
}

/// Fails where one of the processes has ended.
pub(crate) fn still_run<const N: usize>(processes: [&mut Running; N], otherwise: &str) {
    for process in processes {
        assert!(process.0.try_wait().unwrap().is_none(), "{otherwise}");
    }
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(models: &'a Path, folder: &'a Path, bootstrap: impl Into<String>) -> Self {
        Self {
            models,
            folder,
            kafka: KafkaSettings::new(bootstrap, "wellspring", "test"),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = wellspring(self.models);
        command.args(arguments).arg("--kafka").arg(&self.kafka.bootstrap);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log());
        command.stdout(Stdio::null()).stderr(log.unwrap());
        command
    }

    /// What all processes have said.
    fn log(&self) -> PathBuf {
        self.folder.join("fleet.log")
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running(self.command(arguments).spawn().unwrap())
    }

    pub(crate) fn serve(&self) -> Running {
        let results = self.folder.join("results");
        self.start(&["serve", "--no-worker", "--out", results.to_str().unwrap()])
    }

    pub(crate) fn submit(&self) {
        let screen = self.folder.join("plates/screen.toml");
        let submitted = self.command(&["submit", screen.to_str().unwrap()]).status();
        assert!(submitted.unwrap().success());
    }

    /// The summary of the only run, once it is there.
    pub(crate) fn summary(&self) -> Option<Value> {
        let run = std::fs::read_dir(self.folder.join("results"))
            .ok()?
            .next()?
            .ok()?;
        serde_json::from_slice(&std::fs::read(run.path().join("run.json")).ok()?).ok()
    }

    /// Where they do not come, the test tells what the processes said.
    pub(crate) fn wait_for_fields(&self, done: u64) {
        let came = comes(|| {
            self.summary()
                .is_some_and(|summary| summary["fields_done"] == done)
        });
        assert!(
            came,
            "{done} fields did not come; the processes said:\n{}",
            self.said()
        );
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn wait_for_a_feature(&self) {
        let mut tail = Tail::open(&self.kafka, &[Topic::Features]).unwrap();
        wait_for("the first features", || {
            matches!(tail.poll(Duration::from_millis(50)).unwrap(), Polled::Record(_))
        });
    }

    pub(crate) fn assert_every_feature_once(&self, fields: usize) {
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
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
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
    // Dealt with before: nothing is done, and no fault.
    assert_eq!(letters(&["retry", id]), (Some(0), Vec::new()));
    assert_eq!(letters(&["retry", "00000000"]), (Some(1), Vec::new()));
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
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    fleet.submit();
    let mut serve = fleet.serve();
    let mut worker = fleet.start(&["worker"]);
    fleet.wait_for_a_feature();
    // kill -9, and again under the same address.
    drop(broker);
    let _broker = start_broker_at(&models, &data, &bootstrap);
    fleet.wait_for_fields(96);
    still_run([&mut serve, &mut worker], "a process ended with its broker");
    fleet.assert_every_feature_once(96);
}

#[test]
fn a_worker_that_wakes_after_its_partitions_moved_repeats_nothing() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
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
