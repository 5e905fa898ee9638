//! The comparison on small planted screens: known answers, bad input, invariances.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/noise.rs"]
mod noise;

use noise::Noise;
use proptest::prelude::*;
use wellspring_workloads::compare::{
    Call, Censoring, CompareError, Comparison, ComparisonSettings, Correction, CurveModel, FitOn, Normalise,
    NoteKind, Question, ScreenComparison, compare,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

const WIDTH: usize = 24;
const DOSES: [f64; 6] = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Fills a plate well by well.
struct Plate {
    barcode: &'static str,
    next: usize,
    noise: Noise,
    wells: Vec<WellProfile>,
}

impl Plate {
    fn new(barcode: &'static str, seed: u64) -> Self {
        Self {
            barcode,
            next: 0,
            noise: Noise(seed),
            wells: Vec::new(),
        }
    }

    /// A well at `on` along the first feature and `off` along the second.
    fn add(&mut self, role: Role, compound: Option<&str>, dose: Option<f64>, on: f64, off: f64, cells: f64) {
        let column = u8::try_from(self.next % 24).unwrap() + 1;
        let row = u8::try_from(self.next / 24).unwrap() + 1;
        self.next += 1;
        let values = (0..WIDTH)
            .map(|i| {
                let effect = [4.0 * on, 4.0 * off].get(i).copied().unwrap_or(0.0);
                (effect + 0.3 * self.noise.normal()) as f32
            })
            .collect();
        self.wells.push(WellProfile {
            plate: self.barcode.parse().unwrap(),
            well: WellPosition::new(row, column).unwrap(),
            treatment: Treatment {
                role,
                disease: (role != Role::Reference).then(|| "D1".to_owned()),
                compound: compound.map(str::to_owned),
                dose,
            },
            fields: 4,
            cell_count: Some(cells),
            values,
        });
    }
}

fn hill(dose: f64, ec50: f64) -> f64 {
    dose / (dose + ec50)
}

/// Two plates with 24 + 24 controls, a full rescuer, a partial one, a toxic compound and five inactive ones.
fn rescue_screen(seed: u64) -> Vec<WellProfile> {
    let mut wells = Vec::new();
    for (barcode, number) in [("P1", 0), ("P2", 1)] {
        let mut plate = Plate::new(barcode, seed * 1000 + number);
        for _ in 0..24 {
            plate.add(Role::Reference, None, None, 0.0, 0.0, 1000.0);
            plate.add(Role::Phenotype, None, None, 1.0, 0.0, 1000.0);
        }
        for dose in DOSES {
            plate.add(
                Role::Treated,
                Some("rescuer"),
                Some(dose),
                1.0 - hill(dose, 0.3),
                0.0,
                1000.0,
            );
            plate.add(
                Role::Treated,
                Some("partial"),
                Some(dose),
                1.0 - 0.45 * hill(dose, 0.3),
                0.0,
                1000.0,
            );
            let harm = hill(dose, 1.0);
            plate.add(
                Role::Treated,
                Some("toxic"),
                Some(dose),
                1.0,
                3.0 * harm,
                1000.0 * (1.0 - 0.8 * harm),
            );
            for name in ["i1", "i2", "i3", "i4", "i5"] {
                plate.add(Role::Treated, Some(name), Some(dose), 1.0, 0.0, 1000.0);
            }
        }
        wells.extend(plate.wells);
    }
    wells
}

fn plain() -> ComparisonSettings {
    ComparisonSettings {
        normalise: Normalise::None,
        ..ComparisonSettings::default()
    }
}

fn call_of(result: &ScreenComparison, compound: &str) -> Call {
    result
        .compounds
        .iter()
        .find(|c| c.compound.as_deref() == Some(compound))
        .unwrap()
        .call
}

#[test]
fn a_planted_rescuer_ranks_first_and_a_planted_toxic_compound_is_called_toxic() {
    for normalise in [Normalise::None, Normalise::Standardise, Normalise::RobustMad] {
        for correction in [Correction::Bh, Correction::Hierarchical] {
            let settings = ComparisonSettings {
                normalise,
                correction,
                ..ComparisonSettings::default()
            };
            let result = compare(&rescue_screen(1), &settings).unwrap();
            let first = &result.compounds[0];
            assert_eq!((first.compound.as_deref(), first.rank), (Some("rescuer"), 1));
            assert_eq!(first.call, Call::RescueHit);
            let curve = first.curve.as_ref().unwrap();
            assert_eq!(
                (curve.model, curve.censoring, curve.monotone),
                (CurveModel::Hill, Censoring::None, true)
            );
            assert!((0.15..0.6).contains(&curve.ec50.unwrap()), "{curve:?}");
            assert!((curve.evaluate(10.0) - curve.top).abs() < 1e-12);
            assert_eq!(call_of(&result, "partial"), Call::Active);
            assert_eq!(call_of(&result, "toxic"), Call::Toxic);
            for name in ["i1", "i2", "i3", "i4", "i5"] {
                assert_eq!(call_of(&result, name), Call::Inactive, "{name}");
            }
            assert!(result.windows.iter().all(|w| w.z_prime.unwrap() > 0.3));
            // Too few reference wells for an alignment over plates is all there is to say.
            let notes: Vec<NoteKind> = result.notes.iter().map(|note| note.kind).collect();
            assert_eq!(notes, [NoteKind::Alignment], "{:?}", result.notes);
        }
    }
}

/// With one well to a dose no curve can beat a constant: the effect that was measured ranks, and a note says so.
#[test]
fn single_replicates_are_ranked_by_what_was_measured() {
    for seed in 1..=5 {
        let both = rescue_screen(seed);
        let one: Vec<_> = (both.iter().filter(|well| well.plate.as_str() == "P1"))
            .cloned()
            .collect();
        let result = compare(&one, &plain()).unwrap();
        let of = |name: &str| {
            let mut all = result.compounds.iter();
            all.find(|c| c.compound.as_deref() == Some(name)).unwrap()
        };
        let curve = of("rescuer").curve.as_ref().unwrap();
        assert!(curve.is_open() && curve.points.len() == DOSES.len());
        assert_eq!((of("rescuer").rank, of("partial").rank), (1, 2), "{seed}");
        // 0.909 and 0.971 of the full effect at the two highest doses.
        let highest = curve.at_highest_doses().unwrap();
        assert!((highest - 0.94).abs() < 0.15, "{highest}");
        let kept = 1.0 - (of("rescuer").best_off_z.unwrap() / 10.0).clamp(0.0, 1.0);
        assert!((of("rescuer").score - highest * kept).abs() < 1e-12);
        let note = |result: &ScreenComparison| {
            let mut notes = result.notes.iter();
            notes
                .find(|note| note.kind == NoteKind::OpenCurves)
                .map(|note| note.text.clone())
        };
        assert!(
            note(&result)
                .unwrap()
                .contains("8 of 8 compounds have too few wells")
        );
        let two = compare(&both, &plain()).unwrap();
        assert_eq!(note(&two), None);
        let top = two.compounds.iter().find(|c| c.rank == 1).unwrap();
        assert!(top.score <= top.top);
    }
}

#[test]
fn a_rescuer_that_harms_at_the_top_dose_is_a_hit_with_a_therapeutic_window() {
    let mut wells = rescue_screen(2);
    for well in &mut wells {
        if well.treatment.compound.as_deref() == Some("rescuer") && well.treatment.dose == Some(10.0) {
            well.cell_count = Some(200.0);
            well.values[0] += 2.0;
        }
    }
    let result = compare(&wells, &plain()).unwrap();
    let rescuer = result
        .compounds
        .iter()
        .find(|c| c.compound.as_deref() == Some("rescuer"))
        .unwrap();
    assert_eq!((rescuer.call, rescuer.toxic_dose), (Call::RescueHit, Some(10.0)));
    assert!(rescuer.therapeutic_window.unwrap() > 1.0);
    let top = result
        .rows
        .iter()
        .find(|r| r.compound.as_deref() == Some("rescuer") && r.dose == Some(10.0))
        .unwrap();
    assert_eq!(top.call, Call::Toxic);
}

#[test]
fn control_rows_lie_at_zero_and_one() {
    let result = compare(&rescue_screen(3), &plain()).unwrap();
    let [reference, phenotype] = &result.rows[..2] else {
        panic!()
    };
    assert_eq!(
        (reference.call, phenotype.call),
        (Call::Reference, Call::Phenotype)
    );
    assert_eq!(
        (reference.n_wells, reference.n_plates, reference.p_value),
        (48, 2, None)
    );
    assert!(reference.on_axis.unwrap().abs() < 0.02, "{reference:?}");
    assert!((phenotype.on_axis.unwrap() - 1.0).abs() < 0.02, "{phenotype:?}");
}

/// One plate like the real dose series: three untreated wells, two wells per dose, one at the top dose.
fn response_plate() -> Vec<WellProfile> {
    let mut plate = Plate::new("T1", 5);
    for _ in 0..3 {
        plate.add(Role::Reference, None, Some(0.0), 0.0, 0.0, 500.0);
    }
    plate.add(Role::Treated, Some("agonist"), Some(100.0), 0.55, 0.2, 500.0);
    for _ in 0..2 {
        plate.add(Role::Phenotype, Some("agonist"), Some(30.0), 1.0, 0.0, 500.0);
        plate.add(Role::Treated, Some("agonist"), Some(10.0), 0.9, 0.0, 500.0);
        plate.add(Role::Treated, Some("agonist"), Some(3.0), 0.25, 0.0, 500.0);
        for dose in [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0] {
            plate.add(Role::Treated, Some("agonist"), Some(dose), 0.0, 0.0, 500.0);
        }
    }
    for well in &mut plate.wells {
        well.treatment.disease = None;
        for value in &mut well.values[2..] {
            *value *= 0.3;
        }
    }
    plate.wells
}

#[test]
fn a_response_that_falls_at_the_top_dose_is_not_called_monotone() {
    let settings = ComparisonSettings {
        question: Question::Response,
        ..plain()
    };
    let result = compare(&response_plate(), &settings).unwrap();
    let at = |dose: f64| -> &Comparison { result.rows.iter().find(|r| r.dose == Some(dose)).unwrap() };
    assert!(at(0.0).on_axis.unwrap().abs() < 0.1, "{:?}", at(0.0));
    assert_eq!((at(0.0).call, at(30.0).call), (Call::Reference, Call::Phenotype));
    assert!((at(30.0).on_axis.unwrap() - 1.0).abs() < 0.1, "{:?}", at(30.0));
    assert!(at(1.0).on_axis.unwrap().abs() < 0.1 && at(0.001).on_axis.unwrap().abs() < 0.1);
    assert!(at(100.0).on_axis < at(10.0).on_axis && at(10.0).on_axis < at(30.0).on_axis);
    // Three untreated wells: three pairs or three single wells, so no p below 1/4; said so, not hidden.
    for row in result.rows.iter().filter(|r| r.p_value.is_some()) {
        assert!(row.p_value.unwrap() >= 0.25);
        assert_eq!(row.call, Call::Underpowered);
    }
    assert!(result.notes.iter().any(|n| n.kind == NoteKind::Underpowered));
    let [agonist] = result.compounds.as_slice() else {
        panic!("{:?}", result.compounds)
    };
    let curve = agonist.curve.as_ref().unwrap();
    assert_eq!(
        (curve.model, curve.monotone),
        (CurveModel::GainLoss, false),
        "{curve:?}"
    );
    assert!(
        curve.evaluate(100.0) < 0.75 && curve.evaluate(30.0) > 0.85,
        "{curve:?}"
    );
    assert!((1.0..10.0).contains(&curve.ec50.unwrap()), "{curve:?}");
    assert_eq!(agonist.best_dose, Some(30.0));
    assert!(result.windows[0].z_prime.is_some());
}

#[test]
fn a_plate_without_controls_is_noted_and_the_others_are_scored() {
    for (role, kind) in [
        (Role::Reference, NoteKind::NoReference),
        (Role::Phenotype, NoteKind::NoPhenotype),
    ] {
        let mut wells = rescue_screen(4);
        wells.retain(|w| w.plate.as_str() != "P2" || w.treatment.role != role);
        let result = compare(&wells, &ComparisonSettings::default()).unwrap();
        let note = result.notes.iter().find(|n| n.kind == kind).unwrap();
        assert!(note.text.contains("P2"), "{}", note.text);
        assert!(result.wells.iter().all(|w| w.plate.as_str() == "P1"));
        assert!(result.rows.iter().all(|r| r.n_plates == 1));
        wells.retain(|w| w.plate.as_str() == "P2");
        let error = compare(&wells, &ComparisonSettings::default()).unwrap_err();
        assert!(
            matches!(&error, CompareError::NothingScored { notes } if notes[0].kind == kind),
            "{error}"
        );
        assert!(error.to_string().contains("P2"), "{error}");
    }
}

#[test]
fn one_control_only_is_scored_in_sample_without_p_values_and_noted() {
    let mut wells = rescue_screen(5);
    let mut seen = 0;
    wells.retain(|w| w.plate.as_str() == "P1");
    wells.retain(|w| {
        seen += usize::from(w.treatment.role == Role::Phenotype);
        w.treatment.role != Role::Phenotype || seen == 1
    });
    let result = compare(&wells, &plain()).unwrap();
    let note = result
        .notes
        .iter()
        .find(|n| n.kind == NoteKind::SingleControl)
        .unwrap();
    assert!(
        note.well.is_some() && note.text.contains("P1") && note.text.contains("A02"),
        "{}",
        note.text
    );
    assert!(
        result
            .rows
            .iter()
            .all(|r| r.p_value.is_none() && r.q_value.is_none())
    );
    assert_eq!(call_of(&result, "rescuer"), Call::Untested);
    assert_eq!(result.windows[0].z_prime, None);
    assert!(
        result
            .wells
            .iter()
            .any(|w| !w.leave_one_out && w.on_axis == Some(1.0))
    );
}

#[test]
fn contradicting_profiles_are_refused_with_plate_well_and_column() {
    let wells = rescue_screen(6);
    let refused = |change: &dyn Fn(&mut Vec<WellProfile>)| -> CompareError {
        let mut wells = wells.clone();
        change(&mut wells);
        let error = compare(&wells, &plain()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("P1") && text.contains("A02"), "{text}");
        error
    };
    assert!(matches!(
        refused(&|w| w.push(w[1].clone())),
        CompareError::DuplicateWell { .. }
    ));
    assert!(matches!(
        refused(&|w| w[1].values.truncate(5)),
        CompareError::Width {
            expected: WIDTH,
            found: 5,
            ..
        }
    ));
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(matches!(
            refused(&|w| w[1].values[7] = bad),
            CompareError::NotFinite { column: 7, .. }
        ));
    }
    assert!(matches!(
        refused(&|w| w[1].treatment.dose = Some(-1.0)),
        CompareError::Dose { .. }
    ));
    assert!(matches!(
        refused(&|w| w[1].cell_count = Some(f64::NAN)),
        CompareError::CellCount { .. }
    ));
    assert_eq!(compare(&[], &plain()), Err(CompareError::NoProfiles));
}

