//! The collector against the embedded broker: plates that are added to a run after its end are gathered too.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::wait_for;
use serde_json::{Value, json};
use wellspring::collector::{Collector, Wanted};
use wellspring::events::{FieldFeatures, Status};
use wellspring::kafka::producer::BatchProducer;
use wellspring::kafka::topics::{Topic, create_missing};
use wellspring::kafka::{KafkaSettings, OutRecord};
use wellspring_broker::EmbeddedBroker;
use wellspring_workloads::screen::Screen;

const SCREEN: &str = r#"
[screen]
name = "late"
[profiles]
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
"#;

struct Log {
    producer: BatchProducer,
}

impl Log {
    fn tell(&mut self, status: &Value) {
        let status: Status = serde_json::from_value(status.clone()).unwrap();
        let record = OutRecord::status(status.run().clone(), &status).unwrap();
        self.producer.publish_once(3, &[record]).unwrap();
    }

    fn submitted(&mut self, plate: &str) {
        let screen = Screen::parse(SCREEN, "late.toml").unwrap();
        self.tell(&json!({
            "status": "run_submitted", "run": "late-1", "screen": screen, "plates": [plate], "time_ms": 1
        }));
    }

    fn planned(&mut self, plate: &str, fields: u32) {
        self.tell(&json!({
            "status": "plate_planned", "run": "late-1", "plate": plate,
            "fields_expected": fields, "fields_planned": fields, "dead_letters": 0
        }));
    }

    /// Submits a plate, and does all the work on it.
    fn submit(&mut self, plate: &str) {
        self.submitted(plate);
        self.announce(plate);
    }

    /// The same of a plate that is announced to the run.
    fn announce(&mut self, plate: &str) {
        self.planned(plate, 1);
        let features: FieldFeatures = serde_json::from_value(json!({
            "run": "late-1", "plate": plate, "well": "A01", "field": 1, "model": "m", "tiles": 1, "passed": true,
            "quality": [], "embedding": "AACAPw=="
        }))
        .unwrap();
        let kind = "wellspring.features.v1";
        let record = OutRecord::new(Topic::Features, plate, format!("late-1/{plate}"), kind, &features);
        self.producer.publish_once(3, &[record.unwrap()]).unwrap();
    }

    fn profiled(&mut self, plate: &str) {
        self.tell(&json!({ "status": "plate_profiled", "run": "late-1", "plate": plate }));
    }

    fn finished(&mut self, fields: u32) {
        self.tell(&json!({
            "status": "run_finished", "run": "late-1", "fields_done": fields, "fields_failed": 0
        }));
    }
}

/// Waits until the run is complete with so many fields, and takes it.
fn gather(collector: &mut Collector, fields: u32) {
    wait_for("the run is complete", || {
        let complete = collector.step(Duration::from_millis(200)).unwrap();
        complete == ["late-1"] && collector.progress().any(|(_, progress)| progress.done == fields)
    });
    let collection = collector.close(&"late-1".to_owned()).unwrap();
    assert!(!collection.published.finished, "its results are to be published");
}

fn open(kafka: &KafkaSettings, folder: &Path) -> Collector {
    Collector::open(kafka, Wanted::Unfinished, folder).unwrap()
}

#[test]
fn plates_that_come_after_the_end_of_a_run_are_gathered() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime
        .block_on(EmbeddedBroker::start(&folder.path().join("log"), "127.0.0.1:0"))
        .unwrap();
    let kafka = KafkaSettings::new(broker.bootstrap(), "test", "collector");
    runtime.block_on(create_missing(&kafka)).unwrap();
    let mut log = Log {
        producer: BatchProducer::open(&kafka, "told").unwrap(),
    };
    let mut collector = open(&kafka, folder.path());
    log.submit("P1");
    gather(&mut collector, 1);
    log.profiled("P1");
    log.finished(1);

    // While this collector goes on.
    log.submit("P2");
    gather(&mut collector, 2);
    log.profiled("P2");
    // Added before the end was told, which therefore does not speak of it.
    log.submit("P3");
    log.finished(2);
    gather(&mut collector, 3);

    // One that starts only now.
    gather(&mut open(&kafka, folder.path()), 3);
    log.profiled("P3");
    log.finished(3);
    let mut later = open(&kafka, folder.path());
    log.submit("P4");
    gather(&mut later, 4);
    log.profiled("P4");
    log.finished(4);

    // Announced to the run, by whatever way, and nothing else is said of it.
    log.announce("P5");
    gather(&mut later, 5);
    log.profiled("P5");
    log.finished(5);
    // One of which nothing was there at first.
    log.submitted("P6");
    log.planned("P6", 0);
    gather(&mut later, 5);
    log.profiled("P6");
    log.finished(5);
    assert!(later.step(Duration::from_millis(500)).unwrap().is_empty());
    log.announce("P6");
    gather(&mut later, 6);
    gather(&mut open(&kafka, folder.path()), 6);
    log.profiled("P6");
    log.finished(6);
    // A process that dies between the last profile and the end leaves the run open for the next one.
    log.announce("P7");
    gather(&mut later, 7);
    log.profiled("P7");
    gather(&mut open(&kafka, folder.path()), 7);
    drop((collector, later, log));
    runtime.block_on(broker.shutdown()).unwrap();
}
