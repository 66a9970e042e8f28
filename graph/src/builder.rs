//! How a graph is made: nodes are appended, never changed. A mistake does not stop the declaration: it is noted with
//! its line, its result is poison, and `finish` reports all of them at once. Methods take `&self`, so that tensor
//! handles can be `Copy`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bounds;
use crate::diagnostic::{Diagnostic, nearest};
use crate::ir::{Graph, Init, Node, NodeId, Pin, Program, Sharding, Site, Value, VarId, VarKind, Variable};
use crate::op::{DynOp, Mode, OpError};
use crate::structural::{Input, ReadVariable};
use crate::types::{Dim, TensorType};
use crate::verify::{MAX_BOUND, is_name, sharding_fault};
use crate::watch::Watches;

/// Builds one graph.
#[derive(Debug, Default)]
pub struct Builder {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    graph: Graph,
    mistakes: Vec<Diagnostic>,
    /// Dotted path of the open scopes.
    scope: Arc<str>,
    /// Where what is declared is to run.
    pin: Option<Pin>,
    /// What derived nodes inherit, innermost last.
    inherit: Vec<Inherit>,
    /// Whether what has been declared may be declared again, and is then the same.
    shares: bool,
    /// Random streams handed out per scope.
    streams: BTreeMap<Arc<str>, u64>,
    inputs: BTreeMap<Arc<str>, Value>,
    reads: BTreeMap<VarId, Value>,
    /// Statistics that training programs update when they need the node that computes them.
    stats: Vec<(VarId, Value)>,
    /// Taps and checks.
    watches: Watches,
}

#[derive(Clone, Debug)]
struct Inherit {
    site: Site,
    /// Scope, pin and stem of the node that is derived from. None: what is open, and a stem of its own.
    from: Option<(Arc<str>, Option<Pin>, u32)>,
    origin: Option<Arc<str>>,
}

