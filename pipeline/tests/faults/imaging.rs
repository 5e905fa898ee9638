//! Plates that are still being imaged: what is there is worked on at once, each field once, however often and in whatever order
//! it is told of, and whoever dies in between.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use wellspring::kafka::backlog::{Backlog, Reached};
use wellspring::kafka::producer::{BatchProducer, Committed};
use wellspring::kafka::topics::Topic;
use wellspring::kafka::{KafkaSettings, OutRecord};

use crate::common::{dead_letters, models, run_json, start_broker, wait_for};
use crate::fleet::Fleet;
use crate::{FIELDS, by_subject, few_wells, json, records};

const PLATE: &str = "SMALL0001";

/// A plate whose images are not there yet, and its microscope.
struct Microscope {
    plate: PathBuf,
    to_come: Vec<PathBuf>,
}

impl Microscope {
    /// Takes all images out of the store again.
    fn before(folder: &Path) -> Self {
        let plate = folder.join("plates/images").join(PLATE);
        let aside = folder.join("to-come");
        std::fs::create_dir_all(&aside).unwrap();
        let mut to_come = Vec::new();
        for image in std::fs::read_dir(&plate).unwrap() {
            let image = image.unwrap();
            let place = aside.join(image.file_name());
            std::fs::rename(image.path(), &place).unwrap();
            to_come.push(place);
        }
        to_come.sort();
        Self { plate, to_come }
    }

    /// Images so many fields; gives their wells.
    fn image(&mut self, fields: usize) -> Vec<String> {
        let imaged: Vec<PathBuf> = self.to_come.drain(..fields).collect();
        let well = |image: PathBuf| {
            let name = image.file_name().unwrap().to_str().unwrap().to_owned();
            std::fs::rename(&image, self.plate.join(&name)).unwrap();
            name.split('_').nth(1).unwrap().to_owned()
        };
        imaged.into_iter().map(well).collect()
    }
}

impl Fleet<'_> {
    fn announce(&self, more: &[&str]) {
        let screen = self.folder.join("plates/screen.toml");
        let plate = ["plates", "announce", PLATE, "--screen", screen.to_str().unwrap()];
        assert!(self.command(&[&plate, more].concat()).status().unwrap().success());
    }

    fn shown(&self) -> Value {
        let mut command = self.command(&["plates", "show", PLATE]);
        let output = command.stdout(Stdio::piped()).output().unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        shown["runs"]
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .clone()
    }

    fn wait_for_features(&self, fields: usize) {
        wait_for("features of a plate that is being imaged", || {
            by_subject(&records(&self.kafka, Topic::Features)).len() >= fields
        });
    }
}

/// Features by field, with their ids.
fn features(kafka: &KafkaSettings) -> BTreeMap<String, (String, Value)> {
    let of_field = |record: &wellspring::kafka::tail::TailRecord| {
        let value = json(record);
        (
            format!("{} {}", value["well"], value["field"]),
            (record.id.clone(), value),
        )
    };
    records(kafka, Topic::Features).iter().map(of_field).collect()
}

#[test]
fn a_plate_told_of_in_steps_has_the_features_of_one_told_of_at_once() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let (code, _) = run_json(&mut crate::run(&models, folder.path(), &bootstrap, "whole"));
    assert_eq!(code, 0);
    let whole = features(&KafkaSettings::new(&bootstrap, "whole", "test"));
    assert_eq!(whole.len() as u64, FIELDS);

    let mut microscope = Microscope::before(folder.path());
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let (_serve, _worker) = (fleet.serve(), fleet.start(&["worker"]));
    // Nothing is there yet, which is no failure.
    fleet.announce(&["--progress"]);
    let first = microscope.image(8).join(",");
    // One image has begun to come.
    let begun = microscope.plate.join(microscope.to_come[0].file_name().unwrap());
    std::fs::write(&begun, b"").unwrap();
    fleet.announce(&["--progress", "--expected-fields", "24"]);
    fleet.wait_for_features(8);
    let shown = fleet.shown();
    assert_eq!(
        (
            &shown["state"],
            &shown["fields_planned"],
            &shown["fields_expected"]
        ),
        (&"imaging".into(), &8.into(), &24.into())
    );
    std::fs::remove_file(begun).unwrap();
    let second = microscope.image(8).join(",");
    // Told of twice, and what was there before after what came later.
    fleet.announce(&["--progress", "--wells", &second]);
    fleet.announce(&["--progress", "--wells", &first, "--expected-fields", "20"]);
    fleet.announce(&["--progress", "--wells", &second]);
    fleet.wait_for_features(16);
    assert!(fleet.summary().is_none(), "the plate was not complete yet");
    microscope.image(8);
    fleet.announce(&["--progress"]);
    fleet.wait_for_fields(FIELDS);
    // All is done.
    fleet.announce(&["--progress"]);
    fleet.announce(&[]);

    assert_eq!(features(&fleet.kafka), whole);
    fleet.assert_every_feature_once(FIELDS as usize);
    let tasks = by_subject(&records(&fleet.kafka, Topic::Tasks));
    assert!(tasks.values().all(|count| *count == 1), "{tasks:?}");
    let summary = fleet.summary().unwrap();
    assert_eq!(
        (
            &summary["fields_failed"],
            &summary["dead_letters"],
            &summary["lost"]
        ),
        (&0.into(), &0.into(), &0.into())
    );
}

