//! Learning rates over time: a factor of the rate as a function of the number of updates so far. It is computed in the
//! graph from the step counter, which is a variable, so that a resumed run goes on where the rate was.

use crate::tensor::Tensor;

/// `Schedule::cosine(10_000).warmup(500).floor(0.1)`: what the learning rate is multiplied by, update by update.
///
/// ```
/// use thalweg_ops::{Graph, nn::*, optim::{AdamW, Schedule}};
/// use thalweg_graph::{DType::F32, shape};
///
/// let g = Graph::new("line");
/// let loss = Linear::new(1).call(g.input("x", F32, shape![8, 3])).mean().named("loss");
/// let optimizer = AdamW::new(1e-3).schedule(Schedule::cosine(1000).warmup(100)).clip_norm(1.0);
/// g.program("train").outputs([loss]).update(optimizer.minimize(loss));
/// assert!(g.finish().is_ok());
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    course: Course,
    warmup: u64,
    floor: f64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Course {
    Constant,
    Linear { updates: u64 },
    Cosine { updates: u64 },
    Steps { every: u64, factor: f64 },
}

impl Schedule {
    fn new(course: Course) -> Self {
        Self { course, warmup: 0, floor: 0.0 }
    }
    /// 1 throughout: for [`Schedule::warmup`] alone.
    pub fn constant() -> Self {
        Self::new(Course::Constant)
    }
    /// From 1 to the floor along a line, in so many updates after the warm-up.
    pub fn linear(updates: u64) -> Self {
        Self::new(Course::Linear { updates })
    }
    /// From 1 to the floor along half a cosine (Loshchilov and Hutter, *SGDR*, ICLR 2017), in so many updates after the
    /// warm-up.
    pub fn cosine(updates: u64) -> Self {
        Self::new(Course::Cosine { updates })
    }
    /// Times `factor` after every so many updates.
    pub fn steps(every: u64, factor: f64) -> Self {
        Self::new(Course::Steps { every, factor })
    }
    /// Rises along a line to 1 over the first so many updates: the k-th of them (from 1) has k / updates.
    pub fn warmup(mut self, updates: u64) -> Self {
        self.warmup = updates;
        self
    }
    /// What it never falls below; 0 otherwise.
    pub fn floor(mut self, floor: f64) -> Self {
        self.floor = floor;
        self
    }
    /// The factor of the update after `updates` of them; floats without axes.
    pub(super) fn factor<'g>(&self, updates: Tensor<'g>) -> Tensor<'g> {
        let x = updates;
        let after = (x - self.warmup as f64).maximum(0.0);
        let part = |updates: u64| (after / updates.max(1) as f64).minimum(1.0);
        let fall = |part: Tensor<'g>| part * (1.0 - self.floor) + self.floor;
        let course = match self.course {
            Course::Constant => x.ones_like(),
            Course::Linear { updates } => fall(-part(updates) + 1.0),
            Course::Cosine { updates } => fall((part(updates) * std::f64::consts::PI).cos() * 0.5 + 0.5),
            Course::Steps { every, factor } => {
                x.scalar_like(factor).pow((after / every.max(1) as f64).floor()).maximum(self.floor)
            }
        };
        if self.warmup == 0 { course } else { ((x + 1.0) / self.warmup as f64).minimum(1.0) * course }
    }
}
