//! An operator's hand on a fleet at work: runs that are paused, cancelled, or less urgent than others. Nothing is lost by it and
//! nothing done twice.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use wellspring::kafka::tail::TailRecord;
use wellspring::kafka::topics::Topic;

use crate::common::{Running, few_wells, models, simulate, small_plate, start_broker, wait_for};
use crate::fleet::Fleet;
use crate::{FIELDS, by_subject, json, records};

/// Fields of `slow_fleet`'s screen.
const MANY: usize = 192;

/// A plate of two fields in each of 96 wells.
fn many_fields(folder: &Path) -> PathBuf {
    simulate(folder, &small_plate("\"DNA\""));
    folder.join("plates/screen.toml")
}

impl Fleet<'_> {
    /// A worker that takes 100 ms for a field, so that an operator's word finds it at work.
    fn slow_worker(&self, more: &[&str]) -> Running {
        let mut command = self.command(&[&["worker"], more].concat());
        Running(
            command
                .env("FAILPOINTS", "worker.embed=sleep(100)")
                .spawn()
                .unwrap(),
        )
    }

    /// What one look of `status` finds.
    fn status(&self, more: &[&str]) -> Value {
        let mut command = self.command(&[&["status", "--json"], more].concat());
        let output = command.stdout(Stdio::piped()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `plates list` prints.
    fn told_of_plates(&self) -> String {
        let mut command = self.command(&["plates", "list"]);
        String::from_utf8(command.stdout(Stdio::piped()).output().unwrap().stdout).unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> bool {
        self.command(arguments).status().unwrap().success()
    }

    /// What `runs list` says of the screen's run.
    fn run_of(&self, screen: &str) -> Value {
        let mut command = self.command(&["runs", "list", "--json"]);
        let output = command.stdout(Stdio::piped()).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let runs = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found = runs.into_iter().find(|run| run["screen"] == screen);
        found.unwrap_or_else(|| panic!("no run of '{screen}' in:\n{lines}"))
    }
}

fn name(run: &Value) -> &str {
    run["run"].as_str().unwrap()
}

#[test]
fn a_paused_run_waits_and_goes_on_without_doing_anything_twice() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    many_fields(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let _serve = fleet.serve();
    fleet.submit();
    let _worker = fleet.slow_worker(&[]);
    fleet.wait_for_a_feature();
    let run = fleet.run_of("small");
    assert_eq!(run["state"], "open");
    assert!(fleet.succeeds(&["runs", "pause", name(&run)]));
    assert!(fleet.succeeds(&["runs", "pause", name(&run)]), "twice is once");
    // A misspelt prefix is said, and makes no topics.
    for words in [&["status"] as &[&str], &["runs", "pause", name(&run)]] {
        let mut command = fleet.command(words);
        command
            .env("WELLSPRING_PREFIX", "elsewhere")
            .stderr(Stdio::piped());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("no topic 'elsewhere."),
            "{said}"
        );
    }
    // Every field is done by now, or waits.
    let (mut done, mut waiting) = (0, 0);
    wait_for("all fields to be done or to wait", || {
        let features = by_subject(&records(&fleet.kafka, Topic::Features));
        let parked = by_subject(&records(&fleet.kafka, Topic::Retries));
        done = features.len();
        waiting = parked
            .keys()
            .filter(|field| !features.contains_key(*field))
            .count();
        done + waiting == MANY
    });
    assert!(waiting > 0, "the run was over before it was paused");
    let look = fleet.status(&[]);
    assert_eq!(
        (&look["runs"][0]["state"], &look["runs"][0]["fields_expected"]),
        (&"paused".into(), &MANY.into())
    );
    wait_for("the fields that are done to be told", || {
        let look = fleet.status(&[]);
        let (run, plates) = (&look["runs"][0], fleet.told_of_plates());
        run["fields_done"] == done
            && plates.contains(&format!("{MANY} of {MANY} fields planned, {done} done"))
    });
    assert_eq!(look["lanes"].as_array().unwrap().len(), 2);
    // What is parked comes back to be looked at.
    assert!(
        look["lanes"][0]["waiting"].as_u64().unwrap() <= waiting as u64,
        "{look}"
    );
    assert_eq!(fleet.run_of("small")["state"], "paused");
    // Nothing more is done, though what waits comes back to be looked at.
    let parked = records(&fleet.kafka, Topic::Retries).len();
    wait_for("fields that wait a second time", || {
        records(&fleet.kafka, Topic::Retries).len() >= parked + waiting
    });
    fleet.assert_every_feature_once(done);

    assert!(fleet.succeeds(&["runs", "resume", name(&run)]));
    fleet.wait_for_fields(MANY as u64);
    fleet.assert_every_feature_once(MANY);
    let run = fleet.run_of("small");
    assert_eq!(
        (&run["state"], &run["fields_done"]),
        (&"finished".into(), &MANY.into())
    );
    assert_eq!(fleet.status(&[])["lanes"][0]["waiting"], 0);
    assert!(!fleet.succeeds(&["runs", "pause", name(&run)]), "it has ended");
}

#[test]
fn a_cancelled_run_is_dropped_and_cannot_be_submitted_again() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let screen = many_fields(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let _serve = fleet.serve();
    fleet.submit();
    // A worker that is there before the tasks are would be done at once.
    wait_for("tasks", || !records(&fleet.kafka, Topic::Tasks).is_empty());
    let mut worker = fleet.slow_worker(&["--until-drained"]);
    fleet.wait_for_a_feature();
    let run = fleet.run_of("small");
    assert!(
        !fleet.succeeds(&["runs", "cancel", "small-00000000"]),
        "no such run"
    );
    assert!(fleet.succeeds(&["runs", "cancel", name(&run)]));
    // What was in its stages is done, the rest is read and dropped.
    assert!(worker.0.wait().unwrap().success());
    let done = records(&fleet.kafka, Topic::Features).len();
    assert!(done < MANY, "the run was over before it was cancelled");
    fleet.assert_every_feature_once(done);
    assert_eq!(fleet.run_of("small")["state"], "cancelled");
    assert!(fleet.summary().is_none());
    assert_eq!(fleet.status(&[])["runs"].as_array().unwrap().len(), 0);
    assert_eq!(fleet.status(&["--all"])["runs"][0]["state"], "cancelled");
    let screen = screen.to_str().unwrap();
    assert!(!fleet.succeeds(&["submit", screen]), "it was cancelled");
    assert!(!fleet.succeeds(&["plates", "announce", "SMALL0001", "--run", name(&run)]));
    assert!(!fleet.succeeds(&["runs", "resume", name(&run)]));

    // Another version of the screen is another run, and the server has not noticed a thing.
    let text = std::fs::read_to_string(screen).unwrap();
    std::fs::write(screen, text.replace("[screen]\n", "[screen]\nversion = 2\n")).unwrap();
    assert!(fleet.succeeds(&["submit", screen]));
    let _worker = fleet.start(&["worker"]);
    fleet.wait_for_fields(MANY as u64);
}

#[test]
fn a_plate_that_is_taken_out_of_a_run_is_in_no_result_and_a_paused_one_waits() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    // Two more plates of the same images.
    let (images, map) = (plates.join("images"), plates.join("platemap.csv"));
    let mut rows = std::fs::read_to_string(&map).unwrap();
    let first = rows.clone();
    for other in ["SMALL0002", "SMALL0003"] {
        std::fs::create_dir(images.join(other)).unwrap();
        for image in std::fs::read_dir(images.join("SMALL0001")).unwrap() {
            let image = image.unwrap();
            let name = image
                .file_name()
                .into_string()
                .unwrap()
                .replace("SMALL0001", other);
            std::fs::copy(image.path(), images.join(other).join(name)).unwrap();
        }
        rows.push('\n');
        rows.push_str(
            &first
                .lines()
                .skip(1)
                .collect::<Vec<_>>()
                .join("\n")
                .replace("SMALL0001", other),
        );
    }
    std::fs::write(&map, rows).unwrap();
    let screen = plates.join("screen.toml");
    let text = std::fs::read_to_string(&screen).unwrap();
    let all = "[\"SMALL0001\", \"SMALL0002\", \"SMALL0003\"]";
    std::fs::write(&screen, text.replace("[\"SMALL0001\"]", all)).unwrap();
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let _serve = fleet.serve();
    fleet.submit();
    wait_for("plans", || fleet.run_of("small")["plates_planned"] == 3);
    let run = fleet.run_of("small");
    let run = name(&run);
    assert!(fleet.succeeds(&["plates", "pause", "SMALL0002"]));
    assert!(fleet.succeeds(&["plates", "cancel", "SMALL0003", "--run", run]));
    assert!(
        fleet.succeeds(&["plates", "cancel", "SMALL0003", "--run", run]),
        "twice is once"
    );
    assert!(
        !fleet.succeeds(&["plates", "resume", "SMALL0003", "--run", run]),
        "it stays so"
    );
    assert!(
        !fleet.succeeds(&["plates", "cancel", "SMALL0009"]),
        "no such plate"
    );
    let _worker = fleet.start(&["worker"]);
    let of_plate = |plate: &str| {
        let features = records(&fleet.kafka, Topic::Features);
        features
            .iter()
            .filter(|record| json(record)["plate"] == plate)
            .count() as u64
    };
    let waiting = || {
        let waiting = by_subject(&records(&fleet.kafka, Topic::Retries));
        waiting.keys().filter(|field| field.contains("SMALL0002")).count() as u64
    };
    wait_for("all to be done or to wait", || {
        of_plate("SMALL0001") == FIELDS && waiting() == FIELDS
    });
    assert_eq!((of_plate("SMALL0002"), of_plate("SMALL0003")), (0, 0));
    assert_eq!(
        (&fleet.run_of("small")["state"], &fleet.run_of("small")["plates"]),
        (&"open".into(), &2.into())
    );
    assert!(fleet.succeeds(&["plates", "resume", "SMALL0002"]));
    fleet.wait_for_fields(2 * FIELDS);
    assert_eq!((of_plate("SMALL0002"), of_plate("SMALL0003")), (FIELDS, 0));
    let summary = fleet.summary().unwrap();
    assert_eq!(
        (&summary["lost"], &summary["dead_letters"]),
        (&0.into(), &0.into())
    );
    assert!(
        !fleet.succeeds(&["plates", "cancel", "SMALL0002"]),
        "the run is finished"
    );

    // By the name of the screen.
    let mut list = fleet.command(&["screens", "list", "--json"]);
    let listed: Value =
        serde_json::from_slice(&list.stdout(Stdio::piped()).output().unwrap().stdout).unwrap();
    assert_eq!(
        (&listed["screen"], &listed["runs"][0]["state"]),
        (&"small".into(), &"finished".into())
    );
    assert!(
        !fleet.succeeds(&["screens", "pause", "small"]),
        "none of its runs goes on"
    );
    assert!(!fleet.succeeds(&["screens", "show", "smal"]), "no such screen");
    std::fs::write(&screen, text.replace("[screen]\n", "[screen]\nversion = 2\n")).unwrap();
    assert!(fleet.succeeds(&["submit", screen.to_str().unwrap()]));
    assert!(fleet.succeeds(&["screens", "cancel", "small"]));
    let mut show = fleet.command(&["screens", "show", "small"]);
    let shown: Value = serde_json::from_slice(&show.stdout(Stdio::piped()).output().unwrap().stdout).unwrap();
    assert_eq!(shown["runs"][0]["run"], run);
    assert_eq!(shown["runs"][1]["state"], "cancelled");
}

