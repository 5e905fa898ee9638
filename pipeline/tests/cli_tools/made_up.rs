//! A small rescue screen as tables of another tool, and what tests of `wellspring compare` do with it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use wellspring_workloads::words::WellPosition;

use crate::{stderr, stdout, wellspring};

/// A rescue screen whose tables say themselves what each well was given.
pub(crate) const OWN: &str = r#"
[screen]
name = "own"
[profiles]
[controls]
reference = { Metadata_state = "healthy" }
phenotype = { Metadata_state = "disease", Metadata_compound = "DMSO" }
[comparison]
normalise = "none"
"#;

/// Metadata columns of its tables.
pub(crate) const OWN_COLUMNS: [&str; 5] = [
    "Metadata_Plate",
    "Metadata_Well",
    "Metadata_state",
    "Metadata_compound",
    "Metadata_dose",
];

/// One well of the made-up screen.
pub(crate) struct Well {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) compound: &'static str,
    pub(crate) dose: f64,
    pub(crate) values: Vec<f64>,
}

/// 16 healthy wells, 16 diseased, a rescuer and an idle compound at four doses in two wells each.
pub(crate) fn wells(plate: usize) -> Vec<Well> {
    let mut wells = Vec::new();
    let mut push = |state, compound, dose: f64, place: f64| {
        let at = wells.len();
        let noise = |i: usize| (((at * 31 + plate * 53 + i * 17 + 7) * 7919 % 101) as f64 / 101.0) - 0.5;
        let values = (0..4)
            .map(|i| place * (i as f64 - 1.2) + 0.15 * noise(i))
            .collect();
        wells.push(Well {
            name: format!("{}{:02}", char::from(b'A' + (at / 24) as u8), at % 24 + 1),
            state,
            compound,
            dose,
            values,
        });
    };
    for _ in 0..16 {
        push("healthy", "DMSO", 0.0, 0.0);
    }
    for _ in 0..16 {
        push("disease", "DMSO", 0.0, 1.0);
    }
    for dose in [0.1, 1.0, 10.0, 100.0] {
        for _ in 0..2 {
            push("disease", "rescuer", dose, 1.0 / (1.0 + dose));
            push("disease", "idle", dose, 1.0);
        }
    }
    wells
}

pub(crate) fn dose(well: &Well) -> String {
    if well.dose == 0.0 {
        String::new()
    } else {
        well.dose.to_string()
    }
}

pub(crate) fn features(well: &Well) -> String {
    well.values.iter().fold(String::new(), |mut text, value| {
        let _ = write!(text, ",{value:.5}");
        text
    })
}

/// The screen as one well-level CSV with the usual columns.
pub(crate) fn own_table(plates: &[&str]) -> String {
    let mut text = format!("{},Cells_a,Cells_b,Nuclei_c,Nuclei_d\n", OWN_COLUMNS.join(","));
    for (number, plate) in plates.iter().enumerate() {
        for well in wells(number) {
            let Well {
                name,
                state,
                compound,
                ..
            } = &well;
            let _ = writeln!(
                text,
                "{plate},{name},{state},{compound},{}{}",
                dose(&well),
                features(&well)
            );
        }
    }
    text
}

/// A plate of 24 healthy and 12 diseased wells, and a rescuer at four doses. `values` gives the features of a well from
/// its place on the axis and, for each feature, noise from -0.5 to 0.5.
pub(crate) fn rescue_plate(
    name: &str,
    seed: u32,
    features: &[&str],
    values: impl Fn(f64, &dyn Fn(u32) -> f64) -> Vec<f64>,
) -> String {
    let mut text = "Metadata_Plate,Metadata_Well,Metadata_role,Metadata_compound,Metadata_dose".to_owned();
    features
        .iter()
        .for_each(|name| text.push_str(&format!(",{name}")));
    text.push('\n');
    for index in 0..40u32 {
        let well = WellPosition::new(1 + (index / 12) as u8, 1 + (index % 12) as u8).unwrap();
        let (role, compound, dose, place) = match index {
            0..24 => ("healthy", "DMSO", 0.0, 0.0),
            24..36 => ("disease", "DMSO", 0.0, 1.0),
            _ => {
                let dose = 10f64.powi(index as i32 - 37);
                ("treated", "rescuer", dose, 1.0 / (1.0 + dose))
            }
        };
        let noise = |i: u32| {
            let number = (index * 131 + i * 29 + seed * 53) % 1009;
            f64::from(number * number % 97) / 97.0 - 0.5
        };
        text.push_str(&format!("{name},{well},{role},{compound},{dose}"));
        values(place, &noise)
            .iter()
            .for_each(|value| text.push_str(&format!(",{value}")));
        text.push('\n');
    }
    text
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

pub(crate) fn run_json(folder: &Path, out: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(out).join("run.json")).unwrap()).unwrap()
}

/// The first line of the table of calls.
pub(crate) fn best(text: &str) -> String {
    let first = text.lines().find(|line| line.trim_start().starts_with("1  "));
    first.unwrap_or_else(|| panic!("no call: {text}")).to_owned()
}

/// Compares, expects exit code 1, and gives what was said.
pub(crate) fn flagged(folder: &Path, arguments: &[&str]) -> String {
    let base = ["compare", "--screen", "screen.toml", "--out", "out"];
    let arguments: Vec<&str> = base.iter().chain(arguments).copied().collect();
    let output = wellspring(folder, &arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    stderr(&output)
}

pub(crate) fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// Compares with `screen.toml`: exit code, standard output and standard error.
pub(crate) fn compare(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let base = ["compare", "--screen", "screen.toml"];
    let arguments: Vec<&str> = base.iter().chain(arguments).copied().collect();
    let output = wellspring(folder, &arguments);
    (output.status.code(), stdout(&output), stderr(&output))
}

/// Compares, expects that nothing could be compared, and gives what was said.
#[track_caller]
pub(crate) fn refused(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, said) = compare(folder, arguments);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {said}");
    assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
    said
}
