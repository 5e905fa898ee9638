//! The comparison plate by plate: the same numbers as at once, little held at a time, and screens of other designs:
//! a control on every plate, reference wells only, several diseases, compounds on healthy cells, any scale of features.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/noise.rs"]
mod noise;

use std::convert::Infallible;
use std::io::Cursor;

use noise::Noise;
use proptest::prelude::*;
use wellspring_workloads::compare::{
    Align, Call, CompareError, Comparison, ComparisonSettings, CompoundSummary, Design, Frame, Normalise,
    NoteKind, NullFrom, Question, ScreenComparison, Spool, StreamError, WIDEST, compare, stream,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::{Barcode, WellPosition};

const WIDTH: usize = 16;

fn names() -> Vec<String> {
    (0..WIDTH).map(|column| format!("f_{column}")).collect()
}

/// Wells of any number of plates, each plate filled from A01 on.
struct Screen {
    noise: Noise,
    wells: Vec<WellProfile>,
}

impl Screen {
    fn new(seed: u64) -> Self {
        Self {
            noise: Noise(seed),
            wells: Vec::new(),
        }
    }

    /// A well with `effect` on the first features, in units of ten times the noise.
    fn add(
        &mut self,
        plate: &str,
        role: Role,
        disease: Option<&str>,
        compound: Option<(&str, f64)>,
        effect: &[f64],
    ) {
        let plate: Barcode = plate.parse().unwrap();
        let next = self.wells.iter().filter(|well| well.plate == plate).count();
        let (row, column) = (u8::try_from(next / 24).unwrap(), u8::try_from(next % 24).unwrap());
        let values = (0..WIDTH)
            .map(|i| (4.0 * effect.get(i).copied().unwrap_or(0.0) + 0.4 * self.noise.normal()) as f32)
            .collect();
        self.wells.push(WellProfile {
            plate,
            well: WellPosition::new(row + 1, column + 1).unwrap(),
            treatment: Treatment {
                role,
                disease: disease.map(str::to_owned),
                compound: compound.map(|(name, _)| name.to_owned()),
                dose: compound.map(|(_, dose)| dose),
            },
            fields: 1,
            cell_count: None,
            values,
        });
    }

    fn controls(&mut self, plate: &str, disease: &str, each: usize) {
        for _ in 0..each {
            self.add(plate, Role::Reference, None, None, &[]);
            self.add(plate, Role::Phenotype, Some(disease), None, &[1.0]);
        }
    }
}

fn plain() -> ComparisonSettings {
    ComparisonSettings {
        normalise: Normalise::None,
        ..ComparisonSettings::default()
    }
}

fn row<'r>(
    result: &'r ScreenComparison,
    disease: Option<&str>,
    compound: &str,
    counter: bool,
) -> &'r Comparison {
    result
        .rows
        .iter()
        .find(|row| {
            row.disease.as_deref() == disease
                && row.compound.as_deref() == Some(compound)
                && row.counter_screen == counter
        })
        .unwrap()
}

fn summary<'r>(result: &'r ScreenComparison, compound: &str) -> &'r CompoundSummary {
    result
        .compounds
        .iter()
        .find(|summary| summary.compound.as_deref() == Some(compound))
        .unwrap()
}

/// Feeds the plates as a file would: owned profiles, one plate at a time; counts how often each plate is read.
fn streamed(
    wells: &[WellProfile],
    settings: &ComparisonSettings,
    spool: impl Spool,
) -> Result<(ScreenComparison, Vec<Barcode>), StreamError<Infallible>> {
    let design = Design::of(wells.iter().map(|well| (&well.plate, &well.treatment)))?;
    let mut result = ScreenComparison::default();
    let mut reads = Vec::new();
    let mut read = |plate: &Barcode| -> Result<Vec<WellProfile>, Infallible> {
        reads.push(plate.clone());
        Ok(wells
            .iter()
            .filter(|well| well.plate == *plate)
            .cloned()
            .collect())
    };
    let frame = Frame::fit(&design, settings, &names(), None, &mut read)?;
    stream(&design, settings, &frame, &mut read, spool, &mut result)?;
    Ok((result, reads))
}

