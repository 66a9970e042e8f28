"""Real handwritten digits: data in batches, checkpoints, evaluation. The twin of ``thalweg demo``: the same digest.

Run it: ``python python/examples/digits.py [DIRECTORY]``. End it with Ctrl-C and start it again with the same directory: it goes on
from the last save. Launched (``thalweg launch -n 4 -- python python/examples/digits.py``) it runs on four worker processes.
"""

import json
import os
import sys

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
    strategy = tw.Strategy.data_parallel(leaves=LEAVES) if LEAVES else None
    model = digits_model().compile(strategy=strategy)
    directory = sys.argv[1] if len(sys.argv) > 1 else None
    if directory is not None:
        model.resume_or_init(directory)
    loader = train.batches(64, shuffle=0, epochs=PASSES)
    for batch in tw.progress(model.batches(loader)):
        model.train(batch)
        if directory is not None and model.step % 100 == 0:
            model.save(directory)
    if directory is not None:
        model.save(directory, wait=True)
    accuracy = float(model.eval(test.all()).accuracy)
    print(
        json.dumps({"digest": model.digest(), "accuracy": accuracy, "steps": model.step, "devices": len(model.devices)})
    )


if __name__ == "__main__":
    main()
