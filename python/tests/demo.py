"""The twin of ``thalweg demo``, for tests: prints its digest. ``PASSES`` and ``LEAVES`` are read from the environment."""

import json
import os

import thalweg as tw
from thalweg import nn, optim

PASSES = int(os.environ.get("PASSES", "30"))
LEAVES = int(os.environ.get("LEAVES", "0"))


def digits_model() -> tw.Graph:
    g = tw.Graph("digits", seed=0)
    batch = g.dim("batch", max=512)
    image = g.input("image", "f32", (batch, 1, 8, 8))
    label = g.input("label", "i32", (batch,))

    body = nn.Sequential(
        conv1=nn.Conv2d(16, 3, pad=1),
        relu1=tw.relu,
        conv2=nn.Conv2d(32, 3, pad=1),
        relu2=tw.relu,
        pool=nn.MaxPool(2),
        flat=nn.Flatten(),
        drop=nn.Dropout(0.3),
        head=nn.Linear(10),
    ).named("body")
    logits = body(image)
    loss = nn.cross_entropy(logits, label).mean().named("loss")
    accuracy = (logits.argmax() == label).mean().named("accuracy")

    g.program("train", outputs=[loss, accuracy], update=optim.AdamW(3e-3).minimize(loss))
    g.program("eval", outputs=[loss, accuracy])
    g.program("predict", inputs=[image], outputs={"probs": logits.softmax()})
    return g


def main() -> None:
    train, test = tw.data.digits()
    model = digits_model().compile(strategy=tw.Strategy.data_parallel(leaves=LEAVES) if LEAVES else None)
    loader = tw.data.Files.built_in("digits/train") if os.environ.get("READ") else train
    model.run_many("train", model.batches(loader.batches(64, shuffle=0, epochs=PASSES)))
    accuracy = float(model.eval(test.all()).accuracy)
    print(json.dumps({"digest": model.digest(), "accuracy": accuracy, "devices": len(model.devices)}))


if __name__ == "__main__":
    main()