/// Twelve plates in pairs of replicates, in an order in which barcodes do not help: the pairs are (0, 6), (1, 7), ...
fn pairs(seed: u64, positive: bool, plates: usize) -> Screen {
    let mut screen = Screen::new(seed);
    for plate in 0..plates {
        let barcode = format!("P{plate:02}");
        screen.controls(&barcode, "D1", 12);
        if positive {
            for _ in 0..2 {
                screen.add(&barcode, Role::Treated, Some("D1"), Some(("known", 1.0)), &[0.9]);
                screen.add(
                    &barcode,
                    Role::Treated,
                    Some("D1"),
                    Some(("nothing", 1.0)),
                    &[1.0],
                );
            }
        }
        let layout = plate % (plates / 2);
        for compound in 0..5 {
            let rescue = if layout == 2 && compound == 3 { 0.1 } else { 1.0 };
            let name = format!("C{layout}-{compound}");
            screen.add(&barcode, Role::Treated, Some("D1"), Some((&name, 1.0)), &[rescue]);
        }
    }
    screen
}

#[test]
fn plate_by_plate_gives_the_same_as_at_once_and_reads_each_plate_once_a_pass() {
    let screen = pairs(1, false, 12);
    // What is fitted over plates takes a pass of its own: the spread of flat columns; components, and their noise.
    for (normalise, align, passes) in [
        (Normalise::None, Align::None, 1),
        (Normalise::Standardise, Align::None, 1),
        (Normalise::RobustMad, Align::None, 2),
        (Normalise::Standardise, Align::Auto, 3),
    ] {
        let settings = ComparisonSettings {
            normalise,
            align,
            ..ComparisonSettings::default()
        };
        let at_once = compare(&screen.wells, &settings).unwrap();
        let (result, reads) =
            streamed(&screen.wells, &settings, Cursor::new(b"what was there".to_vec())).unwrap();
        assert_eq!(
            (&result.rows, &result.compounds),
            (&at_once.rows, &at_once.compounds)
        );
        assert_eq!(result.wells.len(), at_once.wells.len());
        // And one to learn what is usual among the controls, of 16 plates at most.
        assert_eq!(reads.len(), 12 * (passes + 1));
        // Replicates follow each other.
        assert_eq!(
            reads[..4].iter().map(Barcode::as_str).collect::<Vec<_>>(),
            ["P00", "P06", "P01", "P07"]
        );
        assert_eq!(at_once.compounds[0].compound.as_deref(), Some("C2-3"));
    }
}

#[test]
fn what_is_open_at_once_does_not_grow_with_the_screen() {
    let open = |plates: usize| {
        let wells = pairs(2, true, plates).wells;
        Design::of(wells.iter().map(|well| (&well.plate, &well.treatment)))
            .unwrap()
            .most_open()
    };
    // Five compounds of a pair, two on every plate, and the two kinds of controls.
    assert_eq!((open(20), open(40)), (9, 9));
}

#[test]
fn a_control_on_every_plate_is_compared_with_controls_of_all_plates() {
    let plates = WIDEST + 4;
    let result = compare(&pairs(21, true, plates).wells, &plain()).unwrap();
    let known = row(&result, Some("D1"), "known", false);
    assert_eq!((known.n_wells, known.n_plates), (2 * plates, plates));
    assert!((known.rescue.unwrap() - 0.1).abs() < 0.05, "{known:?}");
    // A tenth of the way is the noise of one well: clear in forty wells, and the smallest p of ten thousand draws.
    assert!(known.p_value.unwrap() < 0.001, "{known:?}");
    assert!(known.p_off.unwrap() > 0.01, "{known:?}");
    let nothing = row(&result, Some("D1"), "nothing", false);
    assert!(
        nothing.p_value.unwrap() > 0.01 && nothing.p_off.unwrap() > 0.01,
        "{nothing:?}"
    );
    assert_eq!(nothing.call, Call::Inactive);
    assert!(nothing.excess.unwrap() < 0.1, "{nothing:?}");
}

