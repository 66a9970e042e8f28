"""What can be fed, what comes back, and what is copied on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import thalweg as tw


def identity(dtype: str, shape: tuple[int, ...]) -> tw.Model:
    g = tw.Graph()
    x = g.input("x", dtype, shape)
    g.program("run", outputs={"y": x.reshape(-1).reshape(shape) if shape else tw.where(x == x, x, x)})
    return g.compile()


DTYPES: list[tuple[str, Any]] = [
    ("f32", np.float32),
    ("f64", np.float64),
    ("f16", np.float16),
    ("bf16", ml_dtypes.bfloat16),
    ("i32", np.int32),
    ("i64", np.int64),
    ("u8", np.uint8),
    ("u32", np.uint32),
    ("bool", np.bool_),
]


@pytest.mark.parametrize(("name", "dtype"), DTYPES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 3), (2, 1, 4)])
def test_every_type_goes_there_and_back(name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    x = (np.arange(np.prod(shape)).reshape(shape) % 2 + 1 - (name == "bool")).astype(dtype)
    y = identity(name, shape).programs["run"](x=x)["y"]
    assert y.dtype == dtype and y.shape == shape
    np.testing.assert_array_equal(y, x)


def test_whatever_the_memory_is_like() -> None:
    model = identity("f32", (3, 4)).programs["run"]
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    odd = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 4)
    assert not odd.flags.aligned or odd.ctypes.data % 4
    for given in (
        x,
        np.asfortranarray(x),
        np.repeat(x, 2, 1)[:, ::2],
        x[::-1][::-1],
        x.astype(">f4"),
        x.tolist(),
        odd,
        memoryview(x),
    ):
        np.testing.assert_array_equal(model(x=given)["y"], x)
    readonly = x.copy()
    readonly.flags.writeable = False
    np.testing.assert_array_equal(model(x=readonly)["y"], x)


def test_integers_are_narrowed_where_they_fit() -> None:
    model = identity("i32", (2,)).programs["run"]
    assert model(x=np.array([1, -2]))["y"].tolist() == [1, -2]
    with pytest.raises(tw.FeedError, match="does not fit"):
        model(x=np.array([1, 1 << 40]))
    with pytest.raises(TypeError, match="astype"):
        model(x=np.array([1, 2], np.int16))


def test_dlpack() -> None:
    class Other:
        """Somebody else's tensor."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **kwargs: Any) -> Any:
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(identity("f32", (2, 3)).programs["run"](x=Other(x))["y"], x)


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    for name in ("f32", "bf16", "f16", "i64", "bool"):
        dtype = {
            "f32": torch.float32,
            "bf16": torch.bfloat16,
            "f16": torch.float16,
            "i64": torch.int64,
            "bool": torch.bool,
        }[name]
        x = torch.arange(6).reshape(2, 3).to(dtype)
        y = identity(name, (2, 3)).programs["run"](x=x)["y"]
        assert y.astype(np.float64).tolist() == x.to(torch.float64).tolist()


def test_large_arrays_are_read_where_they_lie() -> None:
    """The peak of memory shows a copy of 256 MB, however it is made."""
    script = """
        import resource, numpy as np, thalweg as tw
        g = tw.Graph()
        x = g.input("x", "f32", (1 << 26,))
        g.program("run", outputs={"y": x[:16] + x.max()})
        model = g.compile()
        a = np.ones(1 << 26, np.float32)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model.programs["run"](x=a)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 100_000, out.stdout


def test_outputs() -> None:
    g = tw.Graph()
    x = g.input("x", "f32", (2,))
    g.program("run", outputs={"a": x + 1, "b": x.sum()})
    out = g.compile().programs["run"](x=[1.0, 2.0])
    assert list(out) == ["a", "b"] and len(out) == 2 and "a" in out and dict(out)["b"] == 3
    assert float(out.b) == 3 and "b=3" in repr(out)
    kept = out["a"]
    del out
    assert kept.tolist() == [2, 3] and not kept.flags.writeable
    assert {n: a.shape for n, a in g.compile().programs["run"](x=[1.0, 2.0]).items()} == {"a": (2,), "b": ()}


def busy() -> tw.Model:
    """A program that takes long, and one that counts."""
    g = tw.Graph()
    x = g.input("x", "f32", (g.dim("n", max=4096), 512))
    w = g.parameter("w", (512, 512), init=tw.init.Normal(std=0.01))
    y = x
    for _ in range(200):
        y = (y @ w).tanh()
    loss = (y * y).mean().named("loss")
    g.program("train", outputs=[loss], update=tw.optim.SGD(0.1).minimize(loss))
    return g.compile()


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C as a terminal has it: what a shell starts in the background ignores it."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_the_step_and_leaves_the_variables() -> None:
    model = busy()
    small = np.ones((1, 512), np.float32)
    model.train(x=small)
    before = model.digest()
    x = np.ones((4096, 512), np.float32)
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        time.sleep(0.3)
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        model.train(x=x)
    took = time.monotonic() - sent
    thread.join()
    print(f"ended after {took * 1e3:.0f} ms")
    assert 0 < took < 1.0
    assert model.digest() == before and model.step == 1
    model.train(x=small)
    assert model.step == 2


def test_a_handler_of_the_users_own_is_called() -> None:
    model = busy()
    heard: list[int] = []
    old = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(tw.RunError, match="asked to end"):
            model.train(x=np.ones((4096, 512), np.float32))
    finally:
        signal.signal(signal.SIGINT, old)
    assert heard == [1]


def test_other_threads_run_meanwhile() -> None:
    model = busy()
    x = np.ones((1024, 512), np.float32)
    model.train(x=x)
    thread = threading.Thread(target=lambda: model.train(x=x))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 5 and model.step == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_is_told() -> None:
    model = identity("f32", (2,))
    pid = os.fork()
    if pid == 0:
        try:
            model.programs["run"](x=[1.0, 2.0])
        except tw.RunError as error:
            os._exit(7 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
