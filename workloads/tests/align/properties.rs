//! What must not matter: threads, the order of wells, shifts and gains of a plate, the axes of the feature space.

use wellspring_workloads::align::{Step, fit};
use wellspring_workloads::matrix::FeatureMatrix;

use super::screen::{FEATURES, Numbers, Plate, difference, gram, names, plates, rows};

/// Rounding of `f32` between steps, enlarged by whitening.
const SAME: f64 = 1e-4;

/// All aligned wells, plate after plate.
fn aligned(plates: &[Plate], steps: &[Step]) -> FeatureMatrix {
    let transform = fit(&rows(plates), &names(), steps).unwrap();
    let mut all = FeatureMatrix::new(transform.width());
    for plate in transform.apply_all(&rows(plates)).unwrap() {
        for row in plate.rows() {
            all.push(row).unwrap();
        }
    }
    all
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let plates = plates(5);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let transform = fit(&rows(&plates), &names(), &Step::recommended()).unwrap();
            (
                transform.sha256().unwrap(),
                transform.apply_all(&rows(&plates)).unwrap(),
            )
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

#[test]
fn the_order_in_which_plates_are_given_does_not_matter() {
    let ordered = plates(5);
    let mut other = ordered.clone();
    other.reverse();
    let hash = |plates: &[Plate]| {
        fit(&rows(plates), &names(), &Step::recommended())
            .unwrap()
            .sha256()
    };
    assert_eq!(hash(&ordered).unwrap(), hash(&other).unwrap());
}

#[test]
fn the_order_of_wells_does_not_matter() {
    let plates = plates(3);
    let count = plates[0].wells.len();
    let order: Vec<usize> = (0..count).map(|i| (i * 37 + 11) % count).collect();
    let shuffled: Vec<Plate> = plates
        .iter()
        .map(|plate| Plate {
            plate: plate.plate.clone(),
            wells: order.iter().map(|&i| plate.wells[i]).collect(),
            rows: plate.rows.select(&order),
            controls: (0..count)
                .filter(|&i| plate.controls.contains(&order[i]))
                .collect(),
        })
        .collect();
    let expected = aligned(&plates, &Step::recommended());
    let found = aligned(&shuffled, &Step::recommended());
    let all: Vec<usize> = (0..3)
        .flat_map(|plate| order.iter().map(move |i| plate * count + i))
        .collect();
    let off = difference(&expected.select(&all), &found);
    assert!(off < SAME, "{off}");
}

#[test]
fn a_plate_s_own_shift_and_gain_do_not_matter() {
    let plates = plates(3);
    let mut moved = plates.clone();
    for (plate, (gain, shift)) in moved.iter_mut().zip([(1.0, 0.0), (4.0, 50.0), (0.5, -20.0)]) {
        for (i, value) in plate.rows.as_mut_slice().iter_mut().enumerate() {
            *value = gain * *value + shift + (i % FEATURES) as f32;
        }
    }
    let off = difference(
        &aligned(&plates, &Step::recommended()),
        &aligned(&moved, &Step::recommended()),
    );
    assert!(off < SAME, "{off}");
}

/// Without the first step, which scales each feature by itself.
#[test]
fn a_rotation_of_the_feature_space_does_not_matter() {
    let plates = plates(3);
    let mut rotated = plates.clone();
    let mut numbers = Numbers(3);
    for turn in 0..200 {
        let (a, b) = (turn % FEATURES, (turn * 7 + 1 + turn / FEATURES) % FEATURES);
        if a == b {
            continue;
        }
        let (sin, cos) = (6.3 * numbers.uniform()).sin_cos();
        for plate in &mut rotated {
            for well in 0..plate.wells.len() {
                let row = plate.rows.row_mut(well);
                let (x, y) = (f64::from(row[a]), f64::from(row[b]));
                row[a] = (cos * x - sin * y) as f32;
                row[b] = (sin * x + cos * y) as f32;
            }
        }
    }
    assert!(difference(&plates[0].rows, &rotated[0].rows) > 0.1);
    let steps = &Step::recommended()[1..];
    let off = difference(&gram(&aligned(&plates, steps)), &gram(&aligned(&rotated, steps)));
    assert!(off < SAME, "{off}");
}

/// With more features than controls the guard keeps what the controls span: 12, less the mean of each plate.
#[test]
fn few_controls_do_not_blow_up_treated_wells() {
    let mut plates = plates(2);
    for plate in &mut plates {
        plate.controls.truncate(6);
    }
    let rows = aligned(&plates, &Step::recommended());
    assert_eq!(rows.width(), 10);
    let largest = rows.as_slice().iter().fold(0.0f32, |most, v| most.max(v.abs()));
    assert!(largest < 1e3, "{largest}");
}
