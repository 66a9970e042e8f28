//! Update rules as graph: an optimizer differentiates a loss and says what each variable becomes. Slots are variables like
//! any other, so that checkpoints, placement and drawings need to know nothing of optimizers.

pub mod adamw;
mod loss_scale;
mod optimizer;
mod schedule;
pub mod sgd;

use thalweg_graph::{DType, TensorType};

pub use adamw::AdamW;
pub use loss_scale::LossScale;
pub use optimizer::{Optimizer, Rule, Step};
pub use schedule::Schedule;
pub use sgd::Sgd;

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
