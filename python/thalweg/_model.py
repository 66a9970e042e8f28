"""Compiled models: programs that are called with arrays, and variables that they keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from ._arrays import ArrayLike
from ._progress import progress
from ._report import Report, tables
from ._thalweg import Outputs

if TYPE_CHECKING:
    import numpy as np

    from . import _thalweg
    from ._graph import Graph
    from ._tensor import Tensor
    from .data import Batch, Batches, Dataset, Described, Description, Loader

__all__ = ["Feeds", "Model", "Program", "Unshared", "Variable"]

Feeds = Mapping[str, ArrayLike]
"""Arrays by the names of inputs."""


class Variable(NamedTuple):
    """What a model keeps from step to step."""

    kind: str
    """``param``, ``slot`` (an optimizer's own), ``stat``, ``counter`` or ``cache``."""
    dtype: str
    shape: tuple[int, ...]


class Unshared(NamedTuple):
    """What a model and a file of weights do not share, by name."""

    missing: list[str]
    """What the model has and the file has not: it stays as it was."""
    left_over: list[str]
    """What the file has and the model has not."""


class Program:
    """A program of a model, to be called with arrays by name, or with a batch."""

    __slots__ = ("_run", "inputs", "name")

    def __init__(self, model: _thalweg.Model, name: str, inputs: dict[str, str]) -> None:
        self._run = model.run
        self.name: str = name
        self.inputs: dict[str, str] = inputs
        """Names and types of what it takes."""

    @overload
    def __call__(self, feeds: Feeds | Batch | Description, /) -> Outputs: ...
    @overload
    def __call__(self, /, **feeds: ArrayLike) -> Outputs: ...
    def __call__(self, batch: Any = None, /, **feeds: ArrayLike) -> Outputs:
        """One step. Arrays in row-major order are read where they lie; outputs are arrays by name."""
        return self._run(self.name, feeds if batch is None else batch)

    def __repr__(self) -> str:
        return f"Program({self.name!r}: {', '.join(f'{n}: {t}' for n, t in self.inputs.items())})"


class Model:
    """A model on a device or several: variables, and programs as methods: ``model.train(image=…, label=…)``. A program that is called like
    something of the model's own, such as ``save``, is ``model.programs["save"]``.

    >>> import thalweg as tw
    >>> g = tw.Graph()
    >>> x = g.input("x", "f32", (g.dim("n", max=8),))
    >>> g.program("double", outputs={"y": x * 2})
    >>> model = g.compile()
    >>> model.double(x=[1.0, 2.0])["y"]
    array([2., 4.], dtype=float32)
    """

    def __init__(self, graph: Graph, native: _thalweg.Model) -> None:
        self.graph: Graph = graph
        self._native = native
        self.programs: dict[str, Program] = {
            name: Program(native, name, dict(inputs)) for name, inputs in native.programs.items()
        }
        """Programs by name."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Program: ...

    else:

        def __getattr__(self, name):
            programs = self.__dict__.get("programs", {})
            try:
                # From here on an attribute like any other, unless there is one of that name.
                return self.__dict__.setdefault(name, programs[name])
            except KeyError:
                known = ", ".join(programs)
                raise AttributeError(
                    f"the model has neither a program nor an attribute `{name}`; its programs are {known}"
                ) from None

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self.programs]

    # Running.

    def run(self, program: str, feeds: Feeds | Batch | Description) -> Outputs:
        """One step of a program by its name."""
        return self._native.run(program, feeds)

    def run_many(
        self, program: str, data: Batches | Iterable[Feeds | Batch | Description] | Feeds, steps: int | None = None
    ) -> Outputs | None:
        """Many steps without returning in between; what the last one returned.

        Args:
            data: Batches of a loader (``model.batches(loader)``); arrays that every step is fed, ``steps`` times; or whatever
                yields arrays by name.
            steps: How many at most.
        """
        from .data import Batches

        if isinstance(data, Batches) and not data.loader._mapped:
            return self._native.run_batches(program, data._native, steps)[0]
        if isinstance(data, Mapping):
            if steps is None:
                raise TypeError("with the same arrays for every step, say how many `steps`")
            return self._native.repeat(program, data, steps)
        # A function of Python's that is at work on a batch may ask the model something: it is not locked meanwhile.
        last = None
        for feeds in islice(data, steps):
            last = self._native.run(program, feeds)
        return last

    @overload
    def batches(self, loader: Loader) -> Batches: ...
    @overload
    def batches(self, loader: Described) -> Iterator[Description]: ...
    def batches(self, loader: Loader | Described) -> Batches | Iterator[Description]:
        """The batches that the variables have not learned from yet: from where the loader's cursor stood at the last commit. A
        run that is resumed goes on with the next one. Of :class:`data.Files`, descriptions: whoever hosts a device reads."""
        from .data import Batches, Described

        if isinstance(loader, Described):
            return loader._native.batches(self._native)
        return Batches(loader._native.batches(self._native), loader)

    def add_root(self, root: str) -> None:
        """Says below which directory this process reads :class:`data.Files`, as ``NAME=DIRECTORY``; the workers of a job have their own
        (``thalweg launch --root NAME=DIRECTORY``)."""
        self._native.add_root(root)

    def eval_at(self, point: Tensor | str, feeds: Feeds, program: str | None = None) -> np.ndarray[Any, Any]:
        """Any tensor of the graph, returned by a program or not, from the variables as they are; by the interpreter, slowly.

        Args:
            program: Computes it as this program does: with dropout where it trains. As one that does not, otherwise.
        """
        return self._native.eval_at(point if isinstance(point, str) else self.graph._own(point), feeds, program)

    def check_finite(self, on: bool = True) -> None:
        """From here on a step in which any float is infinite or NaN fails before it commits, and the error draws the first op to blame."""
        self._native.check_finite(on)

    # Variables.

    @property
    def variables(self) -> dict[str, Variable]:
        """What the model keeps, by name."""
        return {n: Variable(kind, dtype, tuple(shape)) for n, kind, dtype, shape in self._native.variables()}

    def get(self, variable: str) -> np.ndarray[Any, Any]:
        """The value of a variable: ``body.conv1.weight``."""
        return self._native.get(variable)

    def set(self, variable: str, value: ArrayLike) -> None:
        """Sets a variable."""
        self._native.set(variable, value)

    @property
    def step(self) -> int:
        """Committed training steps."""
        return self._native.step

    def digest(self) -> str:
        """The hash of all variables: equal digests mean equal models, bit for bit."""
        return self._native.digest()

    @property
    def devices(self) -> list[str]:
        """Where it runs."""
        return self._native.devices

    @property
    def bytes_sent(self) -> int:
        """Bytes that have crossed between devices so far."""
        return self._native.bytes_sent

    # Keeping.

    def save(self, directory: str | Path, *, wait: bool = False) -> None:
        """Saves all variables and the places of the data, while the model goes on. The newest three checkpoints are kept.

        Args:
            wait: Return once it is on the disk. Else an error of the writing comes out of :meth:`wait_saved` or the next save.
        """
        self._native.save(directory, wait)

    def wait_saved(self) -> str | None:
        """Waits for the save that is running; the path of its checkpoint."""
        return self._native.wait_saved()

    def keep_checkpoints(self, count: int) -> None:
        """How many checkpoints are kept in a directory; three otherwise."""
        self._native.keep_checkpoints(count)

    def resume(self, directory: str | Path, *, changed: bool = False) -> str | None:
        """Loads the newest whole checkpoint: variables, step and places of the data. The run goes on bit for bit.

        Args:
            changed: The programs may have changed since, such as the learning rate, but not the variables.

        Raises:
            CheckpointError: If there is none, or it is another model's, with every difference.
        """
        return self._native.resume(directory, False, changed)

    def resume_or_init(self, directory: str | Path) -> str | None:
        """The same, or nothing if there is no checkpoint: the first start of a script and every later one are one line."""
        return self._native.resume(directory, True, False)

    def save_weights(self, path: str | Path) -> None:
        """Writes parameters and statistics to one safetensors file."""
        self._native.save_weights(path)

    def load_weights(self, path: str | Path, strict: bool = True) -> Unshared:
        """Sets parameters and statistics to what a safetensors file holds.

        Args:
            strict: All of them, and nothing else. Otherwise those that both have, such as all but a new head; what they do not share
                is returned, by name.

        Raises:
            CheckpointError: With every difference. Other shapes or element types under the same name are one in any case.
        """
        return Unshared(*self._native.load_weights(path, strict))

    # Looking.

    def summary(self, program: str, **dims: int) -> Report:
        """A program layer by layer: ``model.summary("train", batch=64)``. Text; in notebooks a table; ``.data`` for programs."""
        return Report(*self._native.summary(program, dims))

    def explain(self, program: str, **dims: int) -> Report:
        """What a step is predicted to take, launch by launch, and why it runs where it does. Text; in notebooks tables; ``.data`` for
        programs."""
        return Report(*self._native.explain(program, dims))

    def draw(self, path: str | Path, program: str | None = None) -> None:
        """Writes a picture of the graph; see :meth:`Graph.draw`."""
        self.graph.draw(path, program)

    def plan(self, program: str, **dims: int) -> str:
        """Every launch, buffer and channel of a step, as text."""
        return self._native.plan(program, dims)

    def trace(self, path: str | Path, steps: int = 100) -> _Trace:
        """Notes what happens when, and writes it for Perfetto: ``with model.trace("trace.json"): …``."""
        return _Trace(self._native, path, steps)

    def fit(
        self,
        data: Loader,
        *,
        program: str = "train",
        save: str | Path | None = None,
        save_every: int = 100,
        quiet: bool = False,
    ) -> Outputs | None:
        """Trains on the batches that the model has not learned from yet, with progress on stderr; what the last step returned.

        Args:
            save: A directory for checkpoints: gone on from if there is one, saved to every ``save_every`` steps and at the end.

        >>> import numpy as np
        >>> import thalweg as tw
        >>> g = tw.Graph()
        >>> x = g.input("x", "f32", (g.dim("n", max=8),))
        >>> loss = ((x - g.parameter("mean", ())) ** 2).mean().named("loss")
        >>> g.program("train", outputs=[loss], update=tw.optim.SGD(0.1).minimize(loss))
        >>> model = g.compile()
        >>> data = tw.data.Dataset(x=np.array([1, 2, 3, 2], np.float32))
        >>> _ = model.fit(data.batches(4, epochs=40))
        >>> round(float(model.get("mean")), 1)
        2.0
        """
        if save is not None:
            self.resume_or_init(save)
        last, batches = None, self.batches(data)
        for batch in batches if quiet else progress(batches):
            last = self._native.run(program, batch)
            if save is not None and self.step % save_every == 0:
                self.save(save)
        if save is not None:
            self.save(save, wait=True)
        return last

    def evaluate(self, data: Loader | Dataset, program: str = "eval") -> dict[str, float]:
        """Means of a program's outputs over data, each sample counted once. The outputs have no axes."""
        from .data import Dataset

        batches = [data.all()] if isinstance(data, Dataset) else data
        sums: dict[str, float] = {}
        samples = 0
        for batch in batches:
            count = len(next(iter(batch.values())))
            for name, value in self._native.run(program, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * count
            samples += count
        return {name: total / samples for name, total in sums.items()}

    def __reduce__(self) -> Any:
        raise TypeError(
            "a model holds devices and cannot be pickled: pickle its graph, and keep its variables with `save` or `save_weights`"
        )

    def _repr_html_(self) -> str:
        programs = [{"program": name, **p.inputs} for name, p in self.programs.items()]
        variables = [{"variable": name, **v._asdict()} for name, v in self.variables.items()]
        return tables({"model": repr(self), "programs": programs, "variables": variables})

    def __repr__(self) -> str:
        return f"Model({self.graph.name!r}, on {', '.join(self.devices)}, programs {', '.join(self.programs)})"


class _Trace:
    def __init__(self, native: _thalweg.Model, path: str | Path, steps: int) -> None:
        self._native, self._path, self._steps = native, path, steps

    def __enter__(self) -> None:
        self._native.start_trace(self._steps)

    def __exit__(self, *_: object) -> None:
        self._native.finish_trace(self._path)


Mapping.register(Outputs)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
