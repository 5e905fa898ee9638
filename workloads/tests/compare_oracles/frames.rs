//! The space in which a score is measured decides what it says (SCIENCE 5.7): scores in four spaces against the truth of
//! the oracle screen, as `frames_report.json` has it.

use std::collections::HashMap;
use std::fs;

use wellspring_workloads::compare::axis::{mean, position};
use wellspring_workloads::compare::window::median_and_mad;

use crate::files::{Row, close, matrix, number, oracle, table};
use crate::plate_controls;

const TOXIC: [&str; 3] = ["C07", "C08", "C09"];

/// Compounds C10 to C40 do nothing.
fn inactive(well: &Row) -> bool {
    let number = well["compound"].trim_start_matches('C').parse();
    number.is_ok_and(|number: u32| number >= 10)
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let rows: Vec<[f64; 2]> = pairs.iter().map(|&(a, b)| [a, b]).collect();
    let centre = mean(&rows.iter().map(<[f64; 2]>::as_slice).collect::<Vec<_>>()).unwrap();
    let product = |i: usize, j: usize| -> f64 {
        rows.iter()
            .map(|row| (row[i] - centre[i]) * (row[j] - centre[j]))
            .sum()
    };
    product(0, 1) / (product(0, 0) * product(1, 1)).sqrt()
}

#[test]
fn scores_in_four_spaces_follow_the_truth_as_frames_report_json_says() {
    let (Some(path), Some(wells)) = (oracle("frames_report.json"), table("wells.csv")) else {
        return;
    };
    let report: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (space, file) in [
        ("mad_384", "norm_mad_controls.npy"),
        ("efaar_pca128_centerscale_only", "efaar_pca128.npy"),
        ("efaar_tvn", "efaar_tvn.npy"),
        ("spherize_zcacor_384", "spherize_d384_zcacor_eps1e-6.npy"),
    ] {
        let rows = matrix(file).unwrap();
        let plates: HashMap<&str, _> = ["P1", "P2", "P3", "P4", "P5", "P6"]
            .map(|plate| (plate, plate_controls(&wells, &rows, plate).0))
            .into();
        // Of every treated well: itself, rescue and off-axis length, on the axis of its plate.
        let scores: Vec<(&Row, f64, f64)> = wells
            .iter()
            .zip(&rows)
            .filter(|(well, _)| well["role"] == "treated")
            .map(|(well, row)| {
                let axis = &plates[well["plate"].as_str()].axis;
                let at = position(&axis.scaled(row), axis.unit());
                (well, at.rescue(), at.off_axis)
            })
            .collect();
        let rescue = |of: &dyn Fn(&Row) -> bool| -> Vec<(f64, f64)> {
            let of = scores.iter().filter(|(well, ..)| of(well));
            of.map(|(well, rescue, _)| (*rescue, 1.0 - number(well, "truth_on_disease")))
                .collect()
        };
        let toxic = |well: &Row| TOXIC.contains(&well["compound"].as_str());
        let off: Vec<(f64, f64)> = scores
            .iter()
            .map(|(well, _, off)| (*off, number(well, "truth_off_axis_over_len")))
            .collect();
        let still: Vec<f64> = rescue(&inactive).iter().map(|pair| pair.0).collect();
        let centre = still.iter().sum::<f64>() / still.len() as f64;
        let spread = still.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / still.len() as f64;
        let of_toxic: Vec<f64> = rescue(&toxic).iter().map(|pair| pair.0).collect();
        let off_still: Vec<f64> = scores
            .iter()
            .filter(|(well, ..)| inactive(well))
            .map(|score| score.2)
            .collect();
        let expected = |key: &str| report[space][key].as_f64().unwrap();
        let range = |at: usize| report[space]["rescue_range_toxic"][at].as_f64().unwrap();
        for (ours, reference, what) in [
            (
                correlation(&rescue(&|_| true)),
                expected("corr_rescue_all"),
                "corr_rescue_all",
            ),
            (
                correlation(&rescue(&|well| !toxic(well))),
                expected("corr_rescue_nontoxic"),
                "corr_rescue_nontoxic",
            ),
            (correlation(&off), expected("corr_off"), "corr_off"),
            (
                spread.sqrt(),
                expected("sd_rescue_inactive"),
                "sd_rescue_inactive",
            ),
            (
                of_toxic.iter().copied().fold(f64::INFINITY, f64::min),
                range(0),
                "lowest of toxic",
            ),
            (
                of_toxic.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                range(1),
                "highest of toxic",
            ),
            (
                median_and_mad(&off_still).unwrap().0,
                expected("off_baseline"),
                "off_baseline",
            ),
        ] {
            close(ours, reference, 1e-6, &format!("{space} {what}"));
        }
    }
}
