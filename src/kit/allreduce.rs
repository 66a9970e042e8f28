//! All-reduce over workers, as the kit has it: every rank has a row of `f32`, and gets the sum of all rows in its place. It
//! is no call of a library here but a plan: the additions are launches, and what crosses between them are channels. So
//! several calls in a row are one step, in which each adds the rows to the average that the one before it gave.

use thalweg_graph::{Array, DType::F32, Init, Reduction, Site, Strategy, VarKind};
use thalweg_ops::{Graph, Tensor, Update};

use crate::error::{Error, Result};
use crate::hosts::Hosts;
use crate::model::{Compile, Model};

/// What one run is of.
#[derive(Clone, Copy, Debug)]
pub struct AllReduce {
    /// Of each rank's row.
    pub bytes: u64,
    /// All-reduces in a step, each of which needs the result of the one before.
    pub calls: u32,
    /// In which order the rows are added up.
    pub reduction: Reduction,
}

/// It, compiled for workers.
pub struct Prepared {
    model: Model,
    what: AllReduce,
    world: u64,
}

impl AllReduce {
    /// Compiles it for these workers. The rows are zeros.
    ///
    /// # Errors
    /// If rows are no whole numbers of elements, and those of the workers.
    pub fn prepare(self, hosts: Hosts) -> Result<Prepared> {
        let world = hosts.cluster().devices.len() as u64;
        if self.bytes == 0 || !self.bytes.is_multiple_of(4) || self.calls == 0 {
            return Err(Error::Case(format!("{} bytes are no row of f32, or {} no calls", self.bytes, self.calls)));
        }
        let (g, shape) = (Graph::new("allreduce"), [world, self.bytes / 4]);
        let zeros = Init::Constant(0.0);
        let rows = g.builder().variable("rows", F32.of(shape), VarKind::Param, zeros, "", Site::here());
        let rows = rows.ok_or_else(|| Error::Case("the graph takes no variable".into()))?;
        let each = Tensor::new(g.builder(), g.builder().read(rows, Site::here()));
        let average = 1.0 / world as f64;
        let sum = (1..self.calls).fold(each.sum_over(&[0]), |sum, _| (each + sum * average).sum_over(&[0]));
        let in_place = sum.broadcast_to(shape).value();
        g.program("run").outputs([g.step().named("steps")]).update(Update { updates: vec![(rows, in_place)] });
        // Rank by rank a row of its own.
        let strategy =
            Strategy::data_parallel().tensor_parallel(world as u16).shard("rows", 0).reduction(self.reduction);
        let model = g.compile_on(hosts, &strategy)?;
        Ok(Prepared { model, what: self, world })
    }
}

impl Prepared {
    /// Runs one step on the rows `rank + 1` and looks at every element of every rank's result; then the rows are zeros.
    ///
    /// # Errors
    /// If a sum is wrong, and those of a step.
    pub fn check(&mut self) -> Result<()> {
        let (n, shape) = ((self.what.bytes / 4) as usize, [self.world, self.what.bytes / 4]);
        let own: Vec<f32> = (1..=self.world).flat_map(|rank| std::iter::repeat_n(rank as f32, n)).collect();
        self.model.set("rows", &Array::from_slice(&shape, &own))?;
        self.step()?;
        // The average of equal sums is their sum: each call adds the ranks' sum once more.
        let want = f64::from(self.what.calls) * (self.world * (self.world + 1) / 2) as f64;
        let got = self.model.get("rows")?;
        let wrong = got.as_slice::<f32>().iter().position(|x| f64::from(*x) != want);
        self.model.set("rows", &Array::zeros(F32, &shape))?;
        let Some(at) = wrong else { return Ok(()) };
        let (rank, element) = (at / n, at % n);
        let got = got.as_slice::<f32>()[at];
        Err(Error::Case(format!("the sum is wrong: element {element} of rank {rank} is {got}, not {want}")))
    }
    /// Runs a step.
    ///
    /// # Errors
    /// Those of a step.
    pub fn step(&mut self) -> Result<()> {
        self.model.run("run", &[]).map(drop)
    }
    /// Bytes that all ranks together have sent each other so far.
    pub fn bytes_sent(&self) -> u64 {
        self.model.bytes_sent()
    }
    /// Processes.
    pub fn world(&self) -> u64 {
        self.world
    }
}