#[test]
fn features_without_spread_are_noted_and_never_blow_up() {
    let mut wells = rescue_screen(7);
    for well in &mut wells {
        well.values[10] = 3.5;
        // Constant in the controls only: the trap of a MAD of zero.
        if well.treatment.role == Role::Reference {
            well.values[11] = 1.0;
        }
    }
    for normalise in [Normalise::Standardise, Normalise::RobustMad] {
        let result = compare(&wells, &ComparisonSettings { normalise, ..plain() }).unwrap();
        let note = result
            .notes
            .iter()
            .find(|n| n.kind == NoteKind::ConstantFeatures)
            .unwrap();
        assert_eq!(note.column, Some(10));
        assert!(
            result
                .wells
                .iter()
                .all(|w| w.on_axis.unwrap().abs() < 10.0 && w.off_axis < 10.0)
        );
    }
    for well in &mut wells {
        well.values = vec![1.0; WIDTH];
    }
    for normalise in [Normalise::None, Normalise::Standardise, Normalise::RobustMad] {
        let error = compare(&wells, &ComparisonSettings { normalise, ..plain() }).unwrap_err();
        assert!(error.to_string().contains("plate P1"), "{error}");
    }
}

#[test]
fn few_doses_give_the_largest_effect_and_no_curve() {
    let mut wells = rescue_screen(8);
    wells.retain(|w| w.treatment.dose.is_none_or(|d| d >= 1.0));
    let result = compare(&wells, &plain()).unwrap();
    assert!(
        result
            .compounds
            .iter()
            .all(|c| c.curve.is_none() && c.n_doses == 3)
    );
    assert_eq!(result.compounds[0].call, Call::RescueHit);
    assert_eq!(call_of(&result, "i1"), Call::Inactive);
    assert!(result.notes.iter().any(|n| n.kind == NoteKind::FewDoses));
}

