//! What networks are made of: functions that are composites of simpler ops, attention, and layers, which are functions with
//! parameters.

pub mod attention;
pub mod attention_grad;
pub mod batch_norm;
pub mod cross_entropy;
pub mod gelu;
pub mod layer_norm;
pub mod layers;
pub mod log_softmax;
pub mod sequential;
pub mod softmax;
pub mod transformer;

pub use cross_entropy::cross_entropy;
pub use layers::{AvgPool, BatchNorm, Conv2d, Dropout, Flatten, Layer, Linear, MaxPool, layer};
pub use sequential::Sequential;
pub use transformer::{Embedding, LayerNorm, SelfAttention, TransformerBlock};
