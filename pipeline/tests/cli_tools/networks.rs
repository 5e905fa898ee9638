//! Networks on the command line: what is wrong with a call, a card or a file is said in its own words.

use std::path::Path;

use serde_json::Value;

use crate::{ok, stderr, stdout, wellspring};

const SCREEN: &str = "[screen]\nname = \"small\"\n\n[images]\nstore = \"images\"\nchannels = [\"DNA\"]\n\n\
                      [plate_map]\nfile = \"map.csv\"\n\n\
                      [controls]\nreference = { role = \"healthy\" }\nphenotype = { role = \"disease\" }\n";

fn golden(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden");
    folder.join(file).display().to_string()
}

/// What a command says that must fail.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = wellspring(folder, arguments);
    assert_eq!(
        output.status.code(),
        Some(2),
        "{arguments:?}: {}",
        stdout(&output)
    );
    stderr(&output)
}

/// Problems and remarks of `check`.
fn checked(folder: &Path, more: &str) -> (Vec<String>, Vec<String>) {
    std::fs::write(folder.join("a.toml"), format!("{SCREEN}{more}")).unwrap();
    let output = wellspring(folder, &["check", "a.toml", "--json"]);
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let problems = found["problems"].as_array().unwrap().iter();
    let problems: Vec<String> = problems
        .map(|problem| problem["message"].as_str().unwrap().to_owned())
        .collect();
    let remarks = found["remarks"].as_array().unwrap().iter();
    let remarks = remarks
        .map(|remark| remark.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(output.status.success(), problems.is_empty(), "{problems:?}");
    (problems, remarks)
}

#[test]
fn check_knows_which_engines_run_a_network_and_which_weights_are_not_here() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (problems, remarks) = checked(folder, "");
    assert!(problems.is_empty(), "{problems:?}");
    let absent = remarks
        .iter()
        .find(|remark| remark.contains("not on this machine"));
    assert!(
        absent
            .unwrap()
            .contains("wellspring models pull efficientnet-lite0"),
        "{remarks:?}"
    );
    let more = "[model]\nname = \"efficientnet-lite0\"\nengine = \"onnx\"\n\n\
                [[steps]]\nname = \"second\"\nkind = \"embed\"\nmodel = \"efficientnet-lite1\"\nengine = \"libtorch\"\n";
    let (problems, _) = checked(folder, more);
    assert_eq!(problems.len(), 2, "{problems:?}");
    let expected = "model.engine = \"onnx\": efficientnet-lite0 is a network of Wellspring's own layers: the engines native and wgpu \
                    run it; onnx runs ONNX files";
    assert!(
        problems[0].starts_with("a.toml:16:10: ") && problems[0].ends_with(expected),
        "{problems:?}"
    );
    assert!(
        problems[1].contains("'second'") && problems[1].contains("libtorch runs TorchScript modules"),
        "{problems:?}"
    );
    // Added by hand: a build without the engine cannot complete the card of an ONNX file.
    std::fs::create_dir_all(folder.join("models")).unwrap();
    std::fs::copy(
        golden("onnx-mini.json"),
        folder.join("models/onnx-mini.card.json"),
    )
    .unwrap();
    let (problems, _) = checked(folder, "[model]\nname = \"onnx-mini\"\n");
    assert!(
        problems.len() == 1 && problems[0].contains("auto stands for native"),
        "{problems:?}"
    );
    if cfg!(not(feature = "onnx")) {
        let (problems, _) = checked(folder, "[model]\nname = \"onnx-mini\"\nengine = \"onnx\"\n");
        assert!(
            problems.len() == 1 && problems[0].contains("--features onnx"),
            "{problems:?}"
        );
    }
}

#[test]
fn an_engine_that_is_not_for_a_network_is_said_without_words_about_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let timm = [
        "models",
        "add",
        &golden("timm.safetensors"),
        "--card",
        &golden("timm.json"),
    ];
    ok(folder, &timm);
    let said = refused(folder, &["models", "bench", "timm", "--engine", "onnx"]);
    assert!(
        said.contains("the engines native and wgpu run it") && !said.contains("--weights"),
        "{said}"
    );
    for option in ["--batches", "--threads"] {
        let said = refused(folder, &["models", "bench", "timm", option, "0"]);
        assert!(said.contains("from 1 to"), "{said}");
    }
}

#[test]
fn a_network_is_added_with_a_card_or_a_template_and_not_against_its_card() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = refused(folder, &["models", "add", &golden("timm.safetensors")]);
    assert!(said.contains("--template") && said.contains("--card"), "{said}");
    let card = std::fs::read_to_string(golden("timm.json")).unwrap();
    let digest = "4815036baa312fcf9f42239a2b1fd51f814b1cb6665503ac08713e5659425ddd";
    std::fs::write(folder.join("card.json"), card.replace(digest, &"0".repeat(64))).unwrap();
    let said = refused(
        folder,
        &[
            "models",
            "add",
            &golden("timm.safetensors"),
            "--card",
            "card.json",
        ],
    );
    assert!(
        said.contains(digest) && said.contains(&"0".repeat(64)) && said.contains("timm.safetensors"),
        "{said}"
    );
    assert!(!folder.join("models/timm.card.json").exists());
}
