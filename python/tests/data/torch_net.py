"""Makes ``torch_net.safetensors`` and ``torch_net.npz`` with PyTorch: the weights of a small network as ``state_dict`` has them, some images, and the
logits that PyTorch computes. Run once: ``python torch_net.py``; tests need no PyTorch."""

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1, groups=2) for _ in range(2)])
        self.norm = nn.LayerNorm(8 * 4 * 4)
        self.head = nn.Sequential(nn.Linear(8 * 4 * 4, 16), nn.GELU(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        for block in self.blocks:
            x = x + torch.relu(block(x))
        x = nn.functional.max_pool2d(x, 2)
        return self.head(self.norm(x.flatten(1)))


torch.manual_seed(0)
net = Net()
with torch.no_grad():
    # Statistics that are not those of the beginning.
    net.train()
    for _ in range(10):
        net(torch.randn(32, 3, 8, 8) * 2 + 1)
    net.eval()
    images = torch.randn(6, 3, 8, 8)
    logits = net(images)
save_file(net.state_dict(), "torch_net.safetensors")
np.savez("torch_net.npz", images=images.numpy(), logits=logits.numpy())
print(list(net.state_dict()))
