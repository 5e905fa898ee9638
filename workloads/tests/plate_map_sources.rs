//! Plate maps as they come: workbooks, the Cell Painting Gallery's files, grams and moles, plates of 6 to 1536 wells.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use wellspring_workloads::plate_map::{GalleryMap, MapFile, PlateMap, PlateMapErrors};
use wellspring_workloads::screen::{PlateMapSettings, Screen};

fn settings(lines: &str) -> PlateMapSettings {
    let text = format!(
        "[screen]\nname = \"a\"\n[images]\nstore = \"i\"\nchannels = [\"DNA\"]\n[plate_map]\nfile = \"m.csv\"\n{lines}\n\
         [controls]\nreference = {{ a = 1 }}\nphenotype = {{ a = 2 }}\n"
    );
    Screen::parse(&text, "a.toml")
        .unwrap_or_else(|errors| panic!("{errors}"))
        .plate_map
}

fn whole(bytes: &[u8], lines: &str) -> Result<PlateMap, PlateMapErrors> {
    match PlateMap::read(bytes, "maps/m.xlsx", &settings(lines))? {
        MapFile::Whole(map) => Ok(map),
        MapFile::Gallery(_) => panic!("taken for the Gallery's"),
    }
}

/// Compound and dose of a well.
fn given(map: &PlateMap, plate: &str, well: &str) -> (Option<String>, Option<f64>) {
    let row = map
        .treatment(&plate.parse().unwrap(), well.parse().unwrap())
        .unwrap();
    (row.compound.clone(), row.dose)
}

