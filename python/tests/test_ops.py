"""Ops and functions against NumPy; and that what is generated is what the table says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import thalweg as tw

FLOATS = st.floats(-50, 50, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)
QUICK = settings(max_examples=30, deadline=None)


def arrays(shape: object = SHAPES) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, shape, elements=FLOATS)  # type: ignore[arg-type]


def near(got: np.ndarray, want: np.ndarray, tolerance: float = 2e-6) -> None:
    assert got.shape == want.shape
    scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale)


def test_ops_are_those_of_the_table() -> None:
    import generate_ops

    text = (Path(__file__).parents[1] / "thalweg" / "ops.py").read_text(encoding="utf-8")
    assert text == generate_ops.source(), "run `python generate_ops.py`"


UNARY = {
    "exp": (np.exp, lambda x: np.clip(x, -50, 20)),
    "log": (np.log, lambda x: np.abs(x) + 0.1),
    "sqrt": (np.sqrt, np.abs),
    "sin": (np.sin, lambda x: x),
    "cos": (np.cos, lambda x: x),
    "tanh": (np.tanh, lambda x: x),
    "floor": (np.floor, lambda x: x),
    "sign": (np.sign, lambda x: x),
    "abs": (np.abs, lambda x: x),
    "square": (np.square, lambda x: x),
}


@pytest.mark.parametrize("name", UNARY)
@given(x=arrays())
@QUICK
def test_functions_of_one(run: Run, name: str, x: np.ndarray) -> None:
    reference, domain = UNARY[name]
    x = np.asarray(domain(x), np.float32)
    near(run(getattr(tw, name), x), np.asarray(reference(x)), 1e-5)


BINARY = {
    "add": (lambda a, b: a + b, np.add),
    "sub": (lambda a, b: a - b, np.subtract),
    "mul": (lambda a, b: a * b, np.multiply),
    "maximum": (tw.maximum, np.maximum),
    "minimum": (tw.minimum, np.minimum),
    "less": (lambda a, b: a < b, np.less),
    "less_equal": (lambda a, b: a <= b, np.less_equal),
    "greater": (lambda a, b: a > b, np.greater),
    "greater_equal": (lambda a, b: a >= b, np.greater_equal),
    "equal": (lambda a, b: a == b, np.equal),
    "not_equal": (lambda a, b: a != b, np.not_equal),
}


@pytest.mark.parametrize("name", BINARY)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4), data=st.data())
@QUICK
def test_functions_of_two_broadcast(run: Run, name: str, shapes: hnp.BroadcastableShapes, data: st.DataObject) -> None:
    ours, numpys = BINARY[name]
    a, b = (data.draw(arrays(s)) for s in shapes.input_shapes)
    np.testing.assert_array_equal(run(ours, a, b), numpys(a, b))


@given(a=arrays(), b=FLOATS)
@QUICK
def test_numbers_on_either_side(run: Run, a: np.ndarray, b: float) -> None:
    f = np.float32(b)
    np.testing.assert_array_equal(run(lambda x: x - b, a), a - f)
    np.testing.assert_array_equal(run(lambda x: b - x, a), f - a)
    np.testing.assert_array_equal(run(lambda x: f * x, a), f * a)
    np.testing.assert_array_equal(run(lambda x: b < x, a), f < a)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var", "std"])
@given(x=arrays(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)), data=st.data())
@QUICK
def test_reductions(run: Run, name: str, x: np.ndarray, data: st.DataObject) -> None:
    axes = data.draw(
        st.none() | st.integers(-x.ndim, x.ndim - 1) | st.sets(st.integers(0, x.ndim - 1), min_size=1).map(tuple)
    )
    keep = data.draw(st.booleans())
    if name == "prod":
        x = np.clip(x, -2, 2)
    want = getattr(np, name)(x.astype(np.float64), axis=axes, keepdims=keep)
    got = run(lambda t: getattr(tw, name)(t, axes, keep), x)
    assert got.shape == want.shape
    scale = float(np.abs(x).max()) ** (2 if name == "var" else 1) * max(1, x.size if name == "sum" else 1) + 1
    tolerance = 2e-3 if name == "std" else 3e-6
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=tolerance * scale)


@given(x=arrays(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)), data=st.data())
@QUICK
def test_places_of_extremes(run: Run, x: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    np.testing.assert_array_equal(run(lambda t: tw.argmax(t, axis), x), np.argmax(x, axis))
    np.testing.assert_array_equal(run(lambda t: tw.argmin(t, axis), x), np.argmin(x, axis))


@given(x=arrays(hnp.array_shapes(min_dims=2, max_dims=4, max_side=4)), data=st.data())
@QUICK
def test_moving_elements(run: Run, x: np.ndarray, data: st.DataObject) -> None:
    perm = data.draw(st.permutations(range(x.ndim)))
    axis = data.draw(st.integers(0, x.ndim - 1))
    np.testing.assert_array_equal(run(lambda t: t.transpose(perm), x), x.transpose(perm))
    np.testing.assert_array_equal(run(lambda t: t.T, x), x.T)
    np.testing.assert_array_equal(run(lambda t: t.reshape(-1), x), x.reshape(-1))
    np.testing.assert_array_equal(run(lambda t: tw.flip(t, axis), x), np.flip(x, axis))
    np.testing.assert_array_equal(run(lambda t: tw.stack([t, t + 1], axis), x), np.stack([x, x + 1], axis))
    np.testing.assert_array_equal(run(lambda t: tw.concatenate([t, -t], axis), x), np.concatenate([x, -x], axis))
    np.testing.assert_array_equal(run(lambda t: t.expand_dims(axis).squeeze(axis), x), x)
    np.testing.assert_array_equal(run(lambda t: t.swapaxes(0, -1), x), x.swapaxes(0, -1))
    widths = [(1, 2)] * x.ndim
    np.testing.assert_array_equal(run(lambda t: tw.pad(t, widths, 3.0), x), np.pad(x, widths, constant_values=3.0))


def test_products_and_choices(run: Run) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 4), np.float32), rng.random((4, 5), np.float32)
    near(run(lambda x, y: x @ y, a, b), a @ b)
    near(run(lambda x, y: tw.matmul(x, y, transpose_b=True), a, b.T.copy()), a @ b)
    near(run(tw.softmax, a), np.exp(a) / np.exp(a).sum(-1, keepdims=True))
    np.testing.assert_array_equal(run(lambda x: tw.where(x > 0.5, x, 0.0), a), np.where(a > 0.5, a, np.float32(0)))
    index = np.array([[2, 0], [1, 1]], np.int32)
    np.testing.assert_array_equal(run(lambda x, i: tw.take(x, i, axis=-1), a, index), np.take(a, index, axis=-1))
    np.testing.assert_array_equal(run(lambda i: tw.one_hot(i, 3), index), np.eye(3, dtype=np.float32)[index])
    parts = run(lambda x: tw.concatenate(tw.split(x, 3, axis=1)[::-1], axis=1), a)
    np.testing.assert_array_equal(parts, a[:, ::-1])


def test_powers_and_choices_of_numbers(run: Run) -> None:
    a, b = np.array([1.0, 2.0, 3.0], np.float32), np.array([2.0, 0.5, -1.0], np.float32)
    near(run(lambda x, y: x**y, a, b), a**b)
    near(run(lambda x: x**3, a), a**3)
    near(run(lambda x: 2**x, a), 2**a)
    np.testing.assert_array_equal(run(lambda x: tw.where(x > 1, 1, 0.5), a), np.array([0.5, 1, 1], np.float32))


def test_truth_values(run: Run) -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    np.testing.assert_array_equal(run(lambda x, y: x & y, a, b), a & b)
    np.testing.assert_array_equal(run(lambda x, y: x | y, a, b), a | b)
    np.testing.assert_array_equal(run(lambda x: ~x, a), ~a)
    assert run(tw.sum, a) == 2 and run(tw.mean, a) == 0.5 and run(tw.any, a) and not run(tw.all, a)
