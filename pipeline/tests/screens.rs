//! Whole screens through the binary: known answers, bad input, kill -9, a fleet of workers, a real plate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{
    Running, apache_kafka, comparisons, dead_letters, few_wells, models, rows_of, run_json, shared, simulate,
    small_plate, start_broker, wait_for, wellspring,
};
use serde_json::Value;
use wellspring::error::FailureClass;
use wellspring::events::FieldFeatures;
use wellspring::kafka::producer::{BatchProducer, Committed};
use wellspring::kafka::tail::{Polled, Tail};
use wellspring::kafka::topics::{Topic, create_missing};
use wellspring::kafka::{KafkaSettings, OutRecord};
use wellspring::resolve::read_letters;

fn count(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no number '{key}' in {value}"))
}

#[test]
fn the_planted_rescuer_ranks_first_and_the_planted_toxicant_is_called_toxic() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = folder.path().join("plates");
    let made = wellspring(&models)
        .args(["simulate", "--demo", "--out"])
        .arg(&plates)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let out = folder.path().join("out");
    let (code, summary) = run_json(
        wellspring(&models)
            .arg("run")
            .arg(plates.join("screen.toml"))
            .arg("--out")
            .arg(&out)
            .arg("--json"),
    );
    assert_eq!(code, 0, "{summary}");
    assert_eq!(
        (count(&summary, "fields_expected"), count(&summary, "fields_done")),
        (576, 576)
    );
    assert_eq!((count(&summary, "lost"), count(&summary, "dead_letters")), (0, 0));
    for key in [
        "screen",
        "run",
        "fields_failed",
        "seconds",
        "peak_rss_bytes",
        "out",
    ] {
        assert!(!summary[key].is_null(), "{key}");
    }
    for file in [
        "features.parquet",
        "profiles.parquet",
        "quality.parquet",
        "dead-letters.jsonl",
        "report.html",
        "run.json",
    ] {
        assert!(out.join(file).exists(), "{file}");
    }
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    // Ranked by the same summaries the report shows first.
    let place = |name: &str| report.find(name).unwrap_or(usize::MAX);
    assert!(place("rescuer-strong") < place("INA-001") && place("rescuer-strong") < place("toxicant"));

    // Nuclei are counted: as many as were drawn, and fewer where a compound kills.
    let truth = std::fs::read_to_string(plates.join("truth_wells.csv")).unwrap();
    let mut lines = truth.lines();
    let column = lines
        .next()
        .unwrap()
        .split(',')
        .position(|name| name == "cell_count");
    let drawn: f64 = lines
        .map(|line| {
            line.split(',')
                .nth(column.unwrap())
                .unwrap()
                .parse::<f64>()
                .unwrap()
        })
        .sum();
    let counted: f64 = rows_of(&out.join("quality.parquet"))
        .iter()
        .filter_map(|row| row["Count_Nuclei"].as_f64())
        .sum();
    assert!((0.9..1.1).contains(&(counted / drawn)), "{counted} of {drawn}");

    let rows = comparisons(&out);
    let least = |compound: &str| {
        let of = rows.iter().filter(|row| row["compound"] == compound);
        of.map(|row| row["cell_ratio"].as_f64().unwrap())
            .fold(f64::MAX, f64::min)
    };
    assert!(
        least("toxicant") < 0.7 && least("rescuer-strong") > 0.7,
        "{} {}",
        least("toxicant"),
        least("rescuer-strong")
    );
    let calls = |compound: &str| -> Vec<String> {
        let of = rows.iter().filter(|row| row["compound"] == compound);
        of.map(|row| row["call"].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        calls("rescuer-strong").contains(&"rescue_hit".to_owned()),
        "{:?}",
        calls("rescuer-strong")
    );
    for toxicant in ["toxicant", "TOX-001"] {
        assert!(
            calls(toxicant).contains(&"toxic".to_owned()),
            "{toxicant}: {:?}",
            calls(toxicant)
        );
    }
    for inactive in ["INA-001", "INA-002", "INA-003", "INA-004"] {
        assert!(
            calls(inactive).iter().all(|call| call == "inactive"),
            "{inactive}: {:?}",
            calls(inactive)
        );
    }
}

