//! Feature selection in a comparison: what is dropped, that the rest is compared as if it had come alone, and later plates.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/noise.rs"]
mod noise;

use noise::Noise;
use wellspring_workloads::compare::{
    Align, AlignmentSettings, CompareError, ComparisonSettings, FitOn, Frame, Normalise, NoteKind,
    ScreenComparison, Select, compare, compare_framed,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

/// Columns that carry something of their own.
const OWN: usize = 6;

/// Own columns, a copy of the first, its opposite, one without spread, one of two values of which one is rare, one with
/// a wild well.
fn names() -> Vec<String> {
    let own = (0..OWN).map(|i| format!("own_{i}"));
    let more = ["copy", "opposite", "flat", "rare", "wild"].map(str::to_owned);
    own.chain(more).collect()
}

fn plate(name: &str, seed: u64) -> Vec<WellProfile> {
    let mut generator = Noise(seed);
    let mut noise = move || generator.uniform() - 0.5;
    let mut wells = Vec::new();
    for index in 0..96usize {
        let (role, compound, place) = match index {
            0..40 => (Role::Reference, None, 0.0),
            40..64 => (Role::Phenotype, None, 1.0),
            _ => (
                Role::Treated,
                Some(format!("c{}", index % 8)),
                1.0 - (index % 8) as f64 / 8.0,
            ),
        };
        let mut values: Vec<f32> = (0..OWN)
            .map(|i| (place * (i as f64 - 1.5) + 2.0 * noise() + seed as f64) as f32)
            .collect();
        let first = values[0];
        let rare = if index == 3 || index == 70 { 1.0 } else { 0.0 };
        let wild = if index == 95 { 1e6 } else { noise() };
        values.extend([
            2.0 * first + 0.01 * noise() as f32,
            -first,
            4.0,
            rare,
            wild as f32,
        ]);
        wells.push(WellProfile {
            plate: name.parse().unwrap(),
            well: WellPosition::new((index / 12 + 1) as u8, (index % 12 + 1) as u8).unwrap(),
            treatment: Treatment {
                role,
                disease: (role != Role::Reference).then(|| "D".to_owned()),
                compound,
                dose: (role == Role::Treated).then_some(1.0),
            },
            fields: 1,
            cell_count: None,
            values,
        });
    }
    wells
}

fn screen() -> Vec<WellProfile> {
    let mut wells = plate("P1", 3);
    wells.extend(plate("P2", 4));
    wells.extend(plate("P3", 5));
    wells
}

fn settings(select: Select, align: Align, normalise: Normalise) -> ComparisonSettings {
    ComparisonSettings {
        select,
        align,
        normalise,
        fit_on: FitOn::Reference,
        alignment: AlignmentSettings {
            components: 4,
            ..AlignmentSettings::default()
        },
        ..ComparisonSettings::default()
    }
}

/// The wells with the columns of some names only.
fn narrowed(wells: &[WellProfile], kept: &[String]) -> Vec<WellProfile> {
    let names = names();
    let places: Vec<usize> = kept
        .iter()
        .map(|name| names.iter().position(|n| n == name).unwrap())
        .collect();
    let narrow = |well: &WellProfile| WellProfile {
        values: places.iter().map(|&place| well.values[place]).collect(),
        ..well.clone()
    };
    wells.iter().map(narrow).collect()
}

fn without_selection_note(mut found: ScreenComparison) -> ScreenComparison {
    found.notes.retain(|note| note.kind != NoteKind::Selection);
    found
}

#[test]
fn the_recommended_operations_drop_what_they_should_and_say_so() {
    let settings = settings(Select::Recommended, Align::None, Normalise::Standardise);
    let (found, frame) = compare_framed(&screen(), &settings, &names(), None).unwrap();
    let selection = frame.selection().unwrap();
    let why = |name: &str| {
        let dropped = selection.dropped.iter().find(|dropped| dropped.name == name);
        dropped.map(|dropped| dropped.operation.as_str())
    };
    assert_eq!(why("flat"), Some("variance_threshold"));
    assert_eq!(why("rare"), Some("frequency_threshold"));
    assert!(why("copy") == Some("correlation_threshold") || why("own_0") == Some("correlation_threshold"));
    // A correlation of -1 says the same as well, but pycytominer keeps it.
    assert_eq!(why("opposite"), None);
    let note = found
        .notes
        .iter()
        .find(|note| note.kind == NoteKind::Selection)
        .unwrap();
    let kept = format!("kept {} of {} ", selection.names().len(), names().len());
    assert!(note.text.contains(&kept), "{}", note.text);
    assert!(
        note.text.contains("variance_threshold dropped 1"),
        "{}",
        note.text
    );
    // Scaling bounds what one wild well can do to a column; of profiles that come scaled it does not.
    let unscaled = ComparisonSettings {
        normalise: Normalise::None,
        ..settings
    };
    let (_, frame) = compare_framed(&screen(), &unscaled, &names(), None).unwrap();
    let selection = frame.selection().unwrap();
    let wild = selection
        .dropped
        .iter()
        .find(|dropped| dropped.name == "wild")
        .unwrap();
    assert_eq!(wild.operation, "drop_outliers");
    assert_eq!(wild.why.to_string(), "it reaches 1.0000e6");
}

#[test]
fn kept_columns_are_compared_as_if_they_had_come_alone() {
    for align in [Align::None, Align::Tvn, Align::Pca] {
        for normalise in [Normalise::Standardise, Normalise::RobustMad] {
            let selecting = settings(Select::Recommended, align, normalise);
            let (found, frame) = compare_framed(&screen(), &selecting, &names(), None).unwrap();
            let kept = frame.selection().unwrap().names();
            let whole = settings(Select::None, align, normalise);
            let (alone, other) = compare_framed(&narrowed(&screen(), kept), &whole, kept, None).unwrap();
            assert_eq!(without_selection_note(found), alone, "{align:?} {normalise:?}");
            assert_eq!(frame.transform(), other.transform());
            assert!(other.selection().is_none());
        }
    }
}

#[test]
fn later_plates_are_compared_on_the_columns_of_the_alignment() {
    let settings = settings(Select::Recommended, Align::Tvn, Normalise::Standardise);
    let (_, frame) = compare_framed(&screen(), &settings, &names(), None).unwrap();
    let transform = frame.transform().unwrap().clone();
    let later = plate("P4", 6);
    let (found, again) = compare_framed(&later, &settings, &names(), Some(transform.clone())).unwrap();
    assert_eq!(
        again.selection().unwrap().names(),
        frame.selection().unwrap().names()
    );
    assert!(
        again
            .selection()
            .unwrap()
            .dropped
            .iter()
            .all(|dropped| dropped.operation == "transform")
    );
    assert!(!found.rows.is_empty());
    // Without the setting the columns do not fit, and a table that misses one neither.
    let whole = ComparisonSettings {
        select: Select::None,
        ..settings.clone()
    };
    let refused = compare_framed(&later, &whole, &names(), Some(transform.clone()));
    assert!(matches!(refused, Err(CompareError::Align(_))));
    let fewer: Vec<String> = names().into_iter().filter(|name| name != "own_3").collect();
    let refused = compare_framed(&narrowed(&later, &fewer), &settings, &fewer, Some(transform));
    assert!(matches!(refused, Err(CompareError::Align(_))));
}

#[test]
fn nothing_left_to_compare_is_refused_with_the_way_out() {
    let mut wells = screen();
    for well in &mut wells {
        well.values = vec![1.0; 3];
    }
    let error = compare(
        &wells,
        &settings(Select::Recommended, Align::None, Normalise::Standardise),
    )
    .unwrap_err();
    assert!(matches!(error, CompareError::Select(_)), "{error}");
    assert!(
        error.to_string().contains("select = \"none\" keeps all"),
        "{error}"
    );
}

#[test]
fn selection_is_off_by_default_and_leaves_the_settings_as_they_were_written() {
    let text = serde_json::to_string(&ComparisonSettings::default()).unwrap();
    assert!(!text.contains("select"), "{text}");
    let read: ComparisonSettings = serde_json::from_str("{\"select\":\"recommended\"}").unwrap();
    assert_eq!(read.select, Select::Recommended);
    assert!(
        serde_json::to_string(&read)
            .unwrap()
            .contains("\"select\":\"recommended\"")
    );
    let (found, frame) = compare_framed(
        &screen(),
        &settings(Select::None, Align::None, Normalise::Standardise),
        &names(),
        None,
    )
    .unwrap();
    assert!(frame.selection().is_none());
    assert!(found.notes.iter().all(|note| note.kind != NoteKind::Selection));
    assert!(Frame::default().selection().is_none());
}

#[test]
fn a_flat_column_is_named_by_its_place_among_all() {
    let mut wells = screen();
    // Without spread where one plate is scaled: the others keep the column in.
    let column = OWN - 1;
    for well in &mut wells {
        let flat = well.plate.as_str() == "P2" && well.treatment.role == Role::Reference;
        // Steps, so that no value stands out as too common.
        well.values[column] = if flat { 9.0 } else { well.values[column].round() };
    }
    let settings = settings(Select::Recommended, Align::None, Normalise::Standardise);
    // First place a column that is dropped, so that places among the kept ones are others.
    for well in &mut wells {
        well.values.insert(0, 1.0);
    }
    let names: Vec<String> = std::iter::once("constant".to_owned()).chain(names()).collect();
    let (found, _) = compare_framed(&wells, &settings, &names, None).unwrap();
    let note = found
        .notes
        .iter()
        .find(|note| note.kind == NoteKind::ConstantFeatures)
        .unwrap();
    assert_eq!(note.column, Some(column + 1));
}
