//! Alignment against the reference outputs in `../shared/oracles`: principal components, shrinkage, sphering, TVN with
//! CORAL, and the whole chain from raw features.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "common/oracles.rs"]
mod files;

use files::{Row, close, matrix, oracle, table};
use wellspring_workloads::align::moments::Moments;
use wellspring_workloads::align::pca::Pca;
use wellspring_workloads::align::shrink::{ledoit_wolf, oracle_approximating};
use wellspring_workloads::align::sphere::{SphereMethod, SphereSettings, Sphering};
use wellspring_workloads::align::tvn::{CoralCovariance, CoralSettings, Tvn};
use wellspring_workloads::align::{FittedTransform, PlateRows, ScaleMethod, Step, fit};
use wellspring_workloads::compare::FitOn;
use wellspring_workloads::compare::scale::Scaler;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::words::{Barcode, WellPosition};

/// A number of `normalize_report.json`, by its keys.
fn reported(keys: &[&str]) -> f64 {
    let text = std::fs::read(oracle("normalize_report.json").unwrap()).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
    keys.iter().fold(&report, |at, key| &at[key]).as_f64().unwrap()
}

fn features(name: &str) -> Option<FeatureMatrix> {
    let rows = matrix(name)?;
    let width = rows[0].len();
    let values = rows.into_iter().flatten().map(|v| v as f32).collect();
    Some(FeatureMatrix::from_values(width, values).unwrap())
}

/// Row numbers of the healthy wells.
fn healthy() -> Option<Vec<usize>> {
    let wells = table("wells.csv")?;
    Some(
        (0..wells.len())
            .filter(|&i| wells[i]["role"] == "healthy")
            .collect(),
    )
}

/// Row numbers of each plate, in the order of `wells.csv`.
fn plates() -> Option<Vec<Vec<usize>>> {
    let wells = table("wells.csv")?;
    Some(
        ["P1", "P2", "P3", "P4", "P5", "P6"]
            .iter()
            .map(|plate| {
                (0..wells.len())
                    .filter(|&i| wells[i]["plate"] == *plate)
                    .collect()
            })
            .collect(),
    )
}

/// The largest deviation from the reference, in shares of its largest magnitude; over the rows it has.
fn deviation(ours: &FeatureMatrix, reference: &[Vec<f64>]) -> f64 {
    let mut largest = 0.0f64;
    let mut worst = 0.0f64;
    for (ours, reference) in ours.rows().zip(reference) {
        for (&ours, &reference) in ours.iter().zip(reference) {
            largest = largest.max(reference.abs());
            worst = worst.max((f64::from(ours) - reference).abs());
        }
    }
    worst / largest
}

/// The rows with every column's sign turned to the reference's.
fn signed(mut ours: FeatureMatrix, reference: &[Vec<f64>]) -> FeatureMatrix {
    for column in 0..ours.width() {
        let dot: f64 = (0..reference.len())
            .map(|i| f64::from(ours.row(i)[column]) * reference[i][column])
            .sum();
        if dot < 0.0 {
            for i in 0..ours.len() {
                ours.row_mut(i)[column] *= -1.0;
            }
        }
    }
    ours
}

/// As [`deviation`], between the rows' inner products: blind to signs and to the order of columns.
fn gram_deviation(ours: &FeatureMatrix, reference: &[Vec<f64>]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let ours: Vec<Vec<f64>> = ours
        .rows()
        .map(|row| row.iter().map(|&v| f64::from(v)).collect())
        .collect();
    let mut largest = 0.0f64;
    let mut worst = 0.0f64;
    for i in 0..reference.len() {
        for j in 0..=i {
            let expected = dot(&reference[i], &reference[j]);
            largest = largest.max(expected.abs());
            worst = worst.max((dot(&ours[i], &ours[j]) - expected).abs());
        }
    }
    worst / largest
}

/// Each plate standardised by all its wells.
fn standardised() -> Option<FeatureMatrix> {
    let mut rows = features("embeddings_raw.npy")?;
    for plate in plates()? {
        let wells: Vec<&[f32]> = plate.iter().map(|&i| rows.row(i)).collect();
        let scaler = Scaler::standardise(&wells);
        for &i in &plate {
            let scaled = scaler.apply(rows.row(i));
            for (value, scaled) in rows.row_mut(i).iter_mut().zip(scaled) {
                *value = scaled as f32;
            }
        }
    }
    Some(rows)
}

