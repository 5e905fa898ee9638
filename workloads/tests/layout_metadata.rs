//! Layouts with the metadata files of microscopes: what they say, what disagrees, and what is broken.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what they skip, as tests do"
)]

#[path = "layouts/mod.rs"]
mod layouts;

use layouts::{Store, counts, images, shared};
use wellspring_workloads::layout::{FileProblem, PlateFiles, SkipReason};
use wellspring_workloads::screen::LayoutChoice;

fn problems(found: &PlateFiles) -> Vec<String> {
    found.problems.iter().map(ToString::to_string).collect()
}

fn facts(found: &PlateFiles) -> Vec<String> {
    let facts = found.facts.values().flatten();
    facts.map(|of| format!("{}: {}", of.channel, of.facts)).collect()
}

/// A Harmony index of wells A01 and P24, two fields, two channels, two planes; `inline` has the facts in every image, as
/// Harmony 3 and 4 have them, else they stand in maps.
fn index(namespace: &str, inline: bool) -> String {
    let facts = |channel: u32| {
        let name = ["HOECHST 33342", "Alexa 488"][channel as usize - 1];
        format!(
            "<ChannelName>{name}</ChannelName><ImageResolutionX Unit=\"m\">2.99E-07</ImageResolutionX>\
             <ImageResolutionY Unit=\"m\">2.99E-07</ImageResolutionY><MaxIntensity>65535</MaxIntensity>\
             <MainExcitationWavelength Unit=\"nm\">375</MainExcitationWavelength>\
             <MainEmissionWavelength Unit=\"nm\">456</MainEmissionWavelength>\
             <ObjectiveMagnification Unit=\"\">40</ObjectiveMagnification><ObjectiveNA Unit=\"\">1.1</ObjectiveNA>\
             <ExposureTime Unit=\"s\">0.08</ExposureTime>"
        )
    };
    let mut text = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<EvaluationInputData xmlns=\"{namespace}\" Version=\"1\">\n\
         <Plates><Plate><PlateID>id</PlateID><Name>BR001</Name><Well id=\"0101\"/></Plate></Plates>\n\
         <Wells><Well><id>0101</id><Row>1</Row><Col>1</Col><Image id=\"0101K1F1P1R1\"/></Well></Wells>\n"
    );
    if !inline {
        for channel in 1..=2 {
            text += &format!(
                "<Maps><Map><Entry ChannelID=\"{channel}\"><FlatfieldProfile>{{a: 1}}</FlatfieldProfile></Entry></Map>"
            );
            text += &format!(
                "<Map><Entry ChannelID=\"{channel}\">{}</Entry></Map></Maps>\n",
                facts(channel)
            );
        }
    }
    text += "<Images>\n";
    for (row, column) in [(1, 1), (16, 24)] {
        for (field, plane, channel) in [1, 2]
            .iter()
            .flat_map(|f| [1, 2].iter().flat_map(move |p| [1, 2].map(|c| (f, p, c))))
        {
            text += &format!(
                "<Image Version=\"1\"><id>x</id><State>Ok</State><URL>{}</URL><Row>{row}</Row><Col>{column}</Col>\
                 <FieldID>{field}</FieldID><PlaneID>{plane}</PlaneID><TimepointID>0</TimepointID><ChannelID>{channel}</ChannelID>{}</Image>\n",
                phenix(row, column, *field, *plane, channel),
                if inline { facts(channel) } else { String::new() },
            );
        }
    }
    text + "</Images></EvaluationInputData>\n"
}

fn phenix(row: u32, column: u32, field: u32, plane: u32, channel: u32) -> String {
    format!("r{row:02}c{column:02}f{field:02}p{plane:02}-ch{channel}sk1fk1fl1.tiff")
}

const PHENIX: &str = "BR001__2020-11-08T18_18_00-Measurement1/Images/";

/// A measurement with an index.
fn measurement(index_name: &str, index: &str) -> Store {
    let mut store = Store::default();
    store.add(&format!("{PHENIX}{index_name}"), index.as_bytes());
    for (row, column) in [(1, 1), (16, 24)] {
        for field in 1..=2 {
            for plane in 1..=2 {
                for channel in 1..=2 {
                    store.add(
                        &format!("{PHENIX}{}", phenix(row, column, field, plane, channel)),
                        b"",
                    );
                }
            }
        }
    }
    store
}

