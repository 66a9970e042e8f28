//! Mutants on trial: the simulator says what becomes of each, the verifier whether it lets it through, and a table counts
//! both. The two share no code, which is what makes the table evidence: of what comes to harm nothing may pass, and of
//! what does what the plan does hardly anything should be refused.

use std::collections::BTreeMap;
use std::fmt;

use super::mutate::{Mutant, Operator};
use super::simulate::{Free, Harm, Options, Simulation, simulate};
use super::{Fault, Plan};

/// What becomes of a mutant when it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It comes to harm.
    Harmful(Box<Harm>),
    /// It comes to no harm, and to something else than the plan did: a sound plan of another program, perhaps.
    Other,
    /// It does what the plan does, and more of it for nobody than the plan: refused on purpose.
    Wasteful,
    /// It does what the plan does.
    Harmless,
}

/// A mutant that was tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trial {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why the verifier refuses it, the first of its reasons; none if it lets it through.
    pub refused: Option<Fault>,
}

impl Trial {
    /// It comes to harm and is let through: the verifier is wrong.
    pub fn is_escape(&self) -> bool {
        matches!(self.verdict, Verdict::Harmful(_)) && self.refused.is_none()
    }
    /// It does what the plan does and is refused all the same.
    pub fn is_needless(&self) -> bool {
        self.verdict == Verdict::Harmless && self.refused.is_some()
    }
}

/// A plan whose mutants are tried.
#[derive(Clone, Debug)]
pub struct Judge {
    options: Options,
    meant: Simulation,
}

impl Judge {
    /// For mutants of `plan`, which are simulated as `options` say.
    ///
    /// # Errors
    /// If the plan itself comes to harm.
    pub fn new(plan: &Plan, options: Options) -> Result<Self, Box<Harm>> {
        Ok(Self { meant: simulate(plan, &Free, &options)?, options })
    }
    /// What the plan itself does.
    pub fn meant(&self) -> &Simulation {
        &self.meant
    }
    /// Runs a mutant and shows it to the verifier.
    pub fn judge(&self, mutant: &Plan) -> Trial {
        let verdict = match simulate(mutant, &Free, &self.options) {
            Err(harm) => Verdict::Harmful(harm),
            Ok(is) if is.steps != self.meant.steps => Verdict::Other,
            Ok(is) if is.waste.len() > self.meant.waste.len() => Verdict::Wasteful,
            Ok(_) => Verdict::Harmless,
        };
        Trial { verdict, refused: mutant.certify().err().and_then(|faults| faults.into_iter().next()) }
    }
}

/// How the mutants of one operator fared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Row {
    /// They come to harm.
    pub harmful: usize,
    /// Of those: let through.
    pub escaped: usize,
    /// They come to something else.
    pub other: usize,
    /// They do what the plan does, and some of it for nobody.
    pub wasteful: usize,
    /// They do what the plan does.
    pub harmless: usize,
    /// Of those: refused.
    pub needless: usize,
}

impl Row {
    /// All of its mutants.
    pub fn count(&self) -> usize {
        self.harmful + self.other + self.wasteful + self.harmless
    }
}

/// How mutants fared, operator by operator. Prints as a table, in which `let pass` are of the harmful and `refused` of the
/// harmless.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Table {
    /// By operator; none for one that found nothing to work on.
    pub rows: BTreeMap<Operator, Row>,
}

impl Table {
    /// Counts one.
    pub fn add(&mut self, mutant: &Mutant, trial: &Trial) {
        let row = self.rows.entry(mutant.operator).or_default();
        match trial.verdict {
            Verdict::Harmful(_) => row.harmful += 1,
            Verdict::Other => row.other += 1,
            Verdict::Wasteful => row.wasteful += 1,
            Verdict::Harmless => row.harmless += 1,
        }
        row.escaped += usize::from(trial.is_escape());
        row.needless += usize::from(trial.is_needless());
    }
    /// Adds what another table has counted.
    pub fn extend(&mut self, other: &Table) {
        for (operator, row) in &other.rows {
            let sum = sum([self.rows.get(operator).unwrap_or(&Row::default()), row]);
            self.rows.insert(*operator, sum);
        }
    }
    /// Of all operators.
    pub fn total(&self) -> Row {
        sum(self.rows.values())
    }
}

fn sum<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Row {
    rows.into_iter().fold(Row::default(), |a, b| Row {
        harmful: a.harmful + b.harmful,
        escaped: a.escaped + b.escaped,
        other: a.other + b.other,
        wasteful: a.wasteful + b.wasteful,
        harmless: a.harmless + b.harmless,
        needless: a.needless + b.needless,
    })
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "            harmful  let pass     other  wasteful  harmless   refused")?;
        let mut line = |name: &str, row: &Row| {
            let Row { harmful, escaped, other, wasteful, harmless, needless } = row;
            writeln!(f, "{name:10} {harmful:>8} {escaped:>9} {other:>9} {wasteful:>9} {harmless:>9} {needless:>9}")
        };
        self.rows.iter().try_for_each(|(operator, row)| line(&format!("{operator:?}"), row))?;
        line("all", &self.total())
    }
}
