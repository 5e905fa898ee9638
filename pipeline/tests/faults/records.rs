//! Records that cannot be worked on: poison, failures that pass, events nobody can read, and records seen twice.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use wellspring::error::FailureClass;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::{Topic, create_missing};
use wellspring::resolve::{StoredLetter, read_letters};

use crate::common::{PATIENCE, Running, dead_letters, models, run_json, start_broker, wait_for, wellspring};
use crate::{FIELDS, assert_each_once, by_subject, few_wells, records, run};

#[test]
fn a_field_that_kills_the_process_becomes_a_dead_letter_and_the_rest_of_the_plate_is_done() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let mut deaths = 0;
    let summary = loop {
        let ended = run(&models, folder.path(), &bootstrap, "poison")
            .env("FAILPOINTS", "worker.decode@SMALL0001/A02/1=return")
            .output()
            .unwrap();
        if ended.status.signal() != Some(libc::SIGABRT) {
            assert_eq!(ended.status.code(), Some(1));
            break serde_json::from_slice::<Value>(&ended.stdout).unwrap();
        }
        deaths += 1;
        assert!(deaths < 8, "the field kills for ever");
    };
    assert_eq!(deaths, 5);
    assert_eq!(
        (
            &summary["fields_done"],
            &summary["fields_failed"],
            &summary["lost"]
        ),
        (&Value::from(FIELDS - 1), &Value::from(1), &Value::from(0))
    );
    let letters = dead_letters(&folder.path().join("poison"));
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0]["class"], &letters[0]["well"]),
        (&"poison".into(), &"A02".into())
    );
    let kafka = KafkaSettings::new(&bootstrap, "poison", "test");
    assert_each_once(&kafka, Topic::Tasks, FIELDS);
    assert_each_once(&kafka, Topic::Features, FIELDS - 1);
}

#[test]
fn a_failure_that_passes_is_tried_again_and_leaves_no_trace() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let faults =
        "worker.fetch@SMALL0001/A02/1=2*return(network);worker.embed@SMALL0001/B03/1=1*return(out_of_memory)";
    let mut command = run(&models, folder.path(), &bootstrap, "passing");
    command.env("FAILPOINTS", faults).args(["--retry-delays", "0,0"]);
    let (code, summary) = run_json(&mut command);
    assert_eq!(
        (code, &summary["fields_done"]),
        (0, &Value::from(FIELDS)),
        "{summary}"
    );
    let kafka = KafkaSettings::new(&bootstrap, "passing", "test");
    assert_eq!(records(&kafka, Topic::Retries).len(), 3);
    assert_each_once(&kafka, Topic::Features, FIELDS);
}

/// As librdkafka does where a group's coordinator leaves the cluster. The call that hangs wakes when its transaction was
/// done anew.
#[test]
fn a_client_that_does_not_come_back_is_replaced_and_nothing_is_lost_or_repeated() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let mut command = run(&models, folder.path(), &bootstrap, "hung");
    command.env("FAILPOINTS", "worker.offsets=1*sleep(16000)");
    let (code, summary) = run_json(&mut command);
    assert_eq!((code, &summary["fields_done"]), (0, &Value::from(FIELDS)));
    let kafka = KafkaSettings::new(&bootstrap, "hung", "test");
    assert_each_once(&kafka, Topic::Features, FIELDS);
}

#[test]
fn at_least_once_a_crash_repeats_records_under_the_same_ids_and_the_results_are_the_same() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let start = || {
        let mut command = run(&models, folder.path(), &bootstrap, "repeated");
        command.args(["--delivery", "at-least-once"]);
        command
    };
    // The features are at the broker, the offsets they answer are not.
    let killed = start().env("FAILPOINTS", "worker.sent=return").output().unwrap();
    assert_eq!(killed.status.signal(), Some(libc::SIGABRT));
    let (code, summary) = run_json(&mut start());
    assert_eq!(
        (code, &summary["fields_done"], &summary["lost"]),
        (0, &Value::from(FIELDS), &Value::from(0))
    );
    let features = records(
        &KafkaSettings::new(&bootstrap, "repeated", "test"),
        Topic::Features,
    );
    assert!(
        features.len() as u64 > FIELDS,
        "nothing was repeated, so nothing is shown"
    );
    let ids: BTreeSet<&str> = features.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids.len() as u64, FIELDS);
    assert_eq!(by_subject(&features).len() as u64, FIELDS);
}

/// Bytes of an event larger than any that is read.
const HUGE: usize = 50 << 20;

/// An installation whose operator lets lab automation send events of any size.
async fn with_large_plate_events(kafka: &KafkaSettings) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .create()
        .unwrap();
    let name = Topic::Plates.name(&kafka.prefix);
    let plates = NewTopic::new(&name, 4, TopicReplication::Fixed(-1))
        .set("retention.ms", "-1")
        .set("max.message.bytes", "100000000");
    let made = admin.create_topics([&plates], &AdminOptions::new()).await;
    made.unwrap()[0].as_ref().unwrap();
    create_missing(kafka).await.unwrap();
}

