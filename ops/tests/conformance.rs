//! Every op on every sample of its own: what it says of itself (types, kernel, attributes, accuracy, gradient) must agree.
//! Driven by the table, so that a new op is tested by being in it.

mod common;

use std::collections::BTreeSet;

use common::{Applied, Ready, apply, noise};
use thalweg_graph::evaluate::Named;
use thalweg_graph::kernel::interpret::{Number, Precision, Values};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, DType, Mode};
use thalweg_ops::autodiff::vjp;
use thalweg_ops::sample::{DynSample, in_half};
use thalweg_ops::{Graph, OPS, Tensor, registry};

fn samples() -> impl Iterator<Item = DynSample> {
    OPS.iter().flat_map(|row| (row.samples)())
}

fn named(sample: &DynSample) -> String {
    let types: Vec<_> = sample.operands.iter().map(|(t, _)| t.to_string()).collect();
    format!("{} {:?} of {types:?}", sample.op.schema().name, sample.op)
}

fn types(sample: &DynSample) -> Vec<thalweg_graph::TensorType> {
    sample.operands.iter().map(|(t, _)| t.clone()).collect()
}

fn kernel(sample: &DynSample) -> Option<Kernel> {
    let results = sample.op.infer(&types(sample)).unwrap_or_else(|e| panic!("{}: {e}", named(sample)));
    let buffers = |types: &[thalweg_graph::TensorType]| types.iter().filter_map(BufferType::of).collect::<Vec<_>>();
    sample.op.lower(&buffers(&types(sample)), &buffers(&results))
}

#[test]
fn every_op_has_samples_and_its_own_name() {
    for (i, row) in OPS.iter().enumerate() {
        assert!(!(row.samples)().is_empty(), "{} has no samples", row.schema.name);
        assert!(OPS[..i].iter().all(|other| other.schema.name != row.schema.name), "two ops are `{}`", row.schema.name);
    }
}

#[test]
fn kernels_verify_and_write_what_infer_says() {
    for sample in samples() {
        let Some(kernel) = kernel(&sample) else { continue };
        assert_eq!(kernel.verify(), Vec::<String>::new(), "{}", named(&sample));
        let results: Vec<_> = kernel.results().iter().map(|b| b.to_string()).collect();
        let inferred: Vec<_> =
            sample.op.infer(&types(&sample)).expect("a sample is sound").iter().map(|t| t.to_string()).collect();
        assert_eq!(results, inferred, "{}", named(&sample));
        assert_eq!(results.len(), sample.op.schema().results.len(), "{}", named(&sample));
    }
}

#[test]
fn an_op_is_either_a_kernel_or_a_composition_of_its_own_type() {
    for sample in samples() {
        let g = Graph::new("expanded");
        let Applied { operands, results, .. } = apply(&g, &sample);
        let operands: Vec<_> = operands.iter().map(|t| t.value()).collect();
        for mode in [Mode::Train, Mode::Infer] {
            let expanded = sample.op.expand(g.builder(), &operands, mode);
            assert_ne!(expanded.is_some(), kernel(&sample).is_some(), "{}", named(&sample));
            let expanded = expanded.unwrap_or_default();
            let types: Vec<_> = expanded.iter().map(|v| g.builder().ty(*v)).collect();
            let want: Vec<_> = results.iter().take(expanded.len()).map(|t| t.ty()).collect();
            assert_eq!(types, want, "{}", named(&sample));
        }
        assert!(g.finish().is_ok(), "{} expands into mistakes", named(&sample));
    }
}

#[test]
fn attributes_come_back_from_what_is_written() {
    let registry = registry();
    for sample in samples() {
        let types = sample.op.infer(&types(&sample)).expect("a sample is sound");
        let back = registry.make(sample.op.schema().name, &sample.op.attrs(), &types);
        assert_eq!(*back.expect("it is made"), *sample.op, "{}", named(&sample));
        let bound = sample.op.bind(&Default::default()).expect("it binds");
        assert_eq!(*bound, *sample.op, "{}", named(&sample));
    }
}

fn largest(values: &[&Values]) -> f64 {
    values.iter().flat_map(|v| &v.data).map(|x| x.f64().abs()).filter(|x| x.is_finite()).fold(0.0, f64::max)
}