#[test]
fn a_null_from_the_whole_screen_reaches_smaller_p_values() {
    let screen = pairs(4, false, 12);
    let smallest = |null_from| {
        let settings = ComparisonSettings { null_from, ..plain() };
        row(
            &compare(&screen.wells, &settings).unwrap(),
            Some("D1"),
            "C2-3",
            false,
        )
        .p_value
        .unwrap()
    };
    // Twelve controls on each of two plates: 144 pairs. 144 controls on the screen: 10,296 pairs.
    assert_eq!(smallest(NullFrom::Plates), 1.0 / 145.0);
    assert_eq!(smallest(NullFrom::Screen), 1.0 / 10_297.0);
}

#[test]
fn what_reading_or_writing_fails_with_comes_back_and_a_changed_table_is_refused() {
    let wells = pairs(5, false, 4).wells;
    let design = Design::of(wells.iter().map(|well| (&well.plate, &well.treatment))).unwrap();
    let run = |read: &mut (dyn FnMut(&Barcode) -> Result<Vec<WellProfile>, &'static str> + Send)| {
        let mut result = Tables::default();
        let frame = Frame::default();
        stream(
            &design,
            &plain(),
            &frame,
            read,
            Cursor::new(Vec::new()),
            &mut result,
        )
        .unwrap_err()
    };
    let error = run(&mut |plate| {
        if plate.as_str() == "P02" {
            return Err("the disk is gone");
        }
        Ok(wells
            .iter()
            .filter(|well| well.plate == *plate)
            .cloned()
            .collect())
    });
    assert_eq!(error, StreamError::Caller("the disk is gone"));
    let other = run(&mut |_| Ok(vec![wells[0].clone()]));
    assert!(other.to_string().contains("plate P00 well A01"), "{other}");
    let renamed = run(&mut |plate| {
        let mut wells: Vec<WellProfile> = wells
            .iter()
            .filter(|well| well.plate == *plate)
            .cloned()
            .collect();
        wells[24].treatment.compound = Some("new".to_owned());
        Ok(wells)
    });
    assert!(
        matches!(&renamed, StreamError::Compare(CompareError::Unplanned { .. }))
            && renamed.to_string().contains("B01"),
        "{renamed}"
    );
    // A spool that takes nothing.
    let full = streamed(&wells, &plain(), Cursor::new([0u8; 0].as_mut_slice())).unwrap_err();
    assert!(
        matches!(full, StreamError::Compare(CompareError::Spool { .. })),
        "{full}"
    );
}

/// Tables on a disk that may fail.
#[derive(Default)]
struct Tables(ScreenComparison);

impl wellspring_workloads::compare::Sink for Tables {
    type Error = &'static str;

    fn well(&mut self, score: wellspring_workloads::compare::WellScore) -> Result<(), Self::Error> {
        self.0.wells.push(score);
        Ok(())
    }

    fn window(&mut self, window: wellspring_workloads::compare::AssayWindow) -> Result<(), Self::Error> {
        self.0.windows.push(window);
        Ok(())
    }

    fn row(&mut self, row: Comparison) -> Result<(), Self::Error> {
        self.0.rows.push(row);
        Ok(())
    }

    fn compound(&mut self, summary: CompoundSummary) -> Result<(), Self::Error> {
        self.0.compounds.push(summary);
        Ok(())
    }

    fn note(&mut self, note: wellspring_workloads::compare::Note) -> Result<(), Self::Error> {
        self.0.notes.push(note);
        Ok(())
    }
}

