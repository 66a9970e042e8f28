//! Every constraint of every op has a case that breaks it and no other, and is blamed on the line that broke it. Which
//! constraints there are is read from the ops' own documentation, so that a new one without a case fails here.

use std::collections::BTreeSet;
use std::panic::Location;

use thalweg_graph::{DType, Diagnostic, Dim, Init, Site, shape};
use thalweg_ops::autodiff::gradients;
use thalweg_ops::conv::conv2d::Conv2d;
use thalweg_ops::conv::conv2d_input_grad::Conv2dInputGrad;
use thalweg_ops::conv::conv2d_weight_grad::Conv2dWeightGrad;
use thalweg_ops::conv::max_pool2d::MaxPool2d;
use thalweg_ops::conv::max_pool2d_grad::MaxPool2dGrad;
use thalweg_ops::layout::concat::{Concat, concat};
use thalweg_ops::layout::extent::Extent;
use thalweg_ops::layout::iota::Iota;
use thalweg_ops::layout::pad::Pad;
use thalweg_ops::nn::attention::Attention;
use thalweg_ops::nn::attention_grad::AttentionGrad;
use thalweg_ops::nn::{BatchNorm, Layer, LayerNorm, Linear, Sequential, batch_norm, cross_entropy, layer_norm};
use thalweg_ops::op::erase;
use thalweg_ops::optim::adamw::AdamWStep;
use thalweg_ops::optim::sgd::SgdStep;
use thalweg_ops::optim::{AdamW, Sgd};
use thalweg_ops::random::dropout::Dropout;
use thalweg_ops::{Graph, OPS, Tensor, nn};

const F32: DType = DType::F32;
const I32: DType = DType::I32;

/// An input of a type, under a name of its own.
#[track_caller]
fn input<'g>(g: &'g Graph, dtype: DType, shape: &[u64]) -> Tensor<'g> {
    g.input(&format!("input{}", g.builder().len()), dtype, shape)
}
#[track_caller]
fn f<'g>(g: &'g Graph, shape: &[u64]) -> Tensor<'g> {
    input(g, F32, shape)
}
#[track_caller]
fn i<'g>(g: &'g Graph, shape: &[u64]) -> Tensor<'g> {
    input(g, I32, shape)
}
#[track_caller]
fn b<'g>(g: &'g Graph, shape: &[u64]) -> Tensor<'g> {
    input(g, DType::Bool, shape)
}

/// What a case declares is of no use.
fn declare<T>(_: T) {}

struct Mistake {
    rule: &'static str,
    make: fn(&Graph),
    at: &'static Location<'static>,
}

#[track_caller]
fn mistake(rule: &'static str, make: fn(&Graph)) -> Mistake {
    Mistake { rule, make, at: Location::caller() }
}

