"""Functions of tensors by the names that NumPy and others have for them. Each is an op of :mod:`thalweg.ops`, or a few."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from . import _indexing, ops
from ._tensor import Axes, Extent, Operand, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "abs",
    "all",
    "any",
    "argmax",
    "argmin",
    "attention",
    "avg_pool",
    "broadcast_to",
    "clip",
    "concatenate",
    "conv2d",
    "cos",
    "dropout",
    "equal",
    "erf",
    "exp",
    "expand_dims",
    "flatten",
    "flip",
    "floor",
    "gelu",
    "gradients",
    "isnan",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "matmul",
    "max",
    "max_pool",
    "maximum",
    "mean",
    "min",
    "minimum",
    "one_hot",
    "ones_like",
    "pad",
    "prod",
    "relu",
    "reshape",
    "scatter_add",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sum",
    "swapaxes",
    "take",
    "take_along_axis",
    "tanh",
    "transpose",
    "var",
    "where",
    "zeros_like",
]


# Element by element.


def abs(x: Tensor) -> Tensor:
    """Magnitudes."""
    return ops.abs(x)


def exp(x: Tensor) -> Tensor:
    """e to the power of each element."""
    return ops.exp(x)


def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return ops.log(x)


def sqrt(x: Tensor) -> Tensor:
    """The square root."""
    return ops.sqrt(x)


def square(x: Tensor) -> Tensor:
    """``x * x``."""
    return x * x


def sin(x: Tensor) -> Tensor:
    """The sine."""
    return ops.sin(x)


def cos(x: Tensor) -> Tensor:
    """The cosine."""
    return ops.cos(x)


def erf(x: Tensor) -> Tensor:
    """The error function."""
    return ops.erf(x)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return ops.sign(x)


def floor(x: Tensor) -> Tensor:
    """The largest integer that is not larger."""
    return ops.floor(x)


def isnan(x: Tensor) -> Tensor:
    """Whether an element is NaN (bool)."""
    return ops.is_nan(x)


def maximum(a: Operand, b: Operand) -> Tensor:
    """The larger of two, element by element; NaN wins."""
    return ops.maximum(a, b)


def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of two, element by element; NaN wins."""
    return ops.minimum(a, b)


def clip(x: Tensor, low: Operand, high: Operand) -> Tensor:
    """Not below ``low`` and not above ``high``."""
    return x.clip(low, high)


def equal(a: Operand, b: Operand) -> Tensor:
    """Whether two are equal, element by element (bool)."""
    return ops.eq(a, b)


def where(condition: Tensor, yes: Operand, no: Operand) -> Tensor:
    """``yes`` where ``condition`` (bool) holds, else ``no``.

    >>> import thalweg as tw
    >>> g = tw.Graph()
    >>> x = g.input("x", "f32", (3,))
    >>> g.program("half", outputs={"y": tw.where(x > 0, x, 0.5)})
    >>> g.compile().half(x=[-1.0, 0.0, 2.0])["y"]
    array([0.5, 0.5, 2. ], dtype=float32)
    """
    if not isinstance(yes, Tensor) and not isinstance(no, Tensor):
        yes = condition.graph.full((), float(yes))
    return ops.select(condition, yes, no)


def logical_not(x: Tensor) -> Tensor:
    """Whether an element does not hold (bool)."""
    return ops.logical_not(x)


def logical_and(a: Tensor, b: Tensor) -> Tensor:
    """Whether both hold (bool)."""
    return a & b


def logical_or(a: Tensor, b: Tensor) -> Tensor:
    """Whether one of two holds, or both (bool)."""
    return a | b


def relu(x: Tensor) -> Tensor:
    """``max(x, 0)``."""
    return ops.relu(x)


