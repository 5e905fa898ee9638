//! Lanes against the embedded broker: what is in flight is bounded, polling goes on, what is not due waits, what ends
//! every process is recognised, a producer that was too slow is made anew, and runs are found whose submission is in a
//! transaction that is still open.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use common::wait_for;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use wellspring::clock::now_ms;
use wellspring::error::{FailureClass, Stage, StageError};
use wellspring::events::Status;
use wellspring::failures::{CLASS, DELAY, DUE, ERROR};
use wellspring::kafka::home::Home;
use wellspring::kafka::lane::{Company, Inbound, Lane, LaneSettings, Work};
use wellspring::kafka::producer::{BatchProducer, Committed};
use wellspring::kafka::tail::Tail;
use wellspring::kafka::topics::{PARKED, Topic, create_missing};
use wellspring::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use wellspring::retries::waiting;
use wellspring::runs::{Run, Runs};
use wellspring::track::{Outcome, Tracked};
use wellspring_broker::EmbeddedBroker;
use wellspring_workloads::screen::Screen;

/// A broker in this process, and how to reach it.
struct Broker {
    kafka: KafkaSettings,
    broker: Option<EmbeddedBroker>,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Broker {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let broker = runtime
            .block_on(EmbeddedBroker::start(folder.path(), "127.0.0.1:0"))
            .unwrap();
        let kafka = KafkaSettings::new(broker.bootstrap(), "test", "lane");
        runtime.block_on(create_missing(&kafka)).unwrap();
        Self {
            kafka,
            broker: Some(broker),
            runtime,
            _folder: folder,
        }
    }

    fn lane(&self, topic: Topic, role: &'static str, in_flight: usize) -> (Lane, Work) {
        self.lane_in(&Company::default(), topic, role, in_flight)
    }

    fn lane_in(&self, company: &Company, topic: Topic, role: &'static str, in_flight: usize) -> (Lane, Work) {
        let settings = LaneSettings {
            topic,
            role,
            in_flight,
            per_partition: None,
            company: company.clone(),
            until_drained: None,
        };
        Lane::open(&self.kafka, &settings).unwrap()
    }

    /// A lane of another process of the same role.
    fn other_lane(&self, topic: Topic, role: &'static str, in_flight: usize) -> (Lane, Work) {
        let kafka = KafkaSettings::new(&self.kafka.bootstrap, "test", "other");
        let settings = LaneSettings {
            topic,
            role,
            in_flight,
            per_partition: None,
            company: Company::default(),
            until_drained: None,
        };
        Lane::open(&kafka, &settings).unwrap()
    }

    fn publish(&self, records: &[OutRecord]) {
        let producer = BatchProducer::open(&self.kafka, "test").unwrap();
        assert_eq!(producer.publish(records).unwrap(), Committed::Yes);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown()).unwrap();
        }
    }
}

fn record(topic: Topic, key: &str) -> OutRecord {
    OutRecord::of_bytes(topic, key, key, "test", key.as_bytes().to_vec())
}

fn end(lane: Lane, work: Work) {
    (lane.stopper())();
    drop(work);
    lane.join().unwrap();
}

#[test]
fn a_lane_without_room_reads_no_more_and_polls_on() {
    let broker = Broker::start();
    let all: Vec<OutRecord> = (0..200)
        .map(|i| record(Topic::Tasks, &format!("key {i}")))
        .collect();
    broker.publish(&all);
    let (lane, work) = broker.lane(Topic::Tasks, "worker", 4);
    // Nothing of this is settled: the engine behind the lane is stuck.
    let mut stuck: Vec<_> = (0..4).map(|_| work.recv_blocking().unwrap()).collect();
    let (polls, assignments) = (lane.polls(), lane.assignments());
    wait_for("polls of a full lane", || lane.polls() >= polls + 50);
    assert!(work.try_recv().is_err(), "more than the limit was handed out");
    let mut seen = BTreeSet::new();
    while seen.len() < all.len() {
        let tracked = stuck.pop().unwrap_or_else(|| work.recv_blocking().unwrap());
        assert!(
            seen.insert(tracked.value.key.clone()),
            "{} came twice",
            tracked.value.key
        );
        tracked.ticket.settle(Outcome::Publish(Vec::new()));
    }
    assert_eq!(lane.assignments(), assignments, "the group rebalanced");
    end(lane, work);
}

