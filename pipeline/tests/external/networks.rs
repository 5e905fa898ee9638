//! Several networks side by side: each sees every field, and their embeddings are columns of one table.

use std::path::Path;

use crate::common::{models, rows_of, run_json, simulate, wellspring};
use crate::{SPARSE, one_field, ready_file, run};

/// A folder with the usual network and a tiny one with random weights.
fn two_models(usual: &Path, folder: &Path) -> std::path::PathBuf {
    let models = folder.join("models");
    std::fs::create_dir(&models).unwrap();
    let card = wellspring_models::find_card("efficientnet-lite0").unwrap();
    let weights = |folder: &Path| wellspring::model_store::weights_path(folder, card);
    std::fs::create_dir_all(weights(&models).parent().unwrap()).unwrap();
    std::fs::copy(weights(usual), weights(&models)).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden");
    let added = wellspring(&models)
        .args(["models", "add"])
        .arg(golden.join("openphenom-layout.pt"))
        .arg("--card")
        .arg(golden.join("openphenom-layout.json"))
        .args(["--name", "tiny"])
        .output()
        .unwrap();
    assert!(
        added.status.success(),
        "{}",
        String::from_utf8_lossy(&added.stderr)
    );
    models
}

#[test]
fn a_second_network_adds_its_columns_and_changes_none_of_the_first() {
    let Some(usual) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let models = two_models(&usual, folder.path());
    simulate(folder.path(), &one_field("\"DNA\", \"AGP\""));
    let changes = [
        ("demo/images", "plates/images"),
        ("demo/platemap.csv", "plates/platemap.csv"),
    ];
    let text = ready_file("external.toml", &changes);
    let alone = text.split("# Requests are lines").next().unwrap().to_owned() + SPARSE;
    let second = "[[steps]]\nname = \"small\"\nkind = \"embed\"\nmodel = \"tiny\"\n";
    // A step of one's own may look at what a network made of the field.
    let asks = "[[steps]]\nname = \"norm\"\nkind = \"external\"\ninputs = [\"small\", \"embed\", \"quality\"]\n\
                columns = [\"first\", \"width\", \"mean\"]\ndeadline = \"60s\"\ncommand = [\"python3\", \"./norm.py\"]\n";
    std::fs::write(
        folder.path().join("norm.py"),
        "import json, sys\nfor line in sys.stdin:\n    r = json.loads(line); i = r['inputs']\n    \
         f = dict(first=i['small'][0], width=len(i['embed']), mean=i['quality']['DNA']['MeanIntensity'])\n    \
         print(json.dumps(dict(correlation_id=r['correlation_id'], features=f)), flush=True)\n",
    )
    .unwrap();
    let rows = |name: &str, text: &str| {
        let screen = folder.path().join(format!("{name}.toml"));
        std::fs::write(&screen, text).unwrap();
        let out = folder.path().join(name);
        let (code, summary) = run_json(&mut run(&models, &screen, &out));
        assert_eq!(
            (code, summary["fields_done"].as_u64()),
            (0, Some(96)),
            "{summary}"
        );
        rows_of(&out.join("features.parquet"))
    };
    let one = rows("one", &alone);
    let two = rows("two", &format!("{alone}{second}{asks}"));
    let own = |row: &serde_json::Value, prefix: &str| -> Vec<(String, f64)> {
        let columns = row.as_object().unwrap().iter();
        let columns = columns.filter(|(name, _)| name.starts_with(prefix));
        columns
            .map(|(name, value)| (name.clone(), value.as_f64().unwrap()))
            .collect()
    };
    let quality = rows_of(&folder.path().join("two/quality.parquet"));
    for ((one, two), quality) in one.iter().zip(&two).zip(&quality) {
        let first = own(one, "efficientnet-lite0_");
        assert_eq!(first.len(), 2 * 1_280);
        assert_eq!(first, own(two, "efficientnet-lite0_"));
        assert!(own(one, "small_").is_empty() && own(two, "small_").len() > 1);
        assert_eq!(two["norm_first"], two["small_0"]);
        assert_eq!(two["norm_width"], 2_560.0);
        let mean = quality["ImageQuality_MeanIntensity_DNA"].as_f64().unwrap();
        // The step was given all digits; its answer has those of a 32-bit float.
        let answered = two["norm_mean"].as_f64().unwrap();
        assert!(
            (answered - mean).abs() <= 1e-6 * mean.abs(),
            "{answered} and {mean}"
        );
    }
}
