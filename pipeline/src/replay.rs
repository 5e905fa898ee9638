//! Replay: what an earlier run did, into a new run, beside everything that is going on.
//!
//! A run on the status topic and a [`Selection`] of its plates and records enter; a new run of the screen under another
//! name leaves. Either its features are taken over ([`features`]: another comparison without embedding again), or its
//! plates are announced again ([`plates`]), or both, each where it is due (`unchanged`). Readers of the log are no members of
//! any group, so nobody who is at work notices. Replaying again under the same name adds what is missing and nothing else: a crash in between, or a second
//! process, makes no record twice. What fails: a run that is not there, and features that another screen cannot use.

mod copy;
mod unchanged;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use tokio::runtime::Handle;
use wellspring_workloads::screen::{ExternalStep, Screen, ScreenName};
use wellspring_workloads::words::{Barcode, FieldId};

use self::copy::{NewRun, take_over};
pub use self::unchanged::TakenOverFields;
pub(crate) use self::unchanged::unchanged;
use crate::collect::Collection;
use crate::collector::{Past, read_statuses};
use crate::error::StageError;
use crate::events::{DeadLetter, ModelIdentity, PlateReady, RunId, Status, Steering};
use crate::identity::same_screen;
use crate::kafka::producer::BatchProducer;
use crate::kafka::tail::{Start, TailRecord, read_to_end};
use crate::kafka::topics::{Topic, Urgency};
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::runs::{Run, RunError, run_id};
use crate::submit::{SubmitError, submit, submitted};

/// Tries of an aborted transaction.
const TRIES: u32 = 10;

/// What is replayed.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These plates; all when empty.
    pub plates: Vec<Barcode>,
    /// From here on.
    pub start: Start,
    /// Only what was written before this time, in milliseconds since 1970 UTC.
    pub until: Option<i64>,
}

impl Selection {
    /// Whether it leaves nothing out of a plate.
    pub(crate) fn is_whole(&self) -> bool {
        self.start == Start::Beginning && self.until.is_none()
    }

    fn has(&self, plate: &Barcode) -> bool {
        self.plates.is_empty() || self.plates.contains(plate)
    }

    fn is_before_end(&self, record: &TailRecord) -> bool {
        self.until.is_none_or(|until| record.time_ms < until)
    }
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The new run.
    pub run: RunId,
    /// Its plates.
    pub plates: usize,
    /// Records published now: features, or announcements.
    pub published: u64,
    /// Records that an earlier replay of this name had published.
    pub published_before: u64,
}

impl Replayed {
    /// Nothing of an old run.
    pub(crate) fn nothing(run: &RunId) -> Self {
        Self {
            run: run.clone(),
            plates: 0,
            published: 0,
            published_before: 0,
        }
    }
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No such run was submitted.
    #[error("run '{run}' was never submitted; `wellspring runs list` shows what was")]
    NoSuchRun {
        /// The run.
        run: RunId,
    },
    /// The new run would be the old one.
    #[error("the new run would be '{run}' itself; choose another name with --as")]
    SameRun {
        /// The run.
        run: RunId,
    },
    /// The selection has nothing of the run.
    #[error(
        "nothing of run '{run}' is selected: it has no such plate, or nothing of that time; `wellspring runs show {run}` shows its plates"
    )]
    Nothing {
        /// The run.
        run: RunId,
    },
    /// Work on the old run goes on.
    #[error(
        "plate {plate} of run '{run}' is not done, so that features would be missing; wait for it (`wellspring status`), or name \
         plates that are done with --plate"
    )]
    Unfinished {
        /// The run.
        run: RunId,
        /// The first such plate.
        plate: Barcode,
    },
    /// The features were made in another way than the new screen says.
    #[error(
        "the features of run '{run}' were made with another {part} than the screen has; make them anew: `wellspring rerun` without \
         --steps, or `wellspring replay plates`"
    )]
    OtherFeatures {
        /// The run.
        run: RunId,
        /// The table of the screen file.
        part: &'static str,
    },
    /// What the images are now cannot be found out.
    #[error(
        "the images of plate {plate} cannot be looked at; `wellspring rerun --steps compare..` takes features over as they are"
    )]
    NoLook {
        /// The plate.
        plate: Barcode,
        /// Why.
        source: StageError,
    },
    /// Nothing of what the features were made from is there any more.
    #[error(
        "none of the images of run '{run}' is in its store now{}; `wellspring rerun --steps compare..` takes features over as \
         they are", match said { Some(said) => format!(" ({said})"), None => String::new() }
    )]
    NoImages {
        /// The run.
        run: RunId,
        /// What was found instead.
        said: Option<String>,
    },
    /// The screen cannot be run here.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The new run cannot be begun, or was begun before with something else.
    #[error(transparent)]
    Submit(Box<SubmitError>),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
    /// Gathering the old run.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl From<SubmitError> for ReplayError {
    fn from(error: SubmitError) -> Self {
        Self::Submit(Box::new(error))
    }
}

