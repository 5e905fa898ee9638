//! One plate with everything wrong at once, on a web server: what is wrong costs its field and is told with plate, well, field,
//! channel and address, and the rest of the plate goes on.

use std::io::Cursor;
use std::path::Path;

use serde_json::Value;
use tiff::decoder::{Decoder, DecodingResult};
use tiff::encoder::colortype::{ColorType, Gray16, Gray32Float};
use tiff::encoder::{TiffEncoder, TiffValue};
use tiff::tags::Tag;

use crate::common::{dead_letters, few_wells, models, rows_of};
use crate::{FIELDS, run, screen, web};

/// Side of the simulated images.
const SIDE: u32 = 240;

/// An image, and what stands in its description.
fn image<C: ColorType<Inner: Copy>>(side: u32, level: C::Inner, description: &str) -> Vec<u8>
where
    [C::Inner]: TiffValue,
{
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    let mut image = encoder.new_image::<C>(side, side).unwrap();
    if !description.is_empty() {
        image
            .encoder()
            .write_tag(Tag::ImageDescription, description)
            .unwrap();
    }
    image.write_data(&vec![level; (side * side) as usize]).unwrap();
    file.into_inner()
}

/// The file with other bytes in place of these.
fn replaced(mut file: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = file.windows(from.len()).position(|bytes| bytes == from).unwrap();
    file[at..at + to.len()].copy_from_slice(to);
    file
}

/// Divides the levels of an image by 4.
fn darken(path: &Path) {
    let mut decoder = Decoder::new(Cursor::new(std::fs::read(path).unwrap())).unwrap();
    let DecodingResult::U16(mut levels) = decoder.read_image().unwrap() else {
        panic!("simulated images have 16 bits");
    };
    levels.iter_mut().for_each(|level| *level /= 4);
    let mut encoder = TiffEncoder::new(std::fs::File::create(path).unwrap()).unwrap();
    encoder.write_image::<Gray16>(SIDE, SIDE, &levels).unwrap();
}

