//! What must not change a score: the order of rows, a rotation of the features, the number of threads.

use proptest::prelude::*;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::replicate::average_precision::{Negatives, Place, average_precision};
use wellspring_workloads::replicate::map::{MapSettings, Nulls, mean_average_precision};

const WIDTH: usize = 6;

/// Two plates of three treatments in two replicates each and five controls.
fn design() -> Vec<Place> {
    (0..2)
        .flat_map(|stratum| {
            let treated = (0..3).map(Some);
            let group = treated.chain(std::iter::repeat_n(None, 5));
            group.map(move |group| Place { group, stratum })
        })
        .collect()
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(-8i16..=8, design().len() * WIDTH)
        .prop_map(|values| values.iter().map(|&v| f32::from(v)).collect())
}

/// Turns by a right angle in the planes of features 0 and 1, 2 and 3: exact in floating point.
fn turned(row: &[f32]) -> Vec<f32> {
    vec![-row[1], row[0], row[3], -row[2], row[5], row[4]]
}

proptest! {
    #[test]
    fn precision_does_not_depend_on_row_order_or_rotation(values in values(), keys in Just((0..16usize).collect::<Vec<_>>()).prop_shuffle()) {
        let places = design();
        let rows = FeatureMatrix::from_values(WIDTH, values).unwrap();
        let ours = average_precision(&rows, &places, Negatives::Controls).unwrap();
        let shuffled: Vec<Place> = keys.iter().map(|&i| places[i]).collect();
        let other = average_precision(&rows.select(&keys), &shuffled, Negatives::Controls).unwrap();
        for (at, &i) in keys.iter().enumerate() {
            prop_assert_eq!(other.rows[at], ours.rows[i]);
        }
        let group = |places: &[Place]| places.iter().map(|p| p.group).collect::<Vec<_>>();
        let settings = MapSettings { exact_up_to: 0, draws: 200, ..MapSettings::default() };
        let a = mean_average_precision(&ours.rows, &group(&places), settings, &mut Nulls::default());
        let b = mean_average_precision(&other.rows, &group(&shuffled), settings, &mut Nulls::default());
        prop_assert_eq!(a, b);
        let turned: Vec<Vec<f32>> = rows.rows().map(turned).collect();
        let turned = FeatureMatrix::from_rows(WIDTH, turned.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(average_precision(&turned, &places, Negatives::Controls).unwrap(), ours);
    }
}

#[test]
fn threads_and_earlier_calls_change_nothing() {
    let places: Vec<Place> = (0..12).flat_map(|_| design()).collect();
    let values = (0..places.len() * WIDTH)
        .map(|i| ((i * 7919 % 1009) as f32).sin())
        .collect();
    let rows = FeatureMatrix::from_values(WIDTH, values).unwrap();
    let group: Vec<Option<usize>> = places.iter().map(|p| p.group).collect();
    let settings = MapSettings {
        draws: 500,
        ..MapSettings::default()
    };
    let run = |threads: usize, nulls: &mut Nulls| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let retrievals = average_precision(&rows, &places, Negatives::Controls).unwrap();
            mean_average_precision(&retrievals.rows, &group, settings, nulls)
        })
    };
    let one = run(1, &mut Nulls::default());
    let mut nulls = Nulls::default();
    assert_eq!(one.len(), 3);
    assert_eq!(run(3, &mut nulls), one);
    assert_eq!(run(2, &mut nulls), one, "what was drawn before is not a matter");
}

#[test]
fn rows_without_a_direction_take_part_in_nothing_and_are_named() {
    let places = design();
    let mut values: Vec<f32> = (0..places.len() * WIDTH)
        .map(|i| ((i * 31 % 17) as f32).cos())
        .collect();
    values[..WIDTH].fill(0.0);
    values[9 * WIDTH + 2] = f32::NAN;
    let rows = FeatureMatrix::from_values(WIDTH, values).unwrap();
    let ours = average_precision(&rows, &places, Negatives::Controls).unwrap();
    assert_eq!(ours.left_out, [0, 9]);
    assert_eq!(ours.rows[0].average_precision, None);
    // Its replicate on the other plate is alone now.
    assert_eq!(ours.rows[8].average_precision, None);
    let group: Vec<Option<usize>> = places.iter().map(|p| p.group).collect();
    let groups = mean_average_precision(&ours.rows, &group, MapSettings::default(), &mut Nulls::default());
    assert_eq!(
        groups.iter().map(|g| g.group).collect::<Vec<_>>(),
        [2],
        "groups 0 and 1 lost a replicate"
    );
}

#[test]
fn mechanisms_are_told_apart_from_other_mechanisms() {
    let rows = FeatureMatrix::from_values(2, vec![1.0, 0.1, 1.0, 0.0, 0.0, 1.0, 0.1, 1.0, 5.0, 5.0]).unwrap();
    let place = |group| Place { group, stratum: 0 };
    let places = [Some(0), Some(0), Some(1), Some(1), None].map(place);
    let ours = average_precision(&rows, &places, Negatives::OtherGroups).unwrap();
    for row in &ours.rows[..4] {
        assert_eq!(
            (row.positives, row.total, row.average_precision),
            (1, 3, Some(1.0))
        );
    }
    assert_eq!(ours.rows[4].total, 0, "a control takes no part");
}
