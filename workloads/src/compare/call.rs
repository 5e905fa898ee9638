//! Calls and compound summaries (SCIENCE 6.7). Rows of a disease enter, summaries leave, and rows get their calls.
//!
//! - *mimic* (a dose on reference wells): cosine with the way to the phenotype above `mimic_cosine`, q below `q`.
//! - *toxic* (a dose): cells below `toxic_cell_ratio` of the controls, or off-axis z at least `off_z`, on
//!   average and in at least half of the wells, with its q-value below `q`, and supported by the other doses: the curve
//!   of off-axis z over dose reaches at least half of `off_z` there. A compound is toxic when a dose is.
//! - *active* (a compound): a dose with q below `q`, a dose curve that beats both flat models, and a fitted top of at
//!   least `active_top`. With too few doses for a curve: a significant dose with at least `active_top`.
//! - *rescue hit*: active in a rescue screen, top at least `hit_top`, and at the best dose off-axis z below `off_z`,
//!   cells at least `hit_cell_ratio` (where counted), and an effect z of at least `replicate_z` in at least half of the
//!   wells. An unknown off-axis or effect z is no hit.
//!
//! In activity screens a compound is active where its distance from the reference is significant at a dose, and toxic
//! by its cells alone.
//!
//! The best dose is the one of largest effect among those that could be a hit; so a compound that is a hit at one dose
//! and toxic at another is a hit with a therapeutic window. Wells that show harm are left out of the dose curve.

use std::cmp::Ordering;

use super::curve::{CurveSettings, fit_curve, fit_values};
use super::series::{Row, WellEffect};
use super::{
    Call, Comparison, ComparisonSettings, CompoundSummary, CurveModel, DoseCurve, DosePoint, Measure,
    Question, Thresholds,
};

/// A curve crosses its cutoff at this many MADs of the controls' effects (SCIENCE 6.6).
const CUTOFF_MADS: f64 = 3.0;
/// Off-axis z at which the ranking takes the whole effect away.
const OFF_Z_SPAN: f64 = 10.0;
/// From this off-axis z on a well says nothing of the rescue curve (SCIENCE 6.6).
const MASKED_OFF_Z: f64 = 6.0;
/// Share of the limit that the off-axis curve must reach at a toxic dose. Of two replicates one dose in several
/// thousand exceeds the limit by chance in both; its neighbours do not.
const CURVE_SUPPORT: f64 = 0.5;

/// The summary of one compound on one disease, without its rank; sets the calls of its rows.
///
/// `treated`: its rows by dose, at least one. `phenotype`: rows of phenotype wells that carry the same compound, which
/// in response screens are part of the dose curve.
pub(super) fn summarise(
    treated: &mut [Row],
    phenotype: &[Row],
    settings: &ComparisonSettings,
) -> CompoundSummary {
    let summary = summary(treated, phenotype, settings);
    for row in treated {
        row.row.call = dose_call(row, &summary, settings);
    }
    summary
}

/// What a compound is ranked by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    score: f64,
    ec50: f64,
}

impl Standing {
    pub(super) fn of(summary: &CompoundSummary) -> Self {
        let ec50 = summary.curve.as_ref().and_then(|curve| curve.ec50);
        Self {
            score: summary.score,
            ec50: ec50.unwrap_or(f64::INFINITY),
        }
    }

    /// Best first: by score, then EC50. Equal ones stay as they are, by name.
    pub(super) fn by_rank(&self, other: &Self) -> Ordering {
        (other.score.total_cmp(&self.score)).then_with(|| self.ec50.total_cmp(&other.ec50))
    }
}

/// The call of a counter-screen row: a mimic makes healthy cells look like the disease (SCIENCE 6.7).
pub(super) fn counter_call(row: &Row, settings: &ComparisonSettings) -> Call {
    let limits = &settings.thresholds;
    let alike = row
        .row
        .direction_cosine
        .is_some_and(|cosine| cosine > limits.mimic_cosine);
    if alike && row.row.q_value.is_some_and(|q| q < limits.q) {
        Call::Mimic
    } else if is_toxic(&row.row, None, settings) {
        Call::Toxic
    } else {
        without_finding(row.smallest_p, limits)
    }
}