fn mistakes() -> Vec<Mistake> {
    vec![
        mistake("add.C1", |g| declare(f(g, &[2, 3]).plus(i(g, &[3])))),
        mistake("add.C2", |g| declare(f(g, &[2, 3]).plus(f(g, &[2])))),
        mistake("sub.C1", |g| declare(f(g, &[2, 3]).minus(i(g, &[3])))),
        mistake("sub.C2", |g| declare(f(g, &[2, 3]).minus(f(g, &[2])))),
        mistake("mul.C1", |g| declare(f(g, &[2, 3]).times(i(g, &[3])))),
        mistake("mul.C2", |g| declare(f(g, &[2, 3]).times(f(g, &[2])))),
        mistake("div.C1", |g| declare(f(g, &[2, 3]).over(i(g, &[3])))),
        mistake("div.C2", |g| declare(f(g, &[2, 3]).over(f(g, &[2])))),
        mistake("maximum.C1", |g| declare(f(g, &[2, 3]).maximum(i(g, &[3])))),
        mistake("maximum.C2", |g| declare(f(g, &[2, 3]).maximum(f(g, &[2])))),
        mistake("minimum.C1", |g| declare(f(g, &[2, 3]).minimum(i(g, &[3])))),
        mistake("minimum.C2", |g| declare(f(g, &[2, 3]).minimum(f(g, &[2])))),
        mistake("lt.C1", |g| declare(f(g, &[2, 3]).lt(i(g, &[3])))),
        mistake("lt.C2", |g| declare(f(g, &[2, 3]).lt(f(g, &[2])))),
        mistake("le.C1", |g| declare(f(g, &[2, 3]).le(i(g, &[3])))),
        mistake("le.C2", |g| declare(f(g, &[2, 3]).le(f(g, &[2])))),
        mistake("eq.C1", |g| declare(f(g, &[2, 3]).eq(i(g, &[3])))),
        mistake("eq.C2", |g| declare(f(g, &[2, 3]).eq(f(g, &[2])))),
        mistake("ne.C1", |g| declare(f(g, &[2, 3]).ne(i(g, &[3])))),
        mistake("ne.C2", |g| declare(f(g, &[2, 3]).ne(f(g, &[2])))),
        mistake("pow.C1", |g| declare(f(g, &[2, 3]).pow(i(g, &[3])))),
        mistake("pow.C2", |g| declare(f(g, &[2, 3]).pow(f(g, &[2])))),
        mistake("neg.C1", |g| declare(b(g, &[2]).negated())),
        mistake("abs.C1", |g| declare(b(g, &[2]).abs())),
        mistake("sign.C1", |g| declare(b(g, &[2]).sign())),
        mistake("floor.C1", |g| declare(b(g, &[2]).floor())),
        mistake("relu.C1", |g| declare(b(g, &[2]).relu())),
        mistake("exp.C1", |g| declare(i(g, &[2]).exp())),
        mistake("log.C1", |g| declare(i(g, &[2]).log())),
        mistake("sqrt.C1", |g| declare(i(g, &[2]).sqrt())),
        mistake("sigmoid.C1", |g| declare(i(g, &[2]).sigmoid())),
        mistake("tanh.C1", |g| declare(i(g, &[2]).tanh())),
        mistake("sin.C1", |g| declare(i(g, &[2]).sin())),
        mistake("cos.C1", |g| declare(i(g, &[2]).cos())),
        mistake("erf.C1", |g| declare(i(g, &[2]).erf())),
        mistake("gelu.C1", |g| declare(i(g, &[2]).gelu())),
        mistake("is_nan.C1", |g| declare(i(g, &[2]).is_nan())),
        mistake("logical_not.C1", |g| declare(f(g, &[2]).logical_not())),
        mistake("select.C1", |g| declare(f(g, &[2]).select(f(g, &[2]), 0.0))),
        mistake("select.C2", |g| declare(b(g, &[3]).select(f(g, &[2]), 0.0))),
        mistake("matmul.C1", |g| declare(f(g, &[2]).matmul(f(g, &[2, 2])))),
        mistake("matmul.C2", |g| declare(f(g, &[4, 784]).matmul(f(g, &[748, 10])))),
        mistake("matmul.C3", |g| declare(f(g, &[2, 1, 1]).matmul(f(g, &[3, 1, 1])))),
        mistake("sum.C1", |g| declare(f(g, &[2, 3]).sum_over(&[0, -2]))),
        mistake("mean.C1", |g| declare(f(g, &[2, 3]).mean_over(&[0, -2]))),
        mistake("max.C1", |g| declare(f(g, &[2, 3]).max_over(&[0, -2]))),
        mistake("min.C1", |g| declare(f(g, &[2, 3]).min_over(&[0, -2]))),
        mistake("prod.C1", |g| declare(f(g, &[2, 3]).prod_over(&[0, -2]))),
        mistake("any.C1", |g| declare(b(g, &[2]).any_over(&[1]))),
        mistake("all.C1", |g| declare(b(g, &[2]).all_over(&[1]))),
        mistake("sum.C2", |g| declare(b(g, &[2]).sum())),
        mistake("max.C2", |g| declare(b(g, &[2]).max())),
        mistake("min.C2", |g| declare(b(g, &[2]).min())),
        mistake("prod.C2", |g| declare(b(g, &[2]).prod())),
        mistake("mean.C2", |g| declare(i(g, &[2]).mean())),
        mistake("any.C2", |g| declare(f(g, &[2]).any())),
        mistake("all.C2", |g| declare(f(g, &[2]).all())),
        mistake("argmax.C1", |g| declare(f(g, &[2, 3]).argmax(2))),
        mistake("argmax.C2", |g| declare(b(g, &[2]).argmax(0))),
        mistake("argmax.C3", |g| declare(f(g, &[2, 0]).argmax(-1))),
        mistake("argmin.C1", |g| declare(f(g, &[2, 3]).argmin(2))),
        mistake("argmin.C2", |g| declare(b(g, &[2]).argmin(0))),
        mistake("argmin.C3", |g| declare(f(g, &[2, 0]).argmin(-1))),
        mistake("reshape.C1", |g| declare(f(g, &[2, 3]).reshape([7]))),
        mistake("broadcast_to.C1", |g| declare(f(g, &[2, 3]).broadcast_to([2, 4]))),
        mistake("transpose.C1", |g| declare(f(g, &[2, 3]).transpose(&[0, 0]))),
        mistake("transpose.C1", |g| declare(f(g, &[2, 3]).transpose(&[1]))),
        mistake("slice.C1", |g| declare(f(g, &[2, 3]).slice(2, 0..1))),
        mistake("slice.C1", |g| declare(f(g, &[2, 3]).slice_by(0, 0..1, 0))),
        mistake("slice.C2", |g| declare(f(g, &[2, 3]).slice(0, 1..3))),
        mistake("slice.C2", |g| declare(g.input("x", F32, shape![g.dim("n", 1..=9)]).slice(0, 2..))),
        mistake("slice.C2", |g| declare(f(g, &[8]).slice(0, ..g.dim("n", 1..=9)))),
        mistake("slice.C3", |g| declare(g.input("x", F32, shape![g.dim("n", 1..=9)]).slice_by(0, 0u64.., 2))),
        mistake("pad.C1", |g| declare(f(g, &[2, 3]).pad([1], [1], 0.0))),
        mistake("pad.C2", |g| {
            declare(
                g.input("x", F32, shape![g.dim("n", 1..=9)])
                    .apply(Pad { low: [0].into(), high: [0].into(), inner: vec![1], value: 0.0 }, []),
            )
        }),
        mistake("concat.C1", |g| declare(concat(&[f(g, &[2]), i(g, &[2])], 0))),
        mistake("concat.C1", |g| declare(g.builder().apply(erase(Concat::default()), &[], Site::here()))),
        mistake("concat.C2", |g| declare(concat(&[f(g, &[2]), f(g, &[2])], 1))),
        mistake("concat.C3", |g| declare(concat(&[f(g, &[2, 3]), f(g, &[2, 4])], 0))),
        mistake("iota.C1", |g| declare(f(g, &[]).source(Iota { axis: 1, shape: [2].into(), dtype: I32 }))),
        mistake("iota.C2", |g| declare(f(g, &[]).source(Iota { axis: 0, shape: [2].into(), dtype: DType::Bool }))),
        mistake("extent.C1", |g| declare(f(g, &[]).source(Extent { shape: [2].into(), dtype: I32 }))),
        mistake("conv2d.C1", |g| declare(f(g, &[2, 4]).conv2d(f(g, &[6, 4, 3, 3]), Conv2d::default()))),
        mistake("conv2d.C1", |g| declare(f(g, &[2, 4, 5, 5]).conv2d(f(g, &[6, 4]), Conv2d::default()))),
        mistake("conv2d.C1", |g| {
            declare(
                g.input("x", F32, shape![2, 4, g.dim("h", 1..=9), 5]).conv2d(f(g, &[6, 4, 3, 3]), Conv2d::default()),
            )
        }),
        mistake("conv2d.C2", |g| declare(f(g, &[2, 4, 5, 5]).conv2d(f(g, &[6, 3, 3, 3]), Conv2d::default()))),
        mistake("conv2d.C2", |g| {
            declare(f(g, &[2, 4, 5, 5]).conv2d(f(g, &[5, 2, 3, 3]), Conv2d { groups: 2, ..Conv2d::default() }))
        }),
        mistake("conv2d.C3", |g| declare(f(g, &[2, 4, 5, 5]).conv2d(f(g, &[6, 4, 6, 3]), Conv2d::default()))),
        mistake("conv2d.C3", |g| {
            declare(f(g, &[2, 4, 5, 5]).conv2d(f(g, &[6, 4, 3, 3]), Conv2d { stride: [0, 1], ..Conv2d::default() }))
        }),
        mistake("conv2d_input_grad.C1", |g| {
            declare(
                f(g, &[2, 6])
                    .apply(Conv2dInputGrad { height: 5, width: 5, ..Default::default() }, [f(g, &[6, 4, 3, 3])]),
            )
        }),
        mistake("conv2d_input_grad.C1", |g| {
            declare(
                f(g, &[2, 6, 3, 3])
                    .apply(Conv2dInputGrad { height: 5, width: 5, ..Default::default() }, [i(g, &[6, 4, 3, 3])]),
            )
        }),
        mistake("conv2d_input_grad.C2", |g| {
            declare(
                f(g, &[2, 5, 3, 3])
                    .apply(Conv2dInputGrad { height: 5, width: 5, ..Default::default() }, [f(g, &[6, 4, 3, 3])]),
            )
        }),
        mistake("conv2d_input_grad.C3", |g| {
            declare(
                f(g, &[2, 6, 3, 4])
                    .apply(Conv2dInputGrad { height: 5, width: 5, ..Default::default() }, [f(g, &[6, 4, 3, 3])]),
            )
        }),
        mistake("conv2d_weight_grad.C1", |g| {
            declare(
                f(g, &[2, 4, 5, 5])
                    .apply(Conv2dWeightGrad { kernel: [3, 3], ..Default::default() }, [f(g, &[3, 6, 3, 3])]),
            )
        }),
        mistake("conv2d_weight_grad.C2", |g| {
            declare(
                f(g, &[2, 4, 5, 5])
                    .apply(Conv2dWeightGrad { groups: 4, kernel: [3, 3], ..Default::default() }, [f(g, &[2, 6, 3, 3])]),
            )
        }),
        mistake("conv2d_weight_grad.C3", |g| {
            declare(
                f(g, &[2, 4, 5, 5])
                    .apply(Conv2dWeightGrad { kernel: [3, 3], ..Default::default() }, [f(g, &[2, 6, 3, 4])]),
            )
        }),
        mistake("max_pool2d.C1", |g| declare(f(g, &[2, 4]).max_pool(2))),
        mistake("max_pool2d.C2", |g| declare(f(g, &[2, 4, 5, 5]).max_pool(6))),
        mistake("max_pool2d.C2", |g| declare(f(g, &[2, 4, 5, 5]).max_pool(0))),
        mistake("max_pool2d.C3", |g| {
            declare(f(g, &[2, 4, 5, 5]).max_pool2d(MaxPool2d { pad: [2, 0], ..Default::default() }))
        }),
        mistake("max_pool2d_grad.C1", |g| {
            declare(
                f(g, &[1, 1, 2, 2])
                    .apply(MaxPool2dGrad { height: 4, width: 4, ..Default::default() }, [f(g, &[1, 1, 2, 2])]),
            )
        }),
        mistake("max_pool2d_grad.C2", |g| {
            declare(
                f(g, &[1, 1, 2, 3])
                    .apply(MaxPool2dGrad { height: 4, width: 4, ..Default::default() }, [i(g, &[1, 1, 2, 3])]),
            )
        }),
        mistake("avg_pool2d.C1", |g| declare(f(g, &[2, 4]).avg_pool(2))),
        mistake("avg_pool2d.C2", |g| declare(f(g, &[2, 4, 5, 5]).avg_pool(6))),
        mistake("gather.C1", |g| declare(f(g, &[2, 3]).gather(f(g, &[2, 3]), 0))),
        mistake("gather.C2", |g| declare(f(g, &[2, 3]).gather(i(g, &[1]), 2))),
        mistake("scatter_add.C1", |g| declare(f(g, &[2, 3]).scatter_add(f(g, &[2, 3]), f(g, &[2, 3]), 0))),
        mistake("scatter_add.C2", |g| declare(f(g, &[2, 3]).scatter_add(i(g, &[1]), f(g, &[1, 3]), 2))),
        mistake("scatter_add.C3", |g| declare(f(g, &[2, 3]).scatter_add(i(g, &[1]), f(g, &[2, 3]), 0))),
        mistake("pick.C1", |g| declare(f(g, &[2, 3]).pick(f(g, &[2])))),
        mistake("pick.C2", |g| declare(f(g, &[2, 3]).pick(i(g, &[3])))),
        mistake("one_hot.C1", |g| declare(f(g, &[2]).one_hot(3, F32))),
        mistake("softmax.C1", |g| declare(f(g, &[2, 3]).softmax(2))),
        mistake("softmax.C2", |g| declare(i(g, &[2]).softmax(0))),
        mistake("log_softmax.C1", |g| declare(f(g, &[2, 3]).log_softmax(2))),
        mistake("log_softmax.C2", |g| declare(i(g, &[2]).log_softmax(0))),
        mistake("cross_entropy.C1", |g| declare(cross_entropy(i(g, &[2, 3]), i(g, &[2])))),
        mistake("cross_entropy.C2", |g| declare(cross_entropy(f(g, &[2, 3]), f(g, &[2, 3])))),
        mistake("cross_entropy.C3", |g| declare(cross_entropy(f(g, &[2, 3]), i(g, &[3])))),
        mistake("batch_norm.C1", |g| declare(BatchNorm::new().call(f(g, &[2, 3, 4])))),
        mistake("batch_norm.C2", |g| {
            declare(f(g, &[2, 3]).apply_all(batch_norm::BatchNorm::default(), [3, 3, 2, 3].map(|n| f(g, &[n]))))
        }),
        mistake("batch_norm.C3", |g| declare(BatchNorm::new().groups(3).call(f(g, &[2, 3])))),
        mistake("batch_norm.C3", |g| {
            declare(BatchNorm::new().groups(2).call(g.input("x", F32, shape![g.dim("n", 1..=8), 3])))
        }),
        mistake("layer_norm.C1", |g| {
            declare(i(g, &[2, 3]).apply(layer_norm::LayerNorm::default(), [3, 3].map(|n| f(g, &[n]))))
        }),
        mistake("layer_norm.C2", |g| {
            declare(f(g, &[2, 3]).apply(layer_norm::LayerNorm::default(), [2, 2].map(|n| f(g, &[n]))))
        }),
        mistake("layer_norm.C2", |g| declare(LayerNorm::new().call(f(g, &[])))),
        mistake("layer_norm.C3", |g| {
            declare(f(g, &[2, 3]).apply(layer_norm::LayerNorm::default(), [3, 2].map(|n| f(g, &[n]))))
        }),
        mistake("attention.C1", |g| declare(f(g, &[2, 3]).attention(f(g, &[3]), f(g, &[2, 3]), false))),
        mistake("attention.C2", |g| declare(f(g, &[4, 2, 3]).attention(f(g, &[2, 3]), f(g, &[2, 3]), false))),
        mistake("attention.C3", |g| declare(f(g, &[2, 3]).attention(f(g, &[2, 4]), f(g, &[2, 3]), false))),
        mistake("attention.C3", |g| declare(f(g, &[2, 3]).attention(f(g, &[2, 3]), f(g, &[4, 3]), false))),
        mistake("attention.C4", |g| declare(f(g, &[4, 3]).attention(f(g, &[2, 3]), f(g, &[2, 3]), true))),
        mistake("attention.C1", |g| {
            let op = Attention { interleaved: true, ..Default::default() };
            declare(f(g, &[2, 3]).apply(op, [f(g, &[2, 3]), f(g, &[2, 3])]))
        }),
        mistake("attention_grad.C1", |g| {
            let others = [&[4, 3][..], &[4, 3], &[2, 3], &[2], &[3]].map(|shape| f(g, shape));
            declare(f(g, &[2, 3]).apply(AttentionGrad::default(), others))
        }),
        mistake("uniform.C1", |g| declare(i(g, &[]).uniform(0, [2]))),
        mistake("dropout.C1", |g| declare(i(g, &[2]).dropout(0.5))),
        mistake("dropout.C2", |g| declare(f(g, &[2, 3]).apply(Dropout { p: 0.5, key: 0 }, [f(g, &[2, 3])]))),
        mistake("dropout.C3", |g| declare(f(g, &[2, 3]).dropout(1.0))),
        mistake("adamw.C1", |g| {
            declare(
                f(g, &[2])
                    .apply(AdamWStep::default(), [f(g, &[3]), f(g, &[2]), f(g, &[2]), f(g, &[]), f(g, &[]), f(g, &[])]),
            )
        }),
        mistake("adamw.C2", |g| {
            declare(
                f(g, &[2]).apply(
                    AdamWStep::default(),
                    [f(g, &[2]), f(g, &[2]), f(g, &[2]), f(g, &[]), f(g, &[2]), f(g, &[])],
                ),
            )
        }),
        mistake("sgd.C1", |g| declare(f(g, &[2]).apply(SgdStep::default(), [i(g, &[2]), f(g, &[2]), f(g, &[])]))),
        mistake("sgd.C2", |g| declare(f(g, &[2]).apply(SgdStep::default(), [f(g, &[2]), f(g, &[2]), f(g, &[2])]))),
        mistake("arity", |g| declare(f(g, &[2]).apply(SgdStep::default(), []))),
        mistake("gradient.C1", |g| declare(gradients(f(g, &[2, 3]), &[]))),
        mistake("minimize.C1", |g| declare(AdamW::new(0.1).minimize(f(g, &[2, 3]).sum()))),
    ]
}

