//! What ops do at the edges: ties, NaN, infinities, nothing at all, places that do not exist. And meanings checked against
//! a second, plainer statement of them.

mod common;

use common::{compute, compute_in, f32s};
use thalweg_graph::kernel::philox;
use thalweg_graph::{Array, DType, Mode};
use thalweg_ops::OPS;
use thalweg_ops::autodiff::gradients;
use thalweg_ops::conv::conv2d::Conv2d;
use thalweg_ops::conv::max_pool2d::MaxPool2d;
use thalweg_ops::layout::concat;
use thalweg_ops::nn::attention::Attention;
use thalweg_ops::nn::batch_norm::BatchNorm;
use thalweg_ops::nn::cross_entropy;

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

#[track_caller]
fn same(array: &Array, want: &[f32]) {
    let have = array.as_slice::<f32>();
    let equal = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
    assert!(have.len() == want.len() && have.iter().zip(want).all(equal), "{have:?} is not {want:?}");
}

#[test]
fn of_equal_extremes_the_first_is_found_and_nan_wins() {
    let x = f32s(&[4, 3], &[1.0, 2.0, 2.0, NAN, INF, NAN, -INF, -INF, -INF, 0.0, -0.0, -1.0]);
    let [high, at, low, low_at] =
        &compute([x], |[x]| vec![x.max_over(&[1]), x.argmax(-1), x.min_over(&[1]), x.argmin(1)])[..]
    else {
        panic!()
    };
    same(high, &[2.0, NAN, -INF, 0.0]);
    assert_eq!(at.as_slice::<i32>(), [1, 0, 0, 0]);
    same(low, &[1.0, NAN, -INF, -1.0]);
    assert_eq!(low_at.as_slice::<i32>(), [0, 0, 0, 2]);
}

#[test]
fn folds_of_nothing_give_their_neutral_element() {
    let out = compute([f32s(&[0], &[]), Array::from_bools(&[0], &[])], |[x, b]| {
        vec![x.sum(), x.prod(), x.max(), x.min(), x.mean(), b.any().cast(DType::F32), b.all().cast(DType::F32)]
    });
    let out: Vec<f32> = out.iter().map(|a| a.item() as f32).collect();
    same(&f32s(&[7], &out), &[0.0, 1.0, -INF, INF, NAN, 0.0, 1.0]);
    assert!(out[0].is_sign_positive(), "an empty sum is +0");
}

#[test]
fn the_gradient_of_a_maximum_is_shared_between_ties() {
    let gradient = |x: &[f32]| compute([f32s(&[3], x)], |[x]| gradients(x.max(), &[x])).remove(0);
    same(&gradient(&[1.0, 3.0, 3.0]), &[0.0, 0.5, 0.5]);
    same(&gradient(&[1.0, 2.0, 3.0]), &[0.0, 0.0, 1.0]);
}

#[test]
fn the_gradient_of_a_product_survives_zeros() {
    let gradient = |x: &[f32]| compute([f32s(&[3], x)], |[x]| gradients(x.prod(), &[x])).remove(0);
    same(&gradient(&[0.0, 2.0, 3.0]), &[6.0, 0.0, 0.0]);
    same(&gradient(&[0.0, 0.0, 3.0]), &[0.0, 0.0, 0.0]);
}

#[test]
fn the_mean_of_truth_values_is_how_often_they_hold() {
    let out = compute([Array::from_bools(&[4], &[true, false, true, true])], |[b]| vec![b.mean()]);
    same(&out[0], &[0.75]);
}

