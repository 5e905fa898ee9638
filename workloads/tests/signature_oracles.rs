//! Disease signatures and the disease matrix: against reference outputs in `../shared/oracles`, and on screens whose
//! answer is known.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/oracles.rs"]
mod files;

use std::collections::BTreeMap;
use std::io::Cursor;

use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::signature::{
    Origin, RankBy, SignatureColumn, SignatureError, SignatureGatherer, SignatureScreen, SignatureSettings,
    Specificity, TopMatches, Vectors, score, vectors,
};
use wellspring_workloads::words::WellPosition;

type Screen = SignatureScreen<Cursor<Vec<u8>>>;

/// f64 sums of the same f32 inputs, in another order.
const EXACT: f64 = 1e-10;

fn gather(profiles: &[WellProfile], settings: &SignatureSettings) -> Screen {
    let mut plates: BTreeMap<_, Vec<&WellProfile>> = BTreeMap::new();
    for profile in profiles {
        plates.entry(&profile.plate).or_default().push(profile);
    }
    let mut gatherer = SignatureGatherer::new(settings, Cursor::default()).unwrap();
    for (plate, wells) in plates {
        let treatments: Vec<(WellPosition, &Treatment)> =
            wells.iter().map(|well| (well.well, &well.treatment)).collect();
        let width = wells[0].values.len();
        let rows = FeatureMatrix::from_rows(width, wells.iter().map(|well| well.values.as_slice())).unwrap();
        gatherer.plate(plate, &treatments, &rows).unwrap();
    }
    gatherer.finish().unwrap()
}

/// All columns, copied.
fn columns(screen: &mut Screen, settings: &SignatureSettings) -> Vec<[Vec<f64>; 9]> {
    let mut columns = Vec::new();
    score(screen, settings, |c: &SignatureColumn| {
        assert_eq!(c.signature, columns.len());
        columns.push([
            c.cosine.clone(),
            c.rescue.clone(),
            c.off_axis.clone(),
            c.p_reversal.clone(),
            c.q_reversal.clone(),
            c.p_mimic.clone(),
            c.q_mimic.clone(),
            c.p_rescue.clone(),
            c.q_rescue.clone(),
        ]);
        Ok::<(), SignatureError>(())
    })
    .unwrap();
    columns
}

#[test]
fn signatures_effects_and_cosines_equal_cosine_vectors_and_cosine_matrix() {
    let (Some(profiles), Some(rows), Some(vectors), Some(cosines)) = (
        files::screen("efaar_tvn.npy"),
        files::table("cosine_rows.csv"),
        files::matrix("cosine_vectors.npy"),
        files::matrix("cosine_matrix.npy"),
    ) else {
        return;
    };
    let mut given = Vectors::new(vectors[0].len());
    vectors.iter().for_each(|row| given.push(row).unwrap());
    for (ours, reference) in vectors::cosines(&given, &given)
        .iter()
        .zip(cosines.iter().flatten())
    {
        files::close(*ours, *reference, EXACT, "cosine matrix");
    }
    let settings = SignatureSettings::default();
    let mut screen = gather(&profiles, &settings);
    let columns = columns(&mut screen, &settings);
    let effects = screen.effect_vectors.read(0..screen.effects.len()).unwrap();
    let close = |ours: &[f64], reference: &[f64], what: &str| {
        for (ours, reference) in ours.iter().zip(reference) {
            files::close(*ours, *reference, EXACT, what);
        }
    };
    let mut compared = 0;
    let signature_of = |disease: &str| {
        screen
            .signatures
            .iter()
            .position(|s| s.disease.as_deref() == Some(disease))
            .unwrap()
    };
    for (i, row) in rows.iter().enumerate() {
        if row["kind"] == "sig" {
            let k = signature_of(&row["disease"]);
            close(screen.signature_vectors.row(k), &vectors[i], "signature");
            continue;
        }
        let g = screen
            .effects
            .iter()
            .position(|effect| {
                effect.compound == Some(row["compound"].as_str())
                    && effect.dose == Some(10.0)
                    && *effect.origin == Origin::Disease(Some(row["disease"].clone()))
            })
            .unwrap();
        let effect = screen.effects.get(g).unwrap();
        assert_eq!((effect.wells, effect.plates), (2, 2));
        close(effects.row(g), &vectors[i], "effect");
        for (j, other) in rows
            .iter()
            .enumerate()
            .filter(|(_, other)| other["kind"] == "sig")
        {
            let k = signature_of(&other["disease"]);
            files::close(columns[k][0][g], cosines[i][j], EXACT, "cosine");
            compared += 1;
        }
    }
    assert_eq!(compared, 360);
}