#[test]
fn a_live_plate_overtakes_a_batch_that_goes_on_behind_it() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let batch = many_fields(&folder.path().join("batch"));
    let live = few_wells(&folder.path().join("live"), "\"DNA\"").join("screen.toml");
    let named = std::fs::read_to_string(&live).unwrap();
    std::fs::write(&live, named.replacen("name = \"small\"", "name = \"urgent\"", 1)).unwrap();
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let _serve = fleet.serve();
    assert!(fleet.succeeds(&["submit", batch.to_str().unwrap(), "--lane", "batch"]));
    assert!(fleet.succeeds(&["submit", live.to_str().unwrap()]));
    let both = |is: &dyn Fn(&Value) -> bool| ["small", "urgent"].iter().all(|of| is(&fleet.run_of(of)));
    wait_for("plans", || both(&|run| run["plates_planned"] == 1));
    // Of a plate that both runs have, and that is planned in both lanes already.
    assert!(fleet.succeeds(&["plates", "announce", "SMALL0001"]));
    let mut worker = fleet.slow_worker(&["--until-drained"]);
    assert!(worker.0.wait().unwrap().success(), "both lanes are drained");
    wait_for("both runs", || both(&|run| run["state"] == "finished"));
    let features = records(&fleet.kafka, Topic::Features);
    let urgent = fleet.run_of("urgent");
    let (of_live, of_batch): (Vec<_>, Vec<_>) = features
        .iter()
        .partition(|feature| json(feature)["run"] == urgent["run"]);
    assert_eq!((of_live.len(), of_batch.len()), (FIELDS as usize, MANY));
    // The batch has eight times as many fields, and was there first.
    let last = |features: &[&TailRecord]| features.iter().map(|feature| feature.time_ms).max();
    assert!(last(&of_live) < last(&of_batch));
}