def sigmoid(x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return ops.sigmoid(x)


def silu(x: Tensor) -> Tensor:
    """``x * sigmoid(x)``."""
    return x * ops.sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return ops.tanh(x)


def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    """``x · Φ(x)``: by the error function, or approximately by the hyperbolic tangent."""
    return ops.gelu(x, tanh=approximate)


def dropout(x: Tensor, p: float) -> Tensor:
    """Random zeros in programs that train, with probability ``p``; the rest is scaled so that the mean stays."""
    return x.dropout(p)


# Over axes.


def sum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The sum over axes."""
    return x.sum(axis, keepdims)


def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean over axes."""
    return x.mean(axis, keepdims)


def max(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest element over axes."""
    return x.max(axis, keepdims)


def min(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest element over axes."""
    return x.min(axis, keepdims)


def prod(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The product over axes."""
    return x.prod(axis, keepdims)


def any(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any element holds (bool)."""
    return x.any(axis, keepdims)


def all(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all elements hold (bool)."""
    return x.all(axis, keepdims)


def var(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The variance over axes."""
    return x.var(axis, keepdims)


def std(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The standard deviation over axes."""
    return x.std(axis, keepdims)


def argmax(x: Tensor, axis: int = -1) -> Tensor:
    """Where the largest element along an axis is (i32)."""
    return x.argmax(axis)


def argmin(x: Tensor, axis: int = -1) -> Tensor:
    """Where the smallest element along an axis is (i32)."""
    return x.argmin(axis)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Shares that add up to one along an axis."""
    return x.softmax(axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Logarithms of what :func:`softmax` gives."""
    return x.log_softmax(axis)


# Shapes.


def reshape(x: Tensor, shape: Sequence[Extent]) -> Tensor:
    """The same elements under other extents; one may be -1, for what is left."""
    return x.reshape(shape)


def flatten(x: Tensor, axis: int = 0) -> Tensor:
    """All axes from ``axis`` on made one."""
    return x.flatten(axis)


def transpose(x: Tensor, axes: Sequence[int] = ()) -> Tensor:
    """The axes in another order; reversed, unless one is given."""
    return x.transpose(axes)


def swapaxes(x: Tensor, a: int, b: int) -> Tensor:
    """Two axes exchanged."""
    return x.swapaxes(a, b)


def expand_dims(x: Tensor, axis: int) -> Tensor:
    """With an axis of extent 1 at ``axis``."""
    return x.expand_dims(axis)


def squeeze(x: Tensor, axis: Axes = None) -> Tensor:
    """Without axes of extent 1."""
    return x.squeeze(axis)


def broadcast_to(x: Tensor, shape: Sequence[Extent]) -> Tensor:
    """Repeated to fill ``shape``."""
    return x.broadcast_to(shape)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of this tensor's type."""
    return x.graph.full(x.shape, 0.0, x.dtype)


def ones_like(x: Tensor) -> Tensor:
    """Ones of this tensor's type."""
    return x.graph.full(x.shape, 1.0, x.dtype)


def concatenate(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after the other along an axis."""
    return ops.concat(*parts, axis=axis)


def stack(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after the other along a new axis."""
    return concatenate([x.expand_dims(axis) for x in parts], axis)


def split(x: Tensor, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Equal parts along an axis, or the parts between these places."""
    axis = axis % x.ndim
    extent = x.shape[axis]
    if isinstance(sections, int):
        if not isinstance(extent, int) or extent % sections:
            raise ValueError(f"{x!r} cannot be split in {sections} equal parts along axis {axis}")
        sections = [extent // sections * i for i in range(1, sections)]
    ends: list[int | None] = [0, *sections, None]
    before = (slice(None),) * axis
    return [x[(*before, slice(a, b))] for a, b in pairwise(ends)]


def flip(x: Tensor, axis: int) -> Tensor:
    """The elements along an axis in reverse: ``x[::-1]``."""
    return _indexing.flip(x, axis)


def pad(x: Tensor, widths: Sequence[tuple[Extent, Extent]], value: float = 0.0) -> Tensor:
    """With ``value`` around it: so much before and after, per axis."""
    return ops.pad(x, low=tuple(a for a, _ in widths), high=tuple(b for _, b in widths), value=value)


# Matrices, images, sequences.


def matmul(a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """The matrix product over the last two axes; axes before them broadcast."""
    return ops.matmul(a, b, transpose_lhs=transpose_a, transpose_rhs=transpose_b)


def _pair(n: int | tuple[int, int]) -> tuple[int, int]:
    return (n, n) if isinstance(n, int) else n


def conv2d(
    image: Tensor,
    weight: Tensor,
    *,
    stride: int | tuple[int, int] = 1,
    pad: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of images [N, C, H, W] by a weight [out, in / groups, h, w]."""
    return ops.conv2d(image, weight, stride=_pair(stride), pad=_pair(pad), dilation=_pair(dilation), groups=groups)


def max_pool(
    image: Tensor,
    size: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] | None = None,
    pad: int | tuple[int, int] = 0,
) -> Tensor:
    """The largest element of each window; windows lie side by side, unless a stride is given."""
    return ops.max_pool2d(image, size=_pair(size), stride=_pair(size if stride is None else stride), pad=_pair(pad))[0]


def avg_pool(
    image: Tensor,
    size: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] | None = None,
    pad: int | tuple[int, int] = 0,
) -> Tensor:
    """The mean of each window; windows lie side by side, unless a stride is given."""
    return ops.avg_pool2d(image, size=_pair(size), stride=_pair(size if stride is None else stride), pad=_pair(pad))


def attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Means of values, weighted by how well their keys fit a query: ``softmax(q @ k.T / sqrt(d)) @ v``, all [.., time, features]."""
    return ops.attention(query, key, value, causal=causal)[0]


# Indices.


def take(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """The places of an axis that ``indices`` (i32 or i64) name; NaN (0 for integers) where there is no such place."""
    return ops.gather(x, indices, axis=axis)


def take_along_axis(x: Tensor, index: Tensor) -> Tensor:
    """One element of the last axis per index: ``out[b, e] = x[b, index[b, e]]``."""
    return ops.pick(x, index)


def scatter_add(x: Tensor, indices: Tensor, updates: Tensor, axis: int = 0) -> Tensor:
    """``x`` with ``updates`` added at the places of an axis that ``indices`` name."""
    return ops.scatter_add(x, indices, updates, axis=axis)


def one_hot(indices: Tensor, classes: int, dtype: str = "f32") -> Tensor:
    """Indices as rows with a single one."""
    return ops.one_hot(indices, classes=classes, dtype=dtype)


def gradients(of: Tensor, wrt: Sequence[Tensor]) -> list[Tensor]:
    """What the derivative of ``of``, summed, is with respect to each of ``wrt``.

    >>> import thalweg as tw
    >>> g = tw.Graph()
    >>> x = g.input("x", "f32", (3,))
    >>> (dx,) = tw.gradients((x**2).sum(), [x])
    >>> g.program("slope", outputs={"dx": dx})
    >>> g.compile().slope(x=[1.0, 2.0, 3.0])["dx"]
    array([2., 4., 6.], dtype=float32)
    """
    return of.graph.gradients(of, wrt)