fn summary(treated: &[Row], phenotype: &[Row], settings: &ComparisonSettings) -> CompoundSummary {
    let question = settings.question;
    let limits = &settings.thresholds;
    let with_phenotype: Vec<&Row> = if question == Question::Response {
        phenotype.iter().chain(treated).collect()
    } else {
        treated.iter().collect()
    };
    let usable = |row: &Row| {
        is_clean(&row.row, limits)
            && is_replicated(row.row.effect_z_support, row.row.map_q_value, limits)
            && row.effect >= limits.hit_top
            && row.row.q_value.is_some_and(|q| q < limits.q)
    };
    let best = largest(treated.iter().filter(|row| usable(row)))
        .filter(|_| question == Question::Rescue)
        .or_else(|| largest(with_phenotype.iter().copied()))
        .unwrap_or(&treated[0]);
    let judged_by = |cutoff: Option<f64>| CurveSettings {
        margin: limits.aic_margin,
        loss: settings.curve_loss,
        cutoff,
    };
    let curve = fit_curve(
        measure(question),
        points(&with_phenotype, settings),
        &judged_by(cutoff(&with_phenotype)),
    );
    let top = curve.as_ref().map_or(best.effect, |curve| curve.top);
    // A constant that was kept for want of points says nothing of the effect: it would rank a rescuer below noise.
    let open = curve.as_ref().filter(|curve| curve.is_open());
    let ranked = open.and_then(DoseCurve::at_highest_doses).unwrap_or(top);
    let side_curve = |measure, cutoff: f64, value: fn(&WellEffect) -> Option<f64>| {
        let wells = treated
            .iter()
            .flat_map(|row| row.wells.iter().map(move |well| (row, well)));
        let values: Vec<(f64, f64)> = wells
            .filter_map(|(row, well)| row.row.dose.zip(value(well)))
            .collect();
        fit_values(measure, &values, &judged_by(Some(cutoff)))
    };
    let off_curve = side_curve(Measure::OffAxis, limits.off_z, |well| well.off_z);
    let cell_curve = side_curve(Measure::CellLoss, 1.0 - limits.toxic_cell_ratio, |well| {
        well.cell_ratio.map(|ratio| 1.0 - ratio)
    });
    let extreme = |value: fn(&Comparison) -> Option<f64>, largest: bool| {
        let values = treated.iter().filter_map(|row| value(&row.row));
        if largest {
            values.max_by(f64::total_cmp)
        } else {
            values.min_by(f64::total_cmp)
        }
    };
    let toxic = || {
        treated
            .iter()
            .filter(|row| is_toxic(&row.row, off_curve.as_ref(), settings))
    };
    let toxic_dose = toxic().filter_map(|row| row.row.dose).min_by(f64::total_cmp);
    let any_toxic = toxic().next().is_some();
    let ec50 = curve.as_ref().and_then(|curve| curve.ec50);
    let penalty = match (question, best.row.off_z) {
        // Without an axis the distance is the effect itself.
        (Question::Activity, _) | (_, None) => 0.0,
        (_, Some(z)) => (z / OFF_Z_SPAN).clamp(0.0, 1.0),
    };
    let mut doses: Vec<u64> = with_phenotype
        .iter()
        .filter_map(|row| row.row.dose.map(f64::to_bits))
        .collect();
    doses.sort_unstable();
    doses.dedup();
    let mut summary = CompoundSummary {
        disease: best.row.disease.clone(),
        compound: best.row.compound.clone(),
        call: Call::Untested,
        rank: 0,
        score: ranked * (1.0 - penalty),
        n_doses: doses.len(),
        best_dose: best.row.dose,
        best_rescue: best.row.rescue,
        best_specificity: best.row.specificity,
        best_model_specificity: None,
        best_off_z: best.row.off_z,
        best_cell_ratio: best.row.cell_ratio,
        top,
        min_q: extreme(|row| row.q_value, false),
        max_off_z: extreme(|row| row.off_z, true),
        min_cell_ratio: extreme(|row| row.cell_ratio, false),
        toxic_dose,
        therapeutic_window: toxic_dose
            .zip(ec50)
            .filter(|(toxic, _)| *toxic > 0.0)
            .map(|(t, e)| (t / e).log10()),
        best_effect_z_support: best.row.effect_z_support,
        best_map_q_value: best.row.map_q_value,
        curve,
        off_curve,
        cell_curve,
    };
    let smallest_p = treated
        .iter()
        .filter_map(|row| row.smallest_p)
        .min_by(f64::total_cmp);
    summary.call = compound_call(&summary, any_toxic, smallest_p, settings);
    summary
}

/// The row of largest effect; the first of equals, so that ties go to the lower dose.
fn largest<'r>(rows: impl Iterator<Item = &'r Row>) -> Option<&'r Row> {
    rows.reduce(|best, row| if row.effect > best.effect { row } else { best })
}

/// The effect from which on a curve shows more than the controls' spread; `None` where that is not known.
fn cutoff(rows: &[&Row]) -> Option<f64> {
    let mads = rows
        .iter()
        .flat_map(|row| row.wells.iter().filter_map(|well| well.effect_mad));
    let (sum, n) = mads.fold((0.0, 0.0), |(sum, n), mad| (sum + mad, n + 1.0));
    (n > 0.0).then(|| CUTOFF_MADS * sum / n)
}

fn measure(question: Question) -> Measure {
    match question {
        Question::Rescue => Measure::Rescue,
        Question::Response => Measure::OnAxis,
        Question::Activity => Measure::Activity,
    }
}