#[test]
fn a_full_partition_leaves_room_for_the_others_and_keeps_its_order() {
    let broker = Broker::start();
    let of = |partition: i32, count: usize| {
        (0..count).map(move |i| OutRecord {
            partition: Some(partition),
            ..record(Topic::BatchPlates, &format!("{partition}/{i:02}"))
        })
    };
    // A long queue in one partition, and a short one behind it.
    let all: Vec<OutRecord> = of(0, 40).chain(of(1, 5)).collect();
    broker.publish(&all);
    let settings = LaneSettings {
        topic: Topic::BatchPlates,
        role: "planner-batch",
        in_flight: 16,
        per_partition: Some(2),
        company: Company::default(),
        until_drained: None,
    };
    let (lane, work) = Lane::open(&broker.kafka, &settings).unwrap();
    let mut held: Vec<(bool, Tracked<Arc<Inbound>>)> = Vec::new();
    let mut seen: [Vec<String>; 2] = Default::default();
    while seen[0].len() + seen[1].len() < all.len() {
        let of_second = |held: &[(bool, _)], second| held.iter().filter(|(of, _)| *of == second).count();
        let may_come = of_second(&held, false) < 2 && seen[0].len() < 40
            || of_second(&held, true) < 2 && seen[1].len() < 5;
        if may_come {
            let tracked = work.recv_blocking().unwrap();
            let second = tracked.value.key.starts_with('1');
            seen[usize::from(second)].push(tracked.value.key.clone());
            held.push((second, tracked));
            assert!(
                of_second(&held, second) <= 2,
                "more of a partition than it may have"
            );
        } else {
            held.remove(0).1.ticket.settle(Outcome::Publish(Vec::new()));
        }
    }
    for (_, tracked) in held {
        tracked.ticket.settle(Outcome::Publish(Vec::new()));
    }
    assert_eq!([seen[0].len(), seen[1].len()], [40, 5]);
    assert!(seen.iter().all(|keys| keys.is_sorted()), "{seen:?}");
    end(lane, work);
}

/// The client keeps partitions paused that move away while they are: they were never read again when they came back
/// to a lane that had gone on meanwhile.
#[test]
fn a_partition_that_moved_while_it_was_paused_is_read_when_it_comes_back() {
    let broker = Broker::start();
    let in_every_partition = |round: &str| -> Vec<OutRecord> {
        let record = |i| OutRecord {
            partition: Some(i),
            ..record(Topic::Tasks, &format!("{round} {i}"))
        };
        (0..32).map(record).collect()
    };
    broker.publish(&in_every_partition("first"));
    let (lane, work) = broker.lane(Topic::Tasks, "worker", 32);
    // No room is left, so every partition is paused.
    let held: Vec<_> = (0..32).map(|_| work.recv_blocking().unwrap()).collect();
    let (other, others_work) = broker.other_lane(Topic::Tasks, "worker", 32);
    let unanswered = others_work.recv_blocking().unwrap();
    let moved = held
        .iter()
        .filter(|tracked| tracked.value.key == unanswered.value.key);
    assert!(moved.map(|tracked| tracked.ticket.is_stale()).eq([true]));
    // This one goes on while some of its partitions are with the other.
    for tracked in held {
        if let Some(tracked) = tracked.unless_stale() {
            tracked.ticket.settle(Outcome::Publish(Vec::new()));
        }
    }
    let polls = lane.polls();
    wait_for("polls of a lane that goes on", || lane.polls() >= polls + 10);
    let before = lane.assignments();
    let stopped = StageError::internal(Stage::Embed, "no answer");
    unanswered.ticket.settle(Outcome::Stop(stopped));
    drop(others_work);
    assert!(other.join().is_err());
    wait_for("the partitions to come back", || lane.assignments() > before);
    broker.publish(&in_every_partition("second"));
    let mut second = BTreeSet::new();
    wait_for("every partition's second record", || {
        while let Ok(tracked) = work.try_recv() {
            if tracked.value.key.starts_with("second") {
                assert!(second.insert(tracked.value.key.clone()));
            }
            tracked.ticket.settle(Outcome::Publish(Vec::new()));
        }
        second.len() == 32
    });
    end(lane, work);
}

