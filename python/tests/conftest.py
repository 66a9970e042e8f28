"""What all tests share: a model of one program from a function of inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg._arrays import dtype_name

# Makes what a test reads; takes PyTorch.
collect_ignore = ["data/torch_net.py"]

Run = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def run() -> Run:
    """``run(function, *arrays)``: what the function of tensors gives for these arrays, by a compiled program."""

    def run(function: Callable[..., tw.Tensor], *arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        g = tw.Graph()
        inputs = [g.input(f"x{i}", dtype_name(a.dtype), a.shape) for i, a in enumerate(arrays)]
        g.program("run", outputs={"y": function(*inputs)})
        model = g.compile(tw.Cluster.local(1))
        feeds = {f"x{i}": a for i, a in enumerate(arrays) if f"x{i}" in model.programs["run"].inputs}
        return model.run("run", feeds)["y"]

    return run
