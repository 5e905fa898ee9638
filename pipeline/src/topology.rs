//! Wires the stages: what a planner and a worker are made of, from Kafka back to Kafka.
//!
//! ```text
//! planner   plates ─> plan ─> tasks, status, retries, dead letters; of the batch lane: plates-batch ─> plan ─> tasks-batch, ...
//! worker    tasks, tasks-batch ─> fetch ─> lanes ─> decode ─> preprocess ─> quality ─> embed ─> external ─> publish ─> features, retries, dead letters
//! retrier   retries, when they are due ─> plates, tasks
//! ```
//!
//! Every arrow is a bounded channel. Fetch and external are async; decode, preprocess, quality and embed have threads of their own.
//! A stage ends when the one before it has ended, so stopping the lane drains the rest. A stage's failure becomes a
//! dead letter or stops the lane; a panic drops its ticket, which stops the lane too.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_channel::{Receiver, Sender, bounded};
use tokio::runtime::Handle;
use wellspring_kernels::Device;

use crate::dead_letters::Place;
use crate::embed::EngineSettings;
use crate::error::{FailureClass, Stage, StageError};
use crate::external::callbacks::Callbacks;
use crate::external::{self, ExternalSettings};
use crate::failures::{returned, settle, settle_field};
use crate::fetch::MemoryLimit;
use crate::fields::OfField;
use crate::kafka::lane::{Company, Drained, Lane, LaneSettings, Work};
use crate::kafka::topics::{Topic, Urgency};
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::lanes::Lanes;
use crate::plan::{Planner, keep_deadlines};
use crate::runs::Runs;
use crate::track::{Outcome, Tracked};
use crate::{decode, embed, failpoint, fetch, preprocess, publish, quality};

/// Fields that wait between two stages, so that neither idles; the limit on bytes bounds what they hold.
pub const BETWEEN_STAGES: usize = 2;

/// What a worker may use.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Threads that decode.
    pub decode_threads: usize,
    /// Threads that preprocess and measure quality.
    pub preprocess_threads: usize,
    /// The engine.
    pub engine: EngineSettings,
    /// Fields of one lane in flight at most, from reading their task to committing it.
    pub in_flight_fields: usize,
    /// Bytes of images in memory at most, about.
    pub in_flight_bytes: u64,
    /// Which lanes to work on.
    pub lanes: Vec<Urgency>,
    /// Whether to end when the lanes are drained.
    pub until_drained: bool,
    /// Whether commands of screens may be run here.
    pub commands: bool,
    /// Where web services POST answers, where that is listened for.
    pub callbacks: Option<Arc<Callbacks>>,
}

/// A running role: its lanes and the threads behind them.
pub struct Role {
    lanes: Vec<Lane>,
    threads: Vec<JoinHandle<()>>,
    /// Fetch of each lane, what joins them, and external.
    tasks: Vec<tokio::task::JoinHandle<()>>,
    runtime: Handle,
}

impl Role {
    /// A switch that stops the role after what is in flight.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let stoppers: Vec<_> = self.lanes.iter().map(Lane::stopper).collect();
        move || stoppers.iter().for_each(|stop| stop())
    }

    /// Whether the role has ended by itself: all lanes drained, or one of them failed.
    pub fn ended(&self) -> bool {
        self.lanes.iter().all(Lane::ended) || self.lanes.iter().any(Lane::failed)
    }

    /// Waits until everything in flight is committed. Blocking.
    pub fn join(self) -> Result<(), StageError> {
        // Where one lane failed the others end too: what they share is gone.
        if self.lanes.iter().any(Lane::failed) {
            (self.stopper())();
        }
        let mut result = Ok(());
        for lane in self.lanes {
            result = result.and(lane.join());
        }
        for task in self.tasks {
            if let Err(error) = self.runtime.block_on(task) {
                result = result.and(Err(StageError::internal(Stage::Source, error)));
            }
        }
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or("stage").to_owned();
            if thread.join().is_err() {
                let panicked = StageError::internal(Stage::Source, format!("thread '{name}' panicked"));
                result = result.and(Err(panicked));
            }
        }
        result
    }
}