#[test]
fn a_key_is_at_home_where_the_producers_put_it() {
    let broker = Broker::start();
    let keys = [
        "P",
        "SQ00014812",
        "BR00117035__2020-11-08T19_57_47-Measurement1",
        "платёж 7",
    ];
    let records: Vec<OutRecord> = keys.iter().map(|key| record(Topic::Plates, key)).collect();
    broker.publish(&records);
    let (lane, work) = broker.lane(Topic::Plates, "planner", 8);
    let mut home = Home::open(&broker.kafka, Topic::Plates).unwrap();
    for _ in keys {
        let tracked = work.recv_blocking().unwrap();
        let partition = tracked.ticket.position().partition;
        assert_eq!(
            home.of(&tracked.value.key).unwrap(),
            partition,
            "{}",
            tracked.value.key
        );
        tracked.ticket.settle(Outcome::Publish(Vec::new()));
    }
    end(lane, work);
}

#[test]
fn a_lane_whose_topic_is_not_there_yet_reads_it_once_it_is() {
    let mut broker = Broker::start();
    broker.kafka.prefix = "late".to_owned();
    let (lane, work) = broker.lane(Topic::Tasks, "worker", 4);
    wait_for("polls without a topic", || lane.polls() >= 30);
    assert_eq!(lane.assignments(), 0);
    broker.runtime.block_on(create_missing(&broker.kafka)).unwrap();
    broker.publish(&[record(Topic::Tasks, "first")]);
    let tracked = work.recv_blocking().unwrap();
    assert_eq!(tracked.value.key, "first");
    tracked.ticket.settle(Outcome::Publish(Vec::new()));
    end(lane, work);
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let broker = Broker::start();
    let kafka = KafkaSettings::new(&broker.kafka.bootstrap, "elsewhere", "lane");
    let told = Tail::open(&kafka, &[Topic::Status]).err().unwrap().to_string();
    assert!(told.contains("there is no topic 'elsewhere.status'"), "{told}");
}

#[test]
fn a_record_that_is_not_due_waits_and_holds_up_no_other_partition() {
    let broker = Broker::start();
    let in_partition = |key: &str, partition: i32, due: Option<u64>| OutRecord {
        partition: Some(partition),
        headers: due.map(|due| (DUE, due.to_string())).into_iter().collect(),
        ..record(Topic::Retries, key)
    };
    let in_an_hour = now_ms() + 3_600_000;
    broker.publish(&[
        in_partition("later", 0, Some(in_an_hour)),
        in_partition("behind it", 0, None),
        in_partition("overdue", 1, Some(now_ms().saturating_sub(1))),
    ]);
    let (lane, work) = broker.lane(Topic::Retries, "retrier", 8);
    let next = || {
        let tracked = work.recv_blocking().unwrap();
        let key = tracked.value.key.clone();
        tracked.ticket.settle(Outcome::Publish(Vec::new()));
        key
    };
    assert_eq!(next(), "overdue");
    broker.publish(&[in_partition("another", 1, None)]);
    assert_eq!(next(), "another");
    let polls = lane.polls();
    wait_for("polls of a lane that waits", || lane.polls() >= polls + 20);
    assert!(work.try_recv().is_err());
    end(lane, work);
}

#[test]
fn what_waits_to_be_tried_again_is_told_by_plate_and_failure() {
    let broker = Broker::start();
    let task = |plate: &str, field: u32, partition: i32, due: u64, failure: Option<&str>| {
        let value =
            serde_json::json!({ "run": "r", "plate": plate, "well": "A01", "field": field, "images": [] });
        let mut headers = vec![(DUE, due.to_string())];
        if let Some(failure) = failure {
            headers.extend([(CLASS, "network".to_owned()), (ERROR, failure.to_owned())]);
        }
        OutRecord {
            partition: Some(partition),
            headers,
            value: serde_json::to_vec(&value).unwrap(),
            ..record(Topic::Retries, plate)
        }
    };
    let now = now_ms();
    let soon = now + 3_600_000;
    broker.publish(&[
        task("P0", 1, 0, now.saturating_sub(1), Some("answered")),
        task("P1", 1, 0, soon, Some("no route")),
        task("P1", 2, 1, soon + 5, Some("no route")),
        // It failed once; it waits because its run is paused.
        task("P2", 1, PARKED, soon + 1, Some("earlier")),
    ]);
    let (lane, work) = broker.lane(Topic::Retries, "retrier", 8);
    let tracked = work.recv_blocking().unwrap();
    tracked.ticket.settle(Outcome::Publish(Vec::new()));
    // Committed before it ends.
    end(lane, work);
    let told: Vec<_> = waiting(&broker.kafka)
        .unwrap()
        .into_iter()
        .map(|of| {
            let plate = of.plate.unwrap().to_string();
            (plate, of.records, of.first_ms, of.last_ms, of.class, of.error)
        })
        .collect();
    let failed = (Some("network".to_owned()), Some("no route".to_owned()));
    assert_eq!(
        told,
        [
            ("P1".to_owned(), 2, soon, soon + 5, failed.0, failed.1),
            ("P2".to_owned(), 1, soon + 1, soon + 1, None, None),
        ]
    );
}

