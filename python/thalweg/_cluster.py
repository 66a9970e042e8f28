"""Where to run, and how a model is spread over several devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from . import _thalweg

__all__ = ["Cluster", "Strategy"]


class Cluster:
    """Devices, as a TOML file describes them; or by name.

    >>> import thalweg as tw
    >>> tw.Cluster.of("cpu:0", "cpu:1").devices
    ['cpu:0', 'cpu:1']
    """

    def __init__(self, path: str | Path) -> None:
        self._native = _thalweg.Cluster.from_toml(Path(path).read_text(encoding="utf-8"))

    @classmethod
    def _wrap(cls, native: _thalweg.Cluster) -> Cluster:
        cluster = cls.__new__(cls)
        cluster._native = native
        return cluster

    @classmethod
    def of(cls, *names: str) -> Cluster:
        """``cpu`` for all cores; ``cpu:0`` and ``cpu:1`` for two devices of one thread each; ``gpu:0`` for an adapter."""
        return cls._wrap(_thalweg.Cluster.named(list(names)))

    @classmethod
    def local(cls, threads: int | None = None) -> Cluster:
        """This machine's cores as one device."""
        return cls._wrap(_thalweg.Cluster.local(threads))

    @property
    def devices(self) -> list[str]:
        """Names of the devices."""
        return self._native.devices

    def __repr__(self) -> str:
        return f"Cluster.of({', '.join(map(repr, self.devices))})"


def as_native(devices: Cluster | Sequence[str] | str) -> _thalweg.Cluster | None:
    """None for whatever there is."""
    if isinstance(devices, Cluster):
        return devices._native
    if isinstance(devices, str):
        return None if devices == "auto" else _thalweg.Cluster.named([d.strip() for d in devices.split(",")])
    return _thalweg.Cluster.named(list(devices))


def _pairs(named: dict[str, int] | None) -> list[tuple[str, int]] | None:
    return None if named is None else list(named.items())


class Strategy:
    """How a model is spread. Feeds, outputs, variables and checkpoints stay as they are, and so does every bit of the result.

    ``leaves`` are the virtual devices by which batches are cut and sums are ordered: with the same leaves, any number of devices
    gives the same bits.

    >>> import thalweg as tw
    >>> tw.Strategy.data_parallel(leaves=4)
    Strategy(data parallel, 4 leaves)
    """

    def __init__(self, native: _thalweg.Strategy) -> None:
        self._native = native

    @staticmethod
    def data_parallel(
        *,
        leaves: int | None = None,
        shard_state: bool = False,
        mesh: dict[str, int] | None = None,
        tensor_parallel: int | None = None,
        shard: dict[str, int] | None = None,
        fast: bool = False,
    ) -> Strategy:
        """By rows of the batch.

        Args:
            shard_state: What the optimizer keeps is shared out (ZeRO stage 1).
            mesh: Names and extents of the axes of a grid of devices, ``{"dp": 2, "tp": 4}``. Batches are spread along the first; along
                the others is what the model says with :meth:`Tensor.shard`.
            tensor_parallel: The mesh of groups of so many devices: ``tp``, behind ``dp``.
            shard: Parameters (``"*.fc1.weight"``) and the axes along which they are cut over the last axis of the mesh, whatever the
                model says.
            fast: Sums around a ring: fewer bytes, and bits that depend on the number of devices.
        """
        kind = "zero1" if shard_state else "dp"
        native = _thalweg.Strategy(
            kind, leaves=leaves, mesh=_pairs(mesh), tensor_parallel=tensor_parallel, shard=_pairs(shard), fast=fast
        )
        return Strategy(native)

    @staticmethod
    def pipeline(
        stages: int,
        *,
        microbatches: int | None = None,
        schedule: Literal["1f1b", "gpipe"] = "1f1b",
        leaves: int | None = None,
        mesh: dict[str, int] | None = None,
    ) -> Strategy:
        """By layers: cut where it is fastest, or where ``g.stage(i)`` says.

        Args:
            mesh: The grid of the devices of one stage, as for :meth:`data_parallel`.
        """
        native = _thalweg.Strategy(
            "pp", stages=stages, microbatches=microbatches, schedule=schedule, leaves=leaves, mesh=_pairs(mesh)
        )
        return Strategy(native)

    @staticmethod
    def servers(count: int = 1, *, leaves: int | None = None) -> Strategy:
        """Data parallel, with parameters kept by the last ``count`` devices."""
        return Strategy(_thalweg.Strategy("ps", servers=count, leaves=leaves))

    @staticmethod
    def auto(*, leaves: int | None = None, **dims: int) -> Strategy:
        """Whichever of the others is predicted to be the fastest, and fits.

        Args:
            dims: The extents of named dimensions that count; 64, where nothing is said.

        >>> import thalweg as tw
        >>> tw.Strategy.auto(batch=256)
        Strategy(whatever is fastest)
        """
        return Strategy(_thalweg.Strategy("auto", leaves=leaves, at=_pairs(dims)))

    def __repr__(self) -> str:
        return repr(self._native)