#[test]
fn every_kind_of_bad_input_is_one_dead_letter_and_the_rest_of_the_plate_goes_on() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\", \"AGP\""));
    let plates = folder.path().join("plates");
    let image = |well: &str, field: u32, channel: u32| {
        plates.join(format!(
            "images/SMALL0001/SMALL0001_{well}_s{field}_w{channel}.tif"
        ))
    };
    // A channel absent from one field.
    std::fs::remove_file(image("B02", 1, 2)).unwrap();
    // A field without any image.
    std::fs::remove_file(image("B03", 2, 1)).unwrap();
    std::fs::remove_file(image("B03", 2, 2)).unwrap();
    // A truncated image, and one that is no image.
    let whole = std::fs::read(image("B04", 1, 1)).unwrap();
    std::fs::write(image("B04", 1, 1), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(image("B05", 2, 2), "not an image").unwrap();
    // A well without images, and a well without a row in the plate map.
    for (field, channel) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        std::fs::remove_file(image("B06", field, channel)).unwrap();
    }
    let map = plates.join("platemap.csv");
    let rows = std::fs::read_to_string(&map).unwrap();
    let kept: Vec<&str> = rows.lines().filter(|row| !row.contains(",B07,")).collect();
    assert_eq!(kept.len() + 1, rows.lines().count());
    std::fs::write(&map, kept.join("\n")).unwrap();

    // A truncated event waits on the plates topic of a broker that outlives the run.
    let (broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let kafka = KafkaSettings::new(bootstrap, "wellspring", "test");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(create_missing(&kafka)).unwrap();
    let truncated = OutRecord::of_bytes(
        Topic::Plates,
        "SMALL0001",
        "truncated",
        "wellspring.plate-ready.v1",
        b"{\"plate\":\"SMALL00".to_vec(),
    );
    let producer = BatchProducer::open(&kafka, "test").unwrap();
    assert_eq!(producer.publish([&truncated]).unwrap(), Committed::Yes);

    let out = folder.path().join("out");
    let mut run = wellspring(&models);
    run.arg("run")
        .arg(plates.join("screen.toml"))
        .arg("--json")
        .arg("--out")
        .arg(&out);
    run.arg("--kafka").arg(&kafka.bootstrap);
    let (code, summary) = run_json(&mut run);
    // Nobody can tell which run the event was for.
    let of_no_run: Vec<_> = read_letters(&kafka)
        .unwrap()
        .into_iter()
        .filter(|stored| stored.letter.run.is_none())
        .map(|stored| stored.letter.class)
        .collect();
    assert_eq!(of_no_run, [FailureClass::BadEvent]);
    drop(broker);

    assert_eq!(code, 1, "{summary}");
    let mut found: Vec<(String, String)> = dead_letters(&out)
        .iter()
        .map(|letter| {
            let well = letter["well"].as_str().unwrap().to_owned();
            (well, letter["class"].as_str().unwrap().to_owned())
        })
        .collect();
    found.sort();
    let expected = [
        ("B02", "missing_image"),
        ("B03", "missing_image"),
        ("B04", "bad_image"),
        ("B05", "bad_image"),
        ("B06", "missing_image"),
        ("B07", "plate_map"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    assert_eq!(found, expected);
    // 96 wells of 2 fields; lost: 1 + 1 + 1 + 1 + 2 + 2.
    assert_eq!(count(&summary, "fields_expected"), 192);
    assert_eq!(
        (count(&summary, "fields_done"), count(&summary, "fields_failed")),
        (184, 8)
    );
    assert_eq!((count(&summary, "dead_letters"), count(&summary, "lost")), (6, 0));
    for letter in dead_letters(&out) {
        assert!(letter["message"].as_str().unwrap().len() > 20, "{letter}");
    }
}

#[test]
fn an_unreachable_store_and_a_missing_plate_map_are_dead_letters_of_each_plate() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("map.csv"),
        "well,role\nA01,healthy\nA02,disease\n",
    )
    .unwrap();
    // What else is wrong is told beside it: no plate has an image.
    for (name, store, map, classes) in [
        ("store", "s3://nowhere/plates", "map.csv", &["network"][..]),
        ("map", ".", "absent.csv", &["missing_image", "plate_map"]),
    ] {
        let screen = folder.path().join(format!("{name}.toml"));
        let text = format!(
            "[screen]\nname = \"{name}\"\n[images]\nstore = \"{store}\"\nlayout = \"imagexpress\"\nplates = [\"P1\", \"P2\"]\n\
             channels = [{{ name = \"DNA\", match = \"w1\" }}]\n[plate_map]\nfile = \"{map}\"\n\
             [controls]\nreference = {{ role = \"healthy\" }}\nphenotype = {{ role = \"disease\" }}\n"
        );
        std::fs::write(&screen, text).unwrap();
        let out = folder.path().join(name);
        let mut run = wellspring(&models);
        // Nothing listens on the discard port of this machine.
        run.env("AWS_ENDPOINT", "http://127.0.0.1:9")
            .env("AWS_ALLOW_HTTP", "true")
            .env("WELLSPRING_RETRY_DELAYS", "0,0");
        run.env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .env("AWS_REGION", "x");
        let (code, summary) = run_json(run.arg("run").arg(&screen).arg("--json").arg("--out").arg(&out));
        let expected = 2 * classes.len() as u64;
        assert_eq!(
            (code, count(&summary, "dead_letters")),
            (1, expected),
            "{summary}"
        );
        let letters = dead_letters(&out);
        for plate in ["P1", "P2"] {
            let of_plate = letters.iter().filter(|letter| letter["plate"] == plate);
            let mut found: Vec<&str> = of_plate.map(|letter| letter["class"].as_str().unwrap()).collect();
            found.sort_unstable();
            assert_eq!(found, classes, "{letters:?}");
        }
    }
}

