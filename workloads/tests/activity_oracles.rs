//! Replicate retrieval, correlation, grit, consistency, magnitude and consensus as the comparison gives them: against
//! reference outputs in `../shared/oracles`, and on screens whose answer is known.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/oracles.rs"]
mod files;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Cursor;

use files::{Row, close, number, table};
use wellspring_workloads::compare::{
    Activity, ActivitySettings, AssayWindow, Comparison, ComparisonSettings, CompoundSummary, Consensus,
    Correction, Design, Frame, Level, MapNull, Note, NoteKind, Perturbation, Question, Sink, WellScore,
    compare, stream,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::{Barcode, WellPosition};

/// Values written with ten digits, from features rounded to `f32`.
const ROUNDING: f64 = 1e-6;

fn by_name(rows: &[Activity], level: Level) -> BTreeMap<String, &Activity> {
    let of_level = rows.iter().filter(|row| row.level == level);
    of_level
        .map(|row| {
            let (disease, compound) = (row.disease.as_deref().unwrap(), row.compound.as_deref().unwrap());
            let name = match row.dose {
                Some(dose) => format!("{disease}_{compound}_{dose}"),
                None => format!("{disease}_{compound}"),
            };
            (name, row)
        })
        .collect()
}

fn name(row: &Row) -> String {
    match row.get("dose_um") {
        Some(dose) => format!("{}_{}_{dose}", row["state"], row["compound"]),
        None => format!("{}_{}", row["state"], row["compound"]),
    }
}

/// The stated band of a p-value from 10,000 draws: 4 standard errors and two draws.
fn band(p: f64) -> f64 {
    4.0 * (p * (1.0 - p) / 10_001.0).sqrt() + 2.0 / 10_001.0
}

#[test]
fn retrieval_equals_map_dose_and_map_compound_as_copairs_counts() {
    let Some(profiles) = files::screen("efaar_tvn.npy") else {
        return;
    };
    let settings = ComparisonSettings {
        activity: ActivitySettings {
            null: MapNull::Copairs,
            ..ActivitySettings::default()
        },
        ..files::aligned()
    };
    let found = compare(&profiles, &settings).unwrap();
    for (file, level) in [
        ("map_dose.csv", Level::Dose),
        ("map_compound.csv", Level::Compound),
    ] {
        let ours = by_name(&found.activities, level);
        let expected = table(file).unwrap();
        assert_eq!(ours.len(), expected.len(), "{file}");
        let mut flips = 0;
        for row in &expected {
            let ours = ours[&name(row)];
            for (ours, column) in [
                (ours.mean_average_precision, "mean_average_precision"),
                (
                    ours.mean_normalized_average_precision,
                    "mean_normalized_average_precision",
                ),
            ] {
                close(
                    ours.unwrap(),
                    number(row, column),
                    ROUNDING,
                    &format!("{file} {column} {}", name(row)),
                );
            }
            let (p, expected) = (ours.p_value.unwrap(), number(row, "p_value"));
            assert!(
                (p - expected).abs() <= band(expected),
                "{file} {}: {p}, {expected}",
                name(row)
            );
            if ours.below_corrected_p != Some(row["below_corrected_p"] == "True") {
                let q = number(row, "corrected_p_value");
                let ours = ours.corrected_p_value.unwrap();
                assert!(
                    (ours - q).abs() <= band(expected) * q / expected,
                    "{file}: {ours} {q}"
                );
                flips += 1;
            }
        }
        assert!(flips <= 2, "{file}: {flips} flags differ, all within the band");
    }
    let staged = ComparisonSettings {
        activity: ActivitySettings {
            null: MapNull::Copairs,
            correction: Correction::Hierarchical,
        },
        ..files::aligned()
    };
    let staged = compare(&profiles, &staged).unwrap();
    let (staged, plain) = (
        by_name(&staged.activities, Level::Dose),
        by_name(&found.activities, Level::Dose),
    );
    let mut rejected = 0;
    for row in table("map_dose.csv").unwrap() {
        // Compounds that pass the first stage are corrected over their six doses alone.
        let (ours, expected) = (staged[&name(&row)], number(&row, "hier_corrected_p_value"));
        assert_eq!(ours.p_value, plain[&name(&row)].p_value);
        let q = ours.corrected_p_value.unwrap_or(1.0);
        let expected = if expected.is_nan() { 1.0 } else { expected };
        rejected += usize::from((q < 0.05) != (expected < 0.05));
    }
    assert!(rejected <= 2, "{rejected} rows differ at 0.05");
}

#[test]
fn default_p_values_equal_the_enumeration_in_map_dose() {
    let Some(profiles) = files::screen("efaar_tvn.npy") else {
        return;
    };
    let found = compare(&profiles, &files::aligned()).unwrap();
    let ours = by_name(&found.activities, Level::Dose);
    let mut different = 0;
    for row in table("map_dose.csv").unwrap() {
        let more = number(&row, "p_exact_ge") - ours[&name(&row)].p_value.unwrap();
        // The reference takes rankings whose mean APs differ by less than 1e-6 for ties.
        assert!(
            (-1e-9..4.0 / 2401.0 + 1e-9).contains(&more),
            "{} {more}",
            name(&row)
        );
        different += usize::from(more > 1e-9);
    }
    assert!(different <= 11, "{different} rows of 720 have a near tie");
    let active = |row: &&Activity| row.level == Level::Compound && row.below_corrected_p == Some(true);
    let active: Vec<String> = found
        .activities
        .iter()
        .filter(active)
        .map(|row| {
            format!(
                "{}_{}",
                row.disease.as_deref().unwrap(),
                row.compound.as_deref().unwrap()
            )
        })
        .collect();
    let toxic = |name: &&String| {
        ["C07", "C08", "C09"]
            .iter()
            .any(|compound| name.ends_with(compound))
    };
    assert_eq!(active.iter().filter(toxic).count(), 9, "{active:?}");
    assert!(
        active.len() >= 10,
        "SCIENCE 6.2: nine toxic pairs and two rescuers, {active:?}"
    );
}

#[test]
fn correlations_consistency_and_magnitude_equal_their_files() {
    let Some(profiles) = files::screen("efaar_tvn.npy") else {
        return;
    };
    let found = compare(&profiles, &files::aligned()).unwrap();
    let doses = by_name(&found.activities, Level::Dose);
    for row in table("percent_replicating_groups.csv").unwrap() {
        let ours = doses[&row["group"]];
        close(
            ours.median_replicate_correlation.unwrap(),
            number(&row, "median_corr"),
            ROUNDING,
            &row["group"],
        );
    }
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(files::oracle("percent_replicating.json").unwrap()).unwrap())
            .unwrap();
    let (threshold, share) = (
        summary["threshold_95"].as_f64().unwrap(),
        summary["percent_right"].as_f64().unwrap(),
    );
    for row in doses.values() {
        let correlation = row.median_replicate_correlation.unwrap();
        // The threshold is drawn: the oracle states 0.03.
        if (correlation - threshold).abs() > 0.03 {
            assert_eq!(row.replicates, Some(correlation > threshold));
        }
    }
    let replicating = doses.values().filter(|row| row.replicates == Some(true)).count();
    let ours = replicating as f64 / doses.len() as f64;
    assert!((ours - share).abs() < 0.03, "{ours} {share}");
    for row in table("efaar_consistency.csv").unwrap() {
        let ours = doses[&row["group"]];
        close(
            ours.consistency.unwrap(),
            number(&row, "avg_cosine"),
            ROUNDING,
            &row["group"],
        );
        assert!(ours.consistency_p_value.unwrap() > 0.0, "never 0");
        assert_eq!(ours.magnitude, None, "two wells have no magnitude");
    }
    let compounds = by_name(&found.activities, Level::Compound);
    for row in table("energy_distance.csv").unwrap() {
        let ours = compounds[&name(&row)];
        close(
            ours.magnitude.unwrap(),
            number(&row, "energy_distance"),
            ROUNDING,
            &name(&row),
        );
        if row["compound"] == "C07" || row["compound"] == "C30" {
            let p = ours.magnitude_p_value.unwrap();
            assert_eq!(p <= 0.005, row["compound"] == "C07", "{} {p}", name(&row));
        }
    }
}