/// Starts the planner of a lane: plate events become tasks.
pub fn planner(
    kafka: &KafkaSettings,
    runs: Arc<Runs>,
    urgency: Urgency,
    runtime: &Handle,
) -> Result<Role, KafkaFailure> {
    // A plate's plan is large and planning is quick, so few are held at once; of the batch lane a few of each run, of which
    // the one is planned whose turn it is.
    let (in_flight, per_partition) = match urgency {
        Urgency::Live => (4, None),
        Urgency::Batch => (128, Some(4)),
    };
    let settings = LaneSettings {
        topic: urgency.plates(),
        role: urgency.planner(),
        in_flight,
        per_partition,
        company: Company::default(),
        until_drained: None,
    };
    let (lane, plates) = Lane::open(kafka, &settings)?;
    let mut threads = Vec::new();
    if urgency == Urgency::Live {
        // Without the work itself it would hold the channel open for nobody.
        let (planner, kafka) = (plates.downgrade(), kafka.clone());
        let ended = move || planner.upgrade().is_none_or(|plates| plates.is_closed());
        threads.push(spawn("deadlines", move || keep_deadlines(&kafka, ended))?);
    }
    let planner = Planner::open(kafka, runs, urgency, runtime)?;
    threads.push(spawn("plan", move || planner.run(&plates))?);
    Ok(Role {
        lanes: vec![lane],
        threads,
        tasks: Vec::new(),
        runtime: runtime.clone(),
    })
}

/// The role that hands back what waits to be tried again.
pub const RETRIER: &str = "retrier";

/// Starts a retrier: records that failed go back to their topic when they are due.
pub fn retrier(kafka: &KafkaSettings, runtime: &Handle) -> Result<Role, KafkaFailure> {
    let settings = LaneSettings {
        topic: Topic::Retries,
        role: RETRIER,
        in_flight: 256,
        per_partition: None,
        company: Company::default(),
        until_drained: None,
    };
    let (lane, due) = Lane::open(kafka, &settings)?;
    let returning = spawn("return", move || {
        while let Ok(Tracked { value, ticket }) = due.recv_blocking() {
            match returned(&value) {
                Some(record) => ticket.settle(Outcome::Publish(vec![record])),
                None => {
                    let error = StageError::input(
                        Stage::Source,
                        FailureClass::BadEvent,
                        "a record on the retries topic does not say which topic it goes back to",
                    );
                    settle(ticket, Place::default(), error);
                }
            }
        }
    })?;
    Ok(Role {
        lanes: vec![lane],
        threads: vec![returning],
        tasks: Vec::new(),
        runtime: runtime.clone(),
    })
}

/// What a lane reads.
pub type OfLane = (Urgency, Work);

/// Opens the lanes of a worker, and what each of them reads. `in_flight` is of each.
///
/// # Errors
/// No client can be made.
pub fn task_lanes(
    kafka: &KafkaSettings,
    urgencies: &[Urgency],
    in_flight: usize,
    until_drained: bool,
) -> Result<(Vec<Lane>, Vec<OfLane>), KafkaFailure> {
    // Not with the planner's: it waits for room, which only workers make.
    let company = Company::default();
    let mut lanes = Vec::new();
    let mut tasks = Vec::new();
    for (urgency, drained) in urgencies.iter().zip(Drained::together(urgencies.len())) {
        let lane = LaneSettings {
            topic: urgency.tasks(),
            role: urgency.worker(),
            in_flight,
            per_partition: None,
            company: company.clone(),
            until_drained: until_drained.then_some(drained),
        };
        let (lane, work) = Lane::open(kafka, &lane)?;
        lanes.push(lane);
        tasks.push((*urgency, work));
    }
    Ok((lanes, tasks))
}

