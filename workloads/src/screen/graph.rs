//! The graph of a screen's steps: which there are, what each needs, and at which level it works.
//!
//! The tables of a checked screen and its `[[steps]]` enter; steps in an order in which each comes after its inputs leave.
//! An input of a finer level waits for all of it: all fields of a well, all wells of a plate, all plates of the screen.
//! A run takes from here which steps are outside it, in which order they are asked, and which columns its features have.
//! What fails: an input that no step makes, one of a coarser level, a cycle.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::settings::words_of;
use super::steps::{EmbedStep, ExternalStep};
use super::{Align, Normalise, Scaling, Screen};

/// The images of a field of view.
pub const IMAGES: &str = "images";
/// Quality measures per channel.
pub const QUALITY: &str = "quality";
/// The count of nuclei.
pub const NUCLEI: &str = "nuclei";
/// The network's embedding.
pub const EMBED: &str = "embed";
/// The record of a field that all its columns are joined in.
pub const FEATURES: &str = "features";

/// What each well was given.
pub const PLATE_MAP: &str = "plate_map";
/// The profiles of wells.
pub const AGGREGATE: &str = "aggregate";
/// What the comparison found.
pub const COMPARE: &str = "compare";
/// The result files.
pub const EXPORT: &str = "export";

/// What an external step may be given besides other steps of `[[steps]]`.
fn given(level: Level) -> &'static [&'static str] {
    match level {
        Level::Field => &[IMAGES, QUALITY, NUCLEI, EMBED],
        Level::Well => &[AGGREGATE, IMAGES, PLATE_MAP],
        Level::Plate => &[AGGREGATE, PLATE_MAP],
        Level::Screen => &[EXPORT, COMPARE, AGGREGATE],
    }
}

/// What an external step is given where the file does not say.
pub(super) fn usually_given(level: Level) -> &'static str {
    given(level).first().copied().unwrap_or(IMAGES)
}

/// Built-in steps and what they start from: name, level.
const BUILT_IN: [(&str, Level); 15] = [
    (PLATE_MAP, Level::Screen),
    (IMAGES, Level::Field),
    ("illumination", Level::Field),
    ("preprocess", Level::Field),
    (QUALITY, Level::Field),
    (NUCLEI, Level::Field),
    (EMBED, Level::Field),
    (FEATURES, Level::Field),
    ("gate", Level::Well),
    (AGGREGATE, Level::Well),
    ("normalise", Level::Plate),
    ("monitor", Level::Screen),
    ("align", Level::Screen),
    (COMPARE, Level::Screen),
    (EXPORT, Level::Screen),
];

words_of!(
    /// What a step works on one of.
    #[derive(PartialOrd, Ord)]
    Level {
        /// A field of view.
        #[default]
        Field = "field",
        /// A well.
        Well = "well",
        /// A plate.
        Plate = "plate",
        /// The screen.
        Screen = "screen",
    }
);

impl Level {
    /// Whether it is the usual one, which is not written.
    pub fn is_field(&self) -> bool {
        *self == Self::Field
    }
}

/// Whether a name is that of a built-in step.
pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|(built_in, _)| *built_in == name)
}

/// A step of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name, and that of what it makes.
    pub name: String,
    /// What it works on one of.
    pub level: Level,
    /// Names of the steps whose output it takes.
    pub inputs: Vec<String>,
    /// What it does, for people.
    pub about: String,
    /// The topic its output is published on, with the key of its records; `None`: it stays in the process.
    pub topic: Option<(&'static str, &'static str)>,
    /// Its place in `[[steps]]`, where it is one of them.
    pub external: Option<usize>,
}

/// Why the steps make no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphProblem {
    /// No step has this name.
    #[error("no step is called '{input}': known are {}", known.join(", "))]
    Unknown {
        /// The name.
        input: String,
        /// What the step could be given.
        known: Vec<String>,
    },
    /// The screen does not have this step.
    #[error("'{input}' is not made: the screen has no table [{input}]")]
    Absent {
        /// The step.
        input: String,
    },
    /// The input is made later, of many of what the step works on.
    #[error(
        "'{input}' is made once per {level}, after all its {of}s: a step that works on {of}s cannot wait for it"
    )]
    Level {
        /// The step.
        input: String,
        /// Its level.
        level: Level,
        /// The level of the step that would take it.
        of: Level,
    },
    /// Steps of this level are not given it.
    #[error("a step that works on {} is given {} and other steps, not '{input}'", match of { Level::Screen => "the screen".to_owned(), of => format!("{of}s") }, given(*of).join(", "))]
    NotGiven {
        /// What was asked for.
        input: String,
        /// The level of the step.
        of: Level,
    },
    /// The input does not leave the worker.
    #[error("'{input}' stays in the worker's memory: take 'images'")]
    Inside {
        /// The step.
        input: String,
    },
    /// A step waits for itself.
    #[error("a cycle: {} waits for itself", path.join(" <- "))]
    Cycle {
        /// The steps, from one to itself.
        path: Vec<String>,
    },
}

