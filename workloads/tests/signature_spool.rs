//! The disease matrix of effects that wait in a spool: the same bytes as of effects in memory, and errors where the
//! spool fails.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

use std::io::{Cursor, ErrorKind, Read, Seek, SeekFrom, Write};

use wellspring_workloads::compare::Spool;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::signature::{
    SignatureColumn, SignatureError, SignatureGatherer, SignatureScreen, SignatureSettings, score,
};
use wellspring_workloads::words::WellPosition;

/// More than one block of signatures, of effects, and of values that are held at a time.
const DISEASES: usize = 35;
const COMPOUNDS: usize = 1100;
const WIDTH: usize = 2048;
const CONTROLS: usize = 3;

fn settings(held_bytes: usize) -> SignatureSettings {
    SignatureSettings {
        held_bytes,
        exact_combinations: 100,
        draws: 20,
        ..SignatureSettings::default()
    }
}

/// A plate for each disease. Every compound lies on two plates that do not follow each other, one lies on all.
fn gather<S: Spool>(
    settings: &SignatureSettings,
    spool: S,
    width: usize,
) -> Result<SignatureScreen<S>, SignatureError> {
    gather_settling(settings, spool, width, |_, _| false)
}

/// As [`gather`], and says of a compound after each of its plates whether it is complete.
fn gather_settling<S: Spool>(
    settings: &SignatureSettings,
    spool: S,
    width: usize,
    complete: impl Fn(usize, usize) -> bool,
) -> Result<SignatureScreen<S>, SignatureError> {
    let mut gatherer = SignatureGatherer::new(settings, spool)?;
    let mut state = 7u64;
    for plate in 0..DISEASES {
        let disease = format!("d{plate:02}");
        let well = |role, disease: &str, compound: Option<String>| Treatment {
            role,
            disease: (!disease.is_empty()).then(|| disease.to_owned()),
            compound,
            dose: None,
        };
        let mut treatments = Vec::new();
        for _ in 0..CONTROLS {
            treatments.push(well(Role::Reference, "", None));
            treatments.push(well(Role::Phenotype, &disease, None));
        }
        // Without a disease: from healthy cells, one effect over all plates.
        let compounds = (0..COMPOUNDS)
            .filter(|c| c % DISEASES == plate || (c + 11) % DISEASES == plate)
            .map(|c| format!("c{c}"));
        for compound in compounds.chain(["control".to_owned()]) {
            treatments.push(well(Role::Treated, "", Some(compound)));
        }
        let mut rows = FeatureMatrix::zeros(treatments.len(), width);
        for i in 0..treatments.len() {
            for value in rows.row_mut(i) {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *value = (state >> 40) as f32 / 16_777_216.0 - 0.5;
            }
        }
        let wells: Vec<(WellPosition, &Treatment)> = (0u8..)
            .zip(&treatments)
            .map(|(i, treatment)| (WellPosition::new(i / 24 + 1, i % 24 + 1).unwrap(), treatment))
            .collect();
        gatherer.plate(&format!("p{plate:02}").parse().unwrap(), &wells, &rows)?;
        for compound in (0..COMPOUNDS).filter(|&compound| complete(compound, plate)) {
            gatherer.settle(Some(&format!("c{compound}")), None)?;
        }
    }
    gatherer.finish()
}

