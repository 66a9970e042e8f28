//! A strategy as placement takes it: which leaf is on which device in which stage, where inputs and parameters are cut, where
//! layers are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Strategy, StrategyError};
use crate::cluster::Cluster;
use crate::ir::{Graph, Node, Pin, Program, VarKind, Variable};
use crate::passes::{STANDARD, run_passes, select_program};
use crate::place::balance::{StageOn, balance, layers};
use crate::place::{Mesh, Request};
use crate::structural::{Input, ReadVariable};
use crate::types::{Bindings, Dim};
use crate::verify::is_name;

impl Strategy {
    /// What it says of `graph` on the devices of `cluster`.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn request(&self, graph: &Graph, cluster: &Cluster) -> Result<Request, StrategyError> {
        if self.is_auto() {
            return Err(StrategyError::Undecided);
        }
        let mesh = self.grid(cluster)?;
        let (inputs, variables) = (self.inputs(graph, &mesh)?, self.variables(graph, &mesh)?);
        let (owns_slots, reduction) = (self.shards_state, self.reduction);
        let mut request = Request { inputs, variables, owns_slots, reduction, ..Request::new(mesh) };
        self.place_stages(graph, cluster, &mut request)?;
        request.keep_apart(graph);
        Ok(request)
    }

    /// How inputs are spread: as this says, else as the model says; and along their rows where these are a batch, unless one of
    /// both says otherwise of them.
    fn inputs(&self, graph: &Graph, mesh: &Mesh) -> Result<Axes, StrategyError> {
        let mut inputs = Axes::new();
        let rows = |axis| one(mesh, 0, axis);
        for program in &graph.programs {
            let batch = batch(graph, program);
            for (_, input) in graph.inputs_of(program) {
                if batch.as_ref().is_some_and(|b| input.ty.shape.first() == Some(b)) {
                    inputs.insert(input.name.clone(), rows(Some(0)));
                }
            }
        }
        for (name, mut axes) in self.said(graph, mesh, |node| node.op_as::<Input>().map(|input| input.name.clone()))? {
            let rows = inputs.get(&name).and_then(|axes| axes[0]);
            axes[0] = axes[0].or(rows.filter(|rows| !axes.contains(&Some(*rows))));
            inputs.insert(name, axes);
        }
        for (name, axis) in &self.inputs {
            let all = graph.programs.iter().flat_map(|p| graph.inputs_of(p));
            let found = all.clone().find(|(_, input)| input.name == *name).map(|(_, input)| &input.ty);
            let Some(ty) = found else {
                let known = all.map(|(_, i)| format!("`{}`", i.name)).collect();
                return Err(StrategyError::NoInput { name: name.clone(), known });
            };
            if let Some(axis) = axis.filter(|a| usize::from(*a) >= ty.rank()) {
                return Err(StrategyError::NoAxis { name: name.clone(), ty: ty.to_string(), axis });
            }
            inputs.insert(name.clone(), rows(*axis));
        }
        Ok(inputs)
    }

    /// How parameters are spread: as this says, else as the model says.
    fn variables(&self, graph: &Graph, mesh: &Mesh) -> Result<Axes, StrategyError> {
        let read = |node: &Node| node.op_as::<ReadVariable>().map(|read| read.variable.clone());
        let mut variables = self.said(graph, mesh, read)?;
        let last = self.inner.last().and_then(|(name, _)| mesh.axes.iter().position(|(known, _)| known == name));
        for (pattern, axis) in self.shards.iter().filter(|_| self.width() > 1) {
            let means = |v: &&Variable| v.kind == VarKind::Param && v.is_meant(pattern);
            let mut found = graph.state.values().iter().filter(means).peekable();
            if found.peek().is_none() {
                return Err(StrategyError::NoParameter { name: pattern.clone() });
            }
            for variable in found {
                if usize::from(*axis) >= variable.ty.rank() {
                    let (name, ty) = (variable.name.clone(), variable.ty.to_string());
                    return Err(StrategyError::NoAxis { name, ty, axis: *axis });
                }
                variables.insert(variable.name.clone(), one(mesh, last.unwrap_or(0), last.and(Some(*axis))));
            }
        }
        Ok(variables)
    }

    /// What the model says of nodes that have a `name`.
    fn said(
        &self,
        graph: &Graph,
        mesh: &Mesh,
        name: impl Fn(&Node) -> Option<Arc<str>>,
    ) -> Result<Axes, StrategyError> {
        let is_mesh_said = self.batch.1.is_some() || !self.inner.is_empty();
        let names = || [&self.batch.0].into_iter().chain(self.inner.iter().map(|(name, _)| name));
        let mut said = Axes::new();
        for node in graph.nodes.values() {
            let Some(sharding) = &node.sharding else { continue };
            if let Some(axis) = sharding.iter().flatten().find(|axis| is_mesh_said && !names().any(|n| n == *axis)) {
                let known = names().map(|name| format!("`{name}`")).collect();
                let (label, site, axis) = (node.label(), node.site.clone(), axis.clone());
                return Err(StrategyError::NoMeshAxis { label, site, axis, known });
            }
            said.extend(name(node).map(|name| (name, mesh.spread_over(sharding))));
        }
        Ok(said)
    }

    /// The leaves, and which device hosts each in each stage of a pipeline.
    fn grid(&self, cluster: &Cluster) -> Result<Mesh, StrategyError> {
        let (width, stages) = (self.width(), self.stages);
        self.check_mesh()?;
        let devices = cluster.devices.len().saturating_sub(self.server_count());
        if let Some(device) = &self.alone {
            let at = cluster.devices.iter().position(|d| d.name == *device);
            let at = at.ok_or_else(|| StrategyError::NotThere { device: device.clone(), known: names(cluster) })?;
            let leaves = self.leaves.unwrap_or(1).max(1);
            let mesh = Mesh::line(&self.batch.0, leaves, 1);
            return Ok(Mesh { stages: vec![vec![at as u16; leaves.into()]], ..mesh });
        }
        if devices == 0 && self.servers.is_some() {
            return Err(StrategyError::Servers { servers: self.server_count(), devices: cluster.devices.len() });
        }
        let per_stage = devices / usize::from(stages);
        let groups = u16::try_from(per_stage).unwrap_or(u16::MAX) / width;
        if groups == 0 || usize::from(groups) * usize::from(width) * usize::from(stages) != devices {
            return Err(StrategyError::Width { width: width.saturating_mul(stages), devices });
        }
        if let Some(said) = self.batch.1.filter(|said| *said != groups) {
            let (axes, asked) = (self.axes_said(), usize::from(said) * usize::from(width) * usize::from(stages));
            return Err(StrategyError::MeshDevices { axes, asked, devices });
        }
        let of_pipelines = || groups.saturating_mul(self.microbatch_count());
        let leaves = self.leaves.unwrap_or_else(|| if stages > 1 { of_pipelines() } else { groups });
        if leaves < groups {
            return Err(StrategyError::Leaves { leaves, devices: usize::from(groups) });
        }
        let mut mesh = match &self.shares[..] {
            [] => Mesh::line(&self.batch.0, leaves, groups),
            shares if shares.len() != usize::from(groups) => {
                return Err(StrategyError::Shares { shares: shares.len(), groups: groups.into() });
            }
            shares => Mesh::in_proportion(&self.batch.0, leaves, shares)
                .ok_or_else(|| StrategyError::NoLeaf { leaves, shares: shares.to_vec() })?,
        };
        if width > 1 {
            // Nothing is cut along an axis of one device: as if it were not there.
            mesh.axes.extend(self.inner.iter().filter(|(_, devices)| *devices > 1).cloned());
            let wide = mesh.stages[0].iter().flat_map(|host| (0..width).map(move |j| host * width + j));
            mesh.stages = vec![wide.collect()];
        }
        let first = mesh.stages.remove(0);
        mesh.stages = (0..stages).map(|s| first.iter().map(|d| s * groups * width + d).collect()).collect();
        self.beside_servers(&mut mesh, cluster)?;
        Ok(mesh)
    }

    /// # Errors
    /// If what was said is no grid.
    fn check_mesh(&self) -> Result<(), StrategyError> {
        let names: Vec<&Arc<str>> =
            [&self.batch.0].into_iter().chain(self.inner.iter().map(|(name, _)| name)).collect();
        let twice = names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
        let empty = self.batch.1 == Some(0) || self.inner.iter().any(|(_, devices)| *devices == 0);
        if empty || twice || names.iter().any(|name| !is_name(name)) {
            return Err(StrategyError::Mesh { axes: self.axes_said() });
        }
        Ok(())
    }

    /// Where the layers of a pipeline are cut, what is pinned, and where variables live then.
    fn place_stages(&self, graph: &Graph, cluster: &Cluster, request: &mut Request) -> Result<(), StrategyError> {
        if self.server_count() > 0 {
            return self.serve(graph, cluster.devices.len(), request);
        }
        let stages = &mut request.stages;
        (stages.pipeline, stages.schedule) = (if self.stages > 1 { self.stages } else { 0 }, self.schedule);
        let mut declared = 0;
        for node in graph.nodes.values() {
            match &node.pin {
                Some(Pin::Stage(stage)) => declared = declared.max(stage.saturating_add(1)),
                Some(Pin::On(device)) => {
                    let Some(at) = cluster.devices.iter().position(|d| d.name == *device) else {
                        let (label, site, device) = (node.label(), node.site.clone(), device.clone());
                        return Err(StrategyError::NoDevice { label, site, device, known: names(cluster) });
                    };
                    if !stages.named.contains_key(device) {
                        stages.named.insert(device.clone(), request.mesh.stages.len() as u16);
                        request.mesh.stages.push(vec![at as u16; request.mesh.leaves()]);
                    }
                }
                None => {}
            }
        }
        if stages.pipeline > 0 && declared == 0 {
            let on = |stage: u16| {
                let device = request.mesh.device(stage, 0);
                let next = request.mesh.device((stage + 1).min(self.stages - 1), 0);
                StageOn {
                    rates: cluster.devices[usize::from(device)].rates(),
                    bytes_per_second: cluster.way(device, next).1,
                }
            };
            let on: Vec<StageOn> = (0..self.stages).map(on).collect();
            let cut = typical(graph, &Bindings::new()).and_then(|bound| balance(&layers(graph), &bound, &on));
            stages.stems = cut.ok_or(StrategyError::TooFewLayers { stages: self.stages })?;
        } else if stages.pipeline > 0 && declared != self.stages {
            return Err(StrategyError::Stages { declared, asked: self.stages });
        }
        if request.mesh.stages.len() > 1 {
            stages.settle(graph);
        }
        Ok(())
    }
}