#[test]
fn own_rescue_and_off_axis_follow_their_formulas_on_the_oracle_screen() {
    let Some(profiles) = files::screen("efaar_tvn.npy") else {
        return;
    };
    let settings = SignatureSettings::default();
    let mut screen = gather(&profiles, &settings);
    let columns = columns(&mut screen, &settings);
    let effects = screen.effect_vectors.read(0..screen.effects.len()).unwrap();
    for (k, column) in columns.iter().enumerate() {
        let v = screen.signature_vectors.row(k);
        let vv: f64 = v.iter().map(|x| x * x).sum();
        for (g, e) in effects.rows().enumerate() {
            let along: f64 = e.iter().zip(v).map(|(e, v)| e * v).sum::<f64>() / vv;
            let beside: f64 = e.iter().zip(v).map(|(e, v)| (e - along * v).powi(2)).sum();
            files::close(column[1][g], -along, EXACT, "rescue");
            files::close(column[2][g], (beside / vv).sqrt(), EXACT, "off axis");
        }
    }
}

/// SplitMix64, twelve uniform numbers to a nearly normal one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn normal(&mut self) -> f64 {
        (0..12)
            .map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64)
            .sum::<f64>()
            - 6.0
    }

    fn vector(&mut self, width: usize, size: f64) -> Vec<f64> {
        (0..width).map(|_| size * self.normal()).collect()
    }
}

const WIDTH: usize = 24;
const DISEASES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A screen of three diseases, two plates each, with `controls` wells on each side, `inactive` compounds that do nothing, and on each
/// disease `cure`, which brings it half the way back, and `other`, which leads towards the next disease. The last
/// plates' worth of compounds is given to healthy cells as well: `mimic` makes them ill with `beta`.
fn screen(controls: usize, inactive: usize) -> Vec<WellProfile> {
    let mut random = Random(5);
    let axes: Vec<Vec<f64>> = DISEASES.iter().map(|_| random.vector(WIDTH, 1.5)).collect();
    let mut profiles = Vec::new();
    for (k, disease) in DISEASES.iter().enumerate() {
        for replicate in 1..=2 {
            let shift = random.vector(WIDTH, 0.5);
            let mut index = 0u16;
            let mut well = |role, disease: Option<&str>, compound: Option<String>, mean: Vec<f64>| {
                let position = WellPosition::new((index / 48 + 1) as u8, (index % 48 + 1) as u8).unwrap();
                index += 1;
                let values = mean
                    .iter()
                    .zip(&shift)
                    .map(|(m, s)| (m + s + random.normal()) as f32);
                profiles.push(WellProfile {
                    plate: format!("{}-{replicate}", DISEASES[k]).parse().unwrap(),
                    well: position,
                    treatment: Treatment {
                        role,
                        disease: disease.map(str::to_owned),
                        dose: compound.is_some().then_some(1.0),
                        compound,
                    },
                    fields: 1,
                    cell_count: None,
                    values: values.collect(),
                });
            };
            let zero = vec![0.0; WIDTH];
            let along = |k: usize, size: f64| -> Vec<f64> { axes[k].iter().map(|a| a * size).collect() };
            let sum =
                |a: Vec<f64>, b: Vec<f64>| -> Vec<f64> { a.iter().zip(&b).map(|(a, b)| a + b).collect() };
            for _ in 0..controls {
                well(Role::Reference, None, None, zero.clone());
                well(Role::Phenotype, Some(disease), None, along(k, 1.0));
            }
            for i in 0..inactive {
                well(
                    Role::Treated,
                    Some(disease),
                    Some(format!("inactive-{i}")),
                    along(k, 1.0),
                );
            }
            let cure = along(k, 0.2);
            well(Role::Treated, Some(disease), Some("cure".to_owned()), cure);
            let other = sum(along(k, 1.0), along((k + 1) % 3, 0.9));
            well(Role::Treated, Some(disease), Some("other".to_owned()), other);
            well(Role::Treated, None, Some("mimic".to_owned()), along(1, 0.9));
        }
    }
    profiles
}