/// All scores: five columns of each signature, one after the other.
fn scores<S: Spool>(
    screen: &mut SignatureScreen<S>,
    settings: &SignatureSettings,
) -> Result<Vec<f64>, SignatureError> {
    let mut scores: Vec<[Vec<f64>; 5]> = Vec::new();
    score(screen, settings, |c: &SignatureColumn| {
        if c.effects.start == 0 {
            assert_eq!(c.signature, scores.len());
            scores.push(Default::default());
        }
        let columns = [&c.cosine, &c.rescue, &c.off_axis, &c.p_rescue, &c.q_reversal];
        for (all, block) in scores.last_mut().unwrap().iter_mut().zip(columns) {
            assert_eq!((all.len(), block.len()), (c.effects.start, c.effects.len()));
            all.extend(block);
        }
        Ok::<(), SignatureError>(())
    })?;
    Ok(scores.into_iter().flatten().flatten().collect())
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn effects_that_wait_in_the_spool_give_the_same_bytes_as_effects_in_memory() {
    let (all, none) = (settings(usize::MAX), settings(0));
    let mut held = gather(&all, Cursor::new(Vec::new()), WIDTH).unwrap();
    // What the spool holds already stays.
    let mut aside = gather(&none, Cursor::new(vec![7u8; 5]), WIDTH).unwrap();
    assert_eq!(held.effects.len(), COMPOUNDS + 1);
    assert_eq!(held.effects, aside.effects);
    let effects = held.effect_vectors.read(0..COMPOUNDS + 1).unwrap();
    let again = aside.effect_vectors.read(0..usize::MAX).unwrap();
    assert_eq!(bits(effects.as_slice()), bits(again.as_slice()));
    let found = scores(&mut held, &all).unwrap();
    assert_eq!(bits(&found), bits(&scores(&mut aside, &none).unwrap()));
    assert_eq!(bits(&found), bits(&scores(&mut aside, &none).unwrap()), "twice");

    // Every product is that of its own effect and signature.
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    for (k, column) in found.chunks(5 * effects.len()).enumerate() {
        let v = held.signature_vectors.row(k);
        for g in (0..effects.len()).step_by(61) {
            let e = effects.row(g);
            let cosine = dot(e, v) / (dot(e, e) * dot(v, v)).sqrt();
            assert!((column[g] - cosine).abs() < 1e-10, "effect {g}, signature {k}");
        }
    }
}

#[test]
fn effects_scored_block_by_block_get_the_same_bytes() {
    let settings = settings(usize::MAX);
    let mut screen = gather(&settings, Cursor::new(Vec::new()), 64).unwrap();
    let together = scores(&mut screen, &settings).unwrap();
    for effects_at_once in [1, 300, 1024] {
        let settings = SignatureSettings {
            effects_at_once,
            ..settings
        };
        let apart = scores(&mut screen, &settings).unwrap();
        // Products of other parts of the effects may be added up in another order.
        for (a, b) in together.iter().zip(&apart) {
            let same = (a - b).abs() <= 1e-12 * (1.0 + a.abs()) || a.is_nan() && b.is_nan();
            assert!(same, "{effects_at_once}: {a} {b}");
        }
        assert_eq!(bits(&apart), bits(&scores(&mut screen, &settings).unwrap()));
    }
}

#[test]
fn complete_effects_are_the_same_and_late_wells_count() {
    let settings = settings(0);
    let spool = || Cursor::new(Vec::new());
    let plain = gather(&settings, spool(), 16).unwrap();
    let last = |compound: usize| {
        let on = |plate: &usize| compound % DISEASES == *plate || (compound + 11) % DISEASES == *plate;
        (0..DISEASES).filter(on).max().unwrap()
    };
    let right = gather_settling(&settings, spool(), 16, |compound, plate| plate == last(compound));
    let mut right = right.unwrap();
    assert_eq!(right.effects, plain.effects);
    // After every plate: each next one opens it again.
    let mut early = gather_settling(&settings, spool(), 16, |_, _| true).unwrap();
    assert_eq!(early.effects.len(), plain.effects.len());
    for (early, plain) in early.effects.iter().zip(plain.effects.iter()) {
        assert_eq!((early.wells, early.plates), (plain.wells, plain.plates));
        assert!((early.length - plain.length).abs() < 1e-12);
    }
    let mut plain = plain;
    let of = |screen: &mut SignatureScreen<_>| screen.effect_vectors.read(0..usize::MAX).unwrap();
    let (plain, right, early) = (of(&mut plain), of(&mut right), of(&mut early));
    assert_eq!(bits(plain.as_slice()), bits(right.as_slice()));
    for (a, b) in plain.as_slice().iter().zip(early.as_slice()) {
        assert!((a - b).abs() < 1e-12);
    }
}

/// Memory with little room, like a disk.
#[derive(Debug)]
struct Small {
    bytes: Cursor<Vec<u8>>,
    room: usize,
}

impl Read for Small {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.bytes.read(into)
    }
}

impl Seek for Small {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.bytes.seek(to)
    }
}

impl Write for Small {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.position() as usize + bytes.len() > self.room {
            return Err(ErrorKind::StorageFull.into());
        }
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_spool_without_room_is_an_error_that_says_so() {
    const NARROW: usize = 8;
    let sums = (COMPOUNDS + 1) * NARROW * size_of::<f64>();
    // What each is of.
    let keys = (COMPOUNDS + 1) * 4 * size_of::<u64>();
    let small = |room: usize| Small {
        bytes: Cursor::new(Vec::new()),
        room,
    };
    let full = |error: Option<SignatureError>| {
        let error = error.unwrap();
        let kind = ErrorKind::StorageFull;
        assert!(
            matches!(&error, SignatureError::Spool { kind: of, .. } if *of == kind),
            "{error}"
        );
        assert!(error.to_string().contains(&kind.to_string()), "{error}");
    };
    // While gathering, for what is complete, for the means, and for the products.
    full(gather(&settings(0), small(sums - 1), NARROW).err());
    full(gather(&settings(0), small(sums + keys - 1), NARROW).err());
    full(gather(&settings(0), small(2 * sums + keys - 1), NARROW).err());
    let mut screen = gather(&settings(0), small(2 * sums + keys), NARROW).unwrap();
    full(scores(&mut screen, &settings(0)).err());
}
