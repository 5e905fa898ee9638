//! Heads against the formulas written out on the whole covariance, and what is refused.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use wellspring_workloads::align::shrink::{ledoit_wolf, ledoit_wolf_shrinkage};
use wellspring_workloads::head::{
    ControlWells, FitLimits, Folds, Head, HeadError, ProbeLoss, ProbeSettings, Shrinkage, WhitenMethod,
    WhitenSettings, fit_probe, fit_whitening,
};
use wellspring_workloads::linalg::symmetric_eigen;
use wellspring_workloads::matrix::FeatureMatrix;

const METHODS: [WhitenMethod; 4] = [
    WhitenMethod::Pca,
    WhitenMethod::Zca,
    WhitenMethod::PcaCor,
    WhitenMethod::ZcaCor,
];

/// A number between -1 and 1 that looks random and is not.
fn noise(seed: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / (u64::MAX / 2) as f64 - 1.0
}

/// Wells of two plates; neighbouring features are alike, and their scales differ.
fn wells(count: usize, features: usize) -> ControlWells {
    let value = |i: usize, j: usize| {
        let own = noise((i * 1000 + j) as u64);
        let shared = noise((i * 1000 + j / 2 + 500_000) as u64);
        ((own + 2.0 * shared) * (1.0 + j as f64) + 10.0) as f32
    };
    let values = (0..count * features)
        .map(|at| value(at / features, at % features))
        .collect();
    ControlWells {
        names: (0..features).map(|j| format!("net_{j}")).collect(),
        wells: (0..count)
            .map(|i| {
                let plate = format!("P{}", i % 2).parse().unwrap();
                (plate, format!("A{:02}", i / 2 % 24 + 1).parse().unwrap())
            })
            .collect(),
        rows: FeatureMatrix::from_values(features, values).unwrap(),
    }
}

fn apply(head: &Head, row: &[f32]) -> Vec<f64> {
    let z: Vec<f64> = (row.iter().zip(&head.mean).zip(&head.gain))
        .map(|((&x, &mean), &gain)| (f64::from(x) - f64::from(mean)) * f64::from(gain))
        .collect();
    let along = |direction: &[f32]| {
        direction
            .iter()
            .zip(&z)
            .map(|(&d, z)| f64::from(d) * z)
            .sum::<f64>()
    };
    let sums: Vec<f64> = head.directions.rows().map(along).collect();
    match &head.back {
        None => sums
            .iter()
            .zip(&head.bias)
            .map(|(sum, &bias)| sum + f64::from(bias))
            .collect(),
        Some(back) => {
            let mut out: Vec<f64> = z.iter().map(|z| f64::from(back.floor) * z).collect();
            for ((sum, &gain), direction) in sums.iter().zip(&back.gains).zip(head.directions.rows()) {
                for (out, &d) in out.iter_mut().zip(direction) {
                    *out += f64::from(gain) * sum * f64::from(d);
                }
            }
            out
        }
    }
}

fn settings(method: WhitenMethod, shrinkage: Shrinkage) -> WhitenSettings {
    WhitenSettings {
        method,
        shrinkage,
        ..WhitenSettings::default()
    }
}

/// Rows centred, and where the method asks for it standardised, in `f64`.
fn standardised(controls: &ControlWells, method: WhitenMethod) -> Vec<Vec<f64>> {
    let (n, d) = (controls.rows.len() as f64, controls.rows.width());
    let by_deviation = matches!(method, WhitenMethod::PcaCor | WhitenMethod::ZcaCor);
    let mean = |j: usize| controls.rows.rows().map(|row| f64::from(row[j])).sum::<f64>() / n;
    let means: Vec<f64> = (0..d).map(mean).collect();
    let variance = |j: usize| {
        controls
            .rows
            .rows()
            .map(|row| (f64::from(row[j]) - means[j]).powi(2))
            .sum::<f64>()
            / n
    };
    let deviations: Vec<f64> = (0..d).map(|j| variance(j).sqrt()).collect();
    let mut sorted = deviations.clone();
    sorted.sort_by(f64::total_cmp);
    let median = 0.5 * (sorted[(d - 1) / 2] + sorted[d / 2]);
    let scale = |deviation: f64| if by_deviation { deviation.max(median) } else { 1.0 };
    let scales: Vec<f64> = deviations.into_iter().map(scale).collect();
    let row = |row: &[f32]| {
        (0..d)
            .map(|j| (f64::from(row[j]) - means[j]) / scales[j])
            .collect()
    };
    controls.rows.rows().map(row).collect()
}

