//! From the controls of plates to levels: every detector on every plate, and what they come to together (SCIENCE 8).
//!
//! Plates that are judged together share one correction for their number. Their order is the order of the charts.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::baseline::{Baseline, cosine, largest_stability, views};
use super::charts::Charts;
use super::hotelling::{plate_mean, within};
use super::reference::{DriftReference, JudgedPlate};
use super::report::{Detector, DriftReport, DriftRow, Level, PlateDrift, Severity};
use super::samples::{SampleTest, TwoSamples};
use super::{MonitorError, MonitorSettings, PlateControls};
use crate::compare::multiple::benjamini_hochberg;

/// Fewer reference wells than this say nothing of a plate.
const FEWEST_CONTROLS: usize = 4;
/// Two-sided probability beyond three SDs: what a p-value must be below to signal.
const THREE_SD: f64 = 0.0027;
/// Stability indices of this many wells have the usual limit (SCIENCE 8).
const MANY_WELLS: usize = 500;
/// The usual limit of a stability index.
const UNSTABLE: f64 = 0.25;
/// Permutations per plate judged together: the smallest p-value must stay below the signal's after correction.
const PERMUTATIONS_PER_PLATE: u32 = 400;
/// Permutations at most, however many plates are judged together.
const MOST_PERMUTATIONS: u32 = 50_000;

/// What one plate's wells say before anything is corrected for the number of plates.
struct Measured {
    judged: JudgedPlate,
    outliers: Vec<DriftRow>,
    outlier_share: f64,
    within: super::Within,
    between: f64,
    samples: Option<SampleTest>,
    stability: f64,
    wells: usize,
}

/// Judges plates in the order given.
///
/// # Errors
/// A setting out of range, a plate given twice, another width than the reference, or a reference without spread.
pub fn monitor(
    reference: &DriftReference,
    plates: &[PlateControls],
    settings: &MonitorSettings,
    seed: u64,
) -> Result<DriftReport, MonitorError> {
    settings.check()?;
    let mut names = BTreeSet::new();
    if let Some(twice) = plates.iter().find(|plate| !names.insert(&plate.plate)) {
        return Err(MonitorError::DuplicatePlate {
            plate: twice.plate.clone(),
        });
    }
    let baseline = Baseline::of(reference, seed)?;
    let known: BTreeSet<&crate::words::Barcode> = reference.plate_names().collect();
    let judged: Vec<bool> = plates
        .iter()
        .map(|plate| !known.contains(&plate.plate) && plate.controls() >= FEWEST_CONTROLS)
        .collect();
    let together = u32::try_from(judged.iter().filter(|&&judged| judged).count()).unwrap_or(u32::MAX);
    let permutations = settings.permutations.max(
        together
            .saturating_mul(PERMUTATIONS_PER_PLATE)
            .min(MOST_PERMUTATIONS),
    );
    let measured: Vec<Option<Measured>> = plates
        .par_iter()
        .zip(&judged)
        .map(|(plate, &judged)| {
            judged
                .then(|| measure(reference, &baseline, plate, permutations, seed))
                .transpose()
        })
        .collect::<Result<_, MonitorError>>()?;
    let corrected = |p: &dyn Fn(&Measured) -> Option<f64>| {
        let p: Vec<Option<f64>> = measured.iter().map(|m| m.as_ref().and_then(p)).collect();
        benjamini_hochberg(&p)
    };
    let q_within = corrected(&|m| m.within.p_value);
    let q_mmd = corrected(&|m| m.samples.map(|s| s.p_mmd));
    let q_energy = corrected(&|m| m.samples.map(|s| s.p_energy));

    let mut charts = Charts::after(reference, &baseline, &names);
    let mut before: BTreeSet<String> = charts.witnesses_before().clone();
    let mut out = Vec::with_capacity(plates.len());
    for (i, plate) in plates.iter().enumerate() {
        let Some(measured) = &measured[i] else {
            out.push(not_judged(plate, known.contains(&plate.plate)));
            continue;
        };
        let mut rows = measured.outliers.clone();
        let q = Corrected {
            within: q_within[i],
            mmd: q_mmd[i],
            energy: q_energy[i],
        };
        rows.extend(test_rows(measured, &baseline, q, settings));
        let charts_before = charts.clone();
        rows.extend(charts.push(&measured.judged));
        rows.extend(window_rows(plate, settings));
        rows.extend(disease_rows(reference, &baseline, plate, settings));
        rows.sort_by_key(|row| row.detector);
        let witnesses: BTreeSet<String> = rows
            .iter()
            .filter(|row| row.severity > Severity::Quiet)
            .map(DriftRow::witness)
            .collect();
        let level = level(&rows, &witnesses, &before);
        // A plate that is not to be trusted does not move the charts of those after it.
        if level == Level::Alert {
            charts = charts_before;
        }
        out.push(PlateDrift {
            plate: plate.plate.clone(),
            controls: plate.controls(),
            level,
            reason: reason(&rows),
            rows,
        });
        before = witnesses;
    }
    Ok(DriftReport {
        plates: out,
        reference_plates: reference.plate_names().cloned().collect(),
        reference_sha256: reference.sha256(),
        model_sha256: reference.identity().model_sha256.clone(),
        seed,
    })
}

