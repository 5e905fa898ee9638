//! The generator of simulated plates: layout, names, tables, determinism and refusals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};

use wellspring_workloads::simulate::{
    Artefacts, CompoundClass, CompoundSettings, DiseaseModel, GeneratedCompounds, SimulateError, Simulation,
    SimulationSettings, Stain,
};
use wellspring_workloads::words::{FieldId, WellPosition};

/// Small images, so that many can be drawn.
fn small() -> SimulationSettings {
    SimulationSettings {
        wells: 96,
        fields: 2,
        height: 96,
        width: 128,
        cells_per_field: 5.0,
        cell_diameter: 40.0,
        generated: GeneratedCompounds {
            rescue: 1,
            toxic: 1,
            inactive: 4,
        },
        healthy_wells: 16,
        disease_wells: 16,
        doses: vec![1.0, 10.0],
        plates: 2,
        replicates: 2,
        ..SimulationSettings::demo()
    }
}

fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    reader.deserialize().map(|row| row.unwrap()).collect()
}

#[test]
fn the_demonstration_has_controls_all_over_each_plate_and_one_replicate_on_each() {
    let simulation = Simulation::new(SimulationSettings::demo()).unwrap();
    let map = rows(&simulation.plate_map_csv());
    assert_eq!(map.len(), simulation.field_count() as usize / 3);
    for plate in simulation.plates() {
        let on_plate: Vec<_> = map.iter().filter(|row| row["plate"] == plate.as_str()).collect();
        for role in ["healthy", "disease"] {
            let wells: Vec<WellPosition> = on_plate
                .iter()
                .filter(|row| row["role"] == role)
                .map(|row| row["well"].parse().unwrap())
                .collect();
            assert!(wells.len() >= 16, "{role}: {}", wells.len());
            let columns: BTreeSet<u8> = wells.iter().map(|well| well.column()).collect();
            let inner = wells
                .iter()
                .filter(|well| (2..12).contains(&well.column()))
                .count();
            assert!(
                columns.len() >= 8 && inner * 2 > wells.len(),
                "{role} in {columns:?}"
            );
        }
        let treated: BTreeSet<(&str, &str)> = on_plate
            .iter()
            .filter(|row| row["role"] == "treated")
            .map(|row| (row["compound"].as_str(), row["dose"].as_str()))
            .collect();
        assert_eq!(treated.len(), 8 * 7, "every compound and dose once on {plate}");
    }
    // About 15 ms for each tile and channel on each of two cores: well under 90 s.
    assert!(simulation.field_count() * 3 <= 1728);
}

#[test]
fn vehicle_wells_say_so_and_treated_wells_carry_state_and_dose() {
    let simulation = Simulation::new(small()).unwrap();
    for row in rows(&simulation.plate_map_csv()) {
        match row["role"].as_str() {
            "treated" => {
                assert_eq!(row["state"], "disease");
                assert!(row["compound"] != "DMSO" && row["dose"].parse::<f64>().unwrap() > 0.0);
            }
            role => {
                assert_eq!(row["state"], role);
                assert_eq!((row["compound"].as_str(), row["dose"].as_str()), ("DMSO", "0"));
            }
        }
    }
}

#[test]
fn file_names_are_unique_and_say_which_image_they_are() {
    let simulation = Simulation::new(small()).unwrap();
    let pattern =
        regex::Regex::new(r"^(?<dir>[^/]+)/(?<plate>.+)_(?<well>[A-P]\d\d)_s(?<field>\d+)_w(?<w>\d)\.tif$");
    let pattern = pattern.unwrap();
    let mut seen = BTreeSet::new();
    for id in simulation.field_ids() {
        for channel in 0..simulation.channels().len() {
            let name = simulation.file_name(&id.plate, id.well, id.field, channel);
            let parts = pattern.captures(&name).unwrap();
            let back = FieldId {
                plate: parts["plate"].parse().unwrap(),
                well: parts["well"].parse().unwrap(),
                field: parts["field"].parse().unwrap(),
            };
            assert_eq!((back, &parts["dir"]), (id.clone(), id.plate.as_str()));
            assert_eq!(parts["w"].parse::<usize>().unwrap(), channel + 1);
            assert!(seen.insert(name));
        }
    }
    assert_eq!(seen.len() as u64, simulation.field_count() * 3);
    let ids: Vec<FieldId> = simulation.field_ids().collect();
    assert!(ids.is_sorted());
    assert_eq!(ids.len() as u64, simulation.field_count());
}