/// The old run as it was submitted.
pub(crate) struct Old {
    run: RunId,
    pub(crate) screen: Screen,
    pub(crate) plates: BTreeSet<Barcode>,
    /// What its features are made with.
    pub(crate) model: Option<ModelIdentity>,
    /// Hashes of its plates' planes.
    pub(crate) shadings: HashMap<Barcode, String>,
}

pub(crate) fn find(kafka: &KafkaSettings, run: &str) -> Result<Old, ReplayError> {
    let mut found: Option<Old> = None;
    for status in read_statuses(kafka)? {
        match status {
            Status::RunSubmitted {
                run: of,
                screen,
                plates,
                model,
                ..
            } if of == run => {
                let old = found.get_or_insert_with(|| Old {
                    run: of,
                    screen: *screen,
                    plates: BTreeSet::new(),
                    model,
                    shadings: HashMap::new(),
                });
                old.plates.extend(plates);
            }
            Status::PlatePlanned {
                run: of,
                plate,
                fields_planned,
                shading,
                ..
            } if of == run => {
                let Some(old) = &mut found else { continue };
                if fields_planned > 0 {
                    old.plates.insert(plate.clone());
                }
                old.shadings.extend(shading.map(|shading| (plate, shading)));
            }
            Status::PlateSteered {
                run: of,
                plate,
                action: Steering::Cancelled,
                ..
            } if of == run => {
                if let Some(old) = &mut found {
                    old.plates.remove(&plate);
                }
            }
            _ => {}
        }
    }
    found.ok_or_else(|| ReplayError::NoSuchRun { run: run.to_owned() })
}

impl Old {
    /// The new run's screen: another one or the same, under the new name.
    fn renamed(&self, screen: Option<Screen>, name: &ScreenName) -> Result<Screen, ReplayError> {
        let mut screen = screen.unwrap_or_else(|| self.screen.clone());
        screen.name = name.clone();
        if run_id(&screen) == self.run {
            return Err(ReplayError::SameRun {
                run: self.run.clone(),
            });
        }
        Ok(screen)
    }

    /// Whether the old features are what the new screen would make.
    pub(crate) fn same_features(&self, screen: &Screen) -> Result<(), ReplayError> {
        let parts = |screen: &Screen| {
            [
                ("[images] channels", serde_json::to_value(&screen.images.channels)),
                (
                    "[images] bit_depth",
                    serde_json::to_value(screen.images.bit_depth),
                ),
                ("[images] z", serde_json::to_value(screen.images.z)),
                ("[preprocess]", serde_json::to_value(&screen.preprocess)),
                ("[nuclei]", serde_json::to_value(&screen.nuclei)),
                ("[model]", serde_json::to_value(&screen.model.name)),
                // Steps of coarser levels are asked anew, of whatever the features come to.
                ("[[steps]]", {
                    let of_fields = screen.steps.iter().filter(|step| step.level.is_field());
                    let asked: Vec<_> = of_fields.map(ExternalStep::without_patience).collect();
                    serde_json::to_value((&screen.networks, asked))
                }),
            ]
        };
        for ((part, old), (_, new)) in parts(&self.screen).into_iter().zip(parts(screen)) {
            if old.ok() != new.ok() {
                return Err(ReplayError::OtherFeatures {
                    run: self.run.clone(),
                    part,
                });
            }
        }
        Ok(())
    }
}