#[test]
fn a_plate_with_everything_wrong_at_once_loses_what_is_wrong_and_says_where() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\", \"AGP\"");
    let images = plates.join("images/SMALL0001");
    let path = |well: &str, channel: u32| images.join(format!("SMALL0001_{well}_s1_w{channel}.tif"));
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    // As from a detector of 14 bits.
    for image in std::fs::read_dir(&images).unwrap() {
        darken(&image.unwrap().path());
    }
    let whole = std::fs::read(path("A01", 1)).unwrap();

    write(&path("A01", 1), &whole[..whole.len() / 2]);
    write(&path("B01", 2), b"not an image");
    write(&path("C01", 1), b"");
    for channel in [1, 2] {
        write(&path("D01", channel), &image::<Gray16>(SIDE, 0, ""));
        write(&path("E01", channel), &image::<Gray16>(SIDE, 700, ""));
    }
    write(&path("F01", 2), &image::<Gray32Float>(SIDE, 0.5, ""));
    write(&path("G01", 1), &image::<Gray16>(SIDE, 40_000, ""));
    std::fs::remove_file(path("H01", 2)).unwrap();
    let twin = images.join("SMALL0001_A02_s1_w11B3D5F70-0A1B-4C2D-8E3F-0123456789AB.tif");
    write(&twin, &whole);
    let described = image::<Gray16>(SIDE, 700, "0123456789");
    // The first image of the plate is the one whose description is read.
    write(
        &path("A01", 2),
        &replaced(described, b"3456", b"\xff\xfe\xc3\x28"),
    );
    write(&path("G02", 2), &image::<Gray16>(16, 700, ""));
    // Files that belong to nothing.
    write(&images.join("notes.txt"), b"nothing");
    write(&images.join("SMALL0001_A03_s1_w1_thumb.tif"), b"small");
    write(&images.join("SMALL0001_A03_s1_w9.tif"), b"another channel");
    write(&images.join("overview.tif"), b"no name");
    write(
        &images.join("SMALL0001_A03_s1_w1.tif.part"),
        b"an upload that broke off",
    );

    let server = web::serve(
        plates.join("images"),
        &[
            ("_C02_s1_w1", web::Answer::Gone),
            ("_D02_s1_w2", web::Answer::Forbidden),
            ("_E02_s1_w1", web::Answer::Loop),
            ("_F02_s1_w1", web::Answer::Longer),
            ("_H02_s1_w1", web::Answer::Rewritten),
        ],
    );
    let screen = screen(&plates, &server);
    let text = std::fs::read_to_string(&screen).unwrap();
    let text = text.replace("fields_per_well = 1", "fields_per_well = 1\nbit_depth = 14");
    // Darker images have less contrast.
    let gates = "\n[quality]\ncontrast_fail = 1.0\ncontrast_warn = 1.0\n";
    std::fs::write(&screen, text + gates).unwrap();
    let out = folder.path().join("out");
    let output = run(&models, &screen, &out).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");

    let letters = dead_letters(&out);
    let expected = [
        ("A01", "bad_image", "DNA", "_A01_s1_w1.tif", "truncated"),
        ("B01", "bad_image", "AGP", "_B01_s1_w2.tif", "neither TIFF"),
        ("C01", "bad_image", "DNA", "_C01_s1_w1.tif", "empty"),
        ("F01", "bad_image", "AGP", "_F01_s1_w2.tif", "0.5"),
        (
            "G01",
            "bad_image",
            "DNA",
            "_G01_s1_w1.tif",
            "grey level 40000, above the ceiling 16383",
        ),
        ("H01", "missing_image", "AGP", "", "no file for channel AGP"),
        (
            "A02",
            "bad_image",
            "DNA",
            "_A02_s1_w1.tif",
            "2 files for one plane",
        ),
        (
            "C02",
            "missing_image",
            "DNA",
            "_C02_s1_w1.tif",
            "could not be read in one try",
        ),
        (
            "D02",
            "access",
            "AGP",
            "_D02_s1_w2.tif",
            "(403): check what they may read",
        ),
        ("E02", "access", "DNA", "_E02_s1_w1.tif", "redirects without end"),
        (
            "G02",
            "bad_image",
            "AGP",
            "_G02_s1_w2.tif",
            "16 x 16 pixels but the field's first image is 240 x 240",
        ),
    ];
    assert_eq!(letters.len(), expected.len(), "{letters:#?}");
    for (well, class, channel, file, reason) in expected {
        let letter = letters.iter().find(|letter| letter["well"] == well);
        let letter = letter.unwrap_or_else(|| panic!("{well}: {letters:#?}"));
        assert_eq!(
            (&letter["plate"], &letter["field"], &letter["class"]),
            (&Value::from("SMALL0001"), &Value::from(1), &Value::from(class)),
            "{letter}"
        );
        let message = letter["message"].as_str().unwrap();
        for part in [server.as_str(), file, channel, reason] {
            assert!(message.contains(part), "{well} lacks '{part}': {message}");
        }
    }
    // Images without anything on them, and one that is not the one that was listed, are judged and kept.
    let rows = rows_of(&out.join("features.parquet"));
    assert_eq!(rows.len() as u64, FIELDS - expected.len() as u64);
    let size = std::fs::metadata(path("F02", 1)).unwrap().len();
    let changed = format!(
        "changed: {server}/SMALL0001/SMALL0001_F02_s1_w1.tif has {} bytes, {size} when its plate was listed",
        size + 100
    );
    let again = format!(
        "changed: {server}/SMALL0001/SMALL0001_H02_s1_w1.tif was written again after its plate was listed"
    );
    for row in &rows {
        let (well, flags) = (
            &row["Metadata_Well"],
            row["Metadata_quality_flags"].as_str().unwrap(),
        );
        let wrong = match well.as_str().unwrap() {
            "D01" | "E01" => "empty",
            "F02" => changed.as_str(),
            "H02" => again.as_str(),
            _ => "",
        };
        assert!(
            flags.contains(wrong) && flags.is_empty() == wrong.is_empty(),
            "{well}: {flags}"
        );
        let passed = if wrong == "empty" { "fail" } else { "pass" };
        assert_eq!(row["Metadata_quality"], passed, "{well}: {flags}");
        assert!(wrong.is_empty() || flags.contains("DNA"), "{well}: {flags}");
    }
    // What judges a field says of which images.
    for row in rows_of(&out.join("quality.parquet")) {
        let well = row["Metadata_Well"].as_str().unwrap();
        for (channel, number) in [("DNA", 1), ("AGP", 2)] {
            let address = format!("{server}/SMALL0001/SMALL0001_{well}_s1_w{number}.tif");
            assert_eq!(row[format!("URL_Orig{channel}")], address, "{row}");
        }
    }
    // Files that belong to nothing are told with the plate, and cost it nothing.
    let notes = std::fs::read_to_string(out.join("run.json")).unwrap();
    let notes: Value = serde_json::from_str(&notes).unwrap();
    let notes: Vec<&str> = notes["notes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for (reason, file) in [
        ("1 files of channel 'w9'", "SMALL0001_A03_s1_w9.tif"),
        (
            "1 image files whose names are not imagexpress names",
            "overview.tif",
        ),
        ("1 files whose suffixes are", "SMALL0001_A03_s1_w1.tif.part"),
    ] {
        let told = notes.iter().find(|note| note.contains(reason));
        let told = told.unwrap_or_else(|| panic!("{reason} is told by nobody: {notes:#?}"));
        for part in ["plate SMALL0001: ", &server, file] {
            assert!(told.contains(part), "{told} lacks {part}");
        }
    }
    assert!(
        !notes
            .iter()
            .any(|note| note.contains("notes.txt") || note.contains("_thumb")),
        "{notes:#?}"
    );
}

