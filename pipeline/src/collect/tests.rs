//! What a collection makes of records in any order.

use super::*;
use crate::error::FailureClass;
use crate::events::{Origin, WellFields};
use wellspring_workloads::words::FieldId;

fn features(field: u32) -> TailRecord {
    let features = FieldFeatures {
        run: "r".to_owned(),
        field: FieldId {
            plate: "P".parse().unwrap(),
            well: "A01".parse().unwrap(),
            field,
        },
        model: "m".to_owned(),
        tiles: 1,
        passed: true,
        quality: Vec::new(),
        embedding: vec![field as f32, 0.5],
    };
    TailRecord {
        topic: Topic::Features,
        partition: 0,
        offset: 0,
        id: String::new(),
        headers: Vec::new(),
        value: serde_json::to_vec(&features).unwrap(),
        time_ms: 0,
        schemas: Schemas::default(),
    }
}

/// The plan of plate P.
fn planned(fields_expected: u32, fields_planned: u32, dead_letters: u32) -> Status {
    Status::PlatePlanned {
        run: "r".to_owned(),
        plate: "P".parse().unwrap(),
        fields_expected,
        fields_planned,
        dead_letters,
        shading: None,
        incomplete: None,
        remarks: Vec::new(),
    }
}

fn screen() -> wellspring_workloads::screen::Screen {
    let text = "[screen]\nname = \"s\"\n[profiles]\n[controls]\nreference = { role = \"a\" }\nphenotype = { role = \"b\" }\n";
    wellspring_workloads::screen::Screen::parse(text, "s.toml").unwrap()
}

fn collection() -> Collection {
    let mut collection = Collection::open(&"r".to_owned(), &std::env::temp_dir(), BTreeSet::new()).unwrap();
    collection.submitted_ms = Some(5);
    collection.published.members.insert("P".parse().unwrap());
    collection
}

fn letter(field: Option<u32>, run: Option<&str>, time_ms: u64) -> DeadLetter {
    DeadLetter {
        id: format!("{field:?}{time_ms}"),
        run: run.map(str::to_owned),
        class: FailureClass::BadImage,
        stage: Stage::Decode,
        plate: field.map(|_| "P".parse().unwrap()),
        well: field.map(|_| "A01".parse().unwrap()),
        field,
        step: None,
        fields_lost: 1,
        message: String::new(),
        origin: Origin {
            topic: String::new(),
            partition: 0,
            offset: 0,
            key: String::new(),
        },
        attempt: 1,
        worker: String::new(),
        original: None,
        original_bytes: 0,
        time_ms,
    }
}

#[test]
fn a_run_is_complete_when_every_planned_field_arrived_or_failed() {
    let mut collection = collection();
    collection.take_status(planned(4, 3, 0)).unwrap();
    for field in [1, 0, 1] {
        collection.take(&features(field)).unwrap();
    }
    assert!(!collection.complete());
    assert_eq!(collection.progress().lost(), 1);
    collection.take_letter(1, letter(Some(2), Some("r"), 9)).unwrap();
    assert!(collection.complete());
    let progress = collection.progress();
    assert_eq!((progress.done, progress.failed, progress.lost()), (2, 2, 0));
    let plate = "P".parse().unwrap();
    let read: Vec<_> = collection
        .fields(&plate)
        .unwrap()
        .map(|f| f.unwrap().embedding[0])
        .collect();
    assert_eq!(read, vec![0.0, 1.0]);
}

/// It may be of a plate that was announced by itself, and so be in no list of the run.
#[test]
fn a_run_waits_for_a_plate_that_is_still_being_imaged() {
    let mut collection = collection();
    collection.published.members.clear();
    assert!(collection.complete());
    // Its deadline had passed before anything was there.
    collection.take_status(planned(0, 0, 0)).unwrap();
    assert!(collection.complete());
    let imaging = Status::PlateImaging {
        run: "r".to_owned(),
        plate: "P".parse().unwrap(),
        planned: vec![WellFields {
            well: "A01".parse().unwrap(),
            fields: vec![0, 1],
        }],
        wells: None,
        fields_expected: Some(3),
        deadline_ms: None,
        deadline_said: None,
        shading: None,
        waits: None,
    };
    collection.take_status(imaging).unwrap();
    assert_eq!(
        (collection.progress().expected, collection.complete()),
        (2, false)
    );
    for field in 0..2 {
        collection.take(&features(field)).unwrap();
    }
    assert!(!collection.complete());
    let mut end = planned(3, 2, 0);
    if let Status::PlatePlanned { incomplete, .. } = &mut end {
        *incomplete = Some("1 of 3 fields never came".to_owned());
    }
    collection.take_status(end).unwrap();
    assert!(collection.complete());
    let progress = collection.progress();
    assert_eq!((progress.expected, progress.done, progress.failed), (3, 2, 1));
    assert_eq!(collection.incomplete.len(), 1);
}