#[test]
fn settings_are_read_strictly_and_checked() {
    let settings: ComparisonSettings =
        toml::from_str("question = \"response\"\nnormalise = \"robust_mad\"\n[thresholds]\nq = 0.1").unwrap();
    assert_eq!(
        (settings.question, settings.thresholds.q),
        (Question::Response, 0.1)
    );
    assert_eq!(
        (settings.fit_on, settings.dose_unit.as_str()),
        (FitOn::Reference, "uM")
    );
    assert!(toml::from_str::<ComparisonSettings>("normalize = \"none\"").is_err());
    let mut wrong = plain();
    wrong.thresholds.q = 1.5;
    let error = compare(&rescue_screen(9), &wrong).unwrap_err();
    assert!(error.to_string().contains("thresholds.q is 1.5"), "{error}");
}

#[test]
fn drawn_nulls_depend_on_the_seed_alone() {
    let mut settings = plain();
    settings.thresholds.exact_combinations = 10;
    settings.thresholds.draws = 500;
    let wells = rescue_screen(10);
    let first = compare(&wells, &settings).unwrap();
    assert_eq!(first, compare(&wells, &settings).unwrap());
    let rescuer = first
        .rows
        .iter()
        .find(|r| r.compound.as_deref() == Some("rescuer") && r.dose == Some(10.0))
        .unwrap();
    assert_eq!(rescuer.p_value, Some(1.0 / 501.0));
    settings.seed = 1;
    let second = compare(&wells, &settings).unwrap();
    assert!(
        first
            .rows
            .iter()
            .zip(&second.rows)
            .any(|(a, b)| a.p_value != b.p_value)
    );
}

