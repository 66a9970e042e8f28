//! What a case may be asked to do otherwise. A case by its name alone is the one that everybody means; nothing here changes
//! that, and what does not belong to a case is refused rather than ignored.

use std::fmt;

use thalweg_graph::DType;
use thalweg_ops::Precision;
use thalweg_ops::optim::{LossScale, Optimizer, Rule};

use crate::error::{Error, Result};

/// How a case differs from the one of its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// In which types models compute; with `Mixed(F16)` one that learns scales its loss.
    pub precision: Precision,
    /// Sequences of a step of `gpt2_train`.
    pub batch: Option<u64>,
    /// Tokens of each of them.
    pub context: Option<u64>,
    /// Layers of that model. Fewer are another model, for machines on which the whole one takes too long.
    pub layers: Option<u64>,
}

impl Options {
    /// Whether the case is in all but its precision the one of its name.
    pub fn is_whole(&self) -> bool {
        [self.batch, self.context, self.layers].iter().all(Option::is_none)
    }
    /// Refuses what is not said of this case.
    pub(super) fn belong_to(&self, case: &str, is_model: bool) -> Result<()> {
        let wrong = |what: &str| Err(Error::Case(format!("`{case}`: {what}")));
        if !self.is_whole() && case != "gpt2_train" {
            return wrong("batch, context and layers can be said of `gpt2_train` alone; those of others are fixed");
        }
        if self.precision != Precision::Declared && !is_model {
            return wrong("a precision can be said of models alone; `matmul_4096_f16` has its type in its name");
        }
        Ok(())
    }
    /// `optimizer`, with what this precision needs to learn.
    pub(super) fn scaled<'g, R: Rule>(&self, optimizer: Optimizer<'g, R>) -> Optimizer<'g, R> {
        match self.precision {
            Precision::Mixed(DType::F16) => optimizer.loss_scale(LossScale::dynamic()),
            _ => optimizer,
        }
    }
}

/// What is said, as it is put behind a case's name: ` bf16, batch 1`.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = match self.precision {
            Precision::Declared => None,
            Precision::Mixed(half) => Some(half.name().to_string()),
        };
        let sizes = [("batch", self.batch), ("context", self.context), ("layers", self.layers)];
        let said = sizes.iter().filter_map(|(what, n)| Some(format!("{what} {}", (*n)?)));
        let said: Vec<String> = precision.into_iter().chain(said).collect();
        if said.is_empty() { Ok(()) } else { write!(f, " {}", said.join(", ")) }
    }
}
