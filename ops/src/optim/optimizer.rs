//! What all optimizers share: differentiate a loss, treat the gradients (accumulate, clip), set the rate, and let a rule say
//! what each parameter and each of its slots becomes. A rule sees one parameter at a time and knows nothing else.

use thalweg_graph::id::Side;
use thalweg_graph::{DType, Diagnostic, Init, NodeId, Site, VarId, VarKind};

use super::loss_scale::all_finite;
use super::{LossScale, Schedule};
use crate::autodiff::gradients_by;
use crate::graph::{Update, step, variable};
use crate::tensor::Tensor;

/// How parameters follow gradients.
pub trait Rule: Clone {
    /// What its slots are called after, unless the optimizer is named.
    const NAME: &'static str;
    /// Names of its slots: zeros at first, of the parameter's type.
    fn slots(&self) -> &'static [&'static str];
    /// What parameter and slots become. `lr` has the parameter's element type and no axes; `t` is this update's number,
    /// from 1, f64.
    fn step<'g>(&self, at: Step<'g, '_>) -> Vec<Tensor<'g>>;
}

/// One parameter's part in an update.
pub struct Step<'g, 'a> {
    /// Its value.
    pub param: Tensor<'g>,
    /// Its gradient.
    pub gradient: Tensor<'g>,
    /// Its slots.
    pub slots: &'a [Tensor<'g>],
    /// The rate.
    pub lr: Tensor<'g>,
    /// The number of the update, from 1.
    pub t: Tensor<'g>,
}

/// An optimizer: [`AdamW`](super::AdamW) and [`Sgd`](super::Sgd) are its names with a rule.
#[derive(Clone, Debug)]
pub struct Optimizer<'g, R> {
    pub(super) rule: R,
    name: String,
    lr: Rate<'g>,
    schedule: Option<Schedule>,
    clip_norm: Option<f64>,
    accumulate: u64,
    loss_scale: Option<LossScale>,
}

/// A learning rate: a number, or what the user computes.
#[derive(Clone, Copy, Debug)]
enum Rate<'g> {
    Number(f64),
    Tensor(Tensor<'g>),
}

impl<'g, R: Rule> Optimizer<'g, R> {
    /// By this rule, with this learning rate.
    pub fn by(rule: R, lr: f64) -> Self {
        let (name, lr) = (R::NAME.to_string(), Rate::Number(lr));
        Self { rule, name, lr, schedule: None, clip_norm: None, accumulate: 1, loss_scale: None }
    }
    /// The learning rate as a tensor without axes, computed from `g.step()` for instance.
    pub fn lr_schedule(mut self, lr: Tensor<'g>) -> Self {
        self.lr = Rate::Tensor(lr);
        self
    }
    /// What the rate is multiplied by, update by update.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }
    /// Gradients whose norm over all parameters together is larger are scaled down to it (Pascanu et al., *On the
    /// difficulty of training recurrent neural networks*, ICML 2013).
    pub fn clip_norm(mut self, norm: f64) -> Self {
        self.clip_norm = Some(norm);
        self
    }
    /// Every run of the program is a microbatch: gradients are averaged over `microbatches` runs, and the last of them
    /// updates. Batch statistics remain those of a microbatch. A checkpoint holds the unfinished average.
    pub fn accumulate(mut self, microbatches: u64) -> Self {
        self.accumulate = microbatches.max(1);
        self
    }
    /// What the loss is multiplied by while it is differentiated, so that gradients in f16 do not vanish; see
    /// [`LossScale`]. bf16 needs none.
    pub fn loss_scale(mut self, scale: LossScale) -> Self {
        self.loss_scale = Some(scale);
        self
    }
    /// What its slots are called after.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// One step against the gradient of `loss`, for every parameter that it depends on.
    #[track_caller]
    pub fn minimize(&self, loss: Tensor<'g>) -> Update {
        // Closures below do not pass the caller's line on.
        let (graph, site) = (loss.graph(), Site::here());
        let scaling = self.loss_scale.as_ref().filter(|_| !loss.is_poison()).map(|scale| {
            let wrong = scale.mistake().map(|what| Diagnostic::new("loss_scale.C1", what, graph.site_or(site.clone())));
            wrong.into_iter().for_each(|m| graph.mistake(m.help("a dynamic loss scale begins with 65536")));
            graph.at_root(|| graph.at_site(site.clone(), || scale.declare(graph, &self.name)))
        });
        let mut params = parameters(loss, scaling.as_ref().map(|s| s.scale.0));
        if params.is_empty() {
            return Update::default();
        }
        let mut updates = vec![];
        let mut set = |id: Option<VarId>, new: Tensor<'g>| updates.extend(id.map(|id| (id, new.value())));
        let runs = step(graph).cast(DType::F64);
        let (mut done, mut last) = (runs, None);
        if self.accumulate > 1 {
            let of = self.accumulate as f64;
            done = (runs / of).floor();
            let is_last = (runs - done * of).eq(of - 1.0);
            for p in &mut params {
                let (sum, id) = self.slot(&site, "accumulated", p);
                p.gradient = sum + p.gradient / of;
                set(id, is_last.select(sum.zeros_like(), p.gradient));
            }
            last = Some(is_last);
        }
        // Whether there is an update at all, where that is a question.
        let mut updates_now = last;
        if let Some(scaling) = &scaling
            && let Some(finite) = all_finite(params.iter().map(|p| p.gradient))
        {
            done = done - scaling.skipped.0.cast(DType::F64);
            for ((old, id), new) in scaling.after(finite) {
                set(id, last.map_or(new, |last| last.select(new, old)));
            }
            updates_now = Some(last.map_or(finite, |last| last.select(finite, last)));
        }
        if let Some(most) = self.clip_norm {
            clip(&mut params, most);
        }
        let t = done + 1.0;
        for p in params {
            let (slots, ids): (Vec<_>, Vec<_>) = self.rule.slots().iter().map(|s| self.slot(&site, s, &p)).unzip();
            let at = Step { param: p.value, gradient: p.gradient, slots: &slots, lr: self.rate(p.value, done), t };
            let new = self.rule.step(at);
            let old = [p.value].into_iter().chain(slots);
            for ((id, new), old) in [Some(p.id)].into_iter().chain(ids).zip(new).zip(old) {
                set(id, updates_now.map_or(new, |now| now.select(new, old)));
            }
        }
        Update { updates }
    }

