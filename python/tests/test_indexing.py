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


@given(shape=hnp.array_shapes(max_dims=4, max_side=5), data=st.data())
@settings(max_examples=200, deadline=None)
def test_brackets_are_numpys(run: Run, shape: tuple[int, ...], data: st.DataObject) -> None:
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(run(lambda t: t[index], x), x[index])


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16])
def test_any_element_type_is_reversed(run: Run, dtype: type) -> None:
    x = np.arange(15).reshape(5, 3).astype(dtype)
    np.testing.assert_array_equal(run(lambda t: t[::-1, 2:0:-1], x), x[::-1, 2:0:-1])
    np.testing.assert_array_equal(run(lambda t: tw.flip(t, 0), x), x[::-1])


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


def test_bounds_say_what_may_be_cut_off() -> None:
    g = tw.Graph()
    n, t = g.dim("n", min=3, max=10), g.dim("t", max=6)
    x, table = g.input("x", "f32", (n, 4)), g.parameter("table", (6, 4), init=tw.init.Normal())
    cut = {
        "rest": x[1:],
        "but_last": x[:-1],
        "last_two": x[-2:],
        "last": x[-1],
        "third": x[2],
        "inner": x[1:-1, ::-1],
        "none": x[2:1],
        "none_either": x[-1:-2],
        "first": x[:3],
        "every_other": x[0:3:2],
        "behind": x[::-1],
        "behind_from": x[2:0:-1],
        "behind_but": x[-2:0:-1],
        "behind_to": x[:-3:-1],
        "by_two": x[2::-2],
    }
    known = g.input("y", "f32", (t, 4))
    loss = ((known - table[:t]) ** 2).mean() + (table[t:] ** 2).sum() + (x[1:] * x[:-1]).sum()
    g.program("cut", outputs=cut)
    g.program("train", outputs={"loss": loss}, update=tw.optim.SGD(0.25).minimize(loss))
    model = g.compile()
    for length in (3, 4, 10):
        a = np.random.default_rng(length).normal(size=(length, 4)).astype(np.float32)
        want = [
            *(a[1:], a[:-1], a[-2:], a[-1], a[2], a[1:-1, ::-1], a[2:1], a[-1:-2], a[:3], a[0:3:2], a[::-1], a[2:0:-1]),
            *(a[-2:0:-1], a[:-3:-1], a[2::-2]),
        ]
        got = model.programs["cut"](x=a)
        for name, part in zip(cut, want, strict=True):
            np.testing.assert_array_equal(got[name], part, err_msg=name)
    before, y = model.get("table"), np.zeros((2, 4), np.float32)
    out = model.train(x=np.ones((3, 4), np.float32), y=y)
    np.testing.assert_allclose(out.loss, (before[:2] ** 2).mean() + (before[2:] ** 2).sum() + 8, rtol=1e-5)
    after = np.concatenate([before[:2] * (1 - 0.25 * 2 / 8), before[2:] * 0.5])
    np.testing.assert_allclose(model.get("table"), after, rtol=1e-5)
    with pytest.raises(tw.FeedError, match=r"3\.\.=10"):
        model.programs["cut"](x=np.ones((2, 4), np.float32))


@pytest.mark.parametrize(
    ("index", "remedy"),
    [
        (-4, "declare `n` with `min=4`"),
        (3, "declare `n` with `min=4`"),
        (slice(4, None), "declare `n` with `min=4`"),
        (slice(None, -5), "declare `n` with `min=5`"),
        (slice(-5, None), "declare `n` with `min=5`"),
        (slice(None, 6), "declare `n` with `min=6`"),
        (slice(3, -1), "declare `n` with `min=4`"),
        (slice(5, None, -1), "declare `n` with `min=6`"),
        (slice(None, None, 2), "steps are for numbers"),
        (slice(11, None), "it may be shorter$"),
    ],
)
def test_what_bounds_do_not_prove(index: object, remedy: str) -> None:
    g = tw.Graph()
    x = g.input("x", "f32", (g.dim("n", min=3, max=10), 4))
    with pytest.raises(IndexError, match=remedy):
        x[index]  # type: ignore[index]
    with pytest.raises(IndexError, match="declare `t` with `max=4`"):
        x[:, : g.dim("t", max=6)]


def test_extents_that_may_be_negative_are_mistakes() -> None:
    g = tw.Graph()
    n = g.dim("n", max=10)
    x = g.input("x", "f32", (n, 4))
    tw.ops.slice(x, starts=(2, 0), stops=(n, 4))
    g.input("y", "f32", (n - 2,))
    with pytest.raises(tw.GraphError) as caught:
        g.check()
    assert [(d["code"], d["help"]) for d in caught.value.diagnostics] == [
        ("slice.C2", "declare `n` with a minimum of 2; it is 1"),
        ("dim", "declare `n` with a minimum of 2; it is 1"),
    ]


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (7, "index 7 is out of range for axis 0"),
        (slice(None, None, 0), "a step of 0"),
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
