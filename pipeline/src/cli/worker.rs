//! `wellspring worker`: embeds fields of submitted runs as one member of the fleet.

use std::process::ExitCode;

use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::{self, Urgency};
use wellspring::retries::{Waiting, waiting};
use wellspring::runs::Runs;
use wellspring::topology::worker;
use wellspring_workloads::screen::ResourceSettings;

use super::common::{
    ComputeArgs, KafkaArgs, LaneName, RetryArgs, SERVICE_DELAYS, end_requested, runtime, wait_for_end,
};
use super::door::CallbackArgs;
use super::say;

/// Exit code of a worker that was to drain its partitions and was asked to end before: EX_TEMPFAIL of sysexits.h, "try
/// again". Batch systems would otherwise take a preempted worker for one that is done.
const ENDED_BEFORE_DRAINED: u8 = 75;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  wellspring worker --kafka kafka:9092 --until-drained\n\n\
    SIGTERM and ctrl-c finish and commit what is in flight, then exit. With --until-drained the exit code is then 75:\n\
    there may be more to do, so a batch system should start the worker again."
)]
pub(crate) struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    retries: RetryArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Only tasks of this lane: live or batch. Default: of both, the live ones first.
    #[arg(long, value_name = "LANE", value_enum)]
    lane: Option<LaneName>,
    /// Exit when every task of the assigned partitions is done; asked to end before that, exit with code 75. Tasks of paused runs
    /// wait elsewhere, and are not waited for.
    #[arg(long)]
    until_drained: bool,
    /// Run the commands that screens name in [[steps]]: whoever can submit a screen then runs programs as this user.
    #[arg(long, env = "WELLSPRING_ALLOW_COMMANDS")]
    allow_commands: bool,
    #[command(flatten)]
    callbacks: CallbackArgs,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    // Listened for from the start: the first process of a container does not even see SIGTERM before.
    let end = end_requested(&runtime)?;
    let kafka = KafkaSettings {
        retry_delays: args.retries.delays(&SERVICE_DELAYS),
        ..args.kafka.settings()?
    };
    let resources = ResourceSettings::default();
    let mut settings = args.compute.worker_settings(&resources, args.until_drained)?;
    settings.commands = args.allow_commands;
    settings.callbacks = args.callbacks.open(&runtime)?;
    settings.lanes = args
        .lane
        .map_or(Urgency::ALL.to_vec(), |lane| vec![lane.urgency()]);
    let device = args.compute.open_device(&resources)?;
    runtime.block_on(topics::create_missing(&kafka))?;
    let runs = Runs::follow(&kafka)?;
    let role = worker(&kafka, runs, &device, &settings, runtime.handle())?;
    say::note(format_args!(
        "worker {} on {}, kernels on {}",
        kafka.instance,
        kafka.bootstrap,
        device.describe()
    ));
    wait_for_end(&end, &[&role]);
    let drained = role.ended();
    (role.stopper())();
    role.join()?;
    if args.until_drained && !drained {
        return Ok(ExitCode::from(ENDED_BEFORE_DRAINED));
    }
    if args.until_drained {
        tell_of_retries(&waiting(&kafka)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// What the lanes do not have now and will have again.
fn tell_of_retries(waiting: &[Waiting]) {
    let (failed, paused): (Vec<_>, Vec<_>) = waiting.iter().partition(|waiting| waiting.class.is_some());
    let count = |of: &[&Waiting]| of.iter().map(|waiting| waiting.records).sum::<usize>();
    if !failed.is_empty() {
        say::note(format_args!(
            "{} that failed for a reason that may pass will be tried again, by whichever worker is there then; `wellspring \
             status` shows them",
            say::counted(count(&failed), "field")
        ));
    }
    if !paused.is_empty() {
        say::note(format_args!(
            "{} of what is paused wait until it is resumed",
            say::counted(count(&paused), "field")
        ));
    }
}