/// The constraints that the ops' documentation numbers.
fn documented() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for family in std::fs::read_dir(root).expect("sources").map(|e| e.expect("an entry").path()).filter(|p| p.is_dir())
    {
        for file in std::fs::read_dir(family).expect("a family").map(|e| e.expect("an entry").path()) {
            let source = std::fs::read_to_string(file).expect("a source");
            let docs: Vec<_> = source.lines().map_while(|l| l.strip_prefix("//!")).collect();
            let Some(name) = docs[0].split('`').nth(1) else { continue };
            let numbers = docs.iter().filter_map(|l| l.trim().strip_prefix("* **C")?.split_once("**"));
            rules.extend(numbers.map(|(n, _)| format!("{name}.C{n}")));
        }
    }
    rules
}

#[track_caller]
fn mistakes_of(g: &Graph) -> Vec<Diagnostic> {
    g.finish().expect_err("there are mistakes")
}

#[test]
fn every_documented_constraint_has_a_case() {
    let covered: BTreeSet<String> = mistakes().iter().map(|m| m.rule.to_string()).collect();
    let missing: Vec<_> = documented().into_iter().filter(|rule| !covered.contains(rule)).collect();
    assert!(missing.is_empty(), "no case breaks {missing:?}");
    assert!(documented().len() > OPS.len(), "the documentation was not found");
    let ops: BTreeSet<_> = OPS.iter().map(|row| row.schema.name).collect();
    let unknown: Vec<_> =
        documented().into_iter().filter(|r| !ops.contains(r.split('.').next().unwrap_or(""))).collect();
    assert!(unknown.is_empty(), "documented, but of no op in the table: {unknown:?}");
}

