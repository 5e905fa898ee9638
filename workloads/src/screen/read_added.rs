//! Reads `[[steps]]`. A list of tables of the file enters, checked settings leave; every problem is reported, also what
//! only the graph of all steps shows.

use super::graph::{self, Level, StepGraph};
use super::steps::{EmbedStep, ExternalStep, Reply, Service, StepKind};
use super::table::{Report, Table, Value};
use super::{EngineChoice, ScreenProblem};

/// Most feature columns of one step.
const MOST_COLUMNS: usize = 10_000;

/// The steps of a file, by kind, each in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    pub(super) networks: Vec<EmbedStep>,
    pub(super) external: Vec<ExternalStep>,
}

/// A step of either kind.
enum Either<'a> {
    Embed(EmbedStep, Value<'a>),
    External(Read<'a>),
}

/// A step as read, and where its inputs stand.
struct Read<'a> {
    step: ExternalStep,
    inputs: Vec<Value<'a>>,
    at: Value<'a>,
}

/// Reads the list. `nuclei`: whether the screen counts them. `profiles`: whether it has no fields of view. `first`: the
/// network of `[model]`. `models`: the names a model may have; none: any.
pub(super) fn steps(
    report: &mut Report,
    value: Option<Value<'_>>,
    nuclei: bool,
    profiles: bool,
    first: &str,
    models: &[&str],
) -> Steps {
    let Some(value) = value else {
        return Steps::default();
    };
    let Some(entries) = value.entries() else {
        report.wrong_type(&value, "a list of steps, each under [[steps]]");
        return Steps::default();
    };
    if profiles {
        report.unusable(
            &value,
            "a screen of profiles has no fields of view that a step could work on, and `wellspring compare` asks no steps",
        );
    }
    let read: Vec<Option<Either<'_>>> = entries
        .into_iter()
        .map(|entry| step(report, entry, models))
        .collect();
    let whole = read.iter().all(Option::is_some);
    let names: Vec<(String, Value<'_>)> = read.iter().flatten().map(Either::name).collect();
    for (index, (name, at)) in names.iter().enumerate() {
        if graph::is_built_in(name) {
            report.unusable(
                at,
                format!("'{name}' is the name of a built-in step: choose another"),
            );
        } else if name == first {
            report.unusable(
                at,
                format!("'{name}' is the network of [model]: choose another name"),
            );
        }
        if names[..index].iter().any(|(other, _)| other == name) {
            report.duplicate(at, "steps (name)", name);
        }
    }
    let mut networks = Vec::new();
    let mut external = Vec::new();
    for step in read.into_iter().flatten() {
        match step {
            Either::Embed(step, _) => networks.push(step),
            Either::External(read) => external.push(read),
        }
    }
    let read = external;
    let steps: Vec<ExternalStep> = read.iter().map(|read| read.step.clone()).collect();
    for fault in StepGraph::faults(&steps, &networks, nuclei) {
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
    Steps {
        networks,
        external: steps,
    }
}

impl<'a> Either<'a> {
    /// Its name, and where that stands.
    fn name(&self) -> (String, Value<'a>) {
        match self {
            Self::Embed(step, at) => (step.name.clone(), at.clone()),
            Self::External(read) => (read.step.name.clone(), read.at.clone()),
        }
    }
}

fn step<'a>(report: &mut Report, entry: Value<'a>, models: &[&str]) -> Option<Either<'a>> {
    let mut table = report.table(Some(entry.clone()))?;
    let name_value = table.need(report, "name", "a short name, such as \"spots\"");
    let name = name_value.clone().and_then(|value| identifier(report, value));
    let kind = table.need(report, "kind", "\"external\" or \"embed\"");
    let kind = report.word(kind, StepKind::WORDS).and_then(StepKind::from_word);
    let at = name_value.unwrap_or(entry);
    if kind == Some(StepKind::Embed) {
        let (model, engine) = embed(report, table, models).unwrap_or_default();
        let name = name?;
        return Some(Either::Embed(EmbedStep { name, model, engine }, at));
    }
    external(report, table, name, kind, at).map(Either::External)
}

