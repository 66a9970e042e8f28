"""Ops of your own: the formula of a kernel, written over axes, and the gradient in terms of tensors.

What is said here is asked for when a graph is declared and planned; no Python runs in a step. A kernel is compiled for every device, and fused,
spread over devices and checked by the interpreter like any of the library's.

>>> import thalweg as tw
>>> from thalweg import kernel as k
>>> class Snake(k.Op):
...     a: float = 1.0
...     def kernel(self, nest, x):
...         at = nest.axes(*x.shape)
...         wave = k.sin(x[at] * self.a)
...         return x[at] + wave * wave / self.a
...     def gradient(self, ct, x):
...         return ct * (tw.sin(x * (2 * self.a)) + 1)
>>> g = tw.Graph()
>>> x = g.input("x", "f32", (3,))
>>> y = Snake(a=2.0)(x)
>>> g.program("run", outputs={"y": y, "dx": tw.gradients(y.sum(), [x])[0]})
>>> g.compile().run("run", {"x": [0.0, 1.0, 2.0]})["y"].round(4)
array([0.    , 1.4134, 2.2864], dtype=float32)

A fold is over axes of its own:

>>> class RowSums(k.Op):
...     def types(self, x):
...         return x.dtype, x.shape[:-1]
...     def kernel(self, nest, x):
...         at = nest.axes(*x.shape[:-1])
...         (i,) = nest.folds(x.shape[-1])
...         return k.sum(x[(*at, i)])
>>> g = tw.Graph()
>>> g.program("run", outputs={"y": RowSums()(g.input("x", "f32", (2, 3)))})
>>> g.compile().run("run", {"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]})["y"]
array([ 6., 15.], dtype=float32)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, dataclass_transform
from weakref import WeakValueDictionary

from . import _thalweg
from ._graph import Graph
from ._site import here
from ._tensor import Shape, Tensor, graph_of

if TYPE_CHECKING:
    from ._thalweg import Value

__all__ = [
    "Expr",
    "Nest",
    "Op",
    "Operand",
    "Scalar",
    "TensorType",
    "abs",
    "cast",
    "cos",
    "erf",
    "exp",
    "floor",
    "log",
    "max",
    "maximum",
    "min",
    "minimum",
    "prod",
    "select",
    "sin",
    "sqrt",
    "sum",
    "tanh",
]

Scalar: TypeAlias = "Expr | float"
"""A value of a kernel, or a number."""


class Expr:
    """A value of a kernel at one point of its axes. Indices are values, too: sums of axes, times numbers."""

    __slots__ = ("_node",)

    def __init__(self, node: tuple[Any, ...]) -> None:
        self._node = node

    def __add__(self, other: Scalar) -> Expr:
        return _index(self, other, 1) if _terms(other) and _terms(self) else _binary("add", self, other)

    def __radd__(self, other: Scalar) -> Expr:
        return _index(self, other, 1) if _terms(other) and _terms(self) else _binary("add", other, self)

    def __sub__(self, other: Scalar) -> Expr:
        return _index(self, other, -1) if _terms(other) and _terms(self) else _binary("sub", self, other)

    def __rsub__(self, other: Scalar) -> Expr:
        return _binary("sub", other, self)

    def __mul__(self, other: Scalar) -> Expr:
        return _times(self, other) if _terms(self) and isinstance(other, int) else _binary("mul", self, other)

    def __rmul__(self, other: Scalar) -> Expr:
        return _times(self, other) if _terms(self) and isinstance(other, int) else _binary("mul", other, self)

    def __truediv__(self, other: Scalar) -> Expr:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Scalar) -> Expr:
        return _binary("div", other, self)

    def __pow__(self, other: Scalar) -> Expr:
        return _binary("pow", self, other)

    def __neg__(self) -> Expr:
        return _unary("neg", self)

    def __lt__(self, other: Scalar) -> Expr:
        return _binary("lt", self, other)

    def __le__(self, other: Scalar) -> Expr:
        return _binary("le", self, other)

    def __gt__(self, other: Scalar) -> Expr:
        return _binary("lt", other, self)

    def __ge__(self, other: Scalar) -> Expr:
        return _binary("le", other, self)

    def equals(self, other: Scalar) -> Expr:
        """Whether two are equal; ``==`` compares what was written."""
        return _binary("eq", self, other)

    def __bool__(self) -> bool:
        raise TypeError("a kernel's value is not known here: choose with `kernel.select(condition, a, b)`")


def _binary(op: str, a: Scalar, b: Scalar) -> Expr:
    return Expr(("binary", op, a, b))


def _unary(op: str, x: Scalar) -> Expr:
    return Expr(("unary", op, x))


def _terms(x: object) -> tuple[dict[int, int], int] | None:
    """Coefficients by axis and the offset, of what is an index."""
    if isinstance(x, int):
        return {}, x
    return x._node[1] if isinstance(x, Expr) and x._node[0] == "index" else None


def _index(a: Expr, b: Scalar, sign: int) -> Expr:
    """The sum of two indices."""
    (left, offset), (right, more) = _terms(a) or ({}, 0), _terms(b) or ({}, 0)
    terms = {axis: left.get(axis, 0) + sign * right.get(axis, 0) for axis in {**left, **right}}
    return Expr(("index", (terms, offset + sign * more)))


def _times(a: Expr, factor: int) -> Expr:
    """An index times a number."""
    terms, offset = _terms(a) or ({}, 0)
    return Expr(("index", ({axis: f * factor for axis, f in terms.items()}, offset * factor)))


def sin(x: Scalar) -> Expr:
    """The sine."""
    return _unary("sin", x)


def cos(x: Scalar) -> Expr:
    """The cosine."""
    return _unary("cos", x)


def exp(x: Scalar) -> Expr:
    """e to the power of it."""
    return _unary("exp", x)


def log(x: Scalar) -> Expr:
    """The natural logarithm."""
    return _unary("log", x)


def sqrt(x: Scalar) -> Expr:
    """The square root."""
    return _unary("sqrt", x)


def tanh(x: Scalar) -> Expr:
    """The hyperbolic tangent."""
    return _unary("tanh", x)


def erf(x: Scalar) -> Expr:
    """The error function."""
    return _unary("erf", x)


def abs(x: Scalar) -> Expr:
    """The magnitude."""
    return _unary("abs", x)


def floor(x: Scalar) -> Expr:
    """The largest integer that is not larger."""
    return _unary("floor", x)


def maximum(a: Scalar, b: Scalar) -> Expr:
    """The larger of two."""
    return _binary("max", a, b)


def minimum(a: Scalar, b: Scalar) -> Expr:
    """The smaller of two."""
    return _binary("min", a, b)


def select(condition: Expr, yes: Scalar, no: Scalar) -> Expr:
    """The second where the first holds, else the third."""
    return Expr(("select", condition, yes, no))


def cast(x: Expr, dtype: str) -> Expr:
    """Converted to another element type."""
    return Expr(("cast", x, dtype))


def sum(x: Expr) -> Expr:
    """The sum over all axes that are folded."""
    return Expr(("fold", "sum", x))


def prod(x: Expr) -> Expr:
    """The product over all axes that are folded."""
    return Expr(("fold", "prod", x))


def max(x: Expr) -> Expr:
    """The largest over all axes that are folded."""
    return Expr(("fold", "max", x))


def min(x: Expr) -> Expr:
    """The smallest over all axes that are folded."""
    return Expr(("fold", "min", x))


class Nest:
    """The axes of a kernel."""

    def __init__(self) -> None:
        self._axes: list[tuple[bool, int]] = []

    def axes(self, *extents: int) -> tuple[Expr, ...]:
        """An axis of the result per extent; together they are its shape."""
        return self._add(False, extents)

    def folds(self, *extents: int) -> tuple[Expr, ...]:
        """Axes that are folded: :func:`sum` and its like are over them."""
        return self._add(True, extents)

    def _add(self, fold: bool, extents: Sequence[int]) -> tuple[Expr, ...]:
        first = len(self._axes)
        self._axes += [(fold, extent) for extent in extents]
        return tuple(Expr(("index", ({first + i: 1}, 0))) for i in range(len(extents)))


class Operand:
    """What a kernel reads: ``x[i, j]``."""

    def __init__(self, number: int, dtype: str, shape: tuple[int, ...]) -> None:
        self._number = number
        self.dtype: str = dtype
        self.shape: tuple[int, ...] = shape

    def __getitem__(self, at: Expr | int | tuple[Expr | int, ...]) -> Expr:
        """The element there. An index that may leave the operand needs :meth:`get`."""
        return self.get(at, None)

    def get(self, at: Expr | int | tuple[Expr | int, ...], fill: float | None = 0.0) -> Expr:
        """The element there, or ``fill`` where there is none."""
        places = at if isinstance(at, tuple) else (at,)
        if len(places) != len(self.shape):
            raise ValueError(f"{len(places)} indices for an operand with {len(self.shape)} axes")
        return Expr(("read", self._number, list(places), fill))


@dataclasses.dataclass(frozen=True)
class TensorType:
    """The type of an operand: its extents may have names."""

    dtype: str
    shape: Shape


@dataclass_transform(frozen_default=True)
class Op:
    """An op of your own. Its annotated fields are attributes: numbers, texts, or tuples of integers.

    Say :meth:`kernel`; :meth:`types` where the result is not of the first operand's type; :meth:`gradient` where there is one.
    """

    results: ClassVar[int] = 1
    """How many there are."""
    _op_name: ClassVar[str]
    _operands: ClassVar[list[str]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclasses.dataclass(frozen=True)(cls)
        parameters = list(inspect.signature(cls.kernel).parameters.values())[2:]
        star = inspect.Parameter.VAR_POSITIONAL
        cls._operands = [p.name + "*" * (p.kind == star) for p in parameters]
        # Another class of the same name is another op.
        name, n = cls.__name__.lower(), 1
        while _NAMES.get(name, cls) is not cls:
            n += 1
            name = f"{cls.__name__.lower()}_{n}"
        _NAMES[name] = cls
        cls._op_name = name

    def types(self, *operands: TensorType) -> Any:
        """Element type and extents of the result, or a list of such for several; of the first operand, unless this says otherwise. Raise
        ``ValueError`` for operands that do not fit: it becomes a mistake at the user's line."""
        return operands[0].dtype, operands[0].shape

    def kernel(self, nest: Nest, *operands: Any) -> Any:
        """The value of each result, at the axes that ``nest`` was asked for. ``operands`` are :class:`Operand`, with extents that are numbers."""
        raise NotImplementedError(f"{type(self).__name__} has no kernel")

    def gradient(self, ct: Any, *operands: Any) -> Any:
        """The cotangent of each operand (a tensor, or None), given that of the result; a list where there are several."""
        return None

    def __call__(self, *operands: Tensor) -> Any:
        """Applies it: a tensor, or a tuple where there are several results."""
        graph = graph_of(*operands)
        given = [graph._own(x) for x in operands]
        made = [Tensor(graph, v) for v in graph._native.apply_custom(graph._place, here(), _Bound(self, graph), given)]
        return made[0] if self.results == 1 else tuple(made)


