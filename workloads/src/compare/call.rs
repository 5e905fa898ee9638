//! Calls and compound summaries (SCIENCE 6.7). Rows of a disease enter, summaries leave, and rows get their calls.
//!
//! - *toxic* (a dose): cells below `toxic_cell_ratio` of the controls, or off-axis z at least `off_z`, on
//!   average and in at least half of the wells, with its q-value below `q`, and supported by the other doses: the curve
//!   of off-axis z over dose reaches at least half of `off_z` there. A compound is toxic when a dose is.
//! - *active* (a compound): a dose with q below `q`, a dose curve that beats both flat models, and a fitted top of at
//!   least `active_top`. With too few doses for a curve: a significant dose with at least `active_top`.
//! - *rescue hit*: active in a rescue screen, top at least `hit_top`, and at the best dose off-axis z below `off_z`,
//!   cells at least `hit_cell_ratio` (where counted), and an effect z of at least `replicate_z` in at least half of the
//!   wells. An unknown off-axis or effect z is no hit.
//!
//! The best dose is the one of largest effect among those that could be a hit; so a compound that is a hit at one dose
//! and toxic at another is a hit with a therapeutic window. Wells that show harm are left out of the dose curve.

use super::curve::{CurveSettings, fit_curve, fit_values};
use super::plates::ScoredWell;
use super::rows::{Group, Kind, effect};
use super::{
    Call, Comparison, ComparisonSettings, CompoundSummary, CurveModel, DoseCurve, DosePoint, Measure, Note,
    NoteKind, Question, Thresholds,
};
use rayon::prelude::*;

/// Off-axis z at which the ranking takes the whole effect away.
const OFF_Z_SPAN: f64 = 10.0;
/// A curve crosses its cutoff at this many MADs of the controls' effects (SCIENCE 6.6).
const CUTOFF_MADS: f64 = 3.0;
/// From this off-axis z on a well says nothing of the rescue curve (SCIENCE 6.6).
const MASKED_OFF_Z: f64 = 6.0;
/// Share of the limit that the off-axis curve must reach at a toxic dose. Of two replicates one dose in several
/// thousand exceeds the limit by chance in both; its neighbours do not.
const CURVE_SUPPORT: f64 = 0.5;

/// Summaries by disease and rank; sets the calls of `rows`.
pub(super) fn summarise(
    rows: &mut [Comparison],
    groups: &[Group<'_, '_>],
    settings: &ComparisonSettings,
) -> (Vec<CompoundSummary>, Vec<Note>) {
    let spans = compounds(rows, groups);
    let mut summaries: Vec<CompoundSummary> = spans
        .par_iter()
        .map(|span| summary(rows, groups, span, settings))
        .collect();
    for (span, summary) in spans.iter().zip(&summaries) {
        for &i in &span.treated {
            rows[i].call = dose_call(&rows[i], groups[i].smallest_p, summary, settings);
        }
    }
    summaries.sort_by(|a, b| {
        let ec50 = |s: &CompoundSummary| s.curve.as_ref().and_then(|c| c.ec50).unwrap_or(f64::INFINITY);
        (a.disease.cmp(&b.disease))
            .then_with(|| b.score.total_cmp(&a.score))
            .then_with(|| ec50(a).total_cmp(&ec50(b)))
            .then_with(|| a.compound.cmp(&b.compound))
    });
    for disease in summaries.chunk_by_mut(|a, b| a.disease == b.disease) {
        for (place, summary) in disease.iter_mut().enumerate() {
            summary.rank = place + 1;
        }
    }
    let notes = notes(rows, groups, &summaries, settings);
    (summaries, notes)
}

/// The rows of one compound on one disease.
struct Span {
    treated: Vec<usize>,
    /// Rows of the dose curve: the treated ones, and in response screens the compound's own phenotype rows.
    curve: Vec<usize>,
}

fn compounds(rows: &[Comparison], groups: &[Group<'_, '_>]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut start = 0;
    while start < rows.len() {
        if groups[start].kind != Kind::Treated {
            start += 1;
            continue;
        }
        let same =
            |i: usize| rows[i].disease == rows[start].disease && rows[i].compound == rows[start].compound;
        let treated: Vec<usize> = (start..rows.len())
            .take_while(|&i| same(i) && groups[i].kind == Kind::Treated)
            .collect();
        let curve = (0..start)
            .rev()
            .take_while(|&i| rows[i].disease == rows[start].disease)
            .filter(|&i| groups[i].kind == Kind::Phenotype && same(i))
            .chain(treated.iter().copied())
            .collect();
        start += treated.len();
        spans.push(Span { treated, curve });
    }
    spans
}