#[test]
fn the_same_settings_give_the_same_bytes_in_any_order_on_any_thread() {
    let simulation = Simulation::new(small()).unwrap();
    let ids: Vec<FieldId> = simulation.field_ids().step_by(13).collect();
    let forwards: Vec<_> = ids.iter().map(|id| simulation.render(id).unwrap()).collect();
    let again = Simulation::new(small()).unwrap();
    let mut backwards: Vec<_> = ids.iter().rev().map(|id| again.render(id).unwrap()).collect();
    backwards.reverse();
    assert!(forwards == backwards);
    let threads: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = ids
            .iter()
            .map(|id| scope.spawn(|| simulation.render(id).unwrap()))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(forwards == threads);
    for (a, b) in forwards.iter().zip(&forwards[1..]) {
        assert!(a.pixels != b.pixels, "fields differ from each other");
    }
    let other = Simulation::new(SimulationSettings { seed: 99, ..small() }).unwrap();
    assert!(other.plate_map_csv() != simulation.plate_map_csv());
    assert!(other.render(&ids[0]).unwrap().pixels != forwards[0].pixels);
}

#[test]
fn a_field_has_the_shape_and_range_that_were_asked_for() {
    let settings = SimulationSettings {
        channels: Stain::ALL.to_vec(),
        bit_depth: 12,
        ..small()
    };
    let simulation = Simulation::new(settings).unwrap();
    let image = simulation
        .render(&simulation.field_ids().next().unwrap())
        .unwrap();
    assert_eq!((image.height, image.width, image.pixels.len()), (96, 128, 6));
    let names: Vec<&str> = image.channels.iter().map(|channel| channel.as_str()).collect();
    assert_eq!(names, ["DNA", "ER", "RNA", "AGP", "Mito", "Brightfield"]);
    for plane in &image.pixels {
        assert_eq!(plane.len(), 96 * 128);
        assert!(plane.iter().all(|&count| count < 4096));
        assert!(plane.iter().any(|&count| count != plane[0]));
    }
}

#[test]
fn the_truth_of_compounds_and_of_wells_agree() {
    let settings = SimulationSettings {
        compounds: vec![CompoundSettings {
            name: "known, \"quoted\"".to_owned(),
            class: CompoundClass::Rescue,
            emax: 0.8,
            ec50: 10.0,
            hill: 2.0,
            off_axis: 0.0,
            diseases: vec!["b".to_owned()],
        }],
        diseases: ["a", "b"]
            .map(|name| DiseaseModel {
                name: name.to_owned(),
                effect: 1.0,
            })
            .to_vec(),
        plates: 4,
        ..small()
    };
    let simulation = Simulation::new(settings).unwrap();
    let compounds: BTreeMap<(String, String), BTreeMap<String, String>> =
        rows(&simulation.truth_compounds_csv())
            .into_iter()
            .map(|row| ((row["compound"].clone(), row["disease"].clone()), row))
            .collect();
    assert_eq!(compounds.len(), 7 * 2);
    let wells = rows(&simulation.truth_wells_csv());
    let map = rows(&simulation.plate_map_csv());
    assert_eq!(wells.len(), map.len());
    let number = |row: &BTreeMap<String, String>, column: &str| row[column].parse::<f64>().unwrap();
    for (well, mapped) in wells.iter().zip(&map) {
        for column in ["plate", "well", "state", "role", "compound", "dose"] {
            assert_eq!(well[column], mapped[column]);
        }
        let expected = match well["role"].as_str() {
            "healthy" => (0.0, 0.0),
            "disease" => (1.0, 0.0),
            _ => {
                let truth = &compounds[&(well["compound"].clone(), well["state"].clone())];
                let response = if truth["class"] == "inactive" {
                    0.0
                } else {
                    let (dose, ec50, slope) =
                        (number(well, "dose"), number(truth, "ec50"), number(truth, "hill"));
                    dose.powf(slope) / (dose.powf(slope) + ec50.powf(slope))
                };
                (
                    1.0 - number(truth, "emax") * response,
                    number(truth, "off_axis") * response,
                )
            }
        };
        assert!((number(well, "on_axis") - expected.0).abs() < 1e-4, "{well:?}");
        assert!((number(well, "off_axis") - expected.1).abs() < 1e-4, "{well:?}");
    }
    let known = |disease: &str, dose: &str| {
        let row = wells.iter().find(|row| {
            row["compound"].starts_with("known") && row["state"] == disease && row["dose"] == dose
        });
        number(row.unwrap(), "on_axis")
    };
    assert_eq!((known("a", "10"), known("b", "10")), (1.0, 0.6));
}