/// A problem with its place in `[[steps]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Index of the step.
    pub step: usize,
    /// Index of the input, where it is about one.
    pub input: Option<usize>,
    /// What is wrong.
    pub problem: GraphProblem,
}

/// The steps of a screen, each after those it takes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepGraph {
    steps: Vec<Step>,
}

impl StepGraph {
    /// The graph of a screen.
    ///
    /// # Errors
    /// The first of [`StepGraph::faults`]; a screen that was read from a file has none.
    pub fn of(screen: &Screen) -> Result<Self, GraphProblem> {
        if let Some(fault) = Self::faults(&screen.steps, &screen.networks, screen.nuclei.is_some())
            .into_iter()
            .next()
        {
            return Err(fault.problem);
        }
        let steps = order(built(screen)).map_err(|path| GraphProblem::Cycle { path })?;
        Ok(Self { steps })
    }

    /// Everything wrong with the inputs of `[[steps]]`.
    pub fn faults(steps: &[ExternalStep], networks: &[EmbedStep], nuclei: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            for (at, input) in step.inputs.iter().enumerate() {
                let problem = fault_of(step, input, steps, networks, nuclei);
                faults.extend(problem.map(|problem| Fault {
                    step: index,
                    input: Some(at),
                    problem,
                }));
            }
        }
        // What is told of an input of a coarser level is not told again as a cycle.
        let nodes = steps.iter().enumerate().map(|(index, step)| {
            let coarser = |input: &String| {
                let other = steps.iter().find(|other| other.name == *input);
                other.is_some_and(|other| other.level > step.level)
            };
            let mut node = external(index, step);
            node.inputs.retain(|input| !coarser(input));
            node
        });
        if let Err(path) = order(nodes.collect())
            && let Some(step) = steps.iter().position(|step| Some(&step.name) == path.first())
        {
            let input = path
                .get(1)
                .and_then(|next| steps[step].inputs.iter().position(|name| name == next));
            let problem = GraphProblem::Cycle { path };
            faults.push(Fault { step, input, problem });
        }
        faults
    }

    /// The steps, each after those it takes from.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Places in `[[steps]]` of the external steps of a level, in the order in which they are asked.
    pub fn externals(&self, level: Level) -> impl Iterator<Item = usize> + '_ {
        let of_level = self.steps.iter().filter(move |step| step.level == level);
        of_level.filter_map(|step| step.external)
    }

    /// The graph as text, a line for each step.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let inputs: Vec<String> = step
                .inputs
                .iter()
                .map(|input| match self.fan_in(step, input) {
                    Some(all) => format!("{input} ({all})"),
                    None => input.clone(),
                })
                .collect();
            let from = if inputs.is_empty() {
                String::new()
            } else {
                format!("<- {}", inputs.join(", "))
            };
            let topic = step
                .topic
                .map_or(String::new(), |(topic, key)| format!("; topic {topic}, by {key}"));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  {:<14} {:<7} {}{topic}",
                step.name, step.level, step.about
            );
            if !from.is_empty() {
                let _ = writeln!(text, "  {:<22} {from}", "");
            }
        }
        text
    }

    /// The graph as a Mermaid flow chart.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        let number = |name: &str| self.steps.iter().position(|step| step.name == name);
        for (index, step) in self.steps.iter().enumerate() {
            let shape = match (step.inputs.is_empty(), step.external) {
                (true, _) => ("[(", ")]"),
                (_, Some(_)) => ("[[", "]]"),
                _ => ("[", "]"),
            };
            let _ = writeln!(
                text,
                "  s{index}{}\"{}<br/>{}\"{}",
                shape.0, step.name, step.level, shape.1
            );
            for input in &step.inputs {
                let Some(from) = number(input) else { continue };
                let label = self
                    .fan_in(step, input)
                    .map_or(String::new(), |all| format!("|{all}|"));
                let _ = writeln!(text, "  s{from} -->{label} s{index}");
            }
        }
        text
    }

    /// What a step waits for, where its input is of a finer level.
    fn fan_in(&self, step: &Step, input: &str) -> Option<String> {
        let from = self.steps.iter().find(|other| other.name == input)?;
        let all = |what: &str| format!("all {what} of {}", article(step.level));
        match (from.level, step.level) {
            (finer, coarser) if finer >= coarser => None,
            (Level::Field, _) => Some(all("fields")),
            (Level::Well, _) => Some(all("wells")),
            (_, _) => Some(all("plates")),
        }
    }
}

