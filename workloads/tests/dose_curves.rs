//! Dose curves on planted data: intervals, losses, cutoffs, hit calls, trends, and wells that are left out.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

use wellspring_workloads::compare::curve::{CurveSettings, fit_curve, fit_values};
use wellspring_workloads::compare::{CurveLoss, CurveModel, DoseCurve, DosePoint, Measure};
use wellspring_workloads::words::WellPosition;

const DOSES: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

fn settings() -> CurveSettings {
    CurveSettings {
        margin: 2.0,
        loss: CurveLoss::Squares,
        cutoff: Some(0.2),
    }
}

/// Three replicates per dose around a curve, with a fixed pattern of residuals of the given size.
fn planted(curve: impl Fn(f64) -> f64, noise: f64) -> Vec<(f64, f64)> {
    let pattern = [0.6, -1.1, 0.4, -0.5, 1.2, -0.9, 0.1, 0.8, -0.3, 1.0, -0.7];
    DOSES
        .iter()
        .flat_map(|&dose| [dose; 3])
        .zip(pattern.iter().cycle())
        .map(|(dose, residual)| (dose, curve(dose) + noise * residual))
        .collect()
}

fn hill(top: f64, ec50: f64) -> impl Fn(f64) -> f64 {
    move |dose| top / (1.0 + (ec50 / dose).powf(1.3))
}

fn fitted(points: &[(f64, f64)], settings: &CurveSettings) -> DoseCurve {
    fit_values(Measure::OffAxis, points, settings).unwrap()
}

#[test]
fn the_interval_holds_the_ec50_and_grows_with_the_noise() {
    let width = |noise: f64| {
        let curve = fitted(&planted(hill(0.9, 0.5), noise), &settings());
        let (low, high) = (curve.ec50_low.unwrap(), curve.ec50_high.unwrap());
        assert!(low < 0.5 && 0.5 < high, "{low} {high}");
        assert!(low < curve.ec50.unwrap() && curve.ec50.unwrap() < high);
        (high / low).log10()
    };
    let (narrow, wide) = (width(0.02), width(0.1));
    assert!(wide > 3.0 * narrow, "{narrow} {wide}");
    // Where the curve is nearly linear in its parameters the profile is a parabola: t(21) = 2.08 standard errors.
    let curve = fitted(&planted(hill(0.9, 0.5), 0.02), &settings());
    let by_derivatives = 2.0 * 2.08 * curve.log10_ec50_se.unwrap();
    assert!(
        (narrow / by_derivatives - 1.0).abs() < 0.1,
        "{narrow} {by_derivatives}"
    );
}

#[test]
fn an_ec50_beyond_the_doses_has_an_open_interval() {
    let curve = fitted(&planted(hill(0.4, 100.0), 0.02), &settings());
    assert_eq!(curve.model, CurveModel::Hill);
    assert!(curve.ec50_low.is_some() && curve.ec50_high.is_none(), "{curve:?}");
}

#[test]
fn robust_losses_are_not_bent_by_one_well() {
    let mut points = planted(hill(0.9, 0.5), 0.03);
    points[13].1 += 6.0;
    let error = |loss| {
        let curve = fitted(&points, &CurveSettings { loss, ..settings() });
        assert_eq!(curve.model, CurveModel::Hill, "{loss:?} {curve:?}");
        (curve.top - 0.9).abs() + (curve.parameters.log10_ec50.unwrap() - 0.5f64.log10()).abs()
    };
    assert!(error(CurveLoss::Cauchy) < 0.15, "{}", error(CurveLoss::Cauchy));
    assert!(error(CurveLoss::Tukey) < 0.1, "{}", error(CurveLoss::Tukey));
    let bent = fitted(&points, &settings());
    assert!(
        bent.model != CurveModel::Hill || (bent.top - 0.9).abs() > 0.1,
        "{bent:?}"
    );
}

#[test]
fn the_cutoff_dose_is_where_the_curve_crosses_it() {
    let curve = fitted(&planted(hill(0.9, 0.5), 0.02), &settings());
    let dose = curve.cutoff_dose.unwrap();
    assert!((curve.evaluate(dose) - 0.2).abs() < 1e-6);
    let ac50 = curve.ac50.unwrap();
    assert!((curve.evaluate(ac50) - 0.5 * curve.top).abs() < 1e-6);
    let high = CurveSettings {
        cutoff: Some(2.0),
        ..settings()
    };
    assert_eq!(fitted(&planted(hill(0.9, 0.5), 0.02), &high).cutoff_dose, None);
}