/// The status and the letters of a plan are on two topics: a run was once finished without them.
#[test]
fn a_run_waits_for_the_dead_letters_of_its_plans() {
    let mut collection = collection();
    collection.take_status(planned(0, 0, 2)).unwrap();
    let of_plan = |id: &str| DeadLetter {
        id: id.to_owned(),
        stage: Stage::Plan,
        field: None,
        ..letter(Some(0), Some("r"), 9)
    };
    for id in ["first", "first"] {
        collection.take_letter(2, of_plan(id)).unwrap();
        assert!(!collection.complete());
    }
    collection.take_letter(3, of_plan("second")).unwrap();
    assert!(collection.complete());
}

/// They are made when everything is there, and tell of nothing that was planned.
#[test]
fn letters_of_steps_count_for_no_plan_and_no_field() {
    let mut collection = collection();
    collection.take_status(planned(1, 1, 1)).unwrap();
    collection.take(&features(0)).unwrap();
    let of_step = DeadLetter {
        stage: Stage::External,
        field: None,
        step: Some("lims".to_owned()),
        ..letter(Some(0), Some("r"), 9)
    };
    collection.take_letter(2, of_step.clone()).unwrap();
    assert!(!collection.complete(), "the plan's own letter is still to come");
    assert_eq!(collection.progress().failed, 0);
    assert_eq!(collection.letters().len(), 1);
    collection.take_retried(vec![2]).unwrap();
    assert!(collection.letters().is_empty());
    // Told while the run is finished, before it is on its topic.
    collection.add_letter(of_step);
    assert_eq!(collection.progress().dead_letters, 1);
}

/// Nobody can tell which run an event was for that nobody could read.
#[test]
fn letters_of_no_run_are_of_no_run() {
    let mut collection = collection();
    for (offset, run) in [(1, None), (2, Some("another")), (3, Some("r"))] {
        collection.take_letter(offset, letter(None, run, 9)).unwrap();
    }
    assert_eq!(collection.progress().dead_letters, 1);
}

/// A field that failed, was tried again by an operator and arrived counts once; until it arrives the run is open.
#[test]
fn a_run_waits_for_fields_that_are_tried_again() {
    let mut collection = collection();
    collection.take_status(planned(2, 2, 0)).unwrap();
    collection.take(&features(1)).unwrap();
    collection.take_letter(7, letter(Some(2), Some("r"), 9)).unwrap();
    assert!(collection.complete());
    collection.published.finished = true;
    collection
        .take_status(Status::LettersResolved {
            run: "r".to_owned(),
            action: LetterAction::Retried,
            offsets: vec![7],
            plates: vec!["P".parse().unwrap()],
            time_ms: 10,
        })
        .unwrap();
    assert!(!collection.complete() && !collection.published.finished);
    assert_eq!(collection.progress().lost(), 1);
    // Read again from the beginning, the letter comes after its resolution: the topics are not in one order.
    collection.take_letter(7, letter(Some(2), Some("r"), 9)).unwrap();
    assert!(!collection.complete());
    collection.take(&features(2)).unwrap();
    assert!(collection.complete());
    let progress = collection.progress();
    assert_eq!((progress.done, progress.failed, progress.dead_letters), (2, 0, 0));
}

