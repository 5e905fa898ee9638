//! The fleet of a simulation: a broker, planners, and processes of virtual workers; and what is seen of its features.
//! Fails where a process cannot be started, or what is waited for does not come.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use wellspring::events::FieldFeatures;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::tail::{Polled, Tail};
use wellspring::kafka::topics::{Topic, Urgency};
use wellspring::runs::{Run, Runs};
use wellspring::submit::submit;
use wellspring::topology::{Role, planner};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, FieldId};

use super::{Args, plates};
use crate::cli::bench::process::{Process, start_broker, this_program};
use crate::cli::bench::{Line, Printer};
use crate::cli::{common, say};

/// Longest wait for a field.
const PATIENCE: Duration = Duration::from_secs(120);

/// What workers are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Milliseconds of an engine for one field.
    pub(super) field_ms: u64,
    /// Whether they leave live plates alone.
    pub(super) batch_only: bool,
}

/// Processes of workers, by their number in the fleet.
pub(super) type Group = usize;

/// Everything that runs.
pub(super) struct Fleet<'a> {
    args: &'a Args,
    kafka: KafkaSettings,
    folder: PathBuf,
    batch: Run,
    live: Run,
    /// Fields that were announced.
    announced: usize,
    features: Tail,
    seen: HashSet<FieldId>,
    twice: usize,
    workers: Vec<Option<Process>>,
    leaving: Vec<Process>,
    planners: Vec<Role>,
    runs: Arc<Runs>,
    runtime: Runtime,
    _broker: Option<Process>,
}

impl<'a> Fleet<'a> {
    /// A broker, topics and planners; no workers.
    pub(super) fn start(folder: &Path, args: &'a Args) -> anyhow::Result<Self> {
        let (broker, bootstrap) = match &args.kafka {
            Some(bootstrap) => (None, bootstrap.clone()),
            None => {
                let (broker, bootstrap) = start_broker(&folder.join("broker"))?;
                (Some(broker), bootstrap)
            }
        };
        let prefix = format!("scale-{}-{}", std::process::id(), wellspring::clock::now_ms());
        let kafka = KafkaSettings::new(&bootstrap, &prefix, "bench");
        let mut apply = this_program()?;
        apply.args(["topics", "apply", "--kafka", &bootstrap, "--prefix", &prefix]);
        for topic in [Topic::Tasks, Topic::BatchTasks] {
            apply.arg("--partitions");
            apply.arg(format!("{}={}", topic.suffix(), args.partitions));
        }
        let applied = apply.output().context("topics cannot be made")?;
        ensure!(
            applied.status.success(),
            "topics cannot be made: {}",
            String::from_utf8_lossy(&applied.stderr)
        );
        let open = |name: &str, live: bool| -> anyhow::Result<Run> {
            let text = plates::screen(&folder.join(name), name, live)?;
            let screen = Screen::parse(&text, name).map_err(|errors| anyhow::anyhow!("{errors}"))?;
            Ok(Run::open(screen)?)
        };
        let (batch, live) = (open("batch", false)?, open("live", true)?);
        let runtime = common::runtime()?;
        let runs = Runs::follow(&kafka)?;
        let planners = Urgency::ALL
            .into_iter()
            .map(|lane| planner(&kafka, Arc::clone(&runs), lane, runtime.handle()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            args,
            features: Tail::open(&kafka, &[Topic::Features])?,
            kafka,
            folder: folder.to_owned(),
            batch,
            live,
            announced: 0,
            seen: HashSet::new(),
            twice: 0,
            workers: Vec::new(),
            leaving: Vec::new(),
            planners,
            runs,
            runtime,
            _broker: broker,
        })
    }

    /// Announces the backlog.
    pub(super) fn submit_batch(&mut self) -> anyhow::Result<()> {
        let names = (0..self.args.plates).map(|number| format!("P{number:05}"));
        let barcodes = plates::write(&self.folder.join("batch"), names, false)?;
        submit(
            &self.kafka,
            &self.batch,
            &barcodes,
            Urgency::Batch,
            self.runtime.handle(),
        )?;
        self.announced += barcodes.len() * plates::BATCH_FIELDS as usize;
        Ok(())
    }

    /// Starts a process of so many workers.
    pub(super) fn join(&mut self, workers: u32, kind: Kind) -> anyhow::Result<Group> {
        let mut command = this_program()?;
        command.args(["bench", "scale", "--members", &workers.to_string()]);
        command.args(["--kafka", &self.kafka.bootstrap, "--prefix", &self.kafka.prefix]);
        command.args(["--field-ms", &kind.field_ms.to_string()]);
        command.args(["--batch", &self.args.batch.to_string()]);
        command.args(["--read-ms", &self.args.read_ms.to_string()]);
        if kind.batch_only {
            command.arg("--batch-only");
        }
        let child = command.spawn().context("workers cannot be started")?;
        self.workers.push(Some(Process(child)));
        Ok(self.workers.len() - 1)
    }