/// Inactive compounds must look like control wells, whatever the number of replicates on a plate.
#[test]
fn p_of_consistency_is_even_over_compounds_that_do_nothing() {
    let Some(profiles) = files::screen("efaar_tvn.npy") else {
        return;
    };
    let found = compare(&profiles, &files::aligned()).unwrap();
    for level in [Level::Dose, Level::Compound] {
        let rows = by_name(&found.activities, level);
        let inactive = rows
            .iter()
            .filter(|(name, _)| name.split('_').nth(1).unwrap() >= "C20");
        let p: Vec<f64> = inactive
            .map(|(_, row)| row.consistency_p_value.unwrap())
            .collect();
        let below = |limit: f64| p.iter().filter(|&&p| p <= limit).count() as f64 / p.len() as f64;
        // 378 rows of one dose, 63 compounds: five standard errors of a share.
        for limit in [0.1, 0.25, 0.5] {
            let error = (limit * (1.0 - limit) / p.len() as f64).sqrt();
            assert!(
                (below(limit) - limit).abs() < 5.0 * error,
                "{level:?}: {} at {limit}",
                below(limit)
            );
        }
    }
}

#[test]
fn grit_of_one_plate_equals_grit_p1() {
    let Some(mut profiles) = files::screen("efaar_tvn.npy") else {
        return;
    };
    profiles.retain(|profile| profile.plate.as_str() == "P1");
    let found = compare(&profiles, &files::aligned()).unwrap();
    let ours = by_name(&found.activities, Level::Dose);
    for row in table("grit_P1.csv").unwrap() {
        let name = format!("D1_{}_{}", row["compound"], row["dose_um"]);
        close(ours[&name].grit.unwrap(), number(&row, "grit"), ROUNDING, &name);
        // One well of each compound and dose: no replicate, and nothing said of replicates.
        assert_eq!(ours[&name].n_wells, 1);
        assert_eq!(ours[&name].mean_average_precision, None);
        assert_eq!(ours[&name].consistency, None);
    }
    let single = found
        .notes
        .iter()
        .find(|note| note.kind == NoteKind::FewReplicates)
        .unwrap();
    assert!(single.text.starts_with("240 rows"), "{}", single.text);
}

