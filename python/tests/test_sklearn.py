"""Others' data, by others' means: scikit-learn's digits, to the accuracy of the demo."""

from __future__ import annotations

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn, optim


def test_ten_lines_learn_the_digits_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32).reshape(-1, 1, 8, 8), y.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1437], order[1437:]

    g = tw.Graph(seed=0)
    image, label = g.input("image", "f32", (n := g.dim("n", max=512), 1, 8, 8)), g.input("label", "i32", (n,))
    body = nn.Sequential(
        nn.Conv2d(16, 3, pad=1),
        tw.relu,
        nn.Conv2d(32, 3, pad=1),
        tw.relu,
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(10),
    )
    loss = nn.cross_entropy(logits := body(image), label).mean().named("loss")
    g.program("train", outputs=[loss], update=optim.AdamW(3e-3).minimize(loss))
    g.program("predict", outputs={"digit": logits.argmax()})
    model = g.compile()
    for batch in model.batches(tw.data.Dataset(image=x[train], label=y[train]).batches(64, shuffle=0, epochs=30)):
        model.train(batch)
    accuracy = (model.predict(image=x[test])["digit"] == y[test]).mean()

    print(f"accuracy {accuracy:.4f}")
    assert accuracy > 0.97
