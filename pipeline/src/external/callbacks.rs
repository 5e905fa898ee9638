//! Answers that web services POST when they have them: each request carries an address of its own, and whoever knows the
//! address may answer it.
//!
//! POSTs to `/v1/callbacks/ID` enter; answers leave to whoever waits. `ID` is a keyed hash of the request's idempotency id,
//! with a key that only this process has: it cannot be guessed, and every attempt at the same work has the same, so that an
//! answer to an earlier attempt counts. What a service is told: 200 for an answer or a heartbeat that was taken, and for
//! an answer that had come before; 410 for one that nobody waits for any more; 404 for an address that was never given; 409
//! for the answer to another request; 400 and 413 for one that cannot be used, which the step is told too.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{Answer, AnswerError, MOST_BYTES};
use super::protocol::Request;
use crate::http::ListenError;
use crate::http::problem::Problem;
use crate::http::served::Served;

/// The longest that the body of a callback may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers and heartbeats to one request that wait to be looked at.
const WAITING: usize = 16;
/// Requests whose end is remembered, so that an answer that comes again or too late is told from one to nothing.
const REMEMBERED: usize = 10_000;
/// Digits of an id: 160 bits.
const DIGITS: usize = 40;

/// Why callbacks cannot be listened for.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Nobody can call it.
    #[error(
        "callbacks are listened for at {address}, which no service can call; say with --callback-url under which address \
         services reach this process"
    )]
    NoUrl {
        /// The address.
        address: SocketAddr,
    },
    /// The address for services is none.
    #[error("'{url}' is no http:// or https:// address under which services could call back")]
    BadUrl {
        /// What was given.
        url: String,
    },
    /// No key can be drawn.
    #[error("no key for the addresses of callbacks can be drawn")]
    Key(#[from] ErrorStack),
}

/// Who waits for answers, and the server that takes them.
#[derive(Debug)]
pub struct Callbacks {
    inside: Arc<Inside>,
    /// In front of the ids.
    base: String,
    served: Served,
}

struct Inside {
    key: PKey<Private>,
    known: Mutex<Known>,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inside")
    }
}

type Said = Result<Answer, AnswerError>;

#[derive(Default)]
struct Known {
    waiting: HashMap<String, Waits>,
    /// The number of the last one that began to wait.
    last: u64,
    ended: HashMap<String, End>,
    /// Of `ended`, oldest first.
    order: VecDeque<String>,
}

struct Waits {
    /// The idempotency id.
    work: String,
    to: mpsc::Sender<Said>,
    answered: bool,
    /// Of those that wait for the same answer, the last one gets it.
    number: u64,
}

/// How waiting ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    GivenUp,
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What cannot be guessed of a piece of work.
    fn id(&self, work: &str) -> Result<String, ErrorStack> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key)?;
        let digest = signer.sign_oneshot_to_vec(work.as_bytes())?;
        let mut digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.truncate(DIGITS);
        Ok(digits)
    }
}

