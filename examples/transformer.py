"""A transformer encoder: its heads and the neurons of its feed-forward layers are searched together.

python examples/transformer.py [EVALUATIONS]

The task needs attention: of sixteen tokens, which one comes twice?
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional

import autoprune

TOKENS, LENGTH = 24, 16


def sequences(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, LENGTH) tokens, all different but two, and the token that comes twice."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.rand(count, TOKENS, generator=rng).argsort(dim=1)[:, :LENGTH]
    places = torch.rand(count, LENGTH, generator=rng).argsort(dim=1)
    repeated = tokens.gather(1, places[:, :1])
    return tokens.scatter(1, places[:, 1:2], repeated), repeated.squeeze(1)


class Encoder(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(tokens)).amax(dim=1))


def trained(steps: int = 400) -> nn.Module:
    torch.manual_seed(0)
    model = Encoder()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        x, y = sequences(128, seed=1000 + step)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    model = trained()
    data = autoprune.Data.from_arrays(sequences(1000, 1)[:1], sequences(500, 2), sequences(1000, 3))
    for unit in autoprune.find_structure(model, data.example).units:
        print(f"unit {unit.name}: {unit.width} {unit.kind}")
    front = autoprune.search(model, data, evaluations=evaluations, seed=0)
    for member in front:
        print(f"{member['macs_ratio']:.3f} of the MACs, accuracy {member['accuracy']:.3f}")


if __name__ == "__main__":
    main()
