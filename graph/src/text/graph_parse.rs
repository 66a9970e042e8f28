//! Graphs from text; see [`graph_print`](super::graph_print) for what it looks like. Only what is needed to build the
//! graph is checked on the way; all else is the verifier's, whose faults are reported at the line they concern, so that
//! no rule is stated twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lex::{Cursor, Kind, ParseError, shorten};
use super::value::{parse_attr, parse_float, parse_site, parse_tensor_type};
use crate::attrs::{AttrError, AttrList};
use crate::diagnostic::nearest;
use crate::id::Id;
use crate::ir::{Check, Graph, Init, Node, NodeId, Pin, Program, Site, Value, VarId, VarKind, Variable};
use crate::op::{DynOp, Registry};
use crate::types::Types;
use crate::verify::{Subject, results as counted};

impl Graph {
    /// The graph that `text` says, verified; its ops are looked up in `registry`.
    pub fn parse(text: &str, registry: &Registry) -> Result<Graph, ParseError> {
        let mut cursor = Cursor::new(text);
        let graph = parse_graph(&mut cursor, registry)?;
        cursor.finish()?;
        Ok(graph)
    }
}

/// Reads a graph, to its closing brace.
pub(crate) fn parse_graph(cursor: &mut Cursor<'_>, registry: &Registry) -> Result<Graph, ParseError> {
    let start = cursor.at();
    cursor.expect("graph")?;
    let name = cursor.text("the graph's name, quoted")?.into();
    cursor.expect("seed")?;
    let seed = cursor.int("a seed")?;
    cursor.expect("{")?;
    let graph = Graph { name, seed, ..Graph::default() };
    let mut reader = Reader { cursor, registry, graph, places: Places { start, ..Places::default() } };
    while !reader.cursor.eat("}") {
        reader.line()?;
    }
    reader.finish()
}

/// Where in the text each thing was declared, for the verifier's faults.
#[derive(Default)]
struct Places {
    start: usize,
    dims: BTreeMap<Arc<str>, usize>,
    variables: Vec<usize>,
    nodes: Vec<usize>,
    programs: Vec<usize>,
}

struct Reader<'c, 'a, 'r> {
    cursor: &'c mut Cursor<'a>,
    registry: &'r Registry,
    graph: Graph,
    places: Places,
}

