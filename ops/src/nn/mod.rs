//! What networks are made of: functions that are composites of simpler ops, and layers, which are functions with
//! parameters.

pub mod batch_norm;
pub mod cross_entropy;
pub mod layers;
pub mod log_softmax;
pub mod sequential;
pub mod softmax;

pub use cross_entropy::cross_entropy;
pub use layers::{AvgPool, BatchNorm, Conv2d, Dropout, Flatten, Layer, Linear, MaxPool};
pub use sequential::Sequential;
