//! Layouts on the names of real microscopes, and the assembly of fields from listings.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what they skip, as tests do"
)]

use std::collections::BTreeSet;
use std::path::Path;

use wellspring_workloads::layout::{
    FileProblem, ImageKey, Layout, LayoutError, ListedFile, Parsed, PlateFiles, Reading, SkipReason, assemble,
};
use wellspring_workloads::screen::{ImagesSettings, LayoutChoice, Screen};

fn images(lines: &str) -> ImagesSettings {
    let text = format!(
        "[screen]\nname = \"a\"\n[images]\nstore = \"i\"\n{lines}\n[plate_map]\nfile = \"m.csv\"\n\
         [controls]\nreference = {{ r = 0 }}\nphenotype = {{ r = 1 }}\n"
    );
    Screen::parse(&text, "a.toml")
        .unwrap_or_else(|errors| panic!("{errors}"))
        .images
}

fn listing(paths: &[&str]) -> Vec<ListedFile> {
    let file = |path: &&str| ListedFile {
        path: (*path).to_owned(),
        size: 1,
        version: None,
    };
    paths.iter().map(file).collect()
}

fn key(layout: &Layout, path: &str) -> ImageKey {
    match layout.parse(path) {
        Parsed::Image(key) => key,
        other => panic!("{path}: {other:?}"),
    }
}

fn describe(key: &ImageKey) -> String {
    let ImageKey {
        plate,
        well,
        field,
        channel_text,
        plane,
        time,
    } = key;
    format!("{plate} {well} {field} {channel_text} {plane:?} {time:?}")
}

#[test]
fn names_of_every_vendor_are_read() {
    let of = |choice: &str| {
        Layout::from_settings(
            &images(&format!("layout = \"{choice}\"\nchannels = [\"w1\"]")),
            [],
        )
        .unwrap()
    };
    for (choice, path, expected) in [
        ("imagexpress", "P1/P1_A01_s1_w1.tif", "P1 A01 1 w1 None None"),
        (
            "imagexpress",
            "x/P1/P1_AF48_s12_w10.TIF",
            "P1 AF48 12 w10 None None",
        ),
        (
            "imagexpress",
            "1334/ZStep_10/Projection-Mix_E08_s2_w1E84FADEE-6DCE-4646-8329-F841B2D45415.tif",
            "1334 E08 2 w1 Some(10) None",
        ),
        (
            "imagexpress",
            "P/TimePoint_2/9987_B02_s1_w2.TIF",
            "P B02 1 w2 None Some(2)",
        ),
        (
            "imagexpress",
            "P/TimePoint_1/9987_B02.TIF",
            "P B02 1  None Some(1)",
        ),
        (
            "phenix",
            "BR1/Images/r01c02f03p04-ch5sk1fk1fl1.tiff",
            "BR1 A02 3 ch5 Some(4) Some(1)",
        ),
        ("rxrx", "HUVEC-1/AA15_s1_w6.png", "HUVEC-1 AA15 1 w6 None None"),
        (
            "cellvoyager",
            "P/AssayPlate_X_D08_T0001F012L01A02Z04C03.tif",
            "P D08 12 C03 Some(4) Some(1)",
        ),
        (
            "scanr",
            "P/A2--W00002--P00003--Z00004--T00005--GFP.tif",
            "P A02 3 GFP Some(4) Some(5)",
        ),
        (
            "scanr",
            "P/2018_Dapi--B9--empty--W0021--P001--T0002--Z003--C01.ome.tif",
            "P B09 1 C01 Some(3) Some(2)",
        ),
        ("gen5", "P/H12_01_3_2_RFP_001.tif", "P H12 2 RFP None Some(1)"),
    ] {
        assert_eq!(describe(&key(&of(choice), path)), expected, "{path}");
    }
    let imagexpress = of("imagexpress");
    for (path, reason) in [
        (
            "P/P_A01_s1_w1_thumb12345678-1234-1234-1234-123456789ABC.tif",
            SkipReason::Thumbnail,
        ),
        ("P/P_A01_s1_w1_Thumb.tif", SkipReason::Thumbnail),
        ("P/P.HTD", SkipReason::NotAnImage),
        (".cache/P_A01_s1_w1.tif", SkipReason::Hidden),
    ] {
        assert_eq!(imagexpress.parse(path), Parsed::Skip(reason), "{path}");
    }
    // A file in no folder is of the plate that the store's folder names.
    assert_eq!(
        describe(&key(&imagexpress, "P_A01_s1_w1.tif")),
        "i A01 1 w1 None None"
    );
    for (path, plate) in [
        ("BR1/2023-02-21/1334/BR1_A01_s1_w1.tif", "BR1"),
        ("2023-02-21/1334/BR1_A01_s1_w1.tif", "1334"),
        (
            "BR1__2020-11-08T18_18_00-Measurement 2/Images/BR1_A01_s1_w1.tif",
            "BR1",
        ),
        ("BR1__b/BR1_A01_s1_w1.tif", "BR1__b"),
    ] {
        assert_eq!(key(&imagexpress, path).plate.as_str(), plate, "{path}");
    }
    for path in ["P/P_A99_s1_w1.tif", "P/P_A01_s99999999999_w1.tif", "P/other.tif"] {
        assert_eq!(imagexpress.parse(path), Parsed::Unrecognised, "{path}");
    }
}