/// Keeps consensus profiles.
#[derive(Default)]
struct Profiles(Vec<Perturbation>, Vec<Activity>, Vec<Note>);

impl Sink for Profiles {
    type Error = Infallible;

    fn perturbation(&mut self, profile: Perturbation) -> Result<(), Infallible> {
        self.0.push(profile);
        Ok(())
    }

    fn activity(&mut self, activity: Activity) -> Result<(), Infallible> {
        self.1.push(activity);
        Ok(())
    }

    fn well(&mut self, _: WellScore) -> Result<(), Infallible> {
        Ok(())
    }

    fn window(&mut self, _: AssayWindow) -> Result<(), Infallible> {
        Ok(())
    }

    fn row(&mut self, _: Comparison) -> Result<(), Infallible> {
        Ok(())
    }

    fn compound(&mut self, _: CompoundSummary) -> Result<(), Infallible> {
        Ok(())
    }

    fn note(&mut self, note: Note) -> Result<(), Infallible> {
        self.2.push(note);
        Ok(())
    }
}

fn streamed(profiles: &[WellProfile], settings: &ComparisonSettings) -> Profiles {
    let mut plates: BTreeMap<&Barcode, Vec<&WellProfile>> = BTreeMap::new();
    for profile in profiles {
        plates.entry(&profile.plate).or_default().push(profile);
    }
    let design = Design::of(profiles.iter().map(|well| (&well.plate, &well.treatment))).unwrap();
    let mut found = Profiles::default();
    let read = |plate: &Barcode| -> Result<Vec<&WellProfile>, Infallible> { Ok(plates[plate].clone()) };
    let names: Vec<String> = (0..profiles[0].values.len())
        .map(|column| column.to_string())
        .collect();
    let frame = Frame::fit(&design, settings, &names, None, read).unwrap();
    stream(
        &design,
        settings,
        &frame,
        read,
        Cursor::new(Vec::new()),
        &mut found,
    )
    .unwrap();
    found
}

#[test]
fn consensus_profiles_equal_agg_pert_mean() {
    let (Some(profiles), Some(names), Some(expected)) = (
        files::screen("efaar_tvn.npy"),
        table("agg_pert_rows.csv"),
        files::matrix("agg_pert_mean.npy"),
    ) else {
        return;
    };
    let found = streamed(&profiles, &files::aligned());
    assert_eq!(found.0.len(), names.len());
    let ours: BTreeMap<String, &Perturbation> = found
        .0
        .iter()
        .map(|profile| {
            let (disease, compound) = (
                profile.disease.as_deref().unwrap(),
                profile.compound.as_deref().unwrap(),
            );
            (format!("{disease}_{compound}_{}", profile.dose.unwrap()), profile)
        })
        .collect();
    for (name, expected) in names.iter().zip(&expected) {
        let ours = ours[&name["group"]];
        assert_eq!((ours.n_wells, ours.n_plates), (2, 2));
        for (ours, expected) in ours.values.iter().zip(expected) {
            close(f64::from(*ours), *expected, ROUNDING, &name["group"]);
        }
    }
    let sorted = found
        .0
        .iter()
        .map(|p| (p.disease.clone(), p.compound.clone(), p.dose.map(f64::to_bits)));
    assert!(sorted.is_sorted());
}