#[test]
fn principal_components_are_those_of_efaar_pca128() {
    let Some(rows) = standardised() else { return };
    let pca = Pca::fit(&Moments::of(&rows), 128).unwrap();
    let variances = matrix_1d("efaar_pca_explained_variance.npy").unwrap();
    for (ours, reference) in pca.explained_variance.iter().zip(&variances) {
        close(*ours, *reference, 1e-6, "efaar_pca_explained_variance.npy");
    }
    let scores = pca.apply(&rows).unwrap();
    let off = deviation(&scores, &matrix("efaar_pca128.npy").unwrap());
    assert!(off < 1e-5, "efaar_pca128.npy: {off}");
}

#[test]
fn fewer_rows_than_features_give_the_same_components() {
    let Some(rows) = standardised() else { return };
    let few = rows.select(&(0..200).collect::<Vec<_>>());
    let (wide, tall) = (
        Pca::fit_rows(&few, 128).unwrap(),
        Pca::fit(&Moments::of(&few), 128).unwrap(),
    );
    for (a, b) in wide.explained_variance.iter().zip(&tall.explained_variance) {
        close(*a, *b, 1e-9, "variance");
    }
    close(wide.total_variance, tall.total_variance, 1e-9, "total variance");
    let tall = tall.apply(&few).unwrap();
    let tall: Vec<Vec<f64>> = tall
        .rows()
        .map(|row| row.iter().map(|&v| f64::from(v)).collect())
        .collect();
    let off = deviation(&wide.apply(&few).unwrap(), &tall);
    assert!(off < 1e-6, "{off}");
}

#[test]
fn shrinkage_is_that_of_shrinkage_json() {
    let Some(path) = oracle("shrinkage.json") else {
        return;
    };
    let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let number = |name: &str| expected[name].as_f64().unwrap();
    let rows = matrix("shrink_input_P1_controls_48x128.npy").unwrap();
    let shrunk = ledoit_wolf(&rows).unwrap();
    close(shrunk.shrinkage, number("ledoit_wolf_delta"), 1e-8, "Ledoit-Wolf");
    close(shrunk.mean_variance, number("mu"), 1e-8, "mu");
    for i in 0..3 {
        for j in 0..3 {
            let reference = expected["lw_cov_first3x3"][i][j].as_f64().unwrap();
            close(shrunk.covariance[(i, j)], reference, 1e-8, "lw_cov_first3x3");
        }
    }
    let oas = oracle_approximating(&rows).unwrap();
    close(oas.shrinkage, number("oas_delta"), 1e-8, "OAS");
}

/// The reference above is at the end of the scale. This is the covariance of the drift reference, whose δ is not.
#[test]
fn shrinkage_between_its_ends_is_that_of_drift_cov_lw() {
    let Some(wells) = table("drift_controls.csv") else {
        return;
    };
    let values = matrix("drift_controls.npy").unwrap();
    let rows: Vec<Vec<f64>> = (0..wells.len())
        .filter(|&i| wells[i]["set"] == "ref")
        .map(|i| values[i].clone())
        .collect();
    let shrunk = ledoit_wolf(&rows).unwrap();
    assert!(
        shrunk.shrinkage > 0.0 && shrunk.shrinkage < 1.0,
        "{}",
        shrunk.shrinkage
    );
    let reference = matrix("drift_cov_lw.npy").unwrap();
    for (i, row) in reference.iter().enumerate() {
        for (j, &value) in row.iter().enumerate() {
            close(shrunk.covariance[(i, j)], value, 1e-8, "drift_cov_lw.npy");
        }
    }
}

