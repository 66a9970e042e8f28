//! Gradients, graph to graph: a reverse walk that appends to the same list. The result is ordinary graph, so that
//! gradients have gradients, are placed, fused and drawn like anything else.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use thalweg_graph::id::Id;
use thalweg_graph::op::GradientOf;
use thalweg_graph::{Builder, Diagnostic, Mode, NodeId, Value};

use crate::op::{Gradients, VjpCx};
use crate::tensor::Tensor;

/// ∂`of`/∂`wrt`, for a scalar `of`; zeros for what it does not depend on.
#[track_caller]
pub fn gradients<'g>(of: Tensor<'g>, wrt: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    gradients_by(of, None, wrt)
}

/// The same by way of the gradients of `scale · of`, divided by `scale` in their own types.
#[track_caller]
pub(crate) fn gradients_by<'g>(of: Tensor<'g>, scale: Option<Tensor<'g>>, wrt: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    if of.is_poison() || wrt.iter().any(|t| t.is_poison()) {
        return wrt.iter().map(|t| Tensor::new(t.graph(), Value::POISON)).collect();
    }
    if of.rank() != 0 || !of.dtype().is_float() {
        let what = format!("a gradient is of a float without axes, not of {}", of.ty());
        let site = thalweg_graph::Site::here();
        of.graph().mistake(Diagnostic::new("gradient.C1", what, site).help("take `.mean()` or `.sum()` first"));
        return wrt.iter().map(|t| Tensor::new(t.graph(), Value::POISON)).collect();
    }
    match scale {
        Some(scale) => found(&[(of, scale.cast(of.dtype()))], wrt, |ct| ct * (1.0 / scale).cast(ct.dtype())),
        None => vjp(&[(of, of.ones_like())], wrt),
    }
}

/// The cotangents of `wrt`, given those of `of`.
#[track_caller]
pub fn vjp<'g>(of: &[(Tensor<'g>, Tensor<'g>)], wrt: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    found(of, wrt, |ct| ct)
}

/// The same, each made what `becomes` says; so are those that are watched.
#[track_caller]
fn found<'g>(
    of: &[(Tensor<'g>, Tensor<'g>)],
    wrt: &[Tensor<'g>],
    becomes: impl Fn(Tensor<'g>) -> Tensor<'g>,
) -> Vec<Tensor<'g>> {
    let Some(graph) = of.first().map(|(t, _)| t.graph()) else { return wrt.iter().map(|t| t.zeros_like()).collect() };
    let seeds: Vec<_> = of.iter().map(|(t, ct)| (t.value(), ct.value())).collect();
    let targets: Vec<_> = wrt.iter().map(|t| t.value()).collect();
    let found = walk(graph, 0..graph.len(), &seeds, &targets);
    for value in graph.gradients_watched() {
        if let Some(by) = found.get(&value).copied() {
            graph.gradient_found(value, by, becomes(Tensor::new(graph, by)).value());
        }
    }
    let gradient = |t: &Tensor<'g>| match found.get(&t.value()) {
        Some(ct) => becomes(Tensor::new(graph, *ct)),
        None => t.zeros_like(),
    };
    wrt.iter().map(gradient).collect()
}

/// The cotangents of `operands`, given those of what `compute` appends to the graph, in which operands are leaves, even
/// where one was computed from another.
fn through(
    graph: &Builder,
    operands: &[Value],
    cotangents: &[Option<Value>],
    compute: impl FnOnce() -> Option<Vec<Value>>,
) -> Option<Vec<Option<Value>>> {
    let start = graph.len();
    let computed = compute()?;
    let seeds: Vec<_> = computed.iter().zip(cotangents).filter_map(|(v, ct)| Some((*v, (*ct)?))).collect();
    let found = walk(graph, start..graph.len(), &seeds, operands);
    // What is found for an operand is from all its places; the first one takes it.
    let first = |k: usize| !operands[..k].contains(&operands[k]);
    Some(operands.iter().enumerate().map(|(k, v)| found.get(v).copied().filter(|_| first(k))).collect())
}

