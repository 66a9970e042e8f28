"""The smallest model: a line fitted to points. The twin of ``examples/line.rs``: the same losses, bit for bit.

Run it: ``python python/examples/line.py``. It prints a slope near 2 and an offset near 1.
"""

import numpy as np

import thalweg as tw

STEPS = 400


def main() -> None:
    g = tw.Graph("line", seed=0)
    n = g.dim("n", max=1024)
    x, y = g.input("x", "f32", (n,)), g.input("y", "f32", (n,))
    slope, offset = g.parameter("slope", ()), g.parameter("offset", ())
    error = x * slope + offset - y
    loss = (error * error).mean().named("loss")
    g.program("train", outputs=[loss], update=tw.optim.SGD(0.1, momentum=0.5).minimize(loss))

    model = g.compile()
    i = np.arange(64, dtype=np.float32)
    xs = i / np.float32(32) - np.float32(1)
    ys = np.float32(2) * xs + np.float32(1) + np.float32(0.1) * np.sin(i * np.float32(1.7))
    for _ in range(STEPS):
        out = model.train(x=xs, y=ys)
    slope_, offset_ = float(model.get("slope")), float(model.get("offset"))
    print(f"y = {slope_:.3f} x + {offset_:.3f}   (loss {float(out.loss):.5f} after {STEPS} steps)")
    assert abs(slope_ - 2) < 0.05 and abs(offset_ - 1) < 0.05


if __name__ == "__main__":
    main()
