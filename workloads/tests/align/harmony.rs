//! Harmony by what it is for: batches mix, disease states stay apart.

use wellspring_workloads::align::harmony::{HarmonyError, HarmonySettings, harmony};
use wellspring_workloads::matrix::FeatureMatrix;

use super::screen::Numbers;

const BATCHES: usize = 4;
const STATES: usize = 3;
const WELLS: usize = 40;
const WIDTH: usize = 12;

/// Wells of every state in every batch, as rows with their labels: states and batches both shift them, a batch
/// differently for each state.
fn screen() -> (FeatureMatrix, Vec<String>, Vec<String>) {
    let mut numbers = Numbers(5);
    let mut axes = |count: usize, size: f64| -> Vec<Vec<f64>> {
        (0..count)
            .map(|_| (0..WIDTH).map(|_| size * numbers.normal()).collect())
            .collect()
    };
    let (states, batches) = (axes(STATES, 3.0), axes(BATCHES, 1.2));
    let mixed = axes(BATCHES * STATES, 0.4);
    let mut rows = FeatureMatrix::zeros(BATCHES * STATES * WELLS, WIDTH);
    let (mut batch_of, mut state_of) = (Vec::new(), Vec::new());
    for i in 0..rows.len() {
        let (batch, state) = (i / (STATES * WELLS), i / WELLS % STATES);
        for (j, value) in rows.row_mut(i).iter_mut().enumerate() {
            let shift = batches[batch][j] + mixed[batch * STATES + state][j];
            *value = (states[state][j] + shift + 0.5 * numbers.normal()) as f32;
        }
        batch_of.push(format!("B{batch}"));
        state_of.push(format!("D{state}"));
    }
    (rows, batch_of, state_of)
}

/// Share of each well's 20 nearest neighbours that have its label.
fn neighbours_alike(rows: &FeatureMatrix, labels: &[String]) -> f64 {
    const NEAREST: usize = 20;
    let mut alike = 0;
    for (i, row) in rows.rows().enumerate() {
        let mut distances: Vec<(f32, usize)> = rows
            .rows()
            .enumerate()
            .filter(|&(j, _)| j != i)
            .map(|(j, other)| (row.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum(), j))
            .collect();
        distances.sort_by(|a, b| a.0.total_cmp(&b.0));
        alike += distances[..NEAREST]
            .iter()
            .filter(|&&(_, j)| labels[j] == labels[i])
            .count();
    }
    alike as f64 / (rows.len() * NEAREST) as f64
}

#[test]
fn batches_mix_and_states_stay_apart() {
    let (rows, batches, states) = screen();
    let moved = harmony(&rows, &batches, &states, &HarmonySettings::default()).unwrap();
    let falls = |pair: &[f64]| pair[1] <= pair[0] + 0.01 * pair[0].abs();
    assert!(moved.objective.windows(2).all(falls), "{:?}", moved.objective);
    assert!(moved.converged);
    let (before, after) = (
        neighbours_alike(&rows, &batches),
        neighbours_alike(&moved.rows, &batches),
    );
    // Wholly mixed is 0.25.
    assert!(before > 0.6, "{before}");
    assert!(after < 0.4, "{after}");
    let (before, after) = (
        neighbours_alike(&rows, &states),
        neighbours_alike(&moved.rows, &states),
    );
    assert!(after > 0.95 && after > before - 0.02, "{before} {after}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let (rows, batches, states) = screen();
    let run = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let settings = HarmonySettings {
            seed,
            ..HarmonySettings::default()
        };
        pool.install(|| harmony(&rows, &batches, &states, &settings).unwrap())
    };
    let one = run(1, 4);
    assert_eq!(one, run(3, 4));
    assert_ne!(one.rows, run(1, 5).rows);
}

#[test]
fn disease_that_cannot_be_told_from_batch_is_refused() {
    let (rows, batches, states) = screen();
    let settings = HarmonySettings::default();
    let alone: Vec<String> = batches
        .iter()
        .zip(&states)
        .map(|(batch, state)| match batch.as_str() {
            "B2" => "D9".to_owned(),
            _ => state.clone(),
        })
        .collect();
    let error = harmony(&rows, &batches, &alone, &settings).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("disease state 'D9' lies in batch 'B2' only"),
        "{error}"
    );
    let halves: Vec<String> = batches
        .iter()
        .map(|batch| if batch < &"B2".to_owned() { "D1" } else { "D2" }.to_owned())
        .collect();
    assert_eq!(
        harmony(&rows, &batches, &halves, &settings).unwrap_err(),
        HarmonyError::Disconnected {
            batch: "B0".to_owned(),
            other: "B2".to_owned()
        }
    );
    let one = vec!["B0".to_owned(); rows.len()];
    assert!(matches!(
        harmony(&rows, &one, &states, &settings),
        Err(HarmonyError::OneBatch { .. })
    ));
    assert!(matches!(
        harmony(&rows, &batches[..3], &states, &settings),
        Err(HarmonyError::Labels { .. })
    ));
    let mut broken = rows.clone();
    broken.row_mut(7)[3] = f32::NAN;
    assert!(matches!(
        harmony(&broken, &batches, &states, &settings),
        Err(HarmonyError::NotFinite {
            row: 7,
            column: 3,
            ..
        })
    ));
    let settings = HarmonySettings {
        softness: 0.0,
        ..settings
    };
    assert!(matches!(
        harmony(&rows, &batches, &states, &settings),
        Err(HarmonyError::Setting {
            setting: "softness",
            ..
        })
    ));
}
