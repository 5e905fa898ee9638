//! `wellspring serve`: plans plates, collects features, compares and writes results of every submitted run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use wellspring::collector::{Collector, Wanted};
use wellspring::external::ExternalSettings;
use wellspring::external::beyond::{Asking, Stopped};
use wellspring::external::services::Services;
use wellspring::finish::{Surroundings, finish};
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::{self, Urgency};
use wellspring::runs::{Course, Runs};
use wellspring::topology::{planner, retrier, worker};
use wellspring_workloads::screen::ResourceSettings;

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
    let services = Services::new(ExternalSettings {
        kafka: kafka.clone(),
        commands: args.allow_commands,
        callbacks,
    });
    let mut collector = Collector::open(&kafka, Wanted::Unfinished, &args.out)?;
    while !end.is_finished() && !roles.iter().any(wellspring::topology::Role::ended) {
        for id in collector.step(Duration::from_millis(500))? {
            let run = runs.get(&id)?;
            // What is asked about wells, plates and the screen is work, and waits with the rest.
            if run.asks_beyond_fields() && runs.course(&id) == Course::Paused {
                continue;
            }
            let Some(mut collection) = collector.close(&id) else {
                continue;
            };
            let out = args.out.join(&id);
            std::fs::create_dir_all(&out)
                .with_context(|| format!("the output folder '{}' cannot be made", out.display()))?;
            let asking = Asking {
                services: services.clone(),
                runtime: runtime.handle(),
                stop: &|| end.is_finished() || runs.course(&id) == Course::Cancelled,
                worker: &kafka.instance,
            };
            match finish(&run, &mut collection, &kafka, &asking, &surroundings, &out) {
                Ok((summary, _)) => say::line(serde_json::to_string(&summary)?),
                // Its results are made when the process is started again, or never, where it was cancelled.
                Err(error) if Stopped::is_cause_of(&error) => {
                    say::note(format_args!("{id} is not finished: {}", error.chain()));
                }
                Err(error) => return Err(error.into()),
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
