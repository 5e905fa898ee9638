//! Which runs a plate is planned for, and in which order: two whose plates wait in the batch lane are planned in turns, by
//! their screens' weights; of a plate that names no run, the newest of each screen gets it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use wellspring::collector::read_statuses;
use wellspring::events::{RunId, Status};
use wellspring::kafka::tail::{Start, read_to_end};
use wellspring::kafka::topics::{Topic, Urgency};
use wellspring::kafka::{KafkaFailure, KafkaSettings};
use wellspring::runs::{Run, Runs};
use wellspring::submit::{announce, submit};
use wellspring::topology::planner;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use crate::Broker;
use crate::common::wait_for;

const PLATES: usize = 24;

fn screen(broker: &Broker, name: &str, weight: u32) -> Screen {
    let folder = broker.folder.path().display();
    let text = format!(
        "[screen]\nname = \"{name}\"\n[images]\nstore = \"{folder}/plates\"\nlayout = \"imagexpress\"\n\
         channels = [{{ name = \"DNA\", match = \"w1\" }}]\n[plate_map]\nfile = \"{folder}/platemap.csv\"\n\
         [controls]\nreference = {{ role = \"healthy\" }}\nphenotype = {{ role = \"disease\" }}\n\
         [resources]\nweight = {weight}\n"
    );
    Screen::parse(&text, "turns.toml").unwrap()
}

fn barcodes() -> Vec<Barcode> {
    (0..PLATES)
        .map(|number| format!("P{number:02}").parse().unwrap())
        .collect()
}

/// Plates whose images are names only: a planner looks no further.
fn write_plates(broker: &Broker) {
    let folder = broker.folder.path();
    let mut map = "plate,well,compound,dose,role\n".to_owned();
    for plate in barcodes() {
        std::fs::create_dir_all(folder.join(format!("plates/{plate}"))).unwrap();
        for (well, role) in [("A01", "healthy"), ("A02", "disease"), ("A03", "treated")] {
            let image = folder.join(format!("plates/{plate}/{plate}_{well}_s1_w1.tif"));
            std::fs::write(image, "pixels").unwrap();
            map.push_str(&format!("{plate},{well},c,1,{role}\n"));
        }
    }
    std::fs::write(folder.join("platemap.csv"), map).unwrap();
}

fn counted(kafka: &KafkaSettings, which: fn(&Status) -> bool) -> usize {
    read_statuses(kafka)
        .unwrap()
        .iter()
        .filter(|status| which(status))
        .count()
}

/// The order in which plates of two runs were planned; `None` where both runs have the same partition of the lane, which
/// happens to one pair in 32.
fn order(broker: &Broker, names: [&str; 2]) -> Option<[Vec<RunId>; 2]> {
    let kafka = broker.settings();
    broker.create_topics(&kafka).unwrap();
    let handle = broker.runtime.handle();
    let ids = names.map(|name| {
        let weight = if name.starts_with("heavy") { 3 } else { 1 };
        // Of the usual weight first: another one holds from when the screen is submitted with it.
        let submit = |weight| {
            let run = Run::open(screen(broker, name, weight)).unwrap();
            let new = submit(&kafka, &run, &barcodes(), Urgency::Batch, handle).unwrap();
            (run.id, new.len())
        };
        let (id, new) = submit(1);
        assert_eq!(new, PLATES);
        assert_eq!(submit(weight), (id.clone(), 0));
        id
    });
    let submitted = counted(&kafka, |status| matches!(status, Status::RunSubmitted { .. }));
    assert_eq!(submitted, 3, "what is submitted as it was is not said again");
    let runs = Runs::follow(&kafka).unwrap();
    let of_lane = |lane| planner(&kafka, Arc::clone(&runs), lane, handle).unwrap();
    let live = of_lane(Urgency::Live);
    let queued = || counted(&kafka, |status| matches!(status, Status::PlateQueued { .. }));
    wait_for("all plates to wait in the batch lane", || queued() == 2 * PLATES);
    let mut partitions = BTreeSet::new();
    read_to_end(&kafka, Topic::BatchPlates, &Start::Beginning, |record| {
        partitions.insert(record.partition);
        Ok::<_, KafkaFailure>(ControlFlow::Continue(()))
    })
    .unwrap();
    let batch = of_lane(Urgency::Batch);
    let planned = || counted(&kafka, |status| matches!(status, Status::PlatePlanned { .. }));
    wait_for("all plates to be planned", || planned() == 2 * PLATES);
    for role in [live, batch] {
        (role.stopper())();
        role.join().unwrap();
    }
    runs.stop();
    let mut order = Vec::new();
    for status in read_statuses(&kafka).unwrap() {
        if let Status::PlatePlanned {
            run,
            plate,
            fields_planned,
            ..
        } = status
        {
            assert_eq!(fields_planned, 3, "{run} {plate}");
            order.push(run);
        }
    }
    (partitions.len() == 2).then_some([ids.to_vec(), order])
}