#[test]
fn rounding_stays_within_the_accuracy() {
    for sample in samples() {
        for mode in [Mode::Train, Mode::Infer] {
            let g = Graph::new("rounded");
            let Applied { results, feeds, .. } = apply(&g, &sample);
            let ready = Ready::new(&g, &results, mode);
            let run = |precision| ready.run(&feeds, precision);
            for (exact, reference) in run(Precision::Exact).iter().zip(run(Precision::Reference)) {
                let scale = largest(&feeds.values().collect::<Vec<_>>()).max(largest(&[&reference]));
                for (e, r) in exact.to_array().to_f64().into_iter().zip(reference.to_array().to_f64()) {
                    let close = match sample.op.schema().accuracy {
                        _ if e == r || (e.is_nan() && r.is_nan()) => true,
                        Accuracy::Exact => false,
                        Accuracy::Ulps(n) => (e - r).abs() <= f64::from(n) * scale * f64::from(f32::EPSILON),
                    };
                    assert!(close, "{}: {e} and {r} at scale {scale}", named(&sample));
                }
            }
        }
    }
}

/// The op rounds its results to a half, and what it makes on the way where it is made of other ops: within four times as
/// many of a half's ulps of the largest magnitude as it states of f32's.
#[test]
fn halves_stay_within_the_accuracy() {
    let mut ran = BTreeSet::new();
    for (half, ulp) in [(DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 128.0)] {
        for sample in samples() {
            let Some(sample) = in_half(&sample, half) else { continue };
            let g = Graph::new("rounded");
            let Applied { results, feeds, .. } = apply(&g, &sample);
            let ready = Ready::new(&g, &results, Mode::Train);
            let run = |precision| ready.run(&feeds, precision);
            for (exact, reference) in run(Precision::Exact).iter().zip(run(Precision::Reference)) {
                let scale = largest(&feeds.values().collect::<Vec<_>>()).max(largest(&[&reference]));
                for (e, r) in exact.to_array().to_f64().into_iter().zip(reference.to_array().to_f64()) {
                    let close = match sample.op.schema().accuracy {
                        _ if e == r || (e.is_nan() && r.is_nan()) => true,
                        Accuracy::Exact => false,
                        Accuracy::Ulps(n) => (e - r).abs() <= 4.0 * f64::from(n) * scale * ulp,
                    };
                    assert!(close, "{}: {e} and {r} at scale {scale}", named(&sample));
                }
            }
            ran.insert(sample.op.schema().name);
        }
    }
    println!("{} ops in halves: {ran:?}", ran.len());
    assert!(ran.len() > 45, "nearly every op takes halves: {ran:?}");
}

/// Moves operand `k` by `h` along `direction`.
fn moved(feeds: &Named, k: usize, direction: &Values, h: f64) -> Named {
    let mut feeds = feeds.clone();
    let x = feeds.get_mut(&*format!("x{k}")).expect("an operand");
    for (x, d) in x.data.iter_mut().zip(&direction.data) {
        *x = Number::Float(x.f64() + h * d.f64());
    }
    feeds
}

fn dot(a: &Values, b: &Values) -> f64 {
    a.data.iter().zip(&b.data).map(|(a, b)| a.f64() * b.f64()).sum()
}

