//! The ops that the graph itself knows: where values come from. Their result type is not inferred but stated, so that
//! text needs no second copy of it. All arithmetic is elsewhere.

use std::any::Any;
use std::sync::Arc;

use crate::attrs::{Attr, AttrError, AttrList, AttrValue};
use crate::builder::Builder;
use crate::ir::Value;
use crate::kernel::{BufferType, Kernel};
use crate::op::{Accuracy, DynOp, GradientOf, Mode, OpError, Registry, Schema};
use crate::types::{Bindings, TensorType, Types};

/// A value that the caller feeds, by name.
#[derive(Clone, Debug)]
pub struct Input {
    /// The name it is fed by.
    pub name: Arc<str>,
    /// What it is.
    pub ty: TensorType,
}

/// A variable's value at the start of the step.
#[derive(Clone, Debug)]
pub struct ReadVariable {
    /// The variable.
    pub variable: Arc<str>,
    /// What it is.
    pub ty: TensorType,
}

macro_rules! structural {
    ($op:ident, $name:literal, $field:ident) => {
        impl DynOp for $op {
            fn schema(&self) -> &'static Schema {
                const SCHEMA: Schema =
                    Schema { name: $name, operands: &[], results: &["out"], accuracy: Accuracy::Exact };
                &SCHEMA
            }
            fn attrs(&self) -> AttrList {
                vec![(stringify!($field).into(), AttrValue::Text(self.$field.to_string()))]
            }
            fn infer(&self, _: &[TensorType]) -> Result<Types, OpError> {
                Ok(vec![self.ty.clone()])
            }
            fn lower(&self, _: &[BufferType], _: &[BufferType]) -> Option<Kernel> {
                None
            }
            fn expand(&self, _: &Builder, _: &[Value], _: Mode) -> Option<Vec<Value>> {
                None
            }
            fn gradient(&self, _: &Builder, _: GradientOf<'_>) -> Option<Vec<Option<Value>>> {
                Some(vec![])
            }
            fn bind(&self, bindings: &Bindings) -> Option<Arc<dyn DynOp>> {
                Some(Arc::new(Self { $field: self.$field.clone(), ty: self.ty.bind(bindings)? }))
            }
            fn as_any(&self) -> &dyn Any {
                self
            }
        }
        impl $op {
            fn make(attrs: &[(String, AttrValue)], types: &[TensorType]) -> Result<Arc<dyn DynOp>, AttrError> {
                let known = || vec![stringify!($field)];
                let unknown = |name: &str| AttrError::Unknown { op: $name.into(), name: name.into(), known: known() };
                let [(name, value)] = attrs else { return Err(unknown("")) };
                if name != stringify!($field) {
                    return Err(unknown(name));
                }
                let sort = || AttrError::Sort { op: $name.into(), name: stringify!($field), value: value.clone() };
                let text = String::from_value(value).ok_or_else(sort)?;
                let ty = types.first().cloned().ok_or_else(sort)?;
                Ok(Arc::new(Self { $field: text.into(), ty }))
            }
        }
    };
}
structural!(Input, "input", name);
structural!(ReadVariable, "variable", variable);

/// A kernel as an op: what a node becomes once its kernel is cut, and no op of the table says it any more. Its one attribute is
/// the kernel's text.
#[derive(Clone, Debug)]
pub struct KernelOp(pub Arc<Kernel>);