impl Reader<'_, '_, '_> {
    fn line(&mut self) -> Result<(), ParseError> {
        let token = self.cursor.peek();
        match (token.kind, token.text) {
            (Kind::Word, "dim") => self.dim(),
            (Kind::Word, "program") => self.program(),
            (Kind::Id, id) if id.starts_with('$') => self.variable(),
            (Kind::Id, id) if id.starts_with('%') => self.node(),
            _ => Err(self.cursor.unexpected("a line of a graph (`dim`, `$0:`, `%0:`, `program`) or `}`")),
        }
    }

    fn dim(&mut self) -> Result<(), ParseError> {
        self.cursor.expect("dim")?;
        let at = self.cursor.at();
        let name: Arc<str> = self.cursor.word("a dimension's name")?.into();
        let low = self.cursor.int("the lower bound")?;
        self.cursor.expect("..=")?;
        let high = self.cursor.int("the upper bound")?;
        if self.graph.dims.insert(name.clone(), (low, high)).is_some() {
            return Err(self.cursor.error_at(at, format!("dimension `{name}` is declared twice")));
        }
        self.places.dims.insert(name, at);
        Ok(())
    }

    /// Takes an id that must be the next of its kind.
    fn next_id(&mut self, sigil: char, count: usize) -> Result<(), ParseError> {
        let at = self.cursor.at();
        let id = self.cursor.id(sigil, &format!("an id, like `{sigil}0`"))?;
        if id as usize == count {
            return Ok(());
        }
        Err(self
            .cursor
            .error_at(at, format!("ids count up without a gap: expected `{sigil}{count}`, found `{sigil}{id}`")))
    }

    fn variable(&mut self) -> Result<(), ParseError> {
        let at = self.cursor.at();
        self.next_id('$', self.graph.state.len())?;
        self.cursor.expect(":")?;
        let ty = parse_tensor_type(self.cursor)?;
        self.cursor.expect("=")?;
        let kind = VarKind::from_name(self.cursor.peek().text);
        let kind = kind.ok_or_else(|| {
            let kinds: Vec<_> = VarKind::ALL.iter().map(|k| k.name()).collect();
            self.cursor.unexpected(&format!("what the variable is for ({})", kinds.join(", ")))
        })?;
        self.cursor.bump();
        let name = self.cursor.text("the variable's name, quoted")?.into();
        let init = self.init()?;
        let group = if self.cursor.eat("in") { self.cursor.text("a group, quoted")?.into() } else { "".into() };
        self.graph.state.push(Variable { name, ty, kind, init, group });
        self.places.variables.push(at);
        Ok(())
    }

    fn init(&mut self) -> Result<Init, ParseError> {
        let at = self.cursor.at();
        let name = self.cursor.word("how it begins (constant, uniform, normal)")?;
        match (name, &self.cursor.list("(", ")", parse_float)?[..]) {
            ("constant", [x]) => Ok(Init::Constant(*x)),
            ("uniform", [low, high]) => Ok(Init::Uniform { low: *low, high: *high }),
            ("normal", [mean, std]) => Ok(Init::Normal { mean: *mean, std: *std }),
            _ => {
                let known = "a variable begins as constant(x), uniform(low, high) or normal(mean, std)";
                Err(self.cursor.error_at(at, known))
            }
        }
    }

    fn node(&mut self) -> Result<(), ParseError> {
        self.next_id('%', self.graph.nodes.len())?;
        self.cursor.expect(":")?;
        let types = self.types()?;
        self.cursor.expect("=")?;
        let at = self.cursor.at();
        let name = self.cursor.word("an op")?;
        let mut operands = Vec::new();
        if self.cursor.peek().kind == Kind::Id {
            // The id of the next line follows an op without operands; only that one is followed by a colon.
            let mut ahead = self.cursor.clone();
            ahead.bump();
            if !ahead.sees(":") {
                operands.push(self.value()?);
                while self.cursor.eat(",") {
                    operands.push(self.value()?);
                }
            }
        }
        let op = self.op(at, name, &types)?;
        let scope = if self.cursor.eat("@") { self.cursor.text("a scope, quoted")?.into() } else { "".into() };
        let name = match self.cursor.peek().kind {
            Kind::Text => Some(self.cursor.text("a name, quoted")?.into()),
            _ => None,
        };
        let origin = if self.cursor.eat("from") { Some(self.cursor.text("an op, quoted")?.into()) } else { None };
        let pin = match () {
            () if self.cursor.eat("stage") => Some(Pin::Stage(self.cursor.int("a stage")?)),
            () if self.cursor.eat("on") => Some(Pin::On(self.cursor.text("a device, quoted")?.into())),
            () => None,
        };
        let sharding =
            if self.cursor.eat("shard") { Some(self.cursor.list("[", "]", Self::mesh_axis)?.into()) } else { None };
        let site = if self.cursor.eat("at") { parse_site(self.cursor)? } else { Site::default() };
        let stem = self.graph.nodes.len() as u32;
        self.graph.nodes.push(Node { op, operands, types, scope, name, origin, pin, sharding, stem, site });
        self.places.nodes.push(at);
        Ok(())
    }

    /// An axis of a mesh, or `_` for none.
    fn mesh_axis(cursor: &mut Cursor<'_>) -> Result<Option<Arc<str>>, ParseError> {
        if cursor.eat("_") { Ok(None) } else { Ok(Some(cursor.text("an axis of a mesh, quoted, or `_`")?.into())) }
    }

    /// Types of results with commas between them; `()` for none.
    fn types(&mut self) -> Result<Types, ParseError> {
        if self.cursor.sees("(") {
            return self.cursor.list("(", ")", parse_tensor_type);
        }
        let mut types = vec![parse_tensor_type(self.cursor)?];
        while self.cursor.eat(",") {
            types.push(parse_tensor_type(self.cursor)?);
        }
        Ok(types)
    }

    /// A value of an earlier node.
    fn value(&mut self) -> Result<Value, ParseError> {
        let at = self.cursor.at();
        let node = NodeId(self.cursor.id('%', "a value, like `%0`")?);
        let slot = if self.cursor.eat(".") { self.cursor.int("a result's number")? } else { 0 };
        let value = Value { node, slot };
        let Some(results) = self.graph.nodes.get(node).map(|n| n.types.len()) else {
            return Err(self.cursor.error_at(at, format!("{node} has not been declared before this use")));
        };
        if usize::from(slot) >= results {
            return Err(self.cursor.error_at(at, format!("there is no {value}: {node} has {}", counted(results))));
        }
        Ok(value)
    }

    /// Attributes, if there are any, and the op called `name` with them.
    fn op(&mut self, at: usize, name: &str, types: &Types) -> Result<Arc<dyn DynOp>, ParseError> {
        let mut attrs = AttrList::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        if self.cursor.sees("{") {
            attrs = self.cursor.list("{", "}", |c| {
                let at = c.at();
                let name = c.word("an attribute's name")?.to_string();
                if places.insert(name.clone(), at).is_some() {
                    return Err(c.error_at(at, format!("attribute `{name}` is given twice")));
                }
                c.expect(":")?;
                Ok((name, parse_attr(c)?))
            })?;
        }
        self.registry.make(name, &attrs, types).map_err(|error| {
            let at_attr = |name: &str| places.get(name).copied().unwrap_or(at);
            let (at, near) = match &error {
                AttrError::NoSuchOp(name) => (at, suggestion(name, self.registry.names())),
                AttrError::Unknown { name, known, .. } => (at_attr(name), suggestion(name, known.iter().copied())),
                AttrError::Sort { name, .. } => (at_attr(name), String::new()),
            };
            let message = match &error {
                AttrError::NoSuchOp(name) => format!("there is no op `{}`", shorten(name)),
                _ => error.to_string(),
            };
            self.cursor.error_at(at, message + &near)
        })
    }

    fn program(&mut self) -> Result<(), ParseError> {
        let at = self.cursor.at();
        self.cursor.expect("program")?;
        let name = self.cursor.text("the program's name, quoted")?.into();
        let (mut outputs, mut updates, mut checks) = (Vec::new(), Vec::new(), Vec::new());
        self.cursor.expect("{")?;
        while !self.cursor.eat("}") {
            if self.cursor.eat("return") {
                loop {
                    let name = self.cursor.text("an output's name, quoted")?.into();
                    self.cursor.expect("=")?;
                    outputs.push((name, self.value()?));
                    if !self.cursor.eat(",") {
                        break;
                    }
                }
            } else if self.cursor.eat("update") {
                let at = self.cursor.at();
                let variable = VarId(self.cursor.id('$', "a variable, like `$0`")?);
                if self.graph.state.get(variable).is_none() {
                    return Err(self.cursor.error_at(at, format!("there is no variable {variable}")));
                }
                self.cursor.expect("=")?;
                updates.push((variable, self.value()?));
            } else if self.cursor.eat("check") {
                let of = self.value()?;
                self.cursor.expect("by")?;
                checks.push(Check { of, status: self.value()? });
            } else {
                return Err(self.cursor.unexpected("`return`, `update`, `check` or `}`"));
            }
        }
        self.graph.programs.push(Program { name, outputs, updates, checks });
        self.places.programs.push(at);
        Ok(())
    }

    /// The graph, if the verifier finds no fault.
    fn finish(self) -> Result<Graph, ParseError> {
        let faults = self.graph.verify();
        let Some(first) = faults.first() else { return Ok(self.graph) };
        let place = match &first.subject {
            Subject::Dim(name) => self.places.dims.get(name),
            Subject::Variable(id) => self.places.variables.get(id.index()),
            Subject::Node(id) => self.places.nodes.get(id.index()),
            Subject::Program(index, _) => self.places.programs.get(*index),
        };
        let more = match faults.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        Err(self.cursor.error_at(place.copied().unwrap_or(self.places.start), format!("{first}{more}")))
    }
}

/// `; did you mean …?`, where something near is known.
fn suggestion<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    const LONGEST: usize = 64; // Edit distance takes memory by the product of the lengths.
    let near = if name.len() <= LONGEST { nearest(name, known) } else { None };
    near.map_or(String::new(), |near| format!("; did you mean `{near}`?"))
}
