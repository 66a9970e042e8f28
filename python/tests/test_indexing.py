"""Brackets against NumPy, for whatever hypothesis thinks of; and what they refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import thalweg as tw


def positive(index: object) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return all(not isinstance(i, slice) or i.step is None or i.step > 0 for i in items)


@given(shape=hnp.array_shapes(max_dims=4, max_side=5), data=st.data())
@settings(max_examples=200, deadline=None)
def test_brackets_are_numpys(run: Run, shape: tuple[int, ...], data: st.DataObject) -> None:
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True).filter(positive))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(run(lambda t: t[index], x), x[index])


def test_one_tensor_of_indices(run: Run) -> None:
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    i = np.array([[3, 0], [1, 2]], np.int32)
    np.testing.assert_array_equal(run(lambda t, j: t[1:, j, ::2], x, i), x[1:, i, ::2])
    np.testing.assert_array_equal(run(lambda t, j: t[j], x, i[:, 1] % 3), x[i[:, 1] % 3])


def test_axes_with_names_keep_them(run: Run) -> None:
    g = tw.Graph()
    n = g.dim("n", max=10)
    x = g.input("x", "f32", (n, 4))
    assert x[:, 1:].shape == (n, 3) and x[None, ..., 0].shape == (1, n)
    longer = tw.concatenate([x, x])
    assert longer[n:].shape == (n, 4) and longer[:n].shape == (n, 4) and longer.shape == (2 * n, 4)
    g.program("run", outputs={"second": longer[n:] - x[...]})
    assert not g.compile().programs["run"](x=np.ones((5, 4), np.float32))["second"].any()
    # It may be empty: nothing of it is sure to be there.
    for index in (-1, slice(1, None), slice(None, -1)):
        with pytest.raises(IndexError, match="it may be shorter"):
            x[index]


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (7, "index 7 is out of range for axis 0"),
        (slice(None, None, -1), "steps are positive"),
        ((0, 0, 0), "which has 2 axes"),
        ([0, 1], "cannot index with list"),
        (np.array([True, False]), "tw.where"),
        ((..., ...), "only one"),
    ],
)
def test_what_brackets_refuse(index: object, says: str) -> None:
    g = tw.Graph()
    with pytest.raises(IndexError, match=re.escape(says)):
        g.input("x", "f32", (3, 4))[index]  # type: ignore[index]
