"""A small convolutional network and a small transformer, and the stages of a search on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.core.levels import LevelRule, build_space
from autoprune.core.space import Candidate
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.measure.settings import ScorerSettings
from autoprune.prune.bank.channels import Bank, make_bank
from autoprune.prune.bank.weight_units import sparse_weights
from autoprune.prune.bank.weights import make_weight_bank
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import make_reference
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.criteria.ordering import order_units
from autoprune.prune.find import find_structure
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import measured_weights
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.verify import verify_positions

EXAMPLES, BATCH = 24, 8
CRITERION_KINDS = ("l2", "wanda", "obs", "taylor", "fisher", "hap")


class Convolutional(nn.Module):
    """A residual block with batch norms, a grouped convolution of stride 2, and a classifier."""

    shape = (3, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.a_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.b_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.c, self.c_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.d, self.d_norm = nn.Conv2d(8, 12, 3, padding=1, stride=2, groups=2), nn.BatchNorm2d(12)
        self.out = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a_norm(self.a(x)))
        x = torch.relu(x + self.c_norm(self.c(torch.relu(self.b_norm(self.b(x))))))
        return self.out(torch.relu(self.d_norm(self.d(x))).mean((2, 3)))


class Transformer(nn.Module):
    """An encoder layer and a classifier of the mean token."""

    shape = (5, 6)

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.into, self.out = nn.Linear(6, 16), nn.Linear(16, 4)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(self.into(x)).mean(dim=1))


@dataclass
class Setting:
    """A network with random weights and statistics, and examples, on a device."""

    model: nn.Module
    batches: list[Batch]
    structure: Structure

    @staticmethod
    def on(device: torch.device | str, network: type[nn.Module], examples: int = EXAMPLES) -> Setting:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = network().eval()
            for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
                norm.running_mean.uniform_(-0.2, 0.2)
                norm.running_var.uniform_(0.5, 1.5)
            x, y = torch.randn(examples, *network.shape), torch.randint(4, (examples,))
        model = model.to(device)
        batches = [Batch((a.to(device),), b.to(device)) for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)]
        return Setting(model, batches, find_structure(model, tuple(a[:2] for a in batches[0].inputs)))

    @property
    def inputs(self) -> list[tuple[torch.Tensor, ...]]:
        return [batch.inputs for batch in self.batches]

    @property
    def example(self) -> tuple[torch.Tensor, ...]:
        return tuple(x[:2] for x in self.batches[0].inputs)

    @property
    def units(self) -> list[str]:
        return [unit.name for unit in self.structure.units]

    def bank(self, criterion: str = "obs") -> Bank:
        return make_bank(self.model, self.structure, self.units, CRITERIA[criterion], self.inputs)

    def orders(self, bank: Bank, criterion: str) -> dict[str, np.ndarray]:
        """The orders of all units, by the moments of a bank."""
        given = self.structure.units, CRITERIA[criterion], bank.moments, self.inputs
        return order_units(self.model, self.structure, *given)[0]

    def moments(self) -> dict[str, torch.Tensor]:
        """The second moments and the means of all inputs."""
        found, reasons = collect_moments(
            self.model, self.structure, measured_weights(self.structure.units), self.inputs
        )
        assert not reasons
        return {f"{name} {kind}": getattr(own, kind) for name, own in found.items() for kind in ("gram", "mean")}

    def scorer(self, bank: Bank, **settings: Any) -> Scorer:
        space = build_space(self.structure.units, (LevelRule("*", (0.5, 0.75)),))
        select = with_dense_outputs(self.model, self.batches, classification)
        return Scorer(bank, space, self.inputs, select, classification, ScorerSettings(**settings))

    def fitted(self, bank: Bank, *, jointly: bool, **options: Any) -> dict[str, torch.Tensor]:
        """The tensors of the network of half of each unit after its fit, which are verified."""
        subnet = bank.subnet({unit.name: max(unit.least, unit.width // 2) for unit in self.structure.units})
        network = bank.build(subnet)
        reference = make_reference(self.model, self.structure, self.inputs)
        result = compensate(network, self.structure, reference, subnet.indices, jointly=jointly, **options)
        assert any(fit.kept for fit in result.fits.values())
        tensors = named_tensors(network)
        report = verify_positions(self.model, network, self.structure, subnet.positions, self.example, tensors)
        assert report.ok
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def sparse(self, masks: str) -> dict[str, torch.Tensor]:
        """The tensors of the network of half of each unit with zeros in half of each weight."""
        weights = sparse_weights(self.model, self.structure, (LevelRule("*", (0.5,), kind="weights"),))
        bank = self.bank().with_weights(make_weight_bank(self.model, self.structure, weights, masks, self.inputs))
        counts = {unit.name: max(unit.least, unit.width // 2) for unit in self.structure.units}
        network = bank.build(bank.subnet({**counts, **{name: own.whole // 2 for name, own in weights.items()}}))
        return {name: tensor.detach().cpu() for name, tensor in named_tensors(network).items()}

    def outputs(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the network of half of each unit returns with these tensors."""
        bank = self.bank("l2")
        subnet = bank.subnet({unit.name: max(unit.least, unit.width // 2) for unit in self.structure.units})
        network = bank.build(subnet)
        with torch.no_grad():
            for name, tensor in named_tensors(network).items():
                tensor.copy_(tensors[name])
            return torch.cat([network(*inputs) for inputs in self.inputs]).cpu()


def score(scorer: Scorer, level: int = 1) -> dict[str, float]:
    """The values of the network with this level of every unit."""
    levels = tuple(min(level, len(own) - 1) for own in scorer.space.levels)
    evaluation = scorer.score(Candidate(levels))
    assert evaluation.status == "ok", evaluation.cause
    return dict(evaluation.values)


STAGES: dict[str, Callable[[Setting, Bank], Any]] = {
    **{f"order by {name}": lambda s, bank, name=name: s.orders(bank, name) for name in CRITERION_KINDS},
    "moments": lambda s, bank: s.moments(),
    "score": lambda s, bank: score(s.scorer(bank)),
    "score of a batch": lambda s, bank: score(s.scorer(bank, batch_norms="batch")),
    "fit": lambda s, bank: s.outputs(s.fitted(bank, jointly=False)),
    "joint fit": lambda s, bank: s.outputs(s.fitted(bank, jointly=True)),
}


def assert_close(found: Any, expected: Any, share: float) -> None:
    """Compares results of stages, up to a share of the largest value."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value, share)
    else:
        ours, theirs = (np.asarray(torch.as_tensor(x).cpu().double()) for x in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * np.abs(theirs).max())