fn not_judged(plate: &PlateControls, is_reference: bool) -> PlateDrift {
    let controls = plate.controls();
    let (level, reason) = if is_reference {
        (Level::Reference, String::new())
    } else {
        let few = format!("{controls} reference wells; drift is judged from {FEWEST_CONTROLS} on");
        (Level::NotMonitored, few)
    };
    PlateDrift {
        plate: plate.plate.clone(),
        controls,
        level,
        rows: Vec::new(),
        reason,
    }
}

fn measure(
    reference: &DriftReference,
    baseline: &Baseline,
    plate: &PlateControls,
    permutations: u32,
    seed: u64,
) -> Result<Measured, MonitorError> {
    let scores = reference.scores(plate)?;
    let mean = plate_mean(&scores);
    let outliers: Vec<DriftRow> = scores
        .iter()
        .zip(&plate.wells)
        .map(|(row, &well)| (baseline.wells.distance2(row), well))
        .filter(|(distance2, _)| *distance2 > baseline.outlier_limit)
        .map(|(distance2, well)| DriftRow {
            well: Some(well),
            ..quiet(Detector::OutlierWell, distance2, baseline.outlier_limit)
        })
        .collect();
    let samples = TwoSamples::new(&views(&baseline.sample), &views(&scores), baseline.gamma);
    // Named by the plate, so that its permutations do not depend on which plates are judged beside it.
    let name = plate.plate.as_str().bytes();
    let seed = name.fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(Measured {
        outlier_share: outliers.len() as f64 / scores.len() as f64,
        outliers,
        within: within(&baseline.wells, &mean, scores.len()),
        between: baseline.between.t2(&mean),
        samples: samples.map(|samples| samples.test(permutations, seed)),
        stability: largest_stability(&baseline.columns, &scores),
        wells: scores.len(),
        judged: reference.judged_plate(plate, &scores),
    })
}

pub(super) fn quiet(detector: Detector, statistic: f64, limit: f64) -> DriftRow {
    DriftRow {
        detector,
        well: None,
        quantity: None,
        statistic,
        limit,
        p_value: None,
        q_value: None,
        severity: Severity::Quiet,
    }
}

pub(super) fn signal_if(beyond: bool) -> Severity {
    if beyond { Severity::Signal } else { Severity::Quiet }
}

/// p-values corrected over the plates judged together.
struct Corrected {
    within: Option<f64>,
    mmd: Option<f64>,
    energy: Option<f64>,
}

