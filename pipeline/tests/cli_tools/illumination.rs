//! Illumination functions are estimated from a plate's images, and used by the screen they are for.

use std::path::Path;

use crate::{ok, stderr, stdout, wellspring};

/// A plate of which the corners get 0.4 of the centre's light.
fn plate(folder: &Path) -> String {
    let arguments = "simulate --wells 96 --fields 1 --channels dna,AGP --size 120x160 --seed 3 --out sim";
    ok(folder, &arguments.split(' ').collect::<Vec<_>>());
    let settings = std::fs::read_to_string(folder.join("sim/simulation.toml")).unwrap();
    assert!(settings.contains("vignetting = 0.3"), "{settings}");
    std::fs::write(
        folder.join("dim.toml"),
        settings.replace("vignetting = 0.3", "vignetting = 0.6"),
    )
    .unwrap();
    ok(folder, &["simulate", "--settings", "dim.toml", "--out", "dim"]);
    "dim/screen.toml".to_owned()
}

fn plane(path: &Path) -> Vec<f64> {
    let array = wellspring::npy::read(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(array.shape, [120, 160]);
    array.values.into_iter().map(f64::from).collect()
}

/// Root of the mean square of the relative difference from the light of the plate, both over their mean.
fn gap(found: &[f64]) -> f64 {
    let lost = |i: usize, n: f64| 0.3 * ((2 * i + 1) as f64 / n - 1.0).powi(2);
    let truth: Vec<f64> = (0..120 * 160)
        .map(|i| 1.0 - lost(i / 160, 120.0) - lost(i % 160, 160.0))
        .collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (a, b) = (mean(found), mean(&truth));
    let squares: Vec<f64> = found
        .iter()
        .zip(&truth)
        .map(|(f, t)| ((f / a) / (t / b) - 1.0).powi(2))
        .collect();
    mean(&squares).sqrt()
}

#[test]
fn functions_of_a_plate_are_estimated_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = plate(folder);
    for (out, more, most) in [
        ("median", &["--size", "60"][..], 0.14),
        ("basic", &["--method", "basic", "--fields", "60"], 0.07),
        ("dark", &["--method", "basic", "--dark-field"], 0.02),
    ] {
        let arguments = [&["illumination", &screen, "--out", out], more].concat();
        let lines = ok(folder, &arguments);
        let mut names: Vec<_> = std::fs::read_dir(folder.join(out))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let dark = out == "dark";
        assert_eq!(names.len(), if dark { 4 } else { 2 }, "{names:?}");
        for name in &names {
            let gap = gap(&plane(&folder.join(out).join(name)));
            if !name.ends_with("_dark.npy") {
                assert!(gap < most, "{out} {name}: {gap}");
            }
        }
        // The keys are those of the screen's own table.
        let text = std::fs::read_to_string(folder.join(&screen)).unwrap();
        assert!(text.contains("[preprocess]\n"), "{text}");
        let lit = text.replace("[preprocess]\n", &format!("[preprocess]\n{lines}"));
        std::fs::write(folder.join("dim/lit.toml"), lit).unwrap();
        let plan = ok(folder, &["check", "dim/lit.toml"]);
        assert_eq!(plan.contains("dark-field"), dark, "{plan}");
        assert!(plan.contains("{plate}_{channel}.npy"), "{plan}");
    }
}