const HOECHST: &str =
    "HOECHST 33342, 0.299 um/pixel, 80 ms, 40x/1.1, excitation 375 nm, emission 456 nm, 16 bits";

#[test]
fn harmony_indices_of_every_version_give_fields_planes_and_facts() {
    for (name, namespace, inline) in [
        (
            "Index.idx.xml",
            "http://www.perkinelmer.com/PEHH/HarmonyV5",
            false,
        ),
        ("Index.idx.xml", "http://www.perkinelmer.com/PEHH/HarmonyV5", true),
        ("Index.xml", "http://www.perkinelmer.com/PEHH/HarmonyV6", false),
        (
            "Index.xml",
            "43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV7",
            false,
        ),
    ] {
        let store = measurement(name, &index(namespace, inline));
        // By the text of file names or by the name the microscope gives.
        for channels in [
            "[{ name = \"DNA\", match = \"ch1\" }, \"ch2\"]",
            "[{ name = \"DNA\", match = \"hoechst 33342\" }, \"ch2\"]",
        ] {
            let found = store.read(&images(&format!("channels = {channels}")));
            assert_eq!(found.layout, LayoutChoice::Phenix);
            assert!(
                found.why.contains("is the index of a Harmony measurement"),
                "{}",
                found.why
            );
            assert_eq!((counts(&found), problems(&found)), ((1, 2, 4), vec![]));
            let (plate, fields) = found.plates.iter().next().unwrap();
            assert_eq!(plate.as_str(), "BR001");
            assert_eq!(
                (fields[3].well.to_string(), fields[3].channels[1].planes.len()),
                ("P24".to_owned(), 2)
            );
            assert_eq!(facts(&found)[0], format!("DNA: {HOECHST}"));
        }
    }
}

#[test]
fn an_index_that_disagrees_with_the_files_costs_what_it_must() {
    let text = index("http://www.perkinelmer.com/PEHH/HarmonyV5", false);
    let mut store = measurement("Index.idx.xml", &text);
    store.remove(&format!("{PHENIX}{}", phenix(1, 1, 2, 2, 1)));
    store.add(&format!("{PHENIX}{}", phenix(1, 2, 1, 1, 1)), b"");
    let found = store.read(&images("channels = [\"ch1\", \"ch2\"]"));
    assert_eq!(counts(&found), (1, 2, 3));
    let said = problems(&found);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said[0].contains("1 image files that")
            && said[0].contains("Index.idx.xml does not list are not processed"),
        "{said:#?}"
    );
    assert_eq!(
        said[1],
        format!(
            "plate BR001 well A01 field 2 channel ch1: {PHENIX}Index.idx.xml lists files that are not there: {PHENIX}{}",
            phenix(1, 1, 2, 2, 1)
        )
    );
    assert_eq!(
        found.problems.iter().filter_map(FileProblem::lost_field).count(),
        1
    );
    // A channel that the screen does not use may be incomplete.
    let found = store.read(&images("channels = [\"ch2\"]"));
    assert_eq!(counts(&found), (1, 2, 4));
}

#[test]
fn a_broken_index_is_reported_and_names_are_used() {
    let text = index("http://www.perkinelmer.com/PEHH/HarmonyV6", false);
    for (broken, reason) in [
        (&text.as_bytes()[..text.len() / 2], "cannot be used: line 12"),
        (b"", "lists no image"),
        (b"<Other><Images/></Other>", "its root is <Other>"),
        (b"\xff\xfe\x00", "lists no image"),
    ] {
        let mut store = measurement("Index.xml", "");
        store.add(&format!("{PHENIX}Index.xml"), broken);
        let found = store.read(&images("channels = [\"ch1\", \"ch2\"]"));
        assert_eq!((found.layout, counts(&found)), (LayoutChoice::Phenix, (1, 2, 4)));
        let said = problems(&found);
        assert!(
            said.len() == 1 && said[0].contains(reason) && said[0].contains("Index.xml cannot be used"),
            "{said:?}"
        );
        assert_eq!(found.plates.keys().next().unwrap().as_str(), "BR001");
    }
    // Invalid UTF-8 in a name is not an error.
    let mut bytes = text.into_bytes();
    let at = bytes.windows(7).position(|window| window == b"HOECHST").unwrap();
    bytes[at] = 0xff;
    let mut store = measurement("Index.xml", "");
    store.add(&format!("{PHENIX}Index.xml"), &bytes);
    let found = store.read(&images("channels = [\"ch1\", \"ch2\"]"));
    assert_eq!((counts(&found), problems(&found)), ((1, 2, 4), vec![]));
    assert!(facts(&found)[0].contains("\u{fffd}OECHST"));
}