impl Builder {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        let builder = Self::default();
        builder.inner.borrow_mut().graph.name = name.into();
        builder
    }
    /// A graph like `graph` without its nodes and programs: where a pass puts what it makes.
    pub fn like(graph: &Graph) -> Self {
        let builder = Self::new(&graph.name);
        {
            let to = &mut builder.inner.borrow_mut().graph;
            (to.seed, to.dims, to.state) = (graph.seed, graph.dims.clone(), graph.state.clone());
        }
        builder
    }
    /// A finished graph, to be finished once more: its programs are as they are. What else is declared here has random streams that
    /// it may have used.
    pub fn of(graph: Graph) -> Self {
        let builder = Self::default();
        {
            let inner = &mut *builder.inner.borrow_mut();
            for (id, node) in graph.nodes.iter() {
                if let Some(input) = node.op_as::<Input>() {
                    inner.inputs.insert(input.name.clone(), id.into());
                }
                inner.reads.extend(graph.variable_read(node).map(|variable| (variable, Value::from(id))));
            }
            inner.graph = graph;
        }
        builder
    }
    /// Sets what all random numbers start from.
    pub fn set_seed(&self, seed: u64) {
        self.inner.borrow_mut().graph.seed = seed;
    }
    /// What all random numbers start from.
    pub fn seed(&self) -> u64 {
        self.inner.borrow().graph.seed
    }
    /// Notes a mistake.
    pub fn mistake(&self, diagnostic: Diagnostic) {
        self.inner.borrow_mut().mistakes.push(diagnostic);
    }
    /// Whether any mistake has been made.
    pub fn has_mistakes(&self) -> bool {
        !self.inner.borrow().mistakes.is_empty()
    }

    /// Declares a named dimension.
    pub fn dim(&self, name: &str, low: u64, high: u64, site: Site) -> Dim {
        let declared = self.inner.borrow().graph.dims.contains_key(name);
        if declared || low > high || high > MAX_BOUND || !is_name(name) {
            let what =
                if declared { "it is declared already" } else { "a dimension needs a name and bounds low..=high" };
            self.mistake(Diagnostic::new("dim", format!("bad dimension `{name}` {low}..={high}: {what}"), site));
            return Dim::named(name);
        }
        self.inner.borrow_mut().graph.dims.insert(name.into(), (low, high));
        Dim::named(name)
    }
    /// Declares an input.
    pub fn input(&self, name: &str, ty: TensorType, site: Site) -> Value {
        let twin = self.inner.borrow().inputs.get(name).copied();
        if let Some(earlier) = twin {
            let first = self.site(earlier);
            self.mistake(
                Diagnostic::new("input", format!("two inputs are called `{name}`"), site)
                    .also(first, "the first is here")
                    .help("inputs are fed by name: give each its own"),
            );
            return Value::POISON;
        }
        for dim in ty.shape.iter().flat_map(|d| d.names()) {
            if !self.inner.borrow().graph.dims.contains_key(&dim) {
                self.mistake(Diagnostic::new(
                    "input",
                    format!("input `{name}` uses a dimension `{dim}` of another graph"),
                    site.clone(),
                ));
            }
        }
        let value = self.apply(Arc::new(Input { name: name.into(), ty }), &[], site)[0];
        self.name(value, name);
        self.inner.borrow_mut().inputs.insert(name.into(), value);
        value
    }
    /// Declares a variable; its path is the open scope's and `name`.
    pub fn variable(
        &self,
        name: &str,
        ty: TensorType,
        kind: VarKind,
        init: Init,
        group: &str,
        site: Site,
    ) -> Option<VarId> {
        let (path, site) = (self.path(name), self.site_or(site));
        let twin =
            self.with_graph(|g| g.variable(&path).map(|id| (id, g.state[id].ty == ty && g.state[id].kind == kind)));
        if let (true, Some((id, true))) = (self.inner.borrow().shares, twin) {
            return Some(id);
        }
        let twin = twin.is_some();
        if twin || ty.size_bytes().is_none() {
            let what = if twin { "there is one of that name" } else { "a variable's extents are numbers" };
            let help = if twin {
                "give the layer a name of its own, or open a scope"
            } else {
                "named dimensions are for inputs"
            };
            self.mistake(
                Diagnostic::new("variable", format!("cannot declare `{path}` as {ty}: {what}"), site).help(help),
            );
            return None;
        }
        let variable = Variable { name: path.into(), ty, kind, init, group: group.into() };
        Some(self.inner.borrow_mut().graph.state.push(variable))
    }
    /// A variable's value at the start of the step; one node per variable.
    pub fn read(&self, variable: VarId, site: Site) -> Value {
        if let Some(value) = self.inner.borrow().reads.get(&variable) {
            return *value;
        }
        let op = {
            let inner = self.inner.borrow();
            let v = &inner.graph.state[variable];
            Arc::new(ReadVariable { variable: v.name.clone(), ty: v.ty.clone() })
        };
        let value = self.apply(op, &[], site)[0];
        self.inner.borrow_mut().reads.insert(variable, value);
        value
    }
    /// Lets every training program that needs `value`'s node set `variable` to it.
    pub fn update_stat(&self, variable: VarId, value: Value) {
        self.inner.borrow_mut().stats.push((variable, value));
    }

    /// Applies an op: checks it, appends a node, returns its results. A mistake yields poison.
    pub fn apply(&self, op: Arc<dyn DynOp>, operands: &[Value], site: Site) -> Vec<Value> {
        let results = op.schema().results.len();
        if operands.iter().any(|v| v.is_poison()) {
            return vec![Value::POISON; results];
        }
        let types: Vec<TensorType> = operands.iter().map(|v| self.ty(*v)).collect();
        let inferred = op.schema().check_arity(operands.len()).and_then(|()| op.infer(&types));
        let inferred = inferred.and_then(|results| {
            let dims = &self.inner.borrow().graph.dims;
            bounds::check(&*op, &types, &results, dims)
                .map(|()| results)
                .map_err(|(error, dim)| OpError { help: bounds::remedy(&dim, dims), ..error })
        });
        match inferred {
            Ok(types) => {
                let inner = &mut *self.inner.borrow_mut();
                let inherit = inner.inherit.last();
                let own = || (inner.scope.clone(), inner.pin.clone(), inner.graph.nodes.len() as u32);
                let (scope, pin, stem) = inherit.and_then(|i| i.from.clone()).unwrap_or_else(own);
                let origin = inherit.and_then(|i| i.origin.clone());
                let site = inherit.map_or(site, |i| i.site.clone());
                let node = Node {
                    op,
                    operands: operands.to_vec(),
                    types,
                    scope,
                    name: None,
                    origin,
                    pin,
                    sharding: None,
                    stem,
                    site,
                };
                let id = inner.graph.nodes.push(node);
                (0..results as u16).map(|slot| Value { node: id, slot }).collect()
            }
            Err(error) => {
                self.op_mistake(&*op, operands, &types, error, site);
                vec![Value::POISON; results]
            }
        }
    }
    fn op_mistake(&self, op: &dyn DynOp, operands: &[Value], types: &[TensorType], error: OpError, site: Site) {
        let schema = op.schema();
        let site = self.site_or(site);
        let mut diagnostic =
            Diagnostic::new(error.rule, format!("{}: {}", schema.name, error.message), site).label("here");
        for (i, (value, ty)) in operands.iter().zip(types).enumerate() {
            diagnostic = diagnostic.also(self.site(*value), format!("`{}` is {ty}", schema.operand(i)));
        }
        let scope = self.inner.borrow().scope.clone();
        if !scope.is_empty() {
            diagnostic = diagnostic.note(format!("in scope `{scope}`"));
        }
        if let Some(help) = error.help {
            diagnostic = diagnostic.help(help);
        }
        self.mistake(diagnostic);
    }
    /// Copies a node of another graph as it is, with operands of this one.
    pub fn copy(&self, node: &Node, operands: Vec<Value>) -> NodeId {
        let id = self.inner.borrow_mut().graph.nodes.push(Node { operands, ..node.clone() });
        let mut inner = self.inner.borrow_mut();
        if let Some(read) = node.op_as::<ReadVariable>()
            && let Some(variable) = inner.graph.variable(&read.variable)
        {
            inner.reads.insert(variable, id.into());
        }
        id
    }
    /// Names a value's node.
    pub fn name(&self, value: Value, name: &str) {
        if !value.is_poison() {
            self.inner.borrow_mut().graph.nodes[value.node].name = Some(name.into());
        }
    }
    /// Says how a value is to be spread over a mesh.
    pub fn shard(&self, value: Value, axes: &[Option<&str>], site: Site) {
        if value.is_poison() {
            return;
        }
        let sharding: Sharding = axes.iter().map(|axis| axis.map(Arc::from)).collect();
        let ty = self.ty(value);
        let fault = match value.slot {
            0 => sharding_fault(&sharding, &ty),
            _ => Some("only the first result of an op can be told how to be spread".into()),
        };
        if let Some(what) = fault {
            let help = "name an axis of the mesh, or none, for each axis of the tensor: `[None, \"tp\"]`";
            let at = self.site(value);
            return self.mistake(Diagnostic::new("shard", what, site).also(at, format!("it is {ty}")).help(help));
        }
        self.inner.borrow_mut().graph.nodes[value.node].sharding = Some(sharding);
    }
    /// The same for the parameters declared so far that `pattern` means: a name, or `*` and how names end.
    pub fn shard_parameters(&self, pattern: &str, axes: &[Option<&str>], site: Site) {
        let meant: Vec<Value> = {
            let inner = self.inner.borrow();
            let is =
                |id: VarId| inner.graph.state[id].kind == VarKind::Param && inner.graph.state[id].is_meant(pattern);
            inner.reads.iter().filter(|(id, _)| is(**id)).map(|(_, read)| *read).collect()
        };
        if meant.is_empty() {
            let hint = self.with_graph(|g| {
                let learned = g.state.values().iter().filter(|v| v.kind == VarKind::Param);
                Self::suggest(pattern, &learned.map(|v| &*v.name).collect::<Vec<_>>())
            });
            let what = format!("there is no parameter `{pattern}`; {hint}");
            self.mistake(Diagnostic::new("shard", what, site.clone()).help("say it after the parameter is declared"));
        }
        meant.into_iter().for_each(|read| self.shard(read, axes, site.clone()));
    }
    /// What stands for the first result of `node` from here on is to be spread as that was, unless it says otherwise itself.
    pub fn shard_like(&self, value: Value, node: &Node) {
        if let Some(sharding) = node.sharding.as_ref().filter(|_| !value.is_poison()) {
            let to = &mut self.inner.borrow_mut().graph.nodes[value.node].sharding;
            to.get_or_insert_with(|| sharding.clone());
        }
    }
    /// The type of a value.
    ///
    /// # Panics
    /// For poison, which has none.
    pub fn ty(&self, value: Value) -> TensorType {
        self.inner.borrow().graph.ty(value).clone()
    }
    /// A copy of a value's node.
    pub fn node(&self, value: Value) -> Node {
        self.inner.borrow().graph.nodes[value.node].clone()
    }
    /// Number of nodes so far.
    pub fn len(&self) -> usize {
        self.inner.borrow().graph.nodes.len()
    }
    /// Whether there are no nodes yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Where a value was asked for.
    pub fn site(&self, value: Value) -> Site {
        self.inner.borrow().graph.nodes.get(value.node).map(|n| n.site.clone()).unwrap_or_default()
    }
    /// Looks at the graph as it is so far.
    pub fn with_graph<T>(&self, look: impl FnOnce(&Graph) -> T) -> T {
        look(&self.inner.borrow().graph)
    }

    /// `name` in the open scope.
    pub fn path(&self, name: &str) -> String {
        let scope = &self.inner.borrow().scope;
        if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") }
    }
    /// Declares what `body` declares inside the scope `name`.
    pub fn scope<T>(&self, name: &str, body: impl FnOnce() -> T) -> T {
        let path: Arc<str> = self.path(name).into();
        let outer = std::mem::replace(&mut self.inner.borrow_mut().scope, path);
        let out = body();
        self.inner.borrow_mut().scope = outer;
        out
    }
    /// Where `body` declares a variable that is there already, with the same type, it is that one: so layers are called twice
    /// with the same weights.
    pub fn shared<T>(&self, body: impl FnOnce() -> T) -> T {
        let outer = std::mem::replace(&mut self.inner.borrow_mut().shares, true);
        let out = body();
        self.inner.borrow_mut().shares = outer;
        out
    }
    /// What `body` declares runs there, unless an inner call says otherwise.
    pub fn pinned<T>(&self, pin: Pin, body: impl FnOnce() -> T) -> T {
        let outer = self.inner.borrow_mut().pin.replace(pin);
        let out = body();
        self.inner.borrow_mut().pin = outer;
        out
    }
    /// Nodes that `body` makes inherit site, scope, pin and stem of `node`; `origin` is the composite they stand for.
    pub fn derived<T>(&self, node: &Node, origin: Option<Arc<str>>, body: impl FnOnce() -> T) -> T {
        let from = Some((node.scope.clone(), node.pin.clone(), node.stem));
        let inherit = Inherit { site: node.site.clone(), from, origin };
        self.inner.borrow_mut().inherit.push(inherit);
        let out = body();
        self.inner.borrow_mut().inherit.pop();
        out
    }
    /// What `body` makes, mistakes included, is blamed on `site`: for layers that are called far from the user's line.
    pub fn at_site<T>(&self, site: Site, body: impl FnOnce() -> T) -> T {
        self.inner.borrow_mut().inherit.push(Inherit { site, from: None, origin: None });
        let out = body();
        self.inner.borrow_mut().inherit.pop();
        out
    }
    /// The site that is blamed here: that of the innermost [`at_site`](Self::at_site) or [`derived`](Self::derived),
    /// else `site`.
    pub fn site_or(&self, site: Site) -> Site {
        self.inner.borrow().inherit.last().map_or(site, |i| i.site.clone())
    }
    /// Declares what `body` declares outside all scopes.
    pub fn at_root<T>(&self, body: impl FnOnce() -> T) -> T {
        let outer = std::mem::take(&mut self.inner.borrow_mut().scope);
        let out = body();
        self.inner.borrow_mut().scope = outer;
        out
    }
    /// The next random stream of the open scope: a function of path and ordinal, so that passes cannot renumber it.
    pub fn stream(&self) -> u64 {
        let inner = &mut *self.inner.borrow_mut();
        let ordinal = inner.streams.entry(inner.scope.clone()).or_default();
        *ordinal += 1;
        let hash = blake3::hash(format!("{}#{}", inner.scope, ordinal).as_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes")) >> 1
    }

    /// Declares a program. A training program also sets the statistics whose nodes it needs.
    pub fn program(&self, name: &str, outputs: Vec<(Arc<str>, Value)>, updates: Vec<(VarId, Value)>, site: Site) {
        if outputs.iter().any(|(_, v)| v.is_poison()) || updates.iter().any(|(_, v)| v.is_poison()) {
            return;
        }
        let inner = &mut *self.inner.borrow_mut();
        if inner.graph.programs.iter().any(|p| &*p.name == name) {
            inner.mistakes.push(Diagnostic::new("program", format!("two programs are called `{name}`"), site));
            return;
        }
        let mut program = Program { name: name.into(), outputs, updates, checks: vec![] };
        if program.mode() == Mode::Train {
            let needed = inner.graph.needed_by(&program);
            program.updates.extend(inner.stats.iter().filter(|(_, v)| needed[v.node]));
        }
        let mut seen = BTreeMap::new();
        for (variable, value) in &program.updates {
            let var = &inner.graph.state[*variable];
            if inner.graph.ty(*value) != &var.ty {
                let what = format!("`{}` is {} but its update is {}", var.name, var.ty, inner.graph.ty(*value));
                inner.mistakes.push(Diagnostic::new("update", what, site.clone()));
            }
            if seen.insert(*variable, ()).is_some() {
                let what = format!("program `{name}` updates `{}` twice", var.name);
                inner
                    .mistakes
                    .push(Diagnostic::new("update", what, site.clone()).help("one update per variable and program"));
            }
        }
        for (i, (output, _)) in program.outputs.iter().enumerate() {
            if program.outputs[..i].iter().any(|(earlier, _)| earlier == output) {
                let what = format!("program `{name}` has two outputs called `{output}`");
                inner
                    .mistakes
                    .push(Diagnostic::new("program", what, site.clone()).help("give each output a name of its own"));
            }
        }
        inner.graph.programs.push(program);
    }

    /// The graph, or every mistake that was made.
    pub fn finish(&self) -> Result<Graph, Vec<Diagnostic>> {
        let inner = self.inner.borrow();
        if !inner.mistakes.is_empty() {
            return Err(inner.mistakes.clone());
        }
        let mut graph = inner.graph.clone();
        let mistakes = inner.watches.attach(&mut graph);
        if mistakes.is_empty() { Ok(graph) } else { Err(mistakes) }
    }
    /// Looks at what is watched.
    pub(crate) fn watches<T>(&self, look: impl FnOnce(&mut Watches) -> T) -> T {
        look(&mut self.inner.borrow_mut().watches)
    }
    /// The graph, for passes: what they append has been checked before.
    ///
    /// # Panics
    /// If a pass made a mistake, with the mistake.
    pub(crate) fn into_graph(self) -> Graph {
        let inner = self.inner.into_inner();
        if let Some(mistake) = inner.mistakes.first() {
            panic!("a pass or an expansion made a mistake: {mistake}");
        }
        inner.graph
    }
    /// A message for a name that is not there: what there is, and the nearest spelling.
    pub fn suggest(name: &str, known: &[&str]) -> String {
        let list = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? There are {list}"),
            None => format!("there are {list}"),
        }
    }
}
