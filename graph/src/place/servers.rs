//! Parameter servers: devices that keep parameters and what optimizers keep of them, and compute nothing but updates. That is
//! a placement and no protocol: a parameter is [owned](Spread::Owned) by devices that host no leaves, in a stage of their own.
//! What workers read of it is brought together from its owners, at the opening of the body; what leaves have of its gradient
//! in parts is added up by its owners, by the same tree that all-reduces use. So the bits are those of data parallel, on any
//! number of servers (Li et al., *Scaling Distributed Machine Learning with the Parameter Server*, OSDI 2014).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{GRAIN, Home, Request, Spread, kept_of};
use crate::ir::{Graph, VarKind, Variable};
use crate::kernel::BufferType;

/// Parameters of fewer bytes are not cut: a message more would take longer than what it saves.
const WHOLE_BYTES: u64 = 16 << 10;

/// The stage of a mesh in which leaves are computed, where there are servers.
pub(crate) const WORKERS: u16 = 0;
/// The stage in which variables are kept and updated.
pub(crate) const SERVERS: u16 = 1;

/// What servers promise of the parameters that a worker reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Consistency {
    /// Every worker reads, in each step, what all gradients of the step before have made of them.
    #[default]
    Sync,
}

/// What servers keep.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Servers {
    /// By variable: where the share of each device of the cluster begins, in elements, and the end.
    pub cuts: BTreeMap<Arc<str>, Arc<[u64]>>,
    /// What is promised of them.
    pub consistency: Consistency,
}

impl Servers {
    /// The parameters of `graph` and their slots over `servers`, some of `devices` devices: all parameters end to end, cut into
    /// as many even stretches of bytes. At most one parameter less than there are servers is on two of them or more.
    pub(crate) fn over(graph: &Graph, servers: &[u16], devices: usize) -> Self {
        // Of what has no elements there is nothing to share out.
        let typed = |v: &Variable| BufferType::of(&v.ty).filter(|ty| is_kept(v) && !ty.is_empty());
        let parameters = || graph.state.values().iter().filter(|v| v.kind == VarKind::Param);
        let total: u64 = parameters().filter_map(typed).map(|ty| ty.size_bytes()).sum();
        let mut made = Self { cuts: BTreeMap::new(), consistency: Consistency::default() };
        let mut before = 0;
        for variable in parameters() {
            let Some(ty) = typed(variable) else { continue };
            let (elements, bytes) = (ty.len() as u64, ty.size_bytes());
            let begin = |server: usize| {
                if server == servers.len() {
                    return elements;
                }
                let at = (u128::from(total) * server as u128 / servers.len() as u128) as u64;
                let inside = at.saturating_sub(before).min(bytes);
                match bytes < WHOLE_BYTES {
                    // To the server that more of it would be on.
                    true if 2 * inside < bytes => 0,
                    true => elements,
                    false => (inside / ty.dtype.size_bytes() as u64) / GRAIN * GRAIN,
                }
            };
            // A stretch that begins where the next one does is empty.
            let begins: Vec<u64> = (0..=servers.len()).map(|s| if s == 0 { 0 } else { begin(s) }).collect();
            made.cuts.insert(variable.name.clone(), over_devices(&begins, servers, devices));
            before += bytes;
        }
        for variable in graph.state.values().iter().filter(|v| v.kind == VarKind::Slot) {
            let Some(ty) = typed(variable) else { continue };
            let elements = ty.len() as u64;
            let of = kept_of(variable).find_map(|name| made.cuts.get(name));
            let alike = of.filter(|cuts| cuts.last() == Some(&elements)).cloned();
            // What is kept of no parameter, or of another size than it, is on the first server.
            let cuts = alike.unwrap_or_else(|| {
                let mut begins = vec![elements; servers.len() + 1];
                begins[0] = 0;
                over_devices(&begins, servers, devices)
            });
            made.cuts.insert(variable.name.clone(), cuts);
        }
        made
    }
    /// How a variable is spread, if servers keep it.
    pub(super) fn spread(&self, variable: &Variable) -> Option<Spread> {
        Some(Spread::Owned { cuts: self.cuts.get(&variable.name)?.clone() })
    }
}

impl Request {
    /// Has parameters and slots kept by `servers`, the devices of the mesh's second stage in ascending order, of `devices` in
    /// all; what else there is remains with the workers. Counters are everywhere: everybody counts alike.
    pub fn serve(&mut self, graph: &Graph, servers: &[u16], devices: usize) {
        for variable in graph.state.values() {
            let (stage, why) = match variable.kind {
                VarKind::Counter => (None, "everybody counts alike"),
                _ if is_kept(variable) => (Some(SERVERS), "servers keep parameters and what is kept of them"),
                _ => (Some(WORKERS), "it follows from what workers see"),
            };
            self.stages.homes.insert(variable.name.clone(), Home { stage, why: why.into() });
        }
        self.servers = Some(Servers::over(graph, servers, devices));
    }
}

/// Whether servers keep such variables.
fn is_kept(variable: &Variable) -> bool {
    matches!(variable.kind, VarKind::Param | VarKind::Slot)
}

/// Where the share of every device begins, given where those of the servers do, which are in ascending order.
fn over_devices(begins: &[u64], servers: &[u16], devices: usize) -> Arc<[u64]> {
    let before = |device: usize| servers.iter().filter(|s| usize::from(**s) < device).count();
    (0..=devices).map(|device| begins[before(device)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::ir::Init;

    fn graph(variables: &[(&str, VarKind, &[u64])]) -> Graph {
        let variable = |(name, kind, shape): &(&str, VarKind, &[u64])| Variable {
            name: (*name).into(),
            ty: DType::F32.of(*shape),
            kind: *kind,
            init: Init::Constant(0.0),
            group: "".into(),
        };
        Graph { state: variables.iter().map(variable).collect(), ..Graph::default() }
    }

    /// Two large ones of which the second is cut, one between them that is too small to be.
    #[test]
    fn parameters_are_spread_by_bytes_and_slots_go_with_them() {
        use VarKind::{Param, Slot};
        let graph = graph(&[
            ("a", Param, &[10_000]),
            ("b", Param, &[100]),
            ("c", Param, &[200, 100]),
            ("sgd.v.c", Slot, &[200, 100]),
            ("scale", Slot, &[]),
            ("nothing", Param, &[0, 5]),
        ]);
        // Device 1 is none of them.
        let servers = Servers::over(&graph, &[0, 2], 3);
        let cuts = |name: &str| servers.cuts[name].to_vec();
        assert_eq!(cuts("a"), [0, 10_000, 10_000, 10_000]);
        assert_eq!(cuts("b"), [0, 100, 100, 100]);
        // Half of 30,100 elements are 15,050; behind the first two that is the 4,950th, of which 4,944 is a multiple of 16.
        assert_eq!(cuts("c"), [0, 4_944, 4_944, 20_000]);
        assert_eq!(cuts("sgd.v.c"), cuts("c"));
        assert_eq!(cuts("scale"), [0, 1, 1, 1]);
        assert!(!servers.cuts.contains_key("nothing"));
        let whole = Servers::over(&graph, &[2], 3);
        assert_eq!(whole.cuts["c"].to_vec(), [0, 0, 0, 20_000]);
    }
}