/// Model and engine of a network.
fn embed(report: &mut Report, mut table: Table<'_>, models: &[&str]) -> Option<(String, EngineChoice)> {
    let value = table.need(
        report,
        "model",
        "a network's name, as `wellspring models list` shows it",
    );
    let model = report.text(value.clone());
    if let (Some(name), Some(value)) = (&model, &value) {
        super::read::model_name(report, value, name, models);
    }
    let engine = table.get("engine");
    let engine = report
        .word(engine, EngineChoice::WORDS)
        .and_then(EngineChoice::from_word);
    table.finish(report);
    Some((model?, engine.unwrap_or_default()))
}

fn external<'a>(
    report: &mut Report,
    mut table: Table<'a>,
    name: Option<String>,
    kind: Option<StepKind>,
    at: Value<'a>,
) -> Option<Read<'a>> {
    let level = table.get("level");
    let level = report.word(level, Level::WORDS).and_then(Level::from_word);
    let level = level.unwrap_or_default();
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
        inputs.push(graph::usually_given(level).to_owned());
    }
    let columns = columns(report, &mut table, level);
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
    table.finish(report);
    // What could not be read is stood in for, so that what is wrong with the graph is told all the same: a screen with a problem
    // is used for nothing else.
    let step = ExternalStep {
        name: name?,
        kind: kind.unwrap_or(StepKind::External),
        level,
        inputs,
        columns: columns.unwrap_or_else(|| vec!["unread".to_owned()]),
        deadline_ms: deadline_ms.unwrap_or(HOUR),
        attempts,
        backoff_ms,
        heartbeat_ms,
        in_flight,
        service: service.unwrap_or(Service::Command { command: Vec::new() }),
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

fn columns(report: &mut Report, table: &mut Table<'_>, level: Level) -> Option<Vec<String>> {
    if level == Level::Screen {
        if let Some(value) = table.get("columns") {
            report.unusable(
                &value,
                "a step of the screen comes after the comparison, so it has no columns: leave the key out; an object that \
                 it answers with is kept beside the results",
            );
        }
        return Some(Vec::new());
    }
    let remedy = match level {
        Level::Plate => {
            "the names of the numbers it answers with for each well, or [] where it only takes note"
        }
        _ => "the names of the numbers it answers with, such as [\"count\", \"mean_area\"]",
    };
    let value = table.need(report, "columns", remedy)?;
    let Some(entries) = value.entries() else {
        report.wrong_type(&value, "a list of names");
        return None;
    };
    let least = usize::from(level != Level::Plate);
    if !(least..=MOST_COLUMNS).contains(&entries.len()) {
        report.unusable(
            &value,
            format!("{} names: give {least} to {MOST_COLUMNS}", entries.len()),
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
    let reply = table.get("reply");
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
    for (value, owner, needs) in [
        (&poll, &url, "url"),
        (&reply, &url, "url"),
        (&responses, &requests, "requests"),
    ] {
        if let (Some(value), None) = (value, owner) {
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
        if let Some(problem) = of_host(&url) {
            report.unusable(&value, problem);
            return None;
        }
        let reply = report.word(reply, Reply::WORDS).and_then(Reply::from_word);
        let reply = reply.unwrap_or_default();
        if let (Some(value), Reply::Callback) = (&poll, reply) {
            report.unusable(
                value,
                "not used with reply = \"callback\": the service says when it is done",
            );
        }
        let poll_ms = report.duration(poll, 1..=HOUR).unwrap_or(1_000);
        return Some(Service::Http { url, poll_ms, reply });
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

/// What is wrong with the part of an address between scheme and path.
fn of_host(url: &str) -> Option<&'static str> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    if host.contains('@') {
        return Some(
            "an address is shown wherever the step is named, so it must hold no user and no password: put the service behind \
             a proxy that adds them, or let it know its callers by their network",
        );
    }
    // An address of IPv6 has colons of its own, in brackets.
    let port = host.rsplit_once(']').map_or(host, |(_, port)| port);
    let (_, port) = port.rsplit_once(':')?;
    match port.parse() {
        Ok(1..=u16::MAX) => None,
        _ => Some("a port is a number from 1 to 65535"),
    }
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
    if name.starts_with("wellspring.") {
        report.unusable(
            &value,
            "topics that begin with 'wellspring.' are this program's own: give the step one of its own",
        );
        return None;
    }
    usable.then_some(name)
}
