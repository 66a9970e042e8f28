//! What a graph means: every node of a program through the kernel interpreter, one after the other. The oracle for
//! passes, plans and devices, and what `eval_at` runs; never the way a model is run.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::array::Array;
use crate::ir::{Graph, Program, Value};
use crate::kernel::BufferType;
use crate::kernel::interpret::{Number, Precision, Values, round, run};
use crate::partition::Partitioned;
use crate::plan::{ChannelId, Endpoint};
use crate::structural::{Input, ReadVariable};
use crate::types::DType;

/// Values by the name of an input or a variable.
pub type Named = BTreeMap<Arc<str>, Values>;

/// Why a graph has no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluateError {
    /// Nothing was given under this name.
    #[error("no value for `{0}`")]
    Missing(Arc<str>),
    /// What was given has another type.
    #[error("`{name}` is {want}, got {got}")]
    Type {
        /// Which input or variable.
        name: Arc<str>,
        /// Its type.
        want: String,
        /// The type of what was given.
        got: String,
    },
    /// The node is neither a primitive nor structural, or has named dimensions.
    #[error("node {0} cannot be evaluated: expand composites and bind dimensions first")]
    NotPrimitive(String),
    /// Devices wait for one another.
    #[error("every device waits for another one")]
    Stuck,
}

/// What a program computed.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Outputs by name, in order.
    pub outputs: Vec<(Arc<str>, Values)>,
    /// New values of variables.
    pub updates: Named,
}

/// Evaluates one program of a graph without named dimensions and composites.
pub fn evaluate(
    graph: &Graph,
    program: &Program,
    feeds: &Named,
    state: &Named,
    precision: Precision,
) -> Result<Evaluated, EvaluateError> {
    for (_, input) in graph.inputs_of(program) {
        if !feeds.contains_key(&input.name) {
            return Err(EvaluateError::Missing(input.name.clone()));
        }
    }
    let done = walk(graph, program, feeds, state, precision, &mut BTreeMap::new())?;
    Ok(done.expect("everything is there"))
}

/// Evaluates what can be from the feeds that are there; gives the results once all is done.
fn walk(
    graph: &Graph,
    program: &Program,
    feeds: &Named,
    state: &Named,
    precision: Precision,
    values: &mut BTreeMap<Value, Values>,
) -> Result<Option<Evaluated>, EvaluateError> {
    let needed = graph.needed_by(program);
    let mut whole = true;
    for (id, node) in graph.nodes.iter().filter(|(id, _)| needed[*id]) {
        if values.contains_key(&id.into()) {
            continue;
        }
        let waits = node.op_as::<Input>().is_some_and(|i| !feeds.contains_key(&i.name));
        if waits || node.operands.iter().any(|v| !values.contains_key(v)) {
            whole = false;
            continue;
        }
        let types = |types: &[crate::TensorType]| types.iter().map(BufferType::of).collect::<Option<Vec<_>>>();
        let not_primitive = || EvaluateError::NotPrimitive(format!("{id} ({})", node.op.schema().name));
        let results = types(&node.types).ok_or_else(not_primitive)?;
        let given = node
            .op_as::<Input>()
            .map(|i| (&i.name, feeds))
            .or(node.op_as::<ReadVariable>().map(|r| (&r.variable, state)));
        if let Some((name, from)) = given {
            let value = from.get(name).ok_or_else(|| EvaluateError::Missing(name.clone()))?;
            if value.ty != results[0] {
                return Err(EvaluateError::Type {
                    name: name.clone(),
                    want: results[0].to_string(),
                    got: value.ty.to_string(),
                });
            }
            values.insert(id.into(), value.clone());
            continue;
        }
        let operand_types = types(&graph.operand_types(node)).ok_or_else(not_primitive)?;
        let kernel = node.op.lower(&operand_types, &results).ok_or_else(not_primitive)?;
        let operands: Vec<_> = node.operands.iter().map(|v| &values[v]).collect();
        for (slot, value) in node.values(id).zip(run(&kernel, &operands, precision)) {
            values.insert(slot, value);
        }
    }
    if !whole {
        return Ok(None);
    }
    let outputs = program.outputs.iter().map(|(name, v)| (name.clone(), values[v].clone())).collect();
    let updates = program.updates.iter().map(|(id, v)| (graph.state[*id].name.clone(), values[v].clone())).collect();
    Ok(Some(Evaluated { outputs, updates }))
}

