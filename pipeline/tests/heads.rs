//! Heads through the binary: fitted on a run in the stream and on its tables, kept, verified, and serving a screen.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use common::{rows_of, run_json, simulate, small_plate, start_broker, wellspring};
use serde_json::Value;

const CHANNELS: usize = 2;
const WIDTH: usize = 24;

fn golden(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden");
    folder.join(file).display().to_string()
}

/// A folder of models with the small network `timm`, and plates with a screen that embeds with it.
struct Laboratory {
    folder: tempfile::TempDir,
}

impl Laboratory {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        simulate(folder.path(), &small_plate("\"DNA\", \"AGP\""));
        let laboratory = Self { folder };
        let added = laboratory.models(&["add", &golden("timm.safetensors"), "--card", &golden("timm.json")]);
        assert_eq!(added.status.code(), Some(0), "{}", stderr(&added));
        laboratory
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn models(&self, arguments: &[&str]) -> Output {
        let mut command = wellspring(&self.folder.path().join("models"));
        command.arg("models").args(arguments).output().unwrap()
    }

    /// Runs the plates with a model; the run's name.
    fn run(&self, model: &str, engine: &str) -> String {
        let plates = self.folder.path().join("plates");
        let text = std::fs::read_to_string(plates.join("screen.toml")).unwrap();
        assert!(!text.contains("[model]"), "{text}");
        let more = "[preprocess]\ntiling = \"centre\"\n[quality]\nenabled = false\n";
        assert!(
            !text.contains("[preprocess]") && !text.contains("[quality]"),
            "{text}"
        );
        let screen = plates.join(format!("{model}.toml"));
        std::fs::write(&screen, format!("{text}\n[model]\nname = \"{model}\"\n{more}")).unwrap();
        let mut command = wellspring(&self.folder.path().join("models"));
        command
            .arg("run")
            .arg(screen)
            .args(["--engine", engine, "--json", "--out", &self.path(model)]);
        let (code, summary) = run_json(command.env("XDG_RUNTIME_DIR", "/tmp"));
        assert_eq!(code, 0, "{summary}");
        summary["run"].as_str().unwrap().to_owned()
    }

