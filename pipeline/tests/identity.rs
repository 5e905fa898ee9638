//! A run that goes on is made with what it was begun with: a changed screen, network or plane is refused through the
//! binary, and taken under another version.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{run_json, simulate, small_plate, wellspring};

/// A folder with plates, a model `timm` and a screen that divides by planes and embeds with that model.
struct Laboratory(tempfile::TempDir);

impl Laboratory {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        simulate(folder.path(), &small_plate("\"DNA\", \"AGP\""));
        let laboratory = Self(folder);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden");
        std::fs::copy(golden.join("timm.json"), laboratory.path("card.json")).unwrap();
        std::fs::copy(
            golden.join("timm.safetensors"),
            laboratory.path("timm.safetensors"),
        )
        .unwrap();
        laboratory.add_model();
        laboratory.write_plane("DNA", 1.0);
        laboratory.write_plane("AGP", 1.0);
        laboratory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn add_model(&self) {
        let mut command = wellspring(&self.path("models"));
        let command = command.args(["models", "add"]).arg(self.path("timm.safetensors"));
        let added = command
            .arg("--card")
            .arg(self.path("card.json"))
            .output()
            .unwrap();
        assert_eq!(added.status.code(), Some(0), "{}", stderr(&added));
    }

    fn write_plane(&self, channel: &str, value: f32) {
        // As large as the plate's images.
        let plane = wellspring::npy::plane([240, 240], &vec![value; 240 * 240]);
        std::fs::write(self.path(&format!("{channel}.npy")), plane).unwrap();
    }

    /// A screen file; `version` and `more` may change what it says.
    fn screen(&self, version: u32, more: &str) -> PathBuf {
        let text = std::fs::read_to_string(self.path("plates/screen.toml")).unwrap();
        let text = text.replacen("[screen]\n", &format!("[screen]\nversion = {version}\n"), 1);
        let planes = self.path("{channel}.npy").display().to_string();
        // What is simulated says how it is compared: here it is said anew.
        let text = text.split("[comparison]").next().unwrap();
        let tables = format!(
            "[model]\nname = \"timm\"\n[preprocess]\ntiling = \"centre\"\nillumination = \"{planes}\"\n\
             [quality]\nenabled = false\n"
        );
        let file = self.path("plates/changed.toml");
        std::fs::write(&file, format!("{text}\n{tables}{more}")).unwrap();
        file
    }

    /// Runs it, always in the same folder; the run's name.
    fn run(&self, screen: &Path) -> String {
        let mut command = wellspring(&self.path("models"));
        let command = command.arg("run").arg(screen).args(["--json", "--out"]);
        let (code, summary) = run_json(command.arg(self.path("out")));
        assert_eq!(code, 0, "{summary}");
        summary["run"].as_str().unwrap().to_owned()
    }

    /// What is said where it is refused.
    fn refused(&self, screen: &Path) -> String {
        let mut command = wellspring(&self.path("models"));
        let command = command.arg("run").arg(screen).arg("--out");
        let output = command.arg(self.path("out")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_goes_on_with_what_it_was_begun_with_or_not_at_all() {
    let laboratory = Laboratory::new();
    let first = laboratory.run(&laboratory.screen(1, ""));
    let table = laboratory.path("out/features.parquet");
    let features = std::fs::read(&table).unwrap();

    // A screen that says something else.
    let text = laboratory.refused(&laboratory.screen(1, "[comparison]\nseed = 7\n"));
    assert!(
        text.contains(&format!("'{first}'")) && text.contains("[comparison] is not"),
        "{text}"
    );

    // What changes no result may be another.
    let more = "[resources]\nbatch_size = 3\nin_flight_bytes = \"64 MiB\"\n[output]\nreport = false\n";
    assert_eq!(laboratory.run(&laboratory.screen(1, more)), first);
    assert_eq!(std::fs::read(&table).unwrap(), features);

    // Another plane under the same name.
    laboratory.write_plane("AGP", 2.0);
    let text = laboratory.refused(&laboratory.screen(1, ""));
    assert!(
        text.contains("illumination functions") && text.contains(&first),
        "{text}"
    );
    laboratory.write_plane("AGP", 1.0);

    // Another network under the same name.
    let card = std::fs::read_to_string(laboratory.path("card.json")).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&card).unwrap();
    other["input"]["scale"] = (other["input"]["scale"].as_f64().unwrap() / 2.0).into();
    other["canary"]["embedding"] = serde_json::json!([]);
    std::fs::write(laboratory.path("card.json"), other.to_string()).unwrap();
    let removed = wellspring(&laboratory.path("models"))
        .args(["models", "remove", "timm"])
        .output()
        .unwrap();
    assert_eq!(removed.status.code(), Some(0), "{}", stderr(&removed));
    laboratory.add_model();
    let text = laboratory.refused(&laboratory.screen(1, ""));
    assert!(
        text.contains("is made with timm") && text.contains("by card"),
        "{text}"
    );
    assert_eq!(std::fs::read(&table).unwrap(), features);

    // Another version is a run beside the first, of other features.
    let second = laboratory.run(&laboratory.screen(2, ""));
    assert_ne!(first, second);
    assert_ne!(std::fs::read(&table).unwrap(), features);
}