    /// kill -9.
    pub(super) fn kill(&mut self, group: Group) {
        if let Some(process) = self.workers.get_mut(group) {
            *process = None;
        }
    }

    /// SIGTERM: they finish what they have.
    pub(super) fn leave(&mut self, group: Group) -> anyhow::Result<()> {
        if let Some(process) = self.workers.get_mut(group).and_then(Option::take) {
            process.signal(libc::SIGTERM)?;
            self.leaving.push(process);
        }
        Ok(())
    }

    /// Fields seen so far.
    pub(super) fn seen(&self) -> usize {
        self.seen.len()
    }

    /// Gives newcomers the time that a group needs to divide its partitions anew, and queues the time to fill.
    pub(super) fn settle(&mut self, workers: u32) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(20 + u64::from(workers / 8));
        while Instant::now() < until {
            self.read(|_| {})?;
        }
        Ok(())
    }

    /// Fields per second that become visible in this time.
    pub(super) fn rate(&mut self, window: Duration) -> anyhow::Result<f64> {
        let (begun, before) = (Instant::now(), self.seen.len());
        while begun.elapsed() < window {
            self.read(|_| {})?;
        }
        Ok((self.seen.len() - before) as f64 / begun.elapsed().as_secs_f64())
    }

    /// Announces a live plate; seconds until its first and its last feature are visible.
    pub(super) fn live_plate(&mut self, name: &str) -> anyhow::Result<[f64; 2]> {
        let barcodes = plates::write(&self.folder.join("live"), std::iter::once(name.to_owned()), true)?;
        let plate: Barcode = name.parse()?;
        // What came while nobody looked is not counted against the plate.
        while self.read(|_| {})? {}
        submit(
            &self.kafka,
            &self.live,
            &barcodes,
            Urgency::Live,
            self.runtime.handle(),
        )?;
        self.announced += plates::LIVE_FIELDS as usize;
        let (begun, mut own, mut first) = (Instant::now(), 0, None);
        while own < plates::LIVE_FIELDS {
            let mut is_own = false;
            self.read(|field| is_own = field.plate == plate)?;
            if is_own {
                own += 1;
                first.get_or_insert(begun.elapsed().as_secs_f64());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{own} of {} features of plate {name} came",
                plates::LIVE_FIELDS
            );
        }
        Ok([first.unwrap_or(0.0), begun.elapsed().as_secs_f64()])
    }

    /// The next feature, if one comes soon; whether one came.
    fn read(&mut self, look: impl FnOnce(&FieldId)) -> anyhow::Result<bool> {
        let Polled::Record(record) = self.features.poll(Duration::from_millis(20))? else {
            return Ok(false);
        };
        let features: FieldFeatures = record.read()?;
        look(&features.field);
        if !self.seen.insert(features.field) {
            self.twice += 1;
        }
        Ok(true)
    }

    /// Ends all; tells how many fields came twice, and, where the backlog is to be worked off first, how many never came.
    pub(super) fn end(mut self, printer: &mut Printer, part: &str, to_the_end: bool) -> anyhow::Result<()> {
        if to_the_end {
            say::note(format_args!("{} of {} fields", self.seen.len(), self.announced));
            let mut last = Instant::now();
            while self.seen.len() < self.announced && last.elapsed() < PATIENCE {
                if self.read(|_| {})? {
                    last = Instant::now();
                }
            }
            let lost = self.announced - self.seen.len();
            let line = Line::new("scale", format!("{part}: fields lost"), lost as f64, "fields");
            printer.push(line)?;
        }
        let line = Line::new(
            "scale",
            format!("{part}: fields seen"),
            self.seen.len() as f64,
            "fields",
        );
        printer.push(line)?;
        let line = Line::new(
            "scale",
            format!("{part}: fields twice"),
            self.twice as f64,
            "fields",
        );
        printer.push(line)?;
        for mut process in self.leaving.drain(..) {
            let ended = process.0.wait()?;
            ensure!(ended.success(), "workers that were told to end failed: {ended}");
        }
        self.workers.clear();
        for role in self.planners.drain(..) {
            (role.stopper())();
            role.join()?;
        }
        self.runs.stop();
        Ok(())
    }
}
