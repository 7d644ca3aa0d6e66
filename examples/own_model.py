"""Your own model and data: a one-dimensional convolutional network that tells wave forms and pitches apart.

python examples/own_model.py [EVALUATIONS]
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional

import autoprune


def waves(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy waves of four forms and four pitches, of random phase: (count, 1, 64) and their classes, form and pitch."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(16, (count,), generator=rng)
    start, tuning = torch.rand(2, count, 1, generator=rng)
    cycles = 2 + (labels.unsqueeze(1) % 4) + 0.6 * tuning
    phase = (start + cycles * torch.linspace(0, 1, 64)) % 1
    sine, saw = torch.sin(2 * torch.pi * phase), 2 * phase - 1
    forms = torch.stack([sine, sine.sign(), saw, 2 * saw.abs() - 1], dim=1)  # (count, 4, 64)
    clean = forms[torch.arange(count), labels // 4]
    return (clean + 0.25 * torch.randn(count, 64, generator=rng)).unsqueeze(1), labels


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 48), (48, 64)):
        layers += [nn.Conv1d(inputs, outputs, 5, stride=2, padding=2), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 16))


def trained(steps: int = 300) -> nn.Module:
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(steps):
        x, y = waves(64, seed=1000 + step)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def data() -> autoprune.Data:
    """Three disjoint sets. Calibration needs no labels, so it gets the inputs alone."""
    return autoprune.Data.from_arrays(calibrate=waves(1000, 1)[:1], select=waves(1000, 2), report=waves(1000, 3))


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    model = trained()
    front = autoprune.search(model, data(), evaluations=evaluations, seed=0)
    for member in front:
        print(f"{member['macs']:9,.0f} MACs ({member['macs_ratio']:.3f}) {member['accuracy']:.3f}")
    small = front.pick("macs<=0.25").build()
    print("a quarter of the MACs:", [layer.out_channels for layer in small if isinstance(layer, nn.Conv1d)])


if __name__ == "__main__":
    main()
