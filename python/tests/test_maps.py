"""Functions of Python's over batches: in order, on any thread, resumed where they were; and what they raise."""

from __future__ import annotations

import gc
import traceback
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw
from thalweg.data import Arrays, At, Dataset


def line() -> tw.Model:
    g = tw.Graph("line")
    n = g.dim("n", max=8)
    x, y = g.input("x", "f32", (n,)), g.input("y", "f32", (n,))
    loss = ((x * g.parameter("slope", ()) - y) ** 2).mean().named("loss")
    g.program("train", outputs=[loss], update=tw.optim.AdamW(0.1).minimize(loss))
    return g.compile(tw.Cluster.local(1))


def data() -> Dataset:
    x = np.arange(20, dtype=np.float32)
    return Dataset(x=x, y=3 * x)


def scaled(batch: Arrays) -> Arrays:
    return {name: a / 10 for name, a in batch.items()}


def noisy(batch: Arrays, at: At) -> Arrays:
    noise = np.random.default_rng(at).normal(size=batch["x"].shape).astype(np.float32)
    return {**batch, "x": batch["x"] + noise}


@pytest.mark.parametrize("threads", [0, 3])
def test_functions_are_applied_in_order(threads: int) -> None:
    loader = data().batches(8, prefetch=threads).map(lambda b: {"x": b["x"] + 1}).map(lambda b: {"z": b["x"] * 2})
    assert loader.steps_per_pass == 3
    batches = list(loader)
    assert [list(b) for b in batches] == [["z"]] * 3
    assert np.concatenate([b["z"] for b in batches]).tolist() == [2 * (i + 1) for i in range(20)]


def test_places_are_those_of_the_order() -> None:
    seen: list[At] = []

    def noting(batch: Arrays, at: At) -> Arrays:
        seen.append(at)
        return batch

    list(data().batches(8, shuffle=5, epochs=2).map(noting, at=True))
    assert seen == [(5, epoch, first) for epoch in (0, 1) for first in (0, 8, 16)] and seen[0].seed == 5


@pytest.mark.parametrize("threads", [0, 2])
def test_a_mapped_run_that_is_resumed_goes_on_bit_for_bit(tmp_path: Path, threads: int) -> None:
    loader = data().batches(6, shuffle=3, epochs=4, prefetch=threads).map(scaled).map(noisy, at=True)
    whole, first, second, other = (line() for _ in range(4))
    for batch in whole.batches(loader):
        whole.train(batch)
    for batch, _ in zip(first.batches(loader), range(5), strict=False):
        first.train(batch)
    first.save(tmp_path, wait=True)
    second.resume(tmp_path)
    assert second.run_many("train", second.batches(loader)) is not None
    assert second.step == whole.step == 16 and first.step == 5
    assert second.digest() == whole.digest()
    other.run_many("train", other.batches(data().batches(6, shuffle=3, epochs=4).map(scaled)))
    assert other.digest() != whole.digest(), "the noise is part of it"


class Dull(Exception):
    pass


@pytest.mark.parametrize("threads", [0, 2])
def test_what_a_function_raises_comes_out_at_its_batch(threads: int) -> None:
    def picky(batch: Arrays, at: At) -> Arrays:
        if at.first == 8:
            raise Dull("a dull batch")
        return batch

    model = line()
    batches = model.batches(data().batches(4, prefetch=threads).map(picky, at=True))
    for _ in range(2):
        model.train(next(batches))
    with pytest.raises(Dull, match="a dull batch") as caught:
        next(batches)
    assert "picky" in {frame.name for frame in traceback.extract_tb(caught.value.__traceback__)}
    assert next(batches, None) is None and model.step == 2
    with pytest.raises(Dull):
        line().run_many("train", model.batches(data().batches(4).map(picky, at=True)))


def test_what_a_function_must_not_return() -> None:
    loader = data().batches(4)
    with pytest.raises(TypeError, match="returned list"):
        next(iter(loader.map(lambda b: [1, 2])))  # type: ignore[arg-type, return-value]
    with pytest.raises(tw.DataError, match="`y` has 4 rows, `x` has 2"):
        next(iter(loader.map(lambda b: {**b, "x": b["x"][:2]})))
    with pytest.raises(ValueError, match="read-only"):
        next(iter(loader.map(lambda b: b["x"].sort() or b)))
    with pytest.raises(TypeError, match="returned NoneType"):
        data().map(lambda d: None)  # type: ignore[arg-type, return-value]


def test_a_function_may_ask_the_model_and_threads_may_be_left() -> None:
    model = line()
    levels: list[float] = []

    def asking(batch: Arrays) -> Arrays:
        levels.append(float(model.get("slope")))
        return batch

    loader = data().batches(4, epochs=2).map(asking)
    batches = model.batches(loader)
    assert model.run_many("train", batches, steps=4) is not None
    assert model.step == 4 and len(levels) == 4 and levels[3] > levels[0] == 0.0
    assert len(list(batches)) == 6, "none is taken that is not run"
    # Threads that are at work with Python's lock when nobody wants their batches any more.
    for _ in range(20):
        left = iter(data().batches(1, epochs=50, prefetch=4).map(scaled))
        next(left)
        del left
        gc.collect()
