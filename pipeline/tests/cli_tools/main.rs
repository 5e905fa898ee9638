//! The commands that need no network and no Kafka, through the built binary: simulate, check, compare, devices,
//! models, doctor, broker.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod align;
mod bad_files;
mod bad_screens;
mod bad_tables;
mod compare;
mod drift;
mod illumination;
mod made_up;
mod networks;
mod oracles;
mod relate;
mod residuals;
mod rows_of_wells;
mod run;
mod select;
mod tables;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn wellspring(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wellspring"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env_remove("WELLSPRING_KAFKA")
        .env("WELLSPRING_MODELS", folder.join("models"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The output of a command that must succeed.
fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = wellspring(folder, arguments);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}\n{}\n{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(folder, arguments)).unwrap()
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

const SMALL: [&str; 8] = [
    "--wells",
    "96",
    "--fields",
    "1",
    "--channels",
    "dna,AGP",
    "--size",
    "96x128",
];

fn simulate(folder: &Path, more: &[&str]) -> Output {
    let arguments: Vec<&str> = ["simulate"].iter().chain(&SMALL).chain(more).copied().collect();
    wellspring(folder, &arguments)
}

#[test]
fn a_simulated_plate_has_the_same_bytes_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    for (out, threads) in [("a", "1"), ("b", "3")] {
        let output = simulate(
            folder.path(),
            &["--out", out, "--threads", threads, "--seed", "5"],
        );
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).trim().ends_with("screen.toml"));
        assert!(stderr(&output).contains("fields/s"), "{}", stderr(&output));
        // Of 1.2 cells to a field many fields are empty: the screen's gates must not hold back its own plates.
        assert!(
            stderr(&output).contains("1.2 cells on average") && stderr(&output).contains("no quality gates"),
            "{}",
            stderr(&output)
        );
    }
    let (a, b) = (
        contents(&folder.path().join("a")),
        contents(&folder.path().join("b")),
    );
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    assert!(a == b);
    // 96 wells of two channels, two truth tables, plate map, settings and screen.
    assert_eq!(a.len(), 96 * 2 + 5);
    let plane = wellspring::decode::decode(&a["images/SIM0001/SIM0001_A01_s1_w2.tif"]).unwrap();
    assert_eq!((plane.height, plane.width, plane.ceiling), (96, 128, 65535));

    let other = simulate(folder.path(), &["--out", "c", "--seed", "6"]);
    assert_eq!(other.status.code(), Some(0));
    assert!(contents(&folder.path().join("c")) != a, "the seed must matter");

    // The settings that were written make the same plate again.
    ok(
        folder.path(),
        &["simulate", "--settings", "a/simulation.toml", "--out", "d"],
    );
    assert!(contents(&folder.path().join("d")) == a);
}

#[test]
fn simulate_never_writes_into_what_it_did_not_make() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/notes.txt"), "keep").unwrap();
    for more in [&["--out", "mine"][..], &["--out", "mine", "--force"]] {
        let output = simulate(folder.path(), more);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("mine"), "{}", stderr(&output));
    }
    assert_eq!(contents(&folder.path().join("mine")).len(), 1);

    assert_eq!(simulate(folder.path(), &["--out", "own"]).status.code(), Some(0));
    assert_eq!(simulate(folder.path(), &["--out", "own"]).status.code(), Some(2));
    let stray = folder.path().join("own/images/stray.tif");
    std::fs::write(&stray, "old").unwrap();
    assert_eq!(
        simulate(folder.path(), &["--out", "own", "--force"])
            .status
            .code(),
        Some(0)
    );
    assert!(!stray.exists(), "what an earlier simulation left is gone");
}