#[test]
fn empty_blurred_and_debris_fields_come_at_the_given_rates() {
    let settings = SimulationSettings {
        fields: 10,
        wells: 384,
        plates: 1,
        healthy_wells: 192,
        disease_wells: 192,
        generated: GeneratedCompounds::default(),
        compounds: Vec::new(),
        artefacts: Artefacts {
            empty_fields: 0.1,
            blur: 0.2,
            debris: 0.05,
            ..Artefacts::default()
        },
        ..small()
    };
    let simulation = Simulation::new(settings).unwrap();
    let wells = rows(&simulation.truth_wells_csv());
    let rate = |column: &str| {
        wells
            .iter()
            .map(|row| row[column].split_whitespace().count())
            .sum::<usize>() as f64
            / 3840.0
    };
    // Four standard errors of a binomial share at 3840 fields.
    assert!(
        (rate("empty_fields") - 0.1).abs() < 0.02,
        "{}",
        rate("empty_fields")
    );
    assert!(
        (rate("blurred_fields") - 0.2).abs() < 0.026,
        "{}",
        rate("blurred_fields")
    );
    assert!(
        (rate("debris_fields") - 0.05).abs() < 0.015,
        "{}",
        rate("debris_fields")
    );
}

#[test]
fn unused_wells_have_no_fields_unless_they_become_controls() {
    let sparse = Simulation::new(small()).unwrap();
    assert_eq!(sparse.wells(&sparse.plates()[0]).count(), 32 + 9 * 2);
    let full = Simulation::new(SimulationSettings {
        fill_with_controls: true,
        ..small()
    })
    .unwrap();
    assert_eq!(full.wells(&full.plates()[1]).count(), 96);
    let unused = WellPosition::new(16, 24).unwrap();
    let id = FieldId {
        plate: sparse.plates()[0].clone(),
        well: unused,
        field: 1,
    };
    let error = sparse.render(&id).unwrap_err();
    assert!(error.to_string().contains("P24"), "{error}");
    let first = sparse.field_ids().next().unwrap();
    for field in [0, 3] {
        let id = FieldId {
            field,
            ..first.clone()
        };
        assert!(matches!(
            sparse.render(&id),
            Err(SimulateError::NoSuchField { .. })
        ));
    }
}

#[test]
fn settings_that_cannot_be_met_are_refused_by_name() {
    type Change = fn(&mut SimulationSettings);
    let cases: [(&str, Change); 14] = [
        ("wells", |s| s.wells = 100),
        ("bit_depth", |s| s.bit_depth = 8),
        ("channels", |s| s.channels.clear()),
        ("'DNA' twice", |s| s.channels = vec![Stain::Dna, Stain::Dna]),
        ("plates", |s| s.plates = 0),
        ("artefacts.debris", |s| s.artefacts.debris = f64::NAN),
        ("artefacts.empty_fields", |s| s.artefacts.empty_fields = 1.5),
        ("plate barcode", |s| s.name = "a/b".to_owned()),
        ("diseases", |s| s.diseases.clear()),
        ("'healthy'", |s| s.diseases[0].name = "healthy".to_owned()),
        ("doses", |s| s.doses = vec![0.0]),
        ("doses is empty", |s| s.doses.clear()),
        ("do not fit", |s| s.replicates = 9),
        ("cells_per_field", |s| s.cells_per_field = 500.0),
    ];
    for (expected, change) in cases {
        let mut settings = small();
        change(&mut settings);
        let error = Simulation::new(settings).unwrap_err().to_string();
        assert!(error.contains(expected), "expected '{expected}' in: {error}");
    }
    let mut settings = small();
    settings.compounds[0].diseases = vec!["gout".to_owned()];
    assert!(matches!(
        Simulation::new(settings),
        Err(SimulateError::UnknownDisease { .. })
    ));
    let mut settings = small();
    settings.compounds[0].name = "INA-002".to_owned();
    assert!(matches!(
        Simulation::new(settings),
        Err(SimulateError::Duplicate { .. })
    ));
}

#[test]
fn settings_are_read_from_a_file_with_defaults_and_unknown_keys_refused() {
    let settings: SimulationSettings = toml::from_str(
        "wells = 96\nchannels = [\"DNA\", \"Mito\"]\n[artefacts]\nnoise = 2\n[generated]\nrescue = 1",
    )
    .unwrap();
    assert_eq!(settings.channels, [Stain::Dna, Stain::Mito]);
    assert_eq!((settings.artefacts.noise, settings.fields), (2.0, 9));
    let error = toml::from_str::<SimulationSettings>("plats = 2").unwrap_err();
    assert!(error.to_string().contains("plats"));
}
