//! OME-Zarr plates: as ome-zarr-py writes them, and what disagrees or is broken in them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what they skip, as tests do"
)]

#[path = "layouts/mod.rs"]
mod layouts;

use std::io::Read;

use layouts::{Store, counts, images, shared};
use serde_json::{Value, json};
use wellspring_workloads::layout::{FileProblem, PlateFiles};
use wellspring_workloads::screen::LayoutChoice;

const TWO: &str = "channels = [{ name = \"DNA\", match = \"DAPI\" }, \"GFP\"]";

fn problems(found: &PlateFiles) -> Vec<String> {
    found.problems.iter().map(ToString::to_string).collect()
}

fn facts(found: &PlateFiles) -> Vec<String> {
    let facts = found.facts.values().flatten();
    facts.map(|of| format!("{}: {}", of.channel, of.facts)).collect()
}

/// The planes of a channel of the field at `index`: path and page.
fn pages(found: &PlateFiles, index: usize, channel: usize) -> Vec<(String, Option<u32>)> {
    let field = &found.plates.values().next().unwrap()[index];
    let planes = field.channels[channel].planes.iter();
    planes
        .map(|plane| (plane.file.path.clone(), plane.page))
        .collect()
}

fn unpacked(archive: &[u8]) -> Store {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    let mut store = Store::default();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let name = file.name().to_owned();
        store.add(&name, &bytes);
    }
    store
}

#[test]
fn plates_of_another_writer_are_read_in_both_versions() {
    let v4 = unpacked(include_bytes!("../../pipeline/zarr/tests/made/plate-0.4.zip"));
    let found = v4.read(&images(TWO));
    assert_eq!(found.layout, LayoutChoice::OmeZarr);
    assert_eq!(
        found.why,
        "BR04.ome.zarr/.zattrs has the attributes of an OME-Zarr 0.4 plate"
    );
    assert_eq!((counts(&found), problems(&found)), ((1, 2, 4), vec![]));
    let (plate, fields) = found.plates.iter().next().unwrap();
    let names: Vec<String> = fields
        .iter()
        .map(|field| format!("{plate} {} {}", field.well, field.field))
        .collect();
    assert_eq!(names, ["BR04 B03 0", "BR04 B03 1", "BR04 C11 0", "BR04 C11 1"]);
    // Three slices of either channel, in one array.
    let path = || "BR04.ome.zarr/B/3/0/s0/.zarray".to_owned();
    assert_eq!(
        pages(&found, 0, 0),
        [(path(), Some(0)), (path(), Some(1)), (path(), Some(2))]
    );
    assert_eq!(
        pages(&found, 0, 1),
        [(path(), Some(3)), (path(), Some(4)), (path(), Some(5))]
    );
    assert_eq!(fields[0].channels[0].planes[0].file.size, 40 * 56 * 2);
    let taken = [
        "DNA: DAPI, 0.65 um/pixel, 16 bits",
        "GFP: GFP, 0.65 um/pixel, 16 bits",
    ];
    assert_eq!(facts(&found), taken);

    let v5 = unpacked(include_bytes!("../../pipeline/zarr/tests/made/plate-0.5.zip"));
    let found = v5.read(&images(TWO));
    assert_eq!(
        found.why,
        "BR05.zarr/zarr.json has the attributes of an OME-Zarr 0.5 plate"
    );
    assert_eq!(
        (counts(&found), problems(&found), facts(&found)),
        ((1, 2, 4), vec![], taken.map(str::to_owned).to_vec())
    );
    assert_eq!(
        pages(&found, 3, 1),
        [("BR05.zarr/C/11/1/s0/zarr.json".to_owned(), Some(1))]
    );
}

#[test]
fn channels_go_by_number_too_and_the_layout_can_be_set() {
    let store = unpacked(include_bytes!("../../pipeline/zarr/tests/made/plate-0.5.zip"));
    let found = store.read(&images(
        "layout = \"ome-zarr\"\nplate = \"X\"\nchannels = [\"c1\"]",
    ));
    assert_eq!(found.plates.keys().next().unwrap().as_str(), "X");
    assert_eq!(pages(&found, 0, 0)[0].1, Some(1));
    let said = problems(&found);
    assert!(
        said.len() == 1 && said[0].contains("of channel 'C0 (DAPI)'"),
        "{said:?}"
    );
}

