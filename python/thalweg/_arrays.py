"""Arrays of others: what they call element types, and how their memory is read where it lies.

NumPy's arrays come in by the buffer protocol without passing here. The rest does: PyTorch's and JAX's tensors by DLPack, halves that NumPy has no
name for as their bits, numbers and lists.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ArrayLike", "DTypeLike", "as_buffer", "dtype_name"]

DTypeLike: TypeAlias = "str | type[Any] | np.dtype[Any]"
"""An element type: ``"f32"``, ``"float32"``, ``np.float32``, ``float``."""

ArrayLike: TypeAlias = "np.ndarray[Any, Any] | Sequence[Any] | float | int | bool | Any"
"""What can be fed: NumPy's arrays, whatever speaks DLPack or the buffer protocol, lists and numbers."""

_NAMES = {
    "bool": "bool",
    "uint8": "u8",
    "uint32": "u32",
    "int32": "i32",
    "int64": "i64",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
}
_SHORT = {short: name for name, short in _NAMES.items()}


def numpy_dtype(short: str) -> np.dtype[Any]:
    """The NumPy type of a short name.

    >>> numpy_dtype("f32")
    dtype('float32')
    """
    return np.dtype(ml_dtypes.bfloat16 if short == "bf16" else _SHORT[short])


def dtype_name(dtype: DTypeLike) -> str:
    """The short name of an element type, however it is written.

    >>> dtype_name("f32"), dtype_name("float32"), dtype_name(np.float32), dtype_name(float), dtype_name("bfloat16")
    ('f32', 'f32', 'f32', 'f32', 'bf16')
    """
    if isinstance(dtype, str):
        if dtype in _SHORT:
            return dtype
        if dtype == "bfloat16":
            return "bf16"
    elif dtype is float:
        return "f32"
    elif dtype is int:
        return "i64"
    try:
        # `torch.float32` and the like say their names in their last word.
        name = str(dtype).rpartition(".")[2] if type(dtype).__module__.startswith("torch") else np.dtype(dtype).name
        return _NAMES[name]
    except (KeyError, TypeError):
        known = ", ".join(_SHORT)
        raise TypeError(f"thalweg has no element type {dtype!r}; there are {known}") from None


def as_buffer(value: Any, wanted: str | None) -> tuple[Any, str, bool]:
    """Something with a buffer in row-major order, its element type's short name, and whether it has no axes (a buffer has one); for what
    the native half cannot read itself."""
    from ._tensor import Tensor

    if isinstance(value, Tensor):
        raise TypeError("a tensor of a graph has no value to feed: feed arrays, and fetch what programs return")
    if isinstance(value, np.ndarray):
        array: np.ndarray[Any, Any] = value
    elif hasattr(value, "__dlpack__"):
        array = _by_dlpack(value)
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        array = np.asarray(value)
    else:
        # Numbers and lists have no type of their own: they get the one that is wanted.
        array = np.asarray(value, dtype=None if wanted is None else numpy_dtype(wanted))
    if array.dtype.name not in _NAMES:
        hint = "; convert it with `.astype(np.int32)`" if array.dtype.kind in "iu" else ""
        raise TypeError(f"thalweg has no element type {array.dtype}{hint}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    short = _NAMES[array.dtype.name]
    # Of at least one axis.
    buffer = np.ascontiguousarray(array)
    return (buffer.view(np.uint16) if short == "bf16" else buffer), short, array.ndim == 0


def _by_dlpack(value: Any) -> np.ndarray[Any, Any]:
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        # NumPy's DLPack knows no such type; its bits are the same. Whoever has made the tensor has imported it.
        bits = np.from_dlpack(value.detach().contiguous().view(sys.modules["torch"].int16))
        return bits.view(ml_dtypes.bfloat16)
    if getattr(value, "requires_grad", False):
        value = value.detach()
    try:
        return np.from_dlpack(value)
    except (BufferError, TypeError, RuntimeError):
        # Of another device, or a type that DLPack's other end does not know.
        return np.asarray(value)