#[test]
fn a_clock_set_back_by_an_hour_holds_nothing_up_for_an_hour() {
    let broker = Broker::start();
    let headers = vec![
        (DUE, (now_ms() + 3_600_000).to_string()),
        (DELAY, "1000".to_owned()),
    ];
    broker.publish(&[OutRecord {
        headers,
        ..record(Topic::Retries, "early")
    }]);
    let (lane, work) = broker.lane(Topic::Retries, "retrier", 8);
    let tracked = work.recv_blocking().unwrap();
    assert_eq!(tracked.value.key, "early");
    tracked.ticket.settle(Outcome::Publish(Vec::new()));
    end(lane, work);
}

#[test]
fn a_record_that_ends_process_after_process_is_handed_out_as_deadly_at_the_sixth_attempt() {
    let broker = Broker::start();
    broker.publish(&[record(Topic::Tasks, "poison")]);
    for attempt in 1..=5 {
        let (lane, work) = broker.lane(Topic::Tasks, "worker", 8);
        let tracked = work.recv_blocking().unwrap();
        assert!(!tracked.value.deadly, "attempt {attempt}");
        assert_eq!(tracked.value.alone, attempt > 3, "attempt {attempt}");
        // What a panic in a stage does.
        drop(tracked);
        drop(work);
        assert!(lane.join().is_err());
    }
    let (lane, work) = broker.lane(Topic::Tasks, "worker", 8);
    let tracked = work.recv_blocking().unwrap();
    assert!(tracked.value.deadly);
    tracked.ticket.settle(Outcome::Publish(Vec::new()));
    end(lane, work);
    // It is out of the way, and what comes after it is innocent.
    broker.publish(&[record(Topic::Tasks, "poison")]);
    let (lane, work) = broker.lane(Topic::Tasks, "worker", 8);
    let tracked = work.recv_blocking().unwrap();
    assert!(!tracked.value.deadly);
    tracked.ticket.settle(Outcome::Publish(Vec::new()));
    end(lane, work);
}

/// What another lane's record does to the process must not be blamed on it.
#[test]
fn a_record_that_may_be_deadly_is_alone_in_both_lanes_of_a_worker() {
    let broker = Broker::start();
    broker.publish(&[record(Topic::Tasks, "suspect")]);
    for _ in 1..=3 {
        let (lane, work) = broker.lane(Topic::Tasks, "worker", 8);
        drop(work.recv_blocking().unwrap());
        drop(work);
        assert!(lane.join().is_err());
    }
    let company = Company::default();
    let (batch, batch_work) = broker.lane_in(&company, Topic::BatchTasks, "worker-batch", 8);
    broker.publish(&[record(Topic::BatchTasks, "busy")]);
    let busy = batch_work.recv_blocking().unwrap();
    let (live, live_work) = broker.lane_in(&company, Topic::Tasks, "worker", 8);
    wait_for("the lane to be assigned", || live.assignments() > 0);
    let polls = live.polls();
    wait_for("polls of a lane that waits", || live.polls() >= polls + 200);
    assert!(live_work.try_recv().is_err());
    busy.ticket.settle(Outcome::Publish(Vec::new()));
    let suspect = live_work.recv_blocking().unwrap();
    assert!(!suspect.value.deadly);

    broker.publish(&[record(Topic::BatchTasks, "later")]);
    let polls = batch.polls();
    wait_for("polls of the other lane", || batch.polls() >= polls + 20);
    assert!(batch_work.try_recv().is_err());
    suspect.ticket.settle(Outcome::Publish(Vec::new()));
    let later = batch_work.recv_blocking().unwrap();
    assert_eq!(later.value.key, "later");
    later.ticket.settle(Outcome::Publish(Vec::new()));
    end(live, live_work);
    end(batch, batch_work);
}

#[test]
fn a_process_that_stops_by_its_own_decision_is_no_death() {
    let broker = Broker::start();
    broker.publish(&[record(Topic::Tasks, "innocent")]);
    for attempt in 1..=6 {
        let (lane, work) = broker.lane(Topic::Tasks, "worker", 8);
        let tracked = work.recv_blocking().unwrap();
        assert!(!tracked.value.deadly, "attempt {attempt}");
        let error = StageError::internal(Stage::Embed, "the weights are missing");
        tracked.ticket.settle(Outcome::Stop(error));
        drop(work);
        assert!(lane.join().is_err());
    }
}

