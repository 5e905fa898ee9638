//! Runs: a submitted screen with what every stage needs to work on it, and the list of all runs that were submitted.
//!
//! A [`Run`] is made once from its checked screen and shared. [`Runs`] follows the status topic from its beginning,
//! so any worker started at any time knows every run's screen.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wellspring_models::ModelCard;
use wellspring_workloads::screen::graph::{GraphProblem, Level, StepGraph};
use wellspring_workloads::screen::{EngineChoice, Screen};
use wellspring_workloads::words::Barcode;

use crate::error::{FailureClass, Stage, StageError};
use crate::events::{ModelIdentity, RunId, Status, Steering};
use crate::heads::{OtherChannels, check_channels};
use crate::identity::{IdentityError, same_model};
use crate::kafka::follow::Following;
use crate::kafka::tail::{Tail, TailRecord};
use crate::kafka::topics::Topic;
use crate::kafka::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings};
use crate::model_cards::{self, CardsError};
use crate::model_store::models_folder;
use crate::plan::MapCache;
use crate::plan::{Turn, Turns};
use crate::results::feature_names;
use crate::shading::ShadingCache;
use crate::store::{ImageStore, StoreError};

/// How long a task may wait for its run, which was written to the status topic first and may be held up there by an open
/// transaction.
const PATIENCE: Duration = Duration::from_secs(30);

/// A submitted screen, opened.
#[derive(Debug)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// The checked screen, with absolute paths.
    pub screen: Screen,
    /// All networks, that of `[model]` first; each sees every field.
    pub networks: Vec<Network>,
    /// Heights and widths of the tiles that the networks see, each once.
    pub tile_sizes: Vec<(usize, usize)>,
    /// The screen's steps.
    pub graph: StepGraph,
    /// Names of the values of one well: the networks', those of external steps of fields in the order of the file, and those
    /// of wells and plates in the order in which they are asked.
    names: Vec<String>,
    /// How many of them a field has.
    field_values: usize,
    /// Which of them are each external step's.
    columns: Vec<Range<usize>>,
    /// Where the images are.
    pub store: ImageStore,
    /// Dark-fields and illumination functions read so far.
    pub shading: ShadingCache,
    /// The screen's plate map, where it was read.
    pub map: MapCache,
}

/// A network of a run.
#[derive(Debug)]
pub struct Network {
    /// The step's name, which its feature columns begin with.
    pub name: String,
    /// Its card.
    pub card: Arc<ModelCard>,
    /// Which engine the screen wants for it.
    pub engine: EngineChoice,
    /// Values of one field's embedding.
    pub width: usize,
    /// Which of the run's tile sizes it sees.
    pub tiles: usize,
}

/// Why a screen cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No card has the screen's model name, or the card cannot be used.
    #[error("the screen's model cannot be used; `wellspring models list` shows those that can")]
    Model(#[source] Box<CardsError>),
    /// The model takes another number of channels.
    #[error(
        "model '{model}' does not take images of {channels} channels; `wellspring models list` shows how many it takes"
    )]
    Channels {
        /// The model.
        model: String,
        /// Channels of the screen.
        channels: usize,
    },
    /// The model is a head on other channels.
    #[error(transparent)]
    OtherChannels(#[from] OtherChannels),
    /// Two networks would write the same columns.
    #[error(
        "two networks have the name '{name}', so their columns would be the same: give the step another name"
    )]
    SameName {
        /// The name.
        name: String,
    },
    /// Its steps make no graph.
    #[error("the screen's steps cannot be put in order")]
    Steps(#[from] GraphProblem),
    /// The screen has no images.
    #[error(
        "screen '{name}' has [profiles] and no [images]: it is for `wellspring compare --features FILES`"
    )]
    NoImages {
        /// The screen's name.
        name: String,
    },
    /// The image store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was submitted with another model than the one here.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The run's name: the screen's name and the first eight hex digits of its hash.
pub fn run_id(screen: &Screen) -> RunId {
    format!("{}-{:.8}", screen.name, screen.hash())
}

