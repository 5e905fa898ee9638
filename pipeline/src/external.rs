//! External: steps that are done outside this program are asked, field by field, and their answers become columns.
//!
//! [`Embedded`] fields enter and leave with the columns of `[[steps]]` behind the embedding. A field's ticket stays open
//! while its services are asked, so an answer becomes visible with the offset of the field's task and no other way: once,
//! however often a request was sent and however many answers came. A process that dies asks again under the same
//! idempotency id. What fails: a service that gives no answer within its deadline, a refusal, an answer that is not what
//! the screen says. Attempts with growing waits are made here; what then still may pass goes to the retries topic.

pub mod command;
pub mod http;
pub mod protocol;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use wellspring_workloads::screen::{ExternalStep, Service};

use crate::error::{Domain, FailureClass, Retry, Stage, StageError};
use crate::failpoint;
use crate::failures::settle_field;
use crate::fields::Embedded;
use crate::kafka::KafkaSettings;
use crate::kafka::exchange::{Exchange, create_missing};
use crate::track::Tracked;
use command::Command;
use http::Http;
use protocol::{AnswerError, Request};

/// Fields that wait for answers at once at most; the lane's limit on fields in flight is usually lower.
const CONCURRENCY: usize = 256;
/// Services that are kept open; of more, those that nothing waits for are closed.
const OPEN_SERVICES: usize = 16;

/// What a worker lets screens do.
#[derive(Debug, Clone)]
pub struct ExternalSettings {
    /// How to reach Kafka, for pairs of topics.
    pub kafka: KafkaSettings,
    /// Whether commands of a screen may be run here: whoever can submit a screen then runs programs as this user.
    pub commands: bool,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// Commands are not run here.
    #[error(
        "this worker runs no commands of screens; start it with --allow-commands if whoever submits screens may run \
         programs on this machine"
    )]
    NotAllowed,
    /// The program could not be started.
    #[error("'{program}' cannot be started; is it installed on the worker?")]
    Start {
        /// The program.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The program ended instead of answering.
    #[error("the command ended with {status} instead of an answer; it said last: {last}")]
    Ended {
        /// Its exit status.
        status: String,
        /// The last line of its standard error.
        last: String,
    },
    /// No answer within the deadline.
    #[error("no answer within {ms} ms")]
    Deadline {
        /// The deadline.
        ms: u64,
    },
    /// Neither an answer nor a sign of life.
    #[error("nothing was heard for {ms} ms: neither an answer nor a heartbeat")]
    Silent {
        /// How long.
        ms: u64,
    },
    /// The answer cannot be used.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// A web service could not be reached.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// Where.
        url: String,
        /// The client's reason.
        source: reqwest::Error,
    },
    /// A web service answered with an error.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// Where.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// A web service says later, but not where.
    #[error("{url} answered 202 without a Location that can be asked: {location}")]
    NoLocation {
        /// Where.
        url: String,
        /// What it gave.
        location: String,
    },
    /// Kafka failed.
    #[error(transparent)]
    Kafka(#[from] crate::kafka::KafkaFailure),
    /// A thread of this program is gone.
    #[error("the thread that speaks with the service is gone")]
    Gone,
}

impl ExternalError {
    /// Whether the same request may be answered another time.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotAllowed | Self::NoLocation { .. } => false,
            Self::Start { source, .. } => source.kind() != std::io::ErrorKind::NotFound,
            Self::Answer(AnswerError::Refused { retry, .. }) => *retry,
            Self::Answer(_) => false,
            // Too early, too many, timed out, or the server's fault.
            Self::Status { status, .. } => [408, 410, 425, 429].contains(status) || *status >= 500,
            Self::Ended { .. }
            | Self::Deadline { .. }
            | Self::Silent { .. }
            | Self::Unreachable { .. }
            | Self::Kafka(_)
            | Self::Gone => true,
        }
    }

    fn stage_error(self, step: &str) -> StageError {
        let again = self.may_pass();
        let class = match self {
            Self::NotAllowed | Self::Start { .. } => FailureClass::Configuration,
            _ => FailureClass::External,
        };
        StageError {
            stage: Stage::External,
            class,
            domain: if again { Domain::External } else { Domain::Input },
            retry: if again { Retry::Backoff } else { Retry::Never },
            source: Box::new(OfStep {
                step: step.to_owned(),
                source: self,
            }),
        }
    }
}