#[test]
fn metadata_that_cannot_be_read_are_a_problem_and_names_are_used() {
    let mut store = measurement("Index.xml", "");
    store.refuse(&format!("{PHENIX}Index.xml"), "access was refused");
    let found = store.read(&images("channels = [\"ch1\", \"ch2\"]"));
    assert_eq!(counts(&found), (1, 2, 4));
    assert!(problems(&found)[0].contains("access was refused"));
}

const MLF: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<bts:MeasurementData bts:Version=\"1.0\" xmlns:bts=\"http://www.yokogawa.co.jp/BTS/BTSSchema/1.0\">\n";

#[test]
fn a_cellvoyager_list_may_report_errors_and_files_that_are_gone() {
    let mut list = MLF.to_owned();
    let mut store = Store::default();
    for (field, channel) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let name = format!("AP_B02_T0001F{field:03}L01A01Z01C{channel:02}.tif");
        list += &format!(
            "<bts:MeasurementRecord bts:Type=\"IMG\" bts:Column=\"2\" bts:Row=\"2\" bts:TimePoint=\"1\" bts:FieldIndex=\"{field}\" \
             bts:ZIndex=\"1\" bts:Ch=\"{channel}\">{name}</bts:MeasurementRecord>\n"
        );
        if (field, channel) != (2, 2) {
            store.add(&format!("AP/{name}"), b"");
        }
    }
    list += "<bts:MeasurementRecord bts:Type=\"ERR\" bts:Column=\"2\" bts:Row=\"3\">autofocus failed</bts:MeasurementRecord>\n";
    let end = "</bts:MeasurementData>\n";
    store.add("AP/MeasurementData.mlf", (list.clone() + end).as_bytes());
    store.add("AP/DC_sona.tif", b"");
    let found = store.read(&images("channels = [\"C01\", \"C02\"]"));
    assert_eq!(
        (found.layout, counts(&found)),
        (LayoutChoice::CellVoyager, (1, 1, 1))
    );
    let said = problems(&found);
    assert!(
        said[0].contains("1 errors of the microscope") && said[0].contains("autofocus failed"),
        "{said:#?}"
    );
    assert!(
        said[1].contains("well B02 field 2 channel C02") && said[1].contains("F002L01A01Z01C02.tif"),
        "{said:#?}"
    );
    assert_eq!(found.skipped[&SkipReason::Correction], 1);

    store.add("AP/MeasurementData.mlf", list.as_bytes());
    let found = store.read(&images("channels = [\"C01\", \"C02\"]"));
    let said = problems(&found);
    assert!(said[0].contains("truncated"), "{said:#?}");
    assert!(said[1].contains("field 2: no file for channel"), "{said:#?}");
}

#[test]
fn the_real_cellvoyager_plate_has_its_list_and_facts() {
    let Some(store) = shared("vendor_layouts/faim-ipa/CV8000") else {
        return;
    };
    let found = store.read(&images(
        "channels = [\"C01\", { name = \"GFP\", match = \"bp525/50\" }]",
    ));
    assert_eq!(
        (found.layout, counts(&found)),
        (LayoutChoice::CellVoyager, (1, 3, 12))
    );
    assert_eq!(problems(&found), Vec::<String>::new());
    assert!(
        found
            .why
            .contains("MeasurementData.mlf is the list of a CellVoyager measurement")
    );
    assert_eq!(
        facts(&found),
        [
            "C01: BP445/45, 0.325 um/pixel, 100 ms, 20x, objective '20x v2', excitation 405 nm, emission 445 nm, 16 bits",
            "GFP: BP525/50, 0.325 um/pixel, 100 ms, 20x, objective '20x v2', excitation 488 nm, emission 525 nm, 16 bits",
        ]
    );
    let field = &found.plates.values().next().unwrap()[0];
    assert_eq!(field.channels[0].planes.len(), 4);
    assert_eq!(found.skipped[&SkipReason::Correction], 6);
}