impl Run {
    /// Opens a screen whose paths are absolute.
    pub fn open(screen: Screen) -> Result<Self, RunError> {
        if screen.is_of_profiles() {
            let name = screen.name.to_string();
            return Err(RunError::NoImages { name });
        }
        let cards = models_folder()
            .map_err(CardsError::from)
            .and_then(|folder| model_cards::of_screen(&folder, &screen))
            .map_err(|error| RunError::Model(Box::new(error)))?;
        let channels = screen.images.channels.len();
        let mut networks: Vec<Network> = Vec::new();
        let mut tile_sizes = Vec::new();
        for (step, card) in screen.all_networks().zip(cards) {
            if networks.iter().any(|network| network.name == step.name) {
                return Err(RunError::SameName { name: step.name });
            }
            check_channels(&card, &screen)?;
            let width = card.image_width(channels).ok_or_else(|| RunError::Channels {
                model: card.name.clone(),
                channels,
            })?;
            let size = (card.input.height, card.input.width);
            let tiles = tile_sizes.iter().position(|known| *known == size);
            let tiles = tiles.unwrap_or_else(|| {
                tile_sizes.push(size);
                tile_sizes.len() - 1
            });
            networks.push(Network {
                name: step.name,
                card,
                engine: step.engine,
                width,
                tiles,
            });
        }
        let graph = StepGraph::of(&screen)?;
        let of_networks = networks
            .iter()
            .flat_map(|network| feature_names(&network.name, network.width));
        let mut names: Vec<String> = of_networks.collect();
        let mut columns = vec![0..0; screen.steps.len()];
        let mut field_values = names.len();
        // A field's columns stand as the file has them, whoever is asked first.
        let mut of_fields: Vec<usize> = graph.externals(Level::Field).collect();
        of_fields.sort_unstable();
        let later = [Level::Well, Level::Plate]
            .into_iter()
            .flat_map(|level| graph.externals(level));
        for index in of_fields.into_iter().chain(later) {
            let (Some(step), Some(place)) = (screen.steps.get(index), columns.get_mut(index)) else {
                continue;
            };
            let start = names.len();
            names.extend(step.feature_names());
            *place = start..names.len();
            if step.level.is_field() {
                field_values = names.len();
            }
        }
        let store = ImageStore::open(&screen.images.store)?;
        Ok(Self {
            networks,
            tile_sizes,
            graph,
            names,
            field_values,
            columns,
            id: run_id(&screen),
            screen,
            store,
            shading: ShadingCache::default(),
            map: MapCache::default(),
        })
    }

    /// What its features are made with.
    pub fn model(&self) -> ModelIdentity {
        ModelIdentity::of(self.networks.iter().map(|network| &*network.card))
    }

    /// The networks in words, with their versions.
    pub fn models(&self) -> String {
        let named = self.networks.iter();
        let named: Vec<String> = named
            .map(|network| format!("{} {}", network.card.name, network.card.version))
            .collect();
        named.join(" + ")
    }

    /// Names of the values of one well, in order: those of its fields, then what was answered about it.
    pub fn feature_names(&self) -> &[String] {
        &self.names
    }

    /// Names of the values of one field, in order.
    pub fn field_names(&self) -> &[String] {
        self.names.get(..self.field_values).unwrap_or(&self.names)
    }

    /// Where the columns of the external step at a place of `[[steps]]` stand among the values of a well.
    pub fn columns_of(&self, step: usize) -> Range<usize> {
        self.columns.get(step).cloned().unwrap_or_default()
    }

    /// Whether the collector has steps to ask.
    pub fn asks_beyond_fields(&self) -> bool {
        self.screen.steps.iter().any(|step| !step.level.is_field())
    }
}

/// Whether a run, or a plate in it, is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// It is.
    #[default]
    Open,
    /// Its work waits.
    Paused,
    /// It was ended for good.
    Cancelled,
}

impl Course {
    /// After an operator's word. What is cancelled stays so.
    pub fn steered(self, action: Steering) -> Self {
        match (self, action) {
            (Self::Cancelled, _) | (_, Steering::Cancelled) => Self::Cancelled,
            (_, Steering::Paused) => Self::Paused,
            (_, Steering::Resumed) => Self::Open,
        }
    }
}

#[derive(Default)]
struct Known {
    runs: HashMap<RunId, Result<Arc<Run>, Arc<str>>>,
    /// Of runs that an operator has steered.
    courses: HashMap<RunId, Course>,
    /// Of plates, by themselves.
    plates: HashMap<(RunId, Barcode), Course>,
    turns: Turns,
    failed: Option<Arc<str>>,
}

impl Known {
    /// What is known of a run; `None`: nothing yet.
    fn get(&self, id: &str) -> Option<Result<Arc<Run>, StageError>> {
        match (self.runs.get(id), &self.failed) {
            (Some(Ok(run)), _) => Some(Ok(run.clone())),
            (Some(Err(message)), _) => Some(Err(StageError::input(
                Stage::Source,
                FailureClass::Configuration,
                message.to_string(),
            ))),
            (None, Some(message)) => Some(Err(StageError::internal(Stage::Source, message.to_string()))),
            (None, None) => None,
        }
    }
}

/// Every run on the status topic.
pub struct Runs {
    kafka: KafkaSettings,
    known: Mutex<Known>,
    changed: Condvar,
    following: Following,
}

impl Runs {
    /// Starts to follow the status topic on a thread of its own; it ends with [`Runs::stop`], or when the last handle
    /// is dropped.
    pub fn follow(kafka: &KafkaSettings) -> Result<Arc<Self>, KafkaFailure> {
        let tail = Tail::open(kafka, &[Topic::Status])?;
        let runs = Arc::new(Self {
            kafka: kafka.clone(),
            known: Mutex::default(),
            changed: Condvar::new(),
            following: Following::default(),
        });
        let failed = |runs: &Self, message: String| {
            runs.lock().failed = Some(message.into());
            runs.changed.notify_all();
        };
        runs.following
            .start("runs", tail, Arc::downgrade(&runs), Self::learn, failed)?;
        Ok(runs)
    }

