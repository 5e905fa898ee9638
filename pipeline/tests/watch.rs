//! `wellspring plates watch` through the binary: plates are announced once, when their files are complete.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{models, simulate, small_plate, start_broker, wellspring};
use serde_json::Value;

/// Watches until nothing waits; what it said, and what it remarked.
fn watch(models: &Path, screen: &Path, bootstrap: &str, give_up: &str) -> (String, String) {
    let output = wellspring(models)
        .args([
            "plates", "watch", "--kafka", bootstrap, "--every", "0.1", "--rest", "0.3",
        ])
        .args(["--give-up", give_up, "--until-none-waits"])
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