#[test]
fn whitening_is_the_root_of_the_inverse_of_the_shrunk_covariance() {
    // More wells than features, and fewer.
    for (count, features) in [(60, 7), (20, 31)] {
        let controls = wells(count, features);
        for method in METHODS {
            let fit = fit_whitening(&controls, &settings(method, Shrinkage::LedoitWolf)).unwrap();
            let z = standardised(&controls, method);
            let shrunk = ledoit_wolf(&z).unwrap();
            assert!((fit.shrinkage - shrunk.shrinkage).abs() < 1e-6, "{method:?}");
            let inverse_root = symmetric_eigen(shrunk.covariance.as_ref())
                .unwrap()
                .map(|v| v.sqrt().recip());
            let whole: Vec<Vec<f64>> = z
                .iter()
                .map(|row| {
                    (0..features)
                        .map(|j| (0..features).map(|i| row[i] * inverse_root[(i, j)]).sum())
                        .collect()
                })
                .collect();
            let found: Vec<Vec<f64>> = controls.rows.rows().map(|row| apply(&fit.head, row)).collect();
            let back = matches!(method, WhitenMethod::Zca | WhitenMethod::ZcaCor);
            assert_eq!(
                found[0].len(),
                if back { features } else { features.min(count - 1) }
            );
            assert_eq!(fit.head.width_out(), found[0].len());
            for a in 0..count {
                if back {
                    for (x, y) in whole[a].iter().zip(&found[a]) {
                        assert!((x - y).abs() < 1e-4, "{method:?} {x} {y}");
                    }
                }
                // Whatever the rotation, inner products are the same; controls lie in the kept directions.
                for b in 0..count {
                    let inner =
                        |rows: &[Vec<f64>]| rows[a].iter().zip(&rows[b]).map(|(x, y)| x * y).sum::<f64>();
                    let (x, y) = (inner(&whole), inner(&found));
                    assert!((x - y).abs() < 2e-4 * features as f64, "{method:?} {x} {y}");
                }
            }
        }
    }
}

/// A network's features are 0 in most wells: among some dozens of controls many vary in one well only, and little there.
#[test]
fn features_that_vary_in_one_well_do_not_outweigh_the_others() {
    let (count, features, rare) = (36, 40, 8);
    let mut controls = wells(count, features);
    for j in 0..rare {
        for i in 0..count {
            controls.rows.row_mut(i)[j] = if i == j { 0.01 } else { 0.0 };
        }
    }
    // A well beyond the controls, in which rare features are seen and the others are as in a control.
    let mut well = controls.rows.row(30).to_vec();
    well[..rare].fill(1.0);
    for method in METHODS {
        let fit = fit_whitening(&controls, &settings(method, Shrinkage::LedoitWolf)).unwrap();
        let length = |row: &[f32]| apply(&fit.head, row).iter().map(|x| x * x).sum::<f64>().sqrt();
        let (control, seen) = (length(controls.rows.row(30)), length(&well));
        assert!(seen < 1.5 * control, "{method:?}: {control} {seen}");
    }
    let classes = of_classes(&mut controls, |i| i % 2, 300.0);
    let probe = fit_probe(&controls, &classes, &ProbeSettings::default()).unwrap();
    let mut well = controls.rows.row(30).to_vec();
    let before = apply(&probe.head, &well)[0];
    well[2..rare].fill(1.0);
    let after = apply(&probe.head, &well)[0];
    assert!((after - before).abs() < 0.2, "{before} {after}");
}

#[test]
fn without_shrinkage_the_controls_become_white() {
    let controls = wells(80, 6);
    for method in METHODS {
        let fit = fit_whitening(&controls, &settings(method, Shrinkage::Fixed(0.0))).unwrap();
        let white: Vec<Vec<f64>> = controls.rows.rows().map(|row| apply(&fit.head, row)).collect();
        for i in 0..6 {
            for j in 0..6 {
                let covariance = white.iter().map(|row| row[i] * row[j]).sum::<f64>() / 80.0;
                let identity = f64::from(u8::from(i == j));
                assert!(
                    (covariance - identity).abs() < 1e-4,
                    "{method:?} {i} {j} {covariance}"
                );
            }
        }
    }
}