    /// Stops following and waits for the thread, so that Kafka may go away.
    pub fn stop(&self) {
        self.following.stop();
    }

    /// The run, waiting a while for a submission that is still on its way. Blocking.
    pub fn get(&self, id: &str) -> Result<Arc<Run>, StageError> {
        if let Some(run) = self.lock().get(id) {
            return run;
        }
        // Submission and tasks are in transactions, whose records this reader may be given in any order. What was never
        // written is not waited for: whatever is behind this record would wait too.
        let mut give_up = Instant::now() + PATIENCE;
        match self.is_written(id) {
            Ok(true) => {}
            Ok(false) => give_up = Instant::now(),
            Err(error) => {
                let message = crate::error::chain(&error);
                tracing::warn!(
                    message,
                    "whether run '{id}' was submitted cannot be read now; waiting for it"
                );
            }
        }
        let mut known = self.lock();
        loop {
            if let Some(run) = known.get(id) {
                return run;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StageError::input(
                    Stage::Source,
                    FailureClass::BadEvent,
                    format!("run '{id}' was never submitted; submit its screen with `wellspring submit`"),
                ));
            }
            known = self
                .changed
                .wait_timeout(known, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Whether the status topic has the run's submission, be it in a transaction that is still open.
    fn is_written(&self, id: &str) -> Result<bool, KafkaFailure> {
        let mut found = false;
        Tail::open_uncommitted(&self.kafka, Topic::Status)?.read_to_end(BROKER_TIMEOUT, |record| {
            found = matches!(record.read(), Ok(Status::RunSubmitted { run, .. }) if run == id);
            Ok::<_, KafkaFailure>(match found {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        Ok(found)
    }

    /// Whether the run is worked on, as far as it is known now.
    pub fn course(&self, id: &str) -> Course {
        self.lock().courses.get(id).copied().unwrap_or_default()
    }

    /// Whether a plate is worked on in the run, as far as it is known now.
    pub fn course_of_plate(&self, id: &RunId, plate: &Barcode) -> Course {
        match self.course(id) {
            Course::Open => {
                let plates = &self.lock().plates;
                plates
                    .get(&(id.clone(), plate.clone()))
                    .copied()
                    .unwrap_or_default()
            }
            of_run => of_run,
        }
    }

    /// Whose turn it is in the batch lane; `here` are runs with a plate in this process.
    pub fn turn(&self, here: &[&RunId]) -> Option<Turn> {
        self.lock().turns.next(here)
    }

    /// Others go on without the run, until something is heard of it.
    pub fn pass_over(&self, run: &RunId) {
        self.lock().turns.pass_over(run);
    }

    /// Every run known now.
    pub fn all(&self) -> Vec<Arc<Run>> {
        let mut runs: Vec<_> = self
            .lock()
            .runs
            .values()
            .filter_map(|run| run.clone().ok())
            .collect();
        runs.sort_by(|a, b| a.id.cmp(&b.id));
        runs
    }

    fn learn(&self, record: &TailRecord) {
        match record.read::<Status>() {
            Ok(Status::RunSubmitted {
                run, screen, model, ..
            }) => {
                self.lock().turns.weigh(&run, screen.resources.weight);
                let opened = Run::open(*screen).and_then(|opened| {
                    same_model(&run, model.as_ref(), &opened.model())?;
                    Ok(Arc::new(opened))
                });
                let opened = opened.map_err(|error| {
                    let message = crate::error::chain(&error);
                    tracing::error!(run, message, "the run cannot be worked on here");
                    message.into()
                });
                self.lock().runs.insert(run, opened);
                self.changed.notify_all();
            }
            Ok(Status::RunSteered { run, action, .. }) => {
                tracing::info!(run, ?action, "an operator steers the run");
                let mut known = self.lock();
                let course = known
                    .courses
                    .get(&run)
                    .copied()
                    .unwrap_or_default()
                    .steered(action);
                known.turns.steered(&run, course);
                known.courses.insert(run, course);
            }
            Ok(Status::PlateSteered {
                run, plate, action, ..
            }) => {
                tracing::info!(run, %plate, ?action, "an operator steers the plate");
                let mut known = self.lock();
                let course = known.plates.entry((run.clone(), plate.clone())).or_default();
                *course = course.steered(action);
                if *course != Course::Open {
                    // Nobody waits for its turn.
                    known.turns.planned(&run, &plate, 0);
                }
            }
            Ok(Status::PlateQueued { run, plate }) => self.lock().turns.queued(&run, &plate),
            Ok(Status::PlatePlanned {
                run,
                plate,
                fields_planned,
                ..
            }) => self.lock().turns.planned(&run, &plate, fields_planned),
            Ok(_) => {}
            Err(error) => {
                let message = crate::error::chain(&record.unreadable(error));
                tracing::warn!(message, "a status record is passed over");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
