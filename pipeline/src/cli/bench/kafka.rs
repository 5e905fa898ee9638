//! `bench kafka`: feature records as bytes, through a Kafka and back, and into a collector that starts anew.
//!
//! Records are those of the flow, written and read by its own code: exactly-once batches out, committed records in. What
//! Kafka's own performance tools reach on the same Kafka is given as an argument (`scripts/bench/kafka` measures it).

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, ensure};
use wellspring::collector::{Collector, Wanted};
use wellspring::events::{ChannelMeasures, FieldFeatures, Status};
use wellspring::kafka::producer::{BatchProducer, Committed, TRANSACTION_BYTES};
use wellspring::kafka::tail::{Start, read_to_end};
use wellspring::kafka::topics::{Topic, create_missing};
use wellspring::kafka::{KafkaSettings, OutRecord};
use wellspring::memory;
use wellspring::schemas::{Schemas, encode};
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use super::{Line, Printer, Random, seconds};
use crate::cli::common::runtime;

/// Fields of one plate: 384 wells with 9 fields.
const PLATE: usize = 384 * 9;
/// Records of differing values that are made beforehand.
const MADE: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kafka's bootstrap servers, host:port[,host:port].
    #[arg(long, value_name = "BOOTSTRAP", env = "WELLSPRING_KAFKA")]
    kafka: String,
    /// Feature records.
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Numbers in an embedding.
    #[arg(long, default_value_t = 1_280)]
    width: usize,
    /// What kafka-producer-perf-test reaches with records of this size, MB/s.
    #[arg(long, value_name = "MB/S")]
    peer_publish: Option<f64>,
    /// What kafka-consumer-perf-test reaches, MB/s.
    #[arg(long, value_name = "MB/S")]
    peer_read: Option<f64>,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let run = format!("bench-{}", wellspring::clock::now_ms());
    let made = features(args.width, &run);
    let size = codec(&made, printer)?;

    let kafka = KafkaSettings::new(&args.kafka, &run, "bench");
    runtime()?.block_on(create_missing(&kafka))?;
    let megabytes = (size * args.records) as f64 / 1e6;
    let beside = |line: Line, peer: &str, value: Option<f64>| match value {
        Some(value) => line.beside(peer, value).at_least(0.8),
        None => line,
    };
    let work = |what: &str| format!("{what} {} feature records of {} bytes", args.records, size);

    let begun = Instant::now();
    publish(&kafka, &made, args.records, TRANSACTION_BYTES.div_ceil(size))?;
    let line = Line::new(
        "kafka",
        work("publish"),
        megabytes / begun.elapsed().as_secs_f64(),
        "MB/s",
    );
    printer.push(beside(line, "kafka-producer-perf-test", args.peer_publish))?;

    let begun = Instant::now();
    let mut read = 0;
    read_to_end(
        &kafka,
        Topic::Features,
        &Start::Beginning,
        |record| -> anyhow::Result<_> {
            let features: FieldFeatures = record.read()?;
            ensure!(
                features.embedding.len() == args.width,
                "an embedding came back in another length"
            );
            read += 1;
            Ok(ControlFlow::Continue(()))
        },
    )?;
    ensure!(
        read == args.records,
        "{read} of {} records came back",
        args.records
    );
    let line = Line::new(
        "kafka",
        work("read back"),
        megabytes / begun.elapsed().as_secs_f64(),
        "MB/s",
    );
    printer.push(beside(line, "kafka-consumer-perf-test", args.peer_read))?;

    recover(&kafka, &run, args.records, printer)
}

/// Bytes and time of one record as Avro and as JSON. Gives its size in Avro.
fn codec(made: &[FieldFeatures], printer: &mut Printer) -> anyhow::Result<usize> {
    let schemas = Schemas::default();
    let first = made.first().context("no records were made")?;
    let (avro, json) = (encode(Topic::Features, first)?, serde_json::to_vec(first)?);
    let peer = "JSON with base64";
    printer.push(
        Line::new("kafka", "a feature record in Avro", avro.len() as f64, "bytes")
            .beside(peer, json.len() as f64),
    )?;
    let micros = |work: &mut dyn FnMut(&FieldFeatures) -> anyhow::Result<usize>| -> anyhow::Result<f64> {
        let all = seconds(|| {
            made.iter()
                .try_for_each(|one| work(one).map(|n| _ = std::hint::black_box(n)))
        })?;
        Ok(all / made.len() as f64 * 1e6)
    };
    let ours = micros(&mut |one| Ok(encode(Topic::Features, one)?.len()))?;
    let theirs = micros(&mut |one| Ok(serde_json::to_vec(one)?.len()))?;
    printer.push(Line::new("kafka", "write a feature record in Avro", ours, "us").beside(peer, theirs))?;
    let read = |bytes: &[u8]| -> anyhow::Result<usize> {
        let features: FieldFeatures = schemas.read(Topic::Features, bytes)?;
        Ok(features.embedding.len())
    };
    let ours = micros(&mut |_| read(&avro))?;
    let theirs = micros(&mut |_| read(&json))?;
    printer.push(Line::new("kafka", "read a feature record in Avro", ours, "us").beside(peer, theirs))?;
    Ok(avro.len())
}

