//! Reading the oracle files, and the oracle screen as profiles. A test target takes it by
//! `#[path = "../common/oracles.rs"] mod files;` (without `../` from a target of one file).

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "shared by several test targets, each of which uses a part; a failure here is a failed test"
)]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use wellspring_workloads::compare::{Align, ComparisonSettings, Normalise};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};

/// The oracle file, or `None` with a line that says so.
pub(crate) fn oracle(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/oracles")
        .join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: ../shared not present");
    None
}

pub(crate) type Row = HashMap<String, String>;

pub(crate) fn table(name: &str) -> Option<Vec<Row>> {
    let mut reader = csv::Reader::from_path(oracle(name)?).unwrap();
    Some(reader.deserialize().map(|row| row.unwrap()).collect())
}

pub(crate) fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or(f64::NAN)
}

/// A little-endian C-order matrix of f32 or f64.
pub(crate) fn matrix(name: &str) -> Option<Vec<Vec<f64>>> {
    let bytes = fs::read(oracle(name)?).unwrap();
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..header_end]).unwrap();
    let shape = header
        .split("'shape': (")
        .nth(1)
        .unwrap()
        .split(')')
        .next()
        .unwrap();
    let width: usize = shape
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .nth(1)
        .unwrap();
    let values: Vec<f64> = if header.contains("<f8") {
        bytes[header_end..]
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    } else {
        bytes[header_end..]
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect()
    };
    Some(values.chunks_exact(width).map(<[f64]>::to_vec).collect())
}

#[track_caller]
pub(crate) fn close(ours: f64, reference: f64, tolerance: f64, what: &str) {
    assert!(
        (ours - reference).abs() <= tolerance * (1.0 + reference.abs()),
        "{what}: ours {ours}, reference {reference}"
    );
}

/// The plate's own disease in the oracle screen.
pub(crate) fn own_disease(plate: &str) -> &'static str {
    match plate {
        "P1" | "P4" => "D1",
        "P2" | "P5" => "D2",
        _ => "D3",
    }
}

/// The oracle screen as profiles with the values of one matrix; only the plates' own diseases.
pub(crate) fn screen(values: &str) -> Option<Vec<WellProfile>> {
    let wells = table("wells.csv")?;
    let rows = matrix(values)?;
    let mut profiles = Vec::new();
    for (row, values) in wells.iter().zip(&rows) {
        let role = match row["role"].as_str() {
            "healthy" => Role::Reference,
            "disease" => Role::Phenotype,
            _ => Role::Treated,
        };
        if role != Role::Reference && row["state"] != own_disease(&row["plate"]) {
            continue;
        }
        profiles.push(WellProfile {
            plate: row["plate"].parse().unwrap(),
            well: row["well"].parse().unwrap(),
            treatment: Treatment {
                role,
                disease: (role != Role::Reference).then(|| row["state"].clone()),
                compound: (role == Role::Treated).then(|| row["compound"].clone()),
                dose: (role == Role::Treated).then(|| number(row, "dose_um")),
            },
            fields: 1,
            cell_count: Some(number(row, "cell_count")),
            values: values.iter().map(|&v| v as f32).collect(),
        });
    }
    Some(profiles)
}

/// The aligned matrix is scored as it is, as the oracle was.
pub(crate) fn aligned() -> ComparisonSettings {
    ComparisonSettings {
        normalise: Normalise::None,
        align: Align::None,
        ..ComparisonSettings::default()
    }
}
