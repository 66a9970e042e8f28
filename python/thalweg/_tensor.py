"""Tensors: handles of values that will be computed.

A :class:`Tensor` has a type and no elements. What is written with it runs once, while the graph is declared; a mistake yields a tensor that stems from
one, so that the next mistake is found as well and none is an echo.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ._arrays import DTypeLike, dtype_name
from ._errors import GraphError
from ._site import Site, here
from ._thalweg import Dim

if TYPE_CHECKING:
    from . import _thalweg
    from ._graph import Graph

__all__ = ["Axes", "Extent", "Index", "Operand", "Shape", "Tensor"]

Extent: TypeAlias = "int | Dim"
"""A number, or a named dimension."""
Shape: TypeAlias = "tuple[Extent, ...]"
"""Extents, outermost first."""
Axes: TypeAlias = "int | Sequence[int] | None"
"""Axes of a reduction: one, several, or all; negative ones count from the end."""
Operand: TypeAlias = "Tensor | float"
"""A tensor, or a number that becomes one of the other side's element type."""
Index: TypeAlias = "int | slice | EllipsisType | Tensor | None"
"""What stands between brackets for an axis."""


class Tensor:
    """A value of a graph, to be computed when a program runs.

    It has a :attr:`shape` and a :attr:`dtype`, and no elements: to see those, return it from a program, or ask
    :meth:`Model.eval_at`.
    """

    __slots__ = ("__weakref__", "_type", "_value", "graph")

    # NumPy's operators leave it to those below.
    __array_ufunc__ = None

    graph: Graph
    """The graph it belongs to."""

    def __init__(self, graph: Graph, value: _thalweg.Value) -> None:
        self.graph = graph
        self._value = value
        self._type: tuple[str, Shape] | None = None

    # What it is.

    def _ty(self) -> tuple[str, Shape]:
        if self._type is None:
            self._type = self.graph._native.type_of(self._value)
        return self._type

    @property
    def shape(self) -> Shape:
        """Extents, outermost first: numbers, and named dimensions."""
        return self._ty()[1]

    @property
    def dtype(self) -> str:
        """The short name of its element type: ``f32``."""
        return self._ty()[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def name(self) -> str | None:
        """The name that it was given."""
        return None if self._value.poison else self.graph._native.name_of(self._value)

    @property
    def site(self) -> Site:
        """Where it was declared: file, line and column."""
        return self.graph._native.site_of(self._value)

    def named(self, name: str) -> Tensor:
        """Names it, for programs that return it, for people and for errors. Gives it back."""
        self.graph._native.name(self._value, name)
        return self

    def shard(self, axes: Sequence[str | None]) -> Tensor:
        """Says how this is to be spread over the mesh of a strategy: per axis, the name of an axis of the mesh, or ``None``. Gives it
        back.

        Of a parameter or an input that is how it lies, and how the rest is computed follows; the rows of a batch are spread along
        the first axis of the mesh, unless something else is said of them. A value that is computed is spread so where its op allows
        it, and ``model.explain`` says where it does not. The same model runs anywhere: where no mesh is said, nothing else is cut.

        >>> import thalweg as tw
        >>> g = tw.Graph("wide")
        >>> x = g.input("x", "f32", (8, 16))
        >>> up = g.parameter("up", (16, 64), init=0.1).shard([None, "tp"])
        >>> down = g.parameter("down", (64, 16), init=0.1).shard(["tp", None])
        >>> g.program("run", outputs={"y": (x @ up).relu() @ down})
        >>> four = [f"cpu:{i}" for i in range(4)]
        >>> model = g.compile(four, tw.Strategy.data_parallel(mesh={"dp": 2, "tp": 2}))
        >>> model.run("run", {"x": [[1.0] * 16] * 8})["y"].shape
        (8, 16)
        """
        self.graph._native.shard(self._value, list(axes), here())
        return self

    def tap(self, name: str) -> Tensor:
        """Lets every program that computes this also return it, as ``name``."""
        self.graph._native.tap(self._value, name, False, here())
        return self

    def tap_grad(self, name: str) -> Tensor:
        """Lets every program that computes the gradient of its loss with respect to this also return that, as ``name``."""
        self.graph._native.tap(self._value, name, True, here())
        return self

    def check_finite(self) -> Tensor:
        """Lets every program that computes this fail before it commits where an element is infinite or NaN."""
        self.graph._native.check_finite(self._value, here())
        return self

    def _apply(self, op: str, *operands: Operand, **attrs: Any) -> Tensor:
        return self.graph._apply(op, operands, attrs or None)

    # Arithmetic.

    def __add__(self, other: Operand) -> Tensor:
        return self._apply("add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return self._apply("add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return self._apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return self._apply("sub", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return self._apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return self._apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return self._apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self._apply("div", other, self)

    def __floordiv__(self, other: Operand) -> Tensor:
        return (self / other).floor()

    def __pow__(self, other: Operand) -> Tensor:
        # A square is a product: exact, and its gradient has no logarithm.
        return self * self if not isinstance(other, Tensor) and other == 2 else self._apply("pow", self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return self._apply("pow", other, self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._apply("matmul", self, other)

    def __neg__(self) -> Tensor:
        return self._apply("neg", self)

    def __abs__(self) -> Tensor:
        return self._apply("abs", self)

    def __lt__(self, other: Operand) -> Tensor:
        return self._apply("lt", self, other)

    def __le__(self, other: Operand) -> Tensor:
        return self._apply("le", self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return self._apply("lt", other, self)

    def __ge__(self, other: Operand) -> Tensor:
        return self._apply("le", other, self)

    def __eq__(self, other: Operand) -> Tensor:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._apply("eq", self, other)

    def __ne__(self, other: Operand) -> Tensor:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._apply("ne", self, other)

    def __invert__(self) -> Tensor:
        return self._apply("logical_not", self)

    def __and__(self, other: Tensor) -> Tensor:
        return self._apply("select", self, other, self)

    def __or__(self, other: Tensor) -> Tensor:
        return self._apply("select", self, self, other)

    def __hash__(self) -> int:
        return id(self)

    # What it refuses.

    def _no_value(self, what: str, use: str) -> TypeError:
        return TypeError(f"{what}: it is a tensor of a graph, and has a value only while a program runs; {use}")

    def __bool__(self) -> bool:
        raise self._no_value(
            "a tensor is neither true nor false", "choose between tensors with `tw.where(condition, a, b)`"
        )

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim and isinstance(self.shape[0], int):
            return (self[i] for i in range(self.shape[0]))
        raise self._no_value("a tensor cannot be gone through", "compute with all of it, or index it")

    def __len__(self) -> int:
        if self.ndim and isinstance(self.shape[0], int):
            return self.shape[0]
        raise self._no_value("a tensor has no length", "its extents are `.shape`")

    def __float__(self) -> float:
        raise self._no_value("a tensor is no number", "return it from a program, or use `model.eval_at`")

    def __int__(self) -> int:
        raise self._no_value("a tensor is no number", "return it from a program, or use `model.eval_at`")

    def __index__(self) -> int:
        raise self._no_value("a tensor is no index of Python's", "pick elements with `tw.take(x, indices, axis)`")

    def __array__(self, dtype: object = None, copy: object = None) -> Any:
        raise self._no_value("a tensor is no array", "use the functions of `thalweg`: `tw.exp(x)` for `np.exp(x)`")

    def __reduce__(self) -> Any:
        raise TypeError(
            "a tensor belongs to its graph and cannot be pickled alone; save a model with `model.save_weights`"
        )

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: object) -> Tensor:
        return self

    def __repr__(self) -> str:
        if self._value.poison:
            return "Tensor(of a mistake)"
        name = f"{self.name!r}, " if self.name else ""
        return f"Tensor({name}{self.dtype}[{', '.join(map(str, self.shape))}])"

    # Parts.

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Tensor:
        """Parts, as NumPy has it: integers, slices, ``...``, ``None``, and one tensor of indices. Along an axis with a
        name, what its declared bounds show to be there for every value.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> x = g.input("x", "f32", (g.dim("n", max=9), 8, 6))
        >>> x[:, 1:, None, ::2].shape, x[..., -1].shape
        ((n, 7, 1, 3), (n, 8))
        >>> x[1:, ::-1].shape, x[-1].shape
        ((n-1, 8, 6), (8, 6))
        """
        from ._indexing import indexed

        return indexed(self, index if isinstance(index, tuple) else (index,))

    # Shapes.

    def reshape(self, *shape: Extent | Sequence[Extent]) -> Tensor:
        """The same elements under other extents; one may be -1, for what is left.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> g.input("x", "f32", (g.dim("n", max=9), 8, 6)).reshape(-1, 48).shape
        (n, 48)
        """
        if self._value.poison:
            return self
        extents = _extents(shape)
        if sum(1 for d in extents if isinstance(d, int) and d == -1) == 1:
            at = next(i for i, d in enumerate(extents) if isinstance(d, int) and d == -1)
            rest = math.prod(cast("Sequence[int]", (*extents[:at], *extents[at + 1 :])))
            try:
                left: Any = math.prod(cast("Sequence[int]", self.shape))
                if isinstance(left, int) and isinstance(rest, int) and (rest == 0 or left % rest):
                    raise ValueError
                extents = (*extents[:at], left // rest, *extents[at + 1 :])
            except ValueError:
                raise GraphError(f"cannot reshape {self!r} to {extents}: its elements do not come out even") from None
        if self.shape == extents:
            return self
        return self._apply("reshape", self, shape=extents)

    def flatten(self, axis: int = 0) -> Tensor:
        """All axes from ``axis`` on made one.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> g.input("x", "f32", (g.dim("n", max=9), 8, 6)).flatten(1).shape
        (n, 48)
        """
        if self._value.poison:
            return self
        axis = operator.index(axis)
        keep, join = self.shape[:axis], self.shape[axis:]
        return self.reshape(*keep, math.prod(cast("Sequence[int]", join)))

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """The axes in another order; reversed, unless one is given."""
        return self._apply("transpose", self, perm=[operator.index(cast("int", a)) for a in _extents(axes)])

    @property
    def T(self) -> Tensor:
        """All axes reversed: a matrix transposed."""
        return self.transpose()

    def swapaxes(self, a: int, b: int) -> Tensor:
        """Two axes exchanged."""
        if self._value.poison:
            return self
        perm = list(range(self.ndim))
        perm[a], perm[b] = perm[b], perm[a]
        return self.transpose(perm)

    def expand_dims(self, axis: int) -> Tensor:
        """With an axis of extent 1 at ``axis``."""
        if self._value.poison:
            return self
        at = axis if axis >= 0 else axis + self.ndim + 1
        return self.reshape(*self.shape[:at], 1, *self.shape[at:])

    def squeeze(self, axis: Axes = None) -> Tensor:
        """Without axes of extent 1: those named, or all of them."""
        if self._value.poison:
            return self
        ndim = self.ndim
        named = range(ndim) if axis is None else [a % ndim for a in axes_list(axis)]
        gone = [a for a in named if self.shape[a] == 1]
        if axis is not None and len(gone) != len(list(named)):
            raise GraphError(f"cannot squeeze axes {axis} of {self!r}: not all of them have extent 1")
        return self.reshape(*(d for a, d in enumerate(self.shape) if a not in gone))

    def broadcast_to(self, shape: Sequence[Extent]) -> Tensor:
        """Repeated to fill ``shape``."""
        extents = tuple(shape)
        return (
            self
            if not self._value.poison and self.shape == extents
            else self._apply("broadcast_to", self, shape=extents)
        )

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Converted to another element type."""
        to = dtype_name(dtype)
        return self if not self._value.poison and self.dtype == to else self._apply("cast", self, to=to)

    # Reductions.

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The sum over axes; truth values are counted.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> x = g.input("x", "f32", (4, 3))
        >>> x.sum().shape, x.sum(axis=-1).shape, x.sum(axis=0, keepdims=True).shape
        ((), (4,), (1, 3))
        """
        return self._counted("i32")._reduce("sum", axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The mean over axes; truth values count as 0 and 1."""
        return self._counted("f32")._reduce("mean", axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The largest element over axes; NaN wins."""
        return self._reduce("max", axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The smallest element over axes; NaN wins."""
        return self._reduce("min", axis, keepdims)

    def prod(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The product over axes."""
        return self._reduce("prod", axis, keepdims)

    def any(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Whether any element holds (bool)."""
        return self._reduce("any", axis, keepdims)

    def all(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Whether all elements hold (bool)."""
        return self._reduce("all", axis, keepdims)

    def var(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The variance over axes: the mean square of what is off the mean."""
        return ((self - self.mean(axis, keepdims=True)) ** 2).mean(axis, keepdims)

    def std(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The standard deviation over axes."""
        return self.var(axis, keepdims).sqrt()

    def _counted(self, dtype: str) -> Tensor:
        """Truth values as numbers."""
        return self.astype(dtype) if not self._value.poison and self.dtype == "bool" else self

    def _reduce(self, op: str, axis: Axes, keepdims: bool) -> Tensor:
        return self._apply(op, self, axes=axes_list(axis), keep=keepdims)

    def argmax(self, axis: int = -1) -> Tensor:
        """Where the largest element along an axis is (i32); the first of equals."""
        return self._apply("argmax", self, axis=axis)

    def argmin(self, axis: int = -1) -> Tensor:
        """Where the smallest element along an axis is (i32); the first of equals."""
        return self._apply("argmin", self, axis=axis)

    # Element by element.

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return self._apply("exp", self)

    def log(self) -> Tensor:
        """The natural logarithm."""
        return self._apply("log", self)

    def sqrt(self) -> Tensor:
        """The square root."""
        return self._apply("sqrt", self)

    def abs(self) -> Tensor:
        """Magnitudes."""
        return self._apply("abs", self)

    def floor(self) -> Tensor:
        """The largest integer that is not larger."""
        return self._apply("floor", self)

    def clip(self, low: Operand, high: Operand) -> Tensor:
        """Not below ``low`` and not above ``high``."""
        return self._apply("minimum", self._apply("maximum", self, low), high)

    def relu(self) -> Tensor:
        """``max(x, 0)``."""
        return self._apply("relu", self)

    def sigmoid(self) -> Tensor:
        """``1 / (1 + exp(-x))``."""
        return self._apply("sigmoid", self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return self._apply("tanh", self)

    def softmax(self, axis: int = -1) -> Tensor:
        """Shares that add up to one along an axis."""
        return self._apply("softmax", self, axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        """Logarithms of what :meth:`softmax` gives."""
        return self._apply("log_softmax", self, axis=axis)

    def dropout(self, p: float) -> Tensor:
        """Random zeros in programs that train, with probability ``p``; the rest is scaled so that the mean stays."""
        return Tensor(self.graph, self.graph._native.dropout(self.graph._place, here(), self._value, p))


def graph_of(*operands: object) -> Graph:
    """The graph of the first tensor among these, also within lists and dicts."""
    found = _first(operands)
    if found is None:
        raise TypeError("none of these is a tensor of a graph")
    return found.graph


def _first(x: object) -> Tensor | None:
    if isinstance(x, Tensor):
        return x
    inner = x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else ()
    return next((t for t in map(_first, inner) if t is not None), None)


def apply(op: str, operands: Sequence[Operand], attrs: dict[str, Any] | None = None) -> Tensor:
    """Applies an op of one result."""
    return graph_of(*operands)._apply(op, operands, attrs)


def axes_list(axis: Axes) -> list[int]:
    """Axes as the table of ops has them: none for all."""
    if axis is None:
        return []
    if isinstance(axis, Sequence):
        return [operator.index(a) for a in axis]
    return [operator.index(axis)]


def _extents(given: Sequence[Any]) -> Shape:
    """Extents given one by one, or as one sequence."""
    if len(given) == 1 and isinstance(given[0], Sequence):
        return tuple(given[0])
    return tuple(d if isinstance(d, Dim) else operator.index(d) for d in given)