#[test]
fn results_survive_json_and_the_number_of_threads() {
    let wells = rescue_screen(11);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let many = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let text = |pool: &rayon::ThreadPool| {
        serde_json::to_string(&pool.install(|| compare(&wells, &plain()).unwrap())).unwrap()
    };
    let json = text(&alone);
    assert_eq!(json, text(&many));
    assert!(json.contains("\"call\":\"rescue_hit\""));
    let back: ScreenComparison = serde_json::from_str(&json).unwrap();
    // serde_json may read a number one unit in the last place off.
    assert_alike(&back, &compare(&wells, &plain()).unwrap(), 1e-12);
}

/// Everything but the numbers' last digits.
fn assert_alike(a: &ScreenComparison, b: &ScreenComparison, tolerance: f64) {
    assert_eq!(a.rows.len(), b.rows.len());
    for (a, b) in a.wells.iter().zip(&b.wells) {
        assert_eq!((&a.plate, a.well), (&b.plate, b.well));
        assert!(
            (a.on_axis.unwrap() - b.on_axis.unwrap()).abs() < tolerance,
            "{a:?} {b:?}"
        );
        assert!((a.off_axis - b.off_axis).abs() < tolerance, "{a:?} {b:?}");
    }
    for (a, b) in a.rows.iter().zip(&b.rows) {
        assert_eq!((&a.compound, a.dose), (&b.compound, b.dose));
        assert!(
            (a.off_axis - b.off_axis).abs() < tolerance
                && (a.rescue.unwrap() - b.rescue.unwrap()).abs() < tolerance
        );
    }
    let calls = |r: &ScreenComparison| {
        let mut calls: Vec<_> = r.compounds.iter().map(|c| (c.compound.clone(), c.call)).collect();
        calls.sort();
        calls
    };
    assert_eq!(calls(a), calls(b));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn row_order_changes_nothing(seed in 0u64..1000, order in Just((0..192usize).collect::<Vec<_>>()).prop_shuffle()) {
        let wells = rescue_screen(seed);
        prop_assert_eq!(wells.len(), order.len());
        let shuffled: Vec<WellProfile> = order.iter().map(|&i| wells[i].clone()).collect();
        prop_assert_eq!(compare(&wells, &plain()).unwrap(), compare(&shuffled, &plain()).unwrap());
    }

    #[test]
    fn a_constant_added_to_a_plate_changes_nothing(seed in 0u64..1000, shift in -8.0f32..8.0) {
        let wells = rescue_screen(seed);
        let mut shifted = wells.clone();
        for well in shifted.iter_mut().filter(|w| w.plate.as_str() == "P1") {
            well.values.iter_mut().for_each(|v| *v += shift);
        }
        for normalise in [Normalise::Standardise, Normalise::RobustMad] {
            let settings = ComparisonSettings { normalise, ..plain() };
            assert_alike(&compare(&wells, &settings).unwrap(), &compare(&shifted, &settings).unwrap(), 1e-4);
        }
    }

    #[test]
    fn a_rotation_of_unscaled_features_changes_nothing(seed in 0u64..1000, angle in 0.0f32..6.3, a in 0..WIDTH, b in 0..WIDTH) {
        prop_assume!(a != b);
        let wells = rescue_screen(seed);
        let mut rotated = wells.clone();
        for well in &mut rotated {
            let (x, y) = (well.values[a], well.values[b]);
            well.values[a] = angle.cos() * x - angle.sin() * y;
            well.values[b] = angle.sin() * x + angle.cos() * y;
        }
        assert_alike(&compare(&wells, &plain()).unwrap(), &compare(&rotated, &plain()).unwrap(), 1e-4);
    }
}
