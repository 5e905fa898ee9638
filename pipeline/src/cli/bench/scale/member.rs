//! Virtual workers: the lanes, the consumer groups, the transactions and the queues of real ones, with storage and engine
//! replaced by delays.
//!
//! Tasks enter from Kafka; for each its features leave, made up. Between the two a field takes the time of a read, at
//! most [`CONCURRENCY`] of a lane at once, passes as many queues of [`BETWEEN_STAGES`] as in a real worker, and takes its turn in a batch
//! of the engine. Fails where Kafka does.

use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender, bounded};
use tokio::task::JoinSet;
use wellspring::error::{Stage, StageError};
use wellspring::events::{FieldFeatures, FieldTask};
use wellspring::fetch::CONCURRENCY;
use wellspring::kafka::lane::{Lane, Work};
use wellspring::kafka::topics::{Topic, Urgency};
use wellspring::kafka::{KafkaSettings, OutRecord};
use wellspring::lanes::Lanes;
use wellspring::topology::{BETWEEN_STAGES, OfLane, task_lanes};
use wellspring::track::{Outcome, Tracked};

use crate::cli::common;

/// Fields of one lane in flight at most, as in a real worker.
const IN_FLIGHT: usize = 64;
/// Floats in a record of features: five channels of 384.
const FLOATS: usize = 5 * 384;

/// What a virtual worker is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delays {
    /// Reading a field's images.
    pub(super) read: Duration,
    /// The engine, for each field of a batch.
    pub(super) engine: Duration,
    /// Fields in a batch at most.
    pub(super) batch: usize,
}

/// Runs so many virtual workers in this process until it is told to end, and then lets them finish what they have.
pub(super) fn run(
    kafka: &KafkaSettings,
    workers: u32,
    lanes: &[Urgency],
    delays: Delays,
) -> anyhow::Result<()> {
    let runtime = common::runtime()?;
    let mut opened: Vec<Lane> = Vec::new();
    let mut stages = Vec::new();
    for number in 0..workers {
        let kafka = KafkaSettings {
            instance: format!("virtual-{}-{number}", std::process::id()),
            ..kafka.clone()
        };
        let (of_worker, tasks) = task_lanes(&kafka, lanes, IN_FLIGHT, false)?;
        opened.extend(of_worker);
        stages.push(runtime.spawn(work(tasks, delays)));
    }
    runtime.block_on(terminated())?;
    let stoppers: Vec<_> = opened.iter().map(Lane::stopper).collect();
    stoppers.iter().for_each(|stop| stop());
    for stage in stages {
        runtime.block_on(stage)?;
    }
    for lane in opened {
        lane.join()?;
    }
    Ok(())
}

#[cfg(unix)]
async fn terminated() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

#[cfg(not(unix))]
async fn terminated() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// All stages of one worker, until its lanes end.
async fn work(tasks: Vec<OfLane>, delays: Delays) {
    let (fetched_in, fetched) = bounded(BETWEEN_STAGES - 1);
    let (decoded_in, decoded) = bounded(BETWEEN_STAGES);
    let (prepared_in, prepared) = bounded(BETWEEN_STAGES);
    let (measured_in, measured) = bounded(delays.batch.max(BETWEEN_STAGES));
    let mut fetching = JoinSet::new();
    let mut of_lanes = Vec::new();
    for (urgency, work) in tasks {
        let (of_lane_in, of_lane) = bounded(BETWEEN_STAGES);
        fetching.spawn(fetch(work, of_lane_in, delays.read));
        of_lanes.push((urgency, of_lane));
    }
    tokio::join!(
        Lanes::new(of_lanes).join(fetched_in),
        hand_on(fetched, decoded_in),
        hand_on(decoded, prepared_in),
        hand_on(prepared, measured_in),
        embed(measured, delays),
    );
    while fetching.join_next().await.is_some() {}
}

/// As the real stage: a limited number of a lane at once, in its order.
async fn fetch(tasks: Work, output: Sender<Tracked<Arc<FieldTask>>>, read: Duration) {
    let mut fetching = JoinSet::new();
    while let Ok(task) = tasks.recv().await {
        while fetching.len() >= CONCURRENCY {
            fetching.join_next().await;
        }
        let Some(Tracked { ticket, .. }) = task.unless_stale() else {
            continue;
        };
        let task: Arc<FieldTask> = match ticket.read(Stage::Source) {
            Ok(task) => Arc::new(task),
            Err(error) => {
                ticket.settle(Outcome::Stop(error));
                return;
            }
        };
        let output = output.clone();
        fetching.spawn(async move {
            tokio::time::sleep(read).await;
            // Closed: the worker ends, and the task is done again.
            let _closed = output.send(Tracked { value: task, ticket }).await;
        });
    }
    while fetching.join_next().await.is_some() {}
}

/// A stage that is no bottleneck.
async fn hand_on<T>(input: Receiver<T>, output: Sender<T>) {
    while let Ok(field) = input.recv().await {
        if output.send(field).await.is_err() {
            return;
        }
    }
}

/// As the real stage: a batch of what is there, and the next while it is answered.
async fn embed(input: Receiver<Tracked<Arc<FieldTask>>>, delays: Delays) {
    while let Ok(first) = input.recv().await {
        let mut batch = Vec::from_iter(first.unless_stale());
        while batch.len() < delays.batch
            && let Ok(next) = input.try_recv()
        {
            batch.extend(next.unless_stale());
        }
        tokio::time::sleep(delays.engine * u32::try_from(batch.len()).unwrap_or(u32::MAX)).await;
        for Tracked { value: task, ticket } in batch {
            let outcome = match features(&task) {
                Ok(record) => Outcome::Publish(vec![record]),
                Err(error) => Outcome::Stop(error),
            };
            ticket.settle(outcome);
        }
    }
}

fn features(task: &FieldTask) -> Result<OutRecord, StageError> {
    let features = FieldFeatures {
        run: task.run.clone(),
        field: task.field.clone(),
        model: "virtual".to_owned(),
        tiles: 1,
        passed: true,
        quality: Vec::new(),
        embedding: vec![0.5; FLOATS],
    };
    let id = format!("{}/{}", task.run, task.field);
    let key = task.field.plate.as_str();
    OutRecord::new(Topic::Features, key, id, "wellspring.features.v1", &features)
        .map_err(|error| StageError::internal(Stage::Publish, error))
}
