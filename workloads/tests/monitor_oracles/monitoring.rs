//! `monitor` on plates with known answers: in control, drifted, inflated; invariances; references that are saved,
//! rolled and refused; bad input.

use std::collections::BTreeMap;

use super::noise::Noise;
use proptest::prelude::*;
use wellspring_workloads::monitor::{
    Detector, DriftReference, DriftReport, Identity, Level, MonitorError, MonitorSettings, PlateControls,
    Severity, monitor,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

const FEATURES: usize = 24;

/// What is wrong with a plate.
#[derive(Clone, Copy)]
struct Fault {
    /// Added to the controls along a fixed direction, in SDs of wells.
    shift: f64,
    /// Spread of its wells.
    spread: f64,
    /// Share of the disease effect that is left.
    disease: f64,
}

const NONE: Fault = Fault {
    shift: 0.0,
    spread: 1.0,
    disease: 1.0,
};

/// 24 healthy and 24 diseased wells; wells have SD 1 and plates differ by `jitter`.
fn plate(number: u64, seed: u64, jitter: f64, fault: Fault) -> Vec<WellProfile> {
    let mut noise =
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1).wrapping_mul(0xd134_2543_de82_ef95));
    for _ in 0..8 {
        noise.normal();
    }
    let offset: Vec<f64> = (0..FEATURES).map(|_| jitter * noise.normal()).collect();
    (0..48)
        .map(|i| {
            let ill = i % 2 == 1;
            let values = offset
                .iter()
                .enumerate()
                .map(|(j, offset)| {
                    let moved = if j % 3 == 0 { fault.shift } else { 0.0 };
                    let disease = if ill && j % 2 == 0 {
                        6.0 * fault.disease
                    } else {
                        0.0
                    };
                    (100.0 + offset + moved + disease + fault.spread * noise.normal()) as f32
                })
                .collect();
            WellProfile {
                plate: format!("P{number:03}").parse().unwrap(),
                well: WellPosition::new(i / 12 + 1, i % 12 + 1).unwrap(),
                treatment: Treatment {
                    role: if ill { Role::Phenotype } else { Role::Reference },
                    disease: ill.then(|| "D1".to_owned()),
                    compound: None,
                    dose: None,
                },
                fields: 4,
                cell_count: Some(800.0 + 20.0 * noise.normal()),
                values,
            }
        })
        .collect()
}

fn controls(wells: &[WellProfile]) -> PlateControls {
    PlateControls::of(&wells.iter().collect::<Vec<_>>(), BTreeMap::new()).unwrap()
}

fn identity() -> Identity {
    Identity {
        assay: "rescue".to_owned(),
        microscope: "scope 1".to_owned(),
        model: "net".to_owned(),
        model_sha256: "abc".to_owned(),
    }
}

fn settings() -> MonitorSettings {
    MonitorSettings {
        permutations: 999,
        components: 8,
        ..MonitorSettings::default()
    }
}

/// Ten reference plates and then plates with the faults given.
fn screen(seed: u64, jitter: f64, faults: &[Fault]) -> (DriftReference, Vec<PlateControls>) {
    let reference: Vec<PlateControls> = (0..10).map(|i| controls(&plate(i, seed, jitter, NONE))).collect();
    let views: Vec<&PlateControls> = reference.iter().collect();
    let reference = DriftReference::fit(&views, identity(), &settings()).unwrap();
    let plates = faults
        .iter()
        .enumerate()
        .map(|(i, fault)| controls(&plate(10 + i as u64, seed, jitter, *fault)))
        .collect();
    (reference, plates)
}

fn judge(seed: u64, jitter: f64, faults: &[Fault]) -> DriftReport {
    let (reference, plates) = screen(seed, jitter, faults);
    monitor(&reference, &plates, &settings(), 1).unwrap()
}

#[test]
fn plates_in_control_give_no_alert_and_few_warnings() {
    let (mut warnings, mut plates) = (0, 0);
    for seed in 0..20 {
        let report = judge(seed, 0.5, &[NONE; 6]);
        for plate in &report.plates {
            assert_ne!(plate.level, Level::Alert, "seed {seed}: {}", plate.reason);
            warnings += usize::from(plate.level == Level::Warn);
            plates += 1;
        }
    }
    // An accepted plate is beyond the nine others in one of ten cases, and only two witnesses together warn.
    assert!(
        warnings * 8 <= plates,
        "{warnings} warnings on {plates} plates in control"
    );
}

