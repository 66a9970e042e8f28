"""Graphs: where a model is declared.

Nothing stops at a mistake: all of them are raised at once, when the graph is compiled, each at its own line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import _thalweg
from ._arrays import DTypeLike, dtype_name
from ._errors import GraphError
from ._site import here
from ._tensor import Extent, Operand, Tensor
from ._thalweg import Dim

if TYPE_CHECKING:
    from ._cluster import Cluster, Strategy
    from ._model import Model
    from .init import Initializer
    from .optim import Update

__all__ = ["Graph"]


MOST_SHOWN = 4_000_000
"""Pages of more characters are not put into notebooks."""


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

    def __init__(self, name: str = "model", seed: int = 0, *, _native: _thalweg.Graph | None = None) -> None:
        self.name: str = name
        self.seed: int = seed
        self._native = _native or _thalweg.Graph(name, seed)
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
        native = _thalweg.Graph.from_bytes(data)
        return cls(*native.identity(), _native=native)

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

    def shard(self, parameters: str, axes: Sequence[str | None]) -> None:
        """How parameters that are declared already are to be spread over the mesh of a strategy, by name, or by ``*`` and how names
        end: for those of layers. See :meth:`Tensor.shard`.

        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> with g.scope("up"):
        ...     y = tw.nn.Linear(64)(g.input("x", "f32", (8, 16)))
        >>> g.shard("*up.weight", ["tp", None])
        """
        self._native.shard_parameters(parameters, list(axes), here())

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

    def html(self, program: str | None = None) -> str:
        """The graph as a page to look into, in one file that needs no network: scopes open in place, gradients stand beside what they
        are of, a click tells shapes, attributes and your line."""
        return self._native.show("html", program)

    def draw(self, path: str | Path, program: str | None = None) -> None:
        """Writes a picture of the graph, as the file's name asks for: ``.html`` to look into, ``.dot`` for Graphviz, ``.mmd`` for
        Mermaid.

        Args:
            program: Only what this program needs.

        Raises:
            ValueError: If the file is called otherwise.
        """
        self._native.draw(path, program)

    def to_bytes(self) -> bytes:
        """The canonical bytes of the graph: equal for equal graphs."""
        return bytes(self._native.to_bytes())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        shown = {"text/plain": repr(self), "text/vnd.mermaid": self.mermaid()}
        page = self.html()
        if len(page) <= MOST_SHOWN:
            frame = f'sandbox="allow-scripts" style="width: 100%; height: 480px; border: 0" srcdoc="{escape(page)}"'
            shown["text/html"] = f"<iframe {frame}></iframe>"
        return shown

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
