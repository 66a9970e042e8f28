//! What a sound graph is. Everything is checked and every fault reported: graphs come from passes, from text and from
//! peers, and each of those deserves the whole list. Checks assume nothing of what they check, so that a graph decoded
//! from hostile bytes is safe to verify, and safe to use once it has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::attrs::AttrValue;
use crate::bounds;
use crate::ir::{Graph, Node, NodeId, Program, Sharding, VarId};
use crate::structural::{Input, ReadVariable};
use crate::types::{DType, Dim, TensorType, Types};

/// No named dimension reaches further.
pub(crate) const MAX_BOUND: u64 = 1 << 40;
/// No extent that is a number is larger, as in kernels.
const MAX_EXTENT: u64 = 1 << 48;
/// No tensor has more axes, as in kernels.
const MAX_RANK: usize = 32;

/// What a fault concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A named dimension.
    Dim(Arc<str>),
    /// A variable.
    Variable(VarId),
    /// A node.
    Node(NodeId),
    /// A program, by position and name.
    Program(usize, Arc<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Dim(name) => write!(f, "dimension `{name}`"),
            Subject::Variable(id) => write!(f, "variable {id}"),
            Subject::Node(id) => write!(f, "node {id}"),
            Subject::Program(_, name) => write!(f, "program {name:?}"),
        }
    }
}

/// One thing wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {message}")]
pub struct Fault {
    /// What it concerns.
    pub subject: Subject,
    /// What is wrong.
    pub message: String,
}

/// Every fault of `graph`; empty when it is sound.
pub fn verify(graph: &Graph) -> Vec<Fault> {
    let mut check = Check { graph, faults: Vec::new(), variables: BTreeMap::new(), inputs: BTreeMap::new() };
    check.dims();
    check.variables();
    for (id, node) in graph.nodes.iter() {
        check.node(id, node);
    }
    check.programs();
    check.faults
}

impl Graph {
    /// Every fault; empty when it is sound. See [`verify`].
    pub fn verify(&self) -> Vec<Fault> {
        verify(self)
    }
}

/// Why a tensor of type `ty` cannot be spread so over any mesh.
pub(crate) fn sharding_fault(sharding: &Sharding, ty: &TensorType) -> Option<String> {
    let names: Vec<&str> = sharding.iter().filter_map(|axis| axis.as_deref()).collect();
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)).map(|(_, name)| name);
    if sharding.len() != ty.rank() {
        return Some(format!("{} axes are told how to be spread, and {ty} has {}", sharding.len(), ty.rank()));
    }
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        return Some(format!("{bad:?} cannot be an axis of a mesh: letters, digits and underscores"));
    }
    twice.map(|name| format!("two axes cannot both be spread over `{name}`"))
}

struct Check<'g> {
    graph: &'g Graph,
    faults: Vec<Fault>,
    variables: BTreeMap<&'g str, &'g TensorType>,
    inputs: BTreeMap<Arc<str>, (NodeId, TensorType)>,
}

