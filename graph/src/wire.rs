//! Canonical bytes, and the hash that names a value by them. Not a dump of memory: ops are named, source lines are left
//! out, and one value has exactly one spelling, so that equal hashes mean equal graphs and `from_bytes` accepts only
//! what `to_bytes` would have written. Bytes from a stranger are decoded without trust and verified before they are
//! returned.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attrs::{AttrError, AttrList};
use crate::id::{Arena, Id};
use crate::ir::{DimBounds, Graph, Node, NodeId, Pin, Program, Sharding, Site, Value, VarId, Variable};
use crate::kernel::Kernel;
use crate::op::Registry;
use crate::plan::Plan;
use crate::types::Types;
use crate::verify::Fault;

/// How graphs are framed.
pub const GRAPH: Format = Format { magic: *b"TW.graph", version: 4 };
/// How kernels are framed.
pub const KERNEL: Format = Format { magic: *b"TW.kernl", version: 2 };
/// How plans are framed.
pub const PLAN: Format = Format { magic: *b"TW.plans", version: 2 };

/// What stands before the bytes of one kind of thing. Change the version whenever the types behind it change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// The first eight bytes.
    pub magic: [u8; 8],
    /// The next four, little-endian.
    pub version: u32,
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WireError {
    /// Another kind of thing, or nothing of ours.
    #[error("these bytes do not begin with {:?}", String::from_utf8_lossy(expected))]
    Magic {
        /// What they should begin with.
        expected: [u8; 8],
    },
    /// Written by an older or newer build.
    #[error("format version {found}, but this build reads version {expected}")]
    Version {
        /// What the bytes say.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// The bytes end too early.
    #[error("the bytes end in the middle, after {0}")]
    Truncated(usize),
    /// The bytes go on behind the value.
    #[error("{count} bytes follow the value, which ends at byte {at}")]
    Trailing {
        /// Where the value ends.
        at: usize,
        /// How many bytes follow.
        count: usize,
    },
    /// Nonsense at some byte.
    #[error("malformed at byte {at}: {why}")]
    Malformed {
        /// How far decoding came.
        at: usize,
        /// What is wrong.
        why: String,
    },
    /// The value is fine, but it has another spelling that is the one to use.
    #[error("these bytes are not in canonical form")]
    NotCanonical,
    /// A node's op cannot be made.
    #[error("node {node}: {source}")]
    Op {
        /// The node.
        node: NodeId,
        /// Why not.
        source: AttrError,
    },
    /// A graph with faults.
    #[error("an unsound graph: {}", lines(.0))]
    UnsoundGraph(Vec<Fault>),
    /// A kernel with faults.
    #[error("an unsound kernel: {}", lines(.0))]
    UnsoundKernel(Vec<String>),
    /// A plan with faults.
    #[error("an unsound plan: {}", lines(.0))]
    UnsoundPlan(Vec<String>),
}

fn lines<T: fmt::Display>(faults: &[T]) -> String {
    faults.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

impl Format {
    const HEAD: usize = 12;

    /// The canonical bytes of `value`.
    ///
    /// # Panics
    /// If `T` cannot be serialized, which holds of no type of this crate.
    pub fn encode<T: Serialize>(&self, value: &T) -> Vec<u8> {
        let mut bytes = Vec::from(self.magic);
        bytes.extend(self.version.to_le_bytes());
        postcard::to_extend(value, bytes).expect("plain data is serialized into memory")
    }

    /// The value whose canonical bytes these are.
    pub fn decode<T: Serialize + DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, WireError> {
        let value = self.decode_any_spelling(bytes)?;
        if self.encode(&value) == bytes { Ok(value) } else { Err(WireError::NotCanonical) }
    }

    fn decode_any_spelling<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, WireError> {
        let known = bytes.len().min(self.magic.len());
        if bytes[..known] != self.magic[..known] {
            return Err(WireError::Magic { expected: self.magic });
        }
        let head = bytes.split_at_checked(Self::HEAD).ok_or(WireError::Truncated(bytes.len()))?;
        let version = head.0[self.magic.len()..].try_into().map(u32::from_le_bytes).expect("twelve less eight is four");
        if version != self.version {
            return Err(WireError::Version { found: version, expected: self.version });
        }
        let mut from = postcard::Deserializer::from_bytes(head.1);
        let value = T::deserialize(&mut from);
        let left = from.finalize().map_or(0, <[u8]>::len);
        let at = bytes.len() - left;
        match value {
            Ok(value) if left == 0 => Ok(value),
            Ok(_) => Err(WireError::Trailing { at, count: left }),
            Err(postcard::Error::DeserializeUnexpectedEnd) => Err(WireError::Truncated(bytes.len())),
            Err(error) => Err(WireError::Malformed { at, why: error.to_string() }),
        }
    }
}

/// The BLAKE3 hash of canonical bytes: a name for what they say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
impl fmt::Display for Hash {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A graph as it travels: ops by name.
#[derive(Serialize, Deserialize)]
struct WireGraph {
    name: Arc<str>,
    seed: u64,
    dims: Vec<(Arc<str>, DimBounds)>,
    state: Arena<VarId, Variable>,
    nodes: Vec<WireNode>,
    programs: Vec<Program>,
    pins: Vec<(NodeId, Pin)>,
    shardings: Vec<(NodeId, Sharding)>,
}

#[derive(Serialize, Deserialize)]
struct WireNode {
    op: String,
    attrs: AttrList,
    operands: Vec<Value>,
    types: Types,
    scope: Arc<str>,
    name: Option<Arc<str>>,
    origin: Option<Arc<str>>,
}

impl WireNode {
    fn of(node: &Node) -> Self {
        Self {
            op: node.op.schema().name.to_string(),
            attrs: node.op.attrs(),
            operands: node.operands.clone(),
            types: node.types.clone(),
            scope: node.scope.clone(),
            name: node.name.clone(),
            origin: node.origin.clone(),
        }
    }
    fn into_node(self, registry: &Registry, stem: u32) -> Result<Node, AttrError> {
        let op = registry.make(&self.op, &self.attrs, &self.types)?;
        let Self { operands, types, scope, name, origin, .. } = self;
        Ok(Node { op, operands, types, scope, name, origin, pin: None, sharding: None, stem, site: Site::default() })
    }
}

impl Graph {
    /// Canonical bytes; source lines are not among them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let pins = self.nodes.iter().filter_map(|(id, node)| Some((id, node.pin.clone()?)));
        let shardings = self.nodes.iter().filter_map(|(id, node)| Some((id, node.sharding.clone()?)));
        self.encode(pins.collect(), shardings.collect())
    }
    fn encode(&self, pins: Vec<(NodeId, Pin)>, shardings: Vec<(NodeId, Sharding)>) -> Vec<u8> {
        GRAPH.encode(&WireGraph {
            name: self.name.clone(),
            seed: self.seed,
            dims: self.dims.iter().map(|(name, bounds)| (name.clone(), *bounds)).collect(),
            state: self.state.clone(),
            nodes: self.nodes.values().iter().map(WireNode::of).collect(),
            programs: self.programs.clone(),
            pins,
            shardings,
        })
    }
    /// The graph whose canonical bytes these are, verified; its ops are looked up in `registry`.
    pub fn from_bytes(bytes: &[u8], registry: &Registry) -> Result<Graph, WireError> {
        let WireGraph { name, seed, dims, state, nodes, programs, pins, shardings } =
            GRAPH.decode_any_spelling(bytes)?;
        let nodes = nodes.into_iter().enumerate().map(|(i, node)| {
            node.into_node(registry, i as u32).map_err(|source| WireError::Op { node: NodeId(i as u32), source })
        });
        let mut nodes: Arena<NodeId, Node> = nodes.collect::<Result<_, _>>()?;
        if pins.iter().map(|(id, _)| id).chain(shardings.iter().map(|(id, _)| id)).any(|id| id.index() >= nodes.len()) {
            return Err(WireError::NotCanonical);
        }
        pins.into_iter().for_each(|(id, pin)| nodes[id].pin = Some(pin));
        shardings.into_iter().for_each(|(id, sharding)| nodes[id].sharding = Some(sharding));
        let graph = Graph { name, seed, dims: dims.into_iter().collect(), nodes, state, programs };
        let faults = graph.verify();
        if !faults.is_empty() {
            return Err(WireError::UnsoundGraph(faults));
        }
        // Only now, with the ops made: an attribute that is spelled out but equals its default counts as well.
        if graph.to_bytes() == bytes { Ok(graph) } else { Err(WireError::NotCanonical) }
    }
    /// The name of what this graph computes. Where it is to run, and how it is to be spread, is no part of that.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.encode(vec![], vec![]))
    }
}

impl Kernel {
    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        KERNEL.encode(self)
    }
    /// The kernel whose canonical bytes these are, verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<Kernel, WireError> {
        let kernel: Kernel = KERNEL.decode(bytes)?;
        let faults = kernel.verify();
        if faults.is_empty() { Ok(kernel) } else { Err(WireError::UnsoundKernel(faults)) }
    }
    /// The name of what this kernel says.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }
}

impl Plan {
    /// Canonical bytes; source lines are not among them, labels are.
    pub fn to_bytes(&self) -> Vec<u8> {
        PLAN.encode(self)
    }
    /// The plan whose canonical bytes these are, verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan, WireError> {
        let plan: Plan = PLAN.decode(bytes)?;
        let faults = plan.verify();
        if faults.is_empty() { Ok(plan) } else { Err(WireError::UnsoundPlan(faults)) }
    }
    /// The name of what this plan says: what workers compare before they run it.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }
}