impl Known {
    fn end(&mut self, id: String, end: End) {
        if self.ended.insert(id.clone(), end).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

impl Callbacks {
    /// Listens at `address`, which services know as `url`, where it is not the address itself.
    ///
    /// # Errors
    /// See [`CallbackError`].
    pub async fn open(address: SocketAddr, url: Option<&str>) -> Result<Arc<Self>, CallbackError> {
        let unspecified = match address.ip() {
            IpAddr::V4(ip) => ip.is_unspecified(),
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        let told = match url {
            None if unspecified => return Err(CallbackError::NoUrl { address }),
            None => None,
            Some(url) => {
                let usable = Url::parse(url).ok().filter(|parsed| {
                    ["http", "https"].contains(&parsed.scheme()) && parsed.query().is_none()
                });
                let bad = || CallbackError::BadUrl { url: url.to_owned() };
                Some(usable.ok_or_else(bad)?.as_str().trim_end_matches('/').to_owned())
            }
        };
        let mut key = [0; 32];
        openssl::rand::rand_bytes(&mut key)?;
        let inside = Arc::new(Inside {
            key: PKey::hmac(&key)?,
            known: Mutex::default(),
        });
        let no_such = || async { Problem::new(StatusCode::NOT_FOUND, "unknown_callback", UNKNOWN) };
        let router = Router::new()
            .route("/v1/callbacks/{id}", post(called))
            .fallback(no_such)
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "POST the answer")
            })
            .with_state(inside.clone());
        let served = Served::open("callbacks", address, None, router).await?;
        let base = told.unwrap_or_else(|| format!("http://{}", served.address()));
        Ok(Arc::new(Self { inside, base, served }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Under which address services call.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Begins to wait for the answer to a request; until the [`Expected`] is dropped.
    pub(super) fn expect(&self, request: &Request) -> Result<Expected, ErrorStack> {
        let work = request.idempotency_id.clone();
        let id = self.inside.id(&work)?;
        let (to, said) = mpsc::channel(WAITING);
        let mut known = self.inside.lock();
        known.last += 1;
        let number = known.last;
        let waits = Waits {
            work,
            to,
            answered: false,
            number,
        };
        known.waiting.insert(id.clone(), waits);
        drop(known);
        Ok(Expected {
            number,
            url: format!("{}/v1/callbacks/{id}", self.base),
            inside: self.inside.clone(),
            id,
            said,
        })
    }
}

/// A request whose answer is waited for.
pub(super) struct Expected {
    number: u64,
    /// Where the answer is to be POSTed.
    pub(super) url: String,
    inside: Arc<Inside>,
    id: String,
    said: mpsc::Receiver<Said>,
}

impl Expected {
    /// What the service says next.
    pub(super) async fn next(&mut self) -> Option<Said> {
        self.said.recv().await
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut known = self.inside.lock();
        let is_own = |waits: &Waits| waits.number == self.number;
        if !known.waiting.get(&self.id).is_some_and(is_own) {
            return;
        }
        let waited = known.waiting.remove(&self.id);
        let end = match waited.is_some_and(|waits| waits.answered) {
            true => End::Answered,
            false => End::GivenUp,
        };
        known.end(self.id.clone(), end);
    }
}

const UNKNOWN: &str = "no request has this address: it is of another process, or was forgotten; requests that are still waited \
                       for are sent again with a new one";

async fn called(
    State(inside): State<Arc<Inside>>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    // Before a byte of the body is kept.
    state(&inside, &id)?;
    let body = match tokio::time::timeout(PATIENCE, whole(body)).await {
        Ok(Ok(body)) => body,
        // It may be sent again.
        Ok(Err(NotWhole::Broken)) => {
            let detail = "the connection ended before the answer did; send it again";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "incomplete", detail));
        }
        Ok(Err(NotWhole::TooLong)) => {
            let _told = hand_on(&inside, &id, Err(AnswerError::TooLong))?;
            let detail = AnswerError::TooLong.to_string();
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
        }
        Err(_) => {
            let detail = "the answer did not come to its end in time";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", detail));
        }
    };
    match Answer::read(&String::from_utf8_lossy(&body)) {
        Ok(answer) => hand_on(&inside, &id, Ok(answer)),
        Err(error) => {
            let detail = crate::error::chain(&error);
            let _told = hand_on(&inside, &id, Err(error))?;
            Err(Problem::new(StatusCode::BAD_REQUEST, "unreadable", detail))
        }
    }
}

/// Why a body is not there as a whole.
enum NotWhole {
    Broken,
    TooLong,
}

async fn whole(body: Body) -> Result<Vec<u8>, NotWhole> {
    let (mut parts, mut whole) = (body.into_data_stream(), Vec::new());
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| NotWhole::Broken)?;
        if whole.len() + part.len() > MOST_BYTES {
            return Err(NotWhole::TooLong);
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// Whether an answer is waited for; that of one which was taken before is as good as a first one.
fn state(inside: &Inside, id: &str) -> Result<Option<Json<Value>>, Problem> {
    let known = inside.lock();
    if let Some(waits) = known.waiting.get(id) {
        return Ok(waits.answered.then(taken_before));
    }
    match known.ended.get(id) {
        Some(End::Answered) => Ok(Some(taken_before())),
        Some(End::GivenUp) => {
            let detail = "too late: nobody waits for this answer any more";
            Err(Problem::new(StatusCode::GONE, "too_late", detail))
        }
        None => Err(Problem::new(StatusCode::NOT_FOUND, "unknown_callback", UNKNOWN)),
    }
}

fn taken_before() -> Json<Value> {
    Json(json!({ "status": "answered before" }))
}

/// Gives what a service said to whoever waits.
fn hand_on(inside: &Inside, id: &str, said: Said) -> Result<Json<Value>, Problem> {
    if let Some(before) = state(inside, id)? {
        return Ok(before);
    }
    let mut known = inside.lock();
    let Some(waits) = known.waiting.get_mut(id) else {
        drop(known);
        return state(inside, id).map(|before| before.unwrap_or_else(taken_before));
    };
    if let Ok(answer) = &said {
        // Over HTTP it need not be said; what is said must be right.
        if answer.correlation_id.is_some() && answer.idempotency_id() != Some(waits.work.as_str()) {
            let detail = "its correlation_id is that of another request";
            return Err(Problem::new(StatusCode::CONFLICT, "another_request", detail));
        }
        if answer.is_heartbeat() {
            // Full of heartbeats: the next one does as well.
            drop(waits.to.try_send(said));
            return Ok(Json(json!({ "status": "heard" })));
        }
    }
    // One place is an answer's: there is no other after it.
    match waits.to.try_send(said) {
        Ok(()) => {
            waits.answered = true;
            Ok(Json(json!({ "status": "taken" })))
        }
        Err(_) => {
            let detail = "too many heartbeats wait to be looked at; send the answer again";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail))
        }
    }
}
