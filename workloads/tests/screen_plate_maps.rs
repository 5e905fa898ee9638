//! Plate maps: spellings that laboratories use, every problem at once, and roles from selectors.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use proptest::prelude::*;
use wellspring_workloads::plate_map::{PlateMap, PlateMapErrors};
use wellspring_workloads::profile::Role;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, WellPosition};

fn screen(plate_map: &str, controls: &str) -> Screen {
    let text = format!(
        "[screen]\nname = \"a\"\n[images]\nstore = \"i\"\nchannels = [\"DNA\"]\n\
         [plate_map]\nfile = \"m.csv\"\n{plate_map}\n[controls]\n{controls}\n"
    );
    Screen::parse(&text, "a.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

const CONTROLS: &str = "reference = { role = \"healthy\" }\nphenotype = { role = \"disease\" }";

fn parse(text: &str, plate_map: &str) -> Result<PlateMap, PlateMapErrors> {
    PlateMap::parse(text, "m.csv", &screen(plate_map, CONTROLS).plate_map)
}

fn well(text: &str) -> WellPosition {
    text.parse().unwrap()
}

fn plate(text: &str) -> Barcode {
    text.parse().unwrap()
}

#[test]
fn commas_tabs_semicolons_and_a_byte_order_mark_are_read_alike() {
    for separator in [",", "\t", ";"] {
        let text =
            "\u{feff}Well,Compound,Dose\r\na1,DMSO,0\r\n A02 ,\"x y\",3e1\r\n,,\r\n".replace(',', separator);
        let map = parse(&text, "").unwrap_or_else(|errors| panic!("{errors}"));
        let row = map.treatment(&plate("any"), well("A2")).unwrap();
        assert_eq!(
            (row.compound.as_deref(), row.dose, row.line),
            (Some("x y"), Some(30.0), 3)
        );
        assert_eq!(map.treatment(&plate("any"), well("A03")), None);
        assert_eq!(map.plates().count(), 0);
    }
}

#[test]
fn gallery_column_names_are_known() {
    let text = "plate_map_name\twell_position\tbroad_sample\tsolvent\tmmoles_per_liter\nC-1\tA01\tBRD-1\tDMSO\t5.0\n";
    let map = parse(text, "").unwrap();
    let row = map.treatment(&plate("any"), well("A01")).unwrap();
    assert_eq!((row.compound.as_deref(), row.dose), (Some("BRD-1"), Some(5.0)));
}

#[test]
fn a_plate_column_keeps_plates_apart() {
    let map = parse("plate,well,compound\nP1,A01,a\nP2,A01,b\n", "").unwrap();
    let compound = |name: &str| {
        map.treatment(&plate(name), well("A01"))
            .and_then(|row| row.compound.clone())
    };
    assert_eq!(
        (
            compound("P1").as_deref(),
            compound("P2").as_deref(),
            compound("P3")
        ),
        (Some("a"), Some("b"), None)
    );
}

#[test]
fn every_problem_is_reported_with_its_line_and_column() {
    let text = "well,compound,dose\nA01,a,1\nZZ9,a,1\nA1,a,2\nA03,a,10 mg/ml\nA04,a,-1\nA05,a\n\nA06,a,inf\n";
    let errors = parse(text, "dose_unit = \"nM\"").unwrap_err();
    let lines: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    let expected = [
        ("m.csv:3:1: ", "outside"),
        ("m.csv:4:1: ", "well A01 is listed twice: first on line 2"),
        (
            "m.csv:5:3: ",
            "'10 mg/ml' becomes nM only with the compound's molecular mass",
        ),
        ("m.csv:6:3: ", "dose -1 is not possible"),
        ("m.csv:7:1: ", "2 cells where the header has 3"),
        ("m.csv:9:3: ", "dose inf is not possible"),
    ];
    assert_eq!(lines.len(), expected.len(), "{errors}");
    for (line, (start, part)) in lines.iter().zip(expected) {
        assert!(line.starts_with(start) && line.contains(part), "{line}");
    }
}

#[test]
fn tables_without_what_is_needed_say_so() {
    for (text, settings, part) in [
        ("", "", "no header"),
        ("well\n", "", "no well"),
        (
            "position,dose\nA01,1\n",
            "",
            "no column is named well or well_position",
        ),
        (
            "well,conc\nA01,1\n",
            "columns = { dose = \"con\" }",
            "did you mean 'conc'?",
        ),
        ("well,well\nA01,A01\n", "", "two columns are named 'well'"),
        ("plate,well\n/,A01\n", "", "plate barcode '/'"),
    ] {
        let errors = parse(text, settings).unwrap_err();
        assert!(errors.to_string().contains(part), "{errors}");
    }
}

const MAP: &str = "well,role,compound,dose,state\nA01,healthy,DMSO,0,healthy\nA02,disease,DMSO,0,D1\n\
                   A03,treated,x,10,D1\nA04,empty,,,\n";

#[test]
fn compounds_on_healthy_cells_name_no_disease() {
    let screen = screen(
        "columns = { disease = \"state\" }",
        "reference = { compound = \"DMSO\", state = \"healthy\" }\nphenotype = { compound = \"DMSO\", state = \"D1\" }",
    );
    let map = "well,compound,dose,state\nA01,DMSO,0,healthy\nA02,DMSO,0,D1\nA03,x,10,D1\nA04,x,10,healthy\nA05,x,10,D2\n";
    let map = PlateMap::parse(map, "m.csv", &screen.plate_map).unwrap();
    let treatments = screen.treatments(&map, &plate("P")).unwrap();
    let disease = |name: &str| treatments[&well(name)].disease.as_deref();
    assert_eq!(
        (disease("A01"), disease("A03"), disease("A04"), disease("A05")),
        (None, Some("D1"), None, Some("D2"))
    );
    assert_eq!(treatments[&well("A04")].role, Role::Treated);
}

#[test]
fn only_a_screen_for_activity_needs_no_phenotype() {
    let text = |question: &str| {
        format!(
            "[screen]\nname = \"a\"\n[images]\nstore = \"i\"\nchannels = [\"DNA\"]\n[plate_map]\nfile = \"m.csv\"\n\
             [controls]\nreference = {{ control_type = \"negcon\" }}\n[comparison]\nquestion = \"{question}\"\n"
        )
    };
    let screen = Screen::parse(&text("activity"), "a.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let map = "well,compound,control_type\nA01,DMSO,negcon\nA02,x,\nA03,y,poscon_cp\n";
    let map = PlateMap::parse(map, "m.csv", &screen.plate_map).unwrap();
    let treatments = screen.treatments(&map, &plate("P")).unwrap();
    let roles: Vec<Role> = treatments.values().map(|treatment| treatment.role).collect();
    assert_eq!(roles, [Role::Reference, Role::Treated, Role::Treated]);
    let errors = Screen::parse(&text("rescue"), "a.toml").unwrap_err().to_string();
    assert!(
        errors.contains("phenotype") && errors.contains("activity"),
        "{errors}"
    );
}

#[test]
fn roles_follow_the_selectors_and_excluded_wells_are_absent() {
    let controls = format!("{CONTROLS}\nexclude = {{ role = [\"empty\", \"bad\"] }}");
    let screen = screen("columns = { disease = \"state\" }", &controls);
    let map = PlateMap::parse(MAP, "m.csv", &screen.plate_map).unwrap();
    let treatments = screen
        .treatments(&map, &plate("P"))
        .unwrap_or_else(|errors| panic!("{errors}"));
    let found: Vec<_> = treatments
        .values()
        .map(|t| (t.role, t.disease.as_deref(), t.dose))
        .collect();
    assert_eq!(
        found,
        [
            (Role::Reference, None, Some(0.0)),
            (Role::Phenotype, Some("D1"), Some(0.0)),
            (Role::Treated, Some("D1"), Some(10.0)),
        ]
    );
}

#[test]
fn selectors_that_select_nothing_name_what_there_is() {
    for (controls, part) in [
        (
            "reference = { role = \"helthy\" }\nphenotype = { role = \"disease\" }\nexclude = { role = \"empty\" }",
            "controls.reference (role = \"helthy\") selects no well of plate P in m.csv; its column 'role' holds 'disease', 'healthy', 'treated'",
        ),
        (
            "reference = { rol = 1 }\nphenotype = { role = \"disease\" }",
            "did you mean 'role'?",
        ),
        (
            "reference = { role = \"healthy\" }\nphenotype = { dose = 0 }",
            "both select A01",
        ),
        (
            CONTROLS,
            "A04 are neither reference nor phenotype and have no compound",
        ),
    ] {
        let screen = screen("", controls);
        let map = PlateMap::parse(MAP, "m.csv", &screen.plate_map).unwrap();
        let errors = screen.treatments(&map, &plate("P")).unwrap_err();
        assert!(errors.to_string().contains(part), "{errors}");
    }
    let screen = screen("", CONTROLS);
    let map = PlateMap::parse("plate,well,role\nP1,A01,healthy\n", "m.csv", &screen.plate_map).unwrap();
    let errors = screen.treatments(&map, &plate("P9")).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("no row for plate P9: the map has plates P1"),
        "{errors}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>(), table in "(well|dose|plate|A1|,|;|\t|\n|\"|é|1e9|-){0,40}") {
        for text in [text, table] {
            if let Err(errors) = parse(&text, "") {
                prop_assert!(!errors.0.is_empty());
            }
        }
    }
}
