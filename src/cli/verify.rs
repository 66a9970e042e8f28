//! `thalweg verify`: shows that a plan is sound before it runs, or says what is wrong with it. With `--mutate` it turns to
//! the proof itself: mistakes are made in the plan, and whatever the simulator sees come to harm has to be refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use thalweg::Precision;
use thalweg::graph::plan::mutate::{Mutant, Operator, mutants};
use thalweg::graph::plan::simulate::{Options, Simulation};
use thalweg::graph::plan::trial::{Judge, Row, Table, Trial, Verdict};
use thalweg::graph::plan::{Certificate, Endpoint, Fault, Peak, Plan};
use thalweg::kit::NAMES;

use super::digits_model;
use super::place::Where;

/// `thalweg verify`.
#[derive(Args)]
pub(crate) struct Verify {
    /// Whose plan: `digits` (the demo's model), a case of the kit, or a file of plan text, as `thalweg plan` prints it.
    #[arg(long, value_name = "digits|CASE|FILE", default_value = "digits")]
    model: String,
    /// Which program of the digits' model; `train` unless this says otherwise.
    #[arg(long)]
    program: Option<String>,
    /// Samples per step of the digits' model; 64 unless this says otherwise.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=512))]
    batch: Option<u64>,
    #[command(flatten)]
    place: Where,
    /// Make this many plans with a mistake in them, run each through verifier and simulator, and print how they fared;
    /// exit 1 if one that does harm is let through.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    mutate: Option<u32>,
    /// Other mistakes.
    #[arg(long, default_value_t = 0, requires = "mutate")]
    seed: u64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// More of a kind are counted, and not listed in text.
const LISTED: usize = 20;

/// Three steps; with costs, and in six timings more.
fn options() -> Options {
    Options::default()
}

impl Verify {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let plan = self.plan()?;
        let mut told = Told { json: self.json, all: json!({}) };
        told.plan(&plan)?;
        let certificate = match plan.certify() {
            Ok(certificate) => certificate,
            Err(faults) => {
                told.faults(&faults)?;
                told.end()?;
                let count = faults.len();
                anyhow::bail!("the plan is not sound: {count} fault{}", if count == 1 { "" } else { "s" });
            }
        };
        told.certificate(&certificate)?;
        let judge = match Judge::new(&plan, options()) {
            Ok(judge) => judge,
            Err(harm) => {
                told.all["harm"] = json!(harm.to_string());
                told.end()?;
                anyhow::bail!("internal error, please report: the plan is said to be sound and comes to harm: {harm}");
            }
        };
        told.simulation(judge.meant())?;
        let escaped = match self.mutate {
            Some(count) => {
                let tried = Tried::new(&plan, &judge, self.seed, count as usize);
                told.mutants(&tried, self.seed)?;
                tried.escaped.len()
            }
            None => 0,
        };
        told.end()?;
        anyhow::ensure!(
            escaped == 0,
            "internal error, please report: {escaped} mutants come to harm and are let through"
        );
        Ok(())
    }

    /// The plan, sound or not.
    fn plan(&self) -> anyhow::Result<Arc<Plan>> {
        if self.model == "digits" {
            let program = self.program.as_deref().unwrap_or("train");
            let digits = digits_model(0, Precision::Declared);
            let mut model = match self.place.hosts()? {
                Some(hosts) => self.place.compile_on(hosts, &digits)?,
                None => self.place.compile(&digits)?,
            };
            return Ok(model.session().plan(program, &[("batch".into(), self.batch.unwrap_or(64))].into())?);
        }
        let digits_only = self.program.is_none() && self.batch.is_none();
        anyhow::ensure!(
            digits_only,
            "--program and --batch are of the digits' model alone; what `{}` runs is fixed",
            self.model
        );
        if NAMES.contains(&&*self.model)
            && let Some(mut case) = self.place.case(&self.model, &Default::default())?
        {
            return Ok(case.plan()?);
        }
        let text = std::fs::read_to_string(&self.model).with_context(|| {
            format!(
                "`{}` is neither `digits`, nor a case of the kit ({}), nor a file of plan text",
                self.model,
                NAMES.join(", ")
            )
        })?;
        anyhow::ensure!(
            !self.place.is_said(),
            "a plan in a file says itself where it runs: leave out --device, --devices, --leaves and --threads"
        );
        Ok(Arc::new(Plan::parse(&text).with_context(|| format!("{} is no plan", self.model))?))
    }
}

/// How the mutants of a plan fared.
#[derive(Default)]
struct Tried {
    table: Table,
    /// What does harm and is let through, and what does none and is refused.
    escaped: Vec<Noted>,
    needless: Vec<Noted>,
}

/// A mutant without its plan: operator, mistake and what came of it.
type Noted = (Operator, String, String);

impl Tried {
    fn new(plan: &Plan, judge: &Judge, seed: u64, count: usize) -> Self {
        let mut tried = Tried::default();
        let mut printed = Instant::now();
        for (done, mutant) in mutants(plan, seed, count).enumerate() {
            if printed.elapsed() > Duration::from_secs(10) {
                eprintln!("{done}/{count} mutants");
                printed = Instant::now();
            }
            let trial = judge.judge(&mutant.plan);
            tried.table.add(&mutant, &trial);
            let (escape, needless) = (trial.is_escape(), trial.is_needless());
            let Mutant { operator, what, .. } = mutant;
            match trial {
                Trial { verdict: Verdict::Harmful(harm), .. } if escape => {
                    tried.escaped.push((operator, what, harm.to_string()));
                }
                Trial { refused: Some(fault), .. } if needless => {
                    tried.needless.push((operator, what, fault.to_string()));
                }
                _ => {}
            }
        }
        tried
    }
}