#[test]
fn pooling_never_chooses_what_lies_outside_and_of_equals_the_first() {
    let pool = MaxPool2d { size: [2, 2], stride: [2, 2], pad: [1, 1] };
    let run = |plane: &[f32]| {
        compute([f32s(&[1, 1, 2, 2], plane)], |[x]| x.apply_all(pool.clone(), []))
            .try_into()
            .map(|[out, index]: [Array; 2]| (out, index.as_slice::<i32>().to_vec()))
            .expect("two results")
    };
    let (out, index) = run(&[-INF; 4]);
    same(&out, &[-INF; 4]);
    assert_eq!(index, [0, 1, 2, 3]);
    let (out, index) = run(&[-1.0, NAN, -3.0, -4.0]);
    same(&out, &[-1.0, NAN, -3.0, -4.0]);
    assert_eq!(index, [0, 1, 2, 3]);
    let ties = compute([f32s(&[1, 1, 2, 2], &[1.0, 7.0, 7.0, 7.0])], |[x]| {
        let all = x.apply_all(MaxPool2d::default(), []);
        vec![all[1], gradients(all[0].sum(), &[x])[0]]
    });
    assert_eq!(ties[0].as_slice::<i32>(), [1]);
    same(&ties[1], &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn places_that_do_not_exist_are_nan_or_zero_and_get_no_gradient() {
    let at = Array::from_slice(&[4], &[1i32, 3, -1, i32::MIN]);
    let out = compute([f32s(&[3], &[1.0, 2.0, 3.0]), at, Array::from_slice(&[3], &[1i32, 2, 3])], |[x, at, ints]| {
        let scattered = x.zeros_like().scatter_add(at, x.full(5.0, [4]), 0);
        let by_x = gradients(x.gather(at, 0).sum(), &[x])[0];
        vec![x.gather(at, 0), scattered, by_x, ints.gather(at, 0), at.one_hot(3, DType::F32).sum_over(&[-1])]
    });
    same(&out[0], &[2.0, NAN, NAN, NAN]);
    same(&out[1], &[0.0, 5.0, 0.0]);
    same(&out[2], &[0.0, 1.0, 0.0]);
    assert_eq!(out[3].as_slice::<i32>(), [2, 0, 0, 0]);
    same(&out[4], &[1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn repeated_indices_add_up() {
    let at = Array::from_slice(&[3], &[1i64, 1, 0]);
    let out = compute(
        [f32s(&[2, 2], &[0.0, 0.5, 1.0, 1.5]), at, f32s(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])],
        |[t, at, u]| vec![t.scatter_add(at, u, 0)],
    );
    same(&out[0], &[5.0, 6.5, 5.0, 7.5]);
}

#[test]
fn softmax_and_cross_entropy_stay_finite_where_exponentials_do_not() {
    let x = f32s(&[2, 2], &[1000.0, 0.0, -1000.0, -1000.0]);
    let out = compute([x, Array::from_slice(&[2], &[1i32, 0])], |[x, y]| {
        let loss = cross_entropy(x, y);
        vec![x.softmax(-1), x.log_softmax(1), loss, gradients(loss.sum(), &[x])[0]]
    });
    same(&out[0], &[1.0, 0.0, 0.5, 0.5]);
    let ln2 = 2f32.ln();
    same(&out[1], &[0.0, -1000.0, -ln2, -ln2]);
    same(&out[2], &[1000.0, ln2]);
    same(&out[3], &[1.0, -1.0, -0.5, 0.5]);
    let masked = compute([f32s(&[3], &[0.0, -INF, 0.0])], |[x]| vec![x.softmax(0)]);
    same(&masked[0], &[0.5, 0.0, 0.5]);
    let lost =
        compute([f32s(&[1, 2], &[0.0, 1.0]), Array::from_slice(&[1], &[2i32])], |[x, y]| vec![cross_entropy(x, y)]);
    same(&lost[0], &[NAN]);
}

#[test]
fn slices_pads_and_concatenations_are_what_they_say() {
    let out = compute([f32s(&[5], &[1.0, 2.0, 3.0, 4.0, 5.0]), f32s(&[0], &[])], |[x, none]| {
        let parts = [x.slice(0, 1..3), none, x.slice_by(0, 0.., 2)];
        vec![concat(&parts, 0), x.slice(-1, ..=0).pad([1], [2], 9.0)]
    });
    same(&out[0], &[2.0, 3.0, 1.0, 3.0, 5.0]);
    same(&out[1], &[9.0, 1.0, 9.0, 9.0]);
}

#[test]
fn convolution_is_the_sum_over_its_window() {
    for row in OPS.iter().filter(|row| row.schema.name == "conv2d") {
        for sample in (row.samples)() {
            let conv: &Conv2d = sample.op.as_any().downcast_ref().expect("a convolution");
            let arrays: Vec<Array> = sample.operands.iter().map(|(ty, data)| data.make(ty, 3)).collect();
            let [x, w]: [Array; 2] = arrays.try_into().expect("two operands");
            let out = compute([x.clone(), w.clone()], |[x, w]| vec![x.conv2d(w, conv.clone())]).remove(0);
            let (xs, ws) = (x.shape().to_vec(), w.shape().to_vec());
            let mut k = 0;
            for n in 0..xs[0] {
                for o in 0..ws[0] {
                    for y in 0..out.shape()[2] {
                        for z in 0..out.shape()[3] {
                            let mut sum = 0.0;
                            for c in 0..ws[1] {
                                for i in 0..ws[2] {
                                    for j in 0..ws[3] {
                                        let h = (y * conv.stride[0] + i * conv.dilation[0]).wrapping_sub(conv.pad[0]);
                                        let v = (z * conv.stride[1] + j * conv.dilation[1]).wrapping_sub(conv.pad[1]);
                                        let channel = o / (ws[0] / conv.groups) * ws[1] + c;
                                        if h < xs[2] && v < xs[3] {
                                            let at = ((n * xs[1] + channel) * xs[2] + h) * xs[3] + v;
                                            let weight = ((o * ws[1] + c) * ws[2] + i) * ws[3] + j;
                                            sum += x.get_f64(at as usize) * w.get_f64(weight as usize);
                                        }
                                    }
                                }
                            }
                            assert!(
                                (out.get_f64(k) - sum).abs() < 1e-5,
                                "{conv:?} at {k}: {} is not {sum}",
                                out.get_f64(k)
                            );
                            k += 1;
                        }
                    }
                }
            }
            assert_eq!(k, out.len());
        }
    }
}

#[test]
fn random_numbers_are_the_words_of_their_place_and_step() {
    let step = 5_000_000_000i64;
    let out = compute([Array::scalar(step)], |[step]| vec![step.uniform(77, [3, 5])]).remove(0);
    for (i, x) in out.as_slice::<f32>().iter().enumerate() {
        assert_eq!(*x, philox::unit_f32(philox::word(77, i as u64, step as u64)));
    }
}

#[test]
fn dropout_zeroes_in_training_and_its_gradient_draws_the_same() {
    let shape = [40u64, 50];
    let ones = || f32s(&shape, &[1.0; 2000]);
    let out = compute_in(Mode::Train, [ones()], |[x]| {
        let y = x.dropout(0.25);
        vec![y, gradients(y.sum(), &[x])[0], x.dropout(0.25)]
    });
    assert_eq!(out[0], out[1], "the gradient of a sum is 1/(1 − p) where the element stayed");
    assert_ne!(out[0], out[2], "each has a stream of its own");
    let zeros = out[0].as_slice::<f32>().iter().filter(|x| **x == 0.0).count();
    assert!((400..600).contains(&zeros), "{zeros} of 2000 are zero");
    assert!(out[0].as_slice::<f32>().iter().all(|x| *x == 0.0 || *x == 1.0 / 0.75));
    let idle = compute([ones()], |[x]| vec![x.dropout(0.25)]);
    assert_eq!(idle[0], ones());
}

#[test]
fn batch_norm_normalizes_each_block_and_moves_its_statistics() {
    let x = [1f32, 10.0, 3.0, 30.0, 100.0, 0.0, 104.0, 8.0];
    let arrays = || {
        let per_channel = |a, b| f32s(&[2], &[a, b]);
        [f32s(&[4, 2], &x), per_channel(1.0, 2.0), per_channel(0.0, 1.0), per_channel(5.0, 5.0), per_channel(4.0, 4.0)]
    };
    let op = BatchNorm { groups: 2, eps: 0.0, momentum: 0.5 };
    let run = |mode| {
        compute_in(mode, arrays(), |[x, weight, bias, mean, var]| x.apply_all(op.clone(), [weight, bias, mean, var]))
    };
    let out = run(Mode::Train);
    same(&out[0], &[-1.0, -1.0, 1.0, 3.0, -1.0, -1.0, 1.0, 3.0]);
    same(&out[1], &[0.5 * 5.0 + 0.5 * (2.0 + 102.0) / 2.0, 0.5 * 5.0 + 0.5 * (20.0 + 4.0) / 2.0]);
    // Unbiased variances: 2 and 8; 200 and 32.
    same(&out[2], &[0.5 * 4.0 + 0.5 * 5.0, 0.5 * 4.0 + 0.5 * 116.0]);
    let out = run(Mode::Infer);
    same(&out[0], &[-2.0, 6.0, -1.0, 26.0, 47.5, -4.0, 49.5, 4.0]);
    same(&out[1], &[5.0, 5.0]);
}

/// e^1600 is beyond f32 and f64: only differences of scores may be raised.
#[test]
fn attention_takes_scores_far_from_zero() {
    let arrays =
        [f32s(&[1, 1], &[40.0]), f32s(&[3, 1], &[-40.0, 40.0, 40.0]), f32s(&[3, 2], &[9., 9., 1., 2., 3., 6.])];
    let op = Attention::default();
    let [out, logsumexp] = &compute(arrays, |[query, key, value]| query.apply_all(op, [key, value]))[..] else {
        panic!("two results")
    };
    assert_eq!(out.to_f64(), [2.0, 4.0]);
    assert_eq!(logsumexp.to_f64(), [f64::from(1600.0 + std::f32::consts::LN_2)]);
}

/// What sees nothing is zero.
#[test]
fn attention_without_keys_is_zero() {
    let arrays = [f32s(&[2, 1], &[1.0, 2.0]), f32s(&[0, 1], &[]), f32s(&[0, 3], &[])];
    let op = Attention::default();
    let results = compute(arrays, |[query, key, value]| query.apply_all(op, [key, value]));
    assert_eq!(results[0].to_f64(), [0.0; 6]);
    assert_eq!(results[1].to_f64(), [f64::NEG_INFINITY; 2]);
}