fn test_rows(
    measured: &Measured,
    baseline: &Baseline,
    q: Corrected,
    settings: &MonitorSettings,
) -> Vec<DriftRow> {
    let limits = &settings.limits;
    let significant = |q: Option<f64>| q.is_some_and(|q| q < THREE_SD);
    let share = measured.outlier_share;
    let outliers = DriftRow {
        severity: if share > limits.outliers_alert {
            Severity::Alert
        } else if share > limits.outliers_warn {
            Severity::Warn
        } else {
            Severity::Quiet
        },
        ..quiet(Detector::OutlierShare, share, limits.outliers_warn)
    };
    let (within, between) = (&measured.within, measured.between);
    let further = between > baseline.between.limit;
    let mean_within = DriftRow {
        p_value: within.p_value,
        q_value: q.within,
        severity: if further && q.within.is_some_and(|q| q < limits.q_alert) {
            Severity::Alert
        } else {
            signal_if(significant(q.within) && within.t2 > baseline.within_limit)
        },
        ..quiet(Detector::MeanWithin, within.t2, baseline.within_limit)
    };
    let mean_between = DriftRow {
        severity: signal_if(significant(q.within) && further),
        ..quiet(Detector::MeanBetween, between, baseline.between.limit)
    };
    let mut rows = vec![outliers, mean_within, mean_between];
    if let Some(samples) = measured.samples {
        let tests = [
            (
                Detector::Mmd,
                samples.mmd2,
                baseline.mmd_limit,
                samples.p_mmd,
                q.mmd,
            ),
            (
                Detector::Energy,
                samples.energy,
                baseline.energy_limit,
                samples.p_energy,
                q.energy,
            ),
        ];
        rows.extend(tests.map(|(detector, statistic, limit, p, q)| DriftRow {
            p_value: Some(p),
            q_value: q,
            severity: signal_if(significant(q) && statistic > limit),
            ..quiet(detector, statistic, limit)
        }));
    }
    let limit = if measured.wells >= MANY_WELLS {
        UNSTABLE
    } else {
        baseline.stability_limit.max(UNSTABLE)
    };
    rows.push(DriftRow {
        severity: signal_if(measured.stability > limit),
        ..quiet(Detector::Stability, measured.stability, limit)
    });
    rows
}

fn window_rows(plate: &PlateControls, settings: &MonitorSettings) -> Vec<DriftRow> {
    let limit = settings.limits.z_prime_alert;
    plate
        .windows()
        .map(|(disease, z_prime)| DriftRow {
            quantity: Some(disease.to_owned()),
            severity: if z_prime < limit {
                Severity::Alert
            } else {
                Severity::Quiet
            },
            ..quiet(Detector::ZPrime, z_prime, limit)
        })
        .collect()
}

/// The cosine's limits are never above what accepted plates reach: with few controls, or a disease that is hardly
/// there, their vectors differ by more than 0.8 allows.
fn disease_rows(
    reference: &DriftReference,
    baseline: &Baseline,
    plate: &PlateControls,
    settings: &MonitorSettings,
) -> Vec<DriftRow> {
    let rows = plate.diseases.iter().filter_map(|(name, vector)| {
        let (mean, lowest) = baseline.diseases.get(name)?;
        let today: Vec<f64> = reference
            .scaled_vector(vector)
            .iter()
            .map(|&v| f64::from(v))
            .collect();
        let cosine = cosine(&today, mean)?;
        let warn = settings.limits.cosine_warn.min(*lowest);
        Some(DriftRow {
            quantity: Some(name.clone()),
            severity: if cosine < settings.limits.cosine_alert.min(*lowest) {
                Severity::Alert
            } else if cosine < warn {
                Severity::Warn
            } else {
                Severity::Quiet
            },
            ..quiet(Detector::DiseaseCosine, cosine, warn)
        })
    });
    rows.collect()
}

fn level(rows: &[DriftRow], witnesses: &BTreeSet<String>, before: &BTreeSet<String>) -> Level {
    let worst = rows
        .iter()
        .map(|row| row.severity)
        .max()
        .unwrap_or(Severity::Quiet);
    if worst == Severity::Alert {
        Level::Alert
    } else if worst == Severity::Warn
        || witnesses.len() > 1
        || witnesses.intersection(before).next().is_some()
    {
        Level::Warn
    } else if worst == Severity::Signal {
        Level::Info
    } else {
        Level::InControl
    }
}

/// What is beyond its limit, gravest first.
fn reason(rows: &[DriftRow]) -> String {
    let mut beyond: Vec<&DriftRow> = rows.iter().filter(|row| row.severity > Severity::Quiet).collect();
    beyond.sort_by_key(|row| std::cmp::Reverse(row.severity));
    let text = |row: &&DriftRow| {
        let quantity = row
            .quantity
            .as_deref()
            .map_or_else(String::new, |name| format!(" {name}"));
        let q = row.q_value.map_or_else(String::new, |q| format!(", q {q:.1e}"));
        format!(
            "{}{quantity} {:.3} (limit {:.3}{q})",
            row.detector, row.statistic, row.limit
        )
    };
    beyond.iter().map(text).collect::<Vec<_>>().join("; ")
}