fn article(level: Level) -> &'static str {
    match level {
        Level::Field => "a field",
        Level::Well => "a well",
        Level::Plate => "a plate",
        Level::Screen => "the screen",
    }
}

/// Why an external step cannot be given this.
fn fault_of(
    step: &ExternalStep,
    input: &str,
    steps: &[ExternalStep],
    networks: &[EmbedStep],
    nuclei: bool,
) -> Option<GraphProblem> {
    let (name, of) = (input.to_owned(), step.level);
    if let Some(other) = steps.iter().find(|other| other.name == input) {
        let level = other.level;
        return (level > of).then_some(GraphProblem::Level {
            input: name,
            level,
            of,
        });
    }
    let not_given = |input| Some(GraphProblem::NotGiven { input, of });
    if networks.iter().any(|network| network.name == input) {
        return if of == Level::Field { None } else { not_given(name) };
    }
    let is_given = given(of).contains(&input);
    if is_given && input == NUCLEI && !nuclei {
        return Some(GraphProblem::Absent { input: name });
    }
    if is_given {
        return None;
    }
    if input == FEATURES && of == Level::Field {
        let path = vec![name.clone(), "every step of a field".to_owned(), name];
        return Some(GraphProblem::Cycle { path });
    }
    match BUILT_IN.iter().find(|(built_in, _)| *built_in == input) {
        Some((_, level)) if *level > of && input != PLATE_MAP => Some(GraphProblem::Level {
            input: name,
            level: *level,
            of,
        }),
        Some((_, Level::Field)) if of == Level::Field => Some(GraphProblem::Inside { input: name }),
        Some(_) => not_given(name),
        None => {
            let built_in = given(of).iter().filter(|name| nuclei || **name != NUCLEI);
            let networks = networks.iter().filter(|_| of == Level::Field);
            let steps = steps.iter().filter(|other| other.level <= of);
            let known = built_in
                .map(|name| (*name).to_owned())
                .chain(networks.map(|step| step.name.clone()))
                .chain(steps.map(|step| step.name.clone()))
                .collect();
            Some(GraphProblem::Unknown { input: name, known })
        }
    }
}

fn external(index: usize, step: &ExternalStep) -> Step {
    Step {
        name: step.name.clone(),
        level: step.level,
        inputs: step.inputs.clone(),
        about: format!(
            "external, {}{}; an answer within {} s, {} attempts",
            step.service.describe(),
            if step.columns.is_empty() {
                ", which acknowledges"
            } else {
                ""
            },
            step.deadline_ms as f64 / 1e3,
            step.attempts
        ),
        topic: None,
        external: Some(index),
    }
}