impl DynOp for KernelOp {
    fn schema(&self) -> &'static Schema {
        const SCHEMA: Schema =
            Schema { name: "kernel", operands: &["operands*"], results: &["out"], accuracy: Accuracy::Exact };
        &SCHEMA
    }
    fn attrs(&self) -> AttrList {
        vec![("text".into(), AttrValue::Text(self.0.to_string()))]
    }
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let have: Option<Vec<BufferType>> = operands.iter().map(BufferType::of).collect();
        let takes = self.0.operands();
        crate::require!(have.as_deref() == Some(takes), "kernel.C1", "the kernel takes {takes:?}, got {operands:?}");
        Ok(self.0.results().iter().map(|t| t.dtype.of(&t.shape[..])).collect())
    }
    fn lower(&self, _: &[BufferType], _: &[BufferType]) -> Option<Kernel> {
        Some((*self.0).clone())
    }
    fn expand(&self, _: &Builder, _: &[Value], _: Mode) -> Option<Vec<Value>> {
        None
    }
    fn gradient(&self, _: &Builder, _: GradientOf<'_>) -> Option<Vec<Option<Value>>> {
        None
    }
    fn bind(&self, _: &Bindings) -> Option<Arc<dyn DynOp>> {
        Some(Arc::new(self.clone()))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl KernelOp {
    fn make(attrs: &[(String, AttrValue)], _: &[TensorType]) -> Result<Arc<dyn DynOp>, AttrError> {
        let unknown = |name: &str| AttrError::Unknown { op: "kernel".into(), name: name.into(), known: vec!["text"] };
        let [(name, value)] = attrs else { return Err(unknown("")) };
        if name != "text" {
            return Err(unknown(name));
        }
        let sort = || AttrError::Sort { op: "kernel".into(), name: "text", value: value.clone() };
        let kernel = String::from_value(value).and_then(|text| Kernel::parse(&text).ok()).ok_or_else(sort)?;
        Ok(Arc::new(Self(Arc::new(kernel))))
    }
}

/// Some of the elements of several vectors, end to end: all of them, or a range of what they make together. It moves nothing
/// where that can be had: lowering lays its operands side by side and looks at them under another name.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The first element of the row, of all that the operands hold.
    pub start: u64,
    /// The first that is not of it.
    pub end: u64,
}

impl DynOp for Row {
    fn schema(&self) -> &'static Schema {
        const SCHEMA: Schema =
            Schema { name: "row", operands: &["x", "operands*"], results: &["out"], accuracy: Accuracy::Exact };
        &SCHEMA
    }
    fn attrs(&self) -> AttrList {
        vec![("range".into(), AttrValue::Ints(vec![self.start as i64, self.end as i64]))]
    }
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let vector = |t: &TensorType| BufferType::of(t).filter(|t| t.rank() == 1);
        let lens: Option<Vec<u64>> = operands.iter().map(|t| vector(t)?.checked_len()).collect();
        let all = lens.and_then(|lens| lens.iter().try_fold(0u64, |sum, n| sum.checked_add(*n)));
        let dtype = operands[0].dtype;
        crate::require!(
            all.is_some_and(|all| self.start <= self.end && self.end <= all)
                && operands.iter().all(|t| t.dtype == dtype),
            "row.C1",
            "{}..{} of {operands:?}",
            self.start,
            self.end
        );
        Ok(vec![dtype.of(&[self.end - self.start][..])])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        Some(crate::kernel::Kernel::row(operands, self.start, results[0].clone()))
    }
    fn expand(&self, _: &Builder, _: &[Value], _: Mode) -> Option<Vec<Value>> {
        None
    }
    fn gradient(&self, _: &Builder, _: GradientOf<'_>) -> Option<Vec<Option<Value>>> {
        None
    }
    fn bind(&self, _: &Bindings) -> Option<Arc<dyn DynOp>> {
        Some(Arc::new(self.clone()))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Row {
    fn make(attrs: &[(String, AttrValue)], _: &[TensorType]) -> Result<Arc<dyn DynOp>, AttrError> {
        let unknown = |name: &str| AttrError::Unknown { op: "row".into(), name: name.into(), known: vec!["range"] };
        match attrs {
            [(name, AttrValue::Ints(ends))] if name == "range" && ends.len() == 2 && ends.iter().all(|n| *n >= 0) => {
                Ok(Arc::new(Self { start: ends[0] as u64, end: ends[1] as u64 }))
            }
            [(name, value)] if name == "range" => {
                Err(AttrError::Sort { op: "row".into(), name: "range", value: value.clone() })
            }
            _ => Err(unknown(attrs.first().map_or("", |(name, _)| name))),
        }
    }
}

pub(crate) fn register(registry: &mut Registry) {
    registry.add("input", Input::make);
    registry.add("variable", ReadVariable::make);
    registry.add("kernel", KernelOp::make);
    registry.add("row", Row::make);
    registry.add("finiteness", crate::watch::Finite::make);
}
