"""The twin of ``thalweg demo``, for tests: prints its digest. ``PASSES`` and ``LEAVES`` are read from the environment."""

import json
import os
import sys
from pathlib import Path

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from digits import declared as digits_model

PASSES = int(os.environ.get("PASSES", "30"))
LEAVES = int(os.environ.get("LEAVES", "0"))


def main() -> None:
    train, test = tw.data.digits()
    model = digits_model().compile(strategy=tw.Strategy.data_parallel(leaves=LEAVES) if LEAVES else None)
    loader = tw.data.Files.built_in("digits/train") if os.environ.get("READ") else train
    model.run_many("train", model.batches(loader.batches(64, shuffle=0, epochs=PASSES)))
    accuracy = float(model.eval(test.all()).accuracy)
    print(json.dumps({"digest": model.digest(), "accuracy": accuracy, "devices": len(model.devices)}))


if __name__ == "__main__":
    main()
