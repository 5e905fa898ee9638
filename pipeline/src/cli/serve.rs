//! `wellspring serve`: plans plates, collects features, compares and writes results of every submitted run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Handle;
use wellspring::collector::{Collector, Wanted};
use wellspring::error::{Stage, StageError};
use wellspring::events::RunId;
use wellspring::external::ExternalSettings;
use wellspring::external::beyond::{Asking, Stopped};
use wellspring::external::services::Services;
use wellspring::finish::{RunSummary, Surroundings, finish};
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::{self, Urgency};
use wellspring::results::WriteError;
use wellspring::runs::{Course, Runs};
use wellspring::topology::{planner, retrier, worker};
use wellspring_workloads::screen::ResourceSettings;
use wellspring_workloads::words::Barcode;

use super::common::{ComputeArgs, KafkaArgs, RetryArgs, SERVICE_DELAYS, end_requested, runtime};
use super::door::{CallbackArgs, DoorArgs};
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  wellspring serve --kafka kafka:9092 --out /data/results --no-worker\n\n\
    One process serves an installation; start as many `wellspring worker` beside it as there are GPUs."
)]
pub(crate) struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    retries: RetryArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    door: DoorArgs,
    /// Results of a run go to DIR/<run>.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Leave embedding to workers of their own.
    #[arg(long)]
    no_worker: bool,
    /// Run the commands that screens name in [[steps]], of fields in the worker and of wells, plates and the screen: whoever can submit a screen then runs programs as this user.
    #[arg(long, env = "WELLSPRING_ALLOW_COMMANDS")]
    allow_commands: bool,
    #[command(flatten)]
    callbacks: CallbackArgs,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    // Before the models of screens are looked up there.
    args.compute.models_folder()?;
    let kafka = KafkaSettings {
        retry_delays: args.retries.delays(&SERVICE_DELAYS),
        ..args.kafka.settings()?
    };
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("the output folder '{}' cannot be made", args.out.display()))?;
    runtime.block_on(topics::create_missing(&kafka))?;
    let runs = Runs::follow(&kafka)?;
    let mut roles = vec![retrier(&kafka, runtime.handle())?];
    for urgency in Urgency::ALL {
        roles.push(planner(&kafka, runs.clone(), urgency, runtime.handle())?);
    }
    let mut surroundings = Surroundings {
        device: "workers".to_owned(),
        engine: "workers".to_owned(),
        started: None,
    };
    let callbacks = args.callbacks.open(&runtime)?;
    if !args.no_worker {
        let resources = ResourceSettings::default();
        let mut settings = args.compute.worker_settings(&resources, false)?;
        settings.commands = args.allow_commands;
        settings.callbacks = callbacks.clone();
        let device = args.compute.open_device(&resources)?;
        surroundings.device = device.describe();
        roles.push(worker(
            &kafka,
            runs.clone(),
            &device,
            &settings,
            runtime.handle(),
        )?);
    }
    say::note(format_args!("serving {} on {}", kafka.prefix, kafka.bootstrap));
    let door = args.door.open(&kafka, &runtime)?;
    if let Some(door) = &door {
        say::note(format_args!("plates are taken by HTTP at {}", door.address()));
    }

    let end = end_requested(&runtime)?;
    let mut collector = Collector::open(&kafka, Wanted::Unfinished, &args.out)?;
    let mut results = Results {
        services: Services::new(ExternalSettings {
            kafka: kafka.clone(),
            commands: args.allow_commands,
            callbacks,
        }),
        kafka: &kafka,
        runs: &runs,
        runtime: runtime.handle(),
        surroundings,
        out: &args.out,
        ends: &|| end.is_finished(),
        failed: HashMap::new(),
    };
    while !end.is_finished() && !roles.iter().any(wellspring::topology::Role::ended) {
        for id in collector.step(Duration::from_millis(500))? {
            if results.is_due(&id) {
                results.make(&mut collector, &id)?;
            }
        }
    }
    if let Some(door) = door {
        runtime.block_on(door.close());
    }
    for role in roles {
        (role.stopper())();
        role.join()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first wait before the results of a run are tried again that could not be made, and the longest.
const WAITS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3_600)];

/// Makes the results of runs that are complete. One whose results cannot be made keeps nobody else from theirs.
struct Results<'a> {
    services: Arc<Services>,
    kafka: &'a KafkaSettings,
    runs: &'a Runs,
    runtime: &'a Handle,
    surroundings: Surroundings,
    out: &'a Path,
    /// Whether the process is to end.
    ends: &'a dyn Fn() -> bool,
    /// Runs whose results could not be made: when they are tried again, and how long that was waited for.
    failed: HashMap<RunId, (Instant, Duration)>,
}

impl Results<'_> {
    fn is_due(&self, id: &RunId) -> bool {
        self.failed.get(id).is_none_or(|(due, _)| Instant::now() >= *due)
    }

    /// Makes the results of a run, or says why there are none yet.
    fn make(&mut self, collector: &mut Collector, id: &RunId) -> anyhow::Result<()> {
        match self.try_make(collector, id) {
            Ok(None) => {}
            Ok(Some(summary)) => {
                self.failed.remove(id);
                say::line(serde_json::to_string(&summary)?);
            }
            Err(error) if Stopped::is_cause_of(&error) => {
                say::note(format_args!("{id} is not finished: {}", error.chain()));
                // Where it goes on, without a plate or later.
                if !(self.ends)() && self.runs.course(id) != Course::Cancelled {
                    collector.gather_again()?;
                }
            }
            Err(error) => {
                let wait = self.failed.get(id).map_or(WAITS[0], |(_, wait)| *wait * 2);
                let wait = wait.min(WAITS[1]);
                self.failed.insert(id.clone(), (Instant::now() + wait, wait));
                tracing::error!(run = id, message = error.chain(), "the run has no results");
                say::note(format_args!(
                    "{id} has no results: {}; they are tried again in {} s, and other runs go on",
                    error.chain(),
                    wait.as_secs()
                ));
                collector.gather_again()?;
            }
        }
        Ok(())
    }

    /// `None` where the run is paused, or is gathered no more.
    fn try_make(&self, collector: &mut Collector, id: &RunId) -> Result<Option<RunSummary>, StageError> {
        let run = self.runs.get(id)?;
        // What is asked about wells, plates and the screen is work, and waits with the rest.
        let is_paused = || run.asks_beyond_fields() && self.runs.course(id) == Course::Paused;
        if is_paused() {
            return Ok(None);
        }
        let Some(mut collection) = collector.close(id) else {
            return Ok(None);
        };
        let out = self.out.join(id);
        std::fs::create_dir_all(&out).map_err(|source| {
            let path = out.clone();
            let action = "make";
            StageError::internal(Stage::Compare, WriteError::Io { path, action, source })
        })?;
        let plates: Vec<Barcode> = collection.plates().cloned().collect();
        let asking = Asking {
            services: self.services.clone(),
            runtime: self.runtime,
            stop: &|| {
                let cancelled = |plate| self.runs.course_of_plate(id, plate) == Course::Cancelled;
                let run_cancelled = self.runs.course(id) == Course::Cancelled;
                (self.ends)() || run_cancelled || is_paused() || plates.iter().any(cancelled)
            },
            worker: &self.kafka.instance,
        };
        let made = finish(
            &run,
            &mut collection,
            self.kafka,
            &asking,
            &self.surroundings,
            &out,
        );
        made.map(|(summary, _)| Some(summary))
    }
}
