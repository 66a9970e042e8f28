//! Layers of the Rust library by their names and options. Nothing of them is written again in Python but their names: what a layer declares, what it infers
//! and how its parameters begin is the same code.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use thalweg::nn::{
    AvgPool, BatchNorm, Conv2d, Embedding, Flatten, Layer, LayerNorm, Linear, MaxPool, SelfAttention, TransformerBlock,
};

/// An option that has to be there.
pub(crate) fn wanted<'py, T: FromPyObjectOwned<'py>>(options: &Bound<'py, PyDict>, name: &str) -> PyResult<T> {
    optional(options, name)?.ok_or_else(|| PyTypeError::new_err(format!("`{name}` is missing")))
}

/// An option that may be there.
pub(crate) fn optional<'py, T: FromPyObjectOwned<'py>>(
    options: &Bound<'py, PyDict>,
    name: &str,
) -> PyResult<Option<T>> {
    match options.get_item(name)? {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(None),
        Some(value) => value.extract::<T>().map(Some).map_err(|e| {
            let e: PyErr = e.into();
            PyTypeError::new_err(format!("`{name}`: {}", e.value(options.py())))
        }),
    }
}

/// The layer of this kind, with its options.
pub(crate) fn layer(kind: &str, options: &Bound<'_, PyDict>) -> PyResult<Box<dyn Layer>> {
    let whole = |name: &str| wanted::<u64>(options, name);
    Ok(match kind {
        "linear" => {
            let linear = Linear::new(whole("features")?);
            Box::new(if wanted(options, "bias")? { linear } else { linear.no_bias() })
        }
        "conv2d" => {
            let conv = Conv2d::new(whole("channels")?, whole("size")?)
                .pad(whole("pad")?)
                .stride(whole("stride")?)
                .dilation(whole("dilation")?)
                .groups(whole("groups")?);
            Box::new(if wanted(options, "bias")? { conv } else { conv.no_bias() })
        }
        "batch_norm" => Box::new(
            BatchNorm::new()
                .momentum(wanted(options, "momentum")?)
                .eps(wanted(options, "eps")?)
                .groups(whole("groups")?),
        ),
        "layer_norm" => Box::new(LayerNorm::new().eps(wanted(options, "eps")?)),
        "embedding" => Box::new(Embedding::new(whole("count")?, whole("features")?)),
        "self_attention" => {
            let attention = SelfAttention::new(whole("heads")?);
            Box::new(if wanted(options, "causal")? { attention.causal() } else { attention })
        }
        "transformer_block" => {
            let block =
                TransformerBlock::new(whole("heads")?).wider(whole("wider")?).dropout(wanted(options, "dropout")?);
            Box::new(if wanted(options, "causal")? { block.causal() } else { block })
        }
        "max_pool" => Box::new(MaxPool::new(whole("size")?).stride(whole("stride")?).pad(whole("pad")?)),
        "avg_pool" => Box::new(AvgPool::new(whole("size")?)),
        "flatten" => Box::new(Flatten),
        _ => return Err(PyValueError::new_err(format!("there is no layer `{kind}`"))),
    })
}