/// Starts a worker: tasks become features.
pub fn worker(
    kafka: &KafkaSettings,
    runs: Arc<Runs>,
    device: &Arc<Device>,
    settings: &WorkerSettings,
    runtime: &Handle,
) -> Result<Role, KafkaFailure> {
    let (lanes, tasks) = task_lanes(
        kafka,
        &settings.lanes,
        settings.in_flight_fields,
        settings.until_drained,
    )?;
    // The next of a lane is in hand already.
    let (fetched_in, fetched) = bounded(BETWEEN_STAGES - 1);
    let (decoded_in, decoded) = bounded(BETWEEN_STAGES);
    let (prepared_in, prepared) = bounded(BETWEEN_STAGES);
    let (measured_in, measured) = bounded(settings.engine.batch_items.max(2));
    let (embedded_in, embedded) = bounded(settings.engine.batch_items.max(2));

    let memory = MemoryLimit::new(settings.in_flight_bytes, &settings.lanes);
    let mut running = Vec::new();
    let mut of_lanes = Vec::new();
    for (urgency, work) in tasks {
        let (of_lane_in, of_lane) = bounded(BETWEEN_STAGES);
        let run = fetch::run((urgency, work), of_lane_in, runs.clone(), memory.clone());
        running.push(runtime.spawn(run));
        of_lanes.push((urgency, of_lane));
    }
    running.push(runtime.spawn(Lanes::new(of_lanes).join(fetched_in)));
    let mut threads = Vec::new();
    for _ in 0..settings.decode_threads.max(1) {
        threads.push(stage(Stage::Decode, &fetched, &decoded_in, decode::decode_field)?);
    }
    for _ in 0..settings.preprocess_threads.max(1) {
        let (on, engine) = (device.clone(), settings.engine.clone());
        threads.push(stage(Stage::Preprocess, &decoded, &prepared_in, move |field| {
            preprocess::preprocess(&on, &engine, field)
        })?);
        let on = device.clone();
        threads.push(stage(Stage::Quality, &prepared, &measured_in, move |field| {
            quality::measure(&on, field)
        })?);
    }
    let (on, engine) = (device.clone(), settings.engine.clone());
    threads.push(spawn("embed", move || {
        embed::run(&measured, &embedded_in, &on, &engine)
    })?);
    let (answered_in, answered) = bounded(settings.engine.batch_items.max(2));
    let external = ExternalSettings {
        kafka: kafka.clone(),
        commands: settings.commands,
        callbacks: settings.callbacks.clone(),
    };
    running.push(runtime.spawn(external::run(embedded, answered_in, external)));
    threads.push(spawn("publish", move || {
        while let Ok(field) = answered.recv_blocking() {
            publish::publish(field);
        }
    })?);
    Ok(Role {
        lanes,
        threads,
        tasks: running,
        runtime: runtime.clone(),
    })
}

/// A thread that puts fields through one step until the stage before it ends or the one after it is gone.
fn stage<I, O>(
    stage: Stage,
    input: &Receiver<Tracked<I>>,
    output: &Sender<Tracked<O>>,
    step: impl Fn(I) -> Result<O, StageError> + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    I: OfField + Send + 'static,
    O: Send + 'static,
{
    let (input, output) = (input.clone(), output.clone());
    spawn(&stage.to_string(), move || {
        while let Ok(field) = input.recv_blocking() {
            let Some(Tracked { value, ticket }) = field.unless_stale() else {
                continue;
            };
            let task = value.task().clone();
            match step(value).and_then(|done| failpoint::after(stage, &task.field).map(|()| done)) {
                Ok(done) => {
                    if output.send_blocking(Tracked { value: done, ticket }).is_err() {
                        return;
                    }
                }
                Err(error) => settle_field(ticket, &task, error),
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}
