"""Graphs and tensors: where a model is declared.

A :class:`Tensor` is a handle of a value that will be computed: it has a type and no elements. What is written here runs once, while the graph is
declared, and a mistake does not stop it: all of them are raised at once, when the graph is compiled, each at its own line.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from . import _thalweg
from ._arrays import DTypeLike, dtype_name
from ._errors import GraphError
from ._site import Site, here
from ._thalweg import Dim

if TYPE_CHECKING:
    from ._cluster import Cluster, Strategy
    from ._model import Model
    from .init import Initializer
    from .optim import Update

__all__ = ["Axes", "Extent", "Graph", "Index", "Operand", "Shape", "Tensor"]

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


class Graph:
    """A model being declared: inputs, parameters, programs.

    Args:
        name: What it is called.
        seed: What all random numbers start from: initial values, dropout.

    >>> import thalweg as tw
    >>> g = tw.Graph("line", seed=0)
    >>> n = g.dim("n", max=64)
    >>> x, y = g.input("x", "f32", (n,)), g.input("y", "f32", (n,))
    >>> slope = g.parameter("slope", ())
    >>> loss = ((x * slope - y) ** 2).mean().named("loss")
    >>> g.program("train", outputs=[loss], update=tw.optim.SGD(0.1).minimize(loss))
    >>> model = g.compile()
    >>> for _ in range(50):
    ...     out = model.train(x=[1.0, 2.0, 3.0], y=[2.0, 4.0, 6.0])
    >>> round(float(model.get("slope")), 3)
    2.0
    """

    def __init__(self, name: str = "model", seed: int = 0) -> None:
        self.name: str = name
        self.seed: int = seed
        self._native = _thalweg.Graph(name, seed)
        self._scope = ""
        self._pin: tuple[int | None, str | None] = (None, None)
        self._shared = False
        self._place = _thalweg.Place("")

    @classmethod
    def from_bytes(cls, data: bytes) -> Graph:
        """A graph as :meth:`to_bytes` gives it: to be compiled, not to be declared further.

        >>> import pickle
        >>> import thalweg as tw
        >>> g = tw.Graph("double")
        >>> g.program("run", outputs={"y": g.input("x", "f32", (2,)) * 2})
        >>> pickle.loads(pickle.dumps(g)).compile().run("run", {"x": [1.0, 2.0]})["y"]
        array([2., 4.], dtype=float32)
        """
        graph = cls.__new__(cls)
        native = _thalweg.Graph.from_bytes(data)
        name, seed = native.identity()
        graph.__init__(name, seed)
        graph._native = native
        return graph

    def __reduce__(self) -> tuple[Any, ...]:
        return Graph.from_bytes, (self.to_bytes(),)

    # Declaring.

    def dim(self, name: str, max: int, min: int = 1) -> Dim:
        """A named dimension: one graph for every extent from ``min`` to ``max``. Its value comes with the data.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> batch = g.dim("batch", max=512)
        >>> g.input("x", "f32", (batch, 8)).shape
        (batch, 8)
        """
        return self._native.dim(name, min, max, here())

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[Extent]) -> Tensor:
        """A value that is fed by name."""
        return Tensor(self, self._native.input(name, dtype_name(dtype), tuple(shape), here()))

    def parameter(
        self, name: str, shape: Sequence[int], dtype: DTypeLike = "f32", init: Initializer | float = 0.0
    ) -> Tensor:
        """A learned variable, called ``name`` in the open scope.

        Args:
            init: How it begins: a number, or what :mod:`thalweg.init` has.
        """
        from .init import as_native

        native = as_native(init)
        return Tensor(self, self._native.parameter(self._place, here(), name, dtype_name(dtype), tuple(shape), native))

    def full(self, shape: Sequence[Extent], value: float, dtype: DTypeLike = "f32") -> Tensor:
        """``value`` everywhere."""
        return self._apply("full", (), {"value": value, "shape": tuple(shape), "dtype": dtype_name(dtype)})

    def zeros(self, shape: Sequence[Extent], dtype: DTypeLike = "f32") -> Tensor:
        """Zeros."""
        return self.full(shape, 0.0, dtype)

    def ones(self, shape: Sequence[Extent], dtype: DTypeLike = "f32") -> Tensor:
        """Ones."""
        return self.full(shape, 1.0, dtype)

    def arange(self, stop: Extent, dtype: DTypeLike = "i32") -> Tensor:
        """The numbers from 0 to below ``stop``."""
        return self._apply("iota", (), {"axis": 0, "shape": (stop,), "dtype": dtype_name(dtype)})

    def step(self) -> Tensor:
        """How many steps training programs have committed (i64, no axes): what schedules of your own are computed from."""
        return Tensor(self, self._native.step(self._place, here()))

    def program(
        self,
        name: str,
        outputs: Sequence[Tensor] | Mapping[str, Tensor],
        *,
        inputs: Sequence[Tensor] | None = None,
        update: Update | None = None,
        precision: DTypeLike | None = None,
    ) -> None:
        """Declares a program: what a call computes, returns and updates.

        Args:
            outputs: What it returns: tensors by the names that they were given, or by names given here.
            inputs: Which inputs it takes; needing another one is a mistake. All that it needs, unless this is said.
            update: What it sets at the end of a step, as ``optim.AdamW(1e-3).minimize(loss)`` says it. Makes it a
                program that trains: dropout is on, and the step is counted.
            precision: ``"bf16"`` or ``"f16"`` for mixed precision.
        """
        named = outputs.items() if isinstance(outputs, Mapping) else [(None, t) for t in outputs]
        self._native.program(
            here(),
            name,
            [(key, self._own(t)) for key, t in named],
            None if inputs is None else [self._own(t) for t in inputs],
            None if update is None else update._native,
            None if precision is None else dtype_name(precision),
        )

    def gradients(self, of: Tensor, wrt: Sequence[Tensor]) -> list[Tensor]:
        """What the derivative of ``of``, summed, is with respect to each of ``wrt``."""
        values = self._native.gradients(self._place, here(), self._own(of), [self._own(t) for t in wrt])
        return [Tensor(self, v) for v in values]

    # Where it is declared.

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """What is declared inside is called ``name.…``.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> with g.scope("encoder"):
        ...     w = g.parameter("w", (2, 3))
        >>> g.program("show", outputs={"w": w})
        >>> list(g.compile().variables)
        ['encoder.w']
        """
        with self._at(f"{self._scope}.{name}" if self._scope else name, self._pin, self._shared):
            yield

    @contextmanager
    def stage(self, number: int) -> Iterator[None]:
        """What is declared inside, with its gradients, is this stage of a pipeline, from 0."""
        with self._at(self._scope, (number, None), self._shared):
            yield

    @contextmanager
    def on(self, device: str) -> Iterator[None]:
        """What is declared inside, with its gradients, runs on the device of this name, whatever a strategy says."""
        with self._at(self._scope, (None, device), self._shared):
            yield

    @contextmanager
    def _at(self, scope: str, pin: tuple[int | None, str | None], shared: bool) -> Iterator[None]:
        outer = (self._scope, self._pin, self._shared, self._place)
        self._scope, self._pin, self._shared = scope, pin, shared
        self._place = _thalweg.Place(scope, pin[0], pin[1], shared)
        try:
            yield
        finally:
            self._scope, self._pin, self._shared, self._place = outer

    # What becomes of it.

    def check(self) -> None:
        """Raises every mistake that was made so far, as :class:`GraphError`."""
        self._native.check()

    def compile(
        self,
        devices: Cluster | Sequence[str] | str = "auto",
        strategy: Strategy | None = None,
    ) -> Model:
        """A model that runs.

        Args:
            devices: ``"auto"``: all cores of this machine, or the workers of the job that ``thalweg launch`` has begun. Else
                names of devices, such as ``["cpu:0", "gpu:0"]``, or a :class:`Cluster`.
            strategy: How it is spread over several devices.

        Raises:
            GraphError: With every mistake of the model, each drawn at its line.
            ClusterError: If there are no such devices, or the strategy does not fit.
        """
        from ._cluster import as_native
        from ._model import Model

        return Model(self, self._native.compile(as_native(devices), None if strategy is None else strategy._native))

    def text(self) -> str:
        """The graph as text: one line per op."""
        return self._native.show("text")

    def dot(self, program: str | None = None) -> str:
        """The graph for Graphviz."""
        return self._native.show("dot", program)

    def mermaid(self, program: str | None = None) -> str:
        """The graph for Mermaid, which Markdown and notebooks draw."""
        return self._native.show("mermaid", program)

    def to_bytes(self) -> bytes:
        """The canonical bytes of the graph: equal for equal graphs."""
        return bytes(self._native.to_bytes())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/vnd.mermaid": self.mermaid()}

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, seed={self.seed})"

    # How ops are applied.

    def _own(self, tensor: Tensor) -> _thalweg.Value:
        if not isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"expected a tensor of the graph, got {type(tensor).__name__}")
        if tensor.graph is not self:
            raise GraphError(f"a tensor of the graph {tensor.graph.name!r} cannot be used in {self.name!r}")
        return tensor._value

    def _apply_all(self, op: str, operands: Sequence[Operand], attrs: dict[str, Any] | None = None) -> list[Tensor]:
        given = [self._own(x) if isinstance(x, Tensor) else _number(x) for x in operands]
        return [Tensor(self, v) for v in self._native.apply(self._place, here(), op, given, attrs)]

    def _apply(self, op: str, operands: Sequence[Operand], attrs: dict[str, Any] | None = None) -> Tensor:
        return self._apply_all(op, operands, attrs)[0]


def _number(x: object) -> float:
    if isinstance(x, (str, bytes)):
        raise TypeError(f"expected a tensor or a number, got {type(x).__name__}")
    # NumPy's scalars are numbers; its arrays are not, however small.
    if hasattr(x, "shape") and getattr(x, "shape", None) != ():
        raise TypeError(
            "an array is no part of a graph: declare an input and feed it, or a parameter and set it before the first step"
        )
    try:
        return float(cast("Any", x))
    except (TypeError, ValueError):
        raise TypeError(f"expected a tensor or a number, got {type(x).__name__}") from None


def graph_of(*operands: object) -> Graph:
    """The graph of the first tensor among these."""
    for x in operands:
        if isinstance(x, Tensor):
            return x.graph
    raise TypeError("none of these is a tensor of a graph")


def apply(op: str, operands: Sequence[Operand], attrs: dict[str, Any] | None = None) -> Tensor:
    """Applies an op of one result."""
    return graph_of(*operands)._apply(op, operands, attrs)


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
        return self * self if other == 2 and not isinstance(other, Tensor) else self._apply("pow", self, other)

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
        """Parts, as NumPy has it: integers, slices with positive steps, ``...``, ``None``, and one tensor of indices.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> x = g.input("x", "f32", (g.dim("n", max=9), 8, 6))
        >>> x[:, 1:, None, ::2].shape, x[..., -1].shape
        ((n, 7, 1, 3), (n, 8))
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
        if self._value.poison or self.shape == extents:
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