#[test]
fn a_run_of_which_nothing_can_be_compared_says_so_and_does_not_end_well() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let screen = folder.path().join("plates/screen.toml");
    let text = std::fs::read_to_string(&screen).unwrap();
    assert!(!text.contains("[quality]"), "{text}");
    std::fs::write(
        &screen,
        format!("{text}\n[quality]\nslope_blur = 99\nslope_empty = 100\n"),
    )
    .unwrap();
    let run = |more: &[&str]| {
        let mut command = wellspring(&models);
        command
            .arg("run")
            .arg(&screen)
            .arg("--out")
            .arg(folder.path().join("out"));
        command.args(more).output().unwrap()
    };
    let output = run(&[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no result: nothing could be compared"), "{said}");
    assert!(
        said.contains("96 wells have too few fields") && said.contains("is held back"),
        "{said}"
    );
    // One line for all wells, and none that suspects the features.
    assert!(
        said.lines().count() < 10 && !said.contains("made for this screen"),
        "{said}"
    );
    let output = run(&["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(
        (count(&summary, "fields_done"), count(&summary, "fields_failed")),
        (192, 0)
    );
    assert_eq!(summary["compared"], false);
}

/// An image of zeros, of the size of what it replaces.
fn blank(image: &Path) {
    use tiff::encoder::{TiffEncoder, colortype::Gray16};
    let mut before = tiff::decoder::Decoder::new(std::fs::File::open(image).unwrap()).unwrap();
    let (width, height) = before.dimensions().unwrap();
    let mut after = TiffEncoder::new(std::fs::File::create(image).unwrap()).unwrap();
    let zeros = vec![0; width as usize * height as usize];
    after.write_image::<Gray16>(width, height, &zeros).unwrap();
}

#[test]
fn a_plate_that_a_gate_holds_back_is_compared_when_it_is_released() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    // Four of 24 fields show nothing: more than a plate may lose.
    let images = plates.join("images/SMALL0001");
    for well in ["E01", "F02", "G03", "H01"] {
        blank(&images.join(format!("SMALL0001_{well}_s1_w1.tif")));
    }
    let (_broker, address) = start_broker(&models, &folder.path().join("data"));
    let out = folder.path().join("out");
    let run = || {
        let mut command = wellspring(&models);
        command.arg("run").arg(plates.join("screen.toml"));
        command.args(["--json", "--kafka", &address, "--out"]).arg(&out);
        run_json(&mut command)
    };
    let told = |arguments: &[&str]| {
        let mut command = wellspring(&models);
        let output = command
            .arg("plates")
            .args(arguments)
            .args(["--kafka", &address])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let held_back = || {
        let profiles = rows_of(&out.join("profiles.parquet"));
        profiles.iter().all(|well| well["Metadata_held_back"] == "true")
    };
    let (code, summary) = run();
    assert_eq!(
        (code, &summary["compared"]),
        (1, &Value::from(false)),
        "{summary}"
    );
    assert!(held_back());
    let (_, listed) = told(&["list"]);
    assert!(
        listed.contains("\theld back\t") && listed.contains("16.7 % of its fields failed"),
        "{listed}"
    );
    let (code, said) = told(&["release", "SMALL0002"]);
    assert!(
        code == Some(2) && said.contains("SMALL0002 is not held back: it is in no run"),
        "{said}"
    );

    let (code, said) = told(&["release", "SMALL0001"]);
    assert!(code == Some(0) && said.contains("SMALL0001 released"), "{said}");
    let (code, said) = told(&["release", "SMALL0001"]);
    assert!(code == Some(2) && said.contains("it is released in"), "{said}");
    let (_, summary) = run();
    assert_eq!(summary["compared"], true, "{summary}");
    assert!(!held_back());
    let (_, listed) = told(&["list"]);
    assert!(listed.contains("\tprofiled\t"), "{listed}");
    // The same again is the same run: nothing is held back any more, and nothing is published twice.
    let before = std::fs::read(out.join("comparisons.parquet")).unwrap();
    run();
    assert!(before == std::fs::read(out.join("comparisons.parquet")).unwrap());
}

/// Of each field one plane in focus and two flat ones, in the folders of MetaXpress.
#[test]
fn the_plane_that_was_taken_of_a_stack_is_in_the_table_of_its_field() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    let images = plates.join("images/SMALL0001");
    for step in ["ZStep_1", "ZStep_2", "ZStep_3"] {
        std::fs::create_dir(images.join(step)).unwrap();
    }
    let entries = std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap());
    let files: Vec<_> = entries.filter(|entry| entry.path().is_file()).collect();
    for file in files {
        for flat in ["ZStep_1", "ZStep_2"] {
            let place = images.join(flat).join(file.file_name());
            std::fs::copy(file.path(), &place).unwrap();
            blank(&place);
        }
        std::fs::rename(file.path(), images.join("ZStep_3").join(file.file_name())).unwrap();
    }
    let screen = plates.join("screen.toml");
    let text = std::fs::read_to_string(&screen).unwrap();
    for (z, taken) in [("max", Value::Null), ("best_focus", 3.0.into())] {
        let name = format!("[images]\nz = \"{z}\"\n");
        let of_stack = text.replace("[images]\n", &name);
        std::fs::write(&screen, of_stack).unwrap();
        let out = folder.path().join(z);
        let mut run = wellspring(&models);
        let (_, summary) = run_json(run.arg("run").arg(&screen).args(["--json", "--out"]).arg(&out));
        assert_eq!(summary["fields_done"], 24, "{summary}");
        let rows = rows_of(&out.join("quality.parquet"));
        assert_eq!(rows.len(), 24);
        for row in rows {
            assert_eq!(
                (
                    &row["ImageQuality_Planes_DNA"],
                    &row["ImageQuality_FocusPlane_DNA"]
                ),
                (&3.0.into(), &taken),
                "{z}"
            );
        }
    }
}

