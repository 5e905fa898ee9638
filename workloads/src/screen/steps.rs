//! `[[steps]]`: what a screen does besides the steps of its tables, in its checked form. Plain data; reading is in
//! `read_added.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::graph::Level;
use super::settings::words_of;
use super::{EngineChoice, nearest};

words_of!(
    /// What a step of `[[steps]]` is.
    StepKind {
        /// A program or service outside this one.
        #[default]
        External = "external",
        /// A network beside that of `[model]`.
        Embed = "embed",
    }
);

words_of!(
    /// How a web service that says 202 gives its answer.
    Reply {
        /// It is asked for.
        #[default]
        Poll = "poll",
        /// The service POSTs it.
        Callback = "callback",
    }
);

impl Reply {
    fn is_poll(&self) -> bool {
        *self == Self::Poll
    }
}

/// A network beside that of `[model]`: it sees the same images in the same pass, and its embedding becomes feature columns
/// `<name>_<i>` behind the first one's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedStep {
    /// Its name.
    pub name: String,
    /// A model card's name.
    pub model: String,
    /// Which engine runs it.
    pub engine: EngineChoice,
}

/// A step that is done outside this program. Asked for every field of view, every well or every plate it answers with
/// numbers, which are feature columns `<name>_<column>` like those of the network; of a plate it may only take note, and of
/// the screen it takes note or answers with an object that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalStep {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: StepKind,
    /// What it is asked for one of. Default field.
    #[serde(default, skip_serializing_if = "Level::is_field")]
    pub level: Level,
    /// What it is given: steps by name.
    pub inputs: Vec<String>,
    /// The numbers it answers with, in the order of the feature columns; none where it only takes note.
    pub columns: Vec<String>,
    /// How long one answer may take, in milliseconds.
    pub deadline_ms: u64,
    /// How often a field is asked for before its failure goes to the retries topic. Default 3.
    pub attempts: u32,
    /// Wait before the second attempt in milliseconds, doubled for each further one. Default 1 s.
    pub backoff_ms: u64,
    /// How long nothing may be heard of a request: an answer, or a sign that it is worked on. `None`: as long as the
    /// deadline allows.
    pub heartbeat_ms: Option<u64>,
    /// Requests that wait for an answer at once, per worker; of a command, its processes. Default 2.
    pub in_flight: u32,
    /// How it is reached.
    pub service: Service,
}

/// How an external step is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// A program on the worker: requests as lines of JSON on its standard input, answers on its standard output.
    Command {
        /// Program and arguments. Those that begin with `./` or `../` are relative to the screen file until
        /// [`crate::screen::Screen::resolve_paths`].
        command: Vec<String>,
    },
    /// A web service: a request is POSTed; the answer is the response, or, after a 202, is asked for at its `Location` or
    /// POSTed to the request's `callback`.
    Http {
        /// Where requests go.
        url: String,
        /// Between two questions whether the answer is there, in milliseconds. Default 1 s.
        poll_ms: u64,
        /// Whose turn it is after a 202. Default poll.
        #[serde(default, skip_serializing_if = "Reply::is_poll")]
        reply: Reply,
    },
    /// A pair of Kafka topics with JSON records.
    Topics {
        /// Where requests go.
        requests: String,
        /// Where answers are looked for.
        responses: String,
    },
}

impl Service {
    /// The adapter in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Command { command } => format!("command {}", command.join(" ")),
            Self::Http {
                url,
                reply: Reply::Callback,
                ..
            } => format!("POST {url}, which calls back"),
            Self::Http { url, .. } => format!("POST {url}"),
            Self::Topics { requests, responses } => format!("topics {requests} and {responses}"),
        }
    }
}

impl ExternalStep {
    /// The step without how long and how often it is asked, which changes none of its answers.
    pub fn without_patience(&self) -> Self {
        let mut step = Self {
            deadline_ms: 0,
            attempts: 0,
            backoff_ms: 0,
            heartbeat_ms: None,
            in_flight: 0,
            ..self.clone()
        };
        if let Service::Http { poll_ms, reply, .. } = &mut step.service {
            (*poll_ms, *reply) = (0, Reply::default());
        }
        step
    }

    /// The names of its feature columns.
    pub fn feature_names(&self) -> impl Iterator<Item = String> + '_ {
        self.columns
            .iter()
            .map(|column| format!("{}_{column}", self.name))
    }
}

/// The nearest of the columns a step was to answer with, for messages about an answer.
pub fn nearest_column<'s>(step: &'s ExternalStep, written: &str) -> Option<&'s str> {
    nearest(written, step.columns.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_step_is_waited_for_is_told_from_what_it_answers() {
        let step = |patience: &str, url: &str, reply: &str, column: &str| -> ExternalStep {
            let text = format!(
                r#"{{"name": "spots", "kind": "external", "inputs": ["images"], "columns": ["{column}"],
                    {patience}, "service": {{"http": {{"url": "{url}", {reply}}}}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let short =
            r#""deadline_ms": 1000, "attempts": 1, "backoff_ms": 1, "heartbeat_ms": null, "in_flight": 1"#;
        let long =
            r#""deadline_ms": 9000, "attempts": 3, "backoff_ms": 5, "heartbeat_ms": 7, "in_flight": 9"#;
        let one = step(short, "http://a/", r#""poll_ms": 1000"#, "n");
        let other = step(long, "http://a/", r#""poll_ms": 5, "reply": "callback""#, "n");
        assert_ne!(one, other);
        assert_eq!(one.without_patience(), other.without_patience());
        for other in [
            step(short, "http://b/", r#""poll_ms": 1000"#, "n"),
            step(short, "http://a/", r#""poll_ms": 1000"#, "m"),
        ] {
            assert_ne!(one.without_patience(), other.without_patience());
        }
    }
}
