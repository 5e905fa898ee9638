//! A run of collected fields and `wellspring compare` on the run's own table are one path: the same files.

use std::collections::BTreeSet;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use wellspring::collect::Collection;
use wellspring::compare::{Finding, compare};
use wellspring::events::{ChannelMeasures, FieldFeatures};
use wellspring::external::ExternalSettings;
use wellspring::external::beyond::{Asker, Asking};
use wellspring::external::services::Services;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::tail::TailRecord;
use wellspring::kafka::topics::Topic;
use wellspring::quality::NUCLEI;
use wellspring::results::Provenance;
use wellspring::runs::Run;
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use crate::{SCREEN, ok};

/// Barcodes as they follow each other in the files.
const PLATES: [&str; 4] = ["P1", "P10", "P2", "P3"];
const FIELDS: u32 = 2;

/// P1 and P2 carry the replicates of one compound, P10 and P3 of another: plates are not compared by barcode.
fn plate_map() -> String {
    let mut text = "plate,well,role,disease,compound,dose\n".to_owned();
    for plate in PLATES {
        let compound = if ["P1", "P2"].contains(&plate) {
            "rescuer"
        } else {
            "idle"
        };
        for index in 0..24 {
            let well = WellPosition::new(1 + index / 12, 1 + index % 12).unwrap();
            let rest = match index {
                0..8 => "healthy,,DMSO,0".to_owned(),
                8..16 => "disease,model,DMSO,0".to_owned(),
                _ => format!(
                    "treated,model,{compound},{}",
                    10f64.powi(i32::from(index % 4) - 1)
                ),
            };
            text.push_str(&format!("{plate},{well},{rest}\n"));
        }
    }
    text
}

fn features(run: &Run, plate: &Barcode, index: u32, map: &PlateMap) -> FieldFeatures {
    let well = WellPosition::new(1 + (index / FIELDS / 12) as u8, 1 + (index / FIELDS % 12) as u8).unwrap();
    let given = &run.screen.treatments(map, plate).unwrap()[&well];
    let healthy = given.disease.is_none() || given.compound.as_deref() == Some("rescuer");
    let place = if healthy { 0.0 } else { 1.0 };
    let embedding = (0..run.feature_names().len()).map(|i| {
        let number = index * 131 + i as u32 * 29 + u32::from(plate.as_str().as_bytes()[1]) * 7;
        place * (i % 5) as f32 + (number * number % 97) as f32 / 97.0
    });
    FieldFeatures {
        run: run.id.clone(),
        field: FieldId {
            plate: plate.clone(),
            well,
            field: index % FIELDS,
        },
        model: "efficientnet-lite0@1".to_owned(),
        tiles: 1,
        // One field failed quality control.
        passed: index != 5,
        quality: vec![ChannelMeasures {
            channel: "DNA".parse().unwrap(),
            // A fifth of the cells is left at the highest dose of the idle compound.
            measures: match run.screen.nuclei {
                Some(_) if given.compound.as_deref() == Some("idle") && index % 8 > 5 => {
                    vec![(NUCLEI.to_owned(), 20.0)]
                }
                Some(_) => vec![(NUCLEI.to_owned(), f64::from(95 + index % 11))],
                None => Vec::new(),
            },
            flags: Vec::new(),
            uri: None,
        }],
        embedding: embedding.collect(),
    }
}

/// The cells of a text column of a table.
fn column(path: &Path, name: &str) -> Vec<String> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        let cell = row.get_column_iter().find(|(column, _)| *column == name);
        cell.unwrap().1.to_string().trim_matches('"').to_owned()
    })
    .collect()
}

#[test]
fn a_run_writes_the_bytes_that_compare_writes_from_its_features() {
    run_and_compare(SCREEN);
}