/// Per axis of the mesh, which axis of a tensor is spread over it, by the tensor's name.
type Axes = BTreeMap<Arc<str>, Vec<Option<u16>>>;

/// Spread over one axis of the mesh only.
fn one(mesh: &Mesh, m: usize, axis: Option<u16>) -> Vec<Option<u16>> {
    (0..mesh.axes.len()).map(|other| axis.filter(|_| other == m)).collect()
}

pub(super) fn names(cluster: &Cluster) -> Vec<String> {
    cluster.devices.iter().map(|d| format!("`{}`", d.name)).collect()
}

/// The program that learns, or else the first, in primitives and for extents of a usual size, where none are said: what
/// strategies are judged by.
pub(crate) fn typical(graph: &Graph, said: &Bindings) -> Option<Graph> {
    let program = graph.programs.iter().find(|p| !p.updates.is_empty()).or(graph.programs.first())?;
    let alone = select_program(graph, &program.name)?;
    let extent = |(name, (low, high)): (&Arc<str>, &(u64, u64))| {
        (name.clone(), said.get(name).copied().unwrap_or_else(|| 64.clamp(*low, *high)))
    };
    run_passes(&alone, STANDARD, &mut |_, _| {}).bind(&graph.dims.iter().map(extent).collect())
}

/// The dimension that most inputs of a program begin with: a named one rather than a number, then the first.
fn batch(graph: &Graph, program: &Program) -> Option<Dim> {
    let leading: Vec<Dim> =
        graph.inputs_of(program).into_iter().filter_map(|(_, i)| i.ty.shape.first().cloned()).collect();
    let worth = |dim: &Dim| (dim.fixed().is_none(), leading.iter().filter(|d| *d == dim).count());
    let mut best: Option<&Dim> = None;
    for dim in &leading {
        if best.is_none_or(|b| worth(dim) > worth(b)) {
            best = Some(dim);
        }
    }
    best.cloned()
}
