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

pub(crate) fn register(registry: &mut Registry) {
    registry.add("input", Input::make);
    registry.add("variable", ReadVariable::make);
    registry.add("finiteness", crate::watch::Finite::make);
}