/// A failure with the step it belongs to.
#[derive(Debug, thiserror::Error)]
#[error("step '{step}'")]
struct OfStep {
    step: String,
    source: ExternalError,
}

/// Runs the stage until its input ends.
pub async fn run(
    input: async_channel::Receiver<Tracked<Embedded>>,
    output: async_channel::Sender<Tracked<Embedded>>,
    settings: ExternalSettings,
) {
    let services = Arc::new(Services {
        settings,
        open: Mutex::default(),
    });
    let mut asking = JoinSet::new();
    while let Ok(field) = input.recv().await {
        let Some(field) = field.unless_stale() else {
            continue;
        };
        if field.value.run.screen.steps.is_empty() {
            // Closed: the worker stops, and the ticket, dropped here, keeps the record uncommitted.
            let _closed = output.send(field).await;
            continue;
        }
        while asking.len() >= CONCURRENCY {
            asking.join_next().await;
        }
        let (services, output) = (services.clone(), output.clone());
        asking.spawn(async move {
            let Tracked { mut value, ticket } = field;
            let asked = services.ask_all(&mut value).await;
            match asked.and_then(|()| failpoint::after(Stage::External, &value.task.field)) {
                Ok(()) => {
                    let _closed = output.send(Tracked { value, ticket }).await;
                }
                Err(error) => settle_field(ticket, &value.task, error),
            }
        });
    }
    while asking.join_next().await.is_some() {}
    // Commands get a moment to end, which is too long for an async thread.
    let _closed = tokio::task::spawn_blocking(move || drop(services)).await;
}

/// An open service, and who may ask it now.
struct Open {
    step: ExternalStep,
    adapter: Adapter,
    free: Semaphore,
    used: Mutex<Instant>,
}

enum Adapter {
    Command(Command),
    Http(Http),
    Topics(Exchange),
}

/// The services that were asked so far.
struct Services {
    settings: ExternalSettings,
    open: Mutex<HashMap<String, Arc<Open>>>,
}

impl Services {
    /// Asks every external step of the field's screen and puts the answers behind the embedding, in the order of the file.
    async fn ask_all(&self, field: &mut Embedded) -> Result<(), StageError> {
        let run = field.run.clone();
        let steps = &run.screen.steps;
        let mut answers: Vec<Option<Vec<f32>>> = vec![None; steps.len()];
        for index in run.graph.externals() {
            let Some(step) = steps.get(index) else { continue };
            let request = Request::new(field, step, &answers);
            let answer = self.ask(step, request).await;
            let answer = answer.map_err(|error| error.stage_error(&step.name))?;
            if let Some(place) = answers.get_mut(index) {
                *place = Some(answer);
            }
        }
        field.embedding.extend(answers.into_iter().flatten().flatten());
        Ok(())
    }

