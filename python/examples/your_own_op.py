"""An op of your own: ``snake``, ``x + sin²(a·x) / a``, an activation for periodic data (Ziyin et al., *Neural Networks Fail to Learn Periodic
Functions and How to Fix It*, 2020). One class says everything about it: attributes, types, kernel, gradient. Planning and every device follow.

Run it: ``python python/examples/your_own_op.py``. It prints a loss that falls below 0.01. The twin of ``examples/your_own_op.rs``.
"""

import numpy as np

import thalweg as tw
from thalweg import kernel as k
from thalweg import nn, optim


class Snake(k.Op):
    """``x + sin²(a·x) / a``."""

    a: float = 1.0

    def types(self, x: k.TensorType) -> tuple[str, tw.Shape]:
        if self.a == 0:
            raise ValueError("the frequency is zero: choose any other number")
        return x.dtype, x.shape

    def kernel(self, nest: k.Nest, x: k.Operand) -> k.Expr:
        at = nest.axes(*x.shape)
        wave = k.sin(x[at] * self.a)
        return x[at] + wave * wave / self.a

    def gradient(self, ct: tw.Tensor, x: tw.Tensor) -> tw.Tensor:
        return ct * (tw.sin(x * (2.0 * self.a)) + 1.0)


def main() -> None:
    g = tw.Graph("wave", seed=1)
    n = g.dim("n", max=256)
    x, y = g.input("x", "f32", (n, 1)), g.input("y", "f32", (n, 1))
    hidden = Snake(a=4.0)(nn.Linear(32).named("hidden")(x))
    guess = nn.Linear(1).named("out")(hidden)
    loss = ((guess - y) * (guess - y)).mean().named("loss")
    g.program("train", outputs=[loss], update=optim.AdamW(0.01).minimize(loss))

    model = g.compile()
    xs = (np.arange(128, dtype=np.float32) / np.float32(32) - np.float32(2)).reshape(128, 1)
    ys = np.sin(3.0 * xs.astype(np.float64)).astype(np.float32)
    for step in range(600):
        out = model.train(x=xs, y=ys)
        if step % 100 == 0:
            print(f"step {step:3}  loss {float(out.loss):.5f}")
    print(f"step 600  loss {float(out.loss):.5f}")
    assert float(out.loss) < 0.01


if __name__ == "__main__":
    main()