#[test]
fn a_channel_that_matches_no_file_is_named_with_what_was_found_instead() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let screen = folder.path().join("plates/screen.toml");
    let text = std::fs::read_to_string(&screen).unwrap();
    std::fs::write(&screen, text.replace("match = \"w1\"", "match = \"w9\"")).unwrap();
    let out = folder.path().join("out");
    let (code, summary) = run_json(
        wellspring(&models)
            .arg("run")
            .arg(&screen)
            .arg("--json")
            .arg("--out")
            .arg(&out),
    );
    assert_eq!((code, count(&summary, "dead_letters")), (1, 1), "{summary}");
    let message = dead_letters(&out)[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("192 files of channel 'w1'"), "{message}");
}

#[test]
fn a_killed_run_started_again_leaves_the_same_files_as_an_undisturbed_one() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let screen = folder.path().join("plates/screen.toml");
    let run = |out: &Path| {
        let mut command = wellspring(&models);
        command
            .arg("run")
            .arg(&screen)
            .arg("--json")
            .arg("--out")
            .arg(out);
        command
    };
    let undisturbed = folder.path().join("undisturbed");
    let (code, _) = run_json(&mut run(&undisturbed));
    assert_eq!(code, 0);

    let killed = folder.path().join("killed");
    // Killed with its first fields committed, and again further on. A transaction holds 64 fields at most (those in
    // flight), so neither can commit the last of the 192.
    for times in 1..=2 {
        let ended = run(&killed)
            .env("FAILPOINTS", "worker.committed=1*off->return")
            .output()
            .unwrap();
        assert_eq!(
            ended.status.signal(),
            Some(libc::SIGABRT),
            "time {times}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
        assert!(!killed.join("run.json").exists(), "time {times}");
    }
    let (code, summary) = run_json(&mut run(&killed));
    assert_eq!(
        (code, count(&summary, "fields_done"), count(&summary, "lost")),
        (0, 192, 0)
    );
    for file in [
        "features.parquet",
        "profiles.parquet",
        "quality.parquet",
        "comparisons.parquet",
        "compounds.parquet",
        "wells.parquet",
        "windows.parquet",
        "dead-letters.jsonl",
    ] {
        let (a, b) = (
            std::fs::read(undisturbed.join(file)).unwrap(),
            std::fs::read(killed.join(file)).unwrap(),
        );
        assert!(a == b, "{file} differs");
    }
    // A finished run started once more changes nothing and computes nothing.
    let (code, again) = run_json(&mut run(&killed));
    assert_eq!((code, count(&again, "fields_done")), (0, 192));
    let (a, b) = (
        undisturbed.join("features.parquet"),
        killed.join("features.parquet"),
    );
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
}