#[test]
fn sphering_is_that_of_pycytominer() {
    let Some(healthy) = healthy() else { return };
    for (input, files) in [
        (
            "norm_mad_controls.npy",
            [
                "spherize_d384_zcacor_eps1e-6.npy",
                "spherize_d384_zcacor_eps0.01_head64.npy",
                "spherize_d384_zca_eps1e-6_head64.npy",
                "spherize_d384_pca_eps1e-6_head64.npy",
                "spherize_d384_pcacor_eps1e-6_head64.npy",
            ],
        ),
        (
            "efaar_pca128.npy",
            [
                "spherize_d128_zcacor_eps1e-6.npy",
                "spherize_d128_zcacor_eps0.01_head64.npy",
                "spherize_d128_zca_eps1e-6_head64.npy",
                "spherize_d128_pca_eps1e-6_head64.npy",
                "spherize_d128_pcacor_eps1e-6_head64.npy",
            ],
        ),
    ] {
        let rows = features(input).unwrap();
        let controls = Moments::of(&rows.select(&healthy));
        let settings = [
            (SphereMethod::ZcaCor, 1e-6),
            (SphereMethod::ZcaCor, 0.01),
            (SphereMethod::Zca, 1e-6),
            (SphereMethod::Pca, 1e-6),
            (SphereMethod::PcaCor, 1e-6),
        ];
        for (file, (method, epsilon)) in files.into_iter().zip(settings) {
            let reference = matrix(file).unwrap();
            let sphering = Sphering::fit(&controls, &[], SphereSettings { method, epsilon }).unwrap();
            let ours = sphering.apply(&rows).unwrap();
            let off = match method {
                SphereMethod::ZcaCor | SphereMethod::Zca => deviation(&ours, &reference),
                _ => gram_deviation(&ours, &reference),
            };
            assert!(off < 1e-4, "{file}: {off}");
            // Beyond the rank, which axes PCA forms have is arbitrary.
            if matches!(method, SphereMethod::ZcaCor | SphereMethod::Zca) || rows.width() == 128 {
                let largest = ours
                    .rows()
                    .flatten()
                    .fold(0.0f32, |most, value| most.max(value.abs()));
                let key = file.trim_end_matches(".npy").trim_end_matches("_head64");
                let expected = reported(&[key, "max_abs"]);
                close(f64::from(largest), expected, 1e-4, "normalize_report.json");
            }
        }
    }
}

#[test]
fn whitening_by_eigenvalues_is_that_of_whiten_eig() {
    let Some(healthy) = healthy() else { return };
    let rows = features("efaar_pca128.npy").unwrap();
    let controls = Moments::of(&rows.select(&healthy));
    for (file, epsilon) in [
        ("whiten_eig_d128_eps0.001_head64.npy", 0.001),
        ("whiten_eig_d128_eps0.1_head64.npy", 0.1),
    ] {
        let method = SphereMethod::Eigen;
        let sphering = Sphering::fit(&controls, &[], SphereSettings { method, epsilon }).unwrap();
        let off = deviation(&sphering.apply(&rows).unwrap(), &matrix(file).unwrap());
        assert!(off < 1e-5, "{file}: {off}");
    }
}

struct Plate {
    plate: Barcode,
    wells: Vec<WellPosition>,
    rows: FeatureMatrix,
    controls: Vec<usize>,
}

impl Plate {
    fn rows(&self) -> PlateRows<'_> {
        PlateRows {
            plate: &self.plate,
            wells: &self.wells,
            rows: &self.rows,
            controls: &self.controls,
        }
    }
}

/// The oracle screen, plate by plate.
struct Plates {
    plates: Vec<Plate>,
    features: Vec<String>,
}

impl Plates {
    fn new(values: &str) -> Option<Self> {
        let wells: Vec<Row> = table("wells.csv")?;
        let all = features(values)?;
        let plates = plates()?.into_iter().map(|plate| {
            let healthy = |i: &usize| wells[plate[*i]]["role"] == "healthy";
            Plate {
                plate: wells[plate[0]]["plate"].parse().unwrap(),
                wells: plate.iter().map(|&i| wells[i]["well"].parse().unwrap()).collect(),
                rows: all.select(&plate),
                controls: (0..plate.len()).filter(healthy).collect(),
            }
        });
        let plates = plates.collect();
        let features = (0..all.width()).map(|i| format!("e{i:03}")).collect();
        Some(Self { plates, features })
    }

    fn plates(&self) -> Vec<PlateRows<'_>> {
        self.plates.iter().map(Plate::rows).collect()
    }

    fn fit(&self, steps: &[Step]) -> FittedTransform {
        fit(&self.plates(), &self.features, steps).unwrap()
    }

    /// All plates' aligned wells in the order of `wells.csv`.
    fn align(&self, steps: &[Step]) -> FeatureMatrix {
        let transform = self.fit(steps);
        let mut all = FeatureMatrix::new(transform.width());
        for plate in transform.apply_all(&self.plates()).unwrap() {
            for row in plate.rows() {
                all.push(row).unwrap();
            }
        }
        all
    }
}

fn standardise(on: FitOn) -> Step {
    Step::Scale {
        method: ScaleMethod::Standardise,
        on,
    }
}

#[test]
fn rows_of_wells_csv_are_in_the_order_of_plates() {
    let Some(plates) = plates() else { return };
    assert_eq!(plates.concat(), (0..2304).collect::<Vec<_>>());
}

#[test]
fn scaled_robustly_plates_are_those_of_norm_mad_controls() {
    let Some(plates) = Plates::new("embeddings_raw.npy") else {
        return;
    };
    let ours = plates.align(&[Step::Scale {
        method: ScaleMethod::RobustMad,
        on: FitOn::Reference,
    }]);
    let off = deviation(&ours, &matrix("norm_mad_controls.npy").unwrap());
    assert!(off < 1e-6, "norm_mad_controls.npy: {off}");
}

