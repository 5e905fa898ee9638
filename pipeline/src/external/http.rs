//! A web service as an external step: a request is POSTed as JSON; the answer is the response's body, or, where the
//! service says 202 Accepted, the body of the `Location` it gives, which is asked for until it is there.
//!
//! Requests enter, answers leave. `Idempotency-Key` names the work, so that a service may answer a repeated request
//! from memory. What fails: a service that cannot be reached, answers with an error, or does not answer in time.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{RequestBuilder, StatusCode, Url};

use super::protocol::{Answer, AnswerError, MOST_BYTES, Request};
use super::{ExternalError, Patience};

/// Beginning of a response that messages show, in characters.
const SHOWN: usize = 300;

/// One service.
pub struct Http {
    client: reqwest::Client,
    url: String,
    poll: Duration,
}

impl Http {
    /// A client of the service at `url`; answers that take longer are asked for every `poll`.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn open(url: &str, poll: Duration) -> Result<Self, ExternalError> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            // A redirected POST would arrive as a GET without its body.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let url = url.to_owned();
        match client {
            Ok(client) => Ok(Self { client, url, poll }),
            Err(source) => Err(ExternalError::Unreachable { url, source }),
        }
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// The service cannot be reached, refuses, is late, or does not say what it should.
    pub async fn ask(&self, request: &Request, patience: Patience) -> Result<Answer, ExternalError> {
        let post = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", &request.idempotency_id)
            .body(request.to_line());
        let mut answered = within(patience, self.send(&self.url, post)).await?;
        loop {
            match answered {
                Answered::Now(text) => {
                    let answer = Answer::read(&text)?;
                    // One that is said to be another's is a defect of the service; over HTTP it need not be said.
                    if answer.correlation_id.is_none() || answer.is_of(request) {
                        return Ok(answer);
                    }
                    let text = text.chars().take(SHOWN).collect();
                    let source = serde::de::Error::custom("its correlation_id is that of another request");
                    return Err(AnswerError::Unreadable { text, source }.into());
                }
                Answered::Later(location) => {
                    let (left, late) = patience.next();
                    if left <= self.poll && matches!(late, ExternalError::Deadline { .. }) {
                        tokio::time::sleep(left).await;
                        return Err(late);
                    }
                    tokio::time::sleep(self.poll).await;
                    let get = self.client.get(location.clone());
                    answered = match within(patience, self.send(location.as_str(), get)).await? {
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
