//! `wellspring plan`: what a screen amounts to, as text and as a graph of its steps.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use wellspring_workloads::screen::graph::StepGraph;

use super::{common, say};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring plan screen.toml\n  wellspring plan screen.toml --graph\n\n\
                  The second part of the graph is Mermaid, which many editors and wikis draw."
)]
pub(crate) struct Args {
    /// The screen file.
    #[arg(value_name = "SCREEN.toml")]
    screen: PathBuf,
    /// Print the graph of steps: each with its level, its inputs and what it waits for; then the same as Mermaid.
    #[arg(long)]
    graph: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let screen = common::read_screen(&args.screen)?;
    let graph = StepGraph::of(&screen)?;
    if args.json {
        let steps: Vec<_> = graph
            .steps()
            .iter()
            .map(|step| {
                json!({
                    "name": step.name, "level": step.level, "inputs": step.inputs, "about": step.about,
                    "topic": step.topic.map(|(topic, _)| topic), "key": step.topic.map(|(_, key)| key),
                    "external": step.external.is_some(),
                })
            })
            .collect();
        say::line(json!({ "screen": screen.name, "steps": steps, "mermaid": graph.mermaid() }));
    } else if args.graph {
        say::line(format_args!(
            "Steps of {}\n{}\n{}",
            screen.name,
            graph.text(),
            graph.mermaid().trim_end()
        ));
    } else {
        say::line(screen.plan_text());
    }
    Ok(ExitCode::SUCCESS)
}