#[test]
fn components_scaled_on_controls_are_those_of_efaar_centerscale() {
    let Some(plates) = Plates::new("embeddings_raw.npy") else {
        return;
    };
    let ours = plates.align(&[
        standardise(FitOn::All),
        Step::Pca { components: 128 },
        standardise(FitOn::Reference),
    ]);
    let reference = matrix("efaar_centerscale_ctrl_head64.npy").unwrap();
    let off = deviation(&ours, &reference);
    assert!(off < 1e-5, "efaar_centerscale_ctrl_head64.npy: {off}");
}

#[test]
fn the_chain_from_raw_features_is_that_of_efaar_tvn() {
    let Some(plates) = Plates::new("embeddings_raw.npy") else {
        return;
    };
    let steps = Step::efaar();
    let reference = matrix("efaar_tvn.npy").unwrap();
    let ours = signed(plates.align(&steps), &reference);
    let off = deviation(&ours, &reference);
    assert!(off < 1e-4, "efaar_tvn.npy: {off}");
    let reference = matrix("efaar_tvn_nocoral_head64.npy").unwrap();
    let ours = signed(plates.align(&steps[..3]), &reference);
    let off = deviation(&ours, &reference);
    assert!(off < 1e-4, "efaar_tvn_nocoral_head64.npy: {off}");
}

#[test]
fn more_features_than_controls_are_guarded_as_in_tvn_guarded_384() {
    let Some(rows) = standardised() else { return };
    let tvn = Tvn::fit(&Moments::of(&rows.select(&healthy().unwrap()))).unwrap();
    let reference = matrix_1d("tvn_guarded_384_singular_values.npy").unwrap();
    assert_eq!(tvn.singular_values.len(), 287);
    close(
        reported(&["tvn_guarded_384_kept"]),
        287.0,
        0.0,
        "normalize_report.json",
    );
    for (ours, reference) in tvn.singular_values.iter().zip(&reference) {
        close(*ours, *reference, 1e-5, "tvn_guarded_384_singular_values.npy");
    }
    let reference = matrix("tvn_guarded_384_head128.npy").unwrap();
    let plates = Plates::new("embeddings_raw.npy").unwrap();
    let ours = plates.align(&[
        standardise(FitOn::All),
        Step::Tvn,
        Step::Coral(CoralSettings::efaar()),
    ]);
    assert_eq!(ours.width(), 287);
    let off = gram_deviation(&ours, &reference);
    assert!(off < 1e-4, "tvn_guarded_384_head128.npy: {off}");
}

/// The controls' covariance is decomposed in the smaller of two forms; both are the same matrix.
#[test]
fn whitening_a_plate_does_not_depend_on_how_it_is_decomposed() {
    let Some(rows) = features("efaar_pca128.npy") else {
        return;
    };
    let healthy = healthy().unwrap();
    let controls = rows.select(&healthy[..48]);
    for covariance in [CoralCovariance::Sample, CoralCovariance::ShrunkWhenFew] {
        let settings = CoralSettings {
            covariance,
            ..CoralSettings::default()
        };
        let root = settings.whitening(&controls).unwrap();
        // Σ^{-½} Σ Σ^{-½} = I, with Σ written out.
        let wide: Vec<Vec<f64>> = controls
            .rows()
            .map(|row| row.iter().map(|&v| f64::from(v)).collect())
            .collect();
        let shrunk = ledoit_wolf(&wide).unwrap();
        let moments = Moments::of(&controls);
        let sigma = |i: usize, j: usize| {
            let ridge = if i == j { 0.5 } else { 0.0 };
            ridge
                + match covariance {
                    CoralCovariance::Sample => moments.scatter()[(i, j)] / 47.0,
                    CoralCovariance::ShrunkWhenFew => shrunk.covariance[(i, j)],
                }
        };
        let size = 128;
        let mut half = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..size {
                half[i * size + j] = (0..size).map(|k| root[(i, k)] * sigma(k, j)).sum();
            }
        }
        for i in 0..size {
            for j in 0..size {
                let entry: f64 = (0..size).map(|k| half[i * size + k] * root[(k, j)]).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((entry - expected).abs() < 1e-9, "{covariance:?} {i} {j}: {entry}");
            }
        }
    }
}

fn matrix_1d(name: &str) -> Option<Vec<f64>> {
    let bytes = std::fs::read(oracle(name)?).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    Some(
        bytes[start..]
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect(),
    )
}
