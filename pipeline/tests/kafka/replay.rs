//! Replay of a run's features and plates, on the embedded broker and on Apache Kafka.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wellspring::collector::read_statuses;
use wellspring::events::{DeadLetter, FieldFeatures, FieldTask, LetterAction, PlateReady, Status};
use wellspring::kafka::tail::Start;
use wellspring::kafka::topics::Topic;
use wellspring::kafka::{KafkaSettings, OutRecord};
use wellspring::replay::{self, ReplayError, Selection};
use wellspring::resolve::{Filter, resolve};
use wellspring::runs::run_id;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use crate::{Broker, all, command, features, features_record, publish, raw, text};

const FIELDS: u32 = 1_203;

fn screen(broker: &Broker) -> Screen {
    let text = format!(
        "[screen]\nname = \"old\"\n[images]\nstore = \"{}\"\nlayout = \"imagexpress\"\n\
         channels = [{{ name = \"DNA\", match = \"w1\" }}]\n[plate_map]\nfile = \"/platemap.csv\"\n\
         [controls]\nreference = {{ cell_line = \"WT\" }}\nphenotype = {{ cell_line = \"NF1\" }}\n",
        broker.folder.path().display()
    );
    Screen::parse(&text, "old.toml").unwrap()
}

fn status(run: &str, status: &Value) -> OutRecord {
    let status: Status = serde_json::from_value(status.clone()).unwrap();
    OutRecord::new(Topic::Status, run, "id", "wellspring.status.v1", &status).unwrap()
}

/// A run of two plates: one with a batch and more of fields, of which one failed, and a small one.
fn old_run(kafka: &KafkaSettings, screen: &Screen) -> String {
    let run = run_id(screen);
    let mut records = vec![status(
        &run,
        &serde_json::json!({"status": "run_submitted", "run": run, "screen": screen, "plates": ["P1", "P2"], "time_ms": 1}),
    )];
    for (plate, fields, failed) in [("P1", FIELDS, 1), ("P2", 2, 0)] {
        records.push(status(
            &run,
            &serde_json::json!({"status": "plate_planned", "run": run, "plate": plate, "fields_expected": fields + failed,
                "fields_planned": fields + failed, "dead_letters": 0}),
        ));
        records.extend((0..fields).map(|field| features_record(&features(&run, plate, field))));
    }
    let letter: DeadLetter = serde_json::from_value(serde_json::json!({
        "id": "l1", "run": run, "class": "bad_image", "stage": "decode", "plate": "P1", "well": "A02", "field": 1,
        "fields_lost": 1, "message": "m", "origin": {"topic": "t", "partition": 0, "offset": 0}, "time_ms": 5,
    }))
    .unwrap();
    records.push(wellspring::dead_letters::record(&letter).unwrap());
    publish(kafka, &records);
    run
}

/// What is not there yet would be missing, and nothing would say so.
fn features_of_a_run_that_goes_on(broker: &Broker) {
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let screen = screen(broker);
    let old = old_run(&kafka, &screen);
    let planned = serde_json::json!({"status": "plate_planned", "run": old, "plate": "P3", "fields_expected": 2,
        "fields_planned": 2, "dead_letters": 0});
    publish(
        &kafka,
        &[status(&old, &planned), features_record(&features(&old, "P3", 0))],
    );
    let submitted = serde_json::json!({"status": "run_submitted", "run": old, "screen": screen, "plates": ["P3"], "time_ms": 1});
    publish(&kafka, &[status(&old, &submitted)]);
    let scratch = broker.folder.path();
    let replay = |plates: Vec<Barcode>| {
        let selection = Selection {
            plates,
            ..Selection::default()
        };
        replay::features(&kafka, &old, &"later".parse().unwrap(), None, &selection, scratch)
    };
    let error = replay(Vec::new()).unwrap_err();
    assert!(
        matches!(&error, ReplayError::Unfinished { plate, .. } if plate.as_str() == "P3"),
        "{error}"
    );
    assert_eq!(replay(vec!["P2".parse().unwrap()]).unwrap().plates, 1);
}

#[test]
fn features_of_a_run_that_goes_on_are_no_basis_for_another() {
    features_of_a_run_that_goes_on(&Broker::embedded());
}

