//! `bench faults`: a fleet of processes is killed, stopped and cut off from its broker at random moments, and what a
//! read-committed consumer sees at the end is counted: lost, twice, dead letters, and the time until work went on.
//!
//! Each run is a simulated plate under a prefix of its own: broker, `serve` and a worker in processes of their own. The
//! moments come from a seed; what a process is doing then does not. Fails where a run does not come to its end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wellspring::events::FieldFeatures;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::tail::{Polled, Tail, TailRecord};
use wellspring::kafka::topics::Topic;
use wellspring::resolve::read_letters;

use super::process::{Process, small_plate, this_program};
use super::{Line, Printer, Random};
use crate::cli::common;
use crate::cli::say;

/// Longest wait for a run to end.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the broker is not heard.
const CUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs of each fault.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Faults in one run, one after the other.
    #[arg(long, default_value_t = 3)]
    strikes: u32,
    /// Which faults; all when absent.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Fields of view per well of the simulated plate of 96 wells.
    #[arg(long, default_value_t = 8)]
    fields: u32,
    /// Seed of the moments at which faults strike.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An Apache Kafka instead of the embedded broker; faults of the broker are then left out.
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    /// kill -9 of the worker; another one is started at once.
    Worker,
    /// The worker is stopped for longer than its session, and wakes when others have its partitions.
    Zombie,
    /// kill -9 of planner and collector, which are started again at once.
    Serve,
    /// kill -9 of the embedded broker, which is started again at once.
    Broker,
    /// The embedded broker is stopped for longer than sessions and transactions last, and wakes: to its clients, a
    /// network that is cut and heals.
    Cut,
}

impl Fault {
    const ALL: [Fault; 5] = [
        Fault::Worker,
        Fault::Zombie,
        Fault::Serve,
        Fault::Broker,
        Fault::Cut,
    ];

    fn word(self) -> &'static str {
        match self {
            Fault::Worker => "worker killed",
            Fault::Zombie => "worker stopped and woken",
            Fault::Serve => "planner and collector killed",
            Fault::Broker => "broker killed",
            Fault::Cut => "broker not heard for 10 s",
        }
    }
}

/// What the runs of one fault came to.
#[derive(Debug, Default)]
struct Count {
    strikes: u32,
    expected: usize,
    lost: usize,
    twice: usize,
    letters: usize,
    /// Seconds from a strike to the next feature.
    recoveries: Vec<f64>,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let plate = folder.path().join("plate");
    let screen = small_plate(&plate, "FAULTS", args.fields)?;
    let mut installation = Installation {
        screen,
        folder: folder.path().to_owned(),
        broker: None,
        bootstrap: args.kafka.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned()),
        fields: (96 * args.fields) as usize,
    };
    if args.kafka.is_none() {
        installation.start_broker()?;
    }
    let faults = if args.faults.is_empty() {
        &Fault::ALL[..]
    } else {
        &args.faults
    };
    let mut random = Random(args.seed);
    for fault in faults {
        if matches!(fault, Fault::Broker | Fault::Cut) && args.kafka.is_some() {
            continue;
        }
        let mut count = Count::default();
        for run in 0..args.runs {
            let prefix = format!("faults-{}-{fault:?}-{run}", std::process::id()).to_lowercase();
            installation
                .run(*fault, &prefix, args.strikes, &mut random, &mut count)
                .with_context(|| format!("run {run} of '{}'", fault.word()))?;
            say::note(format_args!(
                "{}: run {} of {}, {} lost, {} twice",
                fault.word(),
                run + 1,
                args.runs,
                count.lost,
                count.twice
            ));
        }
        count.recoveries.sort_by(f64::total_cmp);
        let slowest = count.recoveries.last().copied().unwrap_or_default();
        let median = count
            .recoveries
            .get(count.recoveries.len() / 2)
            .copied()
            .unwrap_or_default();
        for (what, ours, unit) in [
            ("runs", f64::from(args.runs), "runs"),
            ("strikes", f64::from(count.strikes), "strikes"),
            ("features expected", count.expected as f64, "records"),
            ("lost", count.lost as f64, "records"),
            ("twice", count.twice as f64, "records"),
            ("dead letters", count.letters as f64, "records"),
            ("until work goes on, median", median, "s"),
            ("until work goes on, slowest", slowest, "s"),
        ] {
            printer.push(Line::new(
                "faults",
                format!("{}: {what}", fault.word()),
                ours,
                unit,
            ))?;
        }
    }
    Ok(())
}

/// A broker, and what runs on it.
struct Installation {
    screen: PathBuf,
    folder: PathBuf,
    broker: Option<Process>,
    bootstrap: String,
    fields: usize,
}

impl Installation {
    fn start(&self, arguments: &[&str], log: &str) -> anyhow::Result<Process> {
        let log = std::fs::File::create(self.folder.join(format!("{log}.log")))?;
        let child = this_program()?
            .args(arguments)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("a process cannot be started")?;
        Ok(Process(child))
    }