#[test]
fn a_shifted_an_inflated_and_a_faded_plate_are_alerts_with_what_found_them() {
    for seed in 0..5 {
        let shifted = Fault { shift: 5.0, ..NONE };
        let inflated = Fault { spread: 2.5, ..NONE };
        let faded = Fault { disease: 0.0, ..NONE };
        let report = judge(seed, 0.5, &[NONE, shifted, NONE, inflated, faded]);
        let alerted = |place: usize, detector: Detector| {
            let plate = &report.plates[place];
            let row = plate.rows.iter().find(|row| row.detector == detector).unwrap();
            assert_eq!(
                plate.level,
                Level::Alert,
                "seed {seed} plate {place}: {}",
                plate.reason
            );
            assert_eq!(row.severity, Severity::Alert, "seed {seed} {detector}: {row:?}");
            assert!(plate.reason.contains(detector.as_str()), "{}", plate.reason);
        };
        alerted(1, Detector::MeanWithin);
        alerted(3, Detector::OutlierShare);
        alerted(4, Detector::DiseaseCosine);
        alerted(4, Detector::ZPrime);
        for place in [0, 2] {
            assert_ne!(report.plates[place].level, Level::Alert, "seed {seed}");
        }
        assert_eq!(report.alerts().count(), 3);
        assert_eq!(report.reference_plates.len(), 10);
        assert_eq!(
            (report.model_sha256.as_str(), report.reference_sha256.len()),
            ("abc", 64)
        );
        let outlying = report.plates[3]
            .rows
            .iter()
            .filter(|row| row.detector == Detector::OutlierWell);
        assert!(outlying.clone().count() > 4 && outlying.clone().all(|row| row.well.is_some()));
    }
}

