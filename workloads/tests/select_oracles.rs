//! Feature selection against `../shared/oracles/feature_select_expected.json`, and what the peer's files do not hold.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "common/oracles.rs"]
mod files;

use files::oracle;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::select::{Operation, SelectError, Selection, Why, select};

fn input() -> Option<(FeatureMatrix, Vec<String>)> {
    let mut reader = csv::Reader::from_path(oracle("feature_select_input.csv")?).unwrap();
    let names: Vec<String> = reader
        .headers()
        .unwrap()
        .iter()
        .skip(1)
        .map(str::to_owned)
        .collect();
    let mut rows = FeatureMatrix::new(names.len());
    for record in reader.records() {
        let row: Vec<f32> = record
            .unwrap()
            .iter()
            .skip(1)
            .map(|text| {
                if text.is_empty() {
                    f32::NAN
                } else {
                    text.parse().unwrap()
                }
            })
            .collect();
        rows.push(&row).unwrap();
    }
    Some((rows, names))
}

fn names(selection: &Selection) -> Vec<&str> {
    let mut names: Vec<&str> = selection
        .dropped
        .iter()
        .map(|dropped| dropped.name.as_str())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn every_operation_drops_what_feature_select_expected_says() {
    let Some((rows, columns)) = input() else { return };
    let text = std::fs::read(oracle("feature_select_expected.json").unwrap()).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let list = |key: &str| -> Vec<&str> {
        let mut list: Vec<&str> = expected[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        list.sort_unstable();
        list
    };
    let all = Operation::recommended(Vec::new());
    for operation in &all[..5] {
        let selection = select(&rows, &columns, std::slice::from_ref(operation)).unwrap();
        assert_eq!(names(&selection), list(operation.name()), "{}", operation.name());
    }
    // The peer's chains are without frequency_threshold, in two orders.
    for (chain, key) in [
        ([1, 3, 0, 4], "chain_kept"),
        ([0, 1, 3, 4], "chain_na_first_kept"),
    ] {
        let chain: Vec<Operation> = chain.iter().map(|&i| all[i].clone()).collect();
        let selection = select(&rows, &columns, &chain).unwrap();
        let mut kept: Vec<&str> = selection.names().iter().map(String::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, list(key), "{key}");
    }
}

#[test]
fn a_dropped_column_says_what_dropped_it() {
    let Some((rows, columns)) = input() else { return };
    let blocklist = vec!["Nuclei_neg?".to_owned(), "*_a7".to_owned(), "Cells_*".to_owned()];
    let selection = select(&rows, &columns, &Operation::recommended(blocklist)).unwrap();
    let of = |name: &str| {
        selection
            .dropped
            .iter()
            .find(|dropped| dropped.name == name)
            .unwrap()
    };
    assert_eq!(of("Nuclei_const").operation, "variance_threshold");
    assert_eq!(of("Nuclei_const").why, Why::Variance { variance: 0.0 });
    let Why::Correlated { with, r } = &of("Nuclei_dup0").why else {
        panic!()
    };
    assert_eq!(with, "Nuclei_dup0b");
    assert!(*r > 0.9);
    let pattern = "*_a7".to_owned();
    assert_eq!(of("Nuclei_a7").why, Why::Blocked { pattern });
    assert_eq!(of("Nuclei_neg1").operation, "blocklist");
    assert_eq!(selection.unmatched, ["Cells_*"]);
    let later = selection.apply(&rows.select(&[5, 6])).unwrap();
    assert_eq!(later.width(), selection.names().len());
    let column = columns.iter().position(|name| name == "Nuclei_a1").unwrap();
    assert_eq!(later.row(1)[0], rows.row(6)[column]);
}

#[test]
fn correlation_of_columns_with_missing_values_takes_the_rows_that_both_have() {
    let rows = 600;
    let value = |i: usize, j: usize| ((i * (2 * j + 3) * 7 + j) as f32 * 0.37).sin();
    let mut matrix = FeatureMatrix::zeros(rows, 3);
    for i in 0..rows {
        let noise = 0.3 * value(i, 9);
        matrix
            .row_mut(i)
            .copy_from_slice(&[1000.0 + value(i, 1), value(i, 1) + noise, value(i, 2)]);
        if i % 5 == 0 {
            matrix.row_mut(i)[0] = f32::NAN;
        }
        if i % 7 == 3 {
            matrix.row_mut(i)[1] = f32::NAN;
        }
    }
    let pairs: Vec<(f64, f64)> = matrix
        .rows()
        .filter(|row| !row[0].is_nan() && !row[1].is_nan())
        .map(|row| (f64::from(row[0]), f64::from(row[1])))
        .collect();
    let n = pairs.len() as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
    let (a, b) = (mean(&|p| p.0), mean(&|p| p.1));
    let r = mean(&|p| (p.0 - a) * (p.1 - b))
        / (mean(&|p| (p.0 - a).powi(2)) * mean(&|p| (p.1 - b).powi(2))).sqrt();
    let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    let at = |threshold| select(&matrix, &names, &[Operation::CorrelationThreshold { threshold }]).unwrap();
    assert!(at(r + 1e-9).dropped.is_empty());
    let dropped = at(r - 1e-9).dropped;
    assert_eq!(dropped.len(), 1);
    let Why::Correlated { r: found, .. } = dropped[0].why else {
        panic!()
    };
    assert!((found - r).abs() < 1e-10, "{found} {r}");
}

#[test]
fn bad_input_is_named() {
    let names: Vec<String> = ["Cells_x", "Cells_y"].map(str::to_owned).to_vec();
    let operations = Operation::recommended(Vec::new());
    let rows = FeatureMatrix::from_values(2, vec![1.0, 2.0, 3.0, f32::INFINITY]).unwrap();
    let error = select(&rows, &names, &operations).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 1 column Cells_y is inf: remove the row or the column before feature selection"
    );
    let flat = FeatureMatrix::from_values(2, vec![1.0; 8]).unwrap();
    let error = select(&flat, &names, &operations).unwrap_err();
    let SelectError::NothingLeft {
        operation,
        columns: 2,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(operation, "variance_threshold");
    assert!(matches!(
        select(&flat, &names[..1], &operations),
        Err(SelectError::Names { names: 1, width: 2 })
    ));
    assert!(matches!(
        select(&FeatureMatrix::new(2), &names, &operations),
        Err(SelectError::NoRows)
    ));
    let wrong = [Operation::CorrelationThreshold { threshold: 90.0 }];
    assert!(matches!(
        select(&flat, &names, &wrong),
        Err(SelectError::Setting { .. })
    ));
}
