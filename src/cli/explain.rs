//! `thalweg explain`: what a step is predicted to take and why, launch by launch; with `--analyze`, beside what it takes.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use thalweg::graph::Bindings;
use thalweg::graph::draw::{plan_dot, plan_mermaid, plan_svg};
use thalweg::graph::explain::Explanation;
use thalweg::graph::plan::Plan;
use thalweg::kit::{Case, NAMES};
use thalweg::prelude::*;

use super::digits_model;
use super::place::Where;

/// `thalweg explain`.
#[derive(Args)]
pub(crate) struct Explain {
    /// Which model: the demo's, `digits`, or a case of the kit.
    #[arg(long, default_value = "digits")]
    model: String,
    #[command(flatten)]
    place: Where,
    /// Which program; the model's first, or the case's own.
    #[arg(long)]
    program: Option<String>,
    /// Values of named dimensions: `--bind batch=64`.
    #[arg(long, value_parser = super::plan::binding)]
    bind: Vec<(String, u64)>,
    /// Run steps as well, and print predicted beside measured, what is furthest off first.
    #[arg(long)]
    analyze: bool,
    /// Steps that are measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// List every launch.
    #[arg(long)]
    all: bool,
    /// Draw the plan over its devices: `.svg`, `.dot` (Graphviz) or `.mmd` (Mermaid).
    #[arg(long, value_name = "FILE")]
    draw: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is explained, with what it is fed.
enum Subject {
    Digits { model: Box<Model>, batch: usize },
    Case(Box<Case>),
}

impl Explain {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        // Before anything is computed in vain.
        let draw = self.draw.as_deref().map(Picture::of).transpose()?;
        let cluster = self.place.known_cluster()?;
        let (mut subject, program, bindings) = self.subject()?;
        let (plan, mut explanation) = thalweg::explain::explain(subject.model(), &program, &bindings, &cluster)?;
        if self.analyze {
            subject.measure(&program, usize::from(self.steps), &mut explanation)?;
        }
        if let (Some(path), Some(picture)) = (&self.draw, draw) {
            let text = picture.draw(&plan, &explanation);
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("drawn in {}", path.display());
        }
        let mut out = std::io::stdout().lock();
        if let Some(choice) = subject.model().spread().and_then(|s| s.choice.as_ref()).filter(|_| !self.json) {
            writeln!(out, "{choice}")?;
        }
        match (self.json, self.all) {
            (true, _) => writeln!(out, "{}", serde_json::to_string(&explanation)?)?,
            (_, true) => write!(out, "{explanation:#}")?,
            _ => write!(out, "{explanation}")?,
        }
        Ok(())
    }

    /// The model, its program and the extents that are spoken of.
    fn subject(&self) -> anyhow::Result<(Subject, String, Bindings)> {
        let mut bindings: Bindings = self.bind.iter().map(|(n, v)| (n.as_str().into(), *v)).collect();
        if self.model == "digits" {
            let graph = digits_model(0, Precision::Declared);
            let model = Box::new(self.place.compile(&graph)?);
            let batch = *bindings.entry("batch".into()).or_insert(64) as usize;
            let program = self.program.clone().unwrap_or_else(|| "train".into());
            return Ok((Subject::Digits { model, batch }, program, bindings));
        }
        let (cluster, strategy) = (self.place.cluster()?, self.place.strategy());
        let Some(case) = Case::open(&self.model, &cluster, strategy.as_ref())? else {
            anyhow::bail!("there is no model `{}`; there are digits, {}", self.model, NAMES.join(", "));
        };
        if bindings.is_empty() {
            bindings = case.bindings();
        }
        let program = self.program.clone().unwrap_or_else(|| case.program().into());
        if self.analyze && program != case.program() {
            anyhow::bail!("{} is fed for `{}` alone: leave out --analyze or --program", self.model, case.program());
        }
        if self.analyze && bindings != case.bindings() {
            anyhow::bail!("{} is fed batches of one size: leave out --analyze or --bind", self.model);
        }
        Ok((Subject::Case(Box::new(case)), program, bindings))
    }
}

impl Subject {
    fn model(&mut self) -> &mut Model {
        match self {
            Subject::Digits { model, .. } => model,
            Subject::Case(case) => case.model(),
        }
    }
    /// Runs some steps to get warm, and `steps` that are timed.
    fn measure(&mut self, program: &str, steps: usize, explanation: &mut Explanation) -> anyhow::Result<()> {
        let mut digits = thalweg::data::digits()?.0;
        if let Subject::Digits { model, batch } = self {
            anyhow::ensure!(*batch <= digits.len(), "there are {} digits to train on, not {batch}", digits.len());
            digits = digits.select(&(0..*batch).collect::<Vec<_>>());
            let inputs = model.graph().programs.iter().find(|p| &*p.name == program);
            let inputs: Vec<String> = inputs
                .map_or(vec![], |p| model.graph().inputs_of(p))
                .into_iter()
                .map(|(_, input)| input.name.to_string())
                .collect();
            digits = thalweg::data::Dataset::new(
                digits.feeds().into_iter().filter(|(n, _)| inputs.iter().any(|i| i == n)).map(|(n, a)| (n, a.clone())),
            )?;
        }
        let step = |subject: &mut Self, i: usize| match subject {
            Subject::Digits { model, .. } => model.run(program, &digits.feeds()).map(drop),
            Subject::Case(case) => case.step(i).map(drop),
        };
        const WARM: usize = 5;
        for i in 0..WARM {
            step(self, i)?;
        }
        self.model().start_trace(steps);
        for i in WARM..WARM + steps {
            step(self, i)?;
        }
        let trace = self.model().finish_trace();
        thalweg::explain::analyze(explanation, &trace)?;
        Ok(())
    }
}

/// In which language a picture is drawn.
#[derive(Clone, Copy)]
enum Picture {
    Svg,
    Dot,
    Mermaid,
}

impl Picture {
    /// By the file's name.
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("svg") => Ok(Picture::Svg),
            Some("dot" | "gv") => Ok(Picture::Dot),
            Some("mmd") => Ok(Picture::Mermaid),
            _ => anyhow::bail!("{}: a picture is an .svg, a .dot or an .mmd", path.display()),
        }
    }
    fn draw(self, plan: &Plan, explanation: &Explanation) -> String {
        let seconds = |device: usize, instruction: usize| {
            let is_it = |l: &&thalweg::graph::explain::LaunchRow| {
                (usize::from(l.device), l.instruction) == (device, instruction)
            };
            explanation.launches.iter().find(is_it).map_or(0.0, |l| l.seconds)
        };
        match self {
            Picture::Svg => plan_svg(plan, &seconds),
            Picture::Dot => plan_dot(plan, &seconds),
            Picture::Mermaid => plan_mermaid(plan, &seconds),
        }
    }
}
