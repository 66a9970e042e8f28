//! Variables from outside: their values, their digest, and how to begin anew.

use std::collections::BTreeMap;

use thalweg_graph::init::initial_value;
use thalweg_graph::ir::VarId;
use thalweg_graph::kernel::BufferType;
use thalweg_graph::plan::Memory;
use thalweg_graph::{Array, DType};

use super::{RunError, Session};
use crate::checkpoint::ModelDigest;
use crate::feed;

impl Session {
    /// Sets every variable to its initial value: they have learned from nothing, and go on from no checkpoint.
    pub fn reset(&mut self) -> Result<(), RunError> {
        for id in self.graph.state.ids() {
            let value = initial_value(&self.graph.state[id], self.graph.seed);
            self.device.write(Memory::State, self.layout.slots[id].offset, value.bytes())?;
        }
        self.cursors.restore(BTreeMap::new());
        self.saver.forget();
        Ok(())
    }
    fn variable(&self, name: &str) -> Result<VarId, RunError> {
        self.graph.variable(name).ok_or_else(|| {
            let names: Vec<&str> = self.graph.state.values().iter().map(|v| &*v.name).collect();
            RunError::NoVariable { name: name.into(), hint: thalweg_graph::Builder::suggest(name, &names) }
        })
    }
    /// The value of a variable.
    pub fn get(&mut self, variable: &str) -> Result<Array, RunError> {
        let slot = &self.layout.slots[self.variable(variable)?];
        let mut array = Array::zeros(slot.ty.dtype, &slot.ty.shape);
        self.device.read(Memory::State, slot.offset, array.bytes_mut())?;
        Ok(array)
    }
    /// Sets a variable. Errs if there is none of that name, or if the value is of another type or no value of the type.
    pub fn set(&mut self, variable: &str, value: &Array) -> Result<(), RunError> {
        let slot = &self.layout.slots[self.variable(variable)?];
        let got = BufferType { dtype: value.dtype(), shape: value.shape().to_vec() };
        if got != slot.ty {
            return Err(RunError::Variable { name: variable.into(), want: slot.ty.to_string(), got: got.to_string() });
        }
        if let Some((index, value)) = feed::no_truth_value(value) {
            return Err(RunError::NoTruthValue { name: variable.into(), index, value });
        }
        Ok(self.device.write(Memory::State, slot.offset, value.bytes())?)
    }
    /// Committed training steps.
    pub fn step(&mut self) -> u64 {
        match self.get("step") {
            Ok(step) if step.dtype() == DType::I64 => step.as_slice::<i64>()[0] as u64,
            _ => 0,
        }
    }
    /// The hash of all variables: names, types and bytes, in order of name. Equal digests mean equal models, bit for bit.
    pub fn digest(&mut self) -> Result<String, RunError> {
        let mut slots: Vec<_> =
            self.graph.state.iter().map(|(id, v)| (v.name.clone(), &self.layout.slots[id])).collect();
        slots.sort_by(|a, b| a.0.cmp(&b.0));
        let mut digest = ModelDigest::default();
        let mut bytes = Vec::new();
        for (name, slot) in slots {
            bytes.resize(slot.ty.size_bytes() as usize, 0);
            self.device.read(Memory::State, slot.offset, &mut bytes)?;
            digest.variable(&name, &slot.ty);
            digest.bytes(&bytes);
        }
        Ok(digest.finish().to_string())
    }
}