fn summary(
    rows: &[Comparison],
    groups: &[Group<'_, '_>],
    span: &Span,
    settings: &ComparisonSettings,
) -> CompoundSummary {
    let question = settings.question;
    let with_phenotype = if question == Question::Response {
        &span.curve
    } else {
        &span.treated
    };
    let effect_of = |i: usize| effect(rows[i].on_axis, question);
    // The first of equals, so that ties go to the lower dose.
    let largest = |doses: &mut dyn Iterator<Item = usize>| {
        doses.reduce(|best, i| if effect_of(i) > effect_of(best) { i } else { best })
    };
    let limits = &settings.thresholds;
    let usable = |i: usize| {
        let row = &rows[i];
        is_clean(row, limits)
            && is_replicated(row.effect_z_support, limits)
            && effect_of(i) >= limits.hit_top
            && row.q_value.is_some_and(|q| q < limits.q)
    };
    let best = largest(&mut span.treated.iter().copied().filter(|&i| usable(i)))
        .filter(|_| question == Question::Rescue)
        .or_else(|| largest(&mut with_phenotype.iter().copied()))
        .unwrap_or(span.treated[0]);
    let measure = match question {
        Question::Rescue => Measure::Rescue,
        Question::Response => Measure::OnAxis,
    };
    let mut points: Vec<DosePoint> = with_phenotype
        .iter()
        .flat_map(|&i| groups[i].wells.iter().map(move |(_, well)| (i, well)))
        .filter_map(|(i, well)| {
            Some(DosePoint {
                plate: well.profile.plate.clone(),
                well: well.profile.well,
                dose: rows[i].dose?,
                value: effect(well.position.on_axis, question),
                masked: question == Question::Rescue && shows_harm(well, limits),
            })
        })
        .collect();
    points.sort_by(|a, b| {
        a.dose
            .total_cmp(&b.dose)
            .then_with(|| (&a.plate, a.well).cmp(&(&b.plate, b.well)))
    });
    let mads = with_phenotype
        .iter()
        .flat_map(|&i| groups[i].wells.iter().filter_map(|(_, well)| well.effect_mad));
    let (sum, n) = mads.fold((0.0, 0.0), |(sum, n), mad| (sum + mad, n + 1.0));
    let judged_by = |cutoff: Option<f64>| CurveSettings {
        margin: limits.aic_margin,
        loss: settings.curve_loss,
        cutoff,
    };
    let cutoff = (n > 0.0).then(|| CUTOFF_MADS * sum / n);
    let curve = fit_curve(measure, points, &judged_by(cutoff));
    let top = curve.as_ref().map_or(effect_of(best), |curve| curve.top);
    let side_curve = |measure, cutoff: f64, value: fn(&ScoredWell<'_>) -> Option<f64>| {
        let values: Vec<(f64, f64)> = span
            .treated
            .iter()
            .flat_map(|&i| groups[i].wells.iter().map(move |(_, well)| (i, well)))
            .filter_map(|(i, well)| rows[i].dose.zip(value(well)))
            .collect();
        fit_values(measure, &values, &judged_by(Some(cutoff)))
    };
    let off_curve = side_curve(Measure::OffAxis, limits.off_z, |well| well.off_z);
    let cell_curve = side_curve(Measure::CellLoss, 1.0 - limits.toxic_cell_ratio, |well| {
        well.cell_ratio.map(|ratio| 1.0 - ratio)
    });
    let extreme = |value: fn(&Comparison) -> Option<f64>, largest: bool| {
        let values = span.treated.iter().filter_map(|&i| value(&rows[i]));
        if largest {
            values.max_by(f64::total_cmp)
        } else {
            values.min_by(f64::total_cmp)
        }
    };
    let toxic_dose = span
        .treated
        .iter()
        .filter(|&&i| is_toxic(&rows[i], off_curve.as_ref(), limits))
        .filter_map(|&i| rows[i].dose)
        .min_by(f64::total_cmp);
    let ec50 = curve.as_ref().and_then(|curve| curve.ec50);
    let penalty = rows[best].off_z.map_or(0.0, |z| (z / OFF_Z_SPAN).clamp(0.0, 1.0));
    let mut doses: Vec<u64> = with_phenotype
        .iter()
        .filter_map(|&i| rows[i].dose.map(f64::to_bits))
        .collect();
    doses.sort_unstable();
    doses.dedup();
    let mut summary = CompoundSummary {
        disease: rows[best].disease.clone(),
        compound: rows[best].compound.clone(),
        call: Call::Untested,
        rank: 0,
        score: top * (1.0 - penalty),
        n_doses: doses.len(),
        best_dose: rows[best].dose,
        best_rescue: rows[best].rescue,
        best_off_z: rows[best].off_z,
        best_cell_ratio: rows[best].cell_ratio,
        top,
        min_q: extreme(|row| row.q_value, false),
        max_off_z: extreme(|row| row.off_z, true),
        min_cell_ratio: extreme(|row| row.cell_ratio, false),
        toxic_dose,
        therapeutic_window: toxic_dose
            .zip(ec50)
            .filter(|(toxic, _)| *toxic > 0.0)
            .map(|(t, e)| (t / e).log10()),
        best_effect_z_support: rows[best].effect_z_support,
        curve,
        off_curve,
        cell_curve,
    };
    let any_toxic = span
        .treated
        .iter()
        .any(|&i| is_toxic(&rows[i], summary.off_curve.as_ref(), limits));
    let smallest_p = span
        .treated
        .iter()
        .filter_map(|&i| groups[i].smallest_p)
        .min_by(f64::total_cmp);
    summary.call = compound_call(&summary, any_toxic, smallest_p, settings);
    summary
}

