//! External steps: the example program in whole runs, and what each adapter does with late, wrong and repeated answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "external/adapters.rs"]
mod adapters;
#[path = "external/callbacks.rs"]
mod callbacks;
mod common;
#[path = "external/levels.rs"]
mod levels;
#[path = "external/networks.rs"]
mod networks;
#[path = "external/ready.rs"]
mod ready;
#[path = "external/services.rs"]
mod services;

use std::path::Path;
use std::process::Command;

use common::{dead_letters, models, rows_of, run_json, simulate, small_plate, wellspring};

/// A ready screen file, with what differs on this machine replaced.
fn ready_file(name: &str, changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../workloads/screens")
        .join(name);
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    text
}

/// The small fields hold a few cells each, which the gates would call empty.
const SPARSE: &str = "\n[quality]\nenabled = false\n";

fn example() -> String {
    example_called("field_statistics.py")
}

fn example_called(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/examples/external");
    path.join(name).canonicalize().unwrap().display().to_string()
}

/// One field of 96 wells, so that a run takes seconds.
fn one_field(channels: &str) -> String {
    small_plate(channels).replace("fields = 2", "fields = 1")
}

/// The ready file with an external step, over small plates in `folder`.
fn external_screen(folder: &Path) -> std::path::PathBuf {
    simulate(folder, &one_field("\"DNA\", \"AGP\""));
    let screen = folder.join("external.toml");
    let text = ready_file(
        "external.toml",
        &[
            ("demo/images", "plates/images"),
            ("demo/platemap.csv", "plates/platemap.csv"),
            ("../examples/external/field_statistics.py", &example()),
            (
                "../examples/external/lab_notebook.py",
                &example_called("lab_notebook.py"),
            ),
            ("./demo/ledger.jsonl", "./ledger.jsonl"),
        ],
    );
    std::fs::write(&screen, text + SPARSE).unwrap();
    screen
}

fn run(models: &Path, screen: &Path, out: &Path) -> Command {
    let mut command = wellspring(models);
    command.arg("run").arg(screen).arg("--json").arg("--out").arg(out);
    command
}

#[test]
fn a_python_step_joins_every_field_once_even_where_the_worker_dies_after_the_answer() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let screen = external_screen(folder.path());
    let out = folder.path().join("out");
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(
        (code, summary["fields_done"].as_u64()),
        (0, Some(96)),
        "{summary}"
    );

    // What the program found is what the quality stage found.
    let features = rows_of(&out.join("features.parquet"));
    let quality = rows_of(&out.join("quality.parquet"));
    assert_eq!((features.len(), quality.len()), (96, 96));
    let number = |row: &serde_json::Value, key: &str| {
        row[key].as_f64().unwrap_or_else(|| {
            panic!(
                "no {key} in {:?}",
                row.as_object()
                    .map(|row| row.keys().rev().take(40).cloned().collect::<Vec<_>>())
            )
        })
    };
    for (features, quality) in features.iter().zip(&quality) {
        assert_eq!(features["Metadata_Well"], quality["Metadata_Well"]);
        for channel in ["DNA", "AGP"] {
            let ours = number(quality, &format!("ImageQuality_MeanIntensity_{channel}"));
            let theirs = number(features, &format!("statistics_{channel}_mean"));
            assert!(
                (ours - theirs).abs() < 1e-3 * theirs,
                "{channel}: {ours} {theirs}"
            );
        }
        assert!((0.0..0.2).contains(&number(features, "statistics_DNA_bright")));
    }
    // They are columns of profiles, and the comparison used them.
    let profile = &rows_of(&out.join("profiles.parquet"))[0];
    assert!(number(profile, "statistics_AGP_sd") > 0.0);
    assert!(!rows_of(&out.join("comparisons.parquet")).is_empty());
    // The plate and the screen are in the laboratory's books.
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    let ledger = folder.path().join("ledger.jsonl");
    assert_eq!(lines(&ledger), 2);
    let page = std::fs::read_to_string(out.join("external/notebook.json")).unwrap();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let calls = page["calls"].as_object().unwrap();
    let called: u64 = calls.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(called, rows_of(&out.join("compounds.parquet")).len() as u64);

    // Killed when the answers of twenty fields have come and none may be known, and started again.
    let again = folder.path().join("again");
    let mut killed = run(&models, &screen, &again);
    let output = killed
        .env("FAILPOINTS", "worker.external=20*off->return")
        .output()
        .unwrap();
    assert!(
        !output.status.success() && output.status.code().is_none(),
        "{:?}",
        output.status
    );
    let (code, summary) = run_json(&mut run(&models, &screen, &again));
    assert_eq!(
        (code, summary["fields_done"].as_u64()),
        (0, Some(96)),
        "{summary}"
    );
    for file in ["features.parquet", "profiles.parquet", "comparisons.parquet"] {
        let (one, other) = (
            std::fs::read(out.join(file)).unwrap(),
            std::fs::read(again.join(file)).unwrap(),
        );
        assert!(one == other, "{file} differs");
    }
    // The same work once more has the same ids.
    assert_eq!(lines(&ledger), 2);
}

