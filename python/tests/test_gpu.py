"""A model on the machine's first adapter. Skipped by name where there is none, or the module was built without GPUs; `THALWEG_REQUIRE=vulkan` makes
that a failure."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn, optim


def net() -> tw.Graph:
    g = tw.Graph("net", seed=2)
    batch = g.dim("batch", max=16)
    image, label = g.input("image", "f32", (batch, 1, 8, 8)), g.input("label", "i32", (batch,))
    body = nn.Sequential(conv=nn.Conv2d(4, 3, pad=1), relu=tw.relu, flat=nn.Flatten(), head=nn.Linear(10))
    logits = body(image) + image.reshape((batch, 64)) @ g.parameter("skip", (64, 10), init=tw.init.Normal(0.0, 0.1))
    loss = nn.cross_entropy(logits, label).mean().named("loss")
    g.program("train", outputs=[loss], update=optim.AdamW(1e-2).minimize(loss))
    g.program("logits", inputs=[image], outputs={"y": logits})
    return g


def on_gpu(graph: tw.Graph) -> tw.Model:
    try:
        return graph.compile("gpu:0")
    except tw.Error as error:
        if not re.search(r"this build has no GPUs|no adapter was found", str(error)):
            raise
        if "vulkan" in os.environ.get("THALWEG_REQUIRE", "").split(","):
            pytest.fail(f"THALWEG_REQUIRE says vulkan: {error}")
        pytest.skip(str(error))


def alike(a: tw.Model, b: tw.Model) -> None:
    assert a.variables == b.variables
    for name in a.variables:
        np.testing.assert_allclose(a.get(name), b.get(name), rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_model_learns_on_a_gpu_as_on_the_cpu_and_goes_over(tmp_path: Path) -> None:
    gpu, cpu = on_gpu(net()), net().compile("cpu")
    assert gpu.devices == ["gpu:0"] and cpu.devices != gpu.devices
    train, test = tw.data.digits()
    loader, images = train.batches(16, shuffle=1), test.all()["image"][:16]
    untrained = cpu.get("conv.weight")
    batches = list(zip(loader, range(6), strict=False))
    for batch, _ in batches[:3]:
        np.testing.assert_allclose(gpu.train(batch).loss, cpu.train(batch).loss, rtol=1e-4, atol=1e-4)
    alike(gpu, cpu)
    assert not np.allclose(cpu.get("conv.weight"), untrained, atol=1e-3), "they have learned"

    # From the GPU to the CPU and back, between steps and bit for bit.
    gpu.save(tmp_path / "gpu", wait=True)
    over = net().compile("cpu")
    over.resume(tmp_path / "gpu")
    assert (over.digest(), over.step) == (gpu.digest(), 3)
    for batch, _ in batches[3:]:
        np.testing.assert_allclose(over.train(batch).loss, gpu.train(batch).loss, rtol=1e-4, atol=1e-4)
    alike(over, gpu)
    over.save(tmp_path / "cpu", wait=True)
    back = on_gpu(net())
    back.resume(tmp_path / "cpu")
    assert (back.digest(), back.step) == (over.digest(), 6)
    given = {"image": images}
    np.testing.assert_allclose(back.run("logits", given)["y"], over.run("logits", given)["y"], rtol=1e-4, atol=1e-4)