fn well(index: usize) -> WellPosition {
    WellPosition::new((index / 24 + 1) as u8, (index % 24 + 1) as u8).unwrap()
}

/// `plates` plates of 12 reference, 12 phenotype and `copies` wells of "strong" and of "idle" each, in 8 features.
fn many(plates: usize, copies: usize) -> Vec<WellProfile> {
    let mut state = 11u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut profiles = Vec::new();
    for plate in 0..plates {
        let mut add = |index: usize, role, compound: Option<&str>, at: [f32; 2]| {
            profiles.push(WellProfile {
                plate: format!("P{plate:02}").parse().unwrap(),
                well: well(index),
                treatment: Treatment {
                    role,
                    disease: (role != Role::Reference).then(|| "model".to_owned()),
                    compound: compound.map(str::to_owned),
                    dose: compound.map(|_| 1.0),
                },
                fields: 1,
                cell_count: None,
                values: (0..8)
                    .map(|i| at.get(i).copied().unwrap_or(0.0) + 0.3 * noise())
                    .collect(),
            });
        };
        for i in 0..12 {
            add(i, Role::Reference, None, [0.0, 0.0]);
            add(12 + i, Role::Phenotype, None, [1.0, 0.0]);
        }
        for i in 0..copies {
            add(24 + i, Role::Treated, Some("idle"), [1.0, 0.0]);
            add(124 + i, Role::Treated, Some("strong"), [1.0, 1.0]);
        }
    }
    profiles
}

#[test]
fn a_treatment_on_many_plates_is_measured_by_a_sample_that_says_so() {
    let settings = files::aligned();
    let found = streamed(&many(24, 5), &settings);
    let rows = by_name(&found.1, Level::Dose);
    for name in ["model_idle_1", "model_strong_1"] {
        let row = rows[name];
        assert_eq!((row.n_wells, row.n_measured, row.n_plates), (120, 64, 24));
    }
    assert!(rows["model_strong_1"].p_value.unwrap() < 0.001);
    assert!(rows["model_strong_1"].consistency_p_value.unwrap() < 0.001);
    assert!(rows["model_strong_1"].magnitude_p_value.unwrap() <= 0.001);
    assert!(rows["model_idle_1"].p_value.unwrap() > 0.01);
    assert!(rows["model_idle_1"].magnitude_p_value.unwrap() > 0.01);
    assert!(
        found
            .2
            .iter()
            .any(|note| note.text.contains("chosen by the seed"))
    );
    // The mean is of all wells all the same.
    let strong = found
        .0
        .iter()
        .find(|p| p.compound.as_deref() == Some("strong"))
        .unwrap();
    assert!((strong.values[1] - 1.0).abs() < 0.05 && strong.values[0].abs() < 0.05);

    // Plates in any order of reading, the same wells: the sample is of plate, well and seed.
    let mut renamed = many(24, 5);
    renamed.reverse();
    assert_eq!(streamed(&renamed, &settings).1, found.1);
}

#[test]
fn threads_do_not_change_a_bit() {
    let profiles = many(6, 3);
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let found = streamed(&profiles, &files::aligned());
            (found.0, found.1)
        })
    };
    assert!(of(1) == of(3));
}

#[test]
fn consensus_may_be_a_median_or_modz_and_screens_without_a_phenotype_start_at_their_reference() {
    let profiles = many(3, 1);
    let value = |consensus, question| {
        let settings = ComparisonSettings {
            consensus,
            question,
            ..files::aligned()
        };
        let found = streamed(&profiles, &settings);
        let strong = found
            .0
            .iter()
            .find(|p| p.compound.as_deref() == Some("strong"))
            .unwrap();
        strong.values.clone()
    };
    let mean = value(Consensus::Mean, Question::Rescue);
    let median = value(Consensus::Median, Question::Rescue);
    let modz = value(Consensus::Modz, Question::Rescue);
    assert!(mean != median && mean != modz && median != modz);
    assert!(mean[0].abs() < 0.2 && (mean[1] - 1.0).abs() < 0.2, "{mean:?}");
    let from_reference = value(Consensus::Mean, Question::Activity);
    assert!((from_reference[0] - 1.0).abs() < 0.2, "{from_reference:?}");
}
