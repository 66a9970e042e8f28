//! The table of ops: one visible row each. Text, bytes and every test go through it; nothing is collected by magic.

use thalweg_graph::op::Registry;

use crate::op::OpRow;
use crate::{layout, linalg, math, reduce};

/// Every op of this crate.
pub const OPS: &[OpRow] = &[
    OpRow::of::<layout::broadcast_to::BroadcastTo>(),
    OpRow::of::<layout::full::Full>(),
    OpRow::of::<layout::reshape::Reshape>(),
    OpRow::of::<linalg::matmul::MatMul>(),
    OpRow::of::<math::cast::Cast>(),
    OpRow::of::<math::select::Select>(),
    OpRow::of::<math::abs::Abs>(),
    OpRow::of::<math::add::Add>(),
    OpRow::of::<math::cos::Cos>(),
    OpRow::of::<math::div::Div>(),
    OpRow::of::<math::eq::Eq>(),
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
    OpRow::of::<math::sigmoid::Sigmoid>(),
    OpRow::of::<math::sign::Sign>(),
    OpRow::of::<math::sin::Sin>(),
    OpRow::of::<math::sqrt::Sqrt>(),
    OpRow::of::<math::sub::Sub>(),
    OpRow::of::<math::tanh::Tanh>(),
    OpRow::of::<reduce::sum::Sum>(),
];

/// A registry of the structural ops and all of [`OPS`]; add rows of your own with [`OpRow::register`].
pub fn registry() -> Registry {
    let mut registry = Registry::structural();
    OPS.iter().for_each(|row| row.register(&mut registry));
    registry
}
