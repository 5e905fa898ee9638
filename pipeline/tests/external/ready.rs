//! Ready screen files of image screens, over small simulated plates: they run to calls.

use std::path::Path;

use crate::common::{models, rows_of, run_json, simulate};
use crate::{SPARSE, one_field, ready_file, run};

/// The simulated plate map, row by row in other words: role, compound, dose -> the columns after plate and well.
fn plate_map(folder: &Path, header: &str, row: impl Fn(&str, &str, &str) -> String) {
    let path = folder.join("plates/platemap.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("plate,well,state,role,compound,dose"));
    let mut map = format!("plate,well,{header}\n");
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        map += &format!(
            "{},{},{}\n",
            cells[0],
            cells[1],
            row(cells[3], cells[4], cells[5])
        );
    }
    std::fs::write(path, map).unwrap();
}

fn compounds(out: &Path) -> usize {
    rows_of(&out.join("compounds.parquet")).len()
}

#[test]
fn cell_painting_runs_with_five_channels_and_reference_wells_only() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(
        folder.path(),
        &one_field("\"DNA\", \"ER\", \"RNA\", \"AGP\", \"Mito\""),
    );
    plate_map(
        folder.path(),
        "control_type,pert_iname,dose",
        |role, compound, dose| match role {
            "healthy" => "negcon,DMSO,".to_owned(),
            "disease" => "trt,knock-out,1".to_owned(),
            _ => format!("trt,{compound},{dose}"),
        },
    );
    let screen = folder.path().join("cell-painting.toml");
    let changes = [
        ("cell-painting/images", "plates/images"),
        ("cell-painting/platemap.csv", "plates/platemap.csv"),
        ("\"phenix\"", "\"imagexpress\""),
        ("\"ch5\"", "\"w1\""),
        ("\"ch4\"", "\"w2\""),
        ("\"ch3\"", "\"w3\""),
        ("\"ch2\"", "\"w4\""),
        ("\"ch1\"", "\"w5\""),
    ];
    std::fs::write(&screen, ready_file("cell-painting.toml", &changes) + SPARSE).unwrap();
    let out = folder.path().join("out");
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(
        (code, summary["fields_done"].as_u64()),
        (0, Some(96)),
        "{summary}"
    );
    assert!(compounds(&out) >= 8, "{}", compounds(&out));
    // Five embeddings side by side.
    let features = &rows_of(&out.join("features.parquet"))[0];
    assert!(
        !features["efficientnet-lite0_6399"].is_null() && features.get("efficientnet-lite0_6400").is_none()
    );
}

#[test]
fn the_crispr_rescue_screen_runs_and_calls_compounds_over_their_doses() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &one_field("\"DNA\", \"AGP\", \"Mito\""));
    plate_map(
        folder.path(),
        "genotype,compound,dose",
        |role, compound, dose| match role {
            "healthy" => "WT,DMSO,".to_owned(),
            "disease" => "NF1-KO,DMSO,".to_owned(),
            _ => format!("NF1-KO,{compound},{dose}"),
        },
    );
    let screen = folder.path().join("crispr-rescue.toml");
    let changes = [
        ("crispr-rescue/images", "plates/images"),
        ("crispr-rescue/platemap.csv", "plates/platemap.csv"),
        ("fields_per_well = 9", "fields_per_well = 1"),
    ];
    std::fs::write(&screen, ready_file("crispr-rescue.toml", &changes) + SPARSE).unwrap();
    let out = folder.path().join("out");
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(
        (code, summary["fields_done"].as_u64()),
        (0, Some(96)),
        "{summary}"
    );
    let rows = rows_of(&out.join("compounds.parquet"));
    assert!(
        rows.len() == 8 && rows.iter().all(|row| row["disease"] == "NF1-KO"),
        "{rows:?}"
    );
    let toxic = rows.iter().find(|row| row["compound"] == "TOX-001").unwrap();
    assert_eq!(toxic["call"], "toxic");
}