#[test]
fn a_pattern_may_name_row_and_column_and_the_plate_may_be_given() {
    let settings = images(
        "plate = \"P7\"\npattern = 'r(?<row>\\d+)_c(?<column>\\d+)_(?<channel>[a-z]+)_z(?<plane>\\d)'\nchannels = [\"dapi\"]",
    );
    let layout = Layout::from_settings(&settings, []).unwrap();
    assert_eq!(
        describe(&key(&layout, "any/r2_c11_dapi_z3.tif")),
        "P7 B11 1 dapi Some(3) None"
    );
    assert_eq!(layout.choice(), LayoutChoice::Pattern);
}

#[test]
fn auto_says_what_it_recognised_and_why_or_that_it_did_not() {
    let auto = images("channels = [\"w1\"]");
    let choose = |paths: &[&'static str]| Layout::from_settings(&auto, paths.iter().copied());
    let layout = choose(&["p/AA15_s1_w1.png", "p/notes.txt", "p/B02_s1_w1.png"]).unwrap();
    assert_eq!(layout.choice(), LayoutChoice::RxRx);
    assert!(
        layout.why().starts_with("2 of 2 image names are rxrx names"),
        "{}",
        layout.why()
    );
    assert_eq!(
        choose(&["p/P_A01_s1_w1.tif"]).unwrap().choice(),
        LayoutChoice::ImageXpress
    );
    assert_eq!(
        choose(&["p/r01c01f01p01-ch1sk1fk1fl1.tiff"]).unwrap().choice(),
        LayoutChoice::Phenix
    );
    assert!(matches!(
        choose(&["p/a.tif"]),
        Err(LayoutError::NotRecognised { seen: 1, .. })
    ));
    assert!(matches!(
        choose(&["p/a.txt"]),
        Err(LayoutError::NoImages { listed: 1 })
    ));
    assert!(matches!(choose(&[]), Err(LayoutError::NoImages { listed: 0 })));
}

const TWO: &str = "layout = \"imagexpress\"\nchannels = [{ name = \"DNA\", match = \"w1\" }, { name = \"ER\", match = \"w2\" }]";

#[test]
fn every_problem_of_a_listing_is_reported_and_the_rest_goes_on() {
    let mut paths = Vec::new();
    for well in ["A01", "A02", "A03"] {
        for field in 1..=2 {
            for channel in 1..=2 {
                paths.push(format!("P1/P1_{well}_s{field}_w{channel}.tif"));
            }
        }
    }
    paths.retain(|path| path != "P1/P1_A01_s2_w2.tif" && !path.contains("A03_s2"));
    paths.extend(
        [
            "P1/copy/../P1_A02_s1_w1.TIF",
            "P1/P1_A02_s1_w9.tif",
            "P1/odd.tif",
            "P1/P1.HTD",
        ]
        .map(str::to_owned),
    );
    paths.push("P1/Z_A02_s1_w1.tif".to_owned());
    let paths: Vec<&str> = paths
        .iter()
        .map(String::as_str)
        .filter(|path| !path.contains(".."))
        .collect();
    let mut settings = images(TWO);
    settings.plates = vec!["P1".parse().unwrap(), "P2".parse().unwrap()];
    let found = assemble(&listing(&paths), &settings).unwrap();
    let problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    for part in [
        "plate P2 is in images.plates but has no image",
        "plate P1 well A03: 1 fields of 2",
        "plate P1 well A01 field 2: no file for channel",
        "plate P1 well A02 field 1 channel DNA: 2 files for one plane",
        "1 files of channel 'w9'",
        "1 image files whose names are not imagexpress names: P1/odd.tif",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(part)),
            "no {part} in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
    assert_eq!(
        found.problems.iter().filter_map(FileProblem::lost_field).count(),
        2
    );
    let fields: Vec<String> = found.plates[&"P1".parse().unwrap()]
        .iter()
        .map(|field| format!("{} {} {}", field.well, field.field, field.channels.len()))
        .collect();
    assert_eq!(fields, ["A01 1 2", "A02 2 2", "A03 1 2"]);
    assert_eq!(found.skipped[&SkipReason::NotAnImage], 1);

    // The order of the listing does not matter.
    let mut reversed = listing(&paths);
    reversed.reverse();
    assert_eq!(assemble(&reversed, &settings).unwrap(), found);
}

#[test]
fn planes_stay_together_and_later_time_points_are_reported() {
    let paths = [
        "P/TimePoint_1/ZStep_1/P_A01_s1_w1.tif",
        "P/TimePoint_1/ZStep_2/P_A01_s1_w1.tif",
        "P/TimePoint_2/ZStep_1/P_A01_s1_w1.tif",
    ];
    let found = assemble(
        &listing(&paths),
        &images("channels = [{ name = \"DNA\", match = \"w1\" }]"),
    )
    .unwrap();
    let planes = &found.plates[&"P".parse().unwrap()][0].channels[0].planes;
    assert_eq!(
        planes.iter().map(|plane| plane.plane).collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
    assert!(matches!(
        found.problems[..],
        [FileProblem::LaterTimePoints {
            first: 1,
            files: 1,
            ..
        }]
    ));
}

#[test]
fn an_expected_count_of_fields_is_taken_from_the_screen() {
    let mut settings = images("channels = [\"w1\"]");
    settings.fields_per_well = Some(3);
    let found = assemble(&listing(&["P/P_A01_s1_w1.tif"]), &settings).unwrap();
    assert!(matches!(
        found.problems[..],
        [FileProblem::FewerFields {
            found: 1,
            expected: 3,
            ..
        }]
    ));
}

/// Files below `../shared/data/<folder>`; `None`, with a word, where it is absent.
fn shared(folder: &str) -> Option<Vec<ListedFile>> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(folder);
    if !base.is_dir() {
        println!("skipped: ../shared not present");
        return None;
    }
    let (mut folders, mut files) = (vec![base.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let size = path.metadata().unwrap().len();
                let path = path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
                files.push(ListedFile {
                    path,
                    size,
                    version: None,
                });
            }
        }
    }
    Some(files)
}