    #[track_caller]
    fn rate(&self, param: Tensor<'g>, done: Tensor<'g>) -> Tensor<'g> {
        let lr = match self.lr {
            Rate::Number(lr) => param.scalar_like(lr),
            Rate::Tensor(lr) => lr.cast(param.dtype()),
        };
        match &self.schedule {
            Some(schedule) => lr * schedule.factor(done).cast(param.dtype()),
            None => lr,
        }
    }
    /// The optimizer's own variable beside a parameter: `adamw.m.body.conv1.weight`.
    fn slot(&self, site: &Site, slot: &str, of: &Param<'g>) -> (Tensor<'g>, Option<VarId>) {
        let (graph, ty, group) = (of.value.graph(), of.value.ty(), format!("{}.{slot}", self.name));
        let name = format!("{group}.{}", of.path);
        let declare = || variable(graph, &name, ty, VarKind::Slot, Init::Constant(0.0), &group);
        graph.at_root(|| graph.at_site(site.clone(), declare))
    }
}

/// Scales all gradients so that their common norm is at most `most`. The sum of squares is taken in f32 at least.
fn clip<'g>(params: &mut [Param<'g>], most: f64) {
    let square = |p: &Param<'g>| {
        let g = if p.gradient.dtype() == DType::F64 { p.gradient } else { p.gradient.cast(DType::F32) };
        (g * g).sum()
    };
    let common = if params.iter().any(|p| p.gradient.dtype() == DType::F64) { DType::F64 } else { DType::F32 };
    let squares: Vec<_> = params.iter().map(|p| square(p).cast(common)).collect();
    let Some(total) = squares.into_iter().reduce(|a, b| a + b) else { return };
    // As PyTorch has it: the small number keeps a norm of zero harmless.
    let scale = (total.scalar_like(most) / (total.sqrt() + 1e-6)).minimum(1.0);
    for p in params {
        p.gradient = p.gradient * scale.cast(p.gradient.dtype());
    }
}

/// A parameter that a loss depends on.
struct Param<'g> {
    id: VarId,
    path: String,
    value: Tensor<'g>,
    gradient: Tensor<'g>,
}

/// The parameters that `loss` depends on, in order of declaration, with their gradients. None is a mistake.
#[track_caller]
fn parameters<'g>(loss: Tensor<'g>, scale: Option<Tensor<'g>>) -> Vec<Param<'g>> {
    let graph = loss.graph();
    if loss.is_poison() {
        return vec![];
    }
    let found = graph.with_graph(|g| {
        let mut needed = Side::filled(g.nodes.len(), false);
        needed[loss.value().node] = true;
        let mut reads: Vec<(VarId, NodeId)> = vec![];
        for (id, node) in g.nodes.iter().rev() {
            if needed[id] {
                node.operands.iter().for_each(|v| needed[v.node] = true);
                let param = g.variable_read(node).filter(|v| g.state[*v].kind == VarKind::Param);
                reads.extend(param.map(|v| (v, id)));
            }
        }
        reads.sort();
        reads.into_iter().map(|(v, id)| (v, g.state[v].name.to_string(), id)).collect::<Vec<_>>()
    });
    if found.is_empty() {
        let what = "there is nothing to learn: the loss depends on no parameter";
        graph.mistake(
            Diagnostic::new("minimize.C1", what, graph.site_or(Site::here()))
                .label("minimized here")
                .also(graph.site(loss.value()), "the loss")
                .help("declare parameters with `g.parameter(…)` or layers, and compute the loss from them"),
        );
        return vec![];
    }
    let values: Vec<_> = found.iter().map(|(_, _, node)| Tensor::new(graph, (*node).into())).collect();
    let cts = gradients_by(loss, scale, &values);
    let param = |(((id, path, _), value), gradient)| Param { id, path, value, gradient };
    found.into_iter().zip(values).zip(cts).map(param).collect()
}