#[test]
fn simulate_says_what_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, told) in [
        (
            &["simulate", "--out", "x", "--channels", "GFP"][..],
            "Brightfield",
        ),
        (&["simulate", "--out", "x", "--size", "12y"], "480x640"),
        (&["simulate", "--out", "x", "--wells", "100"], "384"),
        (&["simulate", "--out", "x", "--demo", "--settings", "f"], "--demo"),
    ] {
        let output = wellspring(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            stderr(&output).contains(told),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    assert!(
        !folder.path().join("x").exists(),
        "nothing is made before the settings are known to be good"
    );
}

#[test]
fn check_accepts_what_simulate_wrote_and_finds_what_was_broken() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(simulate(folder.path(), &["--out", "p"]).status.code(), Some(0));
    let text = ok(folder.path(), &["check", "p/screen.toml"]);
    assert!(
        text.contains("Compares") && text.contains("nothing is wrong"),
        "{text}"
    );
    let whole = json(folder.path(), &["check", "p/screen.toml", "--images", "--json"]);
    assert_eq!(
        whole["plates"],
        serde_json::json!([{"plate": "SIM0001", "fields": 96}])
    );
    assert_eq!(whole["problems"], serde_json::json!([]));

    // A channel of one field, the images of one well, and the row of another are taken away.
    let images = folder.path().join("p/images/SIM0001");
    std::fs::remove_file(images.join("SIM0001_B02_s1_w2.tif")).unwrap();
    for channel in ["w1", "w2"] {
        std::fs::remove_file(images.join(format!("SIM0001_C03_s1_{channel}.tif"))).unwrap();
    }
    let map = std::fs::read_to_string(folder.path().join("p/platemap.csv")).unwrap();
    let kept: Vec<&str> = map.lines().filter(|line| !line.contains(",D04,")).collect();
    assert_eq!(kept.len() + 1, map.lines().count());
    std::fs::write(folder.path().join("p/platemap.csv"), kept.join("\n")).unwrap();
    let output = wellspring(folder.path(), &["check", "p/screen.toml", "--images", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let broken: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let problems = broken["problems"].as_array().unwrap();
    for well in ["B02", "C03", "D04"] {
        let of_well: Vec<_> = problems
            .iter()
            .filter(|problem| problem["well"] == well)
            .collect();
        assert_eq!(of_well.len(), 1, "{well}: {problems:#?}");
    }
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert_eq!(broken["plates"][0]["fields"], 93);
    let output = wellspring(folder.path(), &["check", "p/screen.toml", "--images"]);
    assert!(stdout(&output).contains("3 problems"), "{}", stdout(&output));

    // The plate map is read without them too; one that is not there yet is no problem of the file.
    let rename = |map: &str| std::fs::write(folder.path().join("p/platemap.csv"), map).unwrap();
    rename(&map.replace("healthy", "helthy"));
    let output = wellspring(folder.path(), &["check", "p/screen.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("controls.reference"),
        "{}",
        stdout(&output)
    );
    std::fs::remove_file(folder.path().join("p/platemap.csv")).unwrap();
    let text = ok(folder.path(), &["check", "p/screen.toml"]);
    assert!(
        text.contains("platemap.csv is not there yet") && text.contains("--images"),
        "{text}"
    );
    // An image store that cannot be opened does not hide what is wrong with the map.
    std::fs::remove_dir_all(folder.path().join("p/images")).unwrap();
    let output = wellspring(folder.path(), &["check", "p/screen.toml", "--images"]);
    assert!(stdout(&output).contains("2 problems"), "{}", stdout(&output));
}

/// The problems of a check, as (kind, well, message).
fn problems(folder: &Path, arguments: &[&str]) -> Vec<(String, String, String)> {
    let output = wellspring(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let problems = told["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| {
            (
                text(&problem["kind"]),
                text(&problem["well"]),
                text(&problem["message"]),
            )
        })
        .collect()
}

#[test]
fn check_tells_what_is_wrong_with_map_planes_and_files_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(simulate(path, &["--out", "p"]).status.code(), Some(0));
    let images = path.join("p/images/SIM0001");
    let screen = std::fs::read_to_string(path.join("p/screen.toml")).unwrap();
    let broken = screen
        .replace(
            "phenotype = { role = \"disease\" }",
            "phenotype = { role = \"diseased\" }",
        )
        .replace(
            "[preprocess]\n",
            "[preprocess]\nillumination = \"{channel}.npy\"\n",
        );
    std::fs::write(path.join("p/broken.toml"), broken).unwrap();
    std::fs::remove_file(images.join("SIM0001_B02_s1_w2.tif")).unwrap();
    let told = problems(path, &["check", "p/broken.toml", "--images", "--json"]);
    for (kind, well, part) in [
        (
            "plate_map",
            "",
            "controls.phenotype (role = \"diseased\") selects no well of plate SIM0001",
        ),
        ("configuration", "", "DNA.npy"),
        ("configuration", "", "AGP.npy"),
        ("missing_image", "B02", "no file for channel AGP"),
    ] {
        let found = told
            .iter()
            .filter(|(of, at, text)| of == kind && at == well && text.contains(part));
        assert_eq!(found.count(), 1, "{kind} {well} {part}: {told:#?}");
    }
    assert_eq!(told.len(), 4, "{told:#?}");

    // A plate that neither the store nor the map knows.
    let told = problems(
        path,
        &["check", "p/screen.toml", "--plates", "SIM0001,SIM0002", "--json"],
    );
    for part in [
        "no image of plate SIM0002 was found",
        "no row for plate SIM0002",
        "channel AGP",
    ] {
        assert_eq!(
            told.iter().filter(|(.., text)| text.contains(part)).count(),
            1,
            "{told:#?}"
        );
    }

    // Neither the map nor the store can be read: both are told.
    let nothing = screen
        .replace("platemap.csv", "absent.csv")
        .replace("\"images\"", "\"nowhere\"");
    std::fs::write(path.join("p/nothing.toml"), nothing).unwrap();
    let told = problems(path, &["check", "p/nothing.toml", "--images", "--json"]);
    assert!(told[0].2.contains("nowhere"), "{told:#?}");

    // A file that no worker could read is found without one.
    std::fs::write(images.join("SIM0001_A01_s1_w1.tif"), b"II*\0cut").unwrap();
    let told = problems(path, &["check", "p/screen.toml", "--images", "--json"]);
    assert!(
        told.iter()
            .any(|(kind, well, text)| kind == "bad_image" && well == "A01" && text.contains("A01_s1_w1.tif")),
        "{told:#?}"
    );

    // Controls that were never imaged leave nothing to compare with.
    let map = std::fs::read_to_string(path.join("p/platemap.csv")).unwrap();
    for row in map.lines().filter(|row| row.contains(",healthy,healthy,")) {
        let well = row.split(',').nth(1).unwrap();
        for channel in ["w1", "w2"] {
            std::fs::remove_file(images.join(format!("SIM0001_{well}_s1_{channel}.tif"))).unwrap();
        }
    }
    let told = problems(path, &["check", "p/screen.toml", "--images", "--json"]);
    let part = "no well of controls.reference has a field with all its images";
    assert!(
        told[0].2.contains(part) && told[0].0 == "missing_image",
        "{told:#?}"
    );
    let checked = wellspring(path, &["check", "p/screen.toml", "--images", "--json"]);
    let checked: Value = serde_json::from_str(&stdout(&checked)).unwrap();
    assert_eq!(checked["plates"][0]["fields"], 0, "nothing of it is worked on");
}

#[test]
fn check_prints_all_of_thirty_problems_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let keys: String = (1..=30).map(|i| format!("wrong_key_{i:02} = {i}\n")).collect();
    let text = format!(
        "[screen]\nname = \"broken\"\n[images]\nstore = \"images\"\nchannels = [\"DNA\"]\n{keys}\
         [plate_map]\nfile = \"map.csv\"\n[controls]\nreference = {{ a = 1 }}\nphenotype = {{ a = 2 }}\n"
    );
    std::fs::write(folder.path().join("broken.toml"), &text).unwrap();
    let output = wellspring(folder.path(), &["check", "broken.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    for i in 1..=30 {
        let (key, line) = (format!("wrong_key_{i:02}"), format!("broken.toml:{}:", i + 5));
        assert!(
            said.lines()
                .any(|told| told.starts_with(&line) && told.contains(&key)),
            "{key}: {said}"
        );
    }
    assert!(said.contains("30 problems"), "{said}");
    let output = wellspring(folder.path(), &["check", "broken.toml", "--json"]);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["problems"].as_array().unwrap().len(), 30);
    assert_eq!(told["problems"][0]["line"], 6);

    let missing = wellspring(folder.path(), &["check", "absent.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("absent.toml"));
}

#[test]
fn check_names_a_store_and_a_model_that_do_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let screen = SCREEN.replace("store = \"images\"", "store = \"nowhere\"");
    std::fs::write(folder.path().join("s.toml"), &screen).unwrap();
    let output = wellspring(folder.path(), &["check", "s.toml", "--images"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("nowhere"), "{}", stdout(&output));
    std::fs::write(
        folder.path().join("s.toml"),
        screen + "[model]\nname = \"resnet\"\n",
    )
    .unwrap();
    let output = wellspring(folder.path(), &["check", "s.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("efficientnet-lite0"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn devices_lists_the_cpu_and_says_what_auto_takes() {
    let folder = tempfile::tempdir().unwrap();
    let told = json(folder.path(), &["devices", "--json"]);
    let devices = told["devices"].as_array().unwrap();
    assert_eq!(devices[0]["kind"], "cpu");
    assert_eq!(
        devices
            .iter()
            .filter(|device| device["chosen_by_auto"] == true)
            .count(),
        1
    );
    assert!(
        told["auto"]["why"].as_str().unwrap().starts_with("auto"),
        "{told}"
    );
    assert!(ok(folder.path(), &["devices"]).contains("auto takes"));
}

#[test]
fn models_are_listed_as_absent_and_verify_says_how_to_get_them() {
    let folder = tempfile::tempdir().unwrap();
    let told = json(folder.path(), &["models", "list", "--json"]);
    assert_eq!(told[0]["name"], "efficientnet-lite0");
    assert_eq!(told[0]["state"], "absent");
    let output = wellspring(folder.path(), &["models", "verify", "efficientnet-lite0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("models pull efficientnet-lite0"),
        "{}",
        stdout(&output)
    );
    let output = wellspring(folder.path(), &["models", "pull", "resnet"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("efficientnet-lite0"),
        "{}",
        stderr(&output)
    );

    // A damaged file is told from an absent one, and a file that is no weights is never kept.
    let path = std::path::PathBuf::from(told[0]["weights"].as_str().unwrap());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"damaged").unwrap();
    assert_eq!(
        json(folder.path(), &["models", "list", "--json"])[0]["state"],
        "damaged"
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::write(folder.path().join("no-weights"), b"not weights at all").unwrap();
    let pulled = wellspring(
        folder.path(),
        &["models", "pull", "efficientnet-lite0", "--from", "no-weights"],
    );
    assert_eq!(pulled.status.code(), Some(2));
    assert!(!path.exists());
}

#[test]
fn a_model_of_ones_own_is_added_listed_verified_measured_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let golden = |file: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden");
        path.join(file).to_str().unwrap().to_owned()
    };
    let (weights, card) = (golden("openphenom-layout.pt"), golden("openphenom-layout.json"));
    let add = ["models", "add", &weights, "--card", &card, "--name", "mine"];
    assert!(ok(folder.path(), &add).contains("mine 1 is ready"));
    let told = json(folder.path(), &["models", "list", "--json"]);
    let mine = told.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&mine["name"], &mine["state"]),
        (&"mine".into(), &"verified".into())
    );
    assert!(ok(folder.path(), &["models", "verify", "mine"]).contains("verified"));
    let bench = ["models", "bench", "mine", "--batches", "1", "--threads", "1"];
    assert!(ok(folder.path(), &bench).contains("mine, batch of 1"));
    let again = wellspring(folder.path(), &add);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("already"), "{}", stderr(&again));
    // Weights that are no such network's, and a template that is none.
    let other = golden("timm.safetensors");
    let wrong = wellspring(
        folder.path(),
        &["models", "add", &other, "--template", "openphenom"],
    );
    assert_eq!(wrong.status.code(), Some(2));
    let none = wellspring(folder.path(), &["models", "add", &other, "--template", "resnet"]);
    assert!(stderr(&none).contains("dinov2-vit-s14"), "{}", stderr(&none));
    assert!(ok(folder.path(), &["models", "remove", "mine"]).contains("removed"));
    // But for the lock, which stays.
    let left = std::fs::read_dir(folder.path().join("models")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"]);
}

#[test]
fn doctor_fails_only_where_something_fails() {
    let folder = tempfile::tempdir().unwrap();
    let output = wellspring(folder.path(), &["doctor", "--json", "--kafka", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["ok"], false);
    let grade = |name: &str| {
        let checks = told["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["check"] == name)
            .map(|check| check["grade"].clone())
            .unwrap()
    };
    assert_eq!(grade("kafka"), "fail");
    assert_eq!(grade("efficientnet-lite0"), "warn");
    assert_eq!(grade("temporary folder"), "ok");
    assert_eq!(grade("device"), "ok");
}

#[cfg(unix)]
#[test]
fn broker_tells_its_address_serves_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wellspring"))
        .args(["broker", "--data", "log", "--listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    let told = wellspring(folder.path(), &["doctor", "--json", "--kafka", &address]);
    let told: Value = serde_json::from_str(&stdout(&told)).unwrap();
    let kafka = told["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["check"] == "kafka")
        .cloned();
    let stopped = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(kafka.unwrap()["grade"], "ok");

    let outside = wellspring(
        folder.path(),
        &["broker", "--data", "log", "--listen", "0.0.0.0:0"],
    );
    assert_eq!(outside.status.code(), Some(2));
    assert!(stderr(&outside).contains("0.0.0.0"), "{}", stderr(&outside));
}

const SCREEN: &str = "[screen]\nname = \"small\"\n[images]\nstore = \"images\"\nchannels = [\"DNA\"]\n\
    [plate_map]\nfile = \"map.csv\"\n[controls]\nreference = { role = \"healthy\" }\n\
    phenotype = { role = \"disease\" }\n";

#[test]
fn every_command_has_help_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        "simulate", "models", "devices", "doctor", "check", "broker", "compare", "drift", "bench", "run",
        "worker", "submit",
    ];
    for command in commands {
        let text = ok(folder.path(), &[command, "--help"]);
        assert!(
            text.contains("Example") && text.contains(&format!("wellspring {command}")),
            "{command}: {text}"
        );
    }
}
