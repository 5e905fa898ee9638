//! `[[steps]]`: what a screen does besides the steps of its tables. A list of tables of the file enters, checked settings
//! leave; every problem is reported.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::graph::{self, StepGraph};
use super::settings::words_of;
use super::table::{Report, Table, Value};
use super::{ScreenProblem, nearest};

/// Most feature columns of one step.
const MOST_COLUMNS: usize = 10_000;

words_of!(
    /// What a step of `[[steps]]` is.
    StepKind {
        /// A program or service outside this one.
        #[default]
        External = "external",
    }
);

/// A step that is done outside this program: asked for every field of view, it answers with numbers, which are feature
/// columns `<name>_<column>` like those of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalStep {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: StepKind,
    /// What it is given: `images`, and other steps by name.
    pub inputs: Vec<String>,
    /// The numbers it answers with, in the order of the feature columns.
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
    /// A web service: a request is POSTed; the answer is the response, or is asked for at the `Location` of a 202.
    Http {
        /// Where requests go.
        url: String,
        /// Between two questions whether the answer is there, in milliseconds. Default 1 s.
        poll_ms: u64,
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
            Self::Http { url, .. } => format!("POST {url}"),
            Self::Topics { requests, responses } => format!("topics {requests} and {responses}"),
        }
    }
}

impl ExternalStep {
    /// The names of its feature columns.
    pub fn feature_names(&self) -> impl Iterator<Item = String> + '_ {
        self.columns
            .iter()
            .map(|column| format!("{}_{column}", self.name))
    }
}

/// A step as read, and where its inputs stand.
struct Read<'a> {
    step: ExternalStep,
    inputs: Vec<Value<'a>>,
    at: Value<'a>,
}

/// Reads the list. `nuclei`: whether the screen counts them. `profiles`: whether it has no fields of view.
pub(super) fn steps(
    report: &mut Report,
    value: Option<Value<'_>>,
    nuclei: bool,
    profiles: bool,
) -> Vec<ExternalStep> {
    let Some(value) = value else {
        return Vec::new();
    };
    let Some(entries) = value.entries() else {
        report.wrong_type(&value, "a list of steps, each under [[steps]]");
        return Vec::new();
    };
    if profiles {
        report.unusable(
            &value,
            "a screen of profiles has no fields of view that a step could work on",
        );
    }
    let read: Vec<Option<Read<'_>>> = entries.into_iter().map(|entry| step(report, entry)).collect();
    let whole = read.iter().all(Option::is_some);
    let read: Vec<Read<'_>> = read.into_iter().flatten().collect();
    for (index, Read { step, at, .. }) in read.iter().enumerate() {
        if graph::is_built_in(&step.name) {
            report.unusable(
                at,
                format!("'{}' is the name of a built-in step: choose another", step.name),
            );
        }
        if read[..index].iter().any(|other| other.step.name == step.name) {
            report.duplicate(at, "steps (name)", &step.name);
        }
    }
    let steps: Vec<ExternalStep> = read.iter().map(|read| read.step.clone()).collect();
    for fault in StepGraph::faults(&steps, nuclei) {
        // Among steps that could not be read may be the one that seems to be missing.
        if !whole && matches!(fault.problem, graph::GraphProblem::Unknown { .. }) {
            continue;
        }
        let Some(read) = read.get(fault.step) else {
            continue;
        };
        let at = fault
            .input
            .and_then(|input| read.inputs.get(input))
            .unwrap_or(&read.at);
        match fault.problem {
            graph::GraphProblem::Unknown { input, known } => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                report.unknown_word(&at.key, &input, at.at, &known);
            }
            problem => report.unusable(at, problem),
        }
    }
    steps
}

fn step<'a>(report: &mut Report, entry: Value<'a>) -> Option<Read<'a>> {
    let mut table = report.table(Some(entry.clone()))?;
    let name_value = table.need(report, "name", "a short name, such as \"spots\"");
    let name = name_value.clone().and_then(|value| identifier(report, value));
    let kind = table.need(report, "kind", "\"external\"");
    let kind = report.word(kind, StepKind::WORDS).and_then(StepKind::from_word);
    let level = table.get("level");
    if let (Some(word), Some(value)) = (report.word(level.clone(), graph::Level::WORDS), &level)
        && word != graph::Level::Field.word()
    {
        report.unusable(
            value,
            "external steps work on fields of view: leave the key out, or write \"field\"",
        );
    }
    let inputs_value = table.get("inputs");
    let input_values = match inputs_value {
        None => Vec::new(),
        Some(value) => match value.entries() {
            Some(entries) if !entries.is_empty() => entries,
            Some(_) => {
                report.unusable(&value, "empty: a step that is given nothing measures nothing");
                Vec::new()
            }
            None => {
                report.wrong_type(&value, "a list of names, such as [\"images\"]");
                Vec::new()
            }
        },
    };
    let mut inputs: Vec<String> = Vec::new();
    for value in &input_values {
        if let Some(input) = report.text(Some(value.clone())) {
            if inputs.contains(&input) {
                report.duplicate(value, "inputs", &input);
            }
            inputs.push(input);
        }
    }
    if inputs.is_empty() {
        inputs.push(graph::IMAGES.to_owned());
    }
    let columns = columns(report, &mut table);
    let remedy = "how long an answer may take, such as \"30s\"";
    let deadline = table.need(report, "deadline", remedy);
    let deadline_ms = report.duration(deadline, 1..=24 * HOUR);
    let attempts = table.get("attempts");
    let attempts = report.count(attempts, 1..=100).unwrap_or(3);
    let backoff = table.get("backoff");
    let backoff_ms = report.duration(backoff, 1..=HOUR).unwrap_or(1_000);
    let heartbeat = table.get("heartbeat");
    let heartbeat_ms = report.duration(heartbeat.clone(), 1..=24 * HOUR);
    if let (Some(value), Some(heartbeat), Some(deadline)) = (&heartbeat, heartbeat_ms, deadline_ms)
        && heartbeat >= deadline
    {
        report.unusable(value, "not below the deadline: it would never be waited for");
    }
    let in_flight = table.get("in_flight");
    let in_flight = report.count(in_flight, 1..=1_024).unwrap_or(2);
    let service = service(report, &mut table);
    let at = name_value.unwrap_or(entry);
    table.finish(report);
    let step = ExternalStep {
        name: name?,
        kind: kind?,
        inputs,
        columns: columns?,
        deadline_ms: deadline_ms?,
        attempts,
        backoff_ms,
        heartbeat_ms,
        in_flight,
        service: service?,
    };
    Some(Read {
        step,
        inputs: input_values,
        at,
    })
}