#[test]
fn each_case_breaks_its_rule_only_and_on_its_own_line() {
    let all = mistakes();
    for (k, case) in all.iter().enumerate() {
        let g = Graph::new("mistaken");
        (case.make)(&g);
        let found = mistakes_of(&g);
        let rules: Vec<_> = found.iter().map(|d| d.code.as_str()).collect();
        assert_eq!(rules, [case.rule], "the case at {}: {found:?}", case.at);
        let end = all.get(k + 1).map_or(u32::MAX, |next| next.at.line());
        let site = &found[0].site;
        let here = &*site.file == case.at.file() && (case.at.line()..end).contains(&site.line);
        assert!(here, "{}: blamed on {site}, made at {}", case.rule, case.at);
    }
}

#[test]
fn a_gradient_of_what_has_none_is_blamed_on_the_op() {
    let g = Graph::new("mistaken");
    let p = f(&g, &[2]);
    let line = line!() + 1;
    let q = p.apply_all(SgdStep::default(), [p, p, f(&g, &[])])[0];
    gradients(q.sum(), &[p]);
    let found = mistakes_of(&g);
    assert_eq!((found[0].code.as_str(), found[0].site.line), ("gradient.C2", line));
    assert_eq!(found.len(), 1);
}

#[test]
fn all_mistakes_are_reported_at_once_and_echoes_are_not() {
    let g = Graph::new("mistaken");
    let x = g.input("x", F32, [2, 3]);
    let w = g.parameter("w", F32, [4, 5], Init::Constant(0.0));
    let h = x.matmul(w).relu();
    let lost = cross_entropy(h, g.input("labels", I32, [2])).mean();
    let y = x.reshape([5]);
    let z = x.softmax(7) + y;
    g.program("train").outputs([lost.named("loss"), z]).update(AdamW::new(0.1).minimize(lost));
    Linear::new(3).call(h);
    let rules: Vec<_> = mistakes_of(&g).into_iter().map(|d| d.code).collect();
    assert_eq!(rules, ["matmul.C2", "reshape.C1", "softmax.C1"]);
}