fn counts(found: &PlateFiles) -> (usize, usize, usize) {
    let wells: BTreeSet<_> = found
        .plates
        .iter()
        .flat_map(|(plate, f)| f.iter().map(move |f| (plate, f.well)))
        .collect();
    (
        found.plates.len(),
        wells.len(),
        found.plates.values().map(Vec::len).sum(),
    )
}

#[test]
fn real_imagexpress_folders_are_recognised() {
    if let Some(files) = shared("vendor_layouts/plateviewer/MD-MULTISITE-TIF") {
        let settings = images("plate = \"EXP2\"\nchannels = [\"w1\", \"w3\"]");
        let found = assemble(&files, &settings).unwrap();
        assert_eq!(found.layout, LayoutChoice::ImageXpress);
        assert_eq!(
            (counts(&found), found.problems.len()),
            ((1, 2, 2), 0),
            "{:?}",
            found.problems
        );
    }
    if let Some(files) = shared("vendor_layouts/faim-ipa/ImageXpress_exported/9987_Plate_3434") {
        let settings = images("plate = \"9987\"\nchannels = [\"w1\", \"w2\", \"w3\"]");
        let found = assemble(&files, &settings).unwrap();
        assert_eq!(
            (counts(&found), found.problems.len()),
            ((1, 2, 4), 0),
            "{:?}",
            found.problems
        );
        let field = &found.plates.values().next().unwrap()[0];
        // Three folders, of which ZStep_0 holds the projection.
        assert_eq!(field.channels[0].planes.len(), 2);
    }
    if let Some(files) = shared("vendor_layouts/faim-ipa/ImageXpress") {
        let found = assemble(&files, &images("channels = [\"w1\", \"w2\"]")).unwrap();
        assert_eq!(found.layout, LayoutChoice::ImageXpress);
        assert!(found.skipped[&SkipReason::Thumbnail] > 0);
        assert!(
            !found
                .problems
                .iter()
                .any(|p| matches!(p, FileProblem::Unrecognised { .. })),
            "{:?}",
            found.problems
        );
    }
}

