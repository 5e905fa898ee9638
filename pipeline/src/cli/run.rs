//! `wellspring run`: a whole screen in one process, from images to report.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use wellspring::collect::{Collection, Progress};
use wellspring::collector::{Collector, Wanted};
use wellspring::compare::Compared;
use wellspring::external::beyond::Asking;
use wellspring::external::services::Services;
use wellspring::external::{ExternalError, ExternalSettings};
use wellspring::finish::{RunSummary, Surroundings, finish, notes};
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::{self, Urgency};
use wellspring::plan::{check_planes, list_plate};
use wellspring::runs::{Run, Runs};
use wellspring::shading::Shading;
use wellspring::topology::{Role, planner, retrier, worker};
use wellspring::{memory, submit};
use wellspring_broker::EmbeddedBroker;
use wellspring_workloads::screen::{ExternalStep, Reply, Service};
use wellspring_workloads::words::Barcode;

use super::common::{
    ComputeArgs, DeliveryArgs, RUN_DELAYS, RetryArgs, SchemaArgs, check_transform, plates_of, read_screen,
    runtime,
};
use super::door::CallbackArgs;
use super::{calls, say};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Files of planes that are told where they cannot be used.
const SHOWN_PLANES: usize = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  wellspring run workloads/screens/transfluor.toml --out out/transfluor\n\n\
    Run again after an interruption, it goes on where it was: what is done is kept in OUT/broker.\n\
    Exit code 0: nothing failed; 1: some fields failed, see OUT/dead-letters.jsonl, or nothing \
    could be compared; 2: the run could not be done."
)]
pub(crate) struct Args {
    /// The screen file.
    screen: PathBuf,
    /// Folder of the results. Default: the screen's, else out/<screen name>.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use this Kafka instead of the embedded broker.
    #[arg(long, value_name = "BOOTSTRAP", env = "WELLSPRING_KAFKA")]
    kafka: Option<String>,
    /// Prefix of topics and groups.
    #[arg(long, default_value = "wellspring", env = "WELLSPRING_PREFIX")]
    prefix: String,
    /// Align with this file, an alignment of earlier plates (`transforms/*.json`), instead of fitting one.
    #[arg(long, value_name = "FILE")]
    transform: Option<PathBuf>,
    /// Let these plates into the comparison although a quality gate holds them back.
    #[arg(long, value_name = "BARCODE,..", value_delimiter = ',')]
    release: Vec<Barcode>,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    retries: RetryArgs,
    #[command(flatten)]
    schemas: SchemaArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    callbacks: CallbackArgs,
    /// End with one JSON line on standard output instead of the table of calls.
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    // Before the screen's model is looked up there.
    args.compute.models_folder()?;
    let mut screen = read_screen(&args.screen)?;
    if let Some(path) = &args.transform {
        screen.comparison.transform = std::path::absolute(path)?.to_string_lossy().into_owned();
    }
    let out = match (&args.out, &screen.output.folder) {
        (Some(out), _) => out.clone(),
        (None, Some(folder)) => PathBuf::from(folder),
        (None, None) => Path::new("out").join(screen.name.as_str()),
    };
    std::fs::create_dir_all(&out)
        .with_context(|| format!("the output folder '{}' cannot be made", out.display()))?;
    let run = Run::open(screen)?;
    check_transform(&run)?;
    let schemas = args.schemas.open()?;

    let runtime = runtime()?;
    let plates = runtime.block_on(plates_of(&run))?;
    if let Some(unknown) = args.release.iter().find(|plate| !plates.contains(plate)) {
        bail!("--release names plate {unknown}, which is not among the run's");
    }
    runtime.block_on(refuse_wrong_planes(&run, &plates))?;
    let mut settings = args.compute.worker_settings(&run.screen.resources, false)?;
    settings.lanes = vec![Urgency::Live];
    settings.engine.must_open = true;
    settings.callbacks = args.callbacks.open(&runtime)?;
    let calls_back = |step: &&ExternalStep| {
        matches!(
            step.service,
            Service::Http {
                reply: Reply::Callback,
                ..
            }
        )
    };
    if settings.callbacks.is_none()
        && let Some(step) = run.screen.steps.iter().find(calls_back)
    {
        bail!("step '{}': {}", step.name, ExternalError::NoListener);
    }
    let device = args.compute.open_device(&run.screen.resources)?;
    // Opened once here so that missing or wrong weights are an error now and not after the first fields.
    let mut engines = Vec::new();
    for network in &run.networks {
        let engine = wellspring::embed::open_engine(network, &device, &settings.engine)?;
        if !engines.iter().any(|known| known == engine.device()) {
            engines.push(engine.device().to_owned());
        }
    }
    let engine = engines.join(" + ");

    let broker = match args.kafka {
        Some(_) => None,
        None => Some(runtime.block_on(EmbeddedBroker::start(&out.join("broker"), "127.0.0.1:0"))?),
    };
    let kafka = KafkaSettings {
        bootstrap: args
            .kafka
            .or_else(|| broker.as_ref().map(EmbeddedBroker::bootstrap))
            .unwrap_or_default(),
        prefix: args.prefix,
        instance: format!("run-{}", run.id),
        delivery: args.delivery.delivery,
        retry_delays: args.retries.delays(&RUN_DELAYS),
        schemas,
    };
    let announced = plates.len();
    say::note(format_args!(
        "{}: {}, kernels on {}, network on {engine}",
        run.id,
        say::counted(announced, "plate"),
        device.describe()
    ));