/// The steps that a screen's tables and its `[[steps]]` amount to, in no order.
fn built(screen: &Screen) -> Vec<Step> {
    let step = |name: &str, inputs: &[&str], about: &str| {
        let level = BUILT_IN.iter().find(|(built_in, _)| *built_in == name);
        Step {
            name: name.to_owned(),
            level: level.map_or(Level::Screen, |(_, level)| *level),
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            about: about.to_owned(),
            topic: None,
            external: None,
        }
    };
    let on = |topic, key, step: Step| Step {
        topic: Some((topic, key)),
        ..step
    };
    let mut steps = vec![step(PLATE_MAP, &[], "what each well was given")];
    let profiles = AGGREGATE;
    if screen.is_of_profiles() {
        steps.push(Step {
            inputs: Vec::new(),
            ..step(profiles, &[], "profiles made elsewhere")
        });
    } else {
        steps.push(on(
            "tasks",
            "plate and well",
            step(IMAGES, &[], "files of a field, from the store"),
        ));
        let settings = &screen.preprocess;
        let lit = match (&settings.illumination, &settings.dark_field) {
            (None, None) => None,
            (Some(_), None) => Some("divided by the illumination function"),
            (None, Some(_)) => Some("less the dark-field"),
            (Some(_), Some(_)) => Some("less the dark-field, divided by the illumination function"),
        };
        let pixels = lit.map_or(IMAGES, |_| "illumination");
        if let Some(what) = lit {
            steps.push(step("illumination", &[IMAGES], what));
        }
        let scaled_by_controls = matches!(screen.preprocess.scaling, Scaling::Controls { .. });
        let from: &[&str] = if scaled_by_controls {
            &[pixels, PLATE_MAP]
        } else {
            &[pixels]
        };
        steps.push(step("preprocess", from, "background, size, scaling, tiles"));
        steps.push(step(QUALITY, &[IMAGES], "measures and flags"));
        if let Some(nuclei) = &screen.nuclei {
            steps.push(step(NUCLEI, &[IMAGES], &format!("counted in {}", nuclei.channel)));
        }
        steps.push(step(EMBED, &["preprocess"], &screen.model.name));
        let networks = screen.networks.iter();
        steps.extend(networks.map(|network| Step {
            level: Level::Field,
            ..step(&network.name, &["preprocess"], &network.model)
        }));
        let externals = screen.steps.iter().enumerate();
        steps.extend(externals.map(|(index, step)| external(index, step)));
        let mut joined = vec![QUALITY, EMBED];
        joined.extend(screen.nuclei.as_ref().map(|_| NUCLEI));
        joined.extend(screen.networks.iter().map(|step| step.name.as_str()));
        let of_fields = screen.steps.iter().filter(|step| step.level == Level::Field);
        joined.extend(of_fields.map(|step| step.name.as_str()));
        steps.push(on(
            "features",
            "plate",
            step(FEATURES, &joined, "all columns of a field, joined"),
        ));
        steps.push(step("gate", &[FEATURES], "which fields, wells and plates count"));
        let about = "profiles of wells";
        steps.push(on(
            "profiles",
            "plate",
            step(profiles, &[FEATURES, "gate", PLATE_MAP], about),
        ));
    }
    // A profile is whole with the columns of the steps that were asked for it.
    let mut whole = vec![profiles];
    whole.extend(screen.steps.iter().filter_map(|step| {
        let joins = matches!(step.level, Level::Well | Level::Plate) && !step.columns.is_empty();
        joins.then_some(step.name.as_str())
    }));
    let mut last = whole.clone();
    if screen.comparison.normalise != Normalise::None {
        steps.push(step("normalise", &last, "scaled per plate"));
        last = vec!["normalise"];
    }
    if screen.monitor.enabled {
        steps.push(step("monitor", &whole, "drift of the controls"));
    }
    if screen.comparison.align != Align::None {
        steps.push(step("align", &last, "what plates have in common"));
        last = vec!["align"];
    }
    let mut compared = last;
    compared.extend(screen.monitor.enabled.then_some("monitor"));
    steps.push(on(
        "comparisons",
        "compound",
        step(COMPARE, &compared, "treatments with controls"),
    ));
    let mut exported = vec![COMPARE];
    exported.extend(whole);
    steps.push(step(EXPORT, &exported, "tables and report"));
    steps
}

/// Each step after those it takes from, otherwise as they stand; or a cycle, from a step to itself.
fn order(mut steps: Vec<Step>) -> Result<Vec<Step>, Vec<String>> {
    let mut ordered: Vec<Step> = Vec::with_capacity(steps.len());
    while !steps.is_empty() {
        let waits = |step: &Step| {
            step.inputs
                .iter()
                .any(|input| steps.iter().any(|other| other.name == *input))
        };
        match steps.iter().position(|step| !waits(step)) {
            Some(ready) => ordered.push(steps.remove(ready)),
            None => return Err(cycle(&steps)),
        }
    }
    Ok(ordered)
}

/// Among steps of which each waits for another: a way from one back to itself.
fn cycle(steps: &[Step]) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut at = steps.first();
    while let Some(step) = at {
        if let Some(start) = path.iter().position(|name| *name == step.name) {
            let mut path: Vec<String> = path.split_off(start).into_iter().map(str::to_owned).collect();
            path.push(step.name.clone());
            return path;
        }
        path.push(&step.name);
        at = steps.iter().find(|other| step.inputs.contains(&other.name));
    }
    path.into_iter().map(str::to_owned).collect()
}