/// Two plates with reference wells only, an active compound, a killer and ten that do nothing.
fn activity_screen(seed: u64) -> Screen {
    let mut screen = Screen::new(seed);
    for plate in ["A1", "A2"] {
        for _ in 0..24 {
            screen.add(plate, Role::Reference, None, Some(("DMSO", 0.0)), &[]);
        }
        screen.add(
            plate,
            Role::Treated,
            None,
            Some(("active", 5.0)),
            &[0.0, 0.5, 0.5],
        );
        screen.add(
            plate,
            Role::Treated,
            None,
            Some(("killer", 5.0)),
            &[0.0, 0.0, 1.0],
        );
        for i in 0..10 {
            screen.add(plate, Role::Treated, None, Some((&format!("none{i}"), 5.0)), &[]);
        }
    }
    for well in &mut screen.wells {
        let killed = well.treatment.compound.as_deref() == Some("killer");
        well.cell_count = Some(if killed { 50.0 } else { 1000.0 });
    }
    screen
}

#[test]
fn a_screen_with_reference_wells_only_is_asked_for_activity() {
    let screen = activity_screen(6);
    let settings = ComparisonSettings {
        question: Question::Activity,
        ..plain()
    };
    let result = compare(&screen.wells, &settings).unwrap();
    let active = row(&result, None, "active", false);
    assert_eq!(
        (active.on_axis, active.rescue, active.direction_cosine),
        (None, None, None)
    );
    assert_eq!(active.call, Call::Active);
    assert!(
        active.distance > 1.5 && active.q_value.unwrap() < 0.05,
        "{active:?}"
    );
    assert_eq!(summary(&result, "active").call, Call::Active);
    assert_eq!(summary(&result, "killer").call, Call::Toxic);
    for i in 0..10 {
        let name = format!("none{i}");
        assert_eq!(summary(&result, &name).call, Call::Inactive, "{name}");
        // A mean of two wells lies nearer to the reference than one well.
        assert!(row(&result, None, &name, false).distance < 1.2);
    }
    assert!(result.windows.iter().all(|window| window.z_prime.is_none()));
    let reference = row(&result, None, "DMSO", false);
    assert_eq!(reference.call, Call::Reference);
    assert!((reference.distance - 1.0).abs() < 0.2, "{reference:?}");

    // The same wells asked for rescue say why they cannot be.
    let error = compare(&screen.wells, &plain()).unwrap_err();
    assert!(
        matches!(&error, CompareError::NothingScored { notes } if notes[0].kind == NoteKind::NoPhenotype),
        "{error}"
    );
}

#[test]
fn one_reference_well_has_no_unit_of_distance_and_says_so() {
    let mut wells = activity_screen(7).wells;
    let mut seen = 0;
    wells.retain(|well| {
        seen += usize::from(well.treatment.role == Role::Reference && well.plate.as_str() == "A1");
        well.treatment.role != Role::Reference || well.plate.as_str() != "A1" || seen == 1
    });
    let settings = ComparisonSettings {
        question: Question::Activity,
        ..plain()
    };
    let result = compare(&wells, &settings).unwrap();
    let note = result
        .notes
        .iter()
        .find(|note| note.kind == NoteKind::NoAxis)
        .unwrap();
    assert!(note.text.contains("plate A1"), "{}", note.text);
    assert!(result.rows.iter().all(|row| row.n_plates == 1));
}

