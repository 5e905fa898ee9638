//! Reruns on a fleet: of a run whose images have changed since only what changed is worked on again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use wellspring::kafka::topics::Topic;

use crate::common::{comes, models, start_broker};
use crate::fleet::Fleet;
use crate::{FIELDS, few_wells, json, records};

/// The image of a well of [`few_wells`].
fn image(folder: &Path, well: &str) -> PathBuf {
    let images = folder.join("plates/images/SMALL0001");
    let mut images = std::fs::read_dir(images)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let of_well =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().split('_').nth(1) == Some(well);
    images.find(of_well).unwrap()
}

impl Fleet<'_> {
    /// Runs the screen again; what it came to, and the run's summary once it is finished.
    fn rerun(&self, options: &[&str]) -> (Value, Value) {
        let screen = self.folder.join("plates/screen.toml");
        let arguments = [&["rerun", screen.to_str().unwrap(), "--json"], options].concat();
        let output = self.command(&arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", self.said());
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        let file = self
            .folder
            .join("results")
            .join(line["run"].as_str().unwrap())
            .join("run.json");
        assert!(comes(|| file.exists()), "{line} did not finish:\n{}", self.said());
        (
            line,
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(),
        )
    }

    /// Wells of a run's tasks in the batch lane, or of its features.
    fn wells(&self, topic: Topic, run: &Value) -> Vec<String> {
        let all = records(&self.kafka, topic);
        let of_run = all.iter().map(json).filter(|record| record["run"] == *run);
        let mut wells: Vec<String> = of_run
            .map(|record| record["well"].as_str().unwrap().to_owned())
            .collect();
        wells.sort();
        wells
    }
}

#[test]
fn a_rerun_works_on_the_images_that_have_changed_and_takes_over_the_other_fields() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    let _serve = fleet.serve();
    let _worker = fleet.start(&["worker"]);
    fleet.submit();
    fleet.wait_for_fields(FIELDS);

    // Nothing has changed: nothing is worked on.
    let (line, summary) = fleet.rerun(&[]);
    assert_eq!(line["anew"], "changed");
    assert_eq!(
        (&line["fields_taken_over"], &line["fields_anew"]),
        (&FIELDS.into(), &0.into())
    );
    assert_eq!(summary["fields_done"], FIELDS);
    assert!(fleet.wells(Topic::BatchTasks, &line["run"]).is_empty());
    assert_eq!(fleet.wells(Topic::Features, &line["run"]).len() as u64, FIELDS);

    // Of a run that took over itself: one image was written again with another's pixels, one is gone.
    std::fs::copy(image(folder.path(), "A02"), image(folder.path(), "B03")).unwrap();
    std::fs::remove_file(image(folder.path(), "C02")).unwrap();
    let (line, summary) = fleet.rerun(&[]);
    assert_eq!(
        (&line["fields_taken_over"], &line["fields_anew"]),
        (&(FIELDS - 2).into(), &1.into())
    );
    assert_eq!(fleet.wells(Topic::BatchTasks, &line["run"]), ["B03"]);
    let features = fleet.wells(Topic::Features, &line["run"]);
    assert_eq!(features.len() as u64, FIELDS - 1);
    assert!(!features.contains(&"C02".to_owned()));
    assert_eq!(
        (&summary["fields_done"], &summary["dead_letters"]),
        (&(FIELDS - 1).into(), &1.into())
    );
    assert_eq!(summary["lost"], 0);

    // It is there again: of that field nothing can be taken over.
    let back = image(folder.path(), "A02")
        .to_str()
        .unwrap()
        .replace("A02", "C02");
    std::fs::copy(image(folder.path(), "A02"), back).unwrap();
    let (line, summary) = fleet.rerun(&[]);
    assert_eq!(fleet.wells(Topic::BatchTasks, &line["run"]), ["C02"]);
    assert_eq!(
        (&summary["fields_done"], &summary["dead_letters"]),
        (&FIELDS.into(), &0.into())
    );

    // From the images on, and without a look at them.
    let (line, _) = fleet.rerun(&["--steps", "embed.."]);
    assert_eq!(line["anew"], "embedding");
    assert_eq!(fleet.wells(Topic::BatchTasks, &line["run"]).len() as u64, FIELDS);
    std::fs::rename(
        folder.path().join("plates/images/SMALL0001"),
        folder.path().join("archive"),
    )
    .unwrap();
    let screen = folder.path().join("plates/screen.toml");
    let refused = fleet
        .command(&["rerun", screen.to_str().unwrap()])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--steps compare.."), "{said}");
    let (line, summary) = fleet.rerun(&["--steps", "compare.."]);
    assert_eq!(
        (&line["anew"], &summary["fields_done"]),
        (&"comparison".into(), &FIELDS.into())
    );
    let unknown = fleet
        .command(&["rerun", screen.to_str().unwrap(), "--steps", "embbed.."])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("no step 'embbed'"), "{said}");
}