#[test]
fn mistakes_inside_layers_are_blamed_on_the_line_that_put_them_there() {
    let g = Graph::new("mistaken");
    let x = g.input("x", F32, [2, 3, 4, 4]);
    let first = line!() + 1;
    let body = Sequential::new("body").push("conv", nn::Conv2d::new(8, 5)).push("other", nn::Conv2d::new(8, 5));
    body.call(x);
    let second = line!() + 1;
    let sizes = Sequential::new("sizes").max_pool(9);
    sizes.call(x);
    let third = line!() + 1;
    nn::Conv2d::new(8, 1).call(g.input("rows", F32, [2, 3]));
    let fourth = line!() + 1;
    let twins = Sequential::new("twins").push("a", Linear::new(2)).push("a", Linear::new(2));
    twins.call(g.input("row", F32, [2, 3]));
    let found = mistakes_of(&g);
    let at: Vec<_> = found.iter().map(|d| (d.code.as_str(), d.site.line)).collect();
    let twice = ("variable", fourth);
    assert_eq!(at, [("conv2d.C3", first), ("max_pool2d.C2", second), ("conv2d.C1", third), twice, twice]);
    assert!(found.iter().all(|d| d.site.file.ends_with("mistakes.rs")));
    assert_eq!(found[0].notes, ["in scope `body.conv`"]);
}

