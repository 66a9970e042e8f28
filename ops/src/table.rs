//! The table of ops: one visible row each. Text, bytes and every test go through it; nothing is collected by magic.

use thalweg_graph::op::Registry;

use crate::op::OpRow;
use crate::{conv, index, layout, linalg, math, nn, optim, random, reduce};

/// Every op of this crate.
pub const OPS: &[OpRow] = &[
    OpRow::of::<conv::avg_pool2d::AvgPool2d>(),
    OpRow::of::<conv::conv2d::Conv2d>(),
    OpRow::of::<conv::conv2d_input_grad::Conv2dInputGrad>(),
    OpRow::of::<conv::conv2d_weight_grad::Conv2dWeightGrad>(),
    OpRow::of::<conv::max_pool2d::MaxPool2d>(),
    OpRow::of::<conv::max_pool2d_grad::MaxPool2dGrad>(),
    OpRow::of::<index::gather::Gather>(),
    OpRow::of::<index::one_hot::OneHot>(),
    OpRow::of::<index::pick::Pick>(),
    OpRow::of::<index::scatter_add::ScatterAdd>(),
    OpRow::of::<layout::broadcast_to::BroadcastTo>(),
    OpRow::of::<layout::concat::Concat>(),
    OpRow::of::<layout::extent::Extent>(),
    OpRow::of::<layout::full::Full>(),
    OpRow::of::<layout::iota::Iota>(),
    OpRow::of::<layout::pad::Pad>(),
    OpRow::of::<layout::reshape::Reshape>(),
    OpRow::of::<layout::slice::Slice>(),
    OpRow::of::<layout::transpose::Transpose>(),
    OpRow::of::<linalg::matmul::MatMul>(),
    OpRow::of::<math::abs::Abs>(),
    OpRow::of::<math::add::Add>(),
    OpRow::of::<math::cast::Cast>(),
    OpRow::of::<math::cos::Cos>(),
    OpRow::of::<math::div::Div>(),
    OpRow::of::<math::eq::Eq>(),
    OpRow::of::<math::erf::Erf>(),
    OpRow::of::<math::exp::Exp>(),
    OpRow::of::<math::floor::Floor>(),
    OpRow::of::<math::is_nan::IsNan>(),
    OpRow::of::<math::le::Le>(),
    OpRow::of::<math::log::Log>(),
    OpRow::of::<math::logical_not::LogicalNot>(),
    OpRow::of::<math::lt::Lt>(),
    OpRow::of::<math::maximum::Maximum>(),
    OpRow::of::<math::minimum::Minimum>(),
    OpRow::of::<math::mul::Mul>(),
    OpRow::of::<math::ne::Ne>(),
    OpRow::of::<math::neg::Neg>(),
    OpRow::of::<math::pow::Pow>(),
    OpRow::of::<math::relu::Relu>(),
    OpRow::of::<math::select::Select>(),
    OpRow::of::<math::sigmoid::Sigmoid>(),
    OpRow::of::<math::sign::Sign>(),
    OpRow::of::<math::sin::Sin>(),
    OpRow::of::<math::sqrt::Sqrt>(),
    OpRow::of::<math::sub::Sub>(),
    OpRow::of::<math::tanh::Tanh>(),
    OpRow::of::<nn::attention::Attention>(),
    OpRow::of::<nn::attention_grad::AttentionGrad>(),
    OpRow::of::<nn::batch_norm::BatchNorm>(),
    OpRow::of::<nn::cross_entropy::CrossEntropy>(),
    OpRow::of::<nn::gelu::Gelu>(),
    OpRow::of::<nn::layer_norm::LayerNorm>(),
    OpRow::of::<nn::log_softmax::LogSoftmax>(),
    OpRow::of::<nn::softmax::Softmax>(),
    OpRow::of::<optim::adamw::AdamWStep>(),
    OpRow::of::<optim::sgd::SgdStep>(),
    OpRow::of::<random::dropout::Dropout>(),
    OpRow::of::<random::uniform::Uniform>(),
    OpRow::of::<reduce::all::All>(),
    OpRow::of::<reduce::any::Any>(),
    OpRow::of::<reduce::argmax::ArgMax>(),
    OpRow::of::<reduce::argmin::ArgMin>(),
    OpRow::of::<reduce::max::Max>(),
    OpRow::of::<reduce::mean::Mean>(),
    OpRow::of::<reduce::min::Min>(),
    OpRow::of::<reduce::prod::Prod>(),
    OpRow::of::<reduce::sum::Sum>(),
];

/// A registry of the structural ops and all of [`OPS`]; add rows of your own with [`OpRow::register`].
pub fn registry() -> Registry {
    let mut registry = Registry::structural();
    OPS.iter().for_each(|row| row.register(&mut registry));
    registry
}