#[test]
fn hit_calls_tell_curves_from_noise() {
    let call = |points: &[(f64, f64)]| fitted(points, &settings()).hit_call.unwrap();
    assert!(call(&planted(hill(0.9, 0.5), 0.05)) > 0.95);
    assert!(call(&planted(|_| 0.0, 0.05)) == 0.0);
    // A real curve whose top stays below the cutoff.
    assert!(call(&planted(hill(0.12, 0.5), 0.02)) < 0.1);
    let unknown = CurveSettings {
        cutoff: None,
        ..settings()
    };
    assert_eq!(fitted(&planted(hill(0.9, 0.5), 0.05), &unknown).hit_call, None);
}

#[test]
fn trends_are_reported() {
    let rising = fitted(&planted(hill(0.9, 0.5), 0.05), &settings());
    assert!(rising.trend_p.unwrap() < 1e-5 && rising.spearman.unwrap() > 0.9);
    let falling = fitted(&planted(|dose| -hill(0.9, 0.5)(dose), 0.05), &settings());
    assert!(falling.trend_p.unwrap() > 0.999 && falling.spearman.unwrap() < -0.9);
}

#[test]
fn masked_wells_do_not_pull_the_curve_down() {
    // Cells die at the two highest doses, and with them the effect.
    let values = planted(|dose| if dose < 5.0 { hill(0.9, 0.3)(dose) } else { -0.4 }, 0.03);
    let points: Vec<DosePoint> = (1u8..)
        .zip(&values)
        .map(|(row, &(dose, value))| DosePoint {
            plate: "P1".parse().unwrap(),
            well: wellspring_workloads::words::WellPosition::new(row, 1).unwrap(),
            dose,
            value,
            masked: dose > 5.0,
        })
        .collect();
    let curve = fit_curve(Measure::Rescue, points.clone(), &settings()).unwrap();
    assert_eq!(curve.model, CurveModel::Hill);
    assert!((curve.top - 0.85).abs() < 0.1, "{}", curve.top);
    assert_eq!(curve.tested, (0.01, 3.0));
    assert_eq!(curve.points.len(), points.len());
    // With too few doses left all are fitted, and the curve says so.
    let few: Vec<DosePoint> = points
        .into_iter()
        .map(|point| DosePoint {
            masked: point.dose > 0.2,
            ..point
        })
        .collect();
    let curve = fit_curve(Measure::Rescue, few, &settings()).unwrap();
    assert!(curve.points.iter().all(|point| !point.masked));
    assert_eq!(curve.tested, (0.01, 30.0));
}

/// How many wells the form of a curve needs: below, even residuals of 5 % of the variance leave it open.
#[test]
fn few_points_leave_the_form_open() {
    let curve = |doses: usize, wells: usize, noise: f64| {
        let points: Vec<DosePoint> = (0..wells)
            .map(|at| DosePoint {
                plate: "P1".parse().unwrap(),
                well: WellPosition::new(1, at as u8 + 1).unwrap(),
                dose: 0.01 * 3f64.powi((at % doses) as i32),
                value: 0.5 + noise * [1.0, -1.0, 0.5, -0.5, 0.7, -0.7, 0.2][at % 7],
                masked: false,
            })
            .collect();
        fit_curve(Measure::Rescue, points, &settings()).unwrap()
    };
    for (doses, wells, open) in [
        (4, 4, true),
        (6, 6, true),
        (6, 7, true),
        (6, 8, false),
        (4, 8, false),
        (8, 8, true),
        (9, 9, false),
    ] {
        let flat = curve(doses, wells, 0.1);
        assert!(
            matches!(flat.model, CurveModel::Zero | CurveModel::Constant),
            "{flat:?}"
        );
        assert_eq!(flat.is_open(), open, "{doses} doses, {wells} wells");
        let highest = flat.at_highest_doses().unwrap();
        assert!((highest - 0.5).abs() < 0.1, "{highest}");
    }
    // A curve without points, as off-axis curves are, is not.
    assert!(!fitted(&planted(|_| 0.0, 0.1), &settings()).is_open());
}
