//! The services of external steps: each is opened when it is first asked, and stays open.
//!
//! A step and a [`Request`] enter; the answer leaves, after as many attempts as the step may have, whatever the request is
//! about. What fails: a service that cannot be opened, and one of which no attempt gives an answer that can be used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use wellspring_workloads::screen::{ExternalStep, Reply, Service};

use super::answer::{Answer, AnswerError};
use super::command::Command;
use super::http::{Http, Later};
use super::protocol::Request;
use super::{ExternalError, ExternalSettings};
use crate::kafka::exchange::{Exchange, create_missing};

/// Services that are kept open; of more, those that nothing waits for are closed.
const OPEN_SERVICES: usize = 16;

/// The longest wait between two attempts, unless a step begins with a longer one.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

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
pub struct Services {
    settings: ExternalSettings,
    open: Mutex<HashMap<String, Arc<Open>>>,
    /// Held by who opens one.
    opening: tokio::sync::Mutex<()>,
}

impl Services {
    /// None is open yet.
    pub fn new(settings: ExternalSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            open: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// One step's answer as `read` takes it, after as many attempts as it may have.
    ///
    /// # Errors
    /// The service cannot be opened, or no attempt gave an answer that can be used.
    pub async fn ask<T>(
        &self,
        step: &ExternalStep,
        request: &mut Request,
        read: impl Fn(Answer) -> Result<T, AnswerError>,
    ) -> Result<T, ExternalError> {
        let mut wait = Duration::from_millis(step.backoff_ms);
        let mut attempt = 1;
        loop {
            request.begin(attempt, step);
            match self.attempt(step, request, &read).await {
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
                    wait = wait.saturating_mul(2).min(LONGEST_BACKOFF.max(wait));
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    /// One attempt, when it is its turn.
    async fn attempt<T>(
        &self,
        step: &ExternalStep,
        request: &Request,
        read: impl Fn(Answer) -> Result<T, AnswerError>,
    ) -> Result<T, ExternalError> {
        let open = self.service(step).await?;
        let _turn: Result<SemaphorePermit<'_>, _> = open.free.acquire().await;
        Ok(read(open.ask(request).await?)?)
    }

    /// The open service of a step; of two screens with the same step it is the same one.
    async fn service(&self, step: &ExternalStep) -> Result<Arc<Open>, ExternalError> {
        let key = format!("{step:?}");
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = || {
            let open = lock().get(&key)?.clone();
            *open.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            Some(open)
        };
        if let Some(open) = known() {
            return Ok(open);
        }
        // Threads and connections of a service are opened once, however many ask for it first.
        let _alone = self.opening.lock().await;
        if let Some(open) = known() {
            return Ok(open);
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
            Service::Http { url, poll_ms, reply } => {
                let later = match (reply, settings.callbacks) {
                    (Reply::Poll, _) => Later::Poll(Duration::from_millis(*poll_ms)),
                    (Reply::Callback, Some(callbacks)) => Later::Callback(callbacks),
                    (Reply::Callback, None) => return Err(ExternalError::NoListener),
                };
                Http::open(url, later).map(Adapter::Http)
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
        let unused = {
            let mut all = lock();
            all.insert(key, opened.clone());
            unused(&mut all)
        };
        tokio::task::spawn_blocking(move || drop(unused));
        Ok(opened)
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
    async fn ask(&self, request: &Request) -> Result<Answer, ExternalError> {
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
            _ => {
                let (ms, accepted) = (self.deadline_ms, false);
                (left, ExternalError::Deadline { ms, accepted })
            }
        }
    }
}
