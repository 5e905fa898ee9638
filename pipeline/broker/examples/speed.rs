//! How fast a broker takes and gives records, and the memory it needs for that: `speed [ADDRESS]`.
//!
//! Without an address it starts the embedded broker as a process of its own (the example `serve`, built beforehand) in
//! a temporary folder. With one, that of a real Kafka for example, it measures that, without its memory.
//!
//! ```text
//! cargo build --release -p wellspring-broker --examples && cargo run --release -p wellspring-broker --example speed
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

type Failure = Box<dyn Error>;

/// Longest wait for the broker to do anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// One measurement: so many records of so many bytes over so many partitions.
struct Load {
    name: &'static str,
    records: usize,
    bytes: usize,
    partitions: i32,
}

const LOADS: [Load; 2] = [
    Load {
        name: "small",
        records: 400_000,
        bytes: 2_000,
        partitions: 4,
    },
    Load {
        name: "large",
        records: 100,
        bytes: 4 << 20,
        partitions: 1,
    },
];

/// The broker measured, ended when dropped.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let (served, address) = match std::env::args().nth(1) {
        Some(address) => (None, address),
        None => {
            let program = std::env::current_exe()?.with_file_name("serve");
            let mut child = Command::new(program)
                .arg(dir.path())
                .arg("127.0.0.1:0")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let output = child.stdout.take().ok_or("no output")?;
            let served = Served(child);
            let mut address = String::new();
            BufReader::new(output).read_line(&mut address)?;
            (Some(served), address.trim().to_owned())
        }
    };
    let mut out = std::io::stdout();
    for load in &LOADS {
        let topic = format!("speed-{}-{}", load.name, std::process::id());
        create(&address, &topic, load)?;
        let written = write(&address, &topic, load)?;
        let read = read(&address, &topic, load)?;
        let per_second = |time: Duration| load.records as f64 / time.as_secs_f64();
        writeln!(
            out,
            "{} records of {} bytes: {:.0} written and {:.0} read per second{}",
            load.records,
            load.bytes,
            per_second(written),
            per_second(read),
            served.as_ref().map(memory).transpose()?.unwrap_or_default(),
        )?;
    }
    Ok(())
}

/// What the system says of the broker's memory.
fn memory(served: &Served) -> Result<String, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", served.0.id()))?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let (now, peak) = (field("VmRSS:").unwrap_or(0), field("VmHWM:").unwrap_or(0));
    Ok(format!(
        "; broker {} MB resident, {} MB at most so far",
        now / 1000,
        peak / 1000
    ))
}

fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}

fn create(address: &str, topic: &str, load: &Load) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let admin: AdminClient<DefaultClientContext> = client(address).create()?;
    let new =
        NewTopic::new(topic, load.partitions, TopicReplication::Fixed(1)).set("max.message.bytes", "8000000");
    let created = runtime.block_on(admin.create_topics([&new], &AdminOptions::new()))?;
    for result in created {
        result.map_err(|(topic, code)| format!("topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Writes the load with an idempotent producer; the time until all of it is acknowledged.
fn write(address: &str, topic: &str, load: &Load) -> Result<Duration, Failure> {
    let producer: ThreadedProducer<DefaultProducerContext> = client(address)
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "8000000")
        .set("queue.buffering.max.kbytes", "65536")
        .create()?;
    // Not compressible, so that nobody gains by trying.
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let value: Vec<u8> = (0..load.bytes).map(|_| byte()).collect();
    let start = Instant::now();
    for i in 0..load.records {
        let mut record = BaseRecord::<(), [u8]>::to(topic)
            .partition(i as i32 % load.partitions)
            .payload(&value);
        while let Err((error, unsent)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(1));
            record = unsent;
        }
    }
    producer.flush(PATIENCE)?;
    Ok(start.elapsed())
}

/// Reads the load back.
fn read(address: &str, topic: &str, load: &Load) -> Result<Duration, Failure> {
    let consumer: BaseConsumer = client(address)
        .set("group.id", "speed")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "8000000")
        .set("queued.max.messages.kbytes", "65536")
        .create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..load.partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let start = Instant::now();
    consumer.assign(&all)?;
    let mut found = 0;
    while found < load.records {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) if message.payload_len() == load.bytes => found += 1,
            Some(Ok(message)) => return Err(format!("a record of {} bytes", message.payload_len()).into()),
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(format!("{found} of {} records came", load.records).into()),
        }
    }
    Ok(start.elapsed())
}