fn find(screen: &Screen, compound: &str, origin: &Origin) -> usize {
    screen
        .effects
        .iter()
        .position(|effect| effect.compound == Some(compound) && effect.origin == origin)
        .unwrap()
}

fn disease(name: &str) -> Origin {
    Origin::Disease(Some(name.to_owned()))
}

#[test]
fn reversal_mimicry_and_rescue_are_found_and_belong_to_the_right_disease() {
    let settings = SignatureSettings::default();
    let mut screen = gather(&screen(48, 60), &settings);
    let columns = columns(&mut screen, &settings);
    assert_eq!(screen.left_out, []);
    for (k, name) in DISEASES.iter().enumerate() {
        let [cosine, rescue, _, _, q_reversal, _, q_mimic, _, q_rescue] = &columns[k];
        let cure = find(&screen, "cure", &disease(name));
        assert!(q_reversal[cure] < 0.01 && q_rescue[cure] < 0.01 && q_mimic[cure] > 0.5);
        assert!((0.5..1.1).contains(&rescue[cure]), "{}", rescue[cure]);
        let other = find(&screen, "other", &disease(DISEASES[(k + 2) % 3]));
        assert!(q_mimic[other] < 0.01 && cosine[other] > 0.5, "{name}");
        let mimic = find(&screen, "mimic", &Origin::Healthy);
        assert_eq!(q_mimic[mimic] < 0.01, *name == "beta");
        let mimic = screen.effects.get(mimic).unwrap();
        assert_eq!((mimic.wells, mimic.plates), (6, 6));
    }
    let mut top = TopMatches::new(&screen.effects, RankBy::Reversal, 3);
    score(&mut screen, &settings, |column: &SignatureColumn| {
        top.take(column);
        Ok::<(), SignatureError>(())
    })
    .unwrap();
    let mut specificity = Specificity::new(&screen);
    score(&mut screen, &settings, |column: &SignatureColumn| {
        specificity.take(column);
        Ok::<(), SignatureError>(())
    })
    .unwrap();
    let (furthest, compounds) = specificity.furthest(2);
    let name = |effect: usize| screen.effects.get(effect).unwrap().compound;
    assert_eq!((name(furthest[0]), furthest.len()), (Some("cure"), 2));
    assert_ne!(name(furthest[1]), Some("cure"));
    let names: std::collections::BTreeSet<_> = screen.effects.iter().map(|effect| effect.compound).collect();
    assert_eq!(compounds, names.len());
    let best_of = |compound: Option<&str>| {
        let of = screen
            .effects
            .iter()
            .enumerate()
            .filter(|(_, effect)| effect.compound == compound);
        of.map(|(at, _)| {
            columns
                .iter()
                .map(|column| column[1][at])
                .fold(f64::NAN, f64::max)
        })
        .fold(f64::NAN, f64::max)
    };
    let rescue = |at: usize| {
        columns
            .iter()
            .map(|column| column[1][at])
            .fold(f64::NAN, f64::max)
    };
    let mut expected: Vec<f64> = names.iter().map(|&name| best_of(name)).collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    assert_eq!([rescue(furthest[0]), rescue(furthest[1])], expected[..2]);
    for (k, list) in top.diseases().iter().enumerate() {
        let best = screen.effects.get(list[0].effect).unwrap();
        assert_eq!(best.compound, Some("cure"));
        assert_eq!(*best.origin, disease(DISEASES[k]));
        assert_eq!(list.len(), 3);
    }
}

