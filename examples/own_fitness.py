"""Your own fitness and criterion: a regression, judged by its R squared.

python examples/own_fitness.py [EVALUATIONS]

The data is Friedman's first function (1991): ten inputs, of which five matter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import autoprune


def friedman(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 10) inputs between -1 and 1, and (count, 1) targets with noise of deviation 1."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 10, generator=rng)
    y = 10 * torch.sin(torch.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return 2 * x - 1, (y + torch.randn(count, generator=rng)).unsqueeze(1)


def r2(model: nn.Module, batches: Sequence[autoprune.Batch]) -> dict[str, float]:
    """The share of the targets' variance that the network explains, and its squared error for the search to follow."""
    output = torch.cat([model(*batch.inputs) for batch in batches])
    target = torch.cat([batch.target for batch in batches])
    error = functional.mse_loss(output, target)
    return {"r2": float(1 - error / target.var(correction=0)), "error": float(error)}


@autoprune.needs("moments")
def outgoing(weights: Any, statistics: Any) -> torch.Tensor:
    """A neuron's score, higher ones stay longer: the energy that it brings into the layers that read it."""
    scores = []
    for consumer in statistics.consumers:
        energy = consumer.weight.square().sum(dim=0) * consumer.square  # of each input of the layer
        scores.append(energy[consumer.columns].sum(dim=1))
    return torch.stack(scores).sum(dim=0)


def trained(steps: int = 800) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x, y = friedman(4000, seed=0)
    nn.init.constant_(model[-1].bias, y.mean().item())
    for step in range(steps):
        chosen = slice(step % 8 * 500, (step % 8 + 1) * 500)
        optimizer.zero_grad()
        functional.mse_loss(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    model = trained()
    data = autoprune.Data.from_arrays(friedman(1000, 1)[:1], friedman(1000, 2), friedman(1000, 3))
    front = autoprune.search(
        model,
        data,
        objectives=(autoprune.Objective("r2", "max"), "params"),
        fitness=r2,
        guide="error",
        criterion=outgoing,
        evaluations=evaluations,
        seed=0,
    )
    with torch.no_grad():
        dense = r2(model, data.report)["r2"]
    print(f"dense: {sum(p.numel() for p in model.parameters()):,} parameters, R squared {dense:.4f}")
    for member in front:
        print(f"{member['params']:5,.0f} parameters, R squared {member['r2']:.4f}")


if __name__ == "__main__":
    main()
