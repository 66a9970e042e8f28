"""Data: batches in an order that follows from (seed, pass) alone, so that a run can be repeated, and resumed from a checkpoint.

Any iterable of arrays by name trains a model as well; what is here is also resumed where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, overload

from . import _thalweg
from ._thalweg import Batch, Description

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from ._arrays import ArrayLike

__all__ = ["Arrays", "At", "Batch", "Batches", "Dataset", "Described", "Description", "Files", "Loader", "digits"]


Arrays: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
"""Arrays of as many samples, by name."""


class At(NamedTuple):
    """Where a batch lies, as :meth:`Loader.map` tells it: what ``np.random.default_rng`` can begin with."""

    seed: int
    """That of ``shuffle``; 0 where there is none."""
    epoch: int
    """The pass, from 0."""
    first: int
    """The place of its first sample in the order of that pass."""


class Dataset:
    """Named arrays of as many samples.

    >>> import numpy as np
    >>> from thalweg.data import Dataset
    >>> data = Dataset(x=np.arange(10, dtype=np.float32), y=np.arange(10, dtype=np.int32))
    >>> [batch["y"].tolist() for batch in data.batches(4)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(self, fields: Mapping[str, ArrayLike] | None = None, /, **named: ArrayLike) -> None:
        self._native = _thalweg.Dataset({**(fields or {}), **named})

    @classmethod
    def _wrap(cls, native: _thalweg.Dataset) -> Dataset:
        data = cls.__new__(cls)
        data._native = native
        return data

    def __len__(self) -> int:
        return len(self._native)

    def select(self, rows: Sequence[int]) -> Dataset:
        """These samples, by number."""
        return Dataset._wrap(self._native.select(list(rows)))

    def map(self, function: Callable[[Arrays], Mapping[str, ArrayLike]]) -> Dataset:
        """The data set that a function makes of all samples at once, now: to normalise them, say. :meth:`Loader.map` is for what is to
        be done to each batch, as it is read.

        >>> import numpy as np
        >>> from thalweg.data import Dataset
        >>> data = Dataset(x=np.array([1, 2, 3], np.float32))
        >>> data.map(lambda d: {"x": d["x"] - d["x"].mean()}).all()["x"].tolist()
        [-1.0, 0.0, 1.0]
        """
        return Dataset(_by_name(function(dict(self.all().items()))))

    def all(self) -> Batch:
        """All samples as one batch: ``model.eval(test.all())``."""
        return self._native.all()

    def batches(
        self,
        size: int,
        *,
        shuffle: int | None = None,
        epochs: int = 1,
        drop_last: bool = False,
        prefetch: int = 0,
        name: str = "data",
    ) -> Loader:
        """Batches of so many samples.

        Args:
            shuffle: A seed: another order each pass.
            epochs: Passes in all, those before a checkpoint included.
            drop_last: Leave out what is left of a pass once it does not fill a batch.
            prefetch: Threads that read ahead.
            name: What the cursor is kept under; a model that learns from several loaders needs a name for each.
        """
        return Loader(self._native.loader(size, shuffle, epochs, drop_last, prefetch, name), epochs)


class Loader:
    """Settings for reading data in batches. Gone through by itself it begins with the first; ``model.batches(loader)`` begins where
    the model stands."""

    def __init__(self, native: _thalweg.Loader, epochs: int, mapped: bool = False) -> None:
        self._native = native
        self._mapped = mapped
        self.epochs: int = epochs

    @property
    def steps_per_pass(self) -> int:
        """Batches in a pass."""
        return self._native.steps_per_pass

    def __len__(self) -> int:
        return self.steps_per_pass * self.epochs

    @overload
    def map(self, function: Callable[[Arrays], Mapping[str, ArrayLike]]) -> Loader: ...
    @overload
    def map(self, function: Callable[[Arrays, At], Mapping[str, ArrayLike]], *, at: Literal[True]) -> Loader: ...
    def map(self, function: Callable[..., Mapping[str, ArrayLike]], *, at: bool = False) -> Loader:
        """A loader whose batches are changed by a function from arrays by name to arrays by name, on the thread that reads them. Given
        twice, both, in that order. What it raises comes out where the batch is asked for, and ends the batches.

        It has to be a pure function of what it is given: a cursor knows how far a run has come and nothing of the function, so that only
        then a run that is resumed goes on bit for bit. The arrays are read-only.

        Args:
            at: Tell it where the batch lies as well, to draw random numbers from that are the same whenever it is read.

        >>> import numpy as np
        >>> from thalweg.data import At, Dataset
        >>> data = Dataset(x=np.arange(4, dtype=np.float32))
        >>> [b["x"].tolist() for b in data.batches(2).map(lambda b: {"x": b["x"] * 10})]
        [[0.0, 10.0], [20.0, 30.0]]
        >>> def noisy(batch, at: At):
        ...     noise = np.random.default_rng(at).normal(size=batch["x"].shape)
        ...     return {"x": batch["x"] + noise.astype(np.float32)}
        >>> loader = data.batches(2, shuffle=7).map(noisy, at=True)
        >>> [b["x"].tolist() for b in loader] == [b["x"].tolist() for b in loader]
        True
        """

        def plain(batch: Arrays, place: tuple[int, int, int] | None = None) -> dict[str, ArrayLike]:
            made = function(batch) if place is None else function(batch, At(*place))
            return _by_name(made)

        return Loader(self._native.map(plain, at), self.epochs, mapped=True)

    def __iter__(self) -> Iterator[Batch]:
        return Batches(self._native.batches(None), self)


def _by_name(made: object) -> dict[str, ArrayLike]:
    if not isinstance(made, Mapping):
        raise TypeError(
            f"a function given to `map` returns arrays by name, in a dict, and this one returned {type(made).__name__}"
        )
    return dict(cast("Mapping[str, ArrayLike]", made))


class Batches(Iterator[Batch]):
    """Batches, one after the other."""

    def __init__(self, native: _thalweg.Batches, loader: Loader) -> None:
        self._native = native
        self.loader: Loader = loader

    def __next__(self) -> Batch:
        return next(self._native)

    def __length_hint__(self) -> int:
        return len(self.loader)


class Files:
    """Files that are read where the devices are: by the workers of a job, each the samples of its leaves, or by this process where there are none.
    No sample passes through the driver.

    >>> import thalweg as tw
    >>> g = tw.Graph()
    >>> image = g.input("image", "f32", (g.dim("n", max=64), 1, 8, 8))
    >>> loss = ((image - g.parameter("level", ())) ** 2).mean().named("loss")
    >>> g.program("train", outputs=[loss], update=tw.optim.SGD(0.1).minimize(loss))
    >>> model = g.compile()
    >>> files = tw.data.Files.built_in("digits/train", inputs={"image": "image"})
    >>> for batch in model.batches(files.batches(64, shuffle=0, epochs=2)):
    ...     out = model.train(batch)
    >>> round(float(model.get("level")), 1)
    0.3
    """

    def __init__(self, native: _thalweg.Files) -> None:
        self._native = native

    @staticmethod
    def below(
        root: str, path: str, *, arrays: Mapping[str, str] | None = None, inputs: Mapping[str, str] | None = None
    ) -> Files:
        """An ``.npz`` archive below a root; or a folder with a ``.npy`` or IDX file for each of ``arrays``.

        Args:
            root: The name of a root: ``thalweg launch --root NAME=DIR``, or ``model.add_root("NAME=DIR")`` without workers.
            path: A name below it.
            arrays: Names and the files that hold them.
            inputs: Which field each input is fed, where they are not called alike. Only those are read then.
        """
        kind = "npz" if arrays is None else "arrays"
        return Files(_thalweg.Files(root, path, kind, list((arrays or {}).items()), list((inputs or {}).items())))

    @staticmethod
    def mnist(root: str, path: str, *, train: bool = True) -> Files:
        """A folder with the files of MNIST or one of its look-alikes."""
        return Files(_thalweg.Files(root, path, "mnist_train" if train else "mnist_test", [], []))

    @staticmethod
    def built_in(name: str, *, inputs: Mapping[str, str] | None = None) -> Files:
        """What comes with the library: ``digits/train`` and ``digits/test``."""
        return Files(_thalweg.Files("", name, "built_in", [], list((inputs or {}).items())))

    def batches(
        self, size: int, *, shuffle: int | None = None, epochs: int = 1, drop_last: bool = False, name: str = "data"
    ) -> Described:
        """Descriptions of batches of so many samples, for ``model.batches``: the order of :meth:`Dataset.batches`."""
        return Described(self._native.batches(size, shuffle, epochs, drop_last, name))


class Described:
    """Settings for describing files in batches."""

    def __init__(self, native: _thalweg.Described) -> None:
        self._native = native


def digits() -> tuple[Dataset, Dataset]:
    """1,437 handwritten digits to train on and 360 to test on (Alpaydin and Kaynak, CC BY 4.0): ``image`` f32[n, 1, 8, 8] in 0..=1, and
    ``label`` i32[n].

    >>> from thalweg.data import digits
    >>> train, test = digits()
    >>> len(train), len(test), test.all()["image"].shape
    (1437, 360, (360, 1, 8, 8))
    """
    train, test = _thalweg.digits()
    return Dataset._wrap(train), Dataset._wrap(test)


Mapping.register(Batch)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
