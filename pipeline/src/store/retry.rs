//! Trying again what may pass, and saying what a failure means.
//!
//! Attempts enter, results leave, or a [`StageError`] that names the object and what to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{FailureClass, Retry, Stage, StageError};

/// Tries of one read before it counts as failed.
const ATTEMPTS: u32 = 4;
/// Wait before the second try; doubled for each further one, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// Repeats what may pass; turns what is left into a stage error that names the object.
pub(super) async fn retrying<T, F>(
    stage: Stage,
    what: &str,
    away: &AtomicBool,
    attempt: impl Fn() -> F,
) -> Result<T, StageError>
where
    F: Future<Output = object_store::Result<T>>,
{
    let mut backoff = FIRST_BACKOFF;
    let mut tried = 0;
    loop {
        tried += 1;
        let (error, changed) = match attempt().await {
            Ok(value) => {
                away.store(false, Ordering::Relaxed);
                return Ok(value);
            }
            Err(source) => {
                let changed = matches!(source, object_store::Error::Precondition { .. });
                (failure(stage, what, tried, source), changed)
            }
        };
        // An object that was written again has to be read from its beginning: the whole field is tried again.
        if error.retry == Retry::Never || changed {
            return Err(error);
        }
        if tried == ATTEMPTS || away.load(Ordering::Relaxed) {
            away.store(true, Ordering::Relaxed);
            return Err(error);
        }
        tracing::warn!(what, tried, %error, "object storage failed; trying again");
        tokio::time::sleep(jittered(backoff)).await;
        backoff *= 2;
    }
}

/// What a failed read means: an object that is absent or refused stays so, anything else may pass.
pub(super) fn failure(stage: Stage, what: &str, tried: u32, source: object_store::Error) -> StageError {
    let text = crate::error::chain(&source);
    let (class, advice) = meaning(stage, what, &source, &text);
    let source = ReadError {
        what: what.to_owned(),
        tried,
        advice,
        source,
    };
    match class {
        FailureClass::Network | FailureClass::Throttled => StageError::external(stage, class, source),
        _ => StageError::input(stage, class, source),
    }
}

const REFUSED: &str = "; the store refuses it to these credentials (403): check what they may read";
const UNKNOWN: &str =
    "; the store does not accept these credentials (401): check them and whether they have expired";

/// The class of a failure, and what to do about it. The client gives most of what it knows only in words.
fn meaning(
    stage: Stage,
    what: &str,
    source: &object_store::Error,
    text: &str,
) -> (FailureClass, &'static str) {
    let has = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    // Of a listing the client tells no more than the status.
    let listing = |status: &str| stage == Stage::Plan && text.contains(status);
    match source {
        _ if has(&["169.254.169.254", "169.254.170.", "metadata.google.internal"]) => {
            let class = match stage {
                // What never worked will not; a role that stops answering may come back.
                Stage::Plan => FailureClass::Access,
                _ => FailureClass::Network,
            };
            (class, no_credentials(what))
        }
        object_store::Error::NotFound { .. } => (FailureClass::MissingImage, ""),
        object_store::Error::PermissionDenied { .. } => (FailureClass::Access, REFUSED),
        object_store::Error::Unauthenticated { .. } => (FailureClass::Access, UNKNOWN),
        object_store::Error::Precondition { .. } => {
            (FailureClass::Network, "; it was written again while it was read")
        }
        _ if has(&["status code: 429", "status code: 503", "<Code>SlowDown</Code>"]) => {
            (FailureClass::Throttled, "")
        }
        _ if has(&[
            "error following redirect",
            "too many redirects",
            "redirect without LOCATION",
        ]) =>
        {
            (
                FailureClass::Access,
                "; the server redirects without end: check the address and the region",
            )
        }
        _ if has(&["certificate verify failed"]) => {
            let advice = "; the server's certificate is not trusted: name that of its authority in SSL_CERT_FILE, \
                          or for S3 in AWS_CA_BUNDLE";
            (FailureClass::Configuration, advice)
        }
        _ if listing("status code: 403") => (FailureClass::Access, REFUSED),
        _ if listing("status code: 401") => (FailureClass::Access, UNKNOWN),
        _ if listing("status code: 404") => {
            let advice = "; there is no such bucket, container or address: check images.store";
            (FailureClass::Configuration, advice)
        }
        _ if stage == Stage::Plan
            && what.starts_with("http")
            && has(&["status code: 405", "status code: 501", "405 Method", "501 Not"]) =>
        {
            let advice = "; the server does not list its files: a web server must answer PROPFIND (WebDAV)";
            (FailureClass::Configuration, advice)
        }
        _ => (FailureClass::Network, ""),
    }
}

fn no_credentials(what: &str) -> &'static str {
    match what.split("://").next() {
        Some("s3") => {
            "; there are no credentials in the environment, and no role of this machine answers: set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        }
        Some("gs") => {
            "; there are no credentials in the environment, and no role of this machine answers: set \
             GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
        _ => {
            "; there are no credentials in the environment, and no role of this machine answers: set \
             AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY, or AZURE_SKIP_SIGNATURE=true for a public container"
        }
    }
}

/// Between half of `backoff` and all of it, so that workers that failed together do not return together.
fn jittered(backoff: Duration) -> Duration {
    let spread = u64::from(crate::clock::subsecond_nanos() % 1_000);
    backoff / 2 + backoff.mul_f64(0.5 * spread as f64 / 1_000.0)
}

/// A read that failed for good.
#[derive(Debug, thiserror::Error)]
#[error("'{what}' could not be read in {}{advice}", match tried { 1 => "one try".to_owned(), tried => format!("{tried} tries") })]
struct ReadError {
    what: String,
    tried: u32,
    advice: &'static str,
    source: object_store::Error,
}
