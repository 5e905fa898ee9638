//! A Confluent-compatible schema registry: ids of our schemas, and schemas of ids in records of others.
//!
//! Schemas enter, their ids leave, and the other way round; both are asked for once and kept. Subjects are
//! `<topic>-value`. Credentials come from the environment only, so that no process list shows them. What fails: a
//! registry that does not answer within some tries, refuses the credentials, or finds a schema incompatible.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::Unreadable;
use super::published::{Version, parse};
use super::shape::Shape;
use crate::kafka::topics::Topic;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of a request that fails in a way that may pass.
const TRIES: u32 = 5;
/// Wait before the second try; it doubles from try to try.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// How to reach a registry.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// Its address, such as `https://registry:8081`.
    pub url: String,
    /// What proves who asks.
    pub credentials: Credentials,
    /// Whether schemas may only be looked up: someone else registers them.
    pub look_up_only: bool,
}

/// What proves who asks; not shown in messages.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// User and password.
    Basic {
        /// The user, or the name of an API key.
        user: String,
        /// The password, or the key's secret.
        password: String,
    },
    /// A token.
    Bearer {
        /// The token.
        token: String,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::None => "None",
            Credentials::Basic { .. } => "Basic",
            Credentials::Bearer { .. } => "Bearer",
        })
    }
}

/// Why the registry was of no use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The address cannot be one.
    #[error("'{url}' is not the address of a schema registry; it must begin with http:// or https://")]
    Address {
        /// What was given.
        url: String,
    },
    /// The address holds credentials.
    #[error(
        "the address of the schema registry holds a user or password, which process lists show; \
         use WELLSPRING_SCHEMA_REGISTRY_USER and WELLSPRING_SCHEMA_REGISTRY_PASSWORD"
    )]
    CredentialsInAddress,
    /// It did not answer.
    #[error("the schema registry at {url} does not answer: {reason}; check that it is running and reachable")]
    Away {
        /// Where.
        url: String,
        /// The last failure.
        reason: String,
    },
    /// It refused the credentials.
    #[error(
        "the schema registry at {url} refuses access ({status}): {reason}; set WELLSPRING_SCHEMA_REGISTRY_USER and \
         WELLSPRING_SCHEMA_REGISTRY_PASSWORD, or WELLSPRING_SCHEMA_REGISTRY_TOKEN, to an account that may read and \
         register subject {subject}"
    )]
    Access {
        /// Where.
        url: String,
        /// HTTP's status.
        status: u16,
        /// The registry's words.
        reason: String,
        /// What was asked about.
        subject: String,
    },
    /// It finds the schema incompatible with what it has.
    #[error(
        "the schema registry at {url} refuses our schema for subject {subject}: {reason}; look at the subject's \
         versions and its compatibility level"
    )]
    Refused {
        /// Where.
        url: String,
        /// The subject.
        subject: String,
        /// The registry's words.
        reason: String,
    },
    /// The subject lacks the schema and may not be given it.
    #[error(
        "the schema registry at {url} does not have our schema under subject {subject}; \
         register pipeline/schemas/{file}, or leave out --schema-registry-look-up-only"
    )]
    NotRegistered {
        /// Where.
        url: String,
        /// The subject.
        subject: String,
        /// The schema's file.
        file: String,
    },
    /// It has no such schema.
    #[error("the schema registry at {url} has no schema with id {id}")]
    NoSuchId {
        /// Where.
        url: String,
        /// The id.
        id: u32,
    },
    /// It answered something else.
    #[error("the schema registry at {url} answers {status}: {reason}")]
    Answer {
        /// Where.
        url: String,
        /// HTTP's status.
        status: u16,
        /// Its words.
        reason: String,
    },
    /// The thread that asks it is gone.
    #[error("the thread that asks the schema registry could not be started, or has ended")]
    Thread,
}

struct Request {
    method: Method,
    path: String,
    body: Option<String>,
    reply: Sender<Result<(StatusCode, String), RegistryError>>,
}