#[test]
fn what_an_optimizer_cannot_do_it_says() {
    let g = Graph::new("mistaken");
    let w = g.parameter("w", F32, [2], Init::Constant(0.0));
    let vector = line!() + 1;
    Sgd::new(0.1).minimize(w);
    let (first, twice) = (AdamW::new(0.1), line!() + 2);
    first.minimize(w.sum());
    first.minimize(w.sum());
    let found: Vec<_> = mistakes_of(&g).iter().map(|d| (d.code.clone(), d.site.line)).collect();
    assert_eq!(found[0], ("gradient.C1".into(), vector));
    assert_eq!(found[1..], [("variable".into(), twice), ("variable".into(), twice)]);
}

/// `n-2` is an extent where `n` is 2 at least, for whoever reads the graph as well.
#[test]
fn bounds_of_a_dimension_say_what_may_be_cut_off() {
    let declared = |low: u64| {
        let g = Graph::new("cut");
        let n = g.dim("n", low..=9);
        let x = g.input("x", F32, shape![n, 4]);
        let w = g.parameter("w", F32, [9], Init::Constant(1.0));
        let rest = x.slice(0, 2..).sum_over(&[1]);
        let less = n.minus(&Dim::Fixed(2)).expect("it depends");
        let loss = (rest * w.slice(0, ..less)).sum().named("loss");
        g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
        g.finish()
    };
    let mut graph = declared(2).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
    assert_eq!(graph.verify(), []);
    let bytes = graph.to_bytes();
    graph.dims.insert("n".into(), (1, 9));
    let faults = graph.verify();
    assert!(faults[0].to_string().contains("n-2 may be negative"), "{faults:?}");
    let read = |bytes: &[u8]| thalweg_graph::Graph::from_bytes(bytes, &thalweg_ops::registry());
    assert!(read(&bytes).is_ok() && read(&graph.to_bytes()).is_err());
    // Nor is anything bound that is beyond what was declared.
    let bound = |n: u64| read(&bytes).expect("sound").bind(&[("n".into(), n)].into());
    assert!(bound(2).is_some() && bound(9).is_some() && bound(1).is_none() && bound(12).is_none());

    let mistakes = declared(1).expect_err("2.. of one");
    // Both slices reach beyond it.
    assert_eq!(mistakes.iter().map(|m| &*m.code).collect::<Vec<_>>(), ["slice.C2"; 2]);
    assert!(mistakes.iter().all(|m| m.help.as_deref() == Some("declare `n` with a minimum of 2; it is 1")));
    let g = Graph::new("input");
    let less = g.dim("n", 0..=9).minus(&Dim::Fixed(1)).expect("it depends");
    g.input("x", F32, shape![less]);
    assert_eq!(g.finish().expect_err("-1")[0].code, "dim");
}
