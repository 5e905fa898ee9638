//! Saved transforms: later plates, other machines, other features, bad plates.

use wellspring_workloads::align::sphere::{SphereMethod, SphereSettings};
use wellspring_workloads::align::tvn::CoralSettings;
use wellspring_workloads::align::{AlignError, FittedTransform, Fitter, SavedError, ScaleMethod, Step, fit};
use wellspring_workloads::compare::FitOn;

use super::screen::{CONTROLS, FEATURES, Plate, names, plates, rows};

fn fitted(plates: &[Plate], steps: &[Step]) -> FittedTransform {
    fit(&rows(plates), &names(), steps).unwrap()
}

/// Every kind of step.
fn chains() -> Vec<Vec<Step>> {
    let recoloured = Step::Coral(CoralSettings {
        recolour: true,
        ..CoralSettings::default()
    });
    let scale = |method, on| Step::Scale { method, on };
    vec![
        Step::recommended(),
        Step::efaar(),
        vec![scale(ScaleMethod::Standardise, FitOn::All), Step::Tvn, recoloured],
        vec![
            scale(ScaleMethod::RobustMad, FitOn::Reference),
            Step::Sphere(SphereSettings::default()),
        ],
    ]
}

#[test]
fn a_later_plate_is_aligned_by_what_was_saved() {
    let plates = plates(6);
    for steps in chains() {
        let transform = fitted(&plates[..5], &steps);
        let bytes = transform.to_json().unwrap();
        let saved = FittedTransform::from_json(&bytes).unwrap();
        assert_eq!(saved, transform);
        assert_eq!(saved.to_json().unwrap(), bytes);
        assert_eq!(saved.features(), names());
        assert_eq!(saved.fitted_on().len(), 5);
        assert_eq!(saved.fitted_on()[4].plate.to_string(), "P04");
        assert_eq!(saved.fitted_on()[4].controls.len(), CONTROLS);
        for plate in &plates {
            let rows = saved.apply(&plate.rows()).unwrap();
            assert_eq!(rows, transform.apply(&plate.rows()).unwrap());
            assert_eq!(rows.width(), transform.width());
        }
        // The controls of the plate that came later are as white as the others.
        if let Some(Step::Coral(CoralSettings { recolour: false, .. })) = steps.last() {
            let variance = |plate: &Plate| {
                let rows = saved.apply(&plate.rows()).unwrap().select(&plate.controls);
                let moments = wellspring_workloads::align::moments::Moments::of(&rows);
                moments.deviations().iter().map(|sd| sd * sd).sum::<f64>() / rows.width() as f64
            };
            let (early, late) = (variance(&plates[0]), variance(&plates[5]));
            assert!((early / late - 1.0).abs() < 0.2, "{early} {late}");
        }
    }
}

#[test]
fn steps_can_be_applied_in_two_parts() {
    let plates = plates(3);
    let transform = fitted(&plates, &Step::recommended());
    let whole = transform.apply(&plates[1].rows()).unwrap();
    let centred = transform
        .apply_steps(&plates[1].rows(), 0..Step::CENTRED)
        .unwrap();
    let half = Plate {
        rows: centred,
        ..plates[1].clone()
    };
    let steps = Step::CENTRED..transform.steps().len();
    assert_eq!(transform.apply_steps(&half.rows(), steps).unwrap(), whole);
}

#[test]
fn plates_that_come_one_at_a_time_give_the_same_bytes() {
    let plates = plates(4);
    for steps in chains() {
        let mut fitter = Fitter::new(&names(), &steps).unwrap();
        while fitter.needs_pass() {
            for plate in &plates {
                fitter.add(&[plate.rows()]).unwrap();
            }
            fitter.end_pass().unwrap();
        }
        assert_eq!(fitter.finish(), fitted(&plates, &steps));
    }
}

#[test]
fn a_changed_file_is_refused() {
    let transform = fitted(&plates(2), &Step::recommended());
    let text = String::from_utf8(transform.to_json().unwrap()).unwrap();
    let error = |text: &str| FittedTransform::from_json(text.as_bytes()).unwrap_err();
    assert!(matches!(
        error(&text.replace("Nuclei_f03", "Nuclei_f99")),
        SavedError::Hash { .. }
    ));
    assert!(matches!(
        error(&text.replace("\"version\":1", "\"version\":7")),
        SavedError::Version { found: 7 }
    ));
    assert!(matches!(
        error(&text.replace("wellspring-alignment", "something")),
        SavedError::Format { .. }
    ));
    assert!(matches!(error(&text[..text.len() / 2]), SavedError::Hash { .. }));
    assert!(matches!(error("[]"), SavedError::Json(_)));
}

