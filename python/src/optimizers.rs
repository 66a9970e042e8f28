//! Optimizers of the Rust library by their names and options.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use thalweg::graph::{Builder, Value};
use thalweg::ops::{Tensor, Update};
use thalweg::optim::{AdamW, LossScale, Optimizer, Rule, Schedule, Sgd};

use crate::graph;
use crate::layers::{optional, wanted};

/// An optimizer that has not seen a loss.
pub(crate) struct Options {
    rule: By,
    lr: Rate,
    schedule: Option<Schedule>,
    clip_norm: Option<f64>,
    accumulate: Option<u64>,
    loss_scale: Option<LossScale>,
    name: Option<String>,
}

enum By {
    AdamW { betas: (f64, f64), eps: f64, weight_decay: f64 },
    Sgd { momentum: f64 },
}

#[derive(Clone, Copy)]
enum Rate {
    Number(f64),
    Value(Value),
}

impl Options {
    pub(crate) fn of(rule: &str, options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let rule = match rule {
            "adamw" => By::AdamW {
                betas: wanted(options, "betas")?,
                eps: wanted(options, "eps")?,
                weight_decay: wanted(options, "weight_decay")?,
            },
            "sgd" => By::Sgd { momentum: wanted(options, "momentum")? },
            _ => return Err(PyValueError::new_err(format!("there is no optimizer `{rule}`"))),
        };
        let lr = options.get_item("lr")?;
        let lr = match lr.as_ref().and_then(|lr| lr.cast::<graph::Value>().ok()) {
            Some(value) => Rate::Value(value.get().0),
            None => Rate::Number(wanted(options, "lr")?),
        };
        Ok(Self {
            rule,
            lr,
            schedule: optional::<Course>(options, "schedule")?.map(schedule).transpose()?,
            clip_norm: optional(options, "clip_norm")?,
            accumulate: optional(options, "accumulate")?,
            loss_scale: optional::<(bool, f64, u64)>(options, "loss_scale")?.map(|(dynamic, factor, grow_after)| {
                match dynamic {
                    true => LossScale::dynamic().initial(factor).grow_after(grow_after),
                    false => LossScale::constant(factor),
                }
            }),
            name: optional(options, "name")?,
        })
    }
    pub(crate) fn minimize(&self, graph: &Builder, loss: Value) -> Update {
        let number = if let Rate::Number(lr) = self.lr { lr } else { 0.0 };
        match self.rule {
            By::AdamW { betas: (b1, b2), eps, weight_decay } => {
                let adamw = AdamW::new(number).betas(b1, b2).eps(eps).weight_decay(weight_decay);
                self.apply(graph, adamw, loss)
            }
            By::Sgd { momentum } => self.apply(graph, Sgd::new(number).momentum(momentum), loss),
        }
    }
    fn apply<'g, R: Rule>(&self, graph: &'g Builder, mut optimizer: Optimizer<'g, R>, loss: Value) -> Update {
        if let Rate::Value(lr) = self.lr {
            optimizer = optimizer.lr_schedule(Tensor::new(graph, lr));
        }
        if let Some(schedule) = self.schedule {
            optimizer = optimizer.schedule(schedule);
        }
        if let Some(norm) = self.clip_norm {
            optimizer = optimizer.clip_norm(norm);
        }
        if let Some(microbatches) = self.accumulate {
            optimizer = optimizer.accumulate(microbatches);
        }
        if let Some(scale) = &self.loss_scale {
            optimizer = optimizer.loss_scale(scale.clone());
        }
        if let Some(name) = &self.name {
            optimizer = optimizer.named(name);
        }
        optimizer.minimize(Tensor::new(graph, loss))
    }
}

/// Course, updates, factor, warm-up, floor.
type Course = (String, u64, f64, u64, f64);

fn schedule((course, updates, factor, warmup, floor): Course) -> PyResult<Schedule> {
    let schedule = match &*course {
        "constant" => Schedule::constant(),
        "linear" => Schedule::linear(updates),
        "cosine" => Schedule::cosine(updates),
        "steps" => Schedule::steps(updates, factor),
        _ => return Err(PyValueError::new_err(format!("there is no schedule `{course}`"))),
    };
    Ok(schedule.warmup(warmup).floor(floor))
}