/// A registry and what is known of it.
#[derive(Debug)]
pub struct Registry {
    settings: RegistrySettings,
    requests: Mutex<Sender<Request>>,
    ids: Mutex<HashMap<Topic, u32>>,
    shapes: Mutex<HashMap<u32, Shape>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error_code: Option<u32>,
    message: Option<String>,
}

impl Registry {
    /// A registry; nothing is asked yet.
    pub fn open(mut settings: RegistrySettings) -> Result<Self, RegistryError> {
        let address = |url: &str| RegistryError::Address { url: url.to_owned() };
        settings.url.truncate(settings.url.trim_end_matches('/').len());
        let parsed = reqwest::Url::parse(&settings.url).map_err(|_| address(&settings.url))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(address(&settings.url));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(RegistryError::CredentialsInAddress);
        }
        let (requests, received) = channel();
        let asker = Asker {
            client: reqwest::Client::builder()
                .timeout(REQUEST_TIMEOUT)
                .build()
                .map_err(|_| RegistryError::Thread)?,
            settings: settings.clone(),
        };
        // A thread and a runtime of its own: records are read and written on threads with and without a runtime.
        std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || asker.run(&received))
            .map_err(|_| RegistryError::Thread)?;
        Ok(Self {
            settings,
            requests: Mutex::new(requests),
            ids: Mutex::default(),
            shapes: Mutex::default(),
        })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.settings.url
    }

    /// Where it has the schema with this id.
    pub fn schema_url(&self, id: u32) -> String {
        format!("{}/schemas/ids/{id}", self.settings.url)
    }

    /// The id of a published schema under `<topic_name>-value`: looked up, and registered where it is missing. Blocks
    /// the first time.
    pub fn id_of(&self, topic: Topic, topic_name: &str, version: &Version) -> Result<u32, RegistryError> {
        // Held while asking, so that a schema is asked for once.
        let mut ids = locked(&self.ids);
        if let Some(id) = ids.get(&topic) {
            return Ok(*id);
        }
        let subject = format!("{topic_name}-value");
        let body = serde_json::json!({ "schema": version.text, "schemaType": "AVRO" }).to_string();
        let path = format!("/subjects/{subject}");
        let (status, text) = self.ask(Method::POST, path.clone(), Some(body.clone()))?;
        let id = match status.as_u16() {
            200 => self.id_in(status, &text)?,
            404 if self.settings.look_up_only => {
                return Err(RegistryError::NotRegistered {
                    url: self.settings.url.clone(),
                    subject,
                    file: format!("{}.v{}.avsc", topic.suffix(), version.number),
                });
            }
            404 => {
                let (status, text) = self.ask(Method::POST, format!("{path}/versions"), Some(body))?;
                match status.as_u16() {
                    200 => self.id_in(status, &text)?,
                    _ => return Err(self.refusal(status, &text, subject)),
                }
            }
            _ => return Err(self.refusal(status, &text, subject)),
        };
        ids.insert(topic, id);
        Ok(id)
    }

    /// How values written with the schema of this id look. Blocks the first time.
    pub(super) fn shape_of(&self, id: u32) -> Result<Shape, Unreadable> {
        if let Some(shape) = locked(&self.shapes).get(&id) {
            return Ok(shape.clone());
        }
        let away = |source| Unreadable::Registry { id, source };
        let (status, text) = self
            .ask(Method::GET, format!("/schemas/ids/{id}"), None)
            .map_err(away)?;
        match status.as_u16() {
            200 => {}
            404 => {
                let url = self.settings.url.clone();
                let source = RegistryError::NoSuchId { url, id }.into();
                return Err(Unreadable::BadId { id, source });
            }
            _ => return Err(away(self.refusal(status, &text, format!("of id {id}")))),
        }
        let shape = serde_json::from_str::<SchemaAnswer>(&text)
            .map_err(Into::into)
            .and_then(|answer| {
                let schema = parse(&answer.schema)?;
                Ok(Shape::of(&schema)?)
            })
            .map_err(|source| Unreadable::BadId { id, source })?;
        locked(&self.shapes).insert(id, shape.clone());
        Ok(shape)
    }

    fn id_in(&self, status: StatusCode, text: &str) -> Result<u32, RegistryError> {
        serde_json::from_str::<IdAnswer>(text)
            .map(|answer| answer.id)
            .map_err(|error| RegistryError::Answer {
                url: self.settings.url.clone(),
                status: status.as_u16(),
                reason: error.to_string(),
            })
    }

    fn refusal(&self, status: StatusCode, text: &str, subject: String) -> RegistryError {
        let url = self.settings.url.clone();
        let answer: Option<ErrorAnswer> = serde_json::from_str(text).ok();
        let code = answer.as_ref().and_then(|answer| answer.error_code);
        let words = answer.and_then(|answer| answer.message);
        let reason: String = words.unwrap_or_else(|| text.chars().take(200).collect());
        match status.as_u16() {
            status @ (401 | 403) => RegistryError::Access {
                url,
                status,
                reason,
                subject,
            },
            409 | 422 => RegistryError::Refused { url, subject, reason },
            status => RegistryError::Answer {
                url,
                status,
                reason: code.map_or(reason.clone(), |code| format!("{reason} (code {code})")),
            },
        }
    }

    fn ask(
        &self,
        method: Method,
        path: String,
        body: Option<String>,
    ) -> Result<(StatusCode, String), RegistryError> {
        let (reply, answer) = channel();
        let request = Request {
            method,
            path,
            body,
            reply,
        };
        locked(&self.requests)
            .send(request)
            .map_err(|_| RegistryError::Thread)?;
        let wait = || answer.recv().unwrap_or(Err(RegistryError::Thread));
        match tokio::runtime::Handle::try_current() {
            // On a thread of the runtime the others take over its tasks meanwhile.
            Ok(runtime) if runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(wait)
            }
            _ => wait(),
        }
    }
}