fn is_toxic(row: &Comparison, off_curve: Option<&DoseCurve>, limits: &Thresholds) -> bool {
    let supported = row
        .dose
        .zip(off_curve)
        .is_none_or(|(dose, curve)| curve.evaluate(dose) >= CURVE_SUPPORT * limits.off_z);
    row.cell_ratio
        .is_some_and(|ratio| ratio < limits.toxic_cell_ratio)
        || (supported
            && row.off_z.is_some_and(|z| z >= limits.off_z)
            && row.off_z_support.is_some_and(|z| z >= limits.off_z)
            && row.q_off.is_some_and(|q| q < limits.q))
}

/// Without harm to cells or beside the axis; an unknown off-axis z is not clean.
fn is_clean(row: &Comparison, limits: &Thresholds) -> bool {
    row.off_z.is_some_and(|z| z < limits.off_z)
        && row.cell_ratio.is_none_or(|ratio| ratio >= limits.hit_cell_ratio)
}

fn is_replicated(effect_z_support: Option<f64>, limits: &Thresholds) -> bool {
    effect_z_support.is_some_and(|z| z >= limits.replicate_z)
}

fn shows_harm(well: &ScoredWell<'_>, limits: &Thresholds) -> bool {
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
    let active = significant && shaped && summary.top.abs() >= limits.active_top;
    let clean = is_replicated(summary.best_effect_z_support, limits)
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

fn dose_call(
    row: &Comparison,
    smallest_p: Option<f64>,
    summary: &CompoundSummary,
    settings: &ComparisonSettings,
) -> Call {
    let limits = &settings.thresholds;
    let effect = effect(row.on_axis, settings.question);
    let significant = row.q_value.is_some_and(|q| q < limits.q);
    if is_toxic(row, summary.off_curve.as_ref(), limits) {
        Call::Toxic
    } else if significant
        && summary.call == Call::RescueHit
        && effect >= limits.hit_top
        && is_replicated(row.effect_z_support, limits)
        && is_clean(row, limits)
    {
        Call::RescueHit
    } else if significant && effect >= limits.active_top {
        Call::Active
    } else {
        without_finding(smallest_p, limits)
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

fn notes(
    rows: &[Comparison],
    groups: &[Group<'_, '_>],
    summaries: &[CompoundSummary],
    settings: &ComparisonSettings,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut start = 0;
    for of_disease in rows.chunk_by(|a, b| a.disease == b.disease) {
        let span = start..start + of_disease.len();
        start = span.end;
        let (Some(first), treated) = (
            of_disease.first(),
            span.filter(|&i| groups[i].kind == Kind::Treated)
                .collect::<Vec<_>>(),
        ) else {
            continue;
        };
        let mut add = |kind, text: String| {
            let name = first
                .disease
                .as_deref()
                .map(|d| format!("disease {d}: "))
                .unwrap_or_default();
            let text = format!("{name}{text}");
            notes.push(Note {
                kind,
                plate: None,
                disease: first.disease.clone(),
                well: None,
                column: None,
                text,
            });
        };
        let reach: Vec<f64> = treated.iter().filter_map(|&i| groups[i].smallest_p).collect();
        let weak = reach.iter().filter(|&&p| p >= settings.thresholds.q).count();
        if let Some(best) = reach.iter().copied().min_by(f64::total_cmp).filter(|_| weak > 0) {
            add(
                NoteKind::Underpowered,
                format!(
                    "{weak} of {} treatments have too few control wells for a p-value below {} (the smallest possible \
                     is {best:.3}): read the scores, not the calls",
                    treated.len(),
                    settings.thresholds.q
                ),
            );
        }
        let of_disease: Vec<&CompoundSummary> =
            summaries.iter().filter(|s| s.disease == first.disease).collect();
        let few = of_disease.iter().filter(|s| s.curve.is_none()).count();
        if few > 0 {
            add(
                NoteKind::FewDoses,
                format!(
                    "{few} of {} compounds have fewer than {} doses: no curve was fitted, the largest effect is reported",
                    of_disease.len(),
                    super::curve::FEWEST_DOSES
                ),
            );
        }
    }
    notes
}