/// A server that knows no ranges, and lists its files with other tags than it sends them with: both are said once, and cost
/// nothing.
#[test]
fn a_plate_on_a_plain_web_server_is_read_whole_file_by_whole_file() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    let server = web::serve(plates.join("images"), &[("_s1_", web::Answer::Plain)]);
    let screen = screen(&plates, &server);
    let out = folder.path().join("out");
    let output = run(&models, &screen, &out).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for once in [
        "answers requests for parts of files with whole files",
        "with other entity tags than it sends",
    ] {
        assert_eq!(said.matches(once).count(), 1, "{once}: {said}");
    }
    let rows = rows_of(&out.join("features.parquet"));
    assert_eq!(rows.len() as u64, FIELDS);
    for row in &rows {
        assert_eq!(row["Metadata_quality_flags"], "", "{row}");
    }
}

/// A table of images lists one that is gone, and does not list one that is there.
#[test]
fn a_table_that_disagrees_with_the_files_costs_the_fields_that_it_has_wrong() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    let images = plates.join("images/SMALL0001");
    let mut table =
        "FileName_OrigDNA,PathName_OrigDNA,Metadata_Plate,Metadata_Well,Metadata_Site\n".to_owned();
    for (row, column) in ('A'..='H').flat_map(|row| (1..=3).map(move |column| (row, column))) {
        let well = format!("{row}{column:02}");
        if well != "H03" {
            table += &format!("SMALL0001_{well}_s1_w1.tif,/data/SMALL0001,SMALL0001,{well},1\n");
        }
    }
    std::fs::write(images.join("load_data.csv"), table).unwrap();
    std::fs::remove_file(images.join("SMALL0001_G03_s1_w1.tif")).unwrap();
    let screen = screen(&plates, "images/");
    let text = std::fs::read_to_string(&screen).unwrap();
    let text = text.replace("layout = \"imagexpress\"", "layout = \"auto\"");
    std::fs::write(&screen, text.replace("match = \"w1\"", "match = \"DNA\"")).unwrap();
    let out = folder.path().join("out");
    let output = run(&models, &screen, &out).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let letters = dead_letters(&out);
    let expected = [
        (
            "G03",
            "SMALL0001/load_data.csv lists files that are not there",
            images.parent().unwrap(),
        ),
        ("H03", "has a row in ", &plates),
    ];
    assert_eq!(letters.len(), expected.len(), "{letters:#?}");
    for (well, reason, place) in expected {
        let letter = letters.iter().find(|letter| letter["well"] == well).unwrap();
        assert_eq!(
            (&letter["plate"], &letter["class"], &letter["fields_lost"]),
            (
                &Value::from("SMALL0001"),
                &Value::from("missing_image"),
                &Value::from(1)
            ),
            "{letter}"
        );
        let message = letter["message"].as_str().unwrap();
        assert!(
            message.contains(reason) && message.contains(place.to_str().unwrap()),
            "{message}"
        );
    }
    let rows = rows_of(&out.join("features.parquet"));
    assert_eq!(rows.len() as u64, FIELDS - 2);
    assert!(said.contains("load_data.csv does not list"), "{said}");
}
