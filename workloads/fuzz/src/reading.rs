// Inputs become the metadata files of a small store, which is read as `wellspring` reads one. The test of the seeds reads them
// by this same file.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::sync::{Mutex, OnceLock};

use wellspring_workloads::layout::{Description, DescriptionReader, ListedFile, Part, PlateFiles, Reading};
use wellspring_workloads::plate_map::{MapFile, PlateMap};
use wellspring_workloads::screen::Screen;

/// Rounds of questions that a layout may need, as `pipeline/src/plan/listing.rs` has it.
const MAX_ROUNDS: usize = 64;

/// The parts of an input, which zeros separate.
fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == 0)
}

/// The screen with these lines in `[images]`. Each target asks for one: it is read once.
fn screen(lines: &str) -> Option<&'static Screen> {
    static READ: OnceLock<Mutex<BTreeMap<String, &'static Screen>>> = OnceLock::new();
    let mut read = READ.get_or_init(Mutex::default).lock().ok()?;
    if let Some(screen) = read.get(lines) {
        return Some(screen);
    }
    let text = format!(
        "[screen]\nname = \"a\"\n[images]\nstore = \"i\"\n{lines}\n[plate_map]\nfile = \"maps/m.csv\"\n\
         [controls]\nreference = {{ r = 0 }}\nphenotype = {{ r = 1 }}\n"
    );
    let screen: &'static Screen = Box::leak(Box::new(Screen::parse(&text, "a.toml").ok()?));
    read.insert(lines.to_owned(), screen);
    Some(screen)
}

/// Reads a store whose metadata files, of the kind that the target is named after, hold the input.
pub fn layout(target: &str, input: &[u8]) -> Option<PlateFiles> {
    let (metadata, images, channels): (Vec<&str>, Vec<String>, &str) = match target {
        "htd" => (
            vec!["P/P.HTD"],
            wells(|well, field| format!("P/P_{well}_s{field}_w1.TIF")),
            "w1",
        ),
        "harmony" => (
            vec!["P__2020-11-08T18_18_00-Measurement1/Images/Index.idx.xml"],
            (1..=2)
                .map(|field| {
                    format!(
                        "P__2020-11-08T18_18_00-Measurement1/Images/r01c01f{field:02}p01-ch1sk1fk1fl1.tiff"
                    )
                })
                .collect(),
            "ch1",
        ),
        "cellvoyager" => (
            vec!["P/MeasurementData.mlf", "P/MeasurementDetail.mrf", "P/P.mes"],
            (1..=2)
                .map(|field| format!("P/AP_B02_T0001F{field:03}L01A01Z01C01.tif"))
                .collect(),
            "C01",
        ),
        "load_data" => (
            vec!["P/load_data.csv"],
            (1..=2)
                .map(|site| format!("P/Images/r01c01f{site:02}p01-ch1sk1fk1fl1.tiff"))
                .collect(),
            "DNA",
        ),
        "ome_xml" => (
            vec!["P/P.companion.ome"],
            (0..2).map(|image| format!("P/P_{image}.ome.tiff")).collect(),
            "DAPI",
        ),
        "description" => (vec!["P/P_A01_s1_w1.TIF", "P/P_A02_s1_w1.ome.tif"], vec![], "w1"),
        "ome_zarr" => (
            vec![
                "P.zarr/zarr.json",
                "P.zarr/B/3/zarr.json",
                "P.zarr/B/3/0/zarr.json",
                "P.zarr/B/3/0/s0/zarr.json",
            ],
            vec!["P.zarr/B/3/0/s0/c/0/0/0".to_owned()],
            "DAPI",
        ),
        _ => return None,
    };
    let mut files: BTreeMap<String, &[u8]> = images.into_iter().map(|path| (path, &b""[..])).collect();
    // The description's files are both the whole input; else each file has its part.
    match target {
        "description" => files.extend(metadata.into_iter().map(|path| (path.to_owned(), input))),
        // A table may be gzipped, with zeros in it.
        _ if metadata.len() == 1 => {
            files.extend(metadata.into_iter().map(|path| (path.to_owned(), input)));
        }
        _ => files.extend(metadata.into_iter().map(str::to_owned).zip(parts(input))),
    }
    // Said and not recognised: recognising compiles the patterns of all layouts, which takes longer than all that is looked for.
    let layout = match target {
        "htd" | "description" => "imagexpress",
        "harmony" => "phenix",
        "load_data" => "gallery",
        "ome_xml" => "ome-tiff",
        "ome_zarr" => "ome-zarr",
        other => other,
    };
    let images = &screen(&format!("layout = \"{layout}\"\nchannels = [\"{channels}\"]"))?.images;
    let listing = files.iter().map(|(path, bytes)| ListedFile {
        path: path.clone(),
        size: bytes.len() as u64,
        version: None,
    });
    let mut reading = Reading::new(listing.collect(), images, None);
    for _ in 0..MAX_ROUNDS {
        let wanted = reading.wanted();
        if wanted.is_empty() {
            let found = reading.assemble().ok()?;
            // What a person is told is made too.
            let _said: usize = found
                .problems
                .iter()
                .map(|problem| problem.to_string().len())
                .sum();
            return Some(found);
        }
        for file in wanted {
            let bytes = files.get(&file.path).copied().unwrap_or_default();
            let answer = match file.part {
                Part::Whole => Ok(bytes.to_vec()),
                Part::Description => description(bytes),
            };
            reading.answer(&file, answer);
        }
    }
    panic!("the layout asks without end");
}