/// Compares the gradients of scalar `loss` by float `operands` with central differences in f64.
fn compare(
    g: &Graph,
    what: &str,
    loss: Tensor<'_>,
    wrt: &[(usize, Tensor<'_>)],
    gradients: &[Tensor<'_>],
    feeds: &Named,
) -> Vec<String> {
    let mut wrong = vec![];
    let outputs: Vec<_> = [loss].into_iter().chain(gradients.iter().copied()).collect();
    let ready = Ready::new(g, &outputs, Mode::Train);
    let at = |feeds: &Named| ready.run(feeds, Precision::Reference);
    let here = at(feeds);
    for ((k, operand), gradient) in wrt.iter().zip(&here[1..]) {
        let direction = noise(&operand.ty(), 1000 + *k as u64);
        let step = 1e-5;
        let [above, below] = [step, -step].map(|h| at(&moved(feeds, *k, &direction, h))[0].data[0].f64());
        let (differences, analytic) = ((above - below) / (2.0 * step), dot(gradient, &direction));
        let size = differences.abs().max(analytic.abs()).max(here[0].data[0].f64().abs()).max(1.0);
        let error = (differences - analytic).abs() / size;
        if error.is_nan() || error >= 1e-6 {
            wrong.push(format!("{what}, operand {k}: differences {differences}, gradient {analytic}"));
        }
    }
    wrong
}

/// `Σ results · noise`, the noise being inputs `{prefix}0…`, so that it can be differentiated too.
fn weighted<'g>(g: &'g Graph, prefix: &str, values: &[Tensor<'g>], feeds: &mut Named) -> Tensor<'g> {
    let floats = values.iter().filter(|t| t.dtype().is_float());
    let terms = floats.enumerate().map(|(i, t)| {
        let name = format!("{prefix}{i}");
        feeds.insert(name.as_str().into(), noise(&t.ty(), 31 + i as u64));
        (*t * g.input(&name, t.dtype(), t.shape())).sum().cast(DType::F32)
    });
    terms.reduce(|a, b| a + b).expect("a float result")
}

fn float_operands<'g>(operands: &[Tensor<'g>]) -> Vec<(usize, Tensor<'g>)> {
    operands.iter().copied().enumerate().filter(|(_, t)| t.dtype().is_float()).collect()
}

/// Every differentiable sample's gradient of this order against differences of the order below.
#[track_caller]
fn check_order(order: usize) {
    let mut wrong = vec![];
    for sample in samples().filter(|s| s.differentiable) {
        let g = Graph::new("differentiated");
        let Applied { operands, results, mut feeds } = apply(&g, &sample);
        let wrt = float_operands(&operands);
        let targets: Vec<_> = wrt.iter().map(|(_, t)| *t).collect();
        let (mut loss, mut gradients) = (None, results);
        for n in 0..order {
            let sum = weighted(&g, &format!("ct{n}_"), &gradients, &mut feeds);
            loss = Some(sum);
            gradients = vjp(&[(sum, sum.ones_like())], &targets);
        }
        wrong.extend(compare(&g, &named(&sample), loss.expect("order ≥ 1"), &wrt, &gradients, &feeds));
    }
    assert!(wrong.is_empty(), "{} samples are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn gradients_are_what_differences_say() {
    check_order(1);
}

#[test]
fn gradients_have_gradients() {
    check_order(2);
}

/// What is found for an operand is from all its places; counted once for each of them, it would be too much.
#[test]
fn an_operand_in_several_places_gets_its_cotangent_once() {
    for order in [1, 2] {
        let g = Graph::new("thrice");
        let x = g.input("x0", DType::F32, [5, 2]);
        let mut feeds = Named::from([("x0".into(), noise(&x.ty(), 9))]);
        let (mut gradients, mut loss) = (vec![x.attention(x, x, true)], None);
        for n in 0..order {
            let sum = weighted(&g, &format!("ct{n}_"), &gradients, &mut feeds);
            (gradients, loss) = (vjp(&[(sum, sum.ones_like())], &[x]), Some(sum));
        }
        let loss = loss.expect("order ≥ 1");
        let wrong = compare(&g, &format!("order {order}"), loss, &[(0, x)], &gradients, &feeds);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

#[test]
fn graphs_of_every_sample_and_its_gradient_are_sound_and_come_back_from_text_and_bytes() {
    let registry = registry();
    for sample in samples() {
        let g = Graph::new("written");
        let Applied { operands, results, mut feeds } = apply(&g, &sample);
        let mut outputs = results.clone();
        if sample.differentiable {
            let loss = weighted(&g, "ct", &results, &mut feeds);
            let targets: Vec<_> = float_operands(&operands).into_iter().map(|(_, t)| t).collect();
            outputs.extend(vjp(&[(loss, loss.ones_like())], &targets));
        }
        let outputs = outputs.iter().enumerate().map(|(i, t)| (format!("o{i}").into(), t.value())).collect();
        g.builder().program("tested", outputs, vec![], thalweg_graph::Site::default());
        let graph = g.finish().expect("no mistakes");
        assert_eq!(thalweg_graph::verify::verify(&graph), [], "{}", named(&sample));
        let text = graph.to_string();
        let back = thalweg_graph::Graph::parse(&text, &registry).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(back, graph, "{text}");
        assert_eq!(thalweg_graph::Graph::from_bytes(&graph.to_bytes(), &registry).as_ref(), Ok(&graph), "{text}");
        if let Some(kernel) = kernel(&sample) {
            assert_eq!(Kernel::parse(&kernel.to_string()), Ok(kernel), "{}", named(&sample));
        }
    }
}