#[test]
fn real_phenix_names_are_recognised() {
    if let Some(files) = shared("cell_painting_fields/JUMP_plate_BR00117006/images/orig") {
        let settings = images("plate = \"BR00117006\"\nchannels = [\"ch2\", \"ch3\", \"ch5\"]");
        let found = assemble(&files, &settings).unwrap();
        assert_eq!(found.layout, LayoutChoice::Phenix);
        assert_eq!(
            (counts(&found), found.problems.len()),
            ((1, 1, 1), 0),
            "{:?}",
            found.problems
        );
    }
}

#[test]
fn real_cellvoyager_scanr_and_gen5_names_are_recognised() {
    for (folder, settings, layout, expected) in [
        (
            "vendor_layouts/faim-ipa/CV8000",
            "channels = [\"C01\", \"C02\"]",
            LayoutChoice::CellVoyager,
            (1, 3, 12),
        ),
        (
            "vendor_layouts/plateviewer/SCANR-C2-S1-T1",
            "plate = \"S\"\nchannels = [\"GFP\", \"mcherry\"]",
            LayoutChoice::ScanR,
            (1, 2, 2),
        ),
        (
            "vendor_layouts/plateviewer/ALMF",
            "plate = \"S\"\nchannels = [\"C00\", \"C01\"]",
            LayoutChoice::ScanR,
            (1, 1, 2),
        ),
        (
            "cell_painting_fields/NF1_cellpainting_data_shrunken/Plate_2_images",
            "plate = \"NF1\"\nchannels = [\"DAPI\", \"GFP\", \"RFP\"]",
            LayoutChoice::Gen5,
            (1, 5, 5),
        ),
    ] {
        let Some(files) = shared(folder) else { return };
        let found = assemble(&files, &images(settings)).unwrap();
        assert_eq!(found.layout, layout, "{folder}");
        assert_eq!(counts(&found), expected, "{folder}: {:?}", found.problems);
        assert!(
            !found
                .problems
                .iter()
                .any(|problem| matches!(problem, FileProblem::Unrecognised { .. })),
            "{folder}: {:?}",
            found.problems
        );
    }
}

