"""Models: names of parameters, weights that are shared, saving and going on, batches, strategies; and the numbers of the Rust library."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from demo import digits_model

import thalweg as tw
from thalweg import nn, optim

HERE = Path(__file__).parent
COMMAND = os.environ.get("THALWEG")


class Block(nn.Module):
    def __init__(self, features: int) -> None:
        self.norm, self.fc = nn.LayerNorm(), nn.Linear(features)

    def __call__(self, x: tw.Tensor) -> tw.Tensor:
        return x + self.fc(self.norm(x))


class Net(nn.Module):
    def __init__(self) -> None:
        self.blocks = [Block(4) for _ in range(2)]
        self.heads = {"a": nn.Linear(2), "b": nn.Linear(3, bias=False)}
        self.tail = nn.Sequential(nn.Linear(5), tw.relu, last=nn.Linear(1))

    def __call__(self, x: tw.Tensor) -> dict[str, tw.Tensor]:
        for block in self.blocks:
            x = block(x)
        return {name: head(x) for name, head in self.heads.items()} | {"tail": self.tail(x)}


def test_parameters_are_called_after_what_leads_to_them() -> None:
    g = tw.Graph()
    g.program("run", outputs=Net()(g.input("x", "f32", (2, 4))))
    assert list(g.compile().variables) == [
        "blocks.0.norm.weight",
        "blocks.0.norm.bias",
        "blocks.0.fc.weight",
        "blocks.0.fc.bias",
        "blocks.1.norm.weight",
        "blocks.1.norm.bias",
        "blocks.1.fc.weight",
        "blocks.1.fc.bias",
        "heads.a.weight",
        "heads.a.bias",
        "heads.b.weight",
        "tail.0.weight",
        "tail.0.bias",
        "tail.last.weight",
        "tail.last.bias",
    ]


def test_a_layer_that_is_called_again_has_its_weights() -> None:
    g = tw.Graph()
    left, right = g.input("left", "f32", (2, 4)), g.input("right", "f32", (2, 4))
    net = Net()
    with g.scope("twins"):
        one = net(left)["tail"]
    with g.scope("elsewhere"):
        two = net(right)["tail"]
    g.program("run", outputs={"one": one, "two": two})
    model = g.compile()
    assert all(name.startswith("twins.") for name in model.variables)
    x = np.random.default_rng(0).random((2, 4), np.float32)
    out = model.run("run", {"left": x, "right": x})
    np.testing.assert_array_equal(out["one"], out["two"])
    # The same layers in another graph begin anew.
    h = tw.Graph()
    h.program("run", outputs={"y": net(h.input("x", "f32", (2, 4)))["tail"]})
    assert "tail.0.weight" in h.compile().variables


def line(rate: float = 0.1) -> tw.Model:
    g = tw.Graph("line", seed=3)
    n = g.dim("n", max=64)
    x, y = g.input("x", "f32", (n,)), g.input("y", "f32", (n,))
    slope, offset = g.parameter("slope", (), init=tw.init.Normal()), g.parameter("offset", ())
    loss = ((slope * x + offset - y) ** 2).mean().named("loss")
    g.program(
        "train", outputs=[loss], update=optim.AdamW(rate, schedule=optim.Schedule.cosine(100, warmup=5)).minimize(loss)
    )
    g.program("predict", outputs={"y": slope * x + offset})
    return g.compile()


def points() -> tw.data.Dataset:
    x = np.linspace(-1, 1, 50, dtype=np.float32)
    return tw.data.Dataset(x=x, y=2 * x + 1)


def test_a_run_that_is_resumed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    loader = points().batches(8, shuffle=1, epochs=6)
    whole = line()
    whole.run_many("train", whole.batches(loader))
    first = line()
    first.run_many("train", first.batches(loader), steps=17)
    first.save(tmp_path / "run", wait=True)
    second = line()
    assert second.resume_or_init(tmp_path / "nowhere") is None
    assert second.resume(tmp_path / "run") is not None and second.step == 17
    for batch in second.batches(loader):
        second.train(batch)
    assert (second.digest(), second.step) == (whole.digest(), whole.step) == (whole.digest(), 42)
    with pytest.raises(tw.CheckpointError, match="nowhere"):
        second.resume(tmp_path / "nowhere")
    with pytest.raises(tw.CheckpointError):
        line(0.2).resume(tmp_path / "run")
    assert line(0.2).resume(tmp_path / "run", changed=True) is not None


def test_weights_are_safetensors(tmp_path: Path) -> None:
    load = pytest.importorskip("safetensors.numpy").load_file
    model, path = line(), tmp_path / "weights.safetensors"
    model.set("slope", 2.5)
    model.save_weights(path)
    assert {n: float(a) for n, a in load(path).items()} == {"slope": 2.5, "offset": 0.0}
    other = line()
    other.load_weights(path)
    assert float(other.get("slope")) == 2.5
    assert other.predict(x=[1.0, 2.0])["y"].tolist() == [2.5, 5.0]


def test_weights_of_another_head(tmp_path: Path) -> None:
    def net(classes: int, body: int = 4, name: str = "head") -> tw.Model:
        g = tw.Graph()
        x = g.input("x", "f32", (2, 3))
        g.program("run", outputs={"y": nn.Sequential(nn.Linear(body), **{name: nn.Linear(classes)})(x)})
        return g.compile()

    path = tmp_path / "weights.safetensors"
    trained, fresh = net(5), net(2, name="other")
    trained.save_weights(path)
    unshared = fresh.load_weights(path, strict=False)
    assert unshared == (["other.bias", "other.weight"], ["head.bias", "head.weight"])
    assert unshared.missing == ["other.bias", "other.weight"]
    np.testing.assert_array_equal(fresh.get("0.weight"), trained.get("0.weight"))
    assert trained.load_weights(path) == ([], [])
    before = fresh.digest()
    with pytest.raises(tw.CheckpointError, match=r"`head\.bias` is in the file and not in the model"):
        fresh.load_weights(path)
    wider = net(5, body=6)
    with pytest.raises(tw.CheckpointError, match=r"`0.bias` is f32\[6\] in the model and f32\[4\] in the file"):
        wider.load_weights(path, strict=False)
    assert fresh.digest() == before


def test_batches_are_arrays_by_name() -> None:
    train, _ = tw.data.digits()
    loader = train.batches(100, shuffle=4, drop_last=True)
    batches = list(loader)
    assert len(batches) == len(loader) == 14
    images = np.concatenate([b["image"] for b in batches])
    assert images.shape == (1400, 1, 8, 8) and set(batches[0]) == {"image", "label"}
    np.testing.assert_array_equal(images, np.concatenate([b["image"] for b in loader]))
    with pytest.raises(tw.DataError):
        tw.data.Dataset(x=np.ones(3, np.float32), y=np.ones(4, np.float32))


def test_many_steps_are_the_same_steps() -> None:
    one, many, by_hand = line(), line(), line()
    x = np.linspace(0, 1, 16, dtype=np.float32)
    feeds = {"x": x, "y": 3 * x}
    for _ in range(20):
        out = one.train(feeds)
    last = many.run_many("train", feeds, steps=20)
    by_hand.run_many("train", (feeds for _ in range(20)))
    assert last is not None and float(last.loss) == float(out.loss)
    assert one.digest() == many.digest() == by_hand.digest()


def test_looking_inside(tmp_path: Path) -> None:
    g = tw.Graph()
    x = g.input("x", "f32", (g.dim("n", max=8), 4))
    hidden = nn.Linear(3).named("fc")(x).tap("hidden")
    loss = (hidden.relu() ** 2).mean().named("loss")
    g.program("train", outputs=[loss], update=optim.SGD(0.1, momentum=0.9).minimize(loss))
    model = g.compile()
    a = np.random.default_rng(1).random((5, 4), np.float32)
    seen = model.eval_at(hidden, {"x": a})
    np.testing.assert_allclose(seen, a @ model.get("fc.weight").T + model.get("fc.bias"), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.train(x=a)["hidden"], seen, rtol=1e-6, atol=1e-6)
    assert model.variables["sgd.v.fc.weight"] == ("slot", "f32", (3, 4))
    for text in (
        model.summary("train", n=5),
        model.explain("train", n=5),
        model.plan("train", n=5),
        g.text(),
        g.dot(),
        g.mermaid(),
    ):
        assert "fc" in text
    with model.trace(tmp_path / "trace.json"):
        model.train(x=a)
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def digest(*arguments: str, **environment: str) -> dict[str, object]:
    out = subprocess.run(
        [*arguments, sys.executable, str(HERE / "demo.py")],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.skipif(COMMAND is None, reason="`THALWEG` names no command")
def test_the_demo_and_its_twin_have_one_digest() -> None:
    assert COMMAND is not None
    demo = subprocess.run([COMMAND, "demo", "--json", "--passes", "3"], capture_output=True, text=True, check=True)
    assert digest(PASSES="3")["digest"] == json.loads(demo.stdout.splitlines()[-1])["digest"]


@pytest.mark.skipif(COMMAND is None, reason="`THALWEG` names no command")
def test_a_launched_script_runs_on_its_workers() -> None:
    assert COMMAND is not None
    one = digest(PASSES="2", LEAVES="4")
    three = digest(COMMAND, "launch", "-n", "3", "--", PASSES="2", LEAVES="4")
    assert (one["digest"], one["devices"], three["devices"]) == (three["digest"], 1, 3)
    # What they read themselves, here and there.
    assert digest(COMMAND, "launch", "-n", "2", "--", PASSES="2", LEAVES="4", READ="1")["digest"] == one["digest"]
    assert digest(PASSES="2", LEAVES="4", READ="1")["digest"] == one["digest"]


def test_a_strategy_changes_no_bit() -> None:
    train, _ = tw.data.digits()
    digests = set()
    for devices, strategy in [
        ("cpu:0", tw.Strategy.data_parallel(leaves=4)),
        ("cpu:0,cpu:1", tw.Strategy.data_parallel(leaves=4)),
        ("cpu:0,cpu:1,cpu:2", tw.Strategy.data_parallel(leaves=4, shard_state=True)),
        ("cpu:0,cpu:1", tw.Strategy.pipeline(2, leaves=4)),
    ]:
        model = digits_model().compile(devices, strategy)
        model.run_many("train", model.batches(train.batches(64, shuffle=0)), steps=5)
        digests.add(model.digest())
        assert len(model.devices) == len(devices.split(","))
    assert len(digests) == 1


def test_what_is_said_of_a_model_is_text_tables_and_data(tmp_path: Path) -> None:
    model = digits_model().compile()
    summary, explained = model.summary("train", batch=64), model.explain("train", batch=64)
    assert str(summary).startswith("digits, program `train`") and repr(summary) == str(summary)
    layers = {layer["path"]: layer for layer in summary.data["layers"]}
    # 16 kernels of 3 times 3, and 16 offsets.
    assert layers["body.conv1"]["parameters"] == 160 and summary.data["total"]["parameters"] == 9930
    # A line of heads above the layers, and tables of one line of the dimensions, the sums and the plan.
    assert summary._repr_html_().count("<tr>") == len(summary.data["layers"]) + 1 + 3 * 2
    assert "inputs <b>image f32[batch, 1, 8, 8], label i32[batch]</b>" in summary._repr_html_()
    assert f"launches ({len(explained.data['launches'])})" in explained._repr_html_()
    assert pickle.loads(pickle.dumps(summary)).data == summary.data
    page = tmp_path / "digits.html"
    model.draw(page)
    assert page.read_text(encoding="utf-8") == model.graph.html()
    model.graph.draw(str(tmp_path / "predict.dot"), program="predict")
    assert (tmp_path / "predict.dot").read_text(encoding="utf-8") == model.graph.dot("predict")
    with pytest.raises(ValueError, match=r"call it \.html"):
        model.draw(tmp_path / "digits.png")
    with pytest.raises(FileNotFoundError):
        model.draw(tmp_path / "no" / "digits.html")


def test_a_mesh_is_said_in_the_model() -> None:
    def declared(width: int = 12) -> tw.Graph:
        g = tw.Graph("mlp", seed=3)
        x, y = g.input("x", "f32", (8, 6)), g.input("y", "i32", (8,))
        with g.scope("fc1"):
            hidden = nn.Linear(width)(x).relu().shard(["dp", "tp"])
        with g.scope("fc2"):
            logits = nn.Linear(6)(hidden)
        g.shard("fc1.*" if width == 13 else "*fc1.weight", ["tp", None])
        g.shard("fc2.weight", [None, "tp"])
        loss = nn.cross_entropy(logits, y).mean().named("loss")
        g.program("train", outputs=[loss], update=tw.optim.AdamW(0.1).minimize(loss))
        return g

    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(8, 6)).astype(np.float32), "y": np.arange(8, dtype=np.int32) % 6}
    four = [f"cpu:{i}" for i in range(4)]
    losses = []
    for devices, strategy in [
        ("cpu:0", None),
        (four, tw.Strategy.data_parallel(mesh={"dp": 2, "tp": 2})),
        (four, tw.Strategy.pipeline(2, microbatches=2, mesh={"dp": 1, "tp": 2})),
        (four, tw.Strategy.auto(n=8)),
    ]:
        model = declared().compile(devices, strategy)
        losses.append([float(model.train(**feeds).loss) for _ in range(5)])
        if strategy is not None and "mesh" in repr(strategy):
            # A device has half of the weight.
            assert "f32[6, 6]" in model.plan("train")
    np.testing.assert_allclose(losses[1:], [losses[0]] * 3, rtol=1e-5)
    with pytest.raises(tw.ClusterError, match=r"to be spread over `tp`; the mesh has `dp`, `model`"):
        declared().compile(four, tw.Strategy.data_parallel(mesh={"dp": 2, "model": 2}))
    with pytest.raises(tw.GraphError, match=r"there is no parameter `fc1\.\*`") as told:
        declared(13).compile()
    assert "test_models.py" in str(told.value)


class Twin(nn.Module):
    """The twin of the network in ``data/torch_net.py``: attributes are called as they are there."""

    def __init__(self) -> None:
        self.conv1, self.norm1 = nn.Conv2d(8, 3, pad=1, bias=False), nn.BatchNorm()
        self.blocks = [nn.Conv2d(8, 3, pad=1, groups=2) for _ in range(2)]
        self.norm = nn.LayerNorm()
        self.head = nn.Sequential(nn.Linear(16), tw.gelu, nn.Linear(5))

    def __call__(self, x: tw.Tensor) -> tw.Tensor:
        x = tw.relu(self.norm1(self.conv1(x)))
        for block in self.blocks:
            x = x + tw.relu(block(x))
        return self.head(self.norm(tw.max_pool(x, 2).flatten(1)))


def test_the_weights_of_a_pytorch_network_give_its_logits() -> None:
    load = pytest.importorskip("safetensors.numpy").load_file
    g = tw.Graph("twin")
    g.program("run", outputs={"logits": Twin()(g.input("x", "f32", (g.dim("n", max=8), 3, 8, 8)))})
    model = g.compile()
    state = {
        n: a for n, a in load(HERE / "data" / "torch_net.safetensors").items() if not n.endswith("num_batches_tracked")
    }
    assert set(state) == set(model.variables)
    for name, value in state.items():
        model.set(name, value)
    theirs = np.load(HERE / "data" / "torch_net.npz")
    got = model.run("run", {"x": theirs["images"]})["logits"]
    assert np.abs(got - theirs["logits"]).max() <= 1e-5


def test_fit_and_evaluate(tmp_path: Path) -> None:
    train, test = tw.data.digits()
    loader = train.batches(64, shuffle=0, epochs=2)
    by_hand, model, resumed = (digits_model().compile() for _ in range(3))
    by_hand.run_many("train", by_hand.batches(loader))
    model.fit(train.batches(64, shuffle=0), save=tmp_path, quiet=True)
    resumed.fit(loader, save=tmp_path, save_every=10, quiet=True)
    assert (resumed.digest(), resumed.step) == (by_hand.digest(), 46)
    whole = resumed.evaluate(test)
    parts = resumed.evaluate(test.batches(50))
    assert whole["accuracy"] > 0.8 and abs(whole["accuracy"] - parts["accuracy"]) < 1e-6


def test_graphs_are_pickled_and_models_are_not() -> None:
    graph = digits_model()
    again = pickle.loads(pickle.dumps(graph))
    twice = copy.deepcopy(again)
    assert graph.to_bytes() == again.to_bytes() == twice.to_bytes() and (again.name, again.seed) == ("digits", 0)
    train, _ = tw.data.digits()
    digests = set()
    for g in (graph, again, twice):
        model = g.compile()
        model.run_many("train", model.batches(train.batches(64)), steps=3)
        digests.add(model.digest())
    assert len(digests) == 1
    with pytest.raises(TypeError, match="pickle its graph"):
        pickle.dumps(model)
    with pytest.raises(tw.GraphError, match="no graph"):
        tw.Graph.from_bytes(b"nothing")


def test_clusters_are_named_or_described_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(
        '[[devices]]\nname = "cpu:0"\nkind = "cpu"\n\n[[devices]]\nname = "cpu:1"\nkind = "cpu"\nthreads = 1\n'
    )
    cluster = tw.Cluster(path)
    assert cluster.devices == tw.Cluster.of("cpu:0", "cpu:1").devices == ["cpu:0", "cpu:1"]
    assert digits_model().compile(cluster, tw.Strategy.auto()).devices == ["cpu:0", "cpu:1"]
    path.write_text("[[devices]]\nnam = 1\n")
    with pytest.raises(tw.ClusterError, match="nam"):
        tw.Cluster(path)


def test_files_below_a_root_are_read_by_the_model(tmp_path: Path) -> None:
    data = points()
    np.savez(tmp_path / "points.npz", x=data.all()["x"], label=data.all()["y"])
    fed, read = line(), line()
    fed.run_many("train", fed.batches(data.batches(8, shuffle=1, epochs=3)))
    files = tw.data.Files.below("data", "points.npz", inputs={"x": "x", "y": "label"})
    with pytest.raises(tw.Error, match="no root `data`"):
        read.batches(files.batches(8))
    read.add_root(f"data={tmp_path}")
    steps = 0
    for batch in read.batches(files.batches(8, shuffle=1, epochs=3)):
        assert len(batch) in (8, 2)
        read.train(batch)
        steps += 1
    assert (read.digest(), steps) == (fed.digest(), fed.step)
    with pytest.raises(tw.Error, match="no name below"):
        read.batches(tw.data.Files.below("data", "../points.npz").batches(8))


def test_layers_of_several_tensors_in_whatever_they_come() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            self.left, self.right = nn.Linear(2), nn.Linear(2)

        def __call__(self, pair: dict[str, list[tw.Tensor]], scale: float = 1.0) -> tw.Tensor:
            return (self.left(pair["x"][0]) + self.right(pair["x"][1])) * scale

    g = tw.Graph()
    x, y = g.input("x", "f32", (2, 3)), g.input("y", "f32", (2, 4))
    g.program("run", outputs={"y": Both().named("both")({"x": [x, y]}, scale=2.0)})
    assert list(g.compile().variables) == ["both.left.weight", "both.left.bias", "both.right.weight", "both.right.bias"]