#[test]
fn a_compound_that_rescues_one_disease_only_is_specific_and_a_mimic_is_found_on_healthy_cells() {
    let mut screen = Screen::new(8);
    for plate in ["M1", "M2"] {
        for _ in 0..16 {
            screen.add(plate, Role::Reference, None, None, &[]);
            screen.add(plate, Role::Phenotype, Some("D1"), None, &[1.0]);
            screen.add(plate, Role::Phenotype, Some("D2"), None, &[0.0, 1.0]);
        }
        let treated = Role::Treated;
        screen.add(plate, treated, Some("D1"), Some(("specific", 1.0)), &[0.1]);
        screen.add(plate, treated, Some("D2"), Some(("specific", 1.0)), &[0.0, 1.0]);
        screen.add(plate, treated, Some("D1"), Some(("broad", 1.0)), &[0.1]);
        screen.add(plate, treated, Some("D2"), Some(("broad", 1.0)), &[0.0, 0.1]);
        screen.add(plate, treated, Some("D1"), Some(("alone", 1.0)), &[0.5]);
        // On healthy cells: no disease.
        screen.add(plate, treated, None, Some(("specific", 1.0)), &[]);
        screen.add(plate, treated, None, Some(("mimic", 1.0)), &[0.0, 0.8]);
    }
    let result = compare(&screen.wells, &plain()).unwrap();
    let specificity = |disease, compound| row(&result, Some(disease), compound, false).specificity;
    assert!((specificity("D1", "specific").unwrap() - 0.9).abs() < 0.25);
    assert!((specificity("D2", "specific").unwrap() + 0.9).abs() < 0.25);
    assert!(specificity("D1", "broad").unwrap().abs() < 0.25);
    assert_eq!(specificity("D1", "alone"), None);
    let counter = |disease, compound| row(&result, Some(disease), compound, true);
    assert_eq!(
        counter("D2", "mimic").call,
        Call::Mimic,
        "{:?}",
        counter("D2", "mimic")
    );
    assert!(counter("D2", "mimic").direction_cosine.unwrap() > 0.8);
    assert_ne!(counter("D1", "mimic").call, Call::Mimic);
    assert_eq!(counter("D1", "specific").call, Call::Inactive);
    // Healthy wells with a compound are no disease of their own.
    assert!(
        result.notes.iter().all(|note| note.kind != NoteKind::NoPhenotype),
        "{:?}",
        result.notes
    );
    assert!(result.rows.iter().all(|row| row.disease.is_some()));
}

#[test]
fn one_thread_and_many_give_the_same_bytes() {
    let wells = pairs(9, true, WIDEST + 2).wells;
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let result = pool
            .install(|| compare(&wells, &ComparisonSettings::default()))
            .unwrap();
        serde_json::to_string(&result).unwrap()
    };
    let alone = run(1);
    assert!(alone == run(2) && alone == run(5));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the unit of a feature, and whatever lost its spread, no score is large beyond reason.
    #[test]
    fn no_scale_of_features_blows_scores_up(
        seed in 0u64..1000,
        exponents in prop::collection::vec(-30i32..=30, WIDTH),
        flat in 1usize..WIDTH,
        robust in any::<bool>(),
    ) {
        const LARGEST: f64 = 1e4;
        let mut wells = pairs(seed, false, 4).wells;
        for well in &mut wells {
            for (value, exponent) in well.values.iter_mut().zip(&exponents) {
                *value = (f64::from(*value) * 10f64.powi(*exponent)) as f32;
            }
            if well.treatment.role == Role::Reference {
                well.values[flat] = 10f32.powi(exponents[flat]);
            }
        }
        let normalise = if robust { Normalise::RobustMad } else { Normalise::Standardise };
        for normalise in [normalise, Normalise::None] {
            let settings = ComparisonSettings { normalise, ..ComparisonSettings::default() };
            let Ok(result) = compare(&wells, &settings) else {
                // Without scaling one huge feature may hide the axis from rounding; that is said, not scored.
                prop_assert_eq!(normalise, Normalise::None);
                continue;
            };
            // Without scaling the axis is that of the largest feature, and as short as chance makes the difference of two
            // means of its noise.
            let largest = if normalise == Normalise::None { f64::MAX } else { LARGEST };
            for well in &result.wells {
                let scores = [well.on_axis.unwrap(), well.off_axis];
                prop_assert!(scores.iter().all(|score| score.abs() < largest), "{:?}", well);
            }
            for row in &result.rows {
                prop_assert!(row.off_axis < largest && row.distance < largest, "{:?}", row);
            }
        }
    }
}