#[test]
fn the_real_plate_of_the_ready_file_is_complete() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/screens/transfluor.toml")).unwrap();
    let screen = Screen::parse(&text, "transfluor.toml").unwrap();
    let Some(files) = shared("transfluor/images") else {
        return;
    };
    let found = assemble(&files, &screen.images).unwrap();
    assert_eq!(
        (counts(&found), found.problems.len()),
        ((1, 24, 72), 0),
        "{:?}",
        found.problems
    );
    let plate = found.plates.keys().next().unwrap();
    assert_eq!(plate.as_str(), "AS_09047_050428030001");

    use wellspring_workloads::plate_map::PlateMap;
    use wellspring_workloads::profile::Role;
    let csv = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("screens")
        .join(&screen.plate_map.file);
    let map = PlateMap::parse(
        &std::fs::read_to_string(csv).unwrap(),
        "platemap.csv",
        &screen.plate_map,
    )
    .unwrap();
    let treatments = screen.treatments(&map, plate).unwrap();
    let of = |role| treatments.values().filter(|t| t.role == role).count();
    assert_eq!(
        (treatments.len(), of(Role::Reference), of(Role::Phenotype)),
        (24, 3, 2)
    );
    let reference = treatments.values().find(|t| t.role == Role::Reference).unwrap();
    assert_eq!((&reference.compound, &reference.disease), (&None, &None));
    let phenotype = treatments.values().find(|t| t.role == Role::Phenotype).unwrap();
    assert_eq!(phenotype.compound.as_deref(), Some("isoproterenol"));
    assert_eq!(phenotype.disease.as_deref(), Some("beta-arrestin translocation"));
    assert_eq!(phenotype.dose, Some(30.0));
}

/// Of a plate that is asked for, files that belong to no image are told as its own; what lies beside the plates is nobody's, and what
/// microscopes and people keep beside images is no such file.
#[test]
fn files_that_belong_to_no_image_are_told_with_their_plate() {
    let told = |paths: &[&str], settings: &ImagesSettings| -> Vec<String> {
        let plate = "P1".parse().unwrap();
        let mut reading = Reading::new(listing(paths), settings, Some(&plate));
        loop {
            let wanted = reading.wanted();
            if wanted.is_empty() {
                break;
            }
            for file in wanted {
                reading.answer(&file, Err("it is not there".to_owned()));
            }
        }
        let problems = reading.assemble().unwrap().problems.into_iter();
        let of_plate = problems.filter(|problem| problem.is_remark() && problem.plate() == Some(&plate));
        of_plate.map(|problem| problem.to_string()).collect()
    };
    let mut paths = vec![
        "P1/P1_A01_s1_w1.tif",
        "P1/P1_A01_s1_w1.tif",
        "P1/P1_A01_s1_w1_thumb.tif",
        "P1/P1_A01_s1_w2.tif",
        "P1/a.czi",
        "P1/P1_A01_s2_w1.tif.part",
        "P1/notes.txt",
        "P1/P1.HTD",
        "P1/Thumbs.db",
        "P1/.hidden",
        "overview.tif",
        "P2/odd.tif",
    ];
    let odd: Vec<String> = (10..25).map(|n| format!("P1/odd{n}.tif")).collect();
    paths.extend(odd.iter().map(String::as_str));
    assert_eq!(
        told(&paths, &images(TWO)),
        [
            format!(
                "plate P1: 15 image files whose names are not imagexpress names: {} and 3 more",
                odd[..12].join(", ")
            ),
            "plate P1: 2 files whose suffixes are those of no image or metadata that are read: \
             P1/P1_A01_s2_w1.tif.part, P1/a.czi"
                .to_owned(),
        ]
    );
    // Of a flat bucket the plate's name is the beginning of its files.
    let flat = images(
        "layout = \"pattern\"\npattern = '^(?<plate>[^_]+)_(?<well>[A-P][0-9]+)_(?<channel>w[0-9])'\n\
         channels = [{ name = \"DNA\", match = \"w1\" }]",
    );
    let paths = [
        "P1_A01_w1.tif",
        "P1_overview.tif",
        "P10_overview.tif",
        "overview.tif",
    ];
    assert_eq!(
        told(&paths, &flat),
        ["plate P1: 1 image files whose names are not pattern names: P1_overview.tif"]
    );
}
