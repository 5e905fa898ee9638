//! The door for lab automation that speaks HTTP: plates are announced by a request, and asked after.
//!
//! `POST /v1/plates` announces, `GET /v1/plates/{plate}` tells how far a plate is, `GET /v1/openapi.json` describes both
//! and `GET /healthz` says that the door is open. A plate is on Kafka when its request is answered with 202. What is wrong
//! with a request is told in a form for programs (`problem`), with a bearer token or a client certificate as the
//! only ways in from elsewhere. Fails to open where the address, the token or a TLS file cannot be used.

mod bounded;
mod events;
pub(crate) mod problem;
pub(crate) mod served;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use wellspring_workloads::words::Barcode;

use self::problem::Problem;
pub use self::served::ListenError;
use self::served::Served;
pub use self::tls::{TlsError, TlsFiles};
use crate::events::PlateReady;
use crate::plates::{Followed, Plate};
use crate::submit::Announcer;

/// Bytes of a request.
const MOST_BYTES: usize = 1 << 20;
/// The longest a caller may take over its request.
const PATIENCE: Duration = Duration::from_secs(20);
/// The description of the door.
const OPENAPI: &str = include_str!("openapi.json");

/// Where the door is and who may come in.
#[derive(Debug, Clone)]
pub struct DoorSettings {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// The bearer token that callers must show.
    pub token: Option<String>,
    /// TLS, and who signs the certificates of callers.
    pub tls: Option<TlsFiles>,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Everybody could announce plates.
    #[error(
        "{address} can be reached from elsewhere, so callers must show who they are: give a bearer token or the authority \
         of client certificates"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// A token would travel in the clear.
    #[error(
        "{address} can be reached from elsewhere, so a bearer token needs TLS: give a certificate and its key"
    )]
    Clear {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A TLS file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// An open door.
#[derive(Debug)]
pub struct Door(Served);

struct Inside {
    plates: Arc<Followed>,
    announcer: Announcer,
    token: Option<String>,
}

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub async fn open(
        settings: DoorSettings,
        plates: Arc<Followed>,
        announcer: Announcer,
    ) -> Result<Self, DoorError> {
        let DoorSettings { address, token, tls } = settings;
        if !address.ip().is_loopback() {
            let client_ca = tls.as_ref().is_some_and(|files| files.client_ca.is_some());
            match (&token, &tls) {
                (None, _) if !client_ca => return Err(DoorError::Open { address }),
                (Some(_), None) => return Err(DoorError::Clear { address }),
                _ => {}
            }
        }
        let acceptor = tls.as_ref().map(tls::acceptor).transpose()?;
        let inside = Arc::new(Inside {
            plates,
            announcer,
            token,
        });
        Ok(Self(
            Served::open("door", address, acceptor, router(inside)).await?,
        ))
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Lets nobody in any more and waits for those inside, a moment.
    pub async fn close(self) {
        self.0.close().await;
    }
}

fn router(inside: Arc<Inside>) -> Router {
    Router::new()
        .route("/v1/plates", post(announce))
        .route("/v1/plates/{plate}", get(plate))
        .layer(from_fn_with_state(Arc::clone(&inside), let_in))
        .route("/v1/openapi.json", get(openapi))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "no_such_path", "see /v1/openapi.json") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "see /v1/openapi.json")
        })
        .with_state(inside)
}

async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], OPENAPI).into_response()
}

/// Lets callers in that show the token, where there is one.
async fn let_in(State(inside): State<Arc<Inside>>, request: Request, next: Next) -> Response {
    let Some(token) = &inside.token else {
        return next.run(request).await;
    };
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, shown)| shown.trim());
    // As long for a token that is nearly right as for one that is wrong from its first letter.
    if shown.len() == token.len() && openssl::memcmp::eq(shown.as_bytes(), token.as_bytes()) {
        return next.run(request).await;
    }
    let detail = "show the token of this installation: Authorization: Bearer TOKEN";
    Problem::new(StatusCode::UNAUTHORIZED, "token", detail).into_response()
}

/// A plate that was announced.
#[derive(Debug, Serialize)]
struct Announced {
    plate: Barcode,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    status_url: String,
}

async fn announce(
    State(inside): State<Arc<Inside>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = match tokio::time::timeout(PATIENCE, to_bytes(body, MOST_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let detail = format!("a request has {MOST_BYTES} bytes at most; send the events in several");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
        }
        Err(_) => {
            let detail = "the request did not come to its end in time";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", detail));
        }
    };
    let posted = events::read(&headers, &body)?;
    for (number, event) in posted.events.iter().enumerate() {
        known(&inside, event).map_err(|problem| problem.at(posted.place(number, "run")))?;
    }
    let announced: Vec<Announced> = posted
        .events
        .iter()
        .map(|PlateReady { plate, run, .. }| Announced {
            status_url: format!("/v1/plates/{plate}"),
            plate: plate.clone(),
            run: run.clone(),
        })
        .collect();
    let announcing = inside.announcer.announce(posted.events, posted.traceparent);
    let Ok(published) = tokio::time::timeout(PATIENCE, announcing).await else {
        let detail = "Kafka does not answer, and whether the plates are announced is not known: try again, a plate that is \
                      announced twice is worked on once";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "kafka", detail));
    };
    published.map_err(|reason| {
        tracing::error!(reason = &*reason, "plates could not be announced");
        let detail = format!("the plates are not announced, try again: {reason}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "kafka", detail)
    })?;
    let mut response = (StatusCode::ACCEPTED, Json(&announced)).into_response();
    if let [one] = announced.as_slice()
        && let Ok(url) = HeaderValue::from_str(&one.status_url)
    {
        response.headers_mut().insert(header::LOCATION, url);
    }
    Ok(response)
}

/// Whether the run that an event names is there.
fn known(inside: &Inside, event: &PlateReady) -> Result<(), Problem> {
    let Some(run) = &event.run else { return Ok(()) };
    if look(inside, |board| board.run(run).is_some())? {
        return Ok(());
    }
    let detail = format!("run '{run}' was never submitted; leave run out, or submit its screen first");
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "unknown_run",
        detail,
    ))
}

async fn plate(State(inside): State<Arc<Inside>>, Path(plate): Path<String>) -> Result<Json<Told>, Problem> {
    let barcode: Barcode = plate
        .parse()
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "barcode", format!("{error}")).at("plate"))?;
    match look(&inside, |board| board.plate(&barcode).cloned())? {
        Some(state) => Ok(Json(Told {
            plate: barcode,
            state,
        })),
        None => {
            let detail = format!("plate {barcode} was never announced");
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown_plate", detail).at("plate"))
        }
    }
}

/// What is known of a plate.
#[derive(Debug, Serialize)]
struct Told {
    plate: Barcode,
    #[serde(flatten)]
    state: Plate,
}

fn look<T>(inside: &Inside, at: impl FnOnce(&crate::plates::Board) -> T) -> Result<T, Problem> {
    inside.plates.look(at).map_err(|reason| {
        let detail = format!("what is known of plates is not up to date: {reason}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "kafka", detail)
    })
}