/// The origin of an effect is part of its own disease's signature, which pulls their cosine to one side by chance.
#[test]
fn inactive_compounds_have_even_p_values_against_every_signature() {
    const EXPECTED: f64 = 0.05;
    // 3.6 standard errors of 1000 independent p-values. These are not independent (the compounds of a plate share an
    // origin), and the null of 32 control wells is itself uncertain: 0.067 and 0.071 of the own disease's p-values are
    // below 0.05. With the signature's own part left out it is 0.136, which this must tell apart.
    const WITHIN: f64 = 0.025;
    const MODELS: usize = 40;
    const COMPOUNDS: usize = 25;
    let mut random = Random(5);
    let names: Vec<String> = (0..MODELS).map(|k| format!("model-{k:02}")).collect();
    let mut profiles = Vec::new();
    for name in &names {
        let axis = random.vector(WIDTH, 0.4);
        for replicate in 0..4 {
            for (row, role) in [Role::Reference, Role::Phenotype, Role::Treated]
                .into_iter()
                .enumerate()
            {
                // A compound lies on two of the four plates.
                let wells = if role == Role::Treated { COMPOUNDS } else { 8 };
                for i in (0..wells).filter(|i| role != Role::Treated || i % 2 == replicate / 2) {
                    let ill = f64::from(u8::from(role != Role::Reference));
                    let values = axis.iter().map(|a| (ill * a + random.normal()) as f32).collect();
                    profiles.push(WellProfile {
                        plate: format!("{name}-{replicate}").parse().unwrap(),
                        well: WellPosition::new(row as u8 + 1, i as u8 + 1).unwrap(),
                        treatment: Treatment {
                            role,
                            disease: (role != Role::Reference).then(|| name.clone()),
                            compound: (role == Role::Treated).then(|| format!("inactive-{i}")),
                            dose: None,
                        },
                        fields: 1,
                        cell_count: None,
                        values,
                    });
                }
            }
        }
    }
    let settings = SignatureSettings::default();
    let mut screen = gather(&profiles, &settings);
    let columns = columns(&mut screen, &settings);
    for own in [true, false] {
        let (mut rescue, mut mimic, mut all) = (0.0, 0.0, 0.0);
        for (k, name) in names.iter().enumerate() {
            for (g, effect) in screen.effects.iter().enumerate() {
                if (*effect.origin == disease(name)) == own {
                    all += 1.0;
                    rescue += f64::from(u8::from(columns[k][7][g] < EXPECTED));
                    mimic += f64::from(u8::from(columns[k][5][g] < EXPECTED));
                }
            }
        }
        for (what, count) in [("rescue", rescue), ("mimic", mimic)] {
            let share = count / all;
            println!("own {own}, {what}: {share:.4} of {all}");
            assert!((share - EXPECTED).abs() < WITHIN, "own {own}, {what}: {share}");
        }
    }
}

#[test]
fn the_same_bytes_on_any_number_of_threads_and_for_any_order_of_wells() {
    let settings = SignatureSettings {
        exact_combinations: 100,
        draws: 2000,
        pool_wells: 40,
        ..SignatureSettings::default()
    };
    let mut profiles = screen(24, 5);
    let bits = |profiles: &[WellProfile], threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let columns = pool.install(|| columns(&mut gather(profiles, &settings), &settings));
        let bits = |column: &[Vec<f64>; 9]| -> Vec<u64> {
            column.iter().flatten().map(|value| value.to_bits()).collect()
        };
        columns.iter().map(bits).collect::<Vec<_>>()
    };
    let one = bits(&profiles, 1);
    assert_eq!(one, bits(&profiles, 3));
    profiles.reverse();
    assert_eq!(one, bits(&profiles, 2));
    let other = SignatureSettings { seed: 9, ..settings };
    assert_ne!(
        columns(&mut gather(&profiles, &other), &other)[0][3]
            .iter()
            .sum::<f64>(),
        0.0
    );
}