#[test]
fn the_shrinkage_of_a_spectrum_is_that_of_the_covariance() {
    for (count, features) in [(60, 7), (20, 31)] {
        let z = standardised(&wells(count, features), WhitenMethod::Zca);
        let whole = ledoit_wolf(&z).unwrap();
        let mut covariance = faer::Mat::<f64>::zeros(features, features);
        for row in &z {
            for i in 0..features {
                for j in 0..features {
                    covariance[(i, j)] += row[i] * row[j] / count as f64;
                }
            }
        }
        let mut variances = symmetric_eigen(covariance.as_ref()).unwrap().values;
        variances.truncate(features.min(count - 1));
        let lengths: Vec<f64> = z.iter().map(|row| row.iter().map(|x| x * x).sum()).collect();
        let found = ledoit_wolf_shrinkage(&variances, features, &lengths);
        assert!(
            found > 0.0 && (found - whole.shrinkage).abs() < 1e-10,
            "{found} {}",
            whole.shrinkage
        );
    }
}

/// Moves every well by its class, and names it.
fn of_classes(controls: &mut ControlWells, class: impl Fn(usize) -> usize, shift: f32) -> Vec<String> {
    let names = ["healthy", "disease a", "disease b"];
    (0..controls.rows.len())
        .map(|i| {
            controls.rows.row_mut(i)[class(i)] += shift * (1.0 + class(i) as f32);
            names[class(i)].to_owned()
        })
        .collect()
}

fn probes() -> [ProbeSettings; 2] {
    [ProbeLoss::Squares, ProbeLoss::Logistic].map(|loss| ProbeSettings {
        loss,
        ..ProbeSettings::default()
    })
}

#[test]
fn a_probe_scores_its_classes() {
    for settings in probes() {
        let mut controls = wells(96, 12);
        let classes = of_classes(&mut controls, |i| i / 2 % 3, 30.0);
        let fit = fit_probe(&controls, &classes, &settings).unwrap();
        assert_eq!(fit.classes, ["disease a", "disease b", "healthy"]);
        assert_eq!(fit.folds, Folds::Plates(2));
        assert!(fit.balanced_accuracy > 0.95, "{}", fit.balanced_accuracy);
        for (row, class) in controls.rows.rows().zip(&classes) {
            let scores = apply(&fit.head, row);
            let sum = scores.iter().sum::<f64>();
            let total = match settings.loss {
                ProbeLoss::Squares => 1.0,
                ProbeLoss::Logistic => 0.0,
            };
            assert!((sum - total).abs() < 1e-3, "{scores:?}");
            let greatest = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
            assert_eq!(&fit.classes[greatest], class);
        }
    }
}

#[test]
fn a_probe_of_noise_knows_that_it_knows_nothing() {
    for settings in probes() {
        let mut controls = wells(120, 40);
        let classes = of_classes(&mut controls, |i| (noise(i as u64 + 77) > 0.0) as usize, 0.0);
        let fit = fit_probe(&controls, &classes, &settings).unwrap();
        assert!(
            (0.3..0.7).contains(&fit.balanced_accuracy),
            "{}",
            fit.balanced_accuracy
        );
    }
}

/// Wells far from the others pull a regression that wants scores of 1, and not one that wants probabilities.
#[test]
fn a_logistic_probe_is_not_misled_by_wells_that_are_easy() {
    let (count, features) = (120, 3);
    let mut controls = wells(count, features);
    let names: Vec<String> = (0..count)
        .map(|i| {
            let mild = noise(i as u64) as f32;
            // The plates have alike wells.
            let (name, at) = match i / 2 % 4 {
                0 | 1 => ("healthy", -1.0 + 0.5 * mild),
                2 => ("disease", 1.0 + 0.5 * mild),
                _ => ("disease", 40.0 + mild),
            };
            let row = controls.rows.row_mut(i);
            row.fill(0.0);
            row[0] = at;
            row[1] = 0.1 * noise(i as u64 + 1000) as f32;
            row[2] = 0.1 * noise(i as u64 + 2000) as f32;
            name.to_owned()
        })
        .collect();
    let [squares, logistic] = probes().map(|settings| fit_probe(&controls, &names, &settings).unwrap());
    assert!(squares.balanced_accuracy < 0.9, "{}", squares.balanced_accuracy);
    assert!(
        logistic.balanced_accuracy > 0.97,
        "{}",
        logistic.balanced_accuracy
    );
}