#[test]
fn what_cannot_be_estimated_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = plate(folder);
    let fails = |more: &[&str], words: &str| {
        let output = wellspring(folder, &[&["illumination", &screen, "--out", "o"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    };
    fails(&["--dark-field"], "--method basic");
    fails(&["--plate", "NOSUCH"], "no plate NOSUCH");
    fails(&["--size", "0"], "--size is 0: expected");
    fails(&["--size", "nan"], "--size is NaN: expected");

    // A damaged image is left out, and named.
    let mut images = Vec::new();
    let mut folders = vec![folder.join("dim")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tif")) {
                images.push(path);
            }
        }
    }
    images.sort();
    std::fs::write(&images[5], b"II*\0").unwrap();
    // So is one of another size.
    let larger = "simulate --wells 96 --fields 1 --channels dna,AGP --size 130x160 --out larger";
    ok(folder, &larger.split(' ').collect::<Vec<_>>());
    for channel in ["w1", "w2"] {
        let name = format!("images/SIM0001/SIM0001_H12_s1_{channel}.tif");
        std::fs::copy(folder.join("larger").join(&name), folder.join("dim").join(&name)).unwrap();
    }
    let output = wellspring(
        folder,
        &["illumination", &screen, "--out", "o", "--method", "basic"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("left out plate"), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(
            "well H12 field 1: it has 130 x 160 pixels (height x width), and the first field has 120 x 160"
        ),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("94 of 96 fields used"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn planes_that_are_there_are_replaced_only_when_asked_and_never_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = plate(folder);
    let estimate = |more: &[&str]| {
        let arguments = ["illumination", &screen, "--out", "o", "--fields", "24"];
        wellspring(folder, &[&arguments[..], more].concat())
    };
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(folder.join("o"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let dark = estimate(&["--method", "basic", "--dark-field"]);
    assert_ne!(dark.status.code(), Some(2), "{}", stderr(&dark));
    let before: Vec<_> = names();
    assert_eq!(before.len(), 4, "{before:?}");
    let bytes = std::fs::read(folder.join("o/SIM0001_DNA.npy")).unwrap();
    let again = estimate(&["--size", "60"]);
    assert_eq!(again.status.code(), Some(2));
    let told = stderr(&again);
    assert!(
        told.contains("SIM0001_DNA.npy") && told.contains("4 such files") && told.contains("--force"),
        "{told}"
    );
    assert_eq!(std::fs::read(folder.join("o/SIM0001_DNA.npy")).unwrap(), bytes);
    let forced = estimate(&["--size", "60", "--force"]);
    assert_eq!(forced.status.code(), Some(0), "{}", stderr(&forced));
    assert_eq!(names(), ["SIM0001_AGP.npy", "SIM0001_DNA.npy"]);
    assert!(std::fs::read(folder.join("o/SIM0001_DNA.npy")).unwrap() != bytes);
}

#[test]
fn files_of_planes_that_cannot_be_used_are_told_before_a_field_is_worked_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ok(
        folder,
        &"simulate --wells 96 --fields 1 --channels dna,AGP --size 240 --out sim"
            .split(' ')
            .collect::<Vec<_>>(),
    );
    let text = std::fs::read_to_string(folder.join("sim/screen.toml")).unwrap();
    assert!(!text.contains("[preprocess]"), "{text}");
    let keys = "illumination = \"{plate}_{channel}.npy\"\ndark_field = \"{plate}_{channel}_dark.npy\"\n";
    std::fs::write(
        folder.join("sim/lit.toml"),
        format!("{text}\n[preprocess]\n{keys}"),
    )
    .unwrap();
    let write = |name: &str, size: [usize; 2], value: f32| {
        let bytes = wellspring::npy::plane(size, &vec![value; size[0] * size[1]]);
        std::fs::write(folder.join("sim").join(name), bytes).unwrap();
    };
    write("SIM0001_DNA.npy", [120, 240], 1.0);
    write("SIM0001_AGP.npy", [240, 240], 0.0);
    write("SIM0001_DNA_dark.npy", [240, 240], f32::NAN);
    let told = [
        ["SIM0001_DNA.npy' (channel DNA)", "the images have 240 x 240"],
        ["SIM0001_AGP.npy' (channel AGP)", "57600 values such as 0"],
        ["SIM0001_DNA_dark.npy' (channel DNA)", "57600 values such as NaN"],
        ["SIM0001_AGP_dark.npy' (channel AGP)", "is not there"],
    ];
    let output = wellspring(folder, &["check", "sim/lit.toml", "--images"]);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in told {
        let line = said
            .lines()
            .find(|line| line.contains(words[0]))
            .unwrap_or_default();
        assert!(
            line.starts_with("configuration: ") && line.contains(words[1]),
            "{words:?}: {said}"
        );
    }
    assert!(said.contains("4 problems"), "{said}");
    let checked = wellspring(folder, &["check", "sim/lit.toml", "--images", "--json"]);
    let checked: serde_json::Value = serde_json::from_str(&stdout(&checked)).unwrap();
    let lost: u64 = checked["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["fields_lost"].as_u64().unwrap())
        .sum();
    assert_eq!(lost, 96);

    // The run refuses them at once, before weights are looked for.
    let output = wellspring(folder, &["run", "sim/lit.toml", "--out", "out"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in told {
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    }
    assert!(
        said.contains("configuration: 4 of the files") && said.lines().count() == 5,
        "{said}"
    );

    // Nor is a network asked to see more than there is.
    std::fs::write(
        folder.join("sim/small.toml"),
        format!("{text}\n[preprocess]\nresize = 0.5\n"),
    )
    .unwrap();
    let output = wellspring(folder, &["check", "sim/small.toml", "--images"]);
    let said = stdout(&output);
    let line = said
        .lines()
        .find(|line| line.starts_with("configuration: "))
        .unwrap_or_default();
    assert!(
        output.status.code() == Some(1)
            && line.contains("network 'efficientnet-lite0' sees 224 x 224 pixels")
            && line.contains("has 120 x 120 after [preprocess] resize"),
        "{said}"
    );

    // Right ones are no problem.
    for channel in ["DNA", "AGP"] {
        write(&format!("SIM0001_{channel}.npy"), [240, 240], 1.5);
        write(&format!("SIM0001_{channel}_dark.npy"), [240, 240], 0.0);
    }
    assert!(ok(folder, &["check", "sim/lit.toml", "--images"]).contains("nothing is wrong"));
}