    runtime.block_on(topics::create_missing(&kafka))?;
    let new = submit::submit(&kafka, &run, &plates, Urgency::Live, runtime.handle())?;
    if new.len() < announced {
        say::note(format_args!(
            "going on with a run that was begun before ({} new plates)",
            new.len()
        ));
    }
    if !args.release.is_empty() {
        submit::release(&kafka, &run.id, &args.release)?;
    }
    let runs = Runs::follow(&kafka)?;
    let planning = planner(&kafka, runs.clone(), Urgency::Live, runtime.handle())?;
    let working = worker(&kafka, runs.clone(), &device, &settings, runtime.handle())?;

    let retrying = retrier(&kafka, runtime.handle())?;
    let surroundings = Surroundings {
        device: device.describe(),
        engine,
        started: Some(started),
    };
    let gathered = gather(&run, &kafka, &out, started, &[&planning, &working, &retrying]);
    for role in [planning, working, retrying] {
        (role.stopper())();
        let stopped = role.join();
        // A role that failed is the cause of whatever the collector saw.
        stopped?;
    }
    runs.stop();
    let mut collection = gathered?;
    // The engine and the images are gone; the comparison gets their memory.
    memory::give_back_free();
    memory::return_large_blocks();
    say::progress("comparing");
    let (summary, compared) = finish(
        &run,
        &mut collection,
        &kafka,
        &Asking {
            services: Services::new(ExternalSettings {
                kafka: kafka.clone(),
                commands: settings.commands,
                callbacks: settings.callbacks.clone(),
            }),
            runtime: runtime.handle(),
            // Whoever ends this process ends it at once.
            stop: &|| false,
            worker: &kafka.instance,
        },
        &surroundings,
        &out,
    )?;
    if let Some(broker) = broker {
        runtime.block_on(broker.shutdown())?;
    }
    report(&summary, &compared, args.json)?;
    let whole =
        summary.fields_failed == 0 && summary.dead_letters == 0 && summary.lost == 0 && summary.compared;
    Ok(ExitCode::from(u8::from(!whole)))
}

/// Files of planes that cannot be used are an error now and not after the first fields. Each is told once, also where all
/// plates share it.
async fn refuse_wrong_planes(run: &Run, plates: &[Barcode]) -> anyhow::Result<()> {
    if !Shading::is_of(&run.screen) {
        return Ok(());
    }
    let mut wrong = BTreeSet::new();
    for plate in plates {
        let found = list_plate(&run.store, &run.screen, plate).await?;
        let fields = found.plates.get(plate).map_or(&[][..], Vec::as_slice);
        if let Err(errors) = check_planes(run.into(), plate, fields).await? {
            wrong.extend(errors.0.iter().map(ToString::to_string));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let count = wrong.len();
    let mut lines: Vec<String> = wrong.into_iter().take(SHOWN_PLANES).collect();
    if count > lines.len() {
        lines.push(format!("and {} more", count - lines.len()));
    }
    bail!(
        "configuration: {count} of the files under [preprocess] cannot be used, and no field is worked on:\n  {}",
        lines.join("\n  ")
    )
}

/// Follows the run until it is complete.
fn gather(
    run: &Run,
    kafka: &KafkaSettings,
    out: &Path,
    started: Instant,
    roles: &[&Role],
) -> anyhow::Result<Collection> {
    let mut collector = Collector::open(kafka, Wanted::One(run.id.clone()), out)?;
    let mut shown = Instant::now();
    loop {
        let complete = collector.step(Duration::from_millis(200))?;
        if shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            if let Some((_, progress)) = collector.progress().next() {
                say::progress(&progress_line(&progress, started.elapsed()));
            }
        }
        if !complete.is_empty() {
            return collector
                .close(&run.id)
                .context("the run was complete but is not collected");
        }
        if roles.iter().any(|role| role.ended()) {
            bail!("a role of the run stopped before the run was complete");
        }
    }
}

fn progress_line(progress: &Progress, elapsed: Duration) -> String {
    let accounted = progress.done + progress.failed;
    let rate = f64::from(accounted) / elapsed.as_secs_f64().max(1e-3);
    let mut line = format!(
        "{accounted} of {} fields ({} of {} plates planned), {rate:.1} fields/s",
        progress.expected, progress.plates_planned, progress.plates
    );
    if progress.failed > 0 {
        line.push_str(&format!(", {} failed", progress.failed));
    }
    if rate > 0.0 && progress.expected > accounted && progress.plates_planned == progress.plates {
        let left = f64::from(progress.expected - accounted) / rate;
        line.push_str(&format!(", about {left:.0} s left"));
    }
    line
}

fn report(summary: &RunSummary, compared: &Compared, json: bool) -> anyhow::Result<()> {
    let letters = std::fs::read_to_string(summary.out.join("dead-letters.jsonl")).unwrap_or_default();
    for line in letters.lines() {
        let letter: wellspring::events::DeadLetter = serde_json::from_str(line)?;
        let subject = wellspring::dead_letters::subject(&letter);
        say::note(format_args!(
            "failed: {subject}, {} ({}): {}",
            letter.stage, letter.class, letter.message
        ));
    }
    if json {
        say::line(serde_json::to_string(summary)?);
        return Ok(());
    }
    if let Ok(shown) = &compared.comparison {
        say::line(calls::table(&shown.comparison));
    }
    for note in notes(compared) {
        say::line(format_args!("note: {note}"));
    }
    say::line(format_args!(
        "{} of {} fields done, {} failed, {} lost, {} dead letters, {:.1} s",
        summary.fields_done,
        summary.fields_expected,
        summary.fields_failed,
        summary.lost,
        summary.dead_letters,
        summary.seconds
    ));
    if !summary.compared {
        say::line(
            "no result: nothing could be compared, for the reasons in the notes; the tables of the comparison are empty",
        );
    }
    say::line(format_args!("results: {}", summary.out.display()));
    let page = summary.out.join("report.html");
    if page.exists() {
        say::line(format_args!("report:  {}", page.display()));
    }
    Ok(())
}