_NAMES: WeakValueDictionary[str, type[Op]] = WeakValueDictionary()


class _Bound:
    """An op for the native half: with the graph that its gradient is declared in."""

    def __init__(self, op: Op, graph: Graph) -> None:
        self.op, self.graph = op, graph
        self._op_name, self._operands, self.results = op._op_name, op._operands, op.results

    def _attrs(self) -> dict[str, Any]:
        fields = dataclasses.fields(self.op)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return {f.name: getattr(self.op, f.name) for f in fields}

    def _types(self, operands: list[tuple[str, Shape]]) -> list[Any]:
        said = self.op.types(*(TensorType(*t) for t in operands))
        return [said] if self.op.results == 1 else list(said)

    def _kernel(self, operands: list[tuple[str, tuple[int, ...]]]) -> tuple[list[tuple[bool, int]], list[Any]]:
        nest = Nest()
        said = self.op.kernel(nest, *(Operand(i, *t) for i, t in enumerate(operands)))
        return nest._axes, [said] if self.op.results == 1 else list(said)

    def _gradient(self, operands: list[Value], results: list[Value], cotangents: list[Value | None]) -> Any:
        graph = self.graph
        outer, graph._place = graph._place, _thalweg.Place.derived()
        try:
            given = [Tensor(graph, v) for v in operands]
            made = [Tensor(graph, v) for v in results]
            cts = [
                graph.full(r.shape, 0.0, r.dtype) if c is None else Tensor(graph, c) for c, r in zip(cotangents, made)
            ]
            found = self.op.gradient(cts[0] if self.op.results == 1 else cts, *given)
            if found is None:
                return None
            each = [found] if isinstance(found, Tensor) else list(found)
            return [None if t is None else graph._own(t) for t in each]
        finally:
            graph._place = outer