#[test]
fn runs_in_the_batch_lane_are_planned_in_turns_by_weight() {
    let broker = Broker::embedded();
    write_plates(&broker);
    let names = ["heavy", "heavy-too", "heavy-again", "heavy-still"];
    let [ids, order] = names
        .iter()
        .find_map(|heavy| order(&broker, ["light", heavy]))
        .unwrap();
    let of = |run: &RunId, plates: &[RunId]| plates.iter().filter(|planned| *planned == run).count();
    assert_eq!([of(&ids[0], &order), of(&ids[1], &order)], [PLATES, PLATES]);
    // Six and eighteen are due. Four of a run are held at once, and as many may go before the status of the first is read.
    assert!((14..=22).contains(&of(&ids[1], &order[..24])), "{order:?}");
}

#[test]
fn a_plate_that_names_no_run_is_one_of_the_newest_run_of_the_screens_whose_store_has_it() {
    let broker = Broker::embedded();
    write_plates(&broker);
    let (kafka, handle) = (broker.settings(), broker.runtime.handle());
    broker.create_topics(&kafka).unwrap();
    let begin = |name: &str, change: &dyn Fn(&mut Screen)| {
        let mut screen = screen(&broker, name, 1);
        change(&mut screen);
        let run = Run::open(screen).unwrap();
        submit(&kafka, &run, &barcodes()[..1], Urgency::Live, handle).unwrap();
        run.id
    };
    let old = begin("seen", &|_| {});
    let new = begin("seen", &|screen| screen.version = 2);
    let some = begin("seen", &|screen| {
        (screen.version, screen.images.plates) = (3, barcodes()[..1].to_vec());
    });
    let beside = begin("beside", &|_| {});
    std::fs::create_dir(broker.folder.path().join("empty")).unwrap();
    let elsewhere = begin("elsewhere", &|screen| {
        screen.images.store = broker.folder.path().join("empty").display().to_string();
    });
    let runs = Runs::follow(&kafka).unwrap();
    let role = planner(&kafka, Arc::clone(&runs), Urgency::Live, handle).unwrap();
    let planned = |plate: &Barcode| {
        let statuses = read_statuses(&kafka).unwrap().into_iter();
        let of_plate = statuses.filter_map(|status| match status {
            Status::PlatePlanned {
                run,
                plate: of,
                fields_planned,
                ..
            } if of == *plate => Some((run, fields_planned)),
            _ => None,
        });
        of_plate.collect::<BTreeSet<(RunId, u32)>>()
    };
    let of = |runs: &[(&RunId, u32)]| -> BTreeSet<(RunId, u32)> {
        runs.iter()
            .map(|(run, fields)| ((*run).clone(), *fields))
            .collect()
    };
    let first = &barcodes()[0];
    let all = of(&[(&old, 3), (&new, 3), (&some, 3), (&beside, 3), (&elsewhere, 0)]);
    wait_for("the plate that was submitted", || planned(first) == all);
    // Another one is announced, and one that nobody has: of that all who might have it say so.
    let (second, nowhere) = (barcodes()[1].clone(), "NOWHERE".parse().unwrap());
    for plate in [&second, &nowhere] {
        announce(&kafka, std::slice::from_ref(plate), None, Urgency::Live, None).unwrap();
    }
    let nobody = of(&[(&new, 0), (&beside, 0), (&elsewhere, 0)]);
    wait_for("both plates", || {
        planned(&second).len() == 2 && planned(&nowhere) == nobody
    });
    assert_eq!(planned(&second), of(&[(&new, 3), (&beside, 3)]));
    (role.stopper())();
    role.join().unwrap();
    runs.stop();
}