#[test]
fn scores_do_not_change_with_a_rotation_or_a_constant_on_a_plate() {
    // f32 storage of rotated features.
    const ROUNDING: f64 = 1e-5;
    let settings = SignatureSettings::default();
    let profiles = screen(12, 3);
    let plain = columns(&mut gather(&profiles, &settings), &settings);
    let axis = Random(77).vector(WIDTH, 1.0);
    let square: f64 = axis.iter().map(|a| a * a).sum();
    let mut moved = profiles;
    for profile in &mut moved {
        // A reflection on a plane, and the same constant for all wells of a plate.
        let along: f64 = axis
            .iter()
            .zip(&profile.values)
            .map(|(a, &v)| a * f64::from(v))
            .sum();
        let constant = f64::from(profile.plate.as_str().len() as u32);
        for (value, a) in profile.values.iter_mut().zip(&axis) {
            *value = (f64::from(*value) - 2.0 * a * along / square + constant) as f32;
        }
    }
    let turned = columns(&mut gather(&moved, &settings), &settings);
    for (plain, turned) in plain.iter().zip(&turned) {
        for which in 0..3 {
            for (a, b) in plain[which].iter().zip(&turned[which]) {
                assert!((a - b).abs() < ROUNDING, "column {which}: {a} {b}");
            }
        }
    }
}

#[test]
fn what_cannot_be_scored_is_named_and_nothing_is_made_up() {
    let settings = SignatureSettings::default();
    let mut profiles = screen(3, 1);
    // A plate that lost its disease controls, and a compound that equals its origin exactly.
    profiles.retain(|p| p.plate.as_str() != "gamma-2" || p.treatment.role != Role::Phenotype);
    for profile in &mut profiles {
        if profile.plate.as_str().starts_with("alpha") {
            profile.values.fill(0.0);
        }
    }
    let mut screen = gather(&profiles, &settings);
    assert_eq!(screen.left_out.len(), 1);
    assert_eq!(
        (screen.left_out[0].plate.as_str(), screen.left_out[0].wells),
        ("gamma-2", 3)
    );
    assert!(
        screen.left_out[0]
            .reason
            .contains("no phenotype well of disease gamma")
    );
    let columns = columns(&mut screen, &settings);
    // alpha has no axis: nothing has a score there, and its effects, all zero, have none anywhere.
    assert!(columns[0].iter().flatten().all(|value| value.is_nan()));
    let zero = find(&screen, "cure", &disease("alpha"));
    assert!(columns[1][0][zero].is_nan() && columns[1][3][zero].is_nan());
    let fine = find(&screen, "cure", &disease("beta"));
    assert!(columns[1][0][fine].is_finite() && columns[1][4][fine].is_finite());
}

#[test]
fn contradictions_are_errors_that_name_the_place() {
    let profiles = screen(2, 0);
    let plate: Vec<&WellProfile> = profiles.iter().filter(|p| p.plate.as_str() == "beta-1").collect();
    let wells: Vec<(WellPosition, &Treatment)> = plate.iter().map(|p| (p.well, &p.treatment)).collect();
    let rows = FeatureMatrix::from_rows(WIDTH, plate.iter().map(|p| p.values.as_slice())).unwrap();
    let name = &plate[0].plate;
    let new = || SignatureGatherer::new(&SignatureSettings::default(), Cursor::new(Vec::new())).unwrap();

    let mut gatherer = new();
    gatherer.plate(name, &wells, &rows).unwrap();
    assert!(matches!(
        gatherer.plate(name, &wells, &rows),
        Err(SignatureError::PlateTwice { .. })
    ));
    let narrow = FeatureMatrix::zeros(wells.len(), 3);
    let error = gatherer
        .plate(&"x".parse().unwrap(), &wells, &narrow)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("plate x has 3 feature columns where 24"),
        "{error}"
    );
    assert!(matches!(
        new().plate(name, &wells[1..], &rows),
        Err(SignatureError::Rows { .. })
    ));
    let mut broken = rows.clone();
    broken.row_mut(4)[7] = f32::NAN;
    let error = new().plate(name, &wells, &broken).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("plate beta-1 well {} feature column 7", wells[4].0)),
        "{error}"
    );
    assert!(matches!(new().finish(), Err(SignatureError::NoSignature)));
    let none = SignatureSettings {
        draws: 0,
        ..SignatureSettings::default()
    };
    assert!(matches!(
        SignatureGatherer::new(&none, Cursor::new(Vec::new())),
        Err(SignatureError::Setting { .. })
    ));
}