#[test]
fn real_imagexpress_plates_are_compared_with_their_htd() {
    for (plate, channels, expected, said) in [
        ("9987_Plate_3420", "[\"DAPI\"]", (1, 1, 1), vec![]),
        (
            "9987_Plate_3434",
            "[\"w1\", \"FITC\", \"texas red\"]",
            (1, 2, 4),
            vec!["lists channels without any image file: w4 (Cy5)"],
        ),
        (
            "9987_Plate_3435",
            "[\"w1\", \"w2\"]",
            (1, 2, 4),
            vec![
                "lists channels without any image file: w3 (Texas Red), w4 (Cy5)",
                "8 files of time points after 1",
            ],
        ),
    ] {
        let Some(store) = shared(&format!("vendor_layouts/faim-ipa/ImageXpress_exported/{plate}")) else {
            return;
        };
        let mut settings = images(&format!("channels = {channels}"));
        settings.store = format!("s3://bucket/{plate}/");
        let found = store.read(&settings);
        assert_eq!(
            (found.layout, counts(&found)),
            (LayoutChoice::ImageXpress, expected),
            "{plate}: {:?}",
            found.problems
        );
        assert_eq!(found.plates.keys().next().unwrap().as_str(), plate);
        let problems = problems(&found);
        assert_eq!(problems.len(), said.len(), "{problems:#?}");
        for part in said {
            assert!(
                problems.iter().any(|problem| problem.contains(part)),
                "no {part} in {problems:#?}"
            );
        }
        assert!(
            facts(&found)[0].contains("DAPI, 1.3672 um/pixel, 100 ms, 40x/"),
            "{:?}",
            facts(&found)
        );
        assert_eq!(
            found.facts.values().next().unwrap().len(),
            settings.channels.len()
        );
    }
}

#[test]
fn real_imagexpress_database_folders_are_plates_by_name() {
    let Some(store) = shared("vendor_layouts/faim-ipa/ImageXpress") else {
        return;
    };
    let found = store.read(&images("channels = [\"w1\", \"w2\"]"));
    let plates: Vec<(&str, usize, usize)> = found
        .plates
        .iter()
        .map(|(plate, fields)| {
            let planes = fields.first().map_or(0, |field| field.channels[0].planes.len());
            (plate.as_str(), fields.len(), planes)
        })
        .collect();
    // Stacks are read plane by plane; the projections beside them are not.
    assert_eq!(plates, [("1well-3C-2S-Zmix-T", 2, 1), ("Projection-Mix", 4, 10)]);
    assert_eq!(found.skipped[&SkipReason::Projection], 8);
    let single = images("channels = [\"w1\"]\nplates = [\"SingleChannel\"]");
    let found = store.read(&single);
    assert_eq!(counts(&found), (1, 2, 4));
    assert!(
        facts(&found)[0].contains("FITC_05, 1.3668 um/pixel, 15 ms, 20x/0.75"),
        "{:?}",
        facts(&found)
    );
}

#[test]
fn an_htd_that_disagrees_or_is_broken_is_reported() {
    let htd = "\"HTSInfoFile\", Version 1.0\n\"WellsSelection1\", TRUE, TRUE\n\"Sites\", TRUE\n\"SiteSelection1\", TRUE, TRUE\n\
               \"WaveName1\", \"DAPI\"\n\"WaveCollect1\", 1\n\"EndFile\"\n";
    let mut store = Store::default();
    for file in ["A01_s1_w1", "A01_s2_w1", "A03_s1_w1"] {
        store.add(&format!("P/P_{file}.TIF"), b"");
    }
    store.add("P/P.HTD", htd.as_bytes());
    let found = store.read(&images("channels = [\"DAPI\"]"));
    let said = problems(&found);
    for part in [
        "selects wells without any image file: A02",
        "does not select: A03",
        "well A03: 1 fields of 2",
    ] {
        assert!(
            said.iter().any(|problem| problem.contains(part)),
            "no {part} in {said:#?}"
        );
    }
    assert_eq!((counts(&found), said.len()), ((1, 2, 3), 3));

    store.add("P/P.HTD", &htd.as_bytes()[..60]);
    let found = store.read(&images("channels = [\"w1\"]"));
    assert!(
        problems(&found)[0].contains("P.HTD cannot be used"),
        "{:?}",
        problems(&found)
    );
    assert_eq!(counts(&found), (1, 2, 3));
}