/// An OME-Zarr plate of wells B/3 and C/11 with two fields, whose arrays have this shape and whose images these axes.
fn plate(axes: &[&str], shape: &[u64]) -> Store {
    let mut store = Store::default();
    let wells = json!([
        {"path": "B/3", "rowIndex": 1, "columnIndex": 2},
        {"path": "C/11", "rowIndex": 2, "columnIndex": 10},
    ]);
    set(
        &mut store,
        "BR9.zarr",
        &json!({"plate": {"wells": wells, "version": "0.4"}}),
    );
    for well in ["B/3", "C/11"] {
        let images = json!([{"path": "0", "acquisition": 3}, {"path": "1", "acquisition": 3}]);
        set(
            &mut store,
            &format!("BR9.zarr/{well}"),
            &json!({"well": {"images": images}}),
        );
        for field in 0..2 {
            let folder = format!("BR9.zarr/{well}/{field}");
            set(&mut store, &folder, &image(axes, &["DAPI", "GFP"]));
            let chunks: Vec<u64> = shape
                .iter()
                .enumerate()
                .map(|(at, length)| if at + 2 < shape.len() { 1 } else { *length })
                .collect();
            let document = json!({"zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": "<u2", "dimension_separator": "/"});
            store.add(&format!("{folder}/0/.zarray"), document.to_string().as_bytes());
            for page in 0..shape[..shape.len() - 2].iter().product::<u64>() {
                let mut rest = page;
                let mut place = vec!["0".to_owned(), "0".to_owned()];
                for length in shape[..shape.len() - 2].iter().rev() {
                    place.insert(0, (rest % length).to_string());
                    rest /= length;
                }
                store.add(&format!("{folder}/0/{}", place.join("/")), b"x");
            }
        }
    }
    store
}