fn wells(name: impl Fn(&str, u32) -> String) -> Vec<String> {
    let wells = ["A01", "B02"].into_iter();
    wells
        .flat_map(|well| [1, 2].map(|field| name(well, field)))
        .collect()
}

fn description(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = DescriptionReader::new(bytes.len() as u64);
    for _ in 0..MAX_ROUNDS {
        match reader.needs() {
            Description::Read(range) => {
                let part = bytes[range.start as usize..range.end as usize].to_vec();
                reader.give(range.start, part);
            }
            Description::Found(bytes) => return Ok(bytes),
            Description::Broken(reason) => return Err(reason),
        }
    }
    panic!("the description asks without end");
}

/// Reads a plate map as text; rows of it.
pub fn plate_map(input: &[u8]) -> Option<usize> {
    let settings = &screen("channels = [\"w1\"]")?.plate_map;
    match PlateMap::read(input, "maps/m.csv", settings) {
        Ok(MapFile::Whole(map)) => Some(map.plates().count() + 1),
        // What it names is the input again.
        Ok(MapFile::Gallery(gallery)) => {
            let maps = gallery
                .maps()
                .into_iter()
                .map(|uri| (uri, Ok(input.to_vec())))
                .collect();
            let joined = gallery.join(&maps, Some(("external_metadata.tsv", input)));
            joined.ok().map(|map| map.plates().count() + 1)
        }
        Err(errors) => {
            let _said = errors.to_string();
            None
        }
    }
}

/// Reads a plate map as a workbook. Up to the first zero the input is a sheet, behind it the shared texts, then the list of
/// sheets; or it is a workbook as it lies on disk.
pub fn workbook(input: &[u8]) -> Option<usize> {
    if input.starts_with(b"PK") || input.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) {
        return plate_map(input);
    }
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const OF: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
    let mut given = parts(input);
    let sheet = given.next().unwrap_or_default();
    let no_texts = format!("<sst xmlns=\"{MAIN}\"></sst>");
    let texts = given.next().unwrap_or(no_texts.as_bytes());
    let sheets = format!(
        "<workbook xmlns=\"{MAIN}\" xmlns:r=\"{OF}\"><sheets><sheet name=\"a\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>"
    );
    let relations = format!(
        "<Relationships xmlns=\"{PACKAGE}\"><Relationship Id=\"rId1\" Type=\"{OF}/worksheet\" Target=\"worksheets/sheet1.xml\"/>\
         <Relationship Id=\"rId2\" Type=\"{OF}/sharedStrings\" Target=\"sharedStrings.xml\"/></Relationships>"
    );
    let document = format!(
        "<Relationships xmlns=\"{PACKAGE}\"><Relationship Id=\"rId1\" Type=\"{OF}/officeDocument\" Target=\"xl/workbook.xml\"/>\
         </Relationships>"
    );
    let files = [
        ("_rels/.rels", document.as_bytes()),
        ("xl/workbook.xml", given.next().unwrap_or(sheets.as_bytes())),
        ("xl/_rels/workbook.xml.rels", relations.as_bytes()),
        ("xl/sharedStrings.xml", texts),
        ("xl/worksheets/sheet1.xml", sheet),
    ];
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name, stored).ok()?;
        zip.write_all(bytes).ok()?;
    }
    plate_map(&zip.finish().ok()?.into_inner())
}