#[test]
fn a_batch_whose_commit_or_its_answer_is_lost_is_in_once() {
    let broker = Broker::start();
    let mut producer = BatchProducer::open(&broker.kafka, "lossy").unwrap();
    // The first batch is there before; the second is committed unheard; the third is not committed at first.
    for (keys, lost) in [
        (["a", "b"], None),
        (["c", "d"], Some("lossy.answer")),
        (["e", "f"], Some("lossy.request")),
    ] {
        if let Some(lost) = lost {
            fail::cfg(lost, "1*return").unwrap();
        }
        let records = keys.map(|key| record(Topic::Features, key));
        producer.publish_once(3, &records).unwrap();
    }
    assert_eq!(answers(&broker), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn a_producer_fenced_for_its_own_slowness_is_made_anew_and_repeats_nothing() {
    let broker = Broker::start();
    let keys = ["a", "b", "c", "d", "e"];
    let all: Vec<OutRecord> = keys.iter().map(|key| record(Topic::Tasks, key)).collect();
    broker.publish(&all);
    // Longer than a transaction may take; the broker aborts it meanwhile.
    fail::cfg("slow.sent", "1*sleep(6500)").unwrap();
    let (lane, work) = broker.lane(Topic::Tasks, "slow", 8);
    for _ in keys {
        let tracked = work.recv_blocking().unwrap();
        let answer = record(Topic::Features, &tracked.value.key);
        tracked.ticket.settle(Outcome::Publish(vec![answer]));
    }
    end(lane, work);
    assert_eq!(answers(&broker), keys);
}

/// Values of all features, sorted.
fn answers(broker: &Broker) -> Vec<String> {
    let mut tail = Tail::open(&broker.kafka, &[Topic::Features]).unwrap();
    let mut answers = Vec::new();
    let read = tail.read_to_end(Duration::from_secs(60), |record| -> Result<_, KafkaFailure> {
        answers.push(String::from_utf8(record.value.clone()).unwrap());
        Ok(ControlFlow::Continue(()))
    });
    read.unwrap();
    answers.sort();
    answers
}

const SCREEN: &str = r#"
[screen]
name = "submitted"
[images]
store = "."
channels = ["DNA"]
[plate_map]
file = "map.csv"
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
"#;

#[test]
fn a_run_whose_submission_is_not_committed_yet_is_waited_for_and_one_that_was_never_written_is_not() {
    let broker = Broker::start();
    let runs = Runs::follow(&broker.kafka).unwrap();
    let unknown = runs.get("nobody-00000000").unwrap_err();
    assert_eq!(unknown.class, FailureClass::BadEvent);

    let mut screen = Screen::parse(SCREEN, "submitted.toml").unwrap();
    screen.resolve_paths(std::env::temp_dir().to_str().unwrap());
    let run = Run::open(screen).unwrap();
    let submitted = Status::RunSubmitted {
        run: run.id.clone(),
        screen: Box::new(run.screen.clone()),
        plates: Vec::new(),
        time_ms: now_ms(),
        model: None,
    };
    let value = serde_json::to_vec(&submitted).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.kafka.bootstrap)
        .set("transactional.id", "submits-slowly")
        .create()
        .unwrap();
    let patience = Duration::from_secs(20);
    producer.init_transactions(patience).unwrap();
    producer.begin_transaction().unwrap();
    let topic = Topic::Status.name(&broker.kafka.prefix);
    producer
        .send(BaseRecord::to(&topic).key(&run.id).payload(&value))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.flush(patience).unwrap();
    let (looking, id) = (runs.clone(), run.id.clone());
    let found = std::thread::spawn(move || looking.get(&id).map(|run| run.id.clone()));
    producer.commit_transaction(patience).unwrap();
    assert_eq!(found.join().unwrap().unwrap(), run.id);

    // Written and given up: it is nobody's run.
    producer.begin_transaction().unwrap();
    let given_up = String::from_utf8(value)
        .unwrap()
        .replace(&run.id, "given-up-00000000");
    producer
        .send(BaseRecord::to(&topic).key("given-up-00000000").payload(&given_up))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.flush(patience).unwrap();
    producer.abort_transaction(patience).unwrap();
    assert!(runs.all().iter().all(|known| known.id == run.id));
    runs.stop();
}