fn image(axes: &[&str], labels: &[&str]) -> Value {
    let axes: Vec<Value> = axes.iter().map(|name| json!({"name": name})).collect();
    let labels: Vec<Value> = labels.iter().map(|label| json!({"label": label})).collect();
    json!({"multiscales": [{"axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}], "omero": {"channels": labels}})
}

/// Writes the attributes of a group.
fn set(store: &mut Store, folder: &str, attributes: &Value) {
    store.add(&format!("{folder}/.zattrs"), attributes.to_string().as_bytes());
}

const CZYX: [&str; 4] = ["c", "z", "y", "x"];

#[test]
fn of_time_points_the_first_is_taken_and_the_rest_are_counted() {
    let found = plate(&["t", "c", "y", "x"], &[3, 2, 64, 32]).read(&images(TWO));
    assert_eq!(counts(&found), (1, 2, 4));
    assert_eq!(
        (pages(&found, 0, 0)[0].1, pages(&found, 0, 1)[0].1),
        (Some(0), Some(1))
    );
    assert_eq!(
        problems(&found),
        [
            "plate BR9: 16 files of time points after 0 are not processed (for example BR9.zarr/B/3/0/0/.zarray)"
        ]
    );
}

#[test]
fn of_acquisitions_the_first_is_taken_and_the_rest_are_counted() {
    let mut store = plate(&CZYX, &[2, 1, 64, 32]);
    let images_of = json!([{"path": "0", "acquisition": 3}, {"path": "1", "acquisition": 4}]);
    for well in ["B/3", "C/11"] {
        set(
            &mut store,
            &format!("BR9.zarr/{well}"),
            &json!({"well": {"images": images_of}}),
        );
    }
    let found = store.read(&images(TWO));
    assert_eq!(counts(&found), (1, 2, 2));
    assert_eq!(
        problems(&found),
        ["plate BR9: 2 images of acquisitions after 3 are not processed (for example BR9.zarr/B/3/1/)"]
    );
    assert!(found.problems[0].is_remark());
}

#[test]
fn images_with_their_channels_in_another_order_are_read_by_their_labels() {
    let mut store = plate(&CZYX, &[2, 1, 64, 32]);
    set(&mut store, "BR9.zarr/C/11/0", &image(&CZYX, &["GFP", "DAPI"]));
    set(&mut store, "BR9.zarr/C/11/1", &image(&CZYX, &["GFP", "Cy5"]));
    let found = store.read(&images(TWO));
    assert_eq!(
        (pages(&found, 0, 0)[0].1, pages(&found, 0, 1)[0].1),
        (Some(0), Some(1))
    );
    assert_eq!(
        (pages(&found, 2, 0)[0].1, pages(&found, 2, 1)[0].1),
        (Some(1), Some(0))
    );
    let said = problems(&found);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("plate BR9 well C11 field 1: no file for channel DNA"),
        "{said:?}"
    );
    assert!(said[1].contains("of channel 'Cy5'"), "{said:?}");
}

#[test]
fn planes_that_were_never_written_are_not_black_images() {
    let mut store = plate(&CZYX, &[2, 3, 64, 32]);
    store.remove("BR9.zarr/C/11/1/0/1/2/0/0");
    let found = store.read(&images(TWO));
    let said = problems(&found);
    assert_eq!(counts(&found), (1, 2, 3));
    assert_eq!(
        said,
        [
            "plate BR9 well C11 field 1 channel GFP: BR9.zarr/C/11/1/0/.zarray lists files that are not there: BR9.zarr/C/11/1/0/1/2/0/0"
        ]
    );
    // Part of a plane may be absent: writers leave out chunks of the fill value.
    let mut store = plate(&CZYX, &[2, 1, 64, 32]);
    let document = json!({"zarr_format": 2, "shape": [2, 1, 64, 32], "chunks": [1, 1, 64, 16], "dtype": "<u2", "dimension_separator": "/"});
    store.add("BR9.zarr/B/3/0/0/.zarray", document.to_string().as_bytes());
    let found = store.read(&images(TWO));
    assert_eq!(counts(&found), (1, 2, 4));
    assert_eq!(
        problems(&found),
        [
            "plate BR9: 2 chunks of Zarr arrays are not there and are read as their fill value (for example BR9.zarr/B/3/0/0/0/0/0/1)"
        ]
    );
}

#[test]
fn documents_that_are_absent_or_broken_cost_only_what_they_speak_of() {
    let mut store = plate(&CZYX, &[2, 1, 64, 32]);
    store.remove("BR9.zarr/B/3/1/0/.zarray");
    store.add("BR9.zarr/C/11/0/.zattrs", b"{\"multiscales\":");
    store.add(
        "BR9.zarr/C/11/1/0/.zarray",
        b"{\"zarr_format\":2,\"shape\":[2,1,64,32],\"chunks\":[1,1,64,32],\"dtype\":\"<f4\"}",
    );
    let found = store.read(&images(TWO));
    assert_eq!(counts(&found), (1, 1, 1));
    let said = problems(&found);
    for part in [
        "plate BR9 well B03 field 1: BR9.zarr/B/3/1/0/ cannot be used: the plate lists it",
        "plate BR9 well C11 field 0: BR9.zarr/C/11/0/.zattrs cannot be used: it is no JSON",
        "plate BR9 well C11 field 1: BR9.zarr/C/11/1/0/.zarray cannot be used: its pixels are \"<f4\"",
    ] {
        assert!(
            said.iter().any(|problem| problem.contains(part)),
            "no {part} in {said:#?}"
        );
    }
    let lost: Vec<String> = found
        .problems
        .iter()
        .filter_map(FileProblem::lost_field)
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lost,
        [
            "plate BR9 well B03 field 1",
            "plate BR9 well C11 field 0",
            "plate BR9 well C11 field 1"
        ]
    );

    // A well's own document, axes that are turned, a well that is none.
    let mut store = plate(&CZYX, &[2, 1, 64, 32]);
    store.refuse("BR9.zarr/B/3/.zattrs", "refused");
    set(&mut store, "BR9.zarr/C/11/1", &image(&["c", "z", "x", "y"], &[]));
    let found = store.read(&images(TWO));
    let said = problems(&found);
    assert!(
        said.iter().any(|problem| problem.contains("well B03: refused")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|problem| problem.contains("its axes are czxy")),
        "{said:?}"
    );
    assert_eq!(counts(&found), (1, 1, 1));
    let mut store = plate(&CZYX, &[2, 1, 64, 32]);
    set(
        &mut store,
        "BR9.zarr",
        &json!({"plate": {"wells": [{"path": "../x"}, {"path": "B/3"}]}}),
    );
    let found = store.read(&images(TWO));
    assert!(
        problems(&found)[0].contains("is no well"),
        "{:?}",
        problems(&found)
    );
    assert_eq!(counts(&found), (1, 1, 2));
}

#[test]
fn only_plates_that_are_asked_for_are_read_and_images_alone_are_no_plate() {
    let mut store = plate(&CZYX, &[2, 1, 64, 32]);
    let other = plate(&CZYX, &[2, 1, 64, 32]);
    for file in other.listing() {
        let path = file.path.replace("BR9.zarr", "set/BR8.ome.zarr");
        store.add(&path, &other.bytes(&file.path).unwrap());
    }
    let found = store.read(&images(TWO));
    let plates: Vec<&str> = found.plates.keys().map(|plate| plate.as_str()).collect();
    assert_eq!(plates, ["BR8", "BR9"]);
    // What is broken in another plate is not looked at.
    store.add("set/BR8.ome.zarr/B/3/.zattrs", b"{");
    let found = store.read(&images(&format!("plates = [\"BR9\"]\n{TWO}")));
    assert_eq!((counts(&found), problems(&found)), ((1, 2, 4), vec![]));

    let mut store = Store::default();
    store.add("x.zarr/.zattrs", b"{\"multiscales\":[]}");
    store.add("P/P_A01_s1_w1.tif", b"");
    assert_eq!(
        store.read(&images("channels = [\"w1\"]")).layout,
        LayoutChoice::ImageXpress
    );
}

#[test]
fn the_published_example_of_a_plate_is_read_as_far_as_it_goes() {
    let Some(shared) = shared("vendor_layouts") else {
        return;
    };
    let example = shared.bytes("ngff_plate_2wells.json").unwrap();
    let mut store = Store::default();
    store.add("plate.zarr/.zattrs", &example);
    let found = store.read(&images("channels = [\"C0\"]"));
    let said = problems(&found);
    assert_eq!(found.layout, LayoutChoice::OmeZarr);
    assert!(
        said.len() == 2 && said[0].contains("plate.zarr/C/5/") && said[1].contains("plate.zarr/D/7/"),
        "{said:?}"
    );
}