/// A TIFF that is nothing but a description.
fn tiff(description: &str) -> Vec<u8> {
    let text = description.as_bytes();
    let mut file = b"II*\0\x08\0\0\0\x01\0".to_vec();
    file.extend([14, 1, 2, 0]);
    file.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    file.extend([26, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(text);
    file
}

/// An OME-XML document of `images` (id, inside of Pixels) and a plate of `wells` (row, column, image ids).
fn ome(images: &[(&str, String)], wells: &[(u32, u32, &[&str])]) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><OME xmlns=\"http://www.openmicroscopy.org/Schemas/OME/2016-06\" UUID=\"urn:uuid:0\">\
         <Plate ID=\"Plate:0\" Name=\"BR7\" RowNamingConvention=\"letter\">",
    );
    for (row, column, samples) in wells {
        text += &format!("<Well ID=\"Well:{row}:{column}\" Row=\"{row}\" Column=\"{column}\">");
        for (index, id) in samples.iter().enumerate() {
            text += &format!(
                "<WellSample ID=\"WellSample:{index}\" Index=\"{index}\"><ImageRef ID=\"{id}\"/></WellSample>"
            );
        }
        text += "</Well>";
    }
    text += "</Plate><Instrument ID=\"Instrument:0\"><Objective ID=\"Objective:0\" Model=\"Plan Apo\" NominalMagnification=\"20\" LensNA=\"0.75\"/></Instrument>";
    for (id, inside) in images {
        text += &format!(
            "<Image ID=\"{id}\" Name=\"{id}\"><ObjectiveSettings ID=\"Objective:0\"/><Pixels ID=\"Pixels:0\" DimensionOrder=\"XYZCT\" \
             Type=\"uint16\" SignificantBits=\"12\" SizeX=\"8\" SizeY=\"8\" SizeZ=\"2\" SizeC=\"2\" SizeT=\"1\" PhysicalSizeX=\"325\" PhysicalSizeXUnit=\"nm\" \
             PhysicalSizeY=\"325\" PhysicalSizeYUnit=\"nm\"><Channel ID=\"Channel:0:0\" Name=\"DAPI\" EmissionWavelength=\"460\" SamplesPerPixel=\"1\"/>\
             <Channel ID=\"Channel:0:1\" Name=\"GFP\" SamplesPerPixel=\"1\"/>{inside}\
             <Plane TheZ=\"0\" TheC=\"0\" TheT=\"0\" ExposureTime=\"50\" ExposureTimeUnit=\"ms\"/></Pixels></Image>"
        );
    }
    text + "</OME>"
}

const DAPI: &str =
    "DNA: DAPI, 0.325 um/pixel, 50 ms, 20x/0.75, objective 'Plan Apo', emission 460 nm, 12 bits";
const TWO: &str = "channels = [{ name = \"DNA\", match = \"dapi\" }, { name = \"GFP\", match = \"C1\" }]";

/// File and page of every plane of a field.
fn pages(found: &PlateFiles, field: usize) -> Vec<(String, Option<u32>)> {
    let channels = &found.plates.values().next().unwrap()[field].channels;
    let planes = channels.iter().flat_map(|channel| &channel.planes);
    planes
        .map(|plane| (plane.file.path.clone(), plane.page))
        .collect()
}

#[test]
fn ome_tiffs_of_a_plate_say_which_directory_is_which_plane() {
    // Every file describes the whole plate.
    let of_file = |name: &str| {
        format!(
            "<TiffData FirstZ=\"0\" IFD=\"0\" PlaneCount=\"4\"><UUID FileName=\"{name}\">urn:uuid:1</UUID></TiffData>"
        )
    };
    let text = ome(
        &[
            ("Image:0", of_file("a.ome.tif")),
            ("Image:1", of_file("b.ome.tif")),
            ("Image:2", of_file("c.ome.tif")),
        ],
        &[(0, 0, &["Image:0", "Image:1"]), (15, 23, &["Image:2"])],
    );
    let mut store = Store::default();
    for name in ["a", "b", "c"] {
        store.add(&format!("plate/{name}.ome.tif"), &tiff(&text));
    }
    let found = store.read(&images(TWO));
    assert_eq!(found.layout, LayoutChoice::OmeTiff);
    assert!(
        found
            .why
            .contains("the description of plate/a.ome.tif is OME-XML"),
        "{}",
        found.why
    );
    assert_eq!(counts(&found), (1, 2, 3));
    assert_eq!(problems(&found), ["plate BR7 well P24: 1 fields of 2"]);
    let a = || "plate/a.ome.tif".to_owned();
    assert_eq!(
        pages(&found, 0),
        [(a(), Some(0)), (a(), Some(1)), (a(), Some(2)), (a(), Some(3))]
    );
    assert_eq!(facts(&found)[0], DAPI);

    store.remove("plate/c.ome.tif");
    let found = store.read(&images(TWO));
    assert_eq!(counts(&found), (1, 1, 2));
    assert!(
        problems(&found)
            .iter()
            .any(|problem| problem.contains("well P24 field 1 channel DNA, GFP")
                && problem.contains("plate/c.ome.tif"))
    );
}