#[test]
fn a_slow_trend_is_seen_by_the_charts_and_a_saved_reference_goes_on_where_it_was() {
    let creeping: Vec<Fault> = (0..12)
        .map(|i| Fault {
            shift: 0.35 * f64::from(i),
            ..NONE
        })
        .collect();
    let (reference, plates) = screen(3, 0.5, &creeping);
    let whole = monitor(&reference, &plates, &settings(), 1).unwrap();
    let trend = |plate: &wellspring_workloads::monitor::PlateDrift| {
        plate.rows.iter().any(|row| {
            row.severity == Severity::Signal && matches!(row.detector, Detector::Ewma | Detector::Cusum)
        })
    };
    assert!(whole.plates.iter().any(trend));

    let mut saved = DriftReference::from_json(&reference.to_json().unwrap()).unwrap();
    assert_eq!(saved, reference);
    let (first, rest) = plates.split_at(5);
    let report = monitor(&saved, first, &settings(), 1).unwrap();
    saved.remember(first, &report, &settings()).unwrap();
    saved.remember(first, &report, &settings()).unwrap();
    let saved = DriftReference::from_json(&saved.to_json().unwrap()).unwrap();
    assert_eq!(saved.sha256(), reference.sha256());
    let later = monitor(&saved, rest, &settings(), 1).unwrap();
    let charts = |report: &DriftReport, plate: usize| -> Vec<f64> {
        report.plates[plate]
            .rows
            .iter()
            .filter(|row| matches!(row.detector, Detector::Ewma | Detector::Cusum))
            .map(|row| row.statistic)
            .collect()
    };
    for place in 0..rest.len() {
        // Remembered means are stored as f32.
        for (a, b) in charts(&later, place).iter().zip(charts(&whole, place + 5)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
    let again = monitor(&saved, &plates, &settings(), 1).unwrap();
    assert_eq!(charts(&again, 7), charts(&whole, 7));
}

#[test]
fn an_accepted_plate_moves_the_window_and_what_it_is_judged_by() {
    let (mut reference, plates) = screen(4, 0.5, &[NONE; 2]);
    let before = reference.sha256();
    let names = |reference: &DriftReference| -> Vec<String> {
        reference.plate_names().map(ToString::to_string).collect()
    };
    reference.accept(&plates[0], &settings()).unwrap();
    let mut expected: Vec<String> = (1..11).map(|i| format!("P{i:03}")).collect();
    assert_eq!(names(&reference), expected);
    assert_ne!(reference.sha256(), before);
    reference.accept(&plates[0], &settings()).unwrap();
    assert_eq!(names(&reference), expected);
    reference.accept(&plates[1], &settings()).unwrap();
    expected.remove(0);
    expected.push("P011".to_owned());
    assert_eq!(names(&reference), expected);
    let report = monitor(&reference, &plates, &settings(), 1).unwrap();
    assert!(report.plates.iter().all(|plate| plate.level == Level::Reference));

    // A plate that was judged and remembered can be accepted without its wells.
    let (mut by_name, plates) = screen(4, 0.5, &[NONE; 2]);
    let (unknown, first) = ("P077".parse().unwrap(), plates[0].plate().clone());
    assert!(matches!(
        by_name.accept_judged(&first, &settings()).unwrap_err(),
        MonitorError::NotJudged { .. }
    ));
    let report = monitor(&by_name, &plates, &settings(), 1).unwrap();
    by_name.remember(&plates, &report, &settings()).unwrap();
    assert!(by_name.accept_judged(&unknown, &settings()).is_err());
    for plate in &plates {
        by_name.accept_judged(plate.plate(), &settings()).unwrap();
    }
    assert_eq!(names(&by_name), expected);
    assert_eq!(by_name.sha256(), reference.sha256());
}

#[test]
fn a_reference_of_something_else_is_refused_with_what_differs() {
    let (reference, _) = screen(5, 0.5, &[]);
    reference.check_identity(&identity()).unwrap();
    let other = Identity {
        model_sha256: "def".to_owned(),
        ..identity()
    };
    let text = reference.check_identity(&other).unwrap_err().to_string();
    assert!(
        text.contains("model hash") && text.contains("abc") && text.contains("def"),
        "{text}"
    );

    let json = reference.to_json().unwrap();
    let later = json.replacen("\"version\":1", "\"version\":2", 1);
    assert_eq!(
        DriftReference::from_json(&later).unwrap_err(),
        MonitorError::Version { found: 2, known: 1 }
    );
    for broken in ["", "{}", &json[..json.len() / 2]] {
        assert!(matches!(
            DriftReference::from_json(broken).unwrap_err(),
            MonitorError::Malformed { .. }
        ));
    }
    let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
    value["plates"][2]["scores"][0].as_array_mut().unwrap().pop();
    let text = DriftReference::from_json(&value.to_string())
        .unwrap_err()
        .to_string();
    assert!(text.contains("P002"), "{text}");
}

#[test]
fn bad_plates_are_named() {
    let good = plate(0, 1, 0.5, NONE);
    let of = |wells: &[WellProfile]| {
        PlateControls::of(&wells.iter().collect::<Vec<_>>(), BTreeMap::new()).unwrap_err()
    };
    let mut wells = good.clone();
    wells[5].values[3] = f32::NAN;
    let text = of(&wells).to_string();
    assert!(
        text.contains("P000") && text.contains("A06") && text.contains("column 3"),
        "{text}"
    );
    let mut wells = good.clone();
    wells[1].well = wells[0].well;
    assert!(matches!(of(&wells), MonitorError::DuplicateWell { .. }));
    let mut wells = good.clone();
    wells[1].plate = "other".parse().unwrap();
    assert!(matches!(of(&wells), MonitorError::MixedPlates { .. }));
    let mut wells = good.clone();
    wells[7].values.pop();
    assert!(matches!(of(&wells), MonitorError::Width { .. }));
    assert_eq!(of(&[]), MonitorError::NoWells);

    let (reference, plates) = screen(6, 0.5, &[NONE]);
    let twice = [plates[0].clone(), plates[0].clone()];
    assert!(matches!(
        monitor(&reference, &twice, &settings(), 1).unwrap_err(),
        MonitorError::DuplicatePlate { .. }
    ));
    let narrow: Vec<WellProfile> = plate(30, 6, 0.5, NONE)
        .into_iter()
        .map(|mut well| {
            well.values.truncate(5);
            well
        })
        .collect();
    let text = monitor(&reference, &[controls(&narrow)], &settings(), 1)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("P030") && text.contains("5") && text.contains("24"),
        "{text}"
    );

    // Few or no controls: a row that says so.
    let treated: Vec<WellProfile> = plate(31, 6, 0.5, NONE)
        .into_iter()
        .filter(|well| {
            well.treatment.role == Role::Phenotype || well.well.row() == 1 && well.well.column() < 6
        })
        .collect();
    let report = monitor(&reference, &[controls(&treated)], &settings(), 1).unwrap();
    assert_eq!(report.plates[0].level, Level::NotMonitored);
    assert!(
        report.plates[0].reason.contains("3 reference wells"),
        "{}",
        report.plates[0].reason
    );
}

#[test]
fn references_that_cannot_be_made_say_why() {
    let plates: Vec<PlateControls> = (0..10).map(|i| controls(&plate(i, 1, 0.5, NONE))).collect();
    let views: Vec<&PlateControls> = plates.iter().collect();
    assert_eq!(
        DriftReference::fit(&views[..1], identity(), &settings()).unwrap_err(),
        MonitorError::TooFewPlates {
            found: 1,
            needed: 10,
            controls: 8
        }
    );
    assert!(matches!(
        DriftReference::choose(&plates[..9], &settings()).unwrap_err(),
        MonitorError::TooFewPlates { found: 9, .. }
    ));
    let mut twice = views.clone();
    twice[9] = twice[0];
    assert!(matches!(
        DriftReference::fit(&twice, identity(), &settings()).unwrap_err(),
        MonitorError::DuplicatePlate { .. }
    ));
    let constant: Vec<PlateControls> = (0..10)
        .map(|i| {
            let mut wells = plate(i, 1, 0.5, NONE);
            wells.iter_mut().for_each(|well| well.values.fill(7.0));
            controls(&wells)
        })
        .collect();
    let views: Vec<&PlateControls> = constant.iter().collect();
    assert!(matches!(
        DriftReference::fit(&views, identity(), &settings()).unwrap_err(),
        MonitorError::Components(_)
    ));
    let wrong = MonitorSettings {
        reference_plates: 5,
        ..settings()
    };
    let text = DriftReference::fit(&views, identity(), &wrong)
        .unwrap_err()
        .to_string();
    assert!(text.contains("reference_plates is 5"), "{text}");
}

#[test]
fn more_features_than_wells_give_the_same_components() {
    // The plates' features repeated: the same geometry, seen with more features than reference wells.
    let repeated = |number: u64, fault: Fault| {
        let mut wells = plate(number, 8, 0.5, fault);
        for well in &mut wells {
            well.values = well.values.repeat(20);
        }
        controls(&wells)
    };
    let of = |make: &dyn Fn(u64, Fault) -> PlateControls| {
        let reference: Vec<PlateControls> = (0..10).map(|i| make(i, NONE)).collect();
        let reference =
            DriftReference::fit(&reference.iter().collect::<Vec<_>>(), identity(), &settings()).unwrap();
        monitor(
            &reference,
            &[make(10, NONE), make(11, Fault { shift: 5.0, ..NONE })],
            &settings(),
            1,
        )
        .unwrap()
    };
    let narrow = of(&|number, fault| controls(&plate(number, 8, 0.5, fault)));
    let wide = of(&repeated);
    for (a, b) in narrow.plates.iter().zip(&wide.plates) {
        assert_eq!(a.level, b.level);
        let t2 = |plate: &wellspring_workloads::monitor::PlateDrift| {
            plate
                .rows
                .iter()
                .find(|r| r.detector == Detector::MeanWithin)
                .unwrap()
                .statistic
        };
        assert!((t2(a) / t2(b) - 1.0).abs() < 1e-3, "{} {}", t2(a), t2(b));
    }
}

#[test]
fn the_number_of_threads_and_the_order_of_wells_do_not_matter() {
    let run = |threads: usize, reversed: bool| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let make = |number: u64, fault: Fault| {
            let mut wells = plate(number, 9, 0.5, fault);
            if reversed {
                wells.reverse();
            }
            controls(&wells)
        };
        pool.install(|| {
            let reference: Vec<PlateControls> = (0..10).map(|i| make(i, NONE)).collect();
            let reference =
                DriftReference::fit(&reference.iter().collect::<Vec<_>>(), identity(), &settings()).unwrap();
            let plates = [make(10, NONE), make(11, Fault { shift: 4.0, ..NONE })];
            let report = monitor(&reference, &plates, &settings(), 1).unwrap();
            (
                reference.to_json().unwrap(),
                serde_json::to_string(&report).unwrap(),
            )
        })
    };
    assert_eq!(run(1, false), run(3, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A constant added to every plate, and another unit of a feature, change nothing.
    #[test]
    fn origin_and_unit_of_features_do_not_matter(
        origin in -50.0f32..50.0,
        power in -3i32..4,
        seed in 0u64..1000,
    ) {
        let unit = 2f32.powi(power);
        let make = |number: u64, moved: bool| {
            let mut wells = plate(number, seed, 0.5, NONE);
            if moved {
                for well in &mut wells {
                    for (j, value) in well.values.iter_mut().enumerate() {
                        *value = if j % 2 == 0 { *value * unit } else { *value + origin };
                    }
                }
            }
            controls(&wells)
        };
        let run = |moved: bool| {
            let reference: Vec<PlateControls> = (0..10).map(|i| make(i, moved)).collect();
            let reference = DriftReference::fit(&reference.iter().collect::<Vec<_>>(), identity(), &settings()).unwrap();
            monitor(&reference, &[make(10, moved)], &settings(), 1).unwrap()
        };
        let (a, b) = (run(false), run(true));
        let statistic = |report: &DriftReport, detector: Detector| {
            report.plates[0].rows.iter().find(|row| row.detector == detector).unwrap().statistic
        };
        for detector in [Detector::MeanWithin, Detector::MeanBetween, Detector::Energy] {
            let (a, b) = (statistic(&a, detector), statistic(&b, detector));
            // Values near 100 are stored to about 1e-5.
            prop_assert!((a - b).abs() <= 1e-2 * (1.0 + a.abs()), "{detector}: {a} {b}");
        }
    }
}
