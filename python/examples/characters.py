"""A transformer that learns to write, character by character, from a text file or from this project's own Markdown. The length of a window is
a named dimension, so that the text can grow from one character on without padding. What the loader shuffles are the places where windows begin;
the windows themselves are views of the text.

Run it: ``python python/examples/characters.py [FILE [PROMPT]]``. It prints the loss as it falls, bits per character on a tenth of the text that
it does not train on, and goes on from the prompt (else from what the text begins with) for a few hundred characters; about 15 seconds on two
cores. The twin of ``examples/characters.rs``.
"""

import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import thalweg as tw
from thalweg import nn, optim

LENGTH = 64
WIDTH = 96
BLOCKS = 2
BATCH = 16
STEPS = 800
GENERATED = 400
TEMPERATURE = 0.7


def declare(characters: int) -> tw.Graph:
    g = tw.Graph("characters", seed=0)
    batch = g.dim("batch", max=64)
    length = g.dim("length", max=LENGTH)
    text = g.input("text", "i32", (batch, length))
    following = g.input("next", "i32", (batch, length))

    place = nn.Embedding(LENGTH, WIDTH).named("place")(g.arange(length))
    x = nn.Embedding(characters, WIDTH).named("character")(text) + place
    for i in range(BLOCKS):
        x = nn.TransformerBlock(4, causal=True).named(f"block{i}")(x)
    x = nn.LayerNorm().named("norm")(x)
    logits = nn.Linear(characters).named("head")(x)
    loss = nn.cross_entropy(logits, following).mean().named("loss")

    warmup = 50
    schedule = optim.Schedule.cosine(STEPS - warmup, warmup=warmup)
    update = optim.AdamW(6e-3, schedule=schedule, clip_norm=1.0).minimize(loss)
    g.program("train", outputs=[loss], update=update)
    g.program("eval", outputs=[loss])
    g.program("write", inputs=[text], outputs=[logits.named("logits")])
    return g


def windows(text: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray, tw.data.Dataset]:
    """Stretches of text, the same one character later, and the places of those that are ``stride`` apart."""
    count = (len(text) - LENGTH - 1) // stride + 1
    views = np.lib.stride_tricks.sliding_window_view(text, LENGTH)
    return views[:-1], views[1:], tw.data.Dataset(at=np.arange(count, dtype=np.int32) * stride)


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else None
    text = Path(given).read_text(encoding="utf-8") if given else own_markdown()
    alphabet = sorted(set(text))
    number = {c: i for i, c in enumerate(alphabet)}
    numbers = np.array([number[c] for c in text], np.int32)
    prompt = [number[c] for c in sys.argv[2]] if len(sys.argv) > 2 else numbers[: LENGTH // 4].tolist()
    train, test = numbers[: len(numbers) * 9 // 10], numbers[len(numbers) * 9 // 10 :]
    print(f"{len(numbers)} characters, {len(alphabet)} different ones; the last {len(test)} are held out")

    model = declare(len(alphabet)).compile()
    now, later, places = windows(train, 1)
    loss = 0.0
    batches = model.batches(places.batches(BATCH, shuffle=1, drop_last=True, epochs=STEPS))
    for _, batch in zip(range(STEPS), batches):
        loss += float(model.train(text=now[batch["at"]], next=later[batch["at"]]).loss)
        if model.step % 100 == 0:
            print(f"step {model.step:3}  loss {loss / 100:.3f}")
            loss = 0.0

    now, later, places = windows(test, LENGTH)
    nats = 0.0
    for batch in places.batches(BATCH):
        nats += float(model.eval(text=now[batch["at"]], next=later[batch["at"]]).loss) * len(batch["at"])
    bits = nats / len(places) / math.log(2)
    plain = bits_by_frequency(train, test, len(alphabet))
    print(f"held out: {bits:.2f} bits per character; {plain:.2f} by how frequent each character is")

    written, random = prompt, Random(1)
    for _ in range(GENERATED):
        out = model.write(text=np.array([written[-LENGTH:]], np.int32))
        written.append(random.choose(out["logits"][0, -1].astype(np.float64)))  # what follows the last character
    print(f"\n{''.join(alphabet[i] for i in written)}")
    # Of any other text nothing is known: random characters cannot be learned.
    assert given is not None or bits < 0.8 * plain


def bits_by_frequency(train: np.ndarray, test: np.ndarray, characters: int) -> float:
    """Bits per character of ``test`` for who knows nothing but how often each of so many characters is in ``train``."""
    count, total = Counter(train.tolist()), len(train) + characters
    return sum(-math.log2((count[c] + 1) / total) for c in test.tolist()) / len(test)


class Random:
    """SplitMix64 (Steele et al., *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014)."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        x = (self.state ^ (self.state >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return ((x ^ (x >> 31)) >> 11) / (1 << 53)

    def choose(self, logits: np.ndarray) -> int:
        """One of the classes that these unnormalized log-probabilities are of."""
        most = float(logits.max())
        weights = [math.exp((z - most) / TEMPERATURE) for z in logits.tolist()]
        left = self.unit() * sum(weights)
        for i, w in enumerate(weights):
            left -= w
            if left < 0:
                return i
        return len(weights) - 1


def own_markdown() -> str:
    """Everything this project says about itself, in the order of the paths."""
    root = Path(__file__).parents[2]
    files = [root / "README.md", root / "ARCHITECTURE.md", *(root / "docs").rglob("*.md")]
    return "".join(file.read_text(encoding="utf-8") for file in sorted(files))


if __name__ == "__main__":
    main()
