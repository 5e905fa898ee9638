//! External: steps that are done outside this program are asked, field by field, and their answers become columns.
//!
//! [`Embedded`] fields enter and leave with the columns of `[[steps]]` behind the embedding. A field's ticket stays open
//! while its services are asked, so an answer becomes visible with the offset of the field's task and no other way: once,
//! however often a request was sent and however many answers came. A process that dies asks again under the same
//! idempotency id. What fails: a service that gives no answer within its deadline, a refusal, an answer that is not what
//! the screen says. Attempts with growing waits are made by [`services`]; what then still may pass goes to the retries topic.
//! Wells, plates and the screen are asked about by the collector, in [`beyond`].

pub mod answer;
pub mod beyond;
pub mod callbacks;
pub mod command;
pub mod http;
pub mod protocol;
pub mod services;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use wellspring_workloads::screen::ExternalStep;
use wellspring_workloads::screen::graph::Level;

use crate::error::{Domain, FailureClass, Retry, Stage, StageError};
use crate::failpoint;
use crate::failures::settle_field;
use crate::fields::Embedded;
use crate::kafka::KafkaSettings;
use crate::track::{Outcome, Ticket, Tracked};
use answer::AnswerError;
use callbacks::{CallbackError, Callbacks};
use protocol::Request;
use services::Services;

/// Fields that wait for answers at once at most; the lane's limit on fields in flight is usually lower.
const CONCURRENCY: usize = 256;
/// How often it is looked whether a field's partition has moved on.
const LOOK: Duration = Duration::from_millis(250);

/// What a process lets screens do.
#[derive(Debug, Clone)]
pub struct ExternalSettings {
    /// How to reach Kafka, for pairs of topics.
    pub kafka: KafkaSettings,
    /// Whether commands of a screen may be run here: whoever can submit a screen then runs programs as this user.
    pub commands: bool,
    /// Where web services POST answers, where that is listened for.
    pub callbacks: Option<Arc<Callbacks>>,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// Commands are not run here.
    #[error(
        "this process runs no commands of screens; start it with --allow-commands if whoever submits screens may run \
         programs on this machine"
    )]
    NotAllowed,
    /// The program could not be started.
    #[error("'{program}' cannot be started; is it installed on this machine?")]
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
    /// The program wrote something else than an answer.
    #[error("{0}; standard output is for answers, messages for people belong on standard error")]
    Printed(AnswerError),
    /// No answer within the deadline.
    #[error("no answer within {ms} ms{}", if *accepted { ", though the service said 202 Accepted" } else { "" })]
    Deadline {
        /// The deadline.
        ms: u64,
        /// Whether the service said that there would be one.
        accepted: bool,
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
    /// The service calls back, and nobody listens.
    #[error(
        "the step's answers are POSTed to this process (reply = \"callback\"), which does not listen for them; start it with \
         --callback-listen ADDRESS:PORT, which the service must be able to reach"
    )]
    NoListener,
    /// No address for a callback can be made.
    #[error(transparent)]
    Callback(#[from] CallbackError),
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
            Self::Start { source, .. } => source.kind() != std::io::ErrorKind::NotFound,
            Self::Answer(AnswerError::Refused { retry, .. }) => *retry,
            // Too early, too many, or timed out.
            Self::Status { status, .. } if [408, 410, 425, 429].contains(status) => true,
            _ => self.is_silence(),
        }
    }

    /// Whether it is the service's, whatever it is asked.
    pub fn is_of_service(&self) -> bool {
        matches!(self, Self::NotAllowed | Self::NoListener | Self::Start { .. })
    }

    /// Whether nothing was heard of the service that says it works at all.
    pub fn is_silence(&self) -> bool {
        match self {
            // The server's fault.
            Self::Status { status, .. } => *status >= 500,
            Self::Ended { .. }
            | Self::Deadline { .. }
            | Self::Silent { .. }
            | Self::Unreachable { .. }
            | Self::Kafka(_)
            | Self::Gone => true,
            Self::NotAllowed
            | Self::NoListener
            | Self::NoLocation { .. }
            | Self::Callback(_)
            | Self::Start { .. }
            | Self::Printed(_)
            | Self::Answer(_) => false,
        }
    }

    /// The same of a service that had said that there would be an answer.
    fn after_accepting(self) -> Self {
        match self {
            Self::Deadline { ms, .. } => Self::Deadline { ms, accepted: true },
            other => other,
        }
    }

    /// As the failure of a stage, which names the step and how it is reached.
    pub fn stage_error(self, step: &ExternalStep) -> StageError {
        let again = self.may_pass();
        let class = match self {
            Self::NotAllowed | Self::NoListener | Self::Start { .. } => FailureClass::Configuration,
            _ => FailureClass::External,
        };
        StageError {
            stage: Stage::External,
            class,
            domain: if again { Domain::External } else { Domain::Input },
            retry: if again { Retry::Backoff } else { Retry::Never },
            source: Box::new(OfStep {
                step: step.name.clone(),
                service: step.service.describe(),
                source: self,
            }),
        }
    }
}

/// A failure with the step it belongs to.
#[derive(Debug, thiserror::Error)]
#[error("step '{step}' ({service})")]
struct OfStep {
    step: String,
    service: String,
    source: ExternalError,
}

/// Runs the stage until its input ends.
pub async fn run(
    input: async_channel::Receiver<Tracked<Embedded>>,
    output: async_channel::Sender<Tracked<Embedded>>,
    settings: ExternalSettings,
) {
    let services = Services::new(settings);
    let mut asking = JoinSet::new();
    while let Ok(field) = input.recv().await {
        let Some(field) = field.unless_stale() else {
            continue;
        };
        if field.value.run.graph.externals(Level::Field).next().is_none() {
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
            let asked = tokio::select! {
                asked = ask_all(&services, &mut value) => asked,
                // Another process asks; the service is not to do it twice, nor this one's fields to wait for it.
                () = until_stale(&ticket) => return ticket.settle(Outcome::GivenBack),
            };
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

/// Returns when the ticket's partition has moved on.
async fn until_stale(ticket: &Ticket) {
    while !ticket.is_stale() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks every external step of the field's screen and puts the answers behind the embedding, in the order of the file.
async fn ask_all(services: &Services, field: &mut Embedded) -> Result<(), StageError> {
    let run = field.run.clone();
    let steps = &run.screen.steps;
    let mut answers: Vec<Option<Vec<f32>>> = vec![None; steps.len()];
    for index in run.graph.externals(Level::Field) {
        let Some(step) = steps.get(index) else { continue };
        let mut request = Request::of_field(field, step, &answers);
        let answer = services
            .ask(step, &mut request, |answer| answer.columns(step))
            .await;
        let answer = answer.map_err(|error| error.stage_error(step))?;
        if let Some(place) = answers.get_mut(index) {
            *place = Some(answer);
        }
    }
    field.embedding.extend(answers.into_iter().flatten().flatten());
    Ok(())
}