/// A workbook of sheets, each rows of cells; numbers are written as numbers, `#N/A` as an error.
fn xlsx(sheets: &[(&str, &[&[&str]])]) -> Vec<u8> {
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let mut parts = vec![(
        "_rels/.rels".to_owned(),
        format!(
            "<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\"><Relationship Id=\"rId1\" Type=\"{RELATIONS}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
        ),
    )];
    let (mut names, mut relations, mut types) = (String::new(), String::new(), String::new());
    for (index, (name, rows)) in sheets.iter().enumerate() {
        let number = index + 1;
        names += &format!("<sheet name=\"{name}\" sheetId=\"{number}\" r:id=\"rId{number}\"/>");
        relations += &format!(
            "<Relationship Id=\"rId{number}\" Type=\"{RELATIONS}/worksheet\" Target=\"worksheets/sheet{number}.xml\"/>"
        );
        types += &format!(
            "<Override PartName=\"/xl/worksheets/sheet{number}.xml\" ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml\"/>"
        );
        let mut data = String::new();
        for (row, cells) in rows.iter().enumerate() {
            data += &format!("<row r=\"{}\">", row + 1);
            for (column, cell) in cells.iter().enumerate() {
                let place = format!("{}{}", char::from(b'A' + column as u8), row + 1);
                data += &match cell {
                    &"" => String::new(),
                    &"#N/A" => format!("<c r=\"{place}\" t=\"e\"><v>#N/A</v></c>"),
                    cell if cell.parse::<f64>().is_ok() => format!("<c r=\"{place}\"><v>{cell}</v></c>"),
                    cell => format!("<c r=\"{place}\" t=\"inlineStr\"><is><t>{cell}</t></is></c>"),
                };
            }
            data += "</row>";
        }
        let sheet = format!("<worksheet xmlns=\"{MAIN}\"><sheetData>{data}</sheetData></worksheet>");
        parts.push((format!("xl/worksheets/sheet{number}.xml"), sheet));
    }
    parts.push((
        "xl/workbook.xml".to_owned(),
        format!("<workbook xmlns=\"{MAIN}\" xmlns:r=\"{RELATIONS}\"><sheets>{names}</sheets></workbook>"),
    ));
    parts.push(("xl/_rels/workbook.xml.rels".to_owned(), format!("<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">{relations}</Relationships>")));
    parts.push(("[Content_Types].xml".to_owned(), format!("<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"><Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/><Override PartName=\"/xl/workbook.xml\" ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml\"/>{types}</Types>")));
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in parts {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

const ROWS: &[&[&str]] = &[
    &["Well", "Compound", "Dose (nM)", "Plate"],
    &["A1", "DMSO", "0", "1001"],
    &["B02", "BRD-1", "250.0", "1001"],
    &["", "", "", ""],
    &["B03", "#N/A", "", "1001"],
];

#[test]
fn a_workbook_is_read_as_a_person_would_type_it() {
    let file = xlsx(&[("notes", &[]), ("map", ROWS), ("other", &[&["x"]])]);
    for lines in ["", "sheet = \"map\""] {
        let map = whole(&file, lines).unwrap_or_else(|errors| panic!("{errors}"));
        // A barcode that is a number stays one, and an error of the sheet is a missing cell.
        assert_eq!(given(&map, "1001", "B02"), (Some("BRD-1".to_owned()), Some(0.25)));
        assert_eq!(given(&map, "1001", "B03"), (None, None));
        assert_eq!(
            map.treatment(&"1001".parse().unwrap(), "B03".parse().unwrap())
                .unwrap()
                .line,
            5
        );
    }
}

#[test]
fn what_is_wrong_with_a_workbook_is_said() {
    let problem = |bytes: &[u8], lines: &str| whole(bytes, lines).unwrap_err().to_string();
    let file = xlsx(&[("map", ROWS)]);
    let said = problem(&file, "sheet = \"Map1\"");
    assert!(
        said.contains("no sheet 'Map1'") && said.contains("the sheets are map"),
        "{said}"
    );
    assert!(problem(&file[..file.len() / 2], "").contains("not a workbook"));
    assert!(problem(b"PK\x03\x04nothing", "").contains("not a workbook"));
    assert!(problem(&[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, 0, 0], "").contains("not a workbook"));
    assert!(problem(b"well\nA01\n", "sheet = \"map\"").contains("is text, which has no sheets"));
    let rows: &[&[&str]] = &[
        &["well", "dose"],
        &["Q99", "5"],
        &["A01", "5 ug/mL"],
        &["A02", "1", "more"],
    ];
    let said = problem(&xlsx(&[("s", rows)]), "");
    for part in [
        "m.xlsx:2:1: ",
        "m.xlsx:3:2: dose '5 ug/mL' becomes uM only with",
        "m.xlsx:4:1: 3 cells where the header has 2",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert!(problem(&xlsx(&[("s", &[])]), "").contains("no header"));
}

#[test]
fn a_workbook_that_unpacks_to_too_much_is_refused() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for part in 0..6 {
        zip.start_file(format!("xl/{part}.xml"), zip::write::SimpleFileOptions::default())
            .unwrap();
        let block = vec![0u8; 1 << 20];
        for _ in 0..100 {
            zip.write_all(&block).unwrap();
        }
    }
    let bytes = zip.finish().unwrap().into_inner();
    assert!(bytes.len() < 2 << 20);
    let said = whole(&bytes, "").unwrap_err().to_string();
    assert!(said.contains("unpacks to more than"), "{said}");
}

const BARCODES: &str = "Assay_Plate_Barcode,Plate_Map_Name\nBR1,C-7\nBR2,C-7\nBR3,C-8\n";
const MAP7: &str = "plate_map_name\twell_position\tbroad_sample\tsolvent\tmmoles_per_liter\nC-7\tA01\t\tDMSO\t\nC-7\tAF48\tBRD-1\tDMSO\t2.5\n";
const MAP8: &str = "plate_map_name\twell_position\tbroad_sample\tsolvent\nC-8\tA02\tBRD-2\tDMSO\n";
const EXTERNAL: &str = "broad_sample\tpert_iname\ttarget\tsolvent\nBRD-1\tibuprofen\tPTGS2\tnone\nBRD-2\tflibanserin\tHTR1A\t\nBRD-1\tibuprofen\tPTGS2\tnone\n";

fn gallery(barcodes: &str) -> GalleryMap {
    match PlateMap::read(
        barcodes.as_bytes(),
        "metadata/platemaps/b1/barcode_platemap.csv",
        &settings(""),
    )
    .unwrap()
    {
        MapFile::Gallery(gallery) => *gallery,
        MapFile::Whole(_) => panic!("taken for a whole map"),
    }
}

fn maps(files: &[(&str, &str)]) -> BTreeMap<String, Result<Vec<u8>, String>> {
    let path = |name: &str| format!("metadata/platemaps/b1/platemap/{name}.txt");
    files
        .iter()
        .map(|(name, text)| (path(name), Ok(text.as_bytes().to_vec())))
        .collect()
}

#[test]
fn the_gallerys_files_become_one_map() {
    let map = gallery(BARCODES);
    assert_eq!(
        map.maps().into_iter().collect::<Vec<_>>(),
        [
            "metadata/platemaps/b1/platemap/C-7.txt",
            "metadata/platemaps/b1/platemap/C-8.txt"
        ]
    );
    let (places, needed) = map.external();
    assert_eq!(
        (places[0].as_str(), needed),
        (
            "metadata/platemaps/b1/../../external_metadata/external_metadata.tsv",
            false
        )
    );
    let map = map
        .join(
            &maps(&[("C-7", MAP7), ("C-8", MAP8)]),
            Some(("external_metadata.tsv", EXTERNAL.as_bytes())),
        )
        .unwrap_or_else(|errors| panic!("{errors}"));
    let plates: Vec<&str> = map.plates().map(|plate| plate.as_str()).collect();
    assert_eq!(plates, ["BR1", "BR2", "BR3"]);
    for plate in ["BR1", "BR2"] {
        assert_eq!(given(&map, plate, "AF48"), (Some("BRD-1".to_owned()), Some(2.5)));
        assert_eq!(given(&map, plate, "A01"), (None, None));
    }
    let row = map
        .treatment(&"BR1".parse().unwrap(), "AF48".parse().unwrap())
        .unwrap();
    // What is known of the compound is a column too, and does not overrule the map.
    assert_eq!(
        (map.cell(row, "target"), map.cell(row, "solvent")),
        (Some("PTGS2"), Some("DMSO"))
    );
    let row = map
        .treatment(&"BR3".parse().unwrap(), "A02".parse().unwrap())
        .unwrap();
    assert_eq!(
        (map.cell(row, "pert_iname"), row.dose),
        (Some("flibanserin"), None)
    );
    // Without the compounds' metadata the maps stand alone.
    let map = gallery(BARCODES)
        .join(&maps(&[("C-7", MAP7), ("C-8", MAP8)]), None)
        .unwrap();
    assert_eq!(given(&map, "BR2", "AF48").1, Some(2.5));
}

#[test]
fn every_problem_of_the_gallerys_files_is_said_with_its_file() {
    let barcodes = "Assay_Plate_Barcode,Plate_Map_Name\nBR1,C-7\nBR2,C-9\nBR1,../x\n";
    let external = "broad_sample\ttarget\nBRD-1\ta\nBRD-1\tb\n";
    let broken = MAP7.replace("AF48", "AF49");
    let said = gallery(barcodes)
        .join(
            &maps(&[("C-7", &broken)]),
            Some(("external.tsv", external.as_bytes())),
        )
        .unwrap_err()
        .to_string();
    for part in [
        "barcode_platemap.csv:3:1: the map metadata/platemaps/b1/platemap/C-9.txt cannot be read",
        "barcode_platemap.csv:4:1: '../x' cannot name a file",
        "barcode_platemap.csv:4:1: plate BR1 is listed twice: first on line 2",
        "platemap/C-7.txt:3:",
        "external.tsv:3:1: broad_sample 'BRD-1' has two rows that differ: the first is on line 2",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let said = gallery(BARCODES)
        .join(
            &maps(&[("C-7", MAP7), ("C-8", MAP8)]),
            Some(("external.tsv", b"name\nx\n")),
        )
        .unwrap_err();
    assert!(
        said.to_string().contains("no column is in the plate maps too"),
        "{said}"
    );
}

#[test]
fn grams_need_a_column_of_molecular_masses() {
    for (header, mass) in [
        ("molecular_weight", "500"),
        ("MW", "500.0"),
        ("Molecular Mass", "5e2"),
    ] {
        let text =
            format!("well,compound,dose,{header}\nA01,x,5 ug/mL,{mass}\nA02,y,10 uM,\nA03,z,3 nM,{mass}\n");
        let map = whole(text.as_bytes(), "").unwrap();
        assert_eq!(
            [
                given(&map, "p", "A01").1,
                given(&map, "p", "A02").1,
                given(&map, "p", "A03").1
            ],
            [Some(10.0), Some(10.0), Some(0.003)]
        );
        let map = whole(
            text.replace("10 uM", "10 mg/mL").as_bytes(),
            "dose_unit = \"ug/mL\"",
        )
        .unwrap();
        assert_eq!(given(&map, "p", "A03").1, Some(0.0015));
    }
    let said = whole(b"well,compound,dose,mw\nA01,x,5 ug/mL,\nA02,x,5 ug/mL,-1\n", "")
        .unwrap_err()
        .to_string();
    assert!(
        said.contains(":2:3: dose '5 ug/mL' becomes uM only with")
            && said.contains(":3:3: molecular mass '-1'"),
        "{said}"
    );
}

#[test]
fn plates_of_6_to_1536_wells_are_known() {
    for (rows, columns) in [(2u8, 3u8), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48)] {
        let mut text = "well,dose\n".to_owned();
        for row in 1..=rows {
            for column in 1..=columns {
                let well = wellspring_workloads::words::WellPosition::new(row, column).unwrap();
                text += &format!("{}{column},1\n", well.row_letters());
            }
        }
        let map = whole(text.as_bytes(), "").unwrap();
        let wells = map.plate(&"any".parse().unwrap()).unwrap();
        assert_eq!(wells.len(), usize::from(rows) * usize::from(columns));
    }
    assert!(
        whole(b"well,dose\nAG01,1\n", "")
            .unwrap_err()
            .to_string()
            .contains("1536")
    );
}

#[test]
fn text_of_other_code_pages_is_read() {
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(
            "well\tdose\nA01\t5 \u{b5}M\n"
                .encode_utf16()
                .flat_map(u16::to_le_bytes),
        )
        .collect();
    assert_eq!(given(&whole(&utf16, "").unwrap(), "p", "A01").1, Some(5.0));
    assert_eq!(
        given(
            &whole(b"well,dose\nA01,250 n\x4d\nA02,5 \xb5M\n", "").unwrap(),
            "p",
            "A02"
        )
        .1,
        Some(5.0)
    );
}