/// What the dose curve is fitted to, by dose, plate and well.
fn points(rows: &[&Row], settings: &ComparisonSettings) -> Vec<DosePoint> {
    let wells = rows
        .iter()
        .flat_map(|row| row.wells.iter().map(move |well| (row, well)));
    let mut points: Vec<DosePoint> = wells
        .filter_map(|(row, well)| {
            Some(DosePoint {
                plate: well.plate.clone(),
                well: well.well,
                dose: row.row.dose?,
                value: well.effect,
                masked: settings.question == Question::Rescue && shows_harm(well, &settings.thresholds),
            })
        })
        .collect();
    points.sort_by(|a, b| {
        a.dose
            .total_cmp(&b.dose)
            .then_with(|| (&a.plate, a.well).cmp(&(&b.plate, b.well)))
    });
    points
}

fn is_toxic(row: &Comparison, off_curve: Option<&DoseCurve>, settings: &ComparisonSettings) -> bool {
    let limits = &settings.thresholds;
    // Without an axis nothing is beside it: distance is activity, and only lost cells are harm.
    let axis = settings.question != Question::Activity;
    let supported = row
        .dose
        .zip(off_curve)
        .is_none_or(|(dose, curve)| curve.evaluate(dose) >= CURVE_SUPPORT * limits.off_z);
    row.cell_ratio
        .is_some_and(|ratio| ratio < limits.toxic_cell_ratio)
        || (axis
            && supported
            && row.off_z.is_some_and(|z| z >= limits.off_z)
            && row.off_z_support.is_some_and(|z| z >= limits.off_z)
            && row.q_off.is_some_and(|q| q < limits.q))
}

/// Without harm to cells or beside the axis; an unknown off-axis z is not clean.
fn is_clean(row: &Comparison, limits: &Thresholds) -> bool {
    row.off_z.is_some_and(|z| z < limits.off_z)
        && row.cell_ratio.is_none_or(|ratio| ratio >= limits.hit_cell_ratio)
}

/// By the effect of its wells, or because they find each other among the controls.
fn is_replicated(effect_z_support: Option<f64>, map_q_value: Option<f64>, limits: &Thresholds) -> bool {
    effect_z_support.is_some_and(|z| z >= limits.replicate_z)
        || map_q_value.is_some_and(|q| q < limits.replicate_map_q)
}

fn shows_harm(well: &WellEffect, limits: &Thresholds) -> bool {
    well.off_z.is_some_and(|z| z >= MASKED_OFF_Z)
        || well
            .cell_ratio
            .is_some_and(|ratio| ratio < limits.toxic_cell_ratio)
}

fn compound_call(
    summary: &CompoundSummary,
    any_toxic: bool,
    smallest_p: Option<f64>,
    settings: &ComparisonSettings,
) -> Call {
    let limits = &settings.thresholds;
    let significant = summary.min_q.is_some_and(|q| q < limits.q);
    let shaped = summary
        .curve
        .as_ref()
        .is_none_or(|curve| matches!(curve.model, CurveModel::Hill | CurveModel::GainLoss));
    let large = summary.top.abs() >= limits.active_top;
    // A distance has no unit in which a limit would mean the same in every assay: significance alone counts.
    let active = significant && (settings.question == Question::Activity || (shaped && large));
    let clean = is_replicated(summary.best_effect_z_support, summary.best_map_q_value, limits)
        && summary.best_off_z.is_some_and(|z| z < limits.off_z)
        && summary
            .best_cell_ratio
            .is_none_or(|ratio| ratio >= limits.hit_cell_ratio);
    if active && settings.question == Question::Rescue && summary.top >= limits.hit_top && clean {
        Call::RescueHit
    } else if any_toxic {
        Call::Toxic
    } else if active {
        Call::Active
    } else {
        without_finding(smallest_p, limits)
    }
}

fn dose_call(row: &Row, summary: &CompoundSummary, settings: &ComparisonSettings) -> Call {
    let limits = &settings.thresholds;
    let scores = &row.row;
    let significant = scores.q_value.is_some_and(|q| q < limits.q);
    let large = settings.question == Question::Activity || row.effect >= limits.active_top;
    if is_toxic(scores, summary.off_curve.as_ref(), settings) {
        Call::Toxic
    } else if significant
        && summary.call == Call::RescueHit
        && row.effect >= limits.hit_top
        && is_replicated(scores.effect_z_support, scores.map_q_value, limits)
        && is_clean(scores, limits)
    {
        Call::RescueHit
    } else if significant && large {
        Call::Active
    } else {
        without_finding(row.smallest_p, limits)
    }
}

/// Nothing found: was there a way to find anything?
fn without_finding(smallest_p: Option<f64>, limits: &Thresholds) -> Call {
    match smallest_p {
        None => Call::Untested,
        Some(p) if p >= limits.q => Call::Underpowered,
        Some(_) => Call::Inactive,
    }
}
