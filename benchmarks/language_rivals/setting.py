"""What every method is given, and the choice among the networks it makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from autoprune.measure.batch import Batch
from autoprune.measure.fitness import language_model
from language_rivals.decoder import Kept, costs, cut, everything
from language_rivals.moments import Moments, output_moments

SCREENING = 2  # batches of the selection set that all networks are measured on
FINALISTS = 2  # networks within a budget that are measured on the whole set


@dataclass(frozen=True)
class Budget:
    """A share of a dense cost, "macs" or "params"."""

    cost: str
    share: float


@dataclass(frozen=True)
class Pruned:
    """A network, its costs as shares of the dense ones, and the options that made it.

    `kept` is what stays of the dense network, None where the network has other shapes.
    """

    network: nn.Module
    ratios: Mapping[str, float]
    options: str = ""
    kept: Kept | None = None

    def within(self, budget: Budget) -> bool:
        return self.ratios[budget.cost] <= budget.share


@dataclass(frozen=True)
class Chosen:
    """The network of a method that is best on the selection set within a budget."""

    pruned: Pruned
    perplexity: float


@dataclass(frozen=True)
class Setting:
    """The dense model, the calibration batches (b, length), the selection set and the budgets."""

    model: nn.Module
    calibrate: Sequence[torch.Tensor]
    select: Sequence[Batch]
    budgets: Sequence[Budget]

    @property
    def length(self) -> int:
        return self.calibrate[0].shape[1]

    @cached_property
    def dense_costs(self) -> dict[str, int]:
        return costs(self.model.config, everything(self.model.config), self.length)

    @cached_property
    def moments(self) -> list[Moments]:
        """Of the inputs of all output projections of the dense model."""
        return output_moments(self.model, self.calibrate)

    def ratios(self, kept: Kept, *, biased: bool = False) -> dict[str, float]:
        found = costs(self.model.config, kept, self.length, biased=biased)
        return {name: value / self.dense_costs[name] for name, value in found.items()}

    def fits(self, kept: Kept, budget: Budget, *, biased: bool = False) -> bool:
        return self.ratios(kept, biased=biased)[budget.cost] <= budget.share

    def pruned(self, kept: Kept, options: str = "") -> Pruned:
        return Pruned(cut(self.model, kept), self.ratios(kept), options, kept)

    def meets_all(self, kept: Kept) -> bool:
        """Whether this is within all budgets, so that nothing more has to go."""
        return all(self.fits(kept, budget) for budget in self.budgets)


def perplexity(network: nn.Module, batches: Sequence[Batch]) -> float:
    with torch.no_grad():
        return language_model(network, batches, ("perplexity",))["perplexity"]


def calibration_perplexity(network: nn.Module, setting: Setting) -> float:
    return perplexity(network, [Batch((tokens,), tokens) for tokens in setting.calibrate])


def best_within(setting: Setting, candidates: Iterable[Pruned]) -> dict[Budget, Chosen]:
    """For each budget the candidate within it that is best on the selection set.

    Only the best ones within a budget on the first batches of the set are measured on all of it.
    """
    finalists: dict[Budget, list[Chosen]] = {budget: [] for budget in setting.budgets}
    for pruned in candidates:
        budgets = [budget for budget in setting.budgets if pruned.within(budget)]
        if not budgets:
            continue
        found = Chosen(pruned, perplexity(pruned.network, setting.select[:SCREENING]))
        for budget in budgets:
            finalists[budget] = sorted([*finalists[budget], found], key=by_perplexity)[:FINALISTS]
    distinct = {id(chosen.pruned): chosen.pruned for some in finalists.values() for chosen in some}
    measured = {key: Chosen(pruned, perplexity(pruned.network, setting.select)) for key, pruned in distinct.items()}
    return {
        budget: min((measured[id(chosen.pruned)] for chosen in some), key=by_perplexity)
        for budget, some in finalists.items()
        if some
    }


def by_perplexity(chosen: Chosen) -> float:
    return chosen.perplexity