/// What is said, as it becomes known: as text at once, or as one object at the end.
struct Told {
    json: bool,
    all: Value,
}

impl Told {
    fn say(&self, line: &str) -> anyhow::Result<()> {
        if !self.json {
            writeln!(std::io::stdout(), "{line}")?;
        }
        Ok(())
    }
    fn end(&self) -> anyhow::Result<()> {
        if self.json {
            writeln!(std::io::stdout(), "{}", self.all)?;
        }
        Ok(())
    }

    fn plan(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let instructions: usize = plan.devices.iter().map(|d| d.instructions.len()).sum();
        let launches: usize = plan.devices.iter().map(|d| d.launches().count()).sum();
        let crossing = plan.channels.values().iter().filter(|c| ![c.from, c.to].contains(&Endpoint::Driver)).count();
        let (devices, channels) = (plan.devices.len(), plan.channels.len());
        self.all["graph"] = json!(plan.graph);
        self.all["program"] = json!(plan.program);
        self.all["bindings"] = json!(plan.bindings);
        self.all["plan"] = json!(plan.hash().to_string());
        self.all["instructions"] = json!(instructions);
        self.all["channels_between_devices"] = json!(crossing);
        let bound: Vec<String> = plan.bindings.iter().map(|(name, value)| format!(", {name} {value}")).collect();
        self.say(&format!(
            "{} {}{} on {devices} device{}: {instructions} instructions, {launches} of them launches; {channels} channels, {crossing} of them between devices",
            plan.graph,
            plan.program,
            bound.concat(),
            if devices == 1 { "" } else { "s" },
        ))
    }

    fn faults(&mut self, faults: &[Fault]) -> anyhow::Result<()> {
        let object = |f: &Fault| json!({"kind": format!("{:?}", f.kind), "device": f.device, "message": f.to_string()});
        self.all["sound"] = json!(false);
        self.all["faults"] = faults.iter().map(object).collect();
        faults.iter().try_for_each(|fault| self.say(&format!("{:?}: {fault}", fault.kind)))
    }

    fn certificate(&mut self, certificate: &Certificate) -> anyhow::Result<()> {
        self.all["sound"] = json!(true);
        let Certificate { plan, nodes, edges, tokens, channels, devices, order } = certificate;
        // Hashes as people and other verbs write them.
        self.all["certificate"] = json!({
            "plan": plan.to_string(), "nodes": nodes, "edges": edges, "tokens": tokens, "channels": channels,
            "devices": devices, "order": order.to_string(),
        });
        self.say(&format!("sound: {plan}"))?;
        self.say("  every byte is written before it is read, and kept for as long as it is needed")?;
        self.say("  every channel is used once at either end, and its slot has one owner at a time")?;
        self.say("  variables change behind `commit` alone, and nothing is computed for nobody")?;
        self.say(&format!(
            "  nobody waits for ever: {nodes} nodes and {edges} edges, {tokens} of them into the next step, have no circle"
        ))?;
        self.say(&format!("  and can happen in the order {order}"))?;
        for Peak { device, state, scratch, staging } in devices {
            self.say(&format!("  {device} needs {state} bytes of state, {scratch} of scratch, {staging} of staging"))?;
        }
        Ok(())
    }

    fn simulation(&mut self, simulation: &Simulation) -> anyhow::Result<()> {
        let (steps, timings) = (simulation.steps.len(), 1 + options().seeds.count());
        self.all["simulated"] = json!({"steps": steps, "timings": timings});
        self.say(&format!("simulated: {steps} steps in {timings} timings come to no harm and to the same"))
    }

    fn mutants(&mut self, tried: &Tried, seed: u64) -> anyhow::Result<()> {
        let row = |row: &Row| {
            json!({"harmful": row.harmful, "let_through": row.escaped, "other": row.other, "wasteful": row.wasteful,
                "harmless": row.harmless, "refused_without_need": row.needless})
        };
        let list = |of: &[Noted], why: &str| -> Value {
            let object = |(operator, what, because): &Noted| json!({"operator": format!("{operator:?}"), "what": what, why: because});
            of.iter().map(object).collect()
        };
        let total = tried.table.total();
        let operators: BTreeMap<String, Value> =
            tried.table.rows.iter().map(|(operator, of)| (format!("{operator:?}"), row(of))).collect();
        self.all["mutants"] = json!({
            "seed": seed, "count": total.count(), "operators": operators, "total": row(&total),
            "let_through": list(&tried.escaped, "harm"), "refused_without_need": list(&tried.needless, "fault"),
        });
        self.say(&format!("\n{} mutants with seed {seed}; of harmful ones none may be let pass", total.count()))?;
        self.say(tried.table.to_string().trim_end())?;
        for (heading, all) in [("harmful and let pass", &tried.escaped), ("harmless and refused", &tried.needless)] {
            for (operator, what, why) in all.iter().take(LISTED) {
                self.say(&format!("{heading}: {operator:?}: {what}: {why}"))?;
            }
            if all.len() > LISTED {
                self.say(&format!("{heading}: and {} more", all.len() - LISTED))?;
            }
        }
        Ok(())
    }
}