#[test]
fn a_companion_speaks_for_files_that_point_at_it() {
    let block = |name: &str, channel: u32| {
        format!(
            "<TiffData FirstC=\"{channel}\" IFD=\"0\" PlaneCount=\"2\"><UUID FileName=\"{name}\">urn:uuid:1</UUID></TiffData>"
        )
    };
    let text = ome(
        &[("Image:0", block("w1.ome.tif", 0) + &block("w2.ome.tif", 1))],
        &[(1, 2, &["Image:0"])],
    );
    let mut store = Store::default();
    store.add("p/p.companion.ome", text.as_bytes());
    for name in ["w1", "w2"] {
        store.add(
            &format!("p/{name}.ome.tif"),
            &tiff("<OME><BinaryOnly MetadataFile=\"p.companion.ome\" UUID=\"urn:uuid:0\"/></OME>"),
        );
    }
    let found = store.read(&images(TWO));
    assert_eq!(
        (found.layout, counts(&found), problems(&found)),
        (LayoutChoice::OmeTiff, (1, 1, 1), vec![])
    );
    assert_eq!(found.plates.values().next().unwrap()[0].well.to_string(), "B03");
    assert_eq!(pages(&found, 0)[3], ("p/w2.ome.tif".to_owned(), Some(1)));

    store.add("p/p.companion.ome", &text.as_bytes()[..400]);
    assert!(problems(&store.read(&images(TWO)))[0].contains("p/p.companion.ome cannot be used"));
}

#[test]
fn ome_tiffs_without_a_plate_are_placed_by_their_names() {
    let mut store = Store::default();
    // The name inside is that of before the file was renamed; the last is of no well.
    for name in ["x_A01_s1", "x_A01_s2", "x_B12_s1", "overview"] {
        let block = "<TiffData><UUID FileName=\"old.ome.tif\">urn:uuid:1</UUID></TiffData>".to_owned();
        store.add(
            &format!("BR7/{name}.ome.tif"),
            &tiff(&ome(&[("Image:0", block)], &[])),
        );
    }
    let found = store.read(&images(TWO));
    assert_eq!(counts(&found), (1, 2, 3));
    let said = problems(&found);
    assert!(
        said.iter()
            .any(|problem| problem.contains("overview.ome.tif: 1 images name no well")),
        "{said:?}"
    );
    assert_eq!(pages(&found, 1)[3], ("BR7/x_A01_s2.ome.tif".to_owned(), Some(3)));
}

#[test]
fn real_companions_without_images_are_read_and_name_no_well() {
    let Some(store) = shared("vendor_layouts/faim-ipa/ome-tiff") else {
        return;
    };
    let found = store.read(&images("channels = [\"Conf405\"]"));
    assert_eq!((found.layout, found.plates.len()), (LayoutChoice::OmeTiff, 0));
    let said = problems(&found);
    assert!(
        said.len() == 2 && said.iter().all(|problem| problem.contains("images name no well")),
        "{said:?}"
    );
}

#[test]
fn ome_names_without_ome_xml_are_read_as_names() {
    let Some(store) = shared("vendor_layouts/plateviewer/ALMF") else {
        return;
    };
    let found = store.read(&images("channels = [\"C00\", \"C01\"]"));
    assert_eq!((found.layout, counts(&found)), (LayoutChoice::ScanR, (1, 1, 2)));
}

