//! `wellspring plates watch` through the binary: plates are announced once, when their files are complete.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{few_wells, models, simulate, small_plate, start_broker, wellspring};
use serde_json::Value;
use wellspring::events::PlateReady;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::tail::read_events;
use wellspring::kafka::topics::Topic;

/// Watches until nothing waits; what it said, and what it remarked.
fn watch(models: &Path, screen: &Path, bootstrap: &str, give_up: &str) -> (String, String) {
    watch_as(models, screen, bootstrap, give_up, &[])
}

fn watch_as(models: &Path, screen: &Path, bootstrap: &str, give_up: &str, more: &[&str]) -> (String, String) {
    let output = wellspring(models)
        .args([
            "plates", "watch", "--kafka", bootstrap, "--every", "0.1", "--rest", "0.3",
        ])
        .args(["--give-up", give_up, "--until-none-waits"])
        .args(more)
        .arg(screen)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_plate_is_announced_once_and_without_what_never_came() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let screen = folder.path().join("plates/screen.toml");
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let plate = std::fs::read_dir(folder.path().join("plates/images"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let barcode = plate.file_name().into_string().unwrap();
    let mut images: Vec<_> = std::fs::read_dir(plate.path())
        .unwrap()
        .map(|image| image.unwrap().path())
        .collect();
    images.sort();

    // The last well has not come: the plate waits until it is given up.
    let last: Vec<_> = images.split_off(images.len() - 2);
    for image in &last {
        std::fs::rename(image, folder.path().join(image.file_name().unwrap())).unwrap();
    }
    let (said, remarked) = watch(&models, &screen, &bootstrap, "0.6");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [format!("{barcode}\t190 fields")]
    );
    assert!(remarked.contains("H12 has no images yet"), "{remarked}");

    // A watcher that is started again announces nothing twice.
    let (said, _) = watch(&models, &screen, &bootstrap, "0.6");
    assert_eq!(said, "");

    let shown = wellspring(&models)
        .args(["plates", "show", &barcode, "--kafka", &bootstrap])
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let runs = shown["runs"].as_object().unwrap();
    assert_eq!(runs.len(), 1);
    assert!(runs.values().all(|run| run["state"] == "announced"), "{shown}");
    let unknown = wellspring(&models)
        .args(["plates", "show", "OTHER", "--kafka", &bootstrap])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("plate OTHER was never announced"));
}

#[test]
fn wells_are_told_of_while_their_plate_is_imaged() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let images = plates.join("images/SMALL0001");
    let mut names: Vec<_> = std::fs::read_dir(&images)
        .unwrap()
        .map(|image| image.unwrap().path())
        .collect();
    names.sort();
    // One well has not come, and the image of another has only begun to.
    std::fs::remove_file(&names[23]).unwrap();
    std::fs::write(&names[22], b"").unwrap();
    let screen = plates.join("screen.toml");
    let (said, remarked) = watch_as(&models, &screen, &bootstrap, "2.5", &["--progress"]);
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["SMALL0001\t22 wells imaged", "SMALL0001\t23 fields"],
        "{remarked}"
    );
    let kafka = KafkaSettings::new(&bootstrap, "wellspring", "test");
    let events = read_events::<PlateReady>(&kafka, Topic::Plates).unwrap();
    let told: Vec<Option<usize>> = events
        .iter()
        .map(|(_, event)| Some(event.progress.as_ref()?.wells.as_ref()?.len()))
        .collect();
    assert_eq!(told, [Some(22), None]);
}