const HOUR: u64 = 3_600_000;

/// A name that is part of a column's name.
fn identifier(report: &mut Report, value: Value<'_>) -> Option<String> {
    let text = report.text(Some(value.clone()))?;
    let usable = text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if !usable {
        report.unusable(&value, "a name has at most 64 letters, digits, '_', '-' and '.'");
    }
    usable.then_some(text)
}

fn columns(report: &mut Report, table: &mut Table<'_>) -> Option<Vec<String>> {
    let remedy = "the names of the numbers it answers with, such as [\"count\", \"mean_area\"]";
    let value = table.need(report, "columns", remedy)?;
    let Some(entries) = value.entries() else {
        report.wrong_type(&value, "a list of names");
        return None;
    };
    if entries.is_empty() || entries.len() > MOST_COLUMNS {
        report.unusable(
            &value,
            format!("{} names: give 1 to {MOST_COLUMNS}", entries.len()),
        );
        return None;
    }
    let mut columns = Vec::new();
    for entry in &entries {
        let Some(name) = identifier(report, entry.clone()) else {
            continue;
        };
        if columns.contains(&name) {
            report.duplicate(entry, &value.key, &name);
        }
        columns.push(name);
    }
    (columns.len() == entries.len()).then_some(columns)
}

/// The one adapter of the step.
fn service(report: &mut Report, table: &mut Table<'_>) -> Option<Service> {
    let command = table.get("command");
    let url = table.get("url");
    let poll = table.get("poll");
    let requests = table.get("requests");
    let responses = table.get("responses");
    let given: Vec<&Value<'_>> = [&command, &url, &requests].into_iter().flatten().collect();
    if let [_, second, ..] = given.as_slice() {
        report.unusable(
            second,
            "a step is reached in one way: command, url, or requests and responses",
        );
        return None;
    }
    for (value, owner) in [(&poll, &url), (&responses, &requests)] {
        if let (Some(value), None) = (value, owner) {
            let needs = if value.key.ends_with("poll") {
                "url"
            } else {
                "requests"
            };
            report.unusable(value, format!("not used without '{needs}'"));
        }
    }
    if let Some(value) = command {
        let Some(entries) = value.entries() else {
            report.wrong_type(
                &value,
                "a list: the program and its arguments, such as [\"python3\", \"./spots.py\"]",
            );
            return None;
        };
        let count = entries.len();
        let command: Vec<String> = entries
            .into_iter()
            .filter_map(|entry| report.text(Some(entry)))
            .collect();
        if count == 0 {
            report.unusable(&value, "empty: name the program");
        }
        return (count > 0 && command.len() == count).then_some(Service::Command { command });
    }
    if let Some(value) = url {
        let url = report.text(Some(value.clone()))?;
        let usable = ["http://", "https://"].iter().any(|scheme| {
            let rest = url.strip_prefix(scheme).unwrap_or_default();
            !rest.is_empty() && !rest.starts_with('/')
        });
        if !usable || url.contains(char::is_whitespace) {
            report.unusable(&value, "expected http://host/path or https://host/path");
            return None;
        }
        let poll_ms = report.duration(poll, 1..=HOUR).unwrap_or(1_000);
        return Some(Service::Http { url, poll_ms });
    }
    if let Some(value) = requests {
        let topics = [(Some(value.clone()), "requests"), (responses, "responses")];
        let mut names = Vec::new();
        for (topic, key) in topics {
            match topic {
                Some(topic) => names.extend(topic_name(report, topic)),
                None => {
                    let remedy = "the topic on which answers come";
                    let table = "[[steps]]".to_owned();
                    report.add(value.at, ScreenProblem::Missing { table, key, remedy });
                }
            }
        }
        let [requests, responses] = names.try_into().ok()?;
        if requests == responses {
            report.unusable(
                &value,
                "requests and responses are the same topic: give each its own",
            );
            return None;
        }
        return Some(Service::Topics { requests, responses });
    }
    let (table_name, at) = ("[[steps]]".to_owned(), table.at());
    let (key, remedy) = (
        "command",
        "or 'url', or 'requests' and 'responses': how the step is reached",
    );
    report.add(
        at,
        ScreenProblem::Missing {
            table: table_name,
            key,
            remedy,
        },
    );
    None
}

/// A topic's name as Kafka allows it.
fn topic_name(report: &mut Report, value: Value<'_>) -> Option<String> {
    let name = report.text(Some(value.clone()))?;
    let usable = name.len() <= 249
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !usable {
        report.unusable(
            &value,
            "a topic has at most 249 letters, digits, '.', '_' and '-'",
        );
    }
    usable.then_some(name)
}

/// The nearest of the columns a step was to answer with, for messages about an answer.
pub fn nearest_column<'s>(step: &'s ExternalStep, written: &str) -> Option<&'s str> {
    nearest(written, step.columns.iter().map(String::as_str))
}