/// Clients that hash keys by another function, or send none, put events about one plate into other partitions.
#[test]
fn a_plate_told_of_in_every_partition_is_planned_once() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let mut microscope = Microscope::before(folder.path());
    let _serve = fleet.start(&["serve", "--no-worker"]);
    fleet.announce(&["--progress"]);
    wait_for("the run", || fleet.shown()["state"] == "imaging");

    let producer = BatchProducer::open(&fleet.kafka, "test").unwrap();
    let tell = |event: &Value| {
        let in_partition = |partition| OutRecord {
            partition: Some(partition),
            ..OutRecord::of_bytes(
                Topic::Plates,
                "",
                format!("{partition}"),
                "plate",
                event.to_string().into_bytes(),
            )
        };
        // As many as the topic is made with.
        let records: Vec<OutRecord> = (0..4).map(in_partition).collect();
        assert_eq!(producer.publish(&records).unwrap(), Committed::Yes);
    };
    let tasks = || by_subject(&records(&fleet.kafka, Topic::Tasks));
    let progress = serde_json::json!({"plate": PLATE, "progress": {}});
    for told in [8, 16] {
        microscope.image(8);
        tell(&progress);
        wait_for("tasks of the fields that are there", || tasks().len() == told);
    }
    microscope.image(8);
    tell(&serde_json::json!({"plate": PLATE}));
    wait_for("tasks of all fields", || tasks().len() as u64 == FIELDS);
    tell(&progress);
    let backlog = Backlog::open(&fleet.kafka, Topic::Plates, "planner").unwrap();
    wait_for("every event to be planned", || {
        backlog.since(&mut Reached::default(), |_| {}).unwrap().waiting == 0
    });
    let once = tasks();
    assert!(once.values().all(|count| *count == 1), "{once:?}");
    let planned = records(&fleet.kafka, Topic::Status);
    let planned = planned
        .iter()
        .filter(|status| json(status)["status"] == "plate_planned");
    assert_eq!(planned.count(), 1);
}

#[test]
fn a_deadline_ends_the_wait_and_names_what_never_came() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let mut microscope = Microscope::before(folder.path());
    microscope.image(21);
    let missing = microscope.to_come.len();
    let (_serve, _worker) = (fleet.serve(), fleet.start(&["worker"]));
    fleet.announce(&["--progress", "--deadline", "1s"]);
    fleet.wait_for_fields(21);
    let summary = fleet.summary().unwrap();
    assert_eq!(
        (
            &summary["fields_expected"],
            &summary["fields_failed"],
            &summary["lost"]
        ),
        (&FIELDS.into(), &missing.into(), &0.into())
    );
    let notes = summary["notes"].to_string();
    assert!(
        notes.contains("plate SMALL0001 was finished because its deadline passed"),
        "{notes}"
    );
    let out = std::fs::read_dir(folder.path().join("results")).unwrap().next();
    let letters = dead_letters(&out.unwrap().unwrap().path());
    let said: Vec<&str> = letters
        .iter()
        .map(|letter| letter["message"].as_str().unwrap())
        .collect();
    let last = said
        .iter()
        .find(|message| message.contains("3 of 24 fields never came"));
    let named = microscope.to_come.iter().all(|image| {
        let name = image.file_name().unwrap().to_str().unwrap();
        let well = name.split('_').nth(1).unwrap();
        last.is_some_and(|message| message.contains(well))
            && letters.iter().any(|letter| letter["well"] == well)
    });
    assert!(named, "{said:?}");
    assert!(fleet.shown()["incomplete"].to_string().contains("3 of 24 fields"));
    // What comes now comes too late, and trying the letters again would change nothing.
    microscope.image(missing);
    fleet.announce(&["--progress"]);
    let mut retry = fleet.command(&["dead-letters", "retry", "--plate", PLATE]);
    assert!(!retry.status().unwrap().success());
    fleet.assert_every_feature_once(21);
}

#[test]
fn a_planner_killed_between_two_words_on_a_plate_plans_each_field_once() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    for edge in ["read", "plan", "sent", "committed"] {
        let mut fleet = Fleet::new(&models, folder.path(), &bootstrap);
        fleet.kafka = KafkaSettings::new(&bootstrap, edge, "test");
        let mut microscope = Microscope::before(folder.path());
        let announce = |more: &[&str]| fleet.announce(&[&["--prefix", edge], more].concat());
        let results = folder.path().join("results");
        let serve = [
            "serve",
            "--no-worker",
            "--prefix",
            edge,
            "--out",
            results.to_str().unwrap(),
        ];
        let tasks = || by_subject(&records(&fleet.kafka, Topic::Tasks));

        let mut dying = fleet.command(&serve);
        dying.env("FAILPOINTS", format!("planner.{edge}=1*off->return"));
        let mut dying = crate::common::Running(dying.spawn().unwrap());
        microscope.image(10);
        announce(&["--progress"]);
        wait_for("tasks of the first fields", || tasks().len() == 10);
        microscope.image(7);
        announce(&["--progress"]);
        let died = dying.0.wait().unwrap();
        assert_eq!(died.signal(), Some(libc::SIGABRT), "{edge}");

        let _serve = fleet.start(&serve);
        announce(&["--progress"]);
        microscope.image(7);
        announce(&["--progress"]);
        wait_for("tasks of all fields", || tasks().len() as u64 == FIELDS);
        announce(&[]);
        let planned = || {
            let statuses = records(&fleet.kafka, Topic::Status);
            let statuses = statuses.iter().map(json);
            statuses
                .filter(|status| status["status"] == "plate_planned")
                .collect::<Vec<_>>()
        };
        wait_for("the plate's plan", || !planned().is_empty());
        let once = tasks();
        assert!(once.values().all(|count| *count == 1), "{edge}: {once:?}");
        let planned = planned();
        assert_eq!(planned.len(), 1, "{edge}");
        assert_eq!(
            (&planned[0]["fields_planned"], &planned[0]["fields_expected"]),
            (&FIELDS.into(), &FIELDS.into()),
            "{edge}"
        );
    }
}
