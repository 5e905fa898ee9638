//! Whole runs that ask by HTTP and by topics: they find what the same program finds as a command.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message};
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::exchange::create_missing;

use crate::adapters::serve;
use crate::common::{models, rows_of, run_json, start_broker};
use crate::{example, external_screen, run};

/// Between a pair of topics and a Python program: every answer twice.
pub(crate) fn pass_on(program: &[&str], bootstrap: &str, stop: &AtomicBool) -> usize {
    let mut program = Process::new("python3")
        .args(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = program.stdin.take().unwrap();
    let mut from = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "lab")
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&["lab.requests"]).unwrap();
    let mut config = ClientConfig::new();
    let producer: BaseProducer = config.set("bootstrap.servers", bootstrap).create().unwrap();
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        to.write_all(message.payload().unwrap()).unwrap();
        to.write_all(b"\n").unwrap();
        let answer = from.next().unwrap().unwrap();
        for _ in 0..2 {
            let record = BaseRecord::to("lab.responses").key("answer").payload(&answer);
            producer.send(record).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        asked += 1;
    }
    drop(to);
    program.wait().unwrap();
    asked
}

#[test]
fn by_http_and_by_topics_a_run_finds_what_it_finds_by_a_command() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let screen = external_screen(folder.path());
    let text = std::fs::read_to_string(&screen).unwrap();
    let command = format!("command = [\"python3\", \"{}\"]", example());
    assert!(text.contains(&command));
    let statistics = |name: &str, service: &str, kafka: Option<&str>| {
        let screen = folder.path().join(format!("{name}.toml"));
        std::fs::write(&screen, text.replace(&command, service)).unwrap();
        let out = folder.path().join(name);
        let mut run = run(&models, &screen, &out);
        run.args(kafka.iter().flat_map(|address| ["--kafka", address]));
        let (code, summary) = run_json(&mut run);
        assert_eq!(
            (code, summary["fields_done"].as_u64()),
            (0, Some(96)),
            "{name}: {summary}"
        );
        let rows = rows_of(&out.join("features.parquet"));
        let of = |row: &serde_json::Value| -> Vec<String> {
            let columns = row.as_object().unwrap().iter();
            let columns =
                columns.filter(|(name, _)| name.starts_with("statistics_") || *name == "Metadata_Well");
            columns.map(|(name, value)| format!("{name} {value}")).collect()
        };
        rows.iter().map(of).collect::<Vec<_>>()
    };
    let by_command = statistics("command", &command, None);
    assert!(by_command.iter().all(|row| row.len() == 7), "{:?}", by_command[0]);

    let (_service, url) = serve(&[&example(), "--http", "0"]);
    assert!(statistics("http", &format!("url = \"{url}\""), None) == by_command);

    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    // The service is there before the screen is, so its topics are.
    let kafka = KafkaSettings::new(bootstrap.clone(), "test", "t");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(create_missing(&kafka, ["lab.requests", "lab.responses"]))
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let service = {
        let (bootstrap, stop) = (bootstrap.clone(), stop.clone());
        std::thread::spawn(move || pass_on(&[&example()], &bootstrap, &stop))
    };
    let topics = "requests = \"lab.requests\"\nresponses = \"lab.responses\"\nin_flight = 32";
    assert!(statistics("topics", topics, Some(&bootstrap)) == by_command);
    stop.store(true, Ordering::Relaxed);
    // Asked once each, answered twice each, joined once each.
    assert_eq!(service.join().unwrap(), 96);
}