#[test]
fn plates_are_held_out_only_where_every_class_is_on_several() {
    let mut controls = wells(96, 4);
    // Wells of even number are on plate P0: so are all of the first class.
    let classes = of_classes(&mut controls, |i| i % 2, 5.0);
    let fit = fit_probe(&controls, &classes, &ProbeSettings::default()).unwrap();
    assert_eq!(fit.folds, Folds::Wells(5));
}

#[test]
fn any_number_of_threads_gives_the_same_head() {
    let fits: Vec<_> = [1, 3]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let mut controls = wells(700, 300);
                let classes = of_classes(&mut controls, |i| i / 2 % 3, 30.0);
                (
                    fit_whitening(&controls, &WhitenSettings::default()).unwrap(),
                    probes().map(|settings| fit_probe(&controls, &classes, &settings).unwrap()),
                )
            })
        })
        .collect();
    assert!(fits[0] == fits[1]);
}

#[test]
fn what_no_head_can_be_fitted_on_is_named() {
    let whiten = |controls: &ControlWells| fit_whitening(controls, &WhitenSettings::default()).unwrap_err();
    let told = |error: HeadError, words: &[&str]| {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    told(whiten(&wells(15, 4)), &["15 control wells", "16"]);

    let mut broken = wells(20, 4);
    broken.rows.row_mut(3)[2] = f32::NAN;
    told(whiten(&broken), &["plate P1 well A02", "net_2", "NaN"]);

    let mut flat = wells(20, 4);
    for i in 0..20 {
        flat.rows.row_mut(i)[1] = 7.5;
    }
    told(
        whiten(&flat),
        &["1 of 4 features", "net_1", "--leave-out-constant"],
    );
    let limits = FitLimits {
        leave_out_constant: true,
        ..FitLimits::default()
    };
    let lenient = WhitenSettings {
        limits,
        ..WhitenSettings::default()
    };
    let fit = fit_whitening(&flat, &lenient).unwrap();
    assert_eq!(fit.head.gain[1], 0.0);
    assert!(
        apply(&fit.head, flat.rows.row(0))
            .iter()
            .all(|value| value.is_finite())
    );
    for row in 0..20 {
        flat.rows.row_mut(row).fill(1.0);
    }
    assert!(matches!(
        fit_whitening(&flat, &lenient),
        Err(HeadError::NoVariation { wells: 20 })
    ));

    let few = wells(20, 30);
    let error = fit_whitening(&few, &settings(WhitenMethod::Zca, Shrinkage::Fixed(0.0))).unwrap_err();
    told(error, &["span 19 of 30", "shrinkage 0"]);
    let beyond = WhitenSettings {
        method: WhitenMethod::Pca,
        components: Some(20),
        ..WhitenSettings::default()
    };
    told(
        fit_whitening(&few, &beyond).unwrap_err(),
        &["components is 20", "at most 19", "20 control wells"],
    );
    for shrinkage in [-0.1, 1.1, f64::NAN] {
        let error =
            fit_whitening(&few, &settings(WhitenMethod::Pca, Shrinkage::Fixed(shrinkage))).unwrap_err();
        told(error, &["shrinkage", "from 0 to 1"]);
    }

    let controls = wells(40, 4);
    let probe = |classes: &[String]| fit_probe(&controls, classes, &ProbeSettings::default()).unwrap_err();
    told(
        probe(&vec!["healthy".to_owned(); 40]),
        &["healthy", "at least two"],
    );
    let mut classes = vec!["healthy".to_owned(); 40];
    classes[5] = "disease".to_owned();
    told(probe(&classes), &["1 wells of the class 'disease'", "16"]);
    told(probe(&classes[..39]), &["classes", "one for each of 40 wells"]);
}