/// Plates that are added to a finished run make it unfinished, whether its end was told before or after they came.
#[test]
fn a_run_that_plates_are_added_to_is_not_finished() {
    let submitted = |plates: &[&str]| Status::RunSubmitted {
        run: "r".to_owned(),
        screen: Box::new(screen()),
        plates: plates.iter().map(|plate| plate.parse().unwrap()).collect(),
        time_ms: 5,
        model: None,
    };
    let finished = || Status::RunFinished {
        run: "r".to_owned(),
        fields_done: 1,
        fields_failed: 0,
        no_comparison: None,
    };
    let profiled = || Status::PlateProfiled {
        run: "r".to_owned(),
        plate: "P".parse().unwrap(),
        held: None,
        content: None,
    };
    let run = || "r".to_owned();
    let plate = || "Q".parse().unwrap();
    let ways: [&dyn Fn() -> Status; 4] = [
        &|| submitted(&["Q"]),
        // Announced to it, as its planner says.
        &|| Status::PlateQueued {
            run: run(),
            plate: plate(),
        },
        &|| Status::PlateImaging {
            run: run(),
            plate: plate(),
            planned: Vec::new(),
            wells: None,
            fields_expected: None,
            deadline_ms: None,
            deadline_said: None,
            shading: None,
            waits: None,
        },
        &|| Status::PlatePlanned {
            run: run(),
            plate: plate(),
            fields_expected: 1,
            fields_planned: 1,
            dead_letters: 0,
            shading: None,
            incomplete: None,
            remarks: Vec::new(),
        },
    ];
    for (late, way) in [true, false]
        .into_iter()
        .flat_map(|late| ways.map(|way| (late, way)))
    {
        let mut collection = collection();
        let mut take = |status| collection.take_status(status).unwrap();
        take(submitted(&["P"]));
        take(profiled());
        if late {
            take(finished());
            take(way());
        } else {
            take(way());
            take(finished());
        }
        assert!(!collection.complete(), "its work is not done");
        assert!(!collection.published.finished && collection.published.comparisons_of("") == 0);
        // The same plates again change nothing.
        collection
            .take_status(Status::PlateProfiled {
                run: "r".to_owned(),
                plate: "Q".parse().unwrap(),
                held: None,
                content: None,
            })
            .unwrap();
        collection.take_status(finished()).unwrap();
        collection.take_status(submitted(&["P", "Q"])).unwrap();
        assert!(collection.published.finished);
    }
}

/// A plate that is released makes its finished run unfinished, once.
#[test]
fn a_run_whose_plate_is_released_is_compared_again() {
    let mut collection = collection();
    let plate = || "P".parse().unwrap();
    let finished = || Status::RunFinished {
        run: "r".to_owned(),
        fields_done: 1,
        fields_failed: 0,
        no_comparison: None,
    };
    let profiled = |held: Option<&str>| Status::PlateProfiled {
        run: "r".to_owned(),
        plate: plate(),
        held: held.map(str::to_owned),
        content: None,
    };
    let released = || Status::PlateReleased {
        run: "r".to_owned(),
        plate: plate(),
        time_ms: 9,
    };
    let mut take = |status| collection.take_status(status).unwrap();
    take(profiled(Some("11 % of its fields failed")));
    take(finished());
    take(released());
    assert!(
        !collection.published.finished
            && collection.published.profiled.is_empty()
            && collection.published.released.contains(&plate())
    );
    let mut take = |status| collection.take_status(status).unwrap();
    take(profiled(None));
    take(finished());
    take(released());
    assert!(collection.published.finished && collection.published.profiled.contains(&plate()));
}

/// The index of a complete plate lies on disk; what comes again is known all the same.
#[test]
fn a_complete_plate_can_be_read_and_opened_again() {
    let mut collection = collection();
    for field in [1, 0] {
        collection.take(&features(field)).unwrap();
    }
    collection.take_status(planned(3, 3, 0)).unwrap();
    assert!(!collection.complete());
    collection.take_letter(8, letter(Some(2), Some("r"), 9)).unwrap();
    let read = |collection: &mut Collection| -> Vec<f32> {
        let plate = "P".parse().unwrap();
        let fields = collection.fields(&plate).unwrap();
        fields.map(|field| field.unwrap().embedding[0]).collect()
    };
    for _ in 0..2 {
        assert!(collection.complete());
        let progress = collection.progress();
        assert_eq!((progress.done, progress.failed), (2, 1));
        assert_eq!(read(&mut collection), [0.0, 1.0]);
        // Once more: nothing changes.
        collection.take(&features(1)).unwrap();
    }
    collection.take(&features(2)).unwrap();
    assert_eq!(read(&mut collection), [0.0, 1.0, 2.0]);
    let progress = collection.progress();
    assert_eq!((progress.done, progress.failed), (3, 0));
}
