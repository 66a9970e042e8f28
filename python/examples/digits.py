"""Real handwritten digits: data in batches, checkpoints, evaluation. It trains in two halves, each with a model of its own: the second finds the
checkpoint of the first and goes on with the very next batch, as it would in another process. End it with Ctrl-C and start it again with the same
directory: it goes on from the last save.

Run it: ``python python/examples/digits.py runs/digits``, or without a directory, to leave nothing behind. It prints the accuracy on 360 digits
never trained on, above 97 %. The twin of ``examples/digits.rs``.
"""

import sys
import tempfile

import thalweg as tw
from thalweg import nn, optim

PASSES = 30
BATCH = 64


def declared() -> tw.Graph:
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
    return g


def train(directory: str, passes: int) -> float:
    """Trains until ``passes`` passes are behind the model, those before the checkpoint in ``directory`` included; gives the share of test
    digits that it gets right."""
    train, test = tw.data.digits()
    data = train.batches(BATCH, shuffle=1, epochs=passes)
    model = declared().compile()
    resumed = model.resume_or_init(directory)
    if resumed is not None:
        print(f"resumed {resumed} at step {model.step}")
    else:
        print(f"no checkpoint in {directory} yet: beginning at step 0")
    loss, steps = 0.0, 0
    for batch in model.batches(data):
        loss += float(model.train(batch).loss)
        steps += 1
        if model.step % (5 * data.steps_per_pass) == 0:
            print(f"pass {model.step // data.steps_per_pass:2}  loss {loss / steps:.4f}")
            loss, steps = 0.0, 0
            model.save(directory)  # another thread writes it, while this one trains
    model.save(directory, wait=True)
    accuracy = float(model.eval(test.all()).accuracy)
    passes = model.step // data.steps_per_pass
    print(f"accuracy {100 * accuracy:.2f} % on {len(test)} test digits after {passes} passes")
    return accuracy


def main() -> None:
    with tempfile.TemporaryDirectory() as nowhere:
        directory = sys.argv[1] if len(sys.argv) > 1 else nowhere
        train(directory, PASSES // 2)
        assert train(directory, PASSES) >= 0.96


if __name__ == "__main__":
    main()