/// The gradient of a primitive that is that of a composition beside its kernel: `compute` says it in other ops.
pub(crate) fn through_composition<'g>(
    cx: &VjpCx<'g>,
    compute: impl FnOnce(&[Tensor<'g>]) -> Vec<Tensor<'g>>,
) -> Option<Gradients<'g>> {
    let graph = cx.operands.first()?.graph();
    let operands: Vec<_> = cx.operands.iter().map(|t| t.value()).collect();
    let cotangents: Vec<_> = cx.cotangents.iter().map(|ct| ct.map(|t| t.value())).collect();
    let values = || Some(compute(&cx.operands).into_iter().map(|t| t.value()).collect());
    let found = through(graph, &operands, &cotangents, values)?;
    Some(found.into_iter().map(|ct| ct.map(|v| Tensor::new(graph, v))).collect())
}

/// Walks the nodes of `range` backwards; gives the cotangent of every value met on the way to `wrt`. Values outside are
/// leaves.
fn walk(graph: &Builder, range: Range<usize>, seeds: &[(Value, Value)], wrt: &[Value]) -> BTreeMap<Value, Value> {
    let reached = depends_on(graph, &range, wrt);
    let mut cts: BTreeMap<Value, Value> = BTreeMap::new();
    let add = |cts: &mut BTreeMap<Value, Value>, value: Value, ct: Value| {
        let sum = cts.get(&value).map_or(ct, |have| (Tensor::new(graph, *have) + Tensor::new(graph, ct)).value());
        cts.insert(value, sum);
    };
    for (value, ct) in seeds {
        add(&mut cts, *value, *ct);
    }
    for index in range.clone().rev() {
        let id = NodeId::new(index);
        if !reached[index - range.start] {
            continue;
        }
        let node = graph.node(id.into());
        let results: Vec<Value> = node.values(id).collect();
        let cotangents: Vec<_> = results.iter().map(|v| cts.get(v).copied()).collect();
        if cotangents.iter().all(Option::is_none) || node.operands.is_empty() {
            continue;
        }
        let origin: Arc<str> = format!("grad.{}", node.op.schema().name).into();
        let operand_cts = graph.derived(&node, Some(origin), || {
            let of = GradientOf { operands: &node.operands, results: &results, cotangents: &cotangents };
            node.op.gradient(graph, of).or_else(|| {
                // A composite without a gradient of its own: differentiate its expansion, which repeats the forward
                // computation; merging common nodes removes the repetition.
                through(graph, &node.operands, &cotangents, || node.op.expand(graph, &node.operands, Mode::Train))
            })
        });
        let Some(operand_cts) = operand_cts else {
            let what = format!("`{}` has no gradient", node.op.schema().name);
            graph.mistake(Diagnostic::new("gradient.C2", what, node.site.clone()));
            return wrt.iter().map(|v| (*v, Value::POISON)).collect();
        };
        for (operand, ct) in node.operands.iter().zip(operand_cts) {
            if let Some(ct) = ct {
                graph.derived(&node, None, || add(&mut cts, *operand, ct));
            }
        }
    }
    cts
}

/// Which nodes of `range` depend on `wrt`.
fn depends_on(graph: &Builder, range: &Range<usize>, wrt: &[Value]) -> Vec<bool> {
    graph.with_graph(|g| {
        let mut reached = vec![false; range.len()];
        for index in range.clone() {
            let id = NodeId::new(index);
            let inside = |v: &Value| range.contains(&v.node.index()) && reached[v.node.index() - range.start];
            let depends = g.nodes[id].operands.iter().any(|v| wrt.contains(v) || inside(v));
            reached[index - range.start] = depends || wrt.iter().any(|v| v.node == id);
        }
        reached
    })
}
