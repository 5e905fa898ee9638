//! Corrections for many tests.

use wellspring_workloads::compare::multiple::{benjamini_hochberg, benjamini_yekutieli, bonferroni};

use crate::files::{close, oracle};

#[test]
fn corrections_equal_bh_example() {
    let Some(path) = oracle("bh_example.json") else {
        return;
    };
    let example: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let numbers = |key: &str| -> Vec<f64> {
        let values = example[key].as_array().unwrap();
        values.iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let p = numbers("p");
    // An undefined p changes nothing for the others.
    let mut with_gaps: Vec<Option<f64>> = vec![None, Some(f64::NAN)];
    with_gaps.extend(p.iter().map(|&p| Some(p)));
    for (key, correct) in [
        (
            "q_bh",
            benjamini_hochberg as fn(&[Option<f64>]) -> Vec<Option<f64>>,
        ),
        ("q_by", benjamini_yekutieli),
        ("bonferroni", bonferroni),
    ] {
        let ours = correct(&with_gaps);
        assert_eq!(ours[..2], [None, None], "{key}");
        for (ours, expected) in ours[2..].iter().zip(numbers(key)) {
            close(ours.unwrap(), expected, 1e-12, key);
        }
    }
}
