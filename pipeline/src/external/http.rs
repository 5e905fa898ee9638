//! A web service as an external step: a request is POSTed as JSON; the answer is the response's body, or, where the
//! service says 202 Accepted, the body of the `Location` it gives, which is asked for until it is there, or what the service
//! POSTs to the request's `callback`.
//!
//! Requests enter, answers leave. `Idempotency-Key` names the work, so that a service may answer a repeated request
//! from memory. What fails: a service that cannot be reached, answers with an error, or does not answer in time.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{RequestBuilder, StatusCode, Url};

use super::ExternalError;
use super::answer::{Answer, AnswerError, MOST_BYTES};
use super::callbacks::{CallbackError, Callbacks};
use super::protocol::Request;
use super::services::Patience;

/// Beginning of a response that messages show, in characters.
const SHOWN: usize = 300;

/// One service.
pub struct Http {
    client: reqwest::Client,
    url: String,
    later: Later,
}

/// How answers that take longer come.
#[derive(Debug, Clone)]
pub enum Later {
    /// They are asked for this often.
    Poll(Duration),
    /// They are POSTed here.
    Callback(Arc<Callbacks>),
}

impl Http {
    /// A client of the service at `url`.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn open(url: &str, later: Later) -> Result<Self, ExternalError> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            // A redirected POST would arrive as a GET without its body.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let url = url.to_owned();
        match client {
            Ok(client) => Ok(Self { client, url, later }),
            Err(source) => Err(ExternalError::Unreachable { url, source }),
        }
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// The service cannot be reached, refuses, is late, or does not say what it should.
    pub async fn ask(&self, request: &Request, patience: Patience) -> Result<Answer, ExternalError> {
        match &self.later {
            Later::Poll(poll) => self.ask_and_poll(request, patience, *poll).await,
            Later::Callback(callbacks) => self.ask_and_wait(request, patience, callbacks).await,
        }
    }

    fn post(&self, request: &Request) -> RequestBuilder {
        self.client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", &request.idempotency_id)
            .body(request.to_line())
    }

    async fn ask_and_poll(
        &self,
        request: &Request,
        patience: Patience,
        poll: Duration,
    ) -> Result<Answer, ExternalError> {
        let mut answered = within(patience, self.send(&self.url, self.post(request))).await?;
        loop {
            match answered {
                Answered::Now(text) => return read(&text, request),
                Answered::Later(location) => {
                    let (left, late) = patience.next();
                    if left <= poll && matches!(late, ExternalError::Deadline { .. }) {
                        tokio::time::sleep(left).await;
                        return Err(late.after_accepting());
                    }
                    tokio::time::sleep(poll).await;
                    let get = self.client.get(location.clone());
                    let asked = within(patience, self.send(location.as_str(), get)).await;
                    answered = match asked.map_err(ExternalError::after_accepting)? {
                        // A service may give the place once.
                        Answered::Accepted => Answered::Later(location),
                        other => other,
                    };
                }
                Answered::Accepted => {
                    let (url, location) = (self.url.clone(), "none".to_owned());
                    return Err(ExternalError::NoLocation { url, location });
                }
            }
        }
    }

    async fn ask_and_wait(
        &self,
        request: &Request,
        patience: Patience,
        callbacks: &Callbacks,
    ) -> Result<Answer, ExternalError> {
        let mut expected = callbacks.expect(request).map_err(CallbackError::from)?;
        let mut request = request.clone();
        request.callback = Some(expected.url.clone());
        let posted = within(patience, self.send(&self.url, self.post(&request)));
        tokio::pin!(posted);
        // A service may call back before it has said that it will.
        let mut accepted = false;
        loop {
            let (wait, late) = patience.next();
            let said = tokio::select! {
                answered = &mut posted, if !accepted => {
                    match answered? {
                        Answered::Now(text) => return read(&text, &request),
                        Answered::Later(_) | Answered::Accepted => accepted = true,
                    }
                    continue;
                }
                said = tokio::time::timeout(wait, expected.next()) => said,
            };
            match said {
                Ok(Some(Ok(answer))) if answer.is_heartbeat() => {}
                Ok(Some(said)) => return Ok(said?),
                Ok(None) => return Err(ExternalError::Gone),
                Err(_) if accepted => return Err(late.after_accepting()),
                Err(_) => return Err(late),
            }
        }
    }

    async fn send(&self, url: &str, request: RequestBuilder) -> Result<Answered, ExternalError> {
        let unreachable = |source: reqwest::Error| ExternalError::Unreachable {
            url: url.to_owned(),
            source: source.without_url(),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status == StatusCode::ACCEPTED {
            let Some(location) = response.headers().get(LOCATION) else {
                return Ok(Answered::Accepted);
            };
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            let joined = Url::parse(url).and_then(|url| url.join(&location));
            return joined
                .map(Answered::Later)
                .map_err(|_| ExternalError::NoLocation {
                    url: url.to_owned(),
                    location,
                });
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&part);
            if body.len() > MOST_BYTES {
                return Err(AnswerError::TooLong.into());
            }
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(Answered::Now(text));
        }
        Err(ExternalError::Status {
            url: url.to_owned(),
            status: status.as_u16(),
            body: text.chars().take(SHOWN).collect(),
        })
    }
}

/// The answer in a body. One that is said to be another's is a defect of the service; over HTTP it need not be said.
fn read(text: &str, request: &Request) -> Result<Answer, ExternalError> {
    let answer = Answer::read(text)?;
    if answer.correlation_id.is_none() || answer.is_of(request) {
        return Ok(answer);
    }
    let text = text.chars().take(SHOWN).collect();
    let source = serde::de::Error::custom("its correlation_id is that of another request");
    Err(AnswerError::Unreadable { text, source }.into())
}

/// What a service said.
enum Answered {
    /// The answer.
    Now(String),
    /// That it will be there.
    Later(Url),
    /// That there will be one, but not where.
    Accepted,
}

/// A call that must end while the step is waited for.
async fn within<T>(
    patience: Patience,
    call: impl Future<Output = Result<T, ExternalError>>,
) -> Result<T, ExternalError> {
    let (left, late) = patience.next();
    tokio::time::timeout(left, call).await.unwrap_or(Err(late))
}
