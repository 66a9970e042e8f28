"""Mistakes: at the user's line, all of them at once; and what tensors refuse to be."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn


def test_every_mistake_at_its_line() -> None:
    g = tw.Graph("wrong")
    x = g.input("x", "f32", (32, 784))
    w = g.parameter("w", (512, 10))
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    hidden = x @ w
    also = nn.Linear(3)(x) + g.input("y", "f32", (5,))
    echo = (hidden.relu() + also).mean()
    with pytest.raises(tw.GraphError) as caught:
        g.program("train", outputs=[echo])
        g.compile()
    found = caught.value.diagnostics
    assert [(d["code"], d["line"]) for d in found] == [("matmul.C2", line), ("add.C2", line + 1)]
    assert all(d["file"] == __file__ for d in found)
    text = str(caught.value)
    assert "2 mistakes" in text and "hidden = x @ w" in text and "`rhs` is f32[512, 10]" in text
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, tw.Error)


def test_a_mistake_within_a_layer_is_drawn_where_the_layer_is_called() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(4, 3)

        def __call__(self, x: tw.Tensor) -> tw.Tensor:
            return self.conv(x)

    g = tw.Graph()
    y = Net()(g.input("x", "f32", (2, 5)))
    with pytest.raises(tw.GraphError, match=r"return self\.conv"):
        y.shape  # noqa: B018


def test_what_a_tensor_refuses() -> None:
    g = tw.Graph()
    n = g.dim("n", max=4)
    x = g.input("x", "f32", (n, 2))
    for use, says in [
        (lambda: bool(x), "tw.where"),
        (lambda: float(x), "eval_at"),
        (lambda: int(x), "eval_at"),
        (lambda: list(x), "cannot be gone through"),
        (lambda: len(x), "no length"),
        (lambda: [1, 2][x], "no index"),
        (lambda: np.exp(x), "no array|__array_ufunc__"),
        (lambda: np.asarray(x), "no array"),
        (lambda: x + np.ones(3), "no part of a graph"),
        (lambda: np.ones(3) + x, "no part of a graph"),
        (lambda: x + "1", "expected a tensor or a number"),
        (lambda: pickle.dumps(x), "cannot be pickled"),
        (lambda: bool(n), "only while a program runs"),
        (lambda: range(n), "interpreted as an integer|only while"),
    ]:
        with pytest.raises(TypeError, match=says):
            use()
    assert copy.deepcopy(x) is x and hash(x) == hash(x)
    with pytest.raises(tw.GraphError, match="cannot be used in"):
        x + tw.Graph("other").input("y", "f32", ())


def test_tensors_of_a_mistake_say_what_it_was() -> None:
    g = tw.Graph()
    y = g.input("x", "f32", (2, 3)).reshape(7)
    assert "mistake" in repr(y)
    with pytest.raises(tw.GraphError, match="reshape"):
        _, _ = y.shape
    with pytest.raises(tw.GraphError, match="reshape"):
        g.check()


def test_names_that_are_not_there() -> None:
    g = tw.Graph()
    x = g.input("image", "f32", (2,))
    g.program("double", outputs={"y": x * 2})
    model = g.compile()
    with pytest.raises(tw.FeedError, match="did you mean `image`"):
        model.double(imgae=[1.0, 2.0])
    with pytest.raises(tw.FeedError, match="f32"):
        model.double(image=np.ones(2))
    with pytest.raises(tw.FeedError, match="axis 0 is 2, not 3"):
        model.double(image=np.ones(3, np.float32))
    with pytest.raises(tw.UnknownNameError, match="double"):
        model.run("doubel", {"image": [1.0, 2.0]})
    with pytest.raises(AttributeError, match="its programs are double"):
        model.doubel  # noqa: B018
    with pytest.raises(KeyError, match="there are `y`"):
        model.double(image=[1.0, 2.0])["z"]
    with pytest.raises(tw.UnknownNameError):
        model.get("weight")
    with pytest.raises(tw.ClusterError, match="no device"):
        g.compile("tpu:0")
    with pytest.raises(tw.ClusterError, match="say how the model is spread"):
        g.compile(["cpu:0", "cpu:1"])
    with pytest.raises(TypeError, match="no element type"):
        g.input("z", "f12", ())
    with pytest.raises(TypeError, match="no attribute"):
        g._apply("relu", (x,), {"slope": 1})


def test_values_that_are_not_finite() -> None:
    g = tw.Graph()
    x = g.input("x", "f32", (3,))
    g.program("run", outputs={"y": tw.log(x) * 2})
    model = g.compile()
    model.check_finite()
    assert np.isfinite(model.programs["run"](x=[1.0, 2.0, 3.0])["y"]).all()
    with pytest.raises(tw.NotFiniteError, match="log"):
        model.programs["run"](x=[1.0, 0.0, 3.0])


def test_help_is_in_words_that_python_knows() -> None:
    g = tw.Graph()
    x = g.input("x", "f32", (4, 3))
    y = g.input("y", "i32", (4,))
    tw.ops.mean(y)
    tw.ops.sum(y == y)
    x + y.reshape((4, 1))
    nn.cross_entropy(x, x)
    tw.gradients(x, [x])
    with pytest.raises(tw.GraphError) as caught:
        g.check()
    helps = {d["code"]: d["help"] for d in caught.value.diagnostics}
    assert helps == {
        "mean.C2": "cast it to f32 first",
        "sum.C2": "cast truth values to i32 to count them",
        "add.C1": "cast one of them, as to f32",
        "cross_entropy.C2": "labels are class numbers; for probabilities p, sum -p times `log_softmax` of the logits over the last axis",
        "gradient.C1": "take `.mean()` or `.sum()` first",
    }
    g = tw.Graph()
    x, y = g.input("x", "f32", (4,)), g.input("y", "f32", (4,))
    g.program("sum", outputs={"a": x + y}, inputs=[y])
    with pytest.raises(tw.GraphError, match="also needs the input `x`") as caught:
        g.check()
    assert caught.value.diagnostics[0]["help"] == "add it to the program's inputs"
