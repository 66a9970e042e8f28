"""What Python costs: cases of the kit as Python declares and calls them, in turn with `thalweg kit`, in one run.

    python benches/python.py [ROUNDS] [CASE...]

Each round times both for half a second on one thread; printed are medians over rounds and the median of the ratios of a round, so that what else the
machine does meets both. `many` hands all steps over at once. Run it with the package on `PYTHONPATH` or installed, and `THALWEG` the command.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import thalweg as tw
from thalweg import nn, optim

COMMAND = os.environ.get("THALWEG", "target/release/thalweg")
SECONDS = 0.5


def trained(batch: int, inputs: int, layers: list[int]) -> tuple[tw.Model, dict[str, np.ndarray]]:
    g = tw.Graph()
    n = g.dim("batch", max=1024)
    x, y = g.input("x", "f32", (n, inputs)), g.input("y", "i32", (n,))
    h = x
    for i, features in enumerate(layers, 1):
        h = nn.Linear(features).named(f"fc{i}")(h)
        h = h if i == len(layers) else tw.relu(h)
    loss = nn.cross_entropy(h, y).mean().named("loss")
    g.program("step", outputs=[loss], update=optim.SGD(0.05, momentum=0.9).minimize(loss))
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((batch, inputs), np.float32), "y": rng.integers(0, 10, batch).astype(np.int32)}
    return g.compile(tw.Cluster.local(1)), feeds


def product(n: int) -> tuple[tw.Model, dict[str, np.ndarray]]:
    g = tw.Graph()
    a, b = g.input("a", "f32", (n, n)), g.input("b", "f32", (n, n))
    g.program("step", outputs={"y": a @ b})
    rng = np.random.default_rng(0)
    return g.compile(tw.Cluster.local(1)), {k: rng.standard_normal((n, n), np.float32) for k in "ab"}


def convolution() -> tuple[tw.Model, dict[str, np.ndarray]]:
    g = tw.Graph()
    x, w = g.input("x", "f32", (8, 64, 56, 56)), g.input("w", "f32", (64, 64, 3, 3))
    g.program("step", outputs={"y": tw.conv2d(x, w, pad=1)})
    rng = np.random.default_rng(0)
    shapes = {"x": (8, 64, 56, 56), "w": (64, 64, 3, 3)}
    return g.compile(tw.Cluster.local(1)), {k: rng.standard_normal(s, np.float32) for k, s in shapes.items()}


def doubled() -> tuple[tw.Model, dict[str, np.ndarray]]:
    """Next to nothing: what a call takes, and a step without one."""
    g = tw.Graph()
    g.program("step", outputs={"y": g.input("x", "f32", (g.dim("n", max=64),)) * 2})
    return g.compile(tw.Cluster.local(1)), {"x": np.ones(8, np.float32)}


CASES = {
    "mlp_train": lambda: trained(128, 784, [512, 512, 10]),
    "mlp_small_train": lambda: trained(32, 64, [32, 10]),
    "matmul_1024": lambda: product(1024),
    "conv3x3_64_56_b8": convolution,
    "doubled": doubled,
}


def timed(steps: Callable[[int], object]) -> float:
    """Seconds of a step, over about half a second."""
    count, took = 1, 0.0
    while took < SECONDS / 4:
        count *= 2
        began = time.perf_counter()
        steps(count)
        took = time.perf_counter() - began
    count = max(1, round(count * SECONDS / took))
    began = time.perf_counter()
    steps(count)
    return (time.perf_counter() - began) / count


def ways(model: tw.Model, feeds: dict[str, np.ndarray]) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """So many steps: a call each, and in one call."""
    program = model.programs["step"]

    def calls(count: int) -> None:
        for _ in range(count):
            program(feeds)

    return calls, lambda count: model.run_many("step", feeds, steps=count)


def rust(case: str) -> float:
    arguments = [COMMAND, "kit", "--case", case, "--json", "--threads", "1", "--reps", "3", "--rep-s", str(SECONDS / 3)]
    out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])["median_s"]


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"{'case':20} {'Rust ms':>9} {'call ms':>9} {'×':>6} {'many ms':>9} {'×':>6}")
    for case in sys.argv[2:] or CASES:
        calls, many = ways(*CASES[case]())
        # Nothing of the kit's: beside the same steps without a call each.
        if case == "doubled":
            c, m = (1e3 * min(timed(way) for _ in range(rounds)) for way in (calls, many))
            print(f"{case:20} {'':9} {c:9.4f} {'':6} {m:9.4f}", flush=True)
            continue
        times = [(rust(case), timed(calls), timed(many)) for _ in range(rounds)]
        r, c, m = (1e3 * statistics.median(t) for t in zip(*times, strict=True))
        by_call, by_many = (statistics.median(t[i] / t[0] for t in times) for i in (1, 2))
        print(f"{case:20} {r:9.4f} {c:9.4f} {by_call:6.3f} {m:9.4f} {by_many:6.3f}", flush=True)


if __name__ == "__main__":
    main()
