//! Update rules as graph: an optimizer differentiates a loss and says what each variable becomes. Slots are variables like
//! any other, so that checkpoints, placement and drawings need to know nothing of optimizers.

pub mod adamw;
pub mod sgd;

use thalweg_graph::id::Side;
use thalweg_graph::{Builder, DType, Diagnostic, Init, NodeId, Site, TensorType, VarId, VarKind};

pub use adamw::AdamW;
pub use sgd::Sgd;

use crate::autodiff::gradients;
use crate::graph::variable;
use crate::tensor::Tensor;

/// A parameter that a loss depends on.
struct Param<'g> {
    id: VarId,
    path: String,
    value: Tensor<'g>,
    gradient: Tensor<'g>,
}

/// The parameters that `loss` depends on, in order of declaration, with their gradients. None is a mistake.
#[track_caller]
fn parameters<'g>(loss: Tensor<'g>) -> Vec<Param<'g>> {
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
    let cts = gradients(loss, &values);
    let param = |(((id, path, _), value), gradient)| Param { id, path, value, gradient };
    found.into_iter().zip(values).zip(cts).map(param).collect()
}

/// An optimizer's own variable beside a parameter: `adamw.m.body.conv1.weight`.
#[track_caller]
fn slot<'g>(graph: &'g Builder, group: &str, path: &str, ty: TensorType) -> (Tensor<'g>, Option<VarId>) {
    let (name, site) = (format!("{group}.{path}"), Site::here());
    graph.at_root(|| graph.at_site(site, || variable(graph, &name, ty, VarKind::Slot, Init::Constant(0.0), group)))
}

/// A learning rate: a number, or what a schedule computes.
#[derive(Clone, Copy, Debug)]
enum Rate<'g> {
    Number(f64),
    Schedule(Tensor<'g>),
}

impl<'g> Rate<'g> {
    #[track_caller]
    fn of(self, param: Tensor<'g>) -> Tensor<'g> {
        match self {
            Rate::Number(lr) => param.scalar_like(lr),
            Rate::Schedule(lr) => lr.cast(param.dtype()),
        }
    }
}

/// `x` holds floats, `others` are of its type, `scalars` of its element type without axes.
fn require_alike(
    rules: [&'static str; 2],
    x: &TensorType,
    others: &[TensorType],
    scalars: &[TensorType],
) -> Result<(), thalweg_graph::OpError> {
    let alike = x.dtype.is_float() && others.iter().all(|t| t == x);
    thalweg_graph::require!(
        alike,
        rules[0],
        "needs a parameter of floats and others of its type, got {x} and {others:?}"
    );
    let scalar: TensorType = DType::of(x.dtype, ());
    let fits = scalars.iter().all(|t| *t == scalar);
    thalweg_graph::require!(fits, rules[1], "rates must be {scalar}, got {scalars:?}");
    Ok(())
}