    /// Starts the broker where it was before.
    fn start_broker(&mut self) -> anyhow::Result<()> {
        let data = self.folder.join("broker");
        let data = data.to_string_lossy().into_owned();
        let bootstrap = self.bootstrap.clone();
        let broker = self.start(&["broker", "--data", &data, "--listen", &bootstrap], "broker")?;
        let begun = Instant::now();
        loop {
            let said = std::fs::read_to_string(self.folder.join("broker.log"))?;
            if let Some(address) = said.lines().find_map(|line| line.strip_prefix("listening on ")) {
                self.bootstrap = address.to_owned();
                self.broker = Some(broker);
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "the broker does not listen: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn run(
        &mut self,
        fault: Fault,
        prefix: &str,
        strikes: u32,
        random: &mut Random,
        count: &mut Count,
    ) -> anyhow::Result<()> {
        let kafka = KafkaSettings::new(&self.bootstrap, prefix, "bench");
        let address = self.bootstrap.clone();
        let on = ["--kafka", &address, "--prefix", prefix];
        let out = self.folder.join(prefix);
        let results = out.to_string_lossy().into_owned();
        let screen = self.screen.to_string_lossy().into_owned();
        let submitted = self
            .start(&[&["submit", &screen], &on[..]].concat(), "submit")?
            .0
            .wait()?;
        ensure!(submitted.success(), "the screen could not be submitted");
        let serve = [&["serve", "--no-worker", "--out", &results], &on[..]].concat();
        let work = [&["worker"], &on[..]].concat();
        let mut serving = self.start(&serve, "serve")?;
        let mut workers = vec![self.start(&work, "worker")?];

        let mut seen = Seen::open(&kafka)?;
        // Nothing strikes before work has begun.
        seen.wait_for_another(PATIENCE)?;
        for strike in 0..strikes {
            let moment = Duration::from_secs_f64(0.1 + 1.4 * random.unit());
            seen.read_for(moment)?;
            if is_finished(&out) || seen.fields.len() >= self.fields {
                break;
            }
            count.strikes += 1;
            let mut struck = Instant::now();
            match fault {
                Fault::Worker => {
                    workers.clear();
                    workers.push(self.start(&work, &format!("worker-{strike}"))?);
                }
                Fault::Zombie => {
                    if let Some(awake) = workers.last() {
                        awake.signal(libc::SIGSTOP)?;
                    }
                    workers.push(self.start(&work, &format!("worker-{strike}"))?);
                }
                Fault::Serve => {
                    drop(serving);
                    serving = self.start(&serve, "serve")?;
                }
                Fault::Broker => {
                    self.broker = None;
                    self.start_broker()?;
                }
                Fault::Cut => {
                    if let Some(broker) = &self.broker {
                        broker.signal(libc::SIGSTOP)?;
                        std::thread::sleep(CUT);
                        broker.signal(libc::SIGCONT)?;
                        // Nothing can go on before.
                        struck = Instant::now();
                    }
                }
            }
            // What was committed before the strike may be read only now; it is no recovery.
            seen.read_for(Duration::from_millis(100))?;
            if seen.fields.len() < self.fields && seen.wait_for_another(PATIENCE)? {
                count.recoveries.push(struck.elapsed().as_secs_f64());
            }
            if fault == Fault::Zombie && workers.len() > 1 {
                let zombie = workers.remove(0);
                zombie.signal(libc::SIGCONT)?;
                workers.push(zombie);
            }
        }
        let begun = Instant::now();
        while !is_finished(&out) {
            ensure!(
                begun.elapsed() < PATIENCE,
                "the run does not come to its end; logs are in {}",
                out.display()
            );
            seen.read_for(Duration::from_millis(100))?;
        }
        drop((serving, workers));
        // All that is there, from the beginning.
        let mut fields: BTreeMap<String, usize> = BTreeMap::new();
        let mut tail = Tail::open(&kafka, &[Topic::Features])?;
        tail.read_to_end(PATIENCE, |record| -> anyhow::Result<_> {
            *fields.entry(subject(record)?).or_default() += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        count.expected += self.fields;
        count.lost += self.fields.saturating_sub(fields.len());
        count.twice += fields.values().map(|n| n - 1).sum::<usize>();
        count.letters += read_letters(&kafka)?.len();
        Ok(())
    }
}

/// The features as they become visible.
struct Seen {
    tail: Tail,
    fields: BTreeMap<String, usize>,
}

impl Seen {
    fn open(kafka: &KafkaSettings) -> anyhow::Result<Self> {
        common::runtime()?.block_on(wellspring::kafka::topics::create_missing(kafka))?;
        Ok(Self {
            tail: Tail::open(kafka, &[Topic::Features])?,
            fields: BTreeMap::new(),
        })
    }

    fn poll(&mut self) -> anyhow::Result<bool> {
        if let Polled::Record(record) = self.tail.poll(Duration::from_millis(20))? {
            *self.fields.entry(subject(&record)?).or_default() += 1;
            return Ok(true);
        }
        Ok(false)
    }

    fn read_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.poll()?;
        }
        Ok(())
    }

    /// Waits for a field that was not seen; `false` when none came in that time.
    fn wait_for_another(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let (before, until) = (self.fields.len(), Instant::now() + patience);
        while self.fields.len() == before {
            if Instant::now() > until {
                return Ok(false);
            }
            self.poll()?;
        }
        Ok(true)
    }
}

fn subject(record: &TailRecord) -> anyhow::Result<String> {
    let features: FieldFeatures = record.read()?;
    Ok(features.field.to_string())
}

/// Whether the only run in `results` has its summary.
fn is_finished(results: &Path) -> bool {
    std::fs::read_dir(results)
        .is_ok_and(|mut runs| runs.any(|run| run.is_ok_and(|run| run.path().join("run.json").exists())))
}