/// Announces the plates of `old` again, to a run of `screen` (its own when absent) named `name`, as urgent as `lane` says. By time or offset it
/// takes the plates whose announcements, on the plates topic, are selected. Blocking.
pub fn plates(
    kafka: &KafkaSettings,
    old: &str,
    name: &ScreenName,
    screen: Option<Screen>,
    selection: &Selection,
    lane: Urgency,
    runtime: &Handle,
) -> Result<Replayed, ReplayError> {
    let old = find(kafka, old)?;
    let run = Run::open(old.renamed(screen, name)?)?;
    let mut chosen = old.plates.clone();
    if !selection.is_whole() {
        let mut announced = BTreeSet::new();
        read_to_end(kafka, Topic::Plates, &selection.start, |record| {
            if selection.is_before_end(record)
                && let Ok(event) = record.read::<PlateReady>()
                && event.run.as_ref().is_none_or(|run| *run == old.run)
            {
                announced.insert(event.plate);
            }
            Ok::<_, KafkaFailure>(ControlFlow::Continue(()))
        })?;
        chosen.retain(|plate| announced.contains(plate));
    }
    chosen.retain(|plate| selection.has(plate));
    if chosen.is_empty() {
        return Err(ReplayError::Nothing { run: old.run });
    }
    let chosen: Vec<Barcode> = chosen.into_iter().collect();
    let new = submit(kafka, &run, &chosen, lane, runtime)?;
    Ok(Replayed {
        run: run.id,
        plates: chosen.len(),
        published: new.len() as u64,
        published_before: (chosen.len() - new.len()) as u64,
    })
}

/// Takes the features of `old` over into a run of `screen` (its own when absent) named `name`: the collector compares
/// them anew. Fields that failed in `old` have failed in the new run too, unless only some records are selected: then
/// these are all there is. `scratch` is a folder for temporary files. Blocking.
pub fn features(
    kafka: &KafkaSettings,
    old: &str,
    name: &ScreenName,
    screen: Option<Screen>,
    selection: &Selection,
    scratch: &Path,
) -> Result<Replayed, ReplayError> {
    let old = find(kafka, old)?;
    let screen = old.renamed(screen, name)?;
    old.same_features(&screen)?;
    let run = run_id(&screen);
    let mut producer = producer_of(kafka, &run)?;
    let there = There::read(kafka, &run, &screen)?;
    let (mut collection, present, taken) = gather(kafka, &old, &run, selection, scratch)?;

    let chosen: Vec<Barcode> = collection
        .plates()
        .filter(|plate| selection.has(plate) && (selection.is_whole() || taken.contains(*plate)))
        .cloned()
        .collect();
    // What is not there yet would be missing in the new run, and nothing would say so.
    let mut of_old = old.plates.iter().filter(|plate| selection.has(plate));
    let unfinished = of_old.find(|plate| selection.is_whole() && !collection.is_complete(plate));
    if let Some(plate) = unfinished.cloned() {
        return Err(ReplayError::Unfinished { run: old.run, plate });
    }
    if chosen.is_empty() {
        return Err(ReplayError::Nothing { run: old.run });
    }
    let mut replayed = Replayed {
        run: run.clone(),
        plates: chosen.len(),
        published: 0,
        published_before: present.len() as u64,
    };
    let new = NewRun {
        id: &run,
        quality: &screen.quality,
        present: &present,
    };
    there.register(&mut producer, &screen, old.model.clone(), &chosen)?;
    let letters: Vec<DeadLetter> = match selection.is_whole() {
        // What was asked about wells, plates and the old screen is asked again.
        true => {
            let letters = collection.letters().into_iter();
            letters.filter(|letter| letter.step.is_none()).cloned().collect()
        }
        false => Vec::new(),
    };
    for plate in chosen.iter().filter(|plate| !there.planned.contains(*plate)) {
        let of_plate = letters
            .iter()
            .filter(|letter| letter.plate.as_ref() == Some(plate) && letter.run.is_some());
        let shading = old.shadings.get(plate).cloned();
        replayed.published += take_over(&mut producer, &mut collection, plate, &new, of_plate, shading)?;
    }
    Ok(replayed)
}

