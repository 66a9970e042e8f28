//! [`Sequential`]: layers one after the other, each in a scope of its name, so that parameters are called
//! `body.conv1.weight`. Remembers the line of each `.push`: a mistake inside a layer is the fault of that line.

use thalweg_graph::Site;

use super::layers::{Dropout, Flatten, Layer, MaxPool};
use crate::Tensor;

/// Layers one after the other.
///
/// ```
/// use thalweg_graph::{DType::F32, shape};
/// use thalweg_ops::{Graph, nn::*};
///
/// let g = Graph::new("digits").seed(0);
/// let image = g.input("image", F32, shape![g.dim("batch", 1..=512), 1, 8, 8]);
/// let body = Sequential::new("body")
///     .push("conv1", Conv2d::new(16, 3).pad(1)).relu().max_pool(2)
///     .flatten().dropout(0.3)
///     .push("head", Linear::new(10));
/// let logits = body.call(image);
/// assert_eq!(logits.ty().to_string(), "f32[batch, 10]");
/// assert!(g.finish().unwrap().variable("body.conv1.weight").is_some());
/// ```
pub struct Sequential {
    name: String,
    steps: Vec<Step>,
}

struct Step {
    /// The scope it opens; none for layers without parameters.
    name: Option<String>,
    layer: Box<dyn Layer>,
    site: Site,
}

impl Sequential {
    /// Nothing yet, in the scope `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), steps: vec![] }
    }
    #[track_caller]
    fn then_in(mut self, name: Option<String>, layer: impl Layer + 'static) -> Self {
        self.steps.push(Step { name, layer: Box::new(layer), site: Site::here() });
        self
    }
    /// And then `layer`, in the scope `name`. A closure goes through [`layer`](super::layer). Bare it fails to compile
    /// ("implementation of `FnOnce` is not general enough"): only a bound that is `Fn` tells Rust that a closure takes any
    /// lifetime, and the bound here is `Layer`.
    ///
    /// ```
    /// # use thalweg_graph::{DType::F32, shape};
    /// # use thalweg_ops::{Graph, nn::*};
    /// # let g = Graph::new("gated");
    /// let body = Sequential::new("body").push("gate", layer(|x| x * Linear::new(8).call(x).sigmoid()));
    /// body.call(g.input("x", F32, shape![4, 8]));
    /// assert!(g.finish().unwrap().variable("body.gate.weight").is_some());
    /// ```
    #[track_caller]
    pub fn push(self, name: &str, layer: impl Layer + 'static) -> Self {
        self.then_in(Some(name.into()), layer)
    }
    /// And then a function without parameters: `.then(|x| x.relu())`.
    #[track_caller]
    pub fn then(self, function: impl for<'g> Fn(Tensor<'g>) -> Tensor<'g> + 'static) -> Self {
        self.then_in(None, function)
    }
    /// And then `max(x, 0)`.
    #[track_caller]
    pub fn relu(self) -> Self {
        self.then(|x| x.relu())
    }
    /// And then the hyperbolic tangent.
    #[track_caller]
    pub fn tanh(self) -> Self {
        self.then(|x| x.tanh())
    }
    /// And then `x · Φ(x)`.
    #[track_caller]
    pub fn gelu(self) -> Self {
        self.then(|x| x.gelu())
    }
    /// And then the largest element of each window of `size` × `size`, side by side.
    #[track_caller]
    pub fn max_pool(self, size: u64) -> Self {
        self.then_in(None, MaxPool::new(size))
    }
    /// And then all axes but the batch made one.
    #[track_caller]
    pub fn flatten(self) -> Self {
        self.then_in(None, Flatten)
    }
    /// And then random zeros in training.
    #[track_caller]
    pub fn dropout(self, p: f64) -> Self {
        self.then_in(None, Dropout(p))
    }
}

impl Layer for Sequential {
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let graph = x.graph();
        graph.scope(&self.name, || {
            self.steps.iter().fold(x, |x, step| {
                let call = || graph.at_site(step.site.clone(), || step.layer.call(x));
                match &step.name {
                    Some(name) => graph.scope(name, call),
                    None => call(),
                }
            })
        })
    }
}