/// A letter that a run took over holds the record of the run before.
#[test]
fn a_failure_that_was_taken_over_is_tried_again_in_the_new_run() {
    let broker = Broker::embedded();
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let old = run_id(&screen(&broker));
    let task: FieldTask = serde_json::from_value(serde_json::json!({
        "run": old, "plate": "P1", "well": "A02", "field": 1,
        "images": [{"channel": "DNA", "planes": [{"path": "a.tif", "bytes": 1}]}],
    }))
    .unwrap();
    let record = OutRecord::new(Topic::Tasks, "P1/A02", "id", "wellspring.task.v1", &task).unwrap();
    publish(&kafka, &[record]);
    let (original, _) = raw(&kafka, Topic::Tasks);
    let letter: DeadLetter = serde_json::from_value(serde_json::json!({
        "id": "taken", "run": "new-run", "class": "bad_image", "stage": "decode", "plate": "P1", "well": "A02", "field": 1,
        "fields_lost": 1, "message": "m", "time_ms": 5, "original": STANDARD.encode(&original),
        "original_bytes": original.len(), "origin": {"topic": Topic::Tasks.name(&kafka.prefix), "partition": 0, "offset": 0},
    }))
    .unwrap();
    publish(&kafka, &[wellspring::dead_letters::record(&letter).unwrap()]);
    let filter = Filter {
        run: Some("new-run".to_owned()),
        ..Filter::default()
    };
    let done = resolve(&kafka, &filter, LetterAction::Retried, false).unwrap();
    assert_eq!((done.done.len(), done.left.len()), (1, 0));
    let mut tasks: Vec<FieldTask> = all(&kafka, Topic::Tasks);
    tasks.retain(|task| task.run == "new-run");
    assert_eq!(
        tasks,
        [FieldTask {
            run: "new-run".to_owned(),
            ..task
        }]
    );
}

/// Fields per plate of a run, and whether any is there twice.
fn counted(kafka: &KafkaSettings, run: &str) -> BTreeMap<String, usize> {
    let mut seen = std::collections::HashSet::new();
    let mut counts = BTreeMap::new();
    for features in all::<FieldFeatures>(kafka, Topic::Features) {
        if features.run == run {
            assert!(seen.insert(features.field.clone()), "{} twice", features.field);
            *counts.entry(features.field.plate.to_string()).or_default() += 1;
        }
    }
    counts
}

fn planned(kafka: &KafkaSettings, run: &str) -> Vec<(String, u32, u32, u32)> {
    let mut found: Vec<_> = all::<Status>(kafka, Topic::Status)
        .into_iter()
        .filter_map(|status| match status {
            Status::PlatePlanned {
                run: of,
                plate,
                fields_expected,
                fields_planned,
                dead_letters,
                ..
            } if of == run => Some((plate.to_string(), fields_expected, fields_planned, dead_letters)),
            _ => None,
        })
        .collect();
    found.sort();
    found
}

fn features_of_a_run(broker: &Broker) {
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let screen = screen(broker);
    let old = old_run(&kafka, &screen);
    let whole = Selection::default();
    let scratch = broker.folder.path();
    let replay = |name: &str, selection: &Selection| {
        replay::features(&kafka, &old, &name.parse().unwrap(), None, selection, scratch)
    };

    // A replay that died in mid-plate: some features are there, the plan is not.
    let mut renamed = screen.clone();
    renamed.name = "again".parse().unwrap();
    let new = run_id(&renamed);
    let begun: Vec<OutRecord> = (0..700)
        .map(|field| features_record(&features(&new, "P1", field)))
        .collect();
    publish(&kafka, &begun);

    let done = replay("again", &whole).unwrap();
    assert_eq!((done.run.as_str(), done.plates), (new.as_str(), 2));
    assert_eq!(
        (done.published, done.published_before),
        (u64::from(FIELDS) + 2 - 700, 700)
    );
    let expected = BTreeMap::from([("P1".to_owned(), FIELDS as usize), ("P2".to_owned(), 2)]);
    assert_eq!(counted(&kafka, &new), expected);
    let plans = [
        ("P1".to_owned(), FIELDS + 1, FIELDS + 1, 0),
        ("P2".to_owned(), 2, 2, 0),
    ];
    assert_eq!(planned(&kafka, &new), plans);
    let letters: Vec<DeadLetter> = all(&kafka, Topic::DeadLetters);
    assert_eq!(
        letters
            .iter()
            .filter(|letter| letter.run.as_ref() == Some(&new))
            .count(),
        1
    );

    // Twice under one name is one run.
    let statuses = all::<Status>(&kafka, Topic::Status).len();
    assert_eq!(replay("again", &whole).unwrap().published, 0);
    assert_eq!(counted(&kafka, &new), expected);
    assert_eq!(all::<Status>(&kafka, Topic::Status).len(), statuses);
    assert_eq!(all::<DeadLetter>(&kafka, Topic::DeadLetters).len(), letters.len());
    // The old run is as it was.
    assert_eq!(counted(&kafka, &old), expected);

    // By plate; by offset, here everything; by time, here nothing.
    let one: Barcode = "P2".parse().unwrap();
    let by_plate = Selection {
        plates: vec![one],
        ..Selection::default()
    };
    let done = replay("one-plate", &by_plate).unwrap();
    assert_eq!((done.plates, done.published), (1, 2));
    let from_zero = Selection {
        start: Start::Offsets((0..8).map(|partition| (partition, 0)).collect()),
        ..Selection::default()
    };
    assert_eq!(
        replay("offsets", &from_zero).unwrap().published,
        u64::from(FIELDS) + 2
    );
    let before_all = Selection {
        until: Some(1),
        ..Selection::default()
    };
    assert!(matches!(
        replay("never", &before_all),
        Err(ReplayError::Nothing { .. })
    ));
    let since_ever = Selection {
        start: Start::Time(1),
        ..Selection::default()
    };
    assert_eq!(
        replay("times", &since_ever).unwrap().published,
        u64::from(FIELDS) + 2
    );

    assert!(matches!(replay("old", &whole), Err(ReplayError::SameRun { .. })));
    let unknown = replay::features(&kafka, "no-1", &"x".parse().unwrap(), None, &whole, scratch);
    assert!(matches!(unknown, Err(ReplayError::NoSuchRun { .. })));
    let mut other = screen.clone();
    other.model.name = "another".to_owned();
    let other = replay::features(&kafka, &old, &"x".parse().unwrap(), Some(other), &whole, scratch);
    assert!(matches!(
        other,
        Err(ReplayError::OtherFeatures { part: "[model]", .. })
    ));
}