#[test]
fn a_run_that_counts_nuclei_finds_cell_loss_and_so_does_compare_from_its_features() {
    let folder = run_and_compare(&format!("{SCREEN}\n[nuclei]\nmin_diameter = 15\n"));
    let run = folder.path().join("run");
    let ratios: Vec<f64> = column(&run.join("comparisons.parquet"), "cell_ratio")
        .iter()
        .filter_map(|ratio| ratio.parse().ok())
        .collect();
    let lost = ratios
        .iter()
        .filter(|ratio| (0.15..0.25).contains(*ratio))
        .count();
    let kept = ratios.iter().filter(|ratio| **ratio > 0.9).count();
    assert!(lost > 0 && lost + kept == ratios.len(), "{ratios:?}");
    let counts = column(&run.join("quality.parquet"), NUCLEI);
    assert!(
        counts.iter().all(|count| count.parse::<f64>().is_ok()),
        "{counts:?}"
    );
}

fn run_and_compare(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("images")).unwrap();
    std::fs::create_dir(path("run")).unwrap();
    std::fs::write(path("map.csv"), plate_map()).unwrap();
    std::fs::write(path("screen.toml"), text).unwrap();
    let mut screen = Screen::parse(text, "screen.toml").unwrap();
    screen.resolve_paths(&folder.path().to_string_lossy());
    let map = PlateMap::parse(&plate_map(), "map.csv", &screen.plate_map).unwrap();
    let run = Run::open(screen).unwrap();
    let mut provenance = Provenance {
        screen: run.screen.name.to_string(),
        run: run.id.clone(),
        screen_sha256: run.screen.hash(),
        model: run.networks[0].card.name.clone(),
        model_sha256: run.networks[0].card.weights.content_sha256.clone(),
        seed: run.screen.comparison.seed,
        transform_sha256: None,
    };
    let mut collection = Collection::open(&run.id, folder.path(), BTreeSet::new()).unwrap();
    for plate in PLATES {
        let plate = plate.parse().unwrap();
        // Fields arrive in any order.
        for index in (0..24 * FIELDS).rev() {
            let record = TailRecord {
                topic: Topic::Features,
                partition: 0,
                offset: i64::from(index),
                id: String::new(),
                headers: Vec::new(),
                value: serde_json::to_vec(&features(&run, &plate, index, &map)).unwrap(),
                time_ms: 0,
                schemas: wellspring::schemas::Schemas::default(),
            };
            collection.take(&record).unwrap();
        }
    }
    // The screen has no step to ask.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let asking = Asking {
        services: Services::new(ExternalSettings {
            kafka: KafkaSettings::new("nowhere:9092", "t", "test"),
            commands: false,
            callbacks: None,
        }),
        runtime: runtime.handle(),
        stop: &|| false,
        worker: "test",
    };
    let out = path("run");
    let mut asker = Asker::new(&run, &asking, &[], &provenance, &out);
    let compared = compare(
        &run,
        &mut collection,
        Some(&map),
        &mut asker,
        &mut provenance,
        &out,
    )
    .unwrap();
    assert_eq!((compared.plate_count, compared.well_count), (4, 96));
    let shown = compared.comparison.unwrap();
    let published: Vec<Finding> = shown.findings.unwrap().map(Result::unwrap).collect();
    assert_eq!(
        published.len(),
        shown.comparison.rows.len() + shown.comparison.compounds.len()
    );

    ok(
        folder.path(),
        &[
            "compare",
            "--features",
            "run/features.parquet",
            "--screen",
            "screen.toml",
            "--out",
            "again",
        ],
    );
    for file in [
        "comparisons.parquet",
        "compounds.parquet",
        "wells.parquet",
        "windows.parquet",
        "signatures.parquet",
        "activity.parquet",
        "perturbations.parquet",
    ] {
        let read = |out: &str| std::fs::read(path(out).join(file)).unwrap();
        assert!(read("run") == read("again"), "{file}");
    }
    // Tables follow the barcodes, whatever was read first.
    let plates = column(&path("run/windows.parquet"), "Metadata_Plate");
    assert_eq!(plates, PLATES);
    let mut wells = column(&path("run/wells.parquet"), "Metadata_Plate");
    assert_eq!(wells.len(), 96);
    wells.dedup();
    assert_eq!(wells, PLATES);
    folder
}