    /// One step's answer, after as many attempts as it may have.
    async fn ask(&self, step: &ExternalStep, mut request: Request) -> Result<Vec<f32>, ExternalError> {
        let open = self.service(step).await?;
        let _turn: Result<SemaphorePermit<'_>, _> = open.free.acquire().await;
        let mut wait = Duration::from_millis(step.backoff_ms);
        let mut attempt = 1;
        loop {
            request.begin(attempt, step);
            let answer = open
                .ask(&request)
                .await
                .and_then(|answer| Ok(answer.columns(step)?));
            match answer {
                Err(error) if error.may_pass() && attempt < step.attempts => {
                    let message = crate::error::chain(&error);
                    tracing::warn!(
                        step = step.name,
                        id = request.idempotency_id,
                        attempt,
                        message,
                        "asked again"
                    );
                    // Up to a tenth more, so that what failed together does not come back together.
                    let part = f64::from(crate::clock::subsecond_nanos() % 1_000) / 10_000.0;
                    tokio::time::sleep(wait.mul_f64(1.0 + part)).await;
                    wait = wait.saturating_mul(2);
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    /// The open service of a step; of two screens with the same step it is the same one.
    async fn service(&self, step: &ExternalStep) -> Result<Arc<Open>, ExternalError> {
        let key = format!("{step:?}");
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = lock().get(&key) {
            *open.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(open.clone());
        }
        if let Service::Topics { requests, responses } = &step.service {
            create_missing(&self.settings.kafka, [requests, responses]).await?;
        }
        let (settings, of) = (self.settings.clone(), step.clone());
        let adapter = tokio::task::spawn_blocking(move || match &of.service {
            Service::Command { command } if settings.commands => {
                Command::open(command, of.in_flight).map(Adapter::Command)
            }
            Service::Command { .. } => Err(ExternalError::NotAllowed),
            Service::Http { url, poll_ms } => {
                Http::open(url, Duration::from_millis(*poll_ms)).map(Adapter::Http)
            }
            Service::Topics { requests, responses } => Ok(Adapter::Topics(Exchange::open(
                &settings.kafka,
                requests,
                responses,
            )?)),
        });
        let opened = Arc::new(Open {
            step: step.clone(),
            adapter: adapter.await.map_err(|_| ExternalError::Gone)??,
            free: Semaphore::new(step.in_flight as usize),
            used: Mutex::new(Instant::now()),
        });
        let (open, unused) = {
            let mut all = lock();
            // Another field may have been quicker.
            let open = all.entry(key).or_insert(opened).clone();
            (open, unused(&mut all))
        };
        tokio::task::spawn_blocking(move || drop(unused));
        Ok(open)
    }
}

/// Takes out the services that nothing waits for, longest unused first, until few enough are left.
fn unused(all: &mut HashMap<String, Arc<Open>>) -> Vec<Arc<Open>> {
    let mut taken = Vec::new();
    while all.len() > OPEN_SERVICES {
        let idle = all.iter().filter(|(_, open)| Arc::strong_count(open) == 1);
        let used = |open: &Open| *open.used.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = idle
            .min_by_key(|(_, open)| used(open))
            .map(|(key, _)| key.clone())
        else {
            break;
        };
        taken.extend(all.remove(&key));
    }
    taken
}

impl Open {
    async fn ask(&self, request: &Request) -> Result<protocol::Answer, ExternalError> {
        let patience = Patience::of(&self.step);
        match &self.adapter {
            Adapter::Command(command) => command.ask(request, patience).await,
            Adapter::Http(http) => http.ask(request, patience).await,
            Adapter::Topics(exchange) => exchange.ask(request, patience).await,
        }
    }
}

/// How long an attempt may take, from now on.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    deadline_ms: u64,
    heartbeat_ms: Option<u64>,
    until: Instant,
}

impl Patience {
    /// That of a step.
    pub fn of(step: &ExternalStep) -> Self {
        Self {
            deadline_ms: step.deadline_ms,
            heartbeat_ms: step.heartbeat_ms,
            until: Instant::now() + Duration::from_millis(step.deadline_ms),
        }
    }

    /// How long to wait for the next sign of life, and what it means when none comes.
    pub fn next(&self) -> (Duration, ExternalError) {
        let left = self.until.saturating_duration_since(Instant::now());
        match self.heartbeat_ms {
            Some(ms) if Duration::from_millis(ms) < left => {
                (Duration::from_millis(ms), ExternalError::Silent { ms })
            }
            _ => (left, ExternalError::Deadline { ms: self.deadline_ms }),
        }
    }
}