/// As lab automation does it, with a producer of its own.
async fn announce(kafka: &KafkaSettings, id: &str, event: &[u8]) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .set("message.max.bytes", "100000000")
        .create()
        .unwrap();
    let topic = Topic::Plates.name(&kafka.prefix);
    let header = |key, value| Header {
        key,
        value: Some(value),
    };
    let headers = OwnedHeaders::new()
        .insert(header("ce_id", id))
        .insert(header("ce_type", "wellspring.plate-ready.v1"));
    let record = FutureRecord::to(&topic)
        .key("SMALL0001")
        .payload(event)
        .headers(headers);
    producer.send(record, PATIENCE).await.unwrap();
}

#[test]
fn events_nobody_can_read_are_dead_letters_and_a_plate_announced_thrice_is_planned_once() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let kafka = KafkaSettings::new(&bootstrap, "events", "test");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(with_large_plate_events(&kafka));
    let mut huge = b"{\"plate\":\"SMALL0001\",\"more\":\"".to_vec();
    // Cut short, so that it ends in the middle.
    huge.resize(HUGE, b'x');
    let unreadable: Vec<Vec<u8>> = vec![
        b"\xff\xfe\x00plate".to_vec(),
        b"{\"run\":\"events\"}".to_vec(),
        b"{\"plate\":17}".to_vec(),
        b"[1,2,3]".to_vec(),
        b"{\"plate\":\"SMALL0001\",\"version\":99}".to_vec(),
        Vec::new(),
        huge,
    ];
    let mut events: Vec<Vec<u8>> = unreadable.clone();
    // From the future, with more in it than is known here: it says which plate, and that is all that is needed.
    events.push(
        b"{\"plate\":\"SMALL0001\",\"version\":1,\"time\":\"2999-01-01T00:00:00Z\",\"new\":{\"a\":[1]}}"
            .to_vec(),
    );
    for (number, event) in events.into_iter().enumerate() {
        runtime.block_on(announce(&kafka, &format!("event {number}"), &event));
    }
    let (code, summary) = run_json(&mut run(&models, folder.path(), &bootstrap, "events"));
    // What nobody could read is no failure of the run.
    assert_eq!(
        (code, &summary["fields_done"], &summary["dead_letters"]),
        (0, &Value::from(FIELDS), &Value::from(0)),
        "{summary}"
    );
    let letters = read_letters(&kafka).unwrap();
    assert_eq!(letters.len(), unreadable.len());
    for StoredLetter { letter, .. } in &letters {
        assert_eq!((letter.class, &letter.run), (FailureClass::BadEvent, &None));
    }
    let sizes: BTreeSet<u64> = letters
        .iter()
        .map(|stored| stored.letter.original_bytes)
        .collect();
    assert!(sizes.contains(&(HUGE as u64)), "{sizes:?}");
    // Announced twice more after it is done, by the command.
    let announced = wellspring(&models)
        .args([
            "plates",
            "announce",
            "SMALL0001",
            "SMALL0001",
            "--prefix",
            "events",
            "--kafka",
            &bootstrap,
        ])
        .status();
    assert!(announced.unwrap().success());
    let (code, _) = run_json(&mut run(&models, folder.path(), &bootstrap, "events"));
    assert_eq!(code, 0);
    for topic in [Topic::Tasks, Topic::Features] {
        assert_each_once(&kafka, topic, FIELDS);
    }
}

/// A process that works for many runs lives on, and the other runs with it.
#[test]
fn a_network_whose_weights_are_not_there_costs_the_fields_of_its_own_run() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let plates = folder.path().join("plates");
    let text = std::fs::read_to_string(plates.join("screen.toml")).unwrap();
    let absent = format!("{text}\n[model]\nname = \"efficientnet-lite1\"\n");
    let absent = absent.replacen("name = \"small\"", "name = \"absent\"", 1);
    std::fs::write(plates.join("absent.toml"), absent).unwrap();
    let submit = |file: &str| {
        let mut command = wellspring(&models);
        command
            .arg("submit")
            .arg(plates.join(file))
            .args(["--kafka", &bootstrap]);
        let said = command.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said = String::from_utf8(said.stdout).unwrap();
        said.split_once(": ").unwrap().0.to_owned()
    };
    let (absent, whole) = (submit("absent.toml"), submit("screen.toml"));
    let out = folder.path().join("results");
    let mut serve = wellspring(&models);
    serve
        .args(["serve", "--retry-delays", "0", "--kafka", &bootstrap])
        .arg("--out")
        .arg(&out);
    let _serving = Running(serve.stdout(Stdio::null()).spawn().unwrap());
    for (run, done) in [(&whole, FIELDS), (&absent, 0)] {
        let file = out.join(run).join("run.json");
        wait_for("the results", || file.exists());
        let results: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(
            (
                &results["fields_done"],
                &results["fields_failed"],
                &results["lost"]
            ),
            (&Value::from(done), &Value::from(FIELDS - done), &Value::from(0))
        );
    }
    let letters = dead_letters(&out.join(&absent));
    assert_eq!(letters.len() as u64, FIELDS);
    let message = letters[0]["message"].as_str().unwrap();
    assert!(
        letters[0]["class"] == "model" && message.contains("wellspring models pull"),
        "{message}"
    );
}
