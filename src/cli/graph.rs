//! `thalweg graph show|draw|summary`: a graph as text, as a picture for Graphviz, Mermaid or a browser, or as a table of its layers.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use thalweg::Cluster;
use thalweg::graph::passes::{STANDARD, run_passes, select_program};
use thalweg::graph::{Graph, draw};
use thalweg::kit::{self, NAMES};
use thalweg::runtime::Session;

use super::digits_model;
use thalweg::Precision;

/// `thalweg graph`.
#[derive(Args)]
pub(crate) struct GraphCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print it as text, which parses back.
    Show(Which),
    /// Print it as a picture.
    Draw {
        #[command(flatten)]
        which: Which,
        /// The language of the picture.
        #[arg(long, value_enum, default_value_t = Format::Dot)]
        format: Format,
    },
    /// Print a program layer by layer: shapes, parameters, operations, bytes, memory.
    Summary {
        #[command(flatten)]
        which: Which,
        /// Values of named dimensions: `--bind batch=64`.
        #[arg(long, value_parser = super::plan::binding)]
        bind: Vec<(String, u64)>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Graphviz; scopes are clusters.
    Dot,
    /// A Mermaid flowchart.
    Mermaid,
    /// A page to look into: one file, no network.
    Html,
}

/// Which graph, and how much of it.
#[derive(Args)]
pub(crate) struct Which {
    /// A file of graph text, as `show` prints it; the demo's model if left out.
    file: Option<PathBuf>,
    /// A model of the kit instead: `gpt_train`.
    #[arg(long, conflicts_with = "file")]
    model: Option<String>,
    /// Only what this program needs.
    #[arg(long)]
    program: Option<String>,
    /// After expansion into primitives; needs --program.
    #[arg(long, requires = "program")]
    primitives: bool,
}

impl Which {
    pub(crate) fn load(&self) -> anyhow::Result<Graph> {
        let graph = match (&self.file, &self.model) {
            (_, Some(name)) => {
                let case = kit::Case::open(name, &Cluster::local(), None)?;
                let mut case =
                    case.with_context(|| format!("there is no model `{name}`; there are {}", NAMES.join(", ")))?;
                case.model().graph().clone()
            }
            (None, None) => digits_model(0, Precision::Declared).finish().map_err(thalweg::Error::from)?,
            (Some(path), None) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                let parsed = Graph::parse(&text, &thalweg::ops::registry());
                parsed.with_context(|| format!("{} is no graph", path.display()))?
            }
        };
        let Some(name) = &self.program else { return Ok(graph) };
        let names: Vec<&str> = graph.programs.iter().map(|p| &*p.name).collect();
        let missing = || format!("there is no program `{name}`: {}", thalweg::graph::Builder::suggest(name, &names));
        let alone = select_program(&graph, name).with_context(missing)?;
        Ok(if self.primitives { run_passes(&alone, STANDARD, &mut |_, _| {}) } else { alone })
    }
}

impl GraphCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Show(which) => write!(std::io::stdout(), "{}", which.load()?)?,
            Verb::Draw { which, format } => {
                let (graph, program) = (which.load()?, which.program.as_deref());
                let picture = match format {
                    Format::Dot => draw::dot(&graph, program),
                    Format::Mermaid => draw::mermaid(&graph, program),
                    Format::Html => draw::html(&graph, program),
                };
                std::io::stdout().write_all(picture.as_bytes())?;
            }
            Verb::Summary { which, bind, json } => {
                let graph = which.load()?;
                let program = which.program.clone().or_else(|| graph.programs.first().map(|p| p.name.to_string()));
                let program = program.context("a graph without programs")?;
                let bindings = bind.iter().map(|(n, v)| (n.as_str().into(), *v)).collect();
                let device = thalweg::open_device(&Cluster::local().devices[0])?;
                let summary = Session::new(graph, device)?.summary(&program, &bindings)?;
                match json {
                    true => writeln!(std::io::stdout(), "{}", serde_json::to_string(&summary)?)?,
                    false => write!(std::io::stdout(), "{summary}")?,
                }
            }
        }
        Ok(())
    }
}