#[test]
fn other_features_are_refused_by_name() {
    let transform = fitted(&plates(2), &Step::recommended());
    let mut other = names();
    other.swap(3, 4);
    let error = transform.check_features(&other).unwrap_err().to_string();
    assert!(
        error.contains("column 3 is 'Nuclei_f04' where the transform was fitted on 'Nuclei_f03'"),
        "{error}"
    );
    assert!(matches!(
        transform.check_features(&names()[..5]),
        Err(AlignError::Width {
            expected: FEATURES,
            found: 5
        })
    ));
    transform.check_features(&names()).unwrap();
}

fn refused(plates: &[Plate], steps: &[Step]) -> String {
    fit(&rows(plates), &names(), steps).unwrap_err().to_string()
}

#[test]
fn bad_plates_are_named() {
    let good = plates(3);
    let with = |change: &dyn Fn(&mut Plate)| {
        let mut plates = good.clone();
        change(&mut plates[1]);
        plates
    };
    let steps = Step::recommended();
    for (plates, expected) in [
        (
            with(&|plate| plate.controls = vec![8]),
            "plate P01, step scale: 1 control wells, at least 2 are needed",
        ),
        (
            with(&|plate| plate.controls.clear()),
            "plate P01, step scale: 0 control wells",
        ),
        (
            with(&|plate| plate.rows.as_mut_slice().fill(3.0)),
            "plate P01, step scale: 96 rows do not vary",
        ),
        (
            with(&|plate| plate.rows.row_mut(13)[2] = f32::NAN),
            "plate P01 well B02 column Nuclei_f02 is NaN",
        ),
        (with(&|plate| plate.controls.push(96)), "control row Some(96)"),
        (
            with(&|plate| plate.plate = "P00".parse().unwrap()),
            "plate P00 comes twice",
        ),
    ] {
        let error = refused(&plates, &steps);
        assert!(error.contains(expected), "{error}");
    }
    assert!(refused(&[], &steps).contains("step pca, over all plates: 0 rows do not vary"));
    // A plate that comes later is named just so.
    let transform = fitted(&good, &steps);
    let late = with(&|plate| plate.controls = vec![8]);
    let error = transform.apply(&late[1].rows()).unwrap_err().to_string();
    assert!(
        error.contains("plate P01, step scale: 1 control wells"),
        "{error}"
    );
}

#[test]
fn columns_that_sphering_cannot_take_are_named() {
    let steps = [Step::Sphere(SphereSettings::default())];
    let mut flat = plates(2);
    let mut dependent = plates(2);
    for well in 0..flat[0].rows.len() {
        for plate in 0..2 {
            flat[plate].rows.row_mut(well)[5] = 0.1;
            let row = dependent[plate].rows.row_mut(well);
            row[7] = 3.0 * row[2];
        }
    }
    let error = refused(&flat, &steps);
    assert!(
        error
            .contains("step sphere, over all plates: 1 column of the control wells do not vary (Nuclei_f05)"),
        "{error}"
    );
    let error = refused(&dependent, &steps);
    assert!(
        error.contains("80 control wells of 24 features have rank 23, expected 24"),
        "{error}"
    );
    assert!(
        error.contains("Nuclei_f02") || error.contains("Nuclei_f07"),
        "{error}"
    );
    // A dependence is no obstacle where a ridge carries it.
    let method = SphereMethod::Eigen;
    fitted(
        &dependent,
        &[Step::Sphere(SphereSettings { method, epsilon: 0.1 })],
    );
}

#[test]
fn settings_out_of_range_are_named() {
    let coral = Step::Coral(CoralSettings {
        ridge: 0.0,
        ..CoralSettings::default()
    });
    for (step, expected) in [
        (
            coral,
            "alignment setting ridge is 0: expected a finite number above 0",
        ),
        (Step::Pca { components: 0 }, "alignment setting components is 0"),
        (
            Step::Sphere(SphereSettings {
                epsilon: f64::NAN,
                ..SphereSettings::default()
            }),
            "alignment setting epsilon is NaN",
        ),
    ] {
        let error = refused(&plates(1), &[step]);
        assert!(error.contains(expected), "{error}");
    }
}