impl<'g> Check<'g> {
    fn require(&mut self, holds: bool, subject: &Subject, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(Fault { subject: subject.clone(), message: otherwise() });
        }
    }

    fn dims(&mut self) {
        for (name, (low, high)) in &self.graph.dims {
            let subject = Subject::Dim(name.clone());
            self.require(is_name(name), &subject, || "is no name: letters, digits and underscores".into());
            self.require(low <= high && *high <= MAX_BOUND, &subject, || {
                format!("its bounds {low}..={high} are empty or reach beyond {MAX_BOUND}")
            });
        }
    }

    fn variables(&mut self) {
        for (id, variable) in self.graph.state.iter() {
            let subject = Subject::Variable(id);
            let twin = self.variables.insert(&variable.name, &variable.ty).is_some();
            self.require(!twin, &subject, || format!("there is an earlier variable {:?}", variable.name));
            self.ty(&variable.ty, &subject);
            self.require(variable.ty.size_bytes().is_some(), &subject, || {
                format!(
                    "{:?} is {}, but a variable's extents are numbers of moderate product",
                    variable.name, variable.ty
                )
            });
        }
    }

    fn node(&mut self, id: NodeId, node: &'g Node) {
        let subject = Subject::Node(id);
        let schema = node.op.schema();
        let mut operands = Some(Vec::new());
        for (i, value) in node.operands.iter().enumerate() {
            let ty = self.graph.get_ty(*value);
            if value.node >= id || ty.is_none() {
                let why = match self.graph.nodes.get(value.node) {
                    _ if value.node >= id => "which does not come before it".to_string(),
                    producer => format!("but {} has {}", value.node, results(producer.map_or(0, |n| n.types.len()))),
                };
                self.require(false, &subject, || format!("operand `{}` is {value}, {why}", schema.operand(i)));
                operands = None;
            } else if let (Some(types), Some(ty)) = (&mut operands, ty) {
                types.push(ty.clone());
            }
        }
        for ty in &node.types {
            self.ty(ty, &subject);
        }
        self.require(node.types.len() <= usize::from(u16::MAX), &subject, || "has too many results".into());
        for (_, value) in node.op.attrs() {
            if let AttrValue::Shape(shape) = value {
                // The element type does not matter to any check of a shape.
                self.ty(&DType::Bool.of(shape), &subject);
            }
        }
        if let Err(error) = schema.check_arity(node.operands.len()) {
            self.require(false, &subject, || error.to_string());
        } else if let Some(operands) = operands {
            match node.op.infer(&operands) {
                Ok(types) => {
                    self.require(types == node.types, &subject, || {
                        let (name, given, gives) = (schema.name, list(&operands), list(&types));
                        format!("is stated as {}, but `{name}` of {given} gives {gives}", list(&node.types))
                    });
                    // Names that are not declared have been blamed above.
                    let known = |name: &Arc<str>| self.graph.dims.contains_key(name);
                    let named = operands.iter().chain(&types).flat_map(|ty| ty.shape.iter()).flat_map(Dim::names);
                    if named.into_iter().all(|name| known(&name))
                        && let Err((error, _)) = bounds::check(&*node.op, &operands, &types, &self.graph.dims)
                    {
                        self.require(false, &subject, || format!("{}: {error}", schema.name));
                    }
                }
                Err(error) => self.require(false, &subject, || format!("{}: {error}", schema.name)),
            }
        }
        if let (Some(sharding), Some(ty)) = (&node.sharding, node.types.first()) {
            let fault = sharding_fault(sharding, ty);
            self.require(fault.is_none(), &subject, || fault.unwrap_or_default());
        }
        self.structural(&subject, id, node);
    }

    fn structural(&mut self, subject: &Subject, id: NodeId, node: &'g Node) {
        if let Some(ReadVariable { variable, ty }) = node.op_as() {
            match self.variables.get(&**variable).copied() {
                None => self.require(false, subject, || format!("there is no variable {variable:?}")),
                Some(is) => {
                    self.require(is == ty, subject, || format!("reads {ty}, but variable {variable:?} is {is}"));
                }
            }
        }
        if let Some(Input { name, ty }) = node.op_as() {
            let (first, is) = self.inputs.entry(name.clone()).or_insert_with(|| (id, ty.clone())).clone();
            self.require(is == *ty, subject, || format!("input {name:?} is {ty} here, but {first} has it as {is}"));
        }
    }

    /// Extents are moderate, and polynomials in their one normal form, over declared names.
    fn ty(&mut self, ty: &TensorType, subject: &Subject) {
        self.require(ty.rank() <= MAX_RANK, subject, || format!("{} axes, more than {MAX_RANK}", ty.rank()));
        for dim in ty.shape.iter() {
            match dim {
                Dim::Fixed(n) => {
                    self.require(*n <= MAX_EXTENT, subject, || format!("an extent of {n} is beyond {MAX_EXTENT}"));
                }
                Dim::Poly(terms) => {
                    let normal = Dim::from_terms(terms.iter().cloned());
                    self.require(normal.as_ref() == Some(dim), subject, || {
                        format!("extent {dim} is not in normal form")
                    });
                    for name in terms.iter().flat_map(|(_, names)| names).collect::<BTreeSet<_>>() {
                        self.require(self.graph.dims.contains_key(name), subject, || {
                            format!("there is no dimension `{name}`")
                        });
                    }
                }
            }
        }
    }

    fn programs(&mut self) {
        let mut names = BTreeSet::new();
        for (index, program) in self.graph.programs.iter().enumerate() {
            let subject = Subject::Program(index, program.name.clone());
            self.require(names.insert(&program.name), &subject, || "there is an earlier program of that name".into());
            self.outputs(program, &subject);
            self.updates(program, &subject);
            self.checks(program, &subject);
        }
    }

    fn outputs(&mut self, program: &Program, subject: &Subject) {
        let mut names = BTreeSet::new();
        for (name, value) in &program.outputs {
            self.require(names.insert(name), subject, || format!("returns two values as {name:?}"));
            let exists = self.graph.get_ty(*value).is_some();
            self.require(exists, subject, || format!("returns {name:?} = {value}, which does not exist"));
        }
    }

    fn updates(&mut self, program: &Program, subject: &Subject) {
        let mut seen = BTreeSet::new();
        for (id, value) in &program.updates {
            self.require(seen.insert(*id), subject, || format!("updates {id} twice"));
            match (self.graph.state.get(*id), self.graph.get_ty(*value)) {
                (None, _) => self.require(false, subject, || format!("updates {id}, which does not exist")),
                (_, None) => self.require(false, subject, || format!("sets {id} to {value}, which does not exist")),
                (Some(variable), Some(ty)) => self.require(variable.ty == *ty, subject, || {
                    format!("{id} {:?} is {} but its update {value} is {ty}", variable.name, variable.ty)
                }),
            }
        }
    }

    fn checks(&mut self, program: &Program, subject: &Subject) {
        for check in &program.checks {
            let (of, status) = (self.graph.get_ty(check.of), self.graph.get_ty(check.status));
            let float = of.is_some_and(|t| t.dtype.is_float());
            self.require(float, subject, || format!("checks {}, which is no float value", check.of));
            let number = status.is_some_and(|t| *t == DType::I32.of(()));
            self.require(number, subject, || format!("checks {} by {}, which is no i32[]", check.of, check.status));
        }
    }
}

/// `1 result`, `2 results`.
pub(crate) fn results(count: usize) -> String {
    format!("{count} result{}", if count == 1 { "" } else { "s" })
}

fn list(types: &Types) -> String {
    format!("({})", types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// Whether `name` can be written without quotes.
pub(crate) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