/// A table of two wells, two sites and two channels, as the Gallery writes it.
fn load_data(urls: bool) -> String {
    let mut text = if urls {
        "URL_OrigDNA,URL_OrigER,URL_IllumDNA,Metadata_Well,Metadata_Site,Metadata_Plate\n".to_owned()
    } else {
        "FileName_OrigDNA,PathName_OrigDNA,FileName_OrigER,PathName_OrigER,FileName_IllumDNA,PathName_IllumDNA,Metadata_Plate,Metadata_Well,Metadata_Site\n".to_owned()
    };
    for (row, well) in [(1, "A01"), (16, "P24")] {
        for site in 1..=2 {
            let name = |channel| phenix(row, if row == 1 { 1 } else { 24 }, site, 1, channel);
            let (dna, er) = (name(1), name(2));
            let folder = "BR001__2020-11-08T18_18_00-Measurement 1/Images";
            text += &if urls {
                let base = format!(
                    "s3://cellpainting-gallery/cpg0000/source_4/images/b/images/{}",
                    folder.replace(' ', "%20")
                );
                format!("{base}/{dna},{base}/{er},s3://illum.npy,{well},{site},BR001\n")
            } else {
                let base = format!("/home/ubuntu/bucket/projects/b/images/{folder}/");
                format!("{dna},{base},{er},{base},i.npy,/x,BR001,{well},{site}\n")
            };
        }
    }
    text
}

fn gallery() -> Store {
    let mut store = Store::default();
    for plate in ["BR001", "BR002"] {
        for (row, column) in [(1, 1), (16, 24)] {
            for (site, channel) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
                let folder = format!("images/b/images/{plate}__2020-11-08T18_18_00-Measurement 1/Images/");
                store.add(&format!("{folder}{}", phenix(row, column, site, 1, channel)), b"");
            }
        }
    }
    store
}

#[test]
fn the_gallerys_tables_name_plate_well_site_and_channel() {
    use std::io::Write as _;
    for (urls, zipped) in [(false, false), (true, false), (true, true)] {
        let mut store = gallery();
        let text = load_data(urls);
        if zipped {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(text.as_bytes()).unwrap();
            store.add(
                "workspace/load_data_csv/b/BR001/load_data.csv.gz",
                &gz.finish().unwrap(),
            );
        } else {
            store.add("workspace/load_data_csv/b/BR001/load_data.csv", text.as_bytes());
            store.add(
                "workspace/load_data_csv/b/BR001/load_data_with_illum.csv",
                b"not read",
            );
        }
        let mut settings = images("channels = [\"DNA\", \"ER\"]\nplates = [\"BR001\"]");
        let found = store.read(&settings);
        assert_eq!(found.layout, LayoutChoice::Gallery, "{}", found.why);
        assert_eq!(
            (counts(&found), problems(&found)),
            ((1, 2, 4), vec![]),
            "urls {urls}"
        );
        // A plate without a table is read by its names, which know no channel called DNA.
        settings.plates.clear();
        assert!(
            problems(&store.read(&settings))
                .iter()
                .any(|problem| problem.contains("plate BR002") && problem.contains("'ch1'"))
        );
    }
}

#[test]
fn a_table_that_disagrees_or_is_broken_is_reported() {
    let mut store = gallery();
    let text = load_data(false).replace("P24,2\n", "Z99,2\n") + "x.tif,/y,z.tif,/y,i,/x,BR001,A02,1\n";
    store.add("load_data.csv", text.as_bytes());
    let found = store.read(&images(
        "layout = \"gallery\"\nchannels = [\"DNA\", \"ER\"]\nplates = [\"BR001\"]",
    ));
    assert_eq!(counts(&found), (1, 2, 3));
    let said = problems(&found);
    for part in [
        "1 rows cannot be read (the first: line 5: well 'Z99'",
        "well A02 field 1 channel DNA, ER: load_data.csv lists files that are not there: /y/x.tif",
        "2 image files that load_data.csv does not list",
    ] {
        assert!(
            said.iter().any(|problem| problem.contains(part)),
            "no {part} in {said:#?}"
        );
    }
    store.add("load_data.csv", b"a,b\n1,2\n");
    let found = store.read(&images("layout = \"gallery\"\nchannels = [\"DNA\"]"));
    assert!(
        problems(&found)[0].contains("no column FileName_Orig"),
        "{:?}",
        problems(&found)
    );
}
