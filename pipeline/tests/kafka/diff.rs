//! What differs between two runs, told from the log.

use serde_json::{Value, json};
use wellspring::events::{ComparisonRecord, Status, WellRecord};
use wellspring::kafka::OutRecord;
use wellspring::kafka::topics::Topic;
use wellspring::runs::run_id;
use wellspring_workloads::screen::Screen;

use crate::{Broker, command, publish, text};

const SCREEN: &str = r#"
[screen]
name = "first"
[images]
store = "/plates"
layout = "imagexpress"
channels = [{ name = "DNA", match = "w1" }]
[plate_map]
file = "/platemap.csv"
[controls]
reference = { cell_line = "WT" }
phenotype = { cell_line = "NF1" }
"#;

fn submitted(screen: &str, plates: &[&str]) -> (String, OutRecord) {
    let screen = Screen::parse(screen, "screen.toml").unwrap();
    let run = run_id(&screen);
    let status: Status = serde_json::from_value(json!({
        "status": "run_submitted", "run": run, "screen": screen, "plates": plates, "time_ms": 1,
    }))
    .unwrap();
    let record = OutRecord::new(Topic::Status, run.as_str(), "id", "wellspring.status.v1", &status);
    (run, record.unwrap())
}

fn profile(run: &str, well: &str, fields: u32, embedding: &[f32]) -> OutRecord {
    let record = WellRecord {
        run: run.to_owned(),
        plate: "P1".parse().unwrap(),
        well: well.parse().unwrap(),
        fields,
        embedding: embedding.to_vec(),
    };
    OutRecord::new(Topic::Profiles, "P1", well, "wellspring.profile.v1", &record).unwrap()
}

fn comparison(run: &str, compound: &str, dose: f64, call: &str, rescue: f64) -> OutRecord {
    let record: ComparisonRecord = serde_json::from_value(json!({
        "level": "dose", "run": run, "disease": "NF1", "compound": compound, "dose": dose, "dose_unit": "uM",
        "counter_screen": false, "n_wells": 2, "n_plates": 1, "on_axis": 0.25, "off_axis": 0.5, "aligned_on_axis": null,
        "excess": 0.1, "off_z": 1.0, "off_z_support": 0.5, "effect_z": 4.0, "effect_z_support": 3.0, "rescue": rescue,
        "specificity": null, "distance": 0.6, "direction_cosine": 0.9, "cell_ratio": null, "p_value": 0.001,
        "q_value": 0.01, "p_off": 1.0, "q_off": 1.0, "map_q_value": 0.02, "call": call,
    }))
    .unwrap();
    let id = format!("{compound}-{dose}-{call}");
    OutRecord::new(
        Topic::Comparisons,
        compound,
        id,
        "wellspring.comparison.v1",
        &record,
    )
    .unwrap()
}

#[test]
fn two_runs_are_held_beside_each_other() {
    let broker = Broker::embedded();
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let (a, first) = submitted(SCREEN, &["P1", "P2"]);
    let changed = SCREEN.replace("\"first\"", "\"second\"");
    let (b, second) = submitted(&format!("{changed}[comparison]\nseed = 7\n"), &["P1", "P3"]);
    publish(
        &kafka,
        &[
            first,
            second,
            profile(&a, "A01", 2, &[1.0, 0.0]),
            profile(&b, "A01", 2, &[1.0, 0.0]),
            profile(&a, "A02", 2, &[1.0, 0.0]),
            profile(&b, "A02", 1, &[0.0, 1.0]),
            profile(&a, "A03", 2, &[1.0, 0.0]),
            profile(&b, "A04", 2, &[1.0, 0.0]),
            comparison(&a, "X", 1.0, "rescue_hit", 0.8),
            comparison(&b, "X", 1.0, "active", 0.3),
            comparison(&a, "Y", 1.0, "inactive", 0.1),
            // Published once, and again when the run's results were made anew: the last one stands.
            comparison(&b, "Y", 1.0, "toxic", 0.1),
            comparison(&b, "Y", 1.0, "inactive", 0.2),
            comparison(&a, "Z", 1.0, "inactive", 0.1),
        ],
    );
    let found = command(&kafka, &["runs", "diff", &a, &b, "--json"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found.stderr));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["made"], json!(["[comparison] of the screens"]));
    assert_eq!(
        (&found["plates_of_a"], &found["plates_of_b"]),
        (&json!(["P2"]), &json!(["P3"]))
    );
    let wells = &found["wells"];
    assert_eq!(
        [&wells["same"], &wells["changed"], &wells["of_a"], &wells["of_b"]],
        [1, 1, 1, 1]
    );
    let turned = json!([{"plate": "P1", "well": "A02", "cosine": 0.0, "fields": [2, 1]}]);
    assert_eq!(wells["furthest"], turned);
    let of = &found["comparisons"];
    assert_eq!([&of["same_call"], &of["of_a"], &of["of_b"]], [1, 1, 0]);
    assert!((of["largest_rescue_change"].as_f64().unwrap() - 0.5).abs() < 1e-12);
    let change = &of["changed"][0];
    assert_eq!(of["changed"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&change["compound"], &change["call"], &change["rescue"]),
        (&json!("X"), &json!(["rescue_hit", "active"]), &json!([0.8, 0.3]))
    );

    let told = text(&command(&kafka, &["runs", "diff", &a, &b]).stdout);
    for line in [
        "made differently: [comparison] of the screens",
        "1 the same, 1 changed",
        "rescue_hit > active",
    ] {
        assert!(told.contains(line), "{told}");
    }
    // A run of the same screen under another name, with nothing in it yet beside another such one.
    let (c, third) = submitted(&SCREEN.replace("\"first\"", "\"third\""), &["P1"]);
    let (d, fourth) = submitted(&SCREEN.replace("\"first\"", "\"fourth\""), &["P1"]);
    publish(&kafka, &[third, fourth]);
    let alike = command(&kafka, &["runs", "diff", &c, &d]);
    assert_eq!(alike.status.code(), Some(0), "{}", text(&alike.stdout));
    assert!(text(&alike.stdout).contains("made alike"));
    assert_eq!(command(&kafka, &["runs", "diff", &a, &a]).status.code(), Some(2));
    let unknown = command(&kafka, &["runs", "diff", &a, "no-1"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("no-1"));
}