#[test]
fn a_field_its_service_refuses_is_a_dead_letter_and_the_others_go_on() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let screen = external_screen(folder.path());
    // Refuses one well for good, and another the first time.
    let program = folder.path().join("picky.py");
    std::fs::write(
        &program,
        "import json, sys\nfor line in sys.stdin:\n    r = json.loads(line)\n    a = {'correlation_id': r['correlation_id']}\n    \
         if r['well'] == 'B02': a['error'] = 'no cells here'\n    elif r['well'] == 'B03' and r['attempt'] == 1: a.update(error='busy', retry=True)\n    \
         else: a['features'] = {c: len(r['images']) for c in r['columns']}\n    print(json.dumps(a), flush=True)\n",
    )
    .unwrap();
    let text = std::fs::read_to_string(&screen)
        .unwrap()
        .replace(&example(), "./picky.py");
    std::fs::write(&screen, text.replace("deadline", "backoff = \"10ms\"\ndeadline")).unwrap();
    let out = folder.path().join("out");
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(
        (code, summary["fields_failed"].as_u64(), summary["lost"].as_u64()),
        (1, Some(1), Some(0)),
        "{summary}"
    );
    let letters = dead_letters(&out);
    let letter = &letters[0];
    assert_eq!(
        (letter["stage"].as_str(), letter["class"].as_str()),
        (Some("external"), Some("external"))
    );
    assert_eq!(letter["well"], "B02");
    let message = letter["message"].as_str().unwrap();
    assert!(
        message.contains("step 'statistics'") && message.contains("no cells here"),
        "{message}"
    );

    // A program that is not there is told once per field, at once, and what to do.
    let text = text.replace("\"python3\"", "\"no-such-program\"");
    std::fs::write(&screen, text.replace("name = \"external\"", "name = \"absent\"")).unwrap();
    let (code, summary) = run_json(&mut run(&models, &screen, &folder.path().join("absent")));
    assert_eq!(
        (code, summary["fields_failed"].as_u64()),
        (1, Some(96)),
        "{summary}"
    );
    let message = dead_letters(&folder.path().join("absent"))[0]["message"].to_string();
    assert!(
        message.contains("'no-such-program' cannot be started"),
        "{message}"
    );
}

#[test]
fn the_graph_of_a_screen_is_printed_as_text_and_mermaid() {
    let Some(models) = models() else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/screens/external.toml");
    let output = wellspring(&models)
        .arg("plan")
        .arg(file)
        .arg("--graph")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in [
        "statistics",
        "<- quality, embed, statistics",
        "all fields of a well",
        "flowchart TD",
        "[[\"statistics<br/>field\"]]",
    ] {
        assert!(said.contains(part), "no {part} in\n{said}");
    }
}