#[test]
fn a_rerun_makes_anew_what_changed_and_nothing_else() {
    let broker = Broker::embedded();
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let old = old_run(&kafka, &screen(&broker));
    let file = broker.folder.path().join("old.toml");
    let text_of = |more: &str| {
        format!(
            "[screen]\nname = \"old\"\n[images]\nstore = \"{}\"\nlayout = \"imagexpress\"\n\
             channels = [{{ name = \"DNA\", match = \"w1\" }}]\n[plate_map]\nfile = \"/platemap.csv\"\n\
             [controls]\nreference = {{ cell_line = \"WT\" }}\nphenotype = {{ cell_line = \"NF1\" }}\n{more}",
            broker.folder.path().display()
        )
    };
    let rerun = |more: &str, options: &[&str]| -> Value {
        std::fs::write(&file, text_of(more)).unwrap();
        let arguments = [&["rerun", file.to_str().unwrap(), "--json"], options].concat();
        let done = command(&kafka, &arguments);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let batch = || {
        let announced: Vec<PlateReady> = all(&kafka, Topic::Plates);
        announced
            .into_iter()
            .filter_map(|event| event.lane.and(event.run))
            .collect::<Vec<_>>()
    };

    // Another seed of the comparison: the features are the old ones, whatever has become of the images.
    let seed = "[comparison]\nseed = 7\n";
    std::fs::write(&file, text_of(seed)).unwrap();
    let looked = command(&kafka, &["rerun", file.to_str().unwrap()]);
    assert_eq!(looked.status.code(), Some(2));
    assert!(
        text(&looked.stderr).contains("none of the images"),
        "{}",
        text(&looked.stderr)
    );
    let first = rerun(seed, &["--steps", "compare.."]);
    assert_eq!(
        (&first["anew"], &first["of"]),
        (&"comparison".into(), &old.as_str().into())
    );
    let first = first["run"].as_str().unwrap().to_owned();
    let expected = BTreeMap::from([("P1".to_owned(), FIELDS as usize), ("P2".to_owned(), 2)]);
    assert_eq!(counted(&kafka, &first), expected);
    assert!(batch().is_empty());

    // Once more is a run of its own, which begins from the last one.
    let second = rerun(seed, &["--plate", "P2", "--steps", "normalise.."]);
    assert_eq!(second["of"], first.as_str());
    assert_ne!(second["run"], first.as_str());

    // Other pixels: the plates are worked on again, in the batch lane.
    let third = rerun("[preprocess]\nbackground = 100\n", &["--of", &old]);
    assert_eq!(
        (&third["anew"], &third["plates"]),
        (&"embedding".into(), &2.into())
    );
    assert_eq!(batch(), [third["run"].as_str().unwrap(); 2]);
    let fourth = rerun("", &["--of", &old, "--steps", "images..", "--plate", "P1"]);
    assert_eq!(
        (&fourth["anew"], &fourth["plates"]),
        (&"embedding".into(), &1.into())
    );

    let runs_of = |run: &Value| {
        let statuses = read_statuses(&kafka).unwrap().into_iter();
        let screens = statuses.filter_map(|status| match status {
            Status::RunSubmitted { run: of, screen, .. } if Some(of.as_str()) == run["run"].as_str() => {
                Some(screen)
            }
            _ => None,
        });
        let plates = |screen: Box<Screen>| screen.images.plates;
        screens
            .flat_map(plates)
            .map(|plate| plate.to_string())
            .collect::<Vec<_>>()
    };
    // Others that are announced later are none of a run of some plates.
    assert_eq!(
        (runs_of(&third), runs_of(&fourth)),
        (Vec::new(), vec!["P1".to_owned()])
    );
    for failed in [&[] as &[&str], &["--failed"]] {
        let arguments = [
            &["rerun", file.to_str().unwrap(), "--of", &old, "--plate", "P7"],
            failed,
        ]
        .concat();
        let refused = command(&kafka, &arguments);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains("P7"), "{said}");
    }

    // The plates that the screen names are its plates, whatever the run before had.
    let listing = |plates: &str| {
        let listed = text_of("").replacen("[images]\n", &format!("[images]\nplates = [{plates}]\n"), 1);
        std::fs::write(&file, listed).unwrap();
    };
    let again = |options: &[&str]| {
        let arguments = [
            &["rerun", file.to_str().unwrap(), "--json", "--of", &old],
            options,
        ]
        .concat();
        command(&kafka, &arguments)
    };
    listing("\"P2\", \"P9\"");
    let refused = again(&["--steps", "compare.."]);
    let said = text(&refused.stderr);
    assert!(
        refused.status.code() == Some(2) && said.contains("no features of plate P9"),
        "{said}"
    );
    let fifth: Value = serde_json::from_slice(&again(&["--steps", "images.."]).stdout).unwrap();
    assert_eq!(fifth["plates"], 2);
    let mut of_fifth: Vec<String> = all::<PlateReady>(&kafka, Topic::Plates)
        .into_iter()
        .filter(|event| event.run.as_deref() == fifth["run"].as_str())
        .map(|event| event.plate.to_string())
        .collect();
    of_fifth.sort();
    assert_eq!(of_fifth, ["P2", "P9"]);
    let sixth: Value = serde_json::from_slice(&again(&["--plate", "P9"]).stdout).unwrap();
    assert_eq!(
        (&sixth["plates"], &sixth["anew"]),
        (&1.into(), &"embedding".into())
    );
    let other = text_of("").replace("\"old\"", "\"other\"");
    std::fs::write(&file, other).unwrap();
    let refused = again(&[]);
    let said = text(&refused.stderr);
    assert!(
        refused.status.code() == Some(2) && said.contains("one of screen 'old', not of 'other'"),
        "{said}"
    );
    std::fs::write(&file, text_of("")).unwrap();

    // What failed is tried again where it failed. This letter came without its record.
    let failed = command(
        &kafka,
        &["rerun", file.to_str().unwrap(), "--failed", "--of", &old],
    );
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("too large to be kept"));
    std::fs::write(&file, text_of("").replace("\"old\"", "\"never\"")).unwrap();
    let never = command(&kafka, &["rerun", file.to_str().unwrap()]);
    assert_eq!(never.status.code(), Some(2));
    assert!(text(&never.stderr).contains("never submitted"));
}

