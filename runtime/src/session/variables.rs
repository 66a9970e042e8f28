//! Variables from outside: their values, their digest, and how to begin anew.

use std::collections::BTreeMap;

use thalweg_graph::init::initial_elements;
use thalweg_graph::ir::VarId;
use thalweg_graph::kernel::BufferType;
use thalweg_graph::{Array, DType};

use super::{Origin, RunError, Session};
use crate::checkpoint::ModelDigest;
use crate::feed;

impl Session {
    /// Sets every variable to its initial value: they have learned from nothing, and go on from no checkpoint.
    pub fn reset(&mut self) -> Result<(), RunError> {
        self.survive(Self::fill)?;
        self.remember_from(Origin::Start);
        self.cursors.restore(BTreeMap::new());
        self.saver.forget();
        Ok(())
    }
    /// The variables' initial values.
    pub(super) fn fill(&mut self) -> Result<(), RunError> {
        for id in self.graph.state.ids() {
            let (variable, seed) = (&self.graph.state[id], self.graph.seed);
            self.spread.fill(&mut self.executor, id, |range| initial_elements(variable, seed, range))?;
        }
        self.executor.mended();
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
        let id = self.variable(variable)?;
        let ty = &self.spread.layout.slots[id].ty;
        let mut array = Array::zeros(ty.dtype, &ty.shape);
        self.survive(|s| Ok::<_, RunError>(s.spread.read(&mut s.executor, id, array.bytes_mut())?))?;
        Ok(array)
    }
    /// Sets a variable. Errs if there is none of that name, or if the value is of another type or no value of the type.
    pub fn set(&mut self, variable: &str, value: &Array) -> Result<(), RunError> {
        let id = self.variable(variable)?;
        let want = &self.spread.layout.slots[id].ty;
        let got = BufferType { dtype: value.dtype(), shape: value.shape().to_vec() };
        if got != *want {
            return Err(RunError::Variable { name: variable.into(), want: want.to_string(), got: got.to_string() });
        }
        if let Some((index, value)) = feed::no_truth_value(value) {
            return Err(RunError::NoTruthValue { name: variable.into(), index, value });
        }
        self.survive(|s| Ok::<_, RunError>(s.spread.write(&mut s.executor, id, value.bytes())?))?;
        self.remember_set(id, value);
        Ok(())
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
        let mut all: Vec<_> = self.graph.state.iter().map(|(id, v)| (v.name.clone(), id)).collect();
        all.sort();
        let mut digest = ModelDigest::default();
        let mut bytes = Vec::new();
        for (name, id) in all {
            let ty = self.spread.layout.slots[id].ty.clone();
            bytes.resize(ty.size_bytes() as usize, 0);
            self.survive(|s| Ok::<_, RunError>(s.spread.read(&mut s.executor, id, &mut bytes)?))?;
            digest.variable(&name, &ty, blake3::hash(&bytes).into());
        }
        Ok(digest.finish().to_string())
    }
}
