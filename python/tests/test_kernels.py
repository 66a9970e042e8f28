"""Ops of one's own: what they compute, their gradients, where they run, and what is said of those that make no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Run

import thalweg as tw
from thalweg import kernel as k
from thalweg import nn, optim


class Softplus(k.Op):
    """log(1 + exp(beta * x)) / beta."""

    beta: float = 1.0

    def kernel(self, nest: k.Nest, x: k.Operand) -> k.Expr:
        at = nest.axes(*x.shape)
        return k.log(1 + k.exp(x[at] * self.beta)) / self.beta

    def gradient(self, ct: tw.Tensor, x: tw.Tensor) -> tw.Tensor:
        return ct * (x * self.beta).sigmoid()


class Convolve(k.Op):
    """Sums of neighbours along the last axis, weighted; zeros beyond the ends."""

    def types(self, x: k.TensorType, w: k.TensorType) -> Any:
        if len(x.shape) != 2 or len(w.shape) != 1:
            raise ValueError(f"needs [rows, length] and [taps], got {x.shape} and {w.shape}")
        return x.dtype, x.shape

    def kernel(self, nest: k.Nest, x: k.Operand, w: k.Operand) -> k.Expr:
        row, i = nest.axes(*x.shape)
        (tap,) = nest.folds(*w.shape)
        return k.sum(x.get((row, i + tap - w.shape[0] // 2)) * w[tap])


class Halves(k.Op):
    """What is positive, and what is not."""

    results = 2

    def types(self, x: k.TensorType) -> Any:
        return [(x.dtype, x.shape)] * 2

    def kernel(self, nest: k.Nest, x: k.Operand) -> Any:
        at = nest.axes(*x.shape)
        return k.maximum(x[at], 0.0), k.minimum(x[at], 0.0)

    def gradient(self, ct: list[tw.Tensor], x: tw.Tensor) -> tw.Tensor:
        return tw.where(x > 0, ct[0], ct[1])


def test_kernels_are_their_formulas(run: Run) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 7), np.float32), rng.standard_normal(3, np.float32)
    np.testing.assert_allclose(
        run(lambda t: Softplus(beta=2.0)(t), x), np.log1p(np.exp(2 * x)) / 2, rtol=1e-5, atol=1e-6
    )
    want = np.stack([np.convolve(row, w[::-1], "same") for row in x])
    np.testing.assert_allclose(run(lambda a, b: Convolve()(a, b), x, w), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(lambda t: Halves()(t)[0] * 2 + Halves()(t)[1], x), np.where(x > 0, 2 * x, x))


@pytest.mark.parametrize("make", [lambda x: Softplus(beta=0.5)(x), lambda x: Halves()(x)[0] * 3 - Halves()(x)[1] * 2])
def test_gradients_are_those_of_differences(make: Any) -> None:
    g = tw.Graph()
    x = g.input("x", "f64", (5,))
    y = make(x).sum()
    g.program("run", outputs={"y": y, "dx": tw.gradients(y, [x])[0]})
    run = g.compile().programs["run"]
    at = np.array([-2.0, -0.5, 0.3, 1.0, 2.5])
    got = run(x=at)["dx"]
    for i in range(5):
        step = np.eye(5)[i] * 1e-6
        want = (run(x=at + step)["y"] - run(x=at - step)["y"]) / 2e-6
        assert abs(got[i] - want) < 1e-6


def test_they_are_trained_with_and_spread_over_devices() -> None:
    def model(devices: str, strategy: tw.Strategy) -> tw.Model:
        g = tw.Graph("own", seed=2)
        x, y = g.input("x", "f32", (n := g.dim("n", max=64), 4)), g.input("y", "f32", (n, 1))
        with g.stage(0):
            hidden = Softplus(beta=3.0)(nn.Linear(8).named("a")(x))
        with g.stage(1):
            loss = ((nn.Linear(1).named("b")(hidden) - y) ** 2).mean().named("loss")
        g.program("train", outputs=[loss], update=optim.SGD(0.1).minimize(loss))
        return g.compile(devices, strategy)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 4), np.float32)
    digests = set()
    for devices, strategy in [
        ("cpu:0", tw.Strategy.data_parallel(leaves=2)),
        ("cpu:0,cpu:1", tw.Strategy.data_parallel(leaves=2)),
        ("cpu:0,cpu:1", tw.Strategy.pipeline(2, leaves=2)),
    ]:
        m = model(devices, strategy)
        first = float(m.train(x=x, y=x[:, :1] * 2).loss)
        last = m.run_many("train", {"x": x, "y": x[:, :1] * 2}, steps=30)
        assert last is not None and float(last.loss) < first
        digests.add(m.digest())
    assert len(digests) == 1


def mistake(make: Any) -> str:
    g = tw.Graph()
    make(g.input("x", "f32", (g.dim("n", max=4), 3)))
    with pytest.raises(tw.GraphError) as caught:
        g.check()
    assert caught.value.diagnostics[0]["file"] == __file__
    return str(caught.value)


def test_what_makes_no_sense_is_a_mistake_of_the_users_line() -> None:
    class Outside(k.Op):
        def kernel(self, nest: k.Nest, x: k.Operand) -> k.Expr:
            i, j = nest.axes(*x.shape)
            return x[i + 1, j]

    class Shapes(k.Op):
        def kernel(self, nest: k.Nest, x: k.Operand) -> k.Expr:
            (i,) = nest.axes(x.shape[0])
            return x[i, 0]

    class Late(k.Op):
        def kernel(self, nest: k.Nest, x: k.Operand) -> k.Expr:
            (j,) = nest.folds(3)
            (i, _) = nest.axes(*x.shape)
            return k.sum(x[i, j])

    assert "needs [rows, length]" in mistake(lambda x: Convolve()(x, x))
    assert "takes 2 operands" in mistake(lambda x: Convolve()(x))
    assert "outside" in mistake(lambda x: Outside()(x)) or "bounds" in mistake(lambda x: Outside()(x))
    assert "cannot write a result of shape" in mistake(lambda x: Shapes()(x))
    assert "come before" in mistake(lambda x: Late()(x))
    with pytest.raises(TypeError, match=r"kernel\.select"):
        bool(k.sin(1.0) < 2)


def test_two_classes_of_one_name_are_two_ops(run: Run) -> None:
    def of(factor: float) -> Any:
        class Scale(k.Op):
            def kernel(self, nest: k.Nest, x: k.Operand) -> k.Expr:
                return x[nest.axes(*x.shape)] * factor

        return Scale()

    two, three = of(2.0), of(3.0)
    x = np.ones(2, np.float32)
    assert run(lambda t: two(t) + three(t), x).tolist() == [5, 5]


def test_a_fault_within_the_library_is_an_error_and_the_model_goes_on() -> None:
    """A kernel that cannot be made where nobody can be told any more: what panics there is an exception here."""

    class Moody(k.Op):
        def kernel(self, nest: k.Nest, x: k.Operand) -> k.Expr:
            if x.shape[0] == 5:
                raise ValueError("not today")
            return x[nest.axes(*x.shape)] * 2

    g = tw.Graph()
    x = g.input("x", "f32", (g.dim("n", max=8),))
    g.program("run", outputs={"y": Moody()(x)})
    run = g.compile().programs["run"]
    for _ in range(2):
        assert run(x=np.ones(3, np.float32))["y"].tolist() == [2, 2, 2]
        with pytest.raises(tw.InternalError, match="not today"):
            run(x=np.ones(5, np.float32))