/// One name for the producer of a run's replay, wherever it runs: a second one fences the first, and sees what the first had
/// committed.
fn producer_of(kafka: &KafkaSettings, run: &RunId) -> Result<BatchProducer, KafkaFailure> {
    let named = KafkaSettings {
        instance: "replay".to_owned(),
        ..kafka.clone()
    };
    BatchProducer::open(&named, &format!("replay-{run}"))
}

/// What the log has of the new run already.
#[derive(Default)]
struct There {
    submitted: HashSet<Barcode>,
    planned: HashSet<Barcode>,
}

impl There {
    fn read(kafka: &KafkaSettings, run: &RunId, screen: &Screen) -> Result<Self, ReplayError> {
        let mut there = Self::default();
        for status in read_statuses(kafka)? {
            match status {
                Status::RunSubmitted { run: of, plates, .. } if of == *run => there.submitted.extend(plates),
                Status::RunSubmitted {
                    run: of,
                    screen: before,
                    ..
                } => same_screen(&of, &before, screen).map_err(SubmitError::from)?,
                Status::PlatePlanned { run: of, plate, .. } if of == *run => {
                    there.planned.insert(plate);
                }
                _ => {}
            }
        }
        Ok(there)
    }
    /// Registers the run with those of its plates that it was not submitted with before.
    fn register(
        &self,
        producer: &mut BatchProducer,
        screen: &Screen,
        model: Option<ModelIdentity>,
        plates: &[Barcode],
    ) -> Result<(), KafkaFailure> {
        let new = plates.iter().filter(|plate| !self.submitted.contains(*plate));
        let new: Vec<Barcode> = new.cloned().collect();
        match new.is_empty() {
            true => Ok(()),
            false => producer.publish_once(TRIES, &[submitted(screen, model, &new)?]),
        }
    }
}

/// The selected records of the old run, the fields the new run has already, and the plates of which there are records.
fn gather(
    kafka: &KafkaSettings,
    old: &Old,
    new: &RunId,
    selection: &Selection,
    scratch: &Path,
) -> Result<(Collection, HashSet<FieldId>, HashSet<Barcode>), ReplayError> {
    #[derive(serde::Deserialize)]
    struct OfField {
        run: RunId,
        #[serde(flatten)]
        field: FieldId,
    }
    let mut collection = opened(kafka, &old.run, scratch, &[Topic::Status, Topic::DeadLetters])?;
    let (mut present, mut taken) = (HashSet::new(), HashSet::new());
    read_to_end(kafka, Topic::Features, &selection.start, |record| {
        let Ok(of) = record.read::<OfField>() else {
            // The collection says what is wrong with it.
            collection.take(record)?;
            return Ok::<_, ReplayError>(ControlFlow::Continue(()));
        };
        if of.run == *new {
            present.insert(of.field);
        } else if of.run == old.run && selection.is_before_end(record) && selection.has(&of.field.plate) {
            collection.take(record)?;
            taken.insert(of.field.plate);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((collection, present, taken))
}

/// The screen of a run, and all that the log has of it. `scratch` is a folder for temporary files. Blocking.
pub fn collected(
    kafka: &KafkaSettings,
    run: &str,
    scratch: &Path,
) -> Result<(Screen, Option<ModelIdentity>, Collection), ReplayError> {
    let old = find(kafka, run)?;
    let topics = [Topic::Status, Topic::DeadLetters, Topic::Features];
    let collection = opened(kafka, &old.run, scratch, &topics)?;
    Ok((old.screen, old.model, collection))
}

/// A run with all that `topics` have of it.
fn opened(
    kafka: &KafkaSettings,
    run: &RunId,
    scratch: &Path,
    topics: &[Topic],
) -> Result<Collection, ReplayError> {
    let mut collection = Collection::open(run, scratch, Past::read(kafka)?.retried)?;
    for topic in topics {
        read_to_end(kafka, *topic, &Start::Beginning, |record| {
            collection.take(record)?;
            Ok::<_, ReplayError>(ControlFlow::Continue(()))
        })?;
    }
    Ok(collection)
}
