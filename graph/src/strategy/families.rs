//! What [`Strategy::auto`] chooses among.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Strategy;
use crate::cluster::Cluster;
use crate::ir::Graph;

impl Strategy {
    /// What is worth looking at on a cluster, the simple before the involved. Of a family each is looked at only if the one before
    /// it was worth it: the first that is slower than its neighbour ends it.
    pub(crate) fn families(&self, graph: &Graph, cluster: &Cluster) -> Vec<Vec<Strategy>> {
        let n = cluster.devices.len();
        let mut all: Vec<Vec<Strategy>> = vec![];
        // Of equal devices one is as good as another.
        let mut known = vec![];
        for device in &cluster.devices {
            let facts = (device.kind, device.threads, device.memory_bytes, device.rates);
            if !known.contains(&facts) {
                known.push(facts);
                all.push(vec![self.like(Strategy::alone(&device.name))]);
            }
        }
        if n < 2 {
            return all;
        }
        let dp = self.like(Strategy::data_parallel());
        if dp.batch.1.is_some() || !dp.inner.is_empty() {
            return vec![vec![dp.clone()], vec![dp.shard_state()]];
        }
        all.push(vec![dp.clone()]);
        for shares in proportions(cluster) {
            let leaves = self.leaves.unwrap_or(shares.iter().sum());
            all.push(vec![dp.clone().leaves(leaves).shares(&shares)]);
        }
        all.push(vec![dp.clone().shard_state()]);
        let divides = |k: &usize| n.is_multiple_of(*k);
        let axes = axes_named(graph, &dp.batch.0);
        let axes = if axes.is_empty() && !self.shards.is_empty() { vec!["tp".into()] } else { axes };
        for axis in &axes {
            // What is to be cut along other axes is whole along these, which have one device.
            let extent = |name: &Arc<str>, width| (name.clone(), if name == axis { width } else { 1 });
            let inner = |width| axes.iter().map(|name| extent(name, width)).collect();
            let wide = |width: usize| Strategy { inner: inner(width as u16), ..dp.clone() };
            all.push((2..=n).filter(divides).map(wide).collect());
        }
        for stages in (2..=n).filter(divides) {
            let pipeline = self.like(Strategy::pipeline(stages as u16));
            let per_stage: &[usize] = if self.leaves.is_some() { &[4] } else { &[2, 4, 8, 16] };
            all.push(per_stage.iter().map(|m| pipeline.clone().microbatches((stages * m) as u16)).collect());
        }
        all
    }
    /// `other`, with what this says of leaves, sums, the mesh, parameters and inputs.
    fn like(&self, other: Self) -> Self {
        let (shards, inputs) = (self.shards.clone(), self.inputs.clone());
        let (batch, inner) = (self.batch.clone(), self.inner.clone());
        Self { leaves: self.leaves, reduction: self.reduction, batch, inner, shards, inputs, ..other }
    }
}

/// The axes of meshes that a model names, in order, other than that of batches.
fn axes_named(graph: &Graph, batch: &Arc<str>) -> Vec<Arc<str>> {
    let mut named: Vec<Arc<str>> = vec![];
    for axis in graph.nodes.values().iter().flat_map(|n| n.sharding.iter().flat_map(|s| s.iter().flatten())) {
        if axis != batch && !named.contains(axis) {
            named.push(axis.clone());
        }
    }
    named
}

/// Small whole numbers in which devices of unequal speed may share leaves.
fn proportions(cluster: &Cluster) -> Vec<Vec<u16>> {
    let speed: Vec<f64> = cluster.devices.iter().map(|d| d.rates().product_flops * d.threads.max(1) as f64).collect();
    let (all, least) = (speed.iter().sum::<f64>(), speed.iter().copied().fold(f64::INFINITY, f64::min));
    if speed.iter().all(|s| *s == least) {
        return vec![];
    }
    let share = |leaves: usize| -> Vec<u16> {
        speed.iter().map(|s| (s / all * leaves as f64).round().max(1.0) as u16).collect()
    };
    let n = speed.len();
    let found: BTreeSet<Vec<u16>> = [n + 1, 2 * n, 4 * n].into_iter().map(share).collect();
    found.into_iter().filter(|s| s.iter().any(|x| *x != s[0])).collect()
}