#[test]
fn a_fleet_that_loses_a_worker_publishes_every_field_exactly_once() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    lose_a_worker(&models, bootstrap, "wellspring");
}

#[test]
fn on_apache_kafka_too_a_fleet_that_loses_a_worker_publishes_every_field_exactly_once() {
    let (Some(models), Some(bootstrap)) = (models(), apache_kafka()) else {
        return;
    };
    // The process id keeps runs on the same Kafka apart.
    lose_a_worker(&models, bootstrap, &format!("test-{}", std::process::id()));
}

/// A small screen with `serve` and one worker that is killed; a second one does the rest.
fn lose_a_worker(models: &Path, bootstrap: String, prefix: &str) {
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let kafka = KafkaSettings::new(bootstrap, prefix, "test");
    let role = |arguments: &[&str]| {
        let mut command = wellspring(models);
        command.args(arguments).arg("--kafka").arg(&kafka.bootstrap);
        command.args(["--prefix", prefix]);
        command
    };
    let submitted = role(&["submit"])
        .arg(folder.path().join("plates/screen.toml"))
        .output()
        .unwrap();
    assert!(
        submitted.status.success(),
        "{}",
        String::from_utf8_lossy(&submitted.stderr)
    );
    let results = folder.path().join("results");
    let spawn = |command: &mut Command| {
        Running(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    };
    let _serve = spawn(role(&["serve", "--no-worker"]).arg("--out").arg(&results));
    let mut doomed = spawn(&mut role(&["worker"]));
    let mut tail = Tail::open(&kafka, &[Topic::Features]).unwrap();
    let mut seen = Vec::new();
    let read = |tail: &mut Tail, seen: &mut Vec<String>| {
        if let Polled::Record(record) = tail.poll(Duration::from_millis(50)).unwrap() {
            let features: FieldFeatures = record.read().unwrap();
            seen.push(features.field.to_string());
        }
        seen.len()
    };
    wait_for("the first features", || read(&mut tail, &mut seen) >= 10);
    doomed.0.kill().unwrap();
    let mut other = spawn(&mut role(&["worker"]));
    let finished = || {
        std::fs::read_dir(&results)
            .is_ok_and(|mut runs| runs.any(|run| run.is_ok_and(|run| run.path().join("run.json").exists())))
    };
    wait_for("the results", || {
        read(&mut tail, &mut seen);
        assert!(other.0.try_wait().unwrap().is_none(), "the second worker died");
        finished()
    });
    wait_for("the last features", || read(&mut tail, &mut seen) >= 192);
    for _ in 0..20 {
        read(&mut tail, &mut seen);
    }
    let total = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((total, seen.len()), (192, 192));

    // SIGTERM ends a worker with exit code 0.
    let terminated = Command::new("kill")
        .arg("-TERM")
        .arg(other.0.id().to_string())
        .status()
        .unwrap();
    assert!(terminated.success());
    wait_for("the worker's end", || other.0.try_wait().unwrap().is_some());
    assert!(other.0.wait().unwrap().success());
    // Everything is done, so a worker that drains has nothing left and ends by itself.
    let drained = role(&["worker", "--until-drained"]).output().unwrap();
    assert!(
        drained.status.success(),
        "{}",
        String::from_utf8_lossy(&drained.stderr)
    );
}

#[test]
fn the_transfluor_plate_gives_the_known_order_of_doses() {
    let Some(models) = models() else { return };
    if shared("data/transfluor/platemap.csv").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let screen = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/screens/transfluor.toml");
    let mut run = wellspring(&models);
    let (code, summary) = run_json(
        run.arg("run")
            .arg(screen)
            .arg("--json")
            .arg("--out")
            .arg(folder.path()),
    );
    assert_eq!(
        (code, count(&summary, "fields_done"), count(&summary, "lost")),
        (0, 72, 0)
    );
    let rows = comparisons(folder.path());
    let at = |dose: f64| {
        let row = rows
            .iter()
            .find(|row| row["dose"] == dose)
            .unwrap_or_else(|| panic!("no dose {dose}"));
        row["on_axis"].as_f64().unwrap()
    };
    for dose in [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0] {
        assert!(at(dose).abs() < 0.1, "dose {dose}: {}", at(dose));
    }
    assert!((0.8..1.05).contains(&at(10.0)), "{}", at(10.0));
    assert!((at(30.0) - 1.0).abs() < 0.05, "{}", at(30.0));
    assert!(
        at(100.0) < at(30.0) - 0.2 && at(3.0) > 0.1,
        "{} {}",
        at(100.0),
        at(3.0)
    );
    let report = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        report.contains("falls back at higher doses"),
        "the curve must follow the fall"
    );
}