    /// The digest of a model's weights.
    fn digest(&self, model: &str) -> String {
        let listed: Value = serde_json::from_slice(&self.models(&["list", "--json"]).stdout).unwrap();
        let models = listed.as_array().unwrap();
        let found = models.iter().find(|card| card["name"] == model).unwrap();
        assert_eq!(found["state"], "verified");
        found["content_sha256"].as_str().unwrap().to_owned()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Profiles of a run's reference wells, by well.
fn profiles(folder: &str, model: &str, width: usize) -> BTreeMap<String, Vec<f64>> {
    let rows = rows_of(&Path::new(folder).join("profiles.parquet"));
    let reference = rows.iter().filter(|row| row["Metadata_role"] == "reference");
    let profile = |row: &Value| {
        (0..width)
            .map(|i| row[format!("{model}_{i}")].as_f64().unwrap())
            .collect()
    };
    reference
        .map(|row| (row["Metadata_Well"].to_string(), profile(row)))
        .collect()
}

#[test]
fn a_head_is_fitted_on_a_run_in_the_stream_and_serves_a_screen() {
    let laboratory = Laboratory::new();
    let run = laboratory.run("timm", "native");
    let models = laboratory.folder.path().join("models");
    let broker = laboratory.folder.path().join("timm/broker");
    let (running, kafka) = start_broker(&models, &broker);
    let of_run = ["--run", &run, "--kafka", &kafka];

    let fitted = laboratory.models(&[&["fit-head", "white"][..], &of_run].concat());
    assert_eq!(fitted.status.code(), Some(0), "{}", stderr(&fitted));
    let told = String::from_utf8_lossy(&fitted.stdout).into_owned();
    assert!(
        told.contains("head on timm 1: zca,") && told.contains("reference wells of 1 plates"),
        "{told}"
    );

    let probe = ["fit-head", "probe", "--kind", "probe"];
    let fitted = laboratory.models(&[&probe[..], &of_run].concat());
    assert_eq!(fitted.status.code(), Some(0), "{}", stderr(&fitted));
    assert!(
        String::from_utf8_lossy(&fitted.stdout).contains("scores of "),
        "{fitted:?}"
    );

    // Taken, unknown, and a head on a head.
    let again = laboratory.models(&[&["fit-head", "white"][..], &of_run].concat());
    assert!(
        again.status.code() == Some(2) && stderr(&again).contains("remove white"),
        "{}",
        stderr(&again)
    );
    let unknown = laboratory.models(&["fit-head", "x", "--run", "nothing", "--kafka", &kafka]);
    assert!(unknown.status.code() == Some(2) && stderr(&unknown).contains("never submitted"));
    drop(running);

    // The run's own table gives the same bytes, whatever the threads.
    let table = laboratory.path("timm/features.parquet");
    let screen = laboratory.path("plates/timm.toml");
    for (name, kind, threads) in [("white-2", "whitening", "1"), ("probe-2", "probe", "3")] {
        let mut command = wellspring(&models);
        command.args([
            "models",
            "fit-head",
            name,
            "--kind",
            kind,
            "--features",
            &table,
            "--screen",
            &screen,
        ]);
        let output = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(
            laboratory.digest(name),
            laboratory.digest(name.trim_end_matches("-2"))
        );
    }

    // Card and weights go to another machine as those of any model do.
    let listed: Value = serde_json::from_slice(&laboratory.models(&["list", "--json"]).stdout).unwrap();
    let white = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|card| card["name"] == "white")
        .unwrap();
    assert_eq!(white["base"], "timm");
    let weights = white["weights"].as_str().unwrap();
    let card = laboratory.path("models/white.card.json");
    let moved = laboratory.models(&["add", weights, "--card", &card, "--name", "white-3"]);
    assert_eq!(moved.status.code(), Some(0), "{}", stderr(&moved));
    assert_eq!(laboratory.digest("white-3"), laboratory.digest("white"));

    // It serves a screen: the wells it was fitted on are centred and their largest direction is no longer large.
    laboratory.run("white", "native");
    let width = CHANNELS * WIDTH;
    let (before, after) = (
        profiles(&laboratory.path("timm"), "timm", width),
        profiles(&laboratory.path("white"), "white", width),
    );
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    assert!(before.len() >= 16);
    for i in 0..width {
        let mean = after.values().map(|row| row[i]).sum::<f64>() / after.len() as f64;
        assert!(mean.abs() < 1e-3, "{i} {mean}");
    }
    // On a graphics device the same head gives the same numbers.
    let on_cpu = profiles(&laboratory.path("white"), "white", width);
    std::fs::remove_dir_all(laboratory.path("white")).unwrap();
    laboratory.run("white", "wgpu");
    let on_gpu = profiles(&laboratory.path("white"), "white", width);
    for (well, row) in &on_cpu {
        let largest = row
            .iter()
            .zip(&on_gpu[well])
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(largest < 1e-2, "{well} {largest}");
    }
    refusals(&laboratory, &table, &screen);
}

#[test]
fn of_several_networks_a_head_stands_on_the_one_that_is_named() {
    let laboratory = Laboratory::new();
    let added = laboratory.models(&["add", &golden("silu.safetensors"), "--card", &golden("silu.json")]);
    assert_eq!(added.status.code(), Some(0), "{}", stderr(&added));
    let alone = laboratory.run("timm", "native");
    let plates = laboratory.folder.path().join("plates");
    let text = std::fs::read_to_string(plates.join("timm.toml")).unwrap();
    let steps = "[[steps]]\nname = \"second\"\nkind = \"embed\"\nmodel = \"silu\"\n";
    let screen = plates.join("both.toml");
    std::fs::write(&screen, format!("{text}\n{steps}")).unwrap();
    let models = laboratory.folder.path().join("models");
    let mut command = wellspring(&models);
    command
        .arg("run")
        .arg(&screen)
        .args(["--engine", "native", "--json", "--out", &laboratory.path("both")]);
    let (code, summary) = run_json(command.env("XDG_RUNTIME_DIR", "/tmp"));
    assert_eq!(code, 0, "{summary}");
    let run = summary["run"].as_str().unwrap().to_owned();

    let fit = |arguments: &[&str]| laboratory.models(&[&["fit-head"], arguments].concat());
    let (running, kafka) = start_broker(&models, &laboratory.folder.path().join("timm/broker"));
    let fitted = fit(&["alone", "--run", &alone, "--kafka", &kafka]);
    assert_eq!(fitted.status.code(), Some(0), "{}", stderr(&fitted));
    drop(running);
    let (running, kafka) = start_broker(&models, &laboratory.folder.path().join("both/broker"));
    let of_run = ["--run", &run, "--kafka", &kafka];
    let fitted = fit(&[&["first"][..], &of_run].concat());
    assert_eq!(fitted.status.code(), Some(0), "{}", stderr(&fitted));
    assert!(
        stderr(&fitted).contains("those of second are left out"),
        "{}",
        stderr(&fitted)
    );
    let second = ["--network", "second"];
    let fitted = fit(&[&["of-second"][..], &of_run, &second].concat());
    assert_eq!(fitted.status.code(), Some(0), "{}", stderr(&fitted));
    let unknown = fit(&[&["none"][..], &of_run, &["--network", "third"]].concat());
    assert!(
        stderr(&unknown).contains("--network is one of timm, second"),
        "{}",
        stderr(&unknown)
    );
    drop(running);

    let (table, screen) = (
        laboratory.path("both/features.parquet"),
        screen.display().to_string(),
    );
    let of_table = ["--features", &table, "--screen", &screen];
    for (name, more) in [("first-2", &[][..]), ("of-second-2", &second)] {
        let fitted = fit(&[&[name][..], &of_table, more].concat());
        assert_eq!(fitted.status.code(), Some(0), "{}", stderr(&fitted));
    }
    assert_eq!(laboratory.digest("first"), laboratory.digest("alone"));
    assert_eq!(laboratory.digest("first-2"), laboratory.digest("alone"));
    assert_eq!(laboratory.digest("of-second-2"), laboratory.digest("of-second"));
    assert_ne!(laboratory.digest("of-second"), laboratory.digest("alone"));

    let twice = fit(&["twice", "--features", &table, &table, "--screen", &screen]);
    let said = stderr(&twice);
    assert!(
        said.contains("is given twice") && said.trim().lines().count() == 1,
        "{said}"
    );
    let removed = laboratory.models(&["remove", "silu"]);
    assert!(
        stderr(&removed).contains("of-second, of-second-2 stand on silu"),
        "{}",
        stderr(&removed)
    );
}

fn refusals(laboratory: &Laboratory, table: &str, screen: &str) {
    let fit = |more: &[&str]| {
        let base = ["fit-head", "other", "--features", table, "--screen", screen];
        let output = laboratory.models(&[&base[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        stderr(&output)
    };
    let text = fit(&["--fewest-wells", "90"]);
    assert!(
        text.contains("control wells") && text.contains("--fewest-wells"),
        "{text}"
    );
    let text = fit(&["--kind", "probe", "--classes", "cell_lime"]);
    assert!(text.contains("cell_lime") && text.contains("it has"), "{text}");
    let text = fit(&["--classes", "role"]);
    assert!(text.contains("--kind probe"), "{text}");
    for option in [["--method", "zca"], ["--shrinkage", "0.1"], ["--components", "3"]] {
        let text = fit(&[&["--kind", "probe"][..], &option].concat());
        assert!(
            text.contains(option[0]) && text.contains("is for a whitening"),
            "{text}"
        );
    }
    let text = fit(&["--method", "pca", "--components", "40"]);
    assert!(
        text.contains("components is 40") && text.contains("at most"),
        "{text}"
    );
    let text = fit(&["--shrinkage", "2"]);
    assert!(text.contains("from 0 to 1"), "{text}");

    // The table says which screen it is of.
    let changed = laboratory.path("plates/changed.toml");
    let text = std::fs::read_to_string(screen).unwrap();
    std::fs::write(&changed, text.replace("tiling = \"centre\"", "tiling = \"grid\"")).unwrap();
    let other = ["fit-head", "other", "--features", table, "--screen", &changed];
    let output = laboratory.models(&other);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("of a screen with sha256") && text.contains("--other-screen"),
        "{text}"
    );
    assert_eq!(
        text.split(|c: char| !c.is_ascii_hexdigit())
            .filter(|word| word.len() == 64)
            .count(),
        2
    );
    let output = laboratory.models(&[&other[..], &["--other-screen"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(laboratory.models(&["remove", "other"]).status.code(), Some(0));
    csv_refusals(laboratory, screen);

    // Channels by other names, or in another order, are not those it was fitted on.
    let white = std::fs::read_to_string(laboratory.path("plates/white.toml")).unwrap();
    let (dna, agp) = (
        "{ name = \"DNA\", match = \"w1\" }",
        "{ name = \"AGP\", match = \"w2\" }",
    );
    let swapped = white.replace(dna, "@").replace(agp, dna).replace('@', agp);
    assert!(swapped != white, "{swapped}");
    let file = laboratory.path("plates/swapped.toml");
    std::fs::write(&file, swapped).unwrap();
    let mut run = wellspring(&laboratory.folder.path().join("models"));
    let output = run
        .args(["run", &file, "--out", &laboratory.path("swapped")])
        .output()
        .unwrap();
    let text = stderr(&output);
    assert!(
        output.status.code() == Some(2) && text.contains("DNA, AGP") && text.contains("AGP, DNA"),
        "{text}"
    );
    let mut check = wellspring(&laboratory.folder.path().join("models"));
    let output = check.args(["check", &file]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.code() == Some(1) && text.contains("model.name: white is a head"),
        "{text}"
    );
    unusable_heads(laboratory);
}

fn csv_refusals(laboratory: &Laboratory, screen: &str) {
    // A table that lacks a feature, and one of a network that is not the one here.
    let write = |features: std::ops::Range<usize>, name: &str, empty: &dyn Fn(usize, usize) -> bool| {
        let header: Vec<String> = features.map(|i| format!("{name}_{i}")).collect();
        let mut text = format!("plate,well,{}\n", header.join(","));
        for i in 0..40 {
            let (row, column) = (char::from(b'A' + i / 12), i % 12 + 1);
            let value = |j: usize| match empty(i.into(), j) {
                true => "nan".to_owned(),
                false => ((usize::from(i) * 31 + j * 17) % 23).to_string(),
            };
            let values = (0..header.len()).map(value);
            text.push_str(&format!(
                "SMALL0001,{row}{column:02},{}\n",
                values.collect::<Vec<_>>().join(",")
            ));
        }
        let path = laboratory.path("table.csv");
        std::fs::write(&path, text).unwrap();
        let output = laboratory.models(&["fit-head", "other", "--features", &path, "--screen", screen]);
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    let csv = |features, name: &str| write(features, name, &|_, _| false);
    let text = write(0..CHANNELS * WIDTH, "timm", &|_, j| j == 5);
    assert!(
        text.contains("feature timm_5 is NaN or empty in 100.0 % of the rows"),
        "{text}"
    );
    let text = write(0..CHANNELS * WIDTH, "timm", &|i, j| (i, j) == (1, 5));
    assert!(text.contains("A02): column timm_5 is empty or NaN"), "{text}");
    // The wells of the plate map that the table does not have, and not the one whose row was left out.
    assert!(
        text.contains("56 wells of") && !text.contains("57 wells of"),
        "{text}"
    );
    // A screen of profiles names no channels, and a table of another tool no screen: both are said, and taken.
    let profiles = laboratory.path("profiles.toml");
    let text = "[screen]\nname = \"p\"\n[profiles]\n[controls]\nreference = { role = \"healthy\" }\n\
                phenotype = { role = \"disease\" }\n";
    std::fs::write(&profiles, text).unwrap();
    csv(0..CHANNELS * WIDTH, "white");
    let table = laboratory.path("table.csv");
    let text = std::fs::read_to_string(&table)
        .unwrap()
        .replace("white_", "timm_");
    std::fs::write(&table, text).unwrap();
    let map = laboratory.path("plates/platemap.csv");
    let arguments = [
        "fit-head",
        "any",
        "--features",
        &table,
        "--screen",
        &profiles,
        "--platemap",
        &map,
    ];
    let output = laboratory.models(&[&arguments[..], &["--fewest-wells", "6"]].concat());
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("does not say which screen it is of") && text.contains("names no channels"),
        "{text}"
    );
    let text = csv(1..CHANNELS * WIDTH, "timm");
    assert!(
        text.contains("timm of 2 channels") && text.contains("timm_0 is missing"),
        "{text}"
    );
    let text = csv(0..CHANNELS * WIDTH, "resnet");
    assert!(text.contains("no model is called 'resnet'"), "{text}");
    let text = csv(0..CHANNELS * WIDTH, "white");
    assert!(text.contains("white is a head on another model"), "{text}");
}

fn unusable_heads(laboratory: &Laboratory) {
    // A card that cannot be read is told, and no hindrance to the others.
    let broken = laboratory.path("models/broken.card.json");
    std::fs::write(&broken, "{").unwrap();
    let listed = laboratory.models(&["list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.status.code() == Some(0) && text.contains("broken: the card '") && text.contains("white 1-"),
        "{text}"
    );
    let listed: Value = serde_json::from_slice(&laboratory.models(&["list", "--json"]).stdout).unwrap();
    let found = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|card| card["name"] == "broken");
    assert_eq!(found.unwrap()["state"], "broken");
    let mut check = wellspring(&laboratory.folder.path().join("models"));
    let output = check
        .args(["check", &laboratory.path("plates/white.toml")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(laboratory.models(&["remove", "broken"]).status.code(), Some(0));
    assert!(!Path::new(&broken).exists());

    // What is advised for a head is not to pull it.
    let card: Value =
        serde_json::from_slice(&std::fs::read(laboratory.path("models/white.card.json")).unwrap()).unwrap();
    let digest = &card["weights"]["content_sha256"].as_str().unwrap()[..12];
    let weights = laboratory.path(&format!("models/white-{digest}.safetensors"));
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let output = laboratory.models(&["verify", "white"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.code() == Some(1)
            && text.contains("pull white --from FILE")
            && text.contains("fit it anew"),
        "{text}"
    );
    let kept = laboratory.path("kept.safetensors");
    std::fs::write(&kept, &bytes).unwrap();
    let output = laboratory.models(&["pull", "white", "--from", &kept]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    // Without its base, or with another one of that name, a head is not verified and does not serve.
    let verify = |told: &str| {
        let output = laboratory.models(&["verify", "white"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(told), "{text}");
    };
    let verified = laboratory.models(&["verify", "white"]);
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
    assert_eq!(laboratory.models(&["remove", "timm"]).status.code(), Some(0));
    verify("head on timm, which cannot be used here");
    let other = std::fs::read_to_string(golden("timm.json")).unwrap();
    let other = other.replacen("\"version\": \"1\"", "\"version\": \"2\"", 1);
    std::fs::write(laboratory.path("other.json"), other).unwrap();
    let added = laboratory.models(&[
        "add",
        &golden("timm.safetensors"),
        "--card",
        &laboratory.path("other.json"),
    ]);
    assert_eq!(added.status.code(), Some(0), "{}", stderr(&added));
    verify("was fitted on timm of version 1");
    let bench = laboratory.models(&["bench", "white", "--batches", "1", "--threads", "1"]);
    assert!(
        bench.status.code() == Some(2) && stderr(&bench).contains("fit-head"),
        "{}",
        stderr(&bench)
    );
}