struct Asker {
    client: reqwest::Client,
    settings: RegistrySettings,
}

impl Asker {
    fn run(&self, requests: &Receiver<Request>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        while let Ok(request) = requests.recv() {
            let answer = match &runtime {
                Ok(runtime) => runtime.block_on(self.answer(&request)),
                Err(_) => Err(RegistryError::Thread),
            };
            // Nobody waits any more: the process ends.
            let _gone = request.reply.send(answer);
        }
    }

    async fn answer(&self, request: &Request) -> Result<(StatusCode, String), RegistryError> {
        let mut wait = FIRST_WAIT;
        let mut tries = 1;
        loop {
            let reason = match self.once(request).await {
                Ok((status, text))
                    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS =>
                {
                    return Ok((status, text));
                }
                Ok((status, _)) => status.to_string(),
                Err(error) => crate::error::chain(&error),
            };
            if tries == TRIES {
                return Err(RegistryError::Away {
                    url: self.settings.url.clone(),
                    reason,
                });
            }
            tracing::warn!(reason, "the schema registry is asked again");
            tokio::time::sleep(wait).await;
            wait *= 2;
            tries += 1;
        }
    }

    async fn once(&self, request: &Request) -> Result<(StatusCode, String), reqwest::Error> {
        let url = format!("{}{}", self.settings.url, request.path);
        let mut built = self
            .client
            .request(request.method.clone(), url)
            .header("accept", CONTENT_TYPE);
        built = match &self.settings.credentials {
            Credentials::None => built,
            Credentials::Basic { user, password } => built.basic_auth(user, Some(password)),
            Credentials::Bearer { token } => built.bearer_auth(token),
        };
        if let Some(body) = &request.body {
            built = built.header("content-type", CONTENT_TYPE).body(body.clone());
        }
        let response = built.send().await?;
        let status = response.status();
        Ok((status, response.text().await?))
    }
}