/// Evaluates a program over several devices, each device as far as it gets until something has to arrive. `state` is what
/// each device has of the variables.
///
/// # Errors
/// As [`evaluate`], and if the devices wait for one another.
pub fn evaluate_devices(
    parts: &Partitioned,
    feeds: &Named,
    state: &[Named],
    precision: Precision,
) -> Result<Vec<Evaluated>, EvaluateError> {
    let mut channels: BTreeMap<ChannelId, Values> = BTreeMap::new();
    for (id, channel) in parts.channels.iter().filter(|(_, c)| c.from == Endpoint::Driver) {
        let fed = feeds.get(&channel.label).ok_or_else(|| EvaluateError::Missing(channel.label.clone()))?;
        let (start, n) = (channel.start as usize, channel.ty.len());
        channels.insert(id, Values { ty: channel.ty.clone(), data: fed.data[start..start + n].to_vec() });
    }
    let mut done: Vec<Option<Evaluated>> = vec![None; parts.devices.len()];
    let mut known: Vec<BTreeMap<Value, Values>> = vec![BTreeMap::new(); parts.devices.len()];
    loop {
        let before = known.iter().map(BTreeMap::len).sum::<usize>();
        for (d, device) in parts.devices.iter().enumerate() {
            if done[d].is_some() {
                continue;
            }
            let arrived: Named = (device.arrives.iter())
                .filter_map(|(name, channel)| Some((name.clone(), channels.get(channel)?.clone())))
                .collect();
            let program = &device.graph.programs[0];
            done[d] = walk(&device.graph, program, &arrived, &state[d], precision, &mut known[d])?;
            for ((_, value), channel) in program.outputs.iter().zip(&device.leaves) {
                if let Some(value) = known[d].get(value) {
                    channels.insert(*channel, value.clone());
                }
            }
        }
        if done.iter().all(Option::is_some) {
            return Ok(done.into_iter().flatten().collect());
        }
        if known.iter().map(BTreeMap::len).sum::<usize>() == before {
            return Err(EvaluateError::Stuck);
        }
    }
}

impl Values {
    /// The numbers of an array.
    pub fn from_array(array: &Array) -> Self {
        let number = |i| match array.dtype() {
            DType::I64 => Number::Int(array.as_slice::<i64>()[i]),
            d if d.is_float() => Number::Float(array.get_f64(i)),
            _ => Number::Int(array.get_f64(i) as i64),
        };
        let ty = BufferType { dtype: array.dtype(), shape: array.shape().to_vec() };
        Self { ty, data: (0..array.len()).map(number).collect() }
    }
    /// As an array of its own type.
    pub fn to_array(&self) -> Array {
        let mut out = Array::zeros(self.ty.dtype, &self.ty.shape);
        for (i, x) in self.data.iter().enumerate() {
            let x = round(*x, self.ty.dtype, Precision::Exact);
            match self.ty.dtype {
                DType::Bool | DType::U8 => out.bytes_mut()[i] = x.i64() as u8,
                DType::U32 => out.as_mut_slice::<u32>()[i] = x.i64() as u32,
                DType::I32 => out.as_mut_slice::<i32>()[i] = x.i64() as i32,
                DType::I64 => out.as_mut_slice::<i64>()[i] = x.i64(),
                DType::F16 => out.as_mut_slice::<half::f16>()[i] = half::f16::from_f64(x.f64()),
                DType::BF16 => out.as_mut_slice::<half::bf16>()[i] = half::bf16::from_f64(x.f64()),
                DType::F32 => out.as_mut_slice::<f32>()[i] = x.f64() as f32,
                DType::F64 => out.as_mut_slice::<f64>()[i] = x.f64(),
            }
        }
        out
    }
}
