"""How parameters begin. Each element is a pure function of the graph's seed and the parameter's name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Constant", "Initializer", "Normal", "Uniform"]


@dataclass(frozen=True)
class Constant:
    """All the same."""

    value: float = 0.0


@dataclass(frozen=True)
class Uniform:
    """Uniform in [low, high)."""

    low: float
    high: float


@dataclass(frozen=True)
class Normal:
    """Normal, with this mean and standard deviation."""

    mean: float = 0.0
    std: float = 1.0


Initializer = Constant | Uniform | Normal
"""Any of them."""


def as_native(init: Initializer | float) -> tuple[str, float, float]:
    match init:
        case Constant(value):
            return ("constant", value, 0.0)
        case Uniform(low, high):
            return ("uniform", low, high)
        case Normal(mean, std):
            return ("normal", mean, std)
        case _:
            return ("constant", float(init), 0.0)
