"""Layers of your own, beside the library's: squeeze-and-excitation (Hu et al., *Squeeze-and-Excitation Networks*, CVPR 2018), which is made of
other layers, and a residual branch whose channels are scaled by a parameter of its own (LayerScale: Touvron et al., *Going deeper with Image
Transformers*, ICCV 2021). Parameters are called after the attributes that lead to them.

Run it: ``python python/examples/your_own_layer.py``. It trains on handwritten digits and prints the variables, an accuracy near 97 %, and how
far the scales have moved. The twin of ``examples/your_own_layer.rs``.
"""

import thalweg as tw
from thalweg import nn, optim


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole image looks like: ``x · sigmoid(expand(relu(squeeze(mean of each plane))))``."""

    def __init__(self, channels: int, narrower: int) -> None:
        # Convolutions of images of one pixel.
        self.squeeze = nn.Conv2d(channels // narrower, 1)
        self.expand = nn.Conv2d(channels, 1)

    def __call__(self, x: tw.Tensor) -> tw.Tensor:
        planes = x.mean((-2, -1), keepdims=True)
        return x * self.expand(tw.relu(self.squeeze(planes))).sigmoid()


class ScaledResidual(nn.Module):
    """``x + scale · branch(x)``, where the branch keeps the shape of images [N, C, H, W]. Parameter ``scale`` [C, 1, 1], which begins at 0.1:
    the branch joins as it learns to be useful."""

    def __init__(self, channels: int, branch: nn.Module) -> None:
        self.channels, self.branch = channels, branch

    def __call__(self, x: tw.Tensor) -> tw.Tensor:
        scale = x.graph.parameter("scale", (self.channels, 1, 1), init=0.1)
        return x + scale * self.branch(x)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        # In this layer's own scope.
        self.conv = nn.Conv2d(channels, 1).named("")

    def __call__(self, x: tw.Tensor) -> tw.Tensor:
        return x * self.conv(x).sigmoid()


def main() -> None:
    g = tw.Graph("digits", seed=0)
    batch = g.dim("batch", max=512)
    image = g.input("image", "f32", (batch, 1, 8, 8))
    label = g.input("label", "i32", (batch,))

    branch = nn.Sequential(conv=nn.Conv2d(16, 3, pad=1), relu=tw.relu, excite=SqueezeExcite(16, narrower=4))
    body = nn.Sequential(
        conv=nn.Conv2d(16, 3, pad=1),
        relu=tw.relu,
        block=ScaledResidual(16, branch),
        gate=Gate(16),
        pool=nn.MaxPool(2),
        flat=nn.Flatten(),
        drop=nn.Dropout(0.3),
        head=nn.Linear(10),
    ).named("body")
    logits = body(image)
    loss = nn.cross_entropy(logits, label).mean().named("loss")
    accuracy = (logits.argmax() == label).mean().named("accuracy")
    g.program("train", outputs=[loss], update=optim.AdamW(3e-3).minimize(loss))
    g.program("eval", outputs=[accuracy])

    model = g.compile()
    for name, variable in model.variables.items():
        if name.startswith("body."):
            print(f"{name:40} {variable.dtype}[{', '.join(map(str, variable.shape))}]")
    train, test = tw.data.digits()
    model.run_many("train", model.batches(train.batches(64, shuffle=1, epochs=30)))
    share = float(model.eval(test.all()).accuracy)
    scale = model.get("body.block.scale")
    low, high = float(scale.min()), float(scale.max())
    print(f"accuracy {100 * share:.2f} %; the scales, 0.1 at first, are between {low:.2f} and {high:.2f}")
    assert share >= 0.95 and high - low > 0.01


if __name__ == "__main__":
    main()