fn plates_of_a_run(broker: &Broker) {
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let screen = screen(broker);
    let old = old_run(&kafka, &screen);
    let replay = |json: bool| {
        let mut arguments = vec!["replay", "plates", old.as_str(), "--as", "anew", "--plate", "P1"];
        arguments.extend(json.then_some("--json"));
        command(&kafka, &arguments)
    };
    let first = replay(true);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let line: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&line["published"], &line["plates"]), (&1.into(), &1.into()));
    let again = replay(false);
    assert!(
        text(&again.stdout).contains("0 plates replayed now, 1 before"),
        "{}",
        text(&again.stdout)
    );
    let announced: Vec<PlateReady> = all(&kafka, Topic::Plates);
    assert_eq!(announced.len(), 1);
    assert_eq!(announced[0].plate.as_str(), "P1");
    assert_eq!(announced[0].run.as_deref(), line["run"].as_str());
    assert_ne!(announced[0].run.as_ref(), Some(&old));
    let missing = command(&kafka, &["replay", "plates", "no-1", "--as", "x"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("never submitted"));
}

#[test]
fn features_are_replayed_once_whatever_crashed_before() {
    features_of_a_run(&Broker::embedded());
}

#[test]
fn on_apache_kafka_too_features_are_replayed_once_whatever_crashed_before() {
    if let Some(kafka) = Broker::apache() {
        features_of_a_run(&kafka);
    }
}

#[test]
fn plates_are_announced_to_a_new_run_once() {
    plates_of_a_run(&Broker::embedded());
}
