"""Exceptions: one tree, each with the built-in base that says what sort of mistake it is.

They are made in the native half, which looks classes up here by name; so they are Python's own, can be caught as built-ins, and cross
processes.
"""

from __future__ import annotations

from typing import TypedDict

__all__ = [
    "CheckpointError",
    "ClusterError",
    "DataError",
    "Diagnostic",
    "Error",
    "FeedError",
    "GraphError",
    "InternalError",
    "NotFiniteError",
    "RunError",
    "UnknownNameError",
]


class Error(Exception):
    """Whatever can go wrong in thalweg."""


class Diagnostic(TypedDict):
    """One mistake of a model."""

    code: str
    """Which rule broke: ``matmul.C2``."""
    message: str
    """What is wrong, in one sentence."""
    file: str
    line: int
    column: int
    help: str | None
    """What to do."""


class GraphError(Error, ValueError):
    """Mistakes of a model, all of them at once, drawn at your own lines."""

    diagnostics: list[Diagnostic]
    """The same as data."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.diagnostics = []


class RunError(Error, RuntimeError):
    """A program did not run. Variables are as they were before the step."""


class FeedError(RunError, ValueError):
    """What was fed, or set, does not fit: a name, an element type, an extent."""


class UnknownNameError(RunError, LookupError):
    """No program, variable, tensor or dimension of that name."""


class NotFiniteError(RunError, ArithmeticError):
    """A value was infinite or NaN that was to be finite; the message draws the first op to blame."""


class CheckpointError(Error, RuntimeError):
    """Nothing was saved or loaded."""


class DataError(Error, ValueError):
    """Data could not be read."""


class ClusterError(Error, ValueError):
    """Devices or a strategy that a model cannot be compiled for."""


class InternalError(Error, RuntimeError):
    """A fault of thalweg's own: please report it."""