/// Records such as the flow makes of one channel.
fn features(width: usize, run: &str) -> Vec<FieldFeatures> {
    let mut random = Random(1);
    let names = [
        "PowerLogLogSlope",
        "PercentMaximal",
        "MeanIntensity",
        "StdIntensity",
        "FocusScore",
        "Correlation",
    ];
    let mut all = Vec::with_capacity(MADE);
    for _ in 0..MADE {
        let Ok(plate) = "BENCH".parse() else { continue };
        let Some(well) = WellPosition::new(1, 1) else {
            continue;
        };
        let Ok(channel) = "DNA".parse() else { continue };
        let measures = names.iter().map(|name| ((*name).to_owned(), random.unit()));
        all.push(FieldFeatures {
            run: run.to_owned(),
            field: FieldId {
                plate,
                well,
                field: 0,
            },
            model: "efficientnet-lite0-1".to_owned(),
            tiles: 4,
            passed: true,
            quality: vec![ChannelMeasures {
                channel,
                measures: measures.collect(),
                flags: Vec::new(),
                uri: Some("s3://plates/2026-11/BENCH/BENCH_A01_s1_w1.tif".to_owned()),
            }],
            embedding: (0..width).map(|_| random.unit() as f32).collect(),
        });
    }
    all
}

fn barcode(plate: usize) -> anyhow::Result<Barcode> {
    Ok(format!("BENCH{plate:06}").parse()?)
}

/// The record of this number: its own plate, well and field.
fn numbered(made: &[FieldFeatures], number: usize) -> anyhow::Result<OutRecord> {
    let mut one = made
        .get(number % made.len())
        .context("no records were made")?
        .clone();
    let (plate, place) = (number / PLATE, number % PLATE);
    let (well, field) = (place / 9, place % 9);
    one.field = FieldId {
        plate: barcode(plate)?,
        well: WellPosition::new(u8::try_from(well / 24 + 1)?, u8::try_from(well % 24 + 1)?)
            .context("no such well")?,
        field: u32::try_from(field)?,
    };
    let key = one.field.plate.to_string();
    let id = format!("{}/{}/{}/{}", one.run, key, one.field.well, field);
    Ok(OutRecord::new(
        Topic::Features,
        key,
        id,
        "wellspring.features.v1",
        &one,
    )?)
}

/// Publishes so many records, `batch` of them in a transaction.
fn publish(
    kafka: &KafkaSettings,
    made: &[FieldFeatures],
    records: usize,
    batch: usize,
) -> anyhow::Result<()> {
    let producer = BatchProducer::open(kafka, "bench")?;
    let mut number = 0;
    while number < records {
        let until = records.min(number + batch);
        let batch = (number..until).map(|number| numbered(made, number));
        let batch = batch.collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(
            producer.publish(&batch)? == Committed::Yes,
            "a transaction was not committed"
        );
        number = until;
    }
    Ok(())
}

/// A collector that starts anew reads all of it.
fn recover(kafka: &KafkaSettings, run: &str, records: usize, printer: &mut Printer) -> anyhow::Result<()> {
    let mut statuses = Vec::new();
    for plate in 0..records.div_ceil(PLATE) {
        let fields = u32::try_from(PLATE.min(records - plate * PLATE))?;
        let planned = Status::PlatePlanned {
            run: run.to_owned(),
            plate: barcode(plate)?,
            fields_expected: fields,
            fields_planned: fields,
            dead_letters: 0,
            shading: None,
            incomplete: None,
            remarks: Vec::new(),
        };
        statuses.push(OutRecord::status(format!("{run}/{plate}"), &planned)?);
    }
    let committed = BatchProducer::open(kafka, "bench")?.publish(&statuses)?;
    ensure!(committed == Committed::Yes, "the statuses were not committed");
    drop(statuses);
    memory::give_back_free();
    let before = memory::peak_rss_bytes();
    let folder = tempfile::tempdir()?;
    let begun = Instant::now();
    let mut collector = Collector::open(kafka, Wanted::One(run.to_owned()), folder.path())?;
    loop {
        collector.step(std::time::Duration::from_secs(10))?;
        let done = collector
            .progress()
            .map(|(_, progress)| progress.done as usize)
            .sum::<usize>();
        if done >= records {
            break;
        }
        ensure!(
            begun.elapsed().as_secs() < 3_600,
            "the collector does not come to the end: {done} of {records}"
        );
    }
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    printer.push(Line::new(
        "kafka",
        format!("a collector reads {records} feature records anew"),
        rate,
        "records/s",
    ))?;
    let grown = memory::peak_rss_bytes().saturating_sub(before) as f64;
    printer.push(Line::new(
        "kafka",
        format!(
            "most memory of the process with that, above the {:.0} MB before",
            before as f64 / 1e6
        ),
        grown / 1e6,
        "MB",
    ))
}
