"""One model on one device and on several: data parallel, ZeRO-1, as a pipeline, and a checkpoint that moves between them. The leaves of the
strategy are fixed, the devices are not; so every run ends with the same bits, and a run that was begun on two devices goes on on three as if
nothing had happened.

Run it: ``python python/examples/several_devices.py``. It prints a line per run and ends with ``the same bits everywhere``. The twin of
``examples/several_devices.rs``.
"""

import tempfile

import thalweg as tw
from thalweg import nn, optim

LEAVES = 6


def model(devices: int, strategy: tw.Strategy) -> tw.Model:
    g = tw.Graph("digits", seed=0)
    batch = g.dim("batch", max=512)
    image = g.input("image", "f32", (batch, 1, 8, 8))
    label = g.input("label", "i32", (batch,))
    body = nn.Sequential(
        conv=nn.Conv2d(16, 3, pad=1),
        relu=tw.relu,
        pool=nn.MaxPool(2),
        flat=nn.Flatten(),
        drop=nn.Dropout(0.3),
        head=nn.Linear(10),
    ).named("body")
    loss = nn.cross_entropy(body(image), label).mean().named("loss")
    g.program("train", outputs=[loss], update=optim.AdamW(3e-3).minimize(loss))
    # One thread per device; they may also be GPUs, or both.
    return g.compile([f"cpu:{i}" for i in range(devices)], strategy)


def main() -> None:
    train, _ = tw.data.digits()
    data = train.batches(60, shuffle=0, epochs=2)
    digests = []
    for name in ["data parallel", "ZeRO-1", "pipeline"]:
        for devices in [1, 2, 3]:
            match name:
                case "pipeline":
                    strategy = tw.Strategy.pipeline(devices, leaves=LEAVES)
                case _:
                    strategy = tw.Strategy.data_parallel(leaves=LEAVES, shard_state=name == "ZeRO-1")
            m = model(devices, strategy)
            out = m.run_many("train", m.batches(data))
            assert out is not None
            # The digest reads variables wherever they lie: that crosses, too.
            sent = m.bytes_sent / 1e3 / m.step
            print(f"{name:13} on {devices}: loss {float(out.loss):.4f}, {sent:6.1f} KB a step")
            digests.append(m.digest())

    # Half of it on two devices, the rest on three: variables are saved whole, wherever they lie.
    strategy = tw.Strategy.data_parallel(leaves=LEAVES, shard_state=True)
    with tempfile.TemporaryDirectory() as directory:
        half = model(2, strategy)
        half.run_many("train", half.batches(data), steps=24)
        half.save(directory, wait=True)
        rest = model(3, strategy)
        rest.resume(directory)
        rest.run_many("train", rest.batches(data))
    print(f"begun on 2 and ended on 3, at step {rest.step}")
    digests.append(rest.digest())

    assert len(set(digests)) == 1, digests
    print("the same bits everywhere")


if __name__ == "__main__":
    main()
